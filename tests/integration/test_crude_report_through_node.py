"""A crude report through a whole node: kept in the run, offered as unverified, never sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration_rig import embedded_settings, ended_runs, send_study, wait_until
from tiny_packages import write_label_package, write_report_package

from dicom_node.chest_phantom import chest_study
from dicom_node.ledger import RunState
from integration.app import Node
from reporting.language.crude_report import crude_sentences

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's and uvicorn's own threads warn at shutdown

RULES = """
rules:
  - {name: chest, when: {modality: [CR, DX]}, models: [%s]}
"""


def _read(tmp_path: Path, models: str) -> tuple[str, RunState, Path, str]:
    settings = embedded_settings(tmp_path)
    write_label_package(tmp_path / "models")
    write_report_package(tmp_path / "models")
    settings.rules_file.write_text(RULES % models)  # type: ignore[union-attr]
    with Node(settings) as node:
        node.start()
        send_study(node, list(chest_study(1).datasets), tmp_path / "study")
        wait_until(lambda: len(ended_runs(node)) == 1)
        row = node.ledger.run(ended_runs(node)[0])
        return row.run.run_id, row.state, node.pipeline.folder(row.run.run_id).path, row.reason


def test_crude_sentences_stay_in_the_run_and_out_of_every_result(tmp_path: Path) -> None:
    _, state, folder, reason = _read(tmp_path, "chest-xray-labels, chest-xray-report")
    assert state is RunState.DONE, reason
    assert crude_sentences(folder) == ("No effusion.",)
    sent = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert sent
    for path in sent:
        content = path.read_bytes()
        assert b"No effusion." not in content, path
        assert b"chest-xray-report" not in content, path


def test_a_crude_report_alone_is_no_reading(tmp_path: Path) -> None:
    _, state, _, reason = _read(tmp_path, "chest-xray-report")
    assert state is RunState.QUARANTINED
    assert "a crude report alone is not a reading" in reason
