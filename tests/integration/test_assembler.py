"""When a run begins: on a real ledger and store, with a clock that the test turns."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from integration_rig import small_study
from pydicom.dataset import Dataset

from dicom_node.completeness import CompletenessPolicy
from dicom_node.intake import Intake, Provenance
from dicom_node.ledger import Ledger
from dicom_node.storage import InstanceStore
from integration.assembler import Assembler, CompletenessPolicies
from integration.observability import Metrics
from integration.run_folder import RunFolder

SITE_KEY = b"k" * 32


class Ward:
    """A node's front half: what arrives, and what is handed to the engine."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.ledger = Ledger.connect(f"sqlite:///{folder / 'ledger.db'}", clock=self.clock)
        self.ledger.migrate()
        store = InstanceStore(folder / "instances", min_free_bytes=0, min_free_fraction=0.0)
        self.intake = Intake(store, self.ledger, self.clock)
        self.submitted: list[tuple[str, int]] = []
        self.expected: int | None = None
        self.questions: list[str] = []
        self.runs = folder / "runs"
        self.assembler = Assembler(
            ledger=self.ledger,
            store=store,
            site_key=SITE_KEY,
            policies=CompletenessPolicies(
                default=CompletenessPolicy(quiet_period_s=5),
                by_source={"SLOW": CompletenessPolicy(quiet_period_s=60)},
            ),
            folder_of=lambda run_id: RunFolder(self.runs, run_id),
            submit=lambda run_id, attempt: self.submitted.append((run_id, attempt)),
            ask_expected=self.ask,
            metrics=Metrics(),
            clock=self.clock,
        )

    def clock(self) -> datetime:
        return self.now

    def ask(self, source_ae: str, _study_key: str, _study_uid: str) -> int | None:
        self.questions.append(source_ae)
        return self.expected

    def receive(self, datasets: list[Dataset], *, source: str = "CT1") -> None:
        provenance = Provenance(source_ae=source, source_address="", association_id=f"{source}-{self.now}")
        self.ledger.open_association(provenance.association_id, source, self.now)
        for dataset in datasets:
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            self.intake.accept(buffer.getvalue(), provenance)
        self.ledger.close_association(provenance.association_id, self.now, aborted=False)

    def look_after(self, seconds: float) -> list[tuple[str, int]]:
        self.now += timedelta(seconds=seconds)
        self.assembler.look()
        return self.submitted


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    opened = Ward(tmp_path)
    yield opened
    opened.assembler.stop()
    opened.ledger.close()


def test_a_quiet_study_is_submitted_once(ward: Ward) -> None:
    ward.receive(small_study())
    assert ward.look_after(1) == []
    assert len(ward.look_after(5)) == 1
    assert len(ward.look_after(60)) == 1
    run_id, attempt = ward.submitted[0]
    assert attempt == 1
    assert len(RunFolder(ward.runs, run_id).read_study().instances) == len(small_study())


def test_each_source_has_its_own_quiet_period(ward: Ward) -> None:
    ward.receive(small_study(), source="SLOW")
    assert ward.look_after(30) == []
    assert len(ward.look_after(31)) == 1


def test_the_expected_count_ends_the_wait_at_once(ward: Ward) -> None:
    ward.expected = len(small_study())
    ward.receive(small_study())
    ward.look_after(0.1)  # asks
    assert len(ward.look_after(0.1)) == 1


def test_a_study_that_is_short_of_its_count_waits_and_is_asked_for_once_a_change(ward: Ward) -> None:
    study = small_study()
    ward.expected = len(study)
    ward.receive(study[:-2])
    for _ in range(5):
        assert ward.look_after(30) == []
    assert ward.questions == ["CT1"]
    ward.receive(study[-2:])
    ward.look_after(0.1)
    assert len(ward.look_after(0.1)) == 1


def test_a_source_that_does_not_answer_holds_up_no_study_for_long(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = threading.Event()
    monkeypatch.setattr(ward.assembler, "_ask_expected", lambda *_: silence.wait(20) and None)
    ward.receive(small_study())
    assert ward.look_after(6) == []
    assert len(ward.look_after(15)) == 1
    silence.set()


def test_a_study_that_never_gets_its_images_is_read_after_the_longest_wait(ward: Ward) -> None:
    study = small_study()
    ward.expected = len(study) + 1
    ward.receive(study)
    assert ward.look_after(600) == []
    assert len(ward.look_after(301)) == 1


def test_a_crash_between_submitting_and_noting_it_submits_the_same_run_again(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.receive(small_study())
    with monkeypatch.context() as crash:
        crash.setattr(ward.ledger, "mark_assembled", lambda *_: 1 / 0)
        ward.look_after(6)
    ward.look_after(1)
    assert len(ward.submitted) == 2
    assert ward.submitted[0] == ward.submitted[1]
    (study,) = ward.ledger.study_overview(10)
    assert (study.run_count, study.is_collecting) == (1, False)


def test_late_images_are_a_second_version_of_the_whole_study(ward: Ward) -> None:
    study = small_study()
    ward.receive(study[:-1])
    ward.look_after(6)
    ward.receive(study[-1:])
    ward.look_after(6)
    (first, _), (second, _) = ward.submitted
    assert first != second
    assert ward.ledger.run(second).run.predecessor == first
    assert len(RunFolder(ward.runs, second).read_study().instances) == len(study)
