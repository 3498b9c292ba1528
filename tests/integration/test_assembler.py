"""When a run begins: on a real ledger and store, with a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration_rig import small_study
from ward import Ward

from integration.run_folder import RunFolder


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
