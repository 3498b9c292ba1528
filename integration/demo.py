"""Adapter: ``preread demo`` and ``preread analyze``: the whole node in one process, watched to the end.

The same node as in a hospital, with folders for everything: nothing here takes
a short cut around the store, the ledger, the engine or the gate.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pydicom

from dicom_node.clock import utc_now
from dicom_node.errors import PermanentError
from dicom_node.intake import Provenance
from dicom_node.ledger import RunRow, RunState
from dicom_node.part10 import split_part10
from dicom_node.study import derive_study_key
from inference.findings import Analysis
from integration.app import Node
from integration.connections import DimsePeer
from integration.demo_studies import DEMO_MODELS, DemoStudy, draw_demo_study
from integration.destinations import FolderSettings
from integration.sending import Sent, send_files
from integration.settings import (
    ClinicalSection,
    CompletenessSection,
    DicomSection,
    HttpSection,
    LanguageSection,
    Settings,
)
from reporting.overview import preview_png

_ENDED = frozenset({RunState.DONE, RunState.QUARANTINED})
_LOOK_EVERY_S: Final = 0.1
_DEMO_QUIET_PERIOD_S: Final = 1.0

#: Called with (stage, done, total) while a study is on its way.
Progress = Callable[[str, int, int], None]


class NothingToReadError(PermanentError):
    """No study came of what was given; the message says what to check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What came of one run, for people."""

    run: RunRow
    analyses: tuple[Analysis, ...]
    results: tuple[Path, ...]
    pictures: tuple[Path, ...]
    text: str
    seconds: float


def embedded_settings(
    out: Path,
    *,
    quiet_period_s: float = _DEMO_QUIET_PERIOD_S,
    is_clinical: bool = False,
    is_worded: bool | None = None,
) -> Settings:
    """Return the settings of a node that lives below one folder and takes free loopback ports.

    Whether the embedded language model words its reports is the node's default where nothing is said.
    """
    language: dict[str, Any] = {}
    if is_worded is not None:
        language["language"] = LanguageSection(backend="embedded" if is_worded else "none")
    return Settings(
        data_dir=out / "node",
        dicom=DicomSection(port=0),
        http=HttpSection(port=0),
        completeness=CompletenessSection(quiet_period_s=quiet_period_s),
        clinical=ClinicalSection(enabled=is_clinical),
        destinations=(FolderSettings(name="results", type="folder", path=out / "results"),),
        **language,
    )


def require_demo_model(node: Node, kind: DemoStudy) -> None:
    """Check that a model for a demo study is installed.

    Raises
    ------
    NothingToReadError
        If none is.
    """
    wanted = DEMO_MODELS[kind]
    if not set(node.catalogue.newest) & set(wanted):
        raise NothingToReadError(
            f"The demo {kind} needs the model {' or '.join(wanted)}: install it in the models folder "
            "(`preread models list` shows what is there)."
        )


def write_demo_study(folder: Path, kind: DemoStudy = DemoStudy.BRAIN_MR) -> list[Path]:
    """Write a synthetic study as Part 10 files; return them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, dataset in enumerate(draw_demo_study(kind), start=1):
        path = folder / f"{number:03d}-{dataset.SeriesNumber}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def send_to_node(node: Node, files: Sequence[Path], progress: Progress) -> None:
    """Send files to a node over a real association.

    Raises
    ------
    NothingToReadError
        If the node refused a file.
    """
    peer = DimsePeer(
        host=node.settings.dicom.host,
        port=node.dicom_port,
        ae_title=node.settings.dicom.ae_title,
        calling_ae_title="DEMO",
    )
    refused: list[Sent] = []
    done = 0

    def count(sent: Sent) -> None:
        nonlocal done
        done += 1
        if not sent.is_stored:
            refused.append(sent)
        progress("sending", done, len(files))

    send_files(peer, files, count)
    if refused:
        raise NothingToReadError(f"{len(refused)} of {len(files)} files were refused: {refused[0].detail}.")


def take_in(node: Node, files: Sequence[Path], progress: Progress) -> None:
    """Hand files to a node's intake, as if they had come from a sender called ANALYZE."""
    provenance = Provenance(source_ae="ANALYZE", source_address="", association_id="analyze")
    node.ledger.open_association(provenance.association_id, provenance.source_ae, utc_now())
    try:
        for number, file in enumerate(files, start=1):
            node.intake.accept(split_part10(file.read_bytes()), provenance)
            progress("reading files", number, len(files))
    finally:
        node.ledger.close_association(provenance.association_id, utc_now(), aborted=False)
        node.wake()


def keep_notes(node: Node, files: Sequence[Path], notes: Path) -> None:
    """Give a text file as the clinical notes of the one study that the files belong to.

    Raises
    ------
    NothingToReadError
        If the files belong to several studies: whose notes they are must be certain.
    """
    studies = {
        str(pydicom.dcmread(file, specific_tags=["StudyInstanceUID"]).StudyInstanceUID) for file in files
    }
    if len(studies) != 1:
        raise NothingToReadError("--notes goes with one study: give the files of one study alone.")
    node.notes.write(
        derive_study_key(studies.pop(), node.site_key), notes.read_text(encoding="utf-8", errors="replace")
    )


def wait_for_runs(node: Node, timeout_s: float) -> list[RunRow]:
    """Wait until every study in the node has ended its run; return the runs.

    Raises
    ------
    NothingToReadError
        If that takes longer than ``timeout_s``, or nothing that arrived is readable.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        studies = node.ledger.study_overview(1000)
        runs = [row for study in studies for row in node.ledger.runs_of(study.study_key)]
        if (
            studies
            and all(not study.is_collecting for study in studies)
            and all(run.state in _ENDED for run in runs)
        ):
            return runs
        unreadable = node.ledger.quarantined(1)
        if not studies and unreadable and not node.ledger.unindexed(1):
            raise NothingToReadError(f"Nothing that arrived is readable: {unreadable[0].reason}.")
        time.sleep(_LOOK_EVERY_S)
    raise NothingToReadError(f"The study did not end within {timeout_s:.0f} s; look at the log above.")


def report_run(node: Node, run: RunRow, out: Path, began: float) -> RunReport:
    """Gather what a run found and where it lies; write PNG previews below ``out``."""
    folder = node.pipeline.folder(run.run.run_id)
    readings = node.pipeline.readings(run.run.run_id) if folder.exists("text.json") else []
    sources = node.pipeline.sources(run.run.run_id) if readings else {}
    pictures = []
    for reading in readings:
        picture = preview_png(reading, sources[reading.analysis.inputs[0].series_uid])
        if picture is None:
            continue
        path = out / "previews" / f"{run.run.study_key}-{reading.analysis.model.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
        pictures.append(path)
    text = ""
    if folder.exists("text.json"):
        report = json.loads((folder.path / "text.json").read_bytes())
        lines = [
            f"{section['name'].capitalize()}: " + " ".join(s["text"] for s in section["sentences"])
            for section in report["sections"]
        ]
        text = "\n".join([*lines, f"Text: {report['provenance']['remark']}"])
    results = tuple(sorted(path for path in (out / "results").rglob("*") if path.is_file()))
    return RunReport(
        run=run,
        analyses=tuple(reading.analysis for reading in readings),
        results=results,
        pictures=tuple(pictures),
        text=text,
        seconds=time.monotonic() - began,
    )


def clear_folder(folder: Path, marker: str = ".preread-demo") -> None:
    """Empty a folder that an earlier demo made; refuse any other that is not empty.

    Raises
    ------
    NothingToReadError
        If the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / marker).exists():
            raise NothingToReadError(
                f"{folder} is not empty and no earlier demo made it: choose another --out."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / marker).touch()
