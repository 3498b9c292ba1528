"""Versions side by side, shadows, and priority, through the whole node."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import yaml
from integration_rig import embedded_settings, ended_runs, send_study, small_study, wait_until
from random_model_package import NAME, write_random_package

from dicom_node.ledger import RunState
from dicom_node.routing import Priority
from inference.findings import Outcome, RiskClass, Triage
from integration import pipeline
from integration.app import Node

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's and uvicorn's own threads warn at shutdown

CHAMPION, CHALLENGER = f"{NAME}@0.1.0", f"{NAME}@0.2.0"
RULES = f"""
rules:
  - {{name: brain, when: {{modality: MR}}, models: ["{CHAMPION}", absent], shadow: ["{CHALLENGER}", absent]}}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    settings = embedded_settings(tmp_path)
    write_random_package(tmp_path / "models", seed=5, version="0.2.0", threshold=0.4)
    settings.rules_file.write_text(RULES)  # type: ignore[union-attr]
    with Node(settings) as running:
        running.start()
        yield running


def test_a_shadow_reads_and_is_compared_and_nothing_of_it_leaves(node: Node, tmp_path: Path) -> None:
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    wait_until(lambda: node.ledger.compared_models() == ((CHAMPION, CHALLENGER, 1),))
    row = node.ledger.run(ended_runs(node)[0])
    assert row.state is RunState.DONE, row.reason
    folder = node.pipeline.folder(row.run.run_id)
    assert folder.exists(f"shadow/{CHALLENGER}/analysis-{NAME}.json")
    assert folder.exists(f"shadow/{CHALLENGER}/mask-{NAME}.npz")

    shadow = json.loads((folder.path / f"shadow/{CHALLENGER}/analysis-{NAME}.json").read_text())
    secrets = (b"0.2.0", shadow["analysis"]["model"]["weights_sha256"].encode())
    made = [path for path in folder.path.rglob("*") if path.is_file() and "shadow" not in path.parts]
    sent = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(sent) == len(node.ledger.objects_of(row.run.run_id)) > 0
    for path in (*made, *sent):
        if path.name != "decision.json":
            assert not any(secret in path.read_bytes() for secret in secrets), path

    told = {entry["model"]: entry for entry in row.decision["models"] if entry["is_shadow"]}  # type: ignore[index]
    assert told[CHALLENGER]["runs"]
    assert not told["absent"]["is_installed"]


def test_the_comparison_is_printed_as_a_table_and_as_json(node: Node, tmp_path: Path) -> None:
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(node.ledger.compared_models()) == 1)
    config = tmp_path / "preread.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(node.settings.data_dir)}))

    def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "integration.cli",
            "models",
            "compare",
            *arguments,
            "-c",
            str(config),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "kappa" in compare(CHAMPION, CHALLENGER).stdout
    report = json.loads(compare(NAME, CHALLENGER, "--json").stdout)
    (label,) = report["labels"]
    assert (report["studies"], label["label"], label["studies"]) == (1, "neoplasm", 1)
    unknown = compare(CHALLENGER, CHAMPION)
    assert unknown.returncode == 1
    assert f"{CHAMPION} with {CHALLENGER} (1 studies)" in " ".join(unknown.stderr.split())


def test_a_failing_shadow_is_noted_and_the_report_goes_out(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_models_say(monkeypatch, lambda version, outcome: outcome if version == "0.1.0" else None)
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    wait_until(lambda: len(node.ledger.compared_models()) == 1)
    assert node.ledger.run(ended_runs(node)[0]).state is RunState.DONE
    ((label,),) = node.ledger.comparisons_of(CHAMPION, CHALLENGER).values()
    assert label.challenger_answer == "failed"


def test_high_risk_raises_the_priority_on_the_worklist_and_a_shadow_has_no_say(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    risks = {"0.1.0": RiskClass.LOW, "0.2.0": RiskClass.HIGH}
    _let_models_say(monkeypatch, lambda version, outcome: _with_risk(outcome, risks[version]))
    send_study(node, small_study(1), tmp_path / "calm")
    wait_until(lambda: len(node.ledger.compared_models()) == 1 and len(ended_runs(node)) == 1)
    (calm,) = ended_runs(node)
    assert node.ledger.run(calm).priority is Priority.ROUTINE

    risks["0.1.0"] = RiskClass.HIGH
    send_study(node, small_study(2), tmp_path / "urgent")
    wait_until(lambda: len(ended_runs(node)) == 2)
    (urgent,) = {*ended_runs(node)} - {calm}
    with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}", trust_env=False) as client:
        listed = client.get("/api/worklist").raise_for_status().json()
        studies = client.get("/api/studies").raise_for_status().json()
    assert [row["last_run_id"] for row in listed] == [urgent, calm]
    assert listed[0]["priority"] == "stat"
    assert listed[0]["priority_reason"] == f"{NAME} 0.1.0 calls the study high risk (probability 0.90)"
    assert {row["last_run_id"]: row["priority"] for row in studies} == {urgent: "stat", calm: "routine"}


def _with_risk(outcome: Outcome, risk: RiskClass) -> Outcome:
    triage = Triage(risk=risk, score=0.9, predictive_value=0.8, calibration_patients=50)
    return replace(outcome, analysis=replace(outcome.analysis, triage=triage))


def _let_models_say(monkeypatch: pytest.MonkeyPatch, change) -> None:
    """Let each version say what ``change`` makes of its outcome; None makes it fail."""
    original = pipeline.read_study

    def read_study(package, *arguments, **options):
        changed = change(package.card.version, original(package, *arguments, **options))
        if changed is None:
            raise ValueError("DOE^JANE")
        return changed

    monkeypatch.setattr(pipeline, "read_study", read_study)
