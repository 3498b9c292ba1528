"""A patient's CT and MR, two studies, through a whole node with a fusion model of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from integration_rig import embedded_settings, ended_runs, send_study, small_study, wait_until
from pydicom.dataset import Dataset
from random_fusion_package import NAME, write_fusion_package

from dicom_node.ledger import RunState
from dicom_node.pairing import PairingPolicy
from dicom_node.phantom import head_ct_study
from inference.analysis_files import load_outcome
from inference.findings import Outcome, Scale
from integration.app import Node
from integration.settings import PairingSection

PATIENT = "FUSION-1"
RULES = f"""
rules:
  - name: head
    when: {{modality: [CT, MR]}}
    models: [{NAME}]
fallback: {{models: []}}
"""


def mr_study() -> list[Dataset]:
    """Return the MR of the patient."""
    return of_patient(small_study())


def ct_study() -> list[Dataset]:
    """Return the CT of the patient."""
    return of_patient(list(head_ct_study(3, matrix=64, slices=6).datasets))


def of_patient(datasets: list[Dataset]) -> list[Dataset]:
    for dataset in datasets:
        dataset.PatientID = PATIENT
    return datasets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_fusion_package(tmp_path / "models", class_bias=(-20.0, 0.0, 20.0))
    return tmp_path


def node_on(folder: Path, policy: PairingPolicy) -> Node:
    settings = embedded_settings(folder, pairing=PairingSection(policy=policy, window_hours=1e6))
    (folder / "rules.yaml").write_text(RULES)
    return Node(settings)


def outcome_of(node: Node, run_id: str) -> Outcome:
    return load_outcome(node.pipeline.folder(run_id).path / f"analysis-{NAME}.json")


def test_a_late_ct_makes_a_new_version_of_the_mrs_result_with_both(folder: Path) -> None:
    with node_on(folder, PairingPolicy.DEGRADE).start() as node:
        send_study(node, mr_study(), folder / "mr")
        wait_until(lambda: len(ended_runs(node)) == 1)
        (first,) = ended_runs(node)
        assert [one.role for one in outcome_of(node, first).analysis.inputs] == ["mr"]
        send_study(node, ct_study(), folder / "ct")
        wait_until(lambda: len(ended_runs(node)) == 3)
        rows = {row.run.run_id: row for row in node.ledger.runs_in((RunState.DONE, RunState.QUARANTINED))}
        assert {run_id: row.reason for run_id, row in rows.items() if row.state is not RunState.DONE} == {}
        second = next(row for row in rows.values() if row.run.predecessor == first)
        outcome = outcome_of(node, second.run.run_id)
        assert [one.role for one in outcome.analysis.inputs] == ["mr", "ct"]
        assert outcome.analysis.study_uid == outcome_of(node, first).analysis.study_uid
        assert Scale.TUMOUR_CLASS in {said.scale for said in outcome.analysis.estimates}
        assert len(outcome.heatmaps) == 2
        of_ct = next(row for row in rows.values() if row.run.study_key != second.run.study_key)
        assert [one.role for one in outcome_of(node, of_ct.run.run_id).analysis.inputs] == ["ct", "mr"]
        bundles = list((folder / "results").rglob("*.json"))
        assert any("DiagnosticReport" in json.dumps(json.loads(path.read_text())) for path in bundles)


def test_a_study_waits_for_its_partner(folder: Path) -> None:
    with node_on(folder, PairingPolicy.WAIT).start() as node:
        send_study(node, ct_study(), folder / "ct")
        send_study(node, mr_study(), folder / "mr")
        wait_until(lambda: len(ended_runs(node)) == 2)
        for run_id in ended_runs(node):
            assert node.ledger.run(run_id).state is RunState.DONE, node.ledger.run(run_id).reason
            assert len(outcome_of(node, run_id).analysis.inputs) == 2


def test_a_model_that_must_have_both_says_why_it_did_not_run(folder: Path) -> None:
    with node_on(folder, PairingPolicy.REQUIRE).start() as node:
        send_study(node, ct_study(), folder / "ct")
        wait_until(lambda: len(ended_runs(node)) == 1)
        decision = node.ledger.run(ended_runs(node)[0]).decision
        assert decision is not None
        assert "no series for the required role mr" in json.dumps(decision)
