"""Which earlier studies a run is compared with, on a real ledger and run folders, without an engine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from reporting_cases import MODEL, make_case
from ward import Ward

from dicom_node.ledger import OutputObject, RunState
from dicom_node.phantom import brain_mr_study
from inference.analysis_files import save_outcome
from inference.findings import Caveat as Why
from inference.findings import Doubt, Outcome
from integration.priors import PriorStudies, describe_comparisons, load_comparisons
from integration.run_folder import RunFolder
from reporting.comparison import Course

TODAY = datetime(2026, 3, 29, 9, 30, tzinfo=UTC)
CASE = make_case()


class Archive(Ward):
    """A ward whose runs are read by hand."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.priors = PriorStudies(ledger=self.ledger, folder_of=self.folder)
        self.seed = 0

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs, run_id)

    def read(self, days_ago: float, patient: str = "PHANTOM-1", analysis=CASE.analysis, **header: str) -> str:
        """Receive a study of so many days ago and keep what a model said of it; return the run."""
        self.seed += 1
        at = TODAY - timedelta(days=days_ago)
        study = brain_mr_study(self.seed, matrix=16, slices=1, patient_id=patient, acquired_at=at)
        datasets = list(study.datasets)[-1:]
        for keyword, value in header.items():
            setattr(datasets[0], keyword, value)
        self.receive(datasets)
        self.look_after(6)
        run_id, _ = self.submitted[-1]
        folder = self.folder(run_id)
        described = folder.read_study()
        told = {keyword: str(datasets[0].get(keyword, "")) for keyword in ("StudyDate", "StudyTime")}
        folder.write_study(
            replace(described, series=tuple(replace(series, header=told) for series in described.series))
        )
        path = save_outcome(folder.path, Outcome(analysis=analysis))
        folder.write_json(f"reading-{analysis.model.name}.json", {"analysis": path.name})
        self.ledger.set_run_state(run_id, RunState.DONE)
        return run_id

    def compare(self, run_id: str, analysis=CASE.analysis):
        return self.priors.compare(run_id, [analysis], {}, {})


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_the_latest_earlier_study_of_the_patient_is_the_prior(archive: Archive) -> None:
    archive.read(200)
    prior = archive.read(73)
    archive.read(20, patient="PHANTOM-2")
    archive.read(-5)
    (comparison,) = archive.compare(archive.read(0))
    assert (comparison.prior.run_id, comparison.prior.days) == (prior, 73)
    assert comparison.prior.studied_on == (TODAY - timedelta(days=73)).date()
    assert {change.course for change in comparison.changes} == {Course.UNCHANGED}
    said = describe_comparisons([comparison], {})
    assert said[0].text.startswith("Compared with the study of 73 days earlier")


def test_a_patient_without_an_earlier_study_has_no_comparison(archive: Archive) -> None:
    run_id = archive.read(0)
    assert archive.compare(run_id) == ()
    assert load_comparisons(archive.folder(run_id)) == ()
    assert describe_comparisons((), {}) == ()


def test_earlier_on_the_same_day_is_earlier(archive: Archive) -> None:
    morning = archive.read(0.1)
    noon = archive.read(0)
    (comparison,) = archive.compare(noon)
    assert (comparison.prior.run_id, comparison.prior.days) == (morning, 0)
    assert archive.compare(morning) == ()


def test_a_study_without_a_date_is_neither_earlier_nor_later(archive: Archive) -> None:
    undated = archive.read(50, StudyDate="")
    run_id = archive.read(0)
    assert archive.compare(run_id) == ()
    assert archive.compare(undated) == ()


def test_a_study_that_another_model_read_is_passed_over(archive: Archive) -> None:
    prior = archive.read(90)
    archive.read(40, analysis=replace(CASE.analysis, model=replace(MODEL, name="another-model")))
    refusal = Doubt(caveat=Why.CORRUPTED, sentence="Broken.", is_blocking=True)
    archive.read(30, analysis=replace(CASE.analysis, findings=(), doubts=(refusal,)))
    (comparison,) = archive.compare(archive.read(0))
    assert comparison.prior.run_id == prior


def test_a_run_that_has_not_ended_or_is_gone_is_passed_over(archive: Archive) -> None:
    prior = archive.read(90)
    archive.ledger.set_run_state(archive.read(40), RunState.QUARANTINED, "no")
    damaged = archive.read(30)
    (archive.folder(damaged).path / f"analysis-{MODEL.name}.json").write_text("{")
    gone = archive.read(20)
    for path in archive.folder(gone).path.iterdir():
        path.unlink()
    (comparison,) = archive.compare(archive.read(0))
    assert comparison.prior.run_id == prior


def test_once_results_exist_the_run_stays_compared_with_what_it_was(archive: Archive) -> None:
    run_id = archive.read(0)
    assert archive.compare(run_id) == ()
    archive.read(60)
    archive.ledger.record_objects(
        run_id,
        (OutputObject(object_uid="1.2", kind="pdf", path="p", sha256="", sop_class_uid="", series_uid=""),),
    )
    assert archive.compare(run_id) == ()


def test_before_results_exist_a_prior_that_came_is_taken_up(archive: Archive) -> None:
    run_id = archive.read(0)
    assert archive.compare(run_id) == ()
    prior = archive.read(60)
    (comparison,) = archive.compare(run_id)
    assert comparison.prior.run_id == prior
    assert load_comparisons(archive.folder(run_id)) == (comparison,)
