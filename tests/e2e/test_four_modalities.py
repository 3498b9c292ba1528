"""Every kind of study over a real association to valid objects and a FHIR report, by the built-in rules.

The packages are tiny ones, so that this proves the way of a study and not the skill of a model; the last test
runs the shipped ones on a real patient where both are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pydicom
import pytest
from integration_rig import embedded_settings, send_study, wait_until
from pydicom.dataset import Dataset
from tiny_packages import write_every_package

from dicom_node.chest_phantom import chest_study
from dicom_node.ledger import RunRow, RunState
from dicom_node.pairing import PairingPolicy
from dicom_node.phantom import brain_mr_study, head_ct_study
from dicom_node.routing import Priority
from inference.findings import Analysis, RiskClass
from integration.app import Node
from integration.settings import CompletenessSection, PairingSection

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's and uvicorn's own threads warn at shutdown

REPOSITORY = Path(__file__).resolve().parents[2]
RADIOGRAPHS = REPOSITORY.parent / "shared" / "data" / "dicom" / "chest_cr_dx"
SHIPPED = {
    name
    for name in ("brain-tumour-lgg", "chest-xray-boxes", "chest-xray-labels", "head-ct")
    if any((REPOSITORY / "models" / name).glob("*/model.yaml"))
}
SIZE: Mapping[str, int] = {"matrix": 64, "slices": 10}


class Department:
    """A node with every model, and what was sent to it."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.sent = 0

    def send(self, datasets: Sequence[Dataset]) -> str:
        """Send a study; return its Study Instance UID."""
        self.sent += 1
        send_study(self.node, list(datasets), self.folder / f"study-{self.sent}")
        return str(datasets[0].StudyInstanceUID)

    def wait(self) -> None:
        """Wait until every study was read and its results are delivered."""
        active = (RunState.QUEUED, RunState.RUNNING, RunState.DELIVERING)

        def is_done() -> bool:
            ledger = self.node.ledger
            studies = ledger.study_overview(100)
            is_known = not ledger.unindexed(1) and not any(row.is_collecting for row in studies)
            return is_known and all(row.run_count for row in studies) and not ledger.runs_in(active)

        wait_until(is_done, timeout_s=240)

    def runs(self, study_uid: str) -> tuple[RunRow, ...]:
        key = self.node.find_study(study_uid)
        return self.node.ledger.runs_of(key)

    def analyses(self, row: RunRow) -> dict[str, Analysis]:
        readings = self.node.pipeline.readings(row.run.run_id)
        return {reading.analysis.model.name: reading.analysis for reading in readings}

    def results(self, row: RunRow) -> dict[str, list[Path]]:
        """Return the delivered files of a run by kind."""
        found: dict[str, list[Path]] = {}
        folder = self.folder / "results" / row.run.study_key / row.run.run_id
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            found.setdefault(path.stem.split("-")[0], []).append(path)
        return found

    def objects(self, row: RunRow) -> list[Dataset]:
        paths = [path for paths in self.results(row).values() for path in paths if path.suffix == ".dcm"]
        return [pydicom.dcmread(path) for path in paths]

    def resources(self, row: RunRow) -> dict[str, list[dict]]:
        bundle = json.loads(self.results(row)["bundle"][0].read_text())
        found: dict[str, list[dict]] = {}
        for entry in bundle["entry"]:
            found.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
        return found


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    folder = tmp_path_factory.mktemp("department")
    write_every_package(folder / "models")
    settings = embedded_settings(
        folder,
        rules_file=None,
        pairing=PairingSection(policy=PairingPolicy.DEGRADE),
        completeness=CompletenessSection(quiet_period_s=1.0, aborted_quiet_period_s=1.0),
    )
    with Node(settings) as node:
        node.start()
        yield Department(node, folder)


@pytest.fixture(scope="module")
def early(department: Department) -> dict[str, str]:
    """Send everything but the late study; return Study Instance UIDs."""
    both = brain_mr_study(3, patient_id="BOTH", **SIZE).datasets
    both_ct = head_ct_study(3, patient_id="BOTH", **SIZE).datasets
    sent = {
        "chest": department.send(chest_study(1, patient_id="CHEST", matrix=256).datasets),
        "ct": department.send(head_ct_study(2, patient_id="CT-ALONE", **SIZE).datasets),
        "late-mr": department.send(brain_mr_study(4, patient_id="LATE", **SIZE).datasets),
        "both-mr": department.send([*both, *both_ct]),
        "both-ct": str(both_ct[0].StudyInstanceUID),
    }
    department.wait()
    return sent


@pytest.fixture(scope="module")
def late(department: Department, early: dict[str, str]) -> str:
    """Send the CT of a patient whose MR was read alone; return its Study Instance UID."""
    uid = department.send(head_ct_study(4, patient_id="LATE", **SIZE).datasets)
    department.wait()
    return uid


def the_run(department: Department, study_uid: str) -> RunRow:
    (row,) = department.runs(study_uid)
    assert row.state is RunState.DONE, row.reason
    return row


def assert_is_reported(department: Department, row: RunRow, study_uid: str, patient_id: str) -> None:
    """Every object lies in the study of its patient, and the report is preliminary."""
    objects = department.objects(row)
    assert objects
    assert {dataset.StudyInstanceUID for dataset in objects} == {study_uid}
    assert {dataset.PatientID for dataset in objects} == {patient_id}
    assert {dataset.Manufacturer for dataset in objects} == {"Preread"}
    (report,) = department.resources(row)["DiagnosticReport"]
    assert report["status"] == "preliminary"


def test_a_chest_radiograph_ends_in_boxes_and_labels(department: Department, early: dict[str, str]) -> None:
    row = the_run(department, early["chest"])
    assert_is_reported(department, row, early["chest"], "CHEST")
    said = department.analyses(row)
    boxes, labels = said["chest-xray-boxes"], said["chest-xray-labels"]
    assert not boxes.is_refused, boxes.doubts
    assert not labels.is_refused, labels.doubts
    assert {finding.concept for finding in boxes.findings} == {"mass"}
    assert all(finding.box is not None for finding in boxes.findings)
    assert [(f.concept, str(f.presence)) for f in labels.findings] == [
        ("effusion", "present"), ("nodule", "absent"),
    ]  # fmt: skip
    results = department.results(row)
    assert {"findings", "heatmap", "narrative", "overview", "bundle"} <= set(results)
    assert len(results["findings"]) == 2
    assert len(department.resources(row)["Observation"]) > 2


def test_a_head_ct_ends_in_a_label_and_comes_first_on_the_worklist(
    department: Department, early: dict[str, str], late: str
) -> None:
    row = the_run(department, early["ct"])
    assert_is_reported(department, row, early["ct"], "CT-ALONE")
    said = department.analyses(row)["head-ct"]
    (finding,) = said.findings
    assert (finding.concept, str(finding.presence)) == ("intracranial_haemorrhage", "present")
    assert said.triage is not None
    assert said.triage.risk is RiskClass.HIGH
    assert row.priority is Priority.STAT
    assert "head-ct 0.1.0 calls the study high risk" in row.priority_reason
    listed = [entry.priority for entry in department.node.ledger.worklist(100)]
    assert listed == sorted(listed, key=lambda priority: priority is not Priority.STAT)
    assert set(listed) == {Priority.STAT, Priority.ROUTINE}


def test_a_brain_mr_ends_in_a_segmentation(department: Department, early: dict[str, str]) -> None:
    row = department.runs(early["late-mr"])[0]
    assert row.state is RunState.DONE, row.reason
    assert_is_reported(department, row, early["late-mr"], "LATE")
    assert "segmentation" in department.results(row)
    assert department.analyses(row)["brain-tumour-lgg"].findings


def test_fusion_reads_whichever_study_is_there(department: Department, early: dict[str, str]) -> None:
    alone = {"ct": the_run(department, early["ct"]), "mr": department.runs(early["late-mr"])[0]}
    for modality, row in alone.items():
        said = department.analyses(row)["ct-mr-fusion"]
        assert [given.role for given in said.inputs] == [modality]
        assert f"rests on the {modality.upper()}" in " ".join(said.notes)


def test_fusion_reads_both_studies_of_a_patient_and_says_so(
    department: Department, early: dict[str, str]
) -> None:
    for modality, other in (("mr", "ct"), ("ct", "mr")):
        study_uid = early[f"both-{modality}"]
        row = department.runs(study_uid)[-1]
        assert row.state is RunState.DONE, row.reason
        assert_is_reported(department, row, study_uid, "BOTH")
        said = department.analyses(row)["ct-mr-fusion"]
        assert [given.role for given in said.inputs] == [modality, other], "its own study carries the result"
        notes = " ".join(said.notes)
        assert f"rests on the {modality.upper()} and the {other.upper()}" in notes
        assert {str(estimate.scale) for estimate in said.estimates} >= {"tumour_class", "tumour_stage"}
        assert "estimates" in department.results(row)
        narrative = json.dumps(department.resources(row)["DiagnosticReport"])
        assert "malignant" in narrative


def test_a_late_second_study_is_read_with_the_first_and_reads_it_again(
    department: Department, early: dict[str, str], late: str
) -> None:
    first, second = department.runs(early["late-mr"])
    assert second.run.predecessor == first.run.run_id
    assert second.state is RunState.DONE, second.reason
    roles = [
        [given.role for given in department.analyses(row)["ct-mr-fusion"].inputs] for row in (first, second)
    ]
    assert roles == [["mr"], ["mr", "ct"]]
    of_ct = the_run(department, late)
    assert [given.role for given in department.analyses(of_ct)["ct-mr-fusion"].inputs] == ["ct", "mr"]
    assert_is_reported(department, second, early["late-mr"], "LATE")
    assert_is_reported(department, of_ct, late, "LATE")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not RADIOGRAPHS.is_dir(), reason="../shared/data/dicom is not there")
@pytest.mark.skipif(not {"chest-xray-labels", "head-ct"} <= SHIPPED, reason="the packages are not there")
def test_the_shipped_models_answer_a_real_radiograph_and_a_drawn_head(tmp_path: Path) -> None:
    settings = embedded_settings(tmp_path, rules_file=None, models_dir=REPOSITORY / "models")
    with Node(settings) as node:
        node.start()
        department = Department(node, tmp_path)
        film = pydicom.dcmread(RADIOGRAPHS / "misc-cxr__rsna_c64d5667.dcm")
        head = head_ct_study(2, patient_id="CT", slices=12, matrix=256).datasets
        sent = {"chest-xray-labels": department.send([film]), "head-ct": department.send(head)}
        department.wait()
        for model, study_uid in sent.items():
            row = the_run(department, study_uid)
            said = department.analyses(row)[model]
            assert said.findings or said.is_refused
            assert {"narrative", "bundle"} <= set(department.results(row))
