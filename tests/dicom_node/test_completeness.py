from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.completeness import CompletenessPolicy, decide
from dicom_node.ledger import StudyEvidence
from dicom_node.study import StudyKey

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POLICY = CompletenessPolicy()


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _evidence(**changes: object) -> StudyEvidence:
    base = StudyEvidence(
        study_key=StudyKey("k"),
        source_ae="SCANNER",
        first_received_at=START,
        last_received_at=_at(10),
        indexed_count=20,
        arrived_count=20,
        last_closed_at=_at(11),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_an_open_association_holds_a_study_back_however_long_it_was_quiet() -> None:
    verdict = decide(_evidence(open_associations=1, expected_count=20, stable_at=_at(20)), POLICY, _at(800))
    assert not verdict.is_complete
    assert verdict.check_again_at is not None


def test_images_that_are_not_indexed_hold_a_study_back() -> None:
    assert not decide(_evidence(unindexed_count=3), POLICY, _at(100)).is_complete


def test_the_expected_count_completes_at_once_and_a_lower_one_waits() -> None:
    assert decide(_evidence(expected_count=20), POLICY, _at(11)).is_complete
    verdict = decide(_evidence(expected_count=21), POLICY, _at(300))
    assert not verdict.is_complete
    assert verdict.check_again_at is not None
    assert "20 of 21" in verdict.reason


def test_our_own_results_count_as_a_pacs_counts_them() -> None:
    assert decide(_evidence(expected_count=21, arrived_count=21), POLICY, _at(11)).is_complete


def test_a_stable_notification_counts_only_if_nothing_is_newer() -> None:
    assert decide(_evidence(stable_at=_at(10)), POLICY, _at(11)).is_complete
    assert not decide(_evidence(stable_at=_at(9)), POLICY, _at(11)).is_complete


def test_silence_completes_after_the_quiet_period() -> None:
    verdict = decide(_evidence(), POLICY, _at(15.9))
    assert not verdict.is_complete
    assert verdict.check_again_at == _at(16)
    assert decide(_evidence(), POLICY, _at(16)).is_complete


def test_an_abort_waits_longer() -> None:
    aborted = _evidence(was_aborted=True)
    assert not decide(aborted, POLICY, _at(40)).is_complete
    assert decide(aborted, POLICY, _at(41)).is_complete


def test_the_maximum_wait_goes_ahead_with_a_note() -> None:
    for changes in ({"expected_count": 99}, {"open_associations": 1}, {"unindexed_count": 1}):
        assert not decide(_evidence(**changes), POLICY, _at(909)).is_complete
        verdict = decide(_evidence(**changes), POLICY, _at(910))
        assert verdict.is_complete
        assert verdict.is_short
        assert "went ahead" in verdict.reason


EVIDENCE = st.builds(
    _evidence,
    last_received_at=st.integers(0, 50).map(_at),
    last_closed_at=st.none() | st.integers(0, 60).map(_at),
    arrived_count=st.integers(0, 30),
    expected_count=st.none() | st.integers(0, 30),
    open_associations=st.integers(0, 2),
    unindexed_count=st.integers(0, 2),
    was_aborted=st.booleans(),
    stable_at=st.none() | st.integers(0, 60).map(_at),
)


@given(EVIDENCE, st.floats(0, 2000), st.floats(0, 2000))
def test_more_time_never_turns_a_yes_into_a_no(evidence: StudyEvidence, first: float, second: float) -> None:
    early, late = sorted((first, second))
    before, after = decide(evidence, POLICY, _at(early)), decide(evidence, POLICY, _at(late))
    assert after.is_complete or not before.is_complete


@given(EVIDENCE, st.floats(0, 2000))
def test_every_study_gets_a_verdict_and_a_next_look(evidence: StudyEvidence, seconds: float) -> None:
    verdict = decide(evidence, POLICY, _at(seconds))
    assert verdict.reason
    assert verdict.is_complete or verdict.check_again_at is not None
    if evidence.open_associations and seconds < 900:
        assert not verdict.is_complete


@given(EVIDENCE)
def test_every_study_completes_in_the_end(evidence: StudyEvidence) -> None:
    assert decide(evidence, POLICY, _at(2000)).is_complete
