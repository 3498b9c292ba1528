"""A node with a language model, studies that are sent to it, and what goes out of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pydicom
from integration_rig import ended_runs, send_study, wait_until
from pydicom.dataset import Dataset

from dicom_node.ledger import RunState
from integration.app import Node
from integration.connections import HttpEndpoint
from integration.refining import gather_ground
from integration.settings import LanguageSection
from reporting.refine.prompt import Ground
from reporting.safety import REQUIRED_PHRASE

BUDGET_S = 4.0
Json = dict[str, Any]


def language(url: str, **changes: object) -> LanguageSection:
    values = {"backend": "endpoint", "model": "test-model", "endpoint": HttpEndpoint(url=url)}
    return LanguageSection(**(values | {"budget_s": BUDGET_S, "failures_before_rest": 1000} | changes))


class Ward:
    """A node with a language model, and studies that are sent to it one after the other."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.folder, self.sent = node, folder, 0

    def read(self, study: list[Dataset], timeout_s: float = 600) -> tuple[Json, Json, Dataset, float]:
        """Send a study; return the record of its text, its FHIR Bundle, its narrative, and the seconds."""
        before = set(ended_runs(self.node))
        self.sent += 1
        began = time.monotonic()
        send_study(self.node, study, self.folder / f"study-{self.sent}")
        wait_until(lambda: len(set(ended_runs(self.node)) - before) == 1, timeout_s=timeout_s)
        (run_id,) = set(ended_runs(self.node)) - before
        row = self.node.ledger.run(run_id)
        assert row.state is RunState.DONE, row.reason
        record = self.node.pipeline.folder(run_id).read_json("refinement.json")
        files = sorted((self.folder / "results").rglob("*"), key=lambda path: path.stat().st_mtime)
        bundle = next(path for path in reversed(files) if path.name.startswith("bundle"))
        narrative = next(path for path in reversed(files) if path.name.startswith("narrative"))
        seconds = time.monotonic() - began
        return record, json.loads(bundle.read_bytes()), pydicom.dcmread(narrative), seconds

    def ground(self) -> Ground:
        """Return what the text of the run in progress may rest on."""
        (row,) = self.node.ledger.runs_in((RunState.RUNNING,))
        run_id = row.run.run_id
        analyses = [reading.analysis for reading in self.node.pipeline.readings(run_id)]
        return gather_ground(analyses, self.node.pipeline.sources(run_id))


def texts_of(narrative: Dataset) -> list[str]:
    return [str(element.value) for element in narrative.iterall() if element.keyword == "TextValue"]


def report_of(bundle: Json) -> Json:
    resources = [entry["resource"] for entry in bundle["entry"]]
    return next(r for r in resources if r["resourceType"] == "DiagnosticReport")


def authors_of(bundle: Json) -> list[str]:
    devices = {
        entry["fullUrl"]: entry["resource"]["deviceName"][0]["name"]
        for entry in bundle["entry"]
        if entry["resource"]["resourceType"] == "Device"
    }
    (provenance,) = [
        entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "Provenance"
    ]
    return [
        devices.get(agent["who"]["reference"], "")
        for agent in provenance["agent"]
        if agent["type"]["coding"][0]["code"] == "author"
    ]


def require_draft(record, bundle, narrative, reason: str) -> None:
    assert (record["standing"], record["reason"]) == ("draft", reason)
    remark = record["remark"]
    assert remark.startswith("The draft stands")
    assert remark in texts_of(narrative)
    report = report_of(bundle)
    assert remark in report["conclusion"]
    assert remark in report["text"]["div"].replace("&#x27;", "'")
    assert report["conclusion"].startswith(REQUIRED_PHRASE)
    assert not any("endpoint" in author for author in authors_of(bundle))
