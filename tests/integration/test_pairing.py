"""CT and MR of a patient as two studies: on a real ledger and store, without a model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from integration_rig import small_study
from pydicom.dataset import Dataset
from ward import Ward

from dicom_node.pairing import FusionNeed, PairingPolicy, PairingRules
from dicom_node.study import Study
from integration.run_folder import RunFolder


def needs_of(study: Study) -> tuple[FusionNeed, ...]:
    """Say what each modality brings, as the rules would."""
    filled = frozenset(s.modality.lower() for s in study.series) & {"ct", "mr"}
    if not filled:
        return ()
    return (FusionNeed(model="fusion@1.0.0", filled=filled, missing=frozenset({"ct", "mr"}) - filled),)


def as_ct(datasets: list[Dataset], *, patient: str | None = None, date: str | None = None) -> list[Dataset]:
    """Return the study as if a CT had made it."""
    changed = copy.deepcopy(datasets)
    for dataset in changed:
        dataset.Modality = "CT"
        dataset.StudyInstanceUID += ".9"
        dataset.SeriesInstanceUID += ".9"
        dataset.SOPInstanceUID += ".9"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PatientID = patient or dataset.PatientID
        dataset.StudyDate = date or dataset.StudyDate
    return changed


MR = small_study()
CT = as_ct(small_study(2))


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    opened = Ward(tmp_path)
    pair(opened, PairingPolicy.DEGRADE)
    yield opened
    opened.assembler.stop()
    opened.ledger.close()


def pair(ward: Ward, policy: PairingPolicy) -> None:
    ward.assembler._pairing = PairingRules(policy=policy, wait=timedelta(minutes=10))
    ward.assembler._find_needs = needs_of


def read(ward: Ward, number: int) -> tuple[str, int]:
    """Return modality of a submitted run's study, and the number of its partners."""
    study = RunFolder(ward.runs, ward.submitted[number][0]).read_study()
    return study.series[0].modality, len(study.partners)


def test_both_studies_that_come_together_are_read_with_both(ward: Ward) -> None:
    ward.receive(MR)
    ward.receive(CT, source="CT2")
    ward.look_after(6)
    assert sorted(read(ward, number) for number in range(2)) == [("CT", 1), ("MR", 1)]
    ward.look_after(60)
    assert len(ward.submitted) == 2
    study = RunFolder(ward.runs, ward.submitted[0][0]).read_study()
    assert study.partners[0].study_uid != study.study_uid
    assert study.instances
    assert not set(study.instances) & set(study.partners[0].instances)


def test_a_late_second_study_makes_a_new_version_of_the_first_run(ward: Ward) -> None:
    ward.receive(MR)
    ward.look_after(6)
    assert [read(ward, 0)] == [("MR", 0)]
    ward.now += timedelta(hours=3)
    ward.receive(CT)
    ward.look_after(6)
    ward.look_after(1)
    assert sorted(read(ward, number) for number in range(1, len(ward.submitted))) == [("CT", 1), ("MR", 1)]
    again = next(
        run_id for run_id, _ in ward.submitted[1:] if read(ward, ward.submitted.index((run_id, 1)))[0] == "MR"
    )
    row = ward.ledger.run(again)
    assert (row.run.version, row.run.predecessor) == (2, ward.submitted[0][0])
    for _ in range(5):
        ward.look_after(30)
    assert len(ward.submitted) == 3
    assert all(not study.is_collecting for study in ward.ledger.study_overview(10))


def test_late_images_of_one_study_read_both_again(ward: Ward) -> None:
    ward.receive(MR[:-1])
    ward.receive(CT, source="CT2")
    ward.look_after(6)
    ward.receive(MR[-1:])
    ward.look_after(6)
    ward.look_after(1)
    ward.look_after(60)
    assert len(ward.submitted) == 4
    assert sorted(read(ward, number) for number in (2, 3)) == [("CT", 1), ("MR", 1)]
    for run_id, _ in ward.submitted[2:]:
        study = RunFolder(ward.runs, run_id).read_study()
        whole = len(study.instances) + len(study.partners[0].instances)
        assert whole == len(MR) + len(CT)


def test_a_study_waits_for_its_partner_and_is_then_read_with_it(ward: Ward) -> None:
    pair(ward, PairingPolicy.WAIT)
    ward.receive(MR)
    assert ward.look_after(6) == []
    assert ward.look_after(300) == []
    ward.receive(CT)
    ward.look_after(6)
    assert sorted(read(ward, number) for number in range(len(ward.submitted))) == [("CT", 1), ("MR", 1)]


def test_a_study_whose_partner_does_not_come_is_read_alone(ward: Ward) -> None:
    pair(ward, PairingPolicy.WAIT)
    ward.receive(MR)
    ward.look_after(590)
    assert ward.submitted == []
    ward.look_after(11)
    assert read(ward, 0) == ("MR", 0)


@pytest.mark.parametrize(
    "other",
    [as_ct(small_study(2), patient="SOMEBODY-ELSE"), as_ct(small_study(2), date="19991231")],
    ids=["another patient", "another year"],
)
def test_what_does_not_belong_together_is_read_apart(ward: Ward, other: list[Dataset]) -> None:
    ward.receive(MR)
    ward.receive(other, source="CT2")
    ward.look_after(6)
    ward.look_after(6)
    assert sorted(read(ward, number) for number in range(len(ward.submitted))) == [("CT", 0), ("MR", 0)]


def test_two_studies_of_one_modality_are_read_apart(ward: Ward) -> None:
    ward.receive(CT)
    ward.receive(as_ct(small_study(3)), source="CT2")
    ward.look_after(6)
    assert [read(ward, number) for number in range(2)] == [("CT", 0), ("CT", 0)]


def test_pairing_is_off_unless_the_site_wants_it(ward: Ward) -> None:
    pair(ward, PairingPolicy.OFF)
    ward.receive(MR)
    ward.receive(CT, source="CT2")
    ward.look_after(6)
    assert sorted(read(ward, number) for number in range(2)) == [("CT", 0), ("MR", 0)]


def test_a_crash_before_the_new_run_begins_loses_no_partner(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.receive(MR)
    ward.look_after(6)
    ward.receive(CT)
    with monkeypatch.context() as crash:
        crash.setattr(ward.ledger, "begin_next_run", lambda *_: 1 / 0)
        ward.look_after(6)
    ward.look_after(1)
    ward.look_after(1)
    assert sorted(read(ward, number) for number in range(1, len(ward.submitted))) == [("CT", 1), ("MR", 1)]
