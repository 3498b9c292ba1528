from __future__ import annotations

import contextlib

import pytest
from deliveries.contract import DestinationContract, Rig, deliver_until_finished
from deliveries.ledgers import note_run
from deliveries.results import LABEL_MAP, SEGMENTATION, make_bundle, make_item, make_items
from fakes import FakeClock, FakeDeliveryLedger, FakeDestination
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.errors import PermanentError, TransientError
from dicom_node.ledger import Ledger
from integration.delivery import (
    BACKOFF_CAP_S,
    DEFAULT_PATIENCE_S,
    DestinationProfile,
    DestinationRejectedError,
    DestinationUnavailableError,
    backoff_s,
    deliver_run,
    recheck_s,
    select_items,
)
from integration.statuses import (
    C_STORE_STATUSES,
    COMMITMENT_FAILURE_REASONS,
    FHIR_STATUSES,
    HTTP_DESTINATION_STATUSES,
    STOW_FAILURE_REASONS,
    Verdict,
    classify,
)

KINDS = frozenset({"segmentation", "measurements", "overview", "bundle"})


class TestFakeKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, tmp_path):
        destination, items = FakeDestination(), make_items(tmp_path)

        def count_kept():
            return {item.object_uid: int(item.object_uid in destination.kept) for item in items}

        return Rig(destination, items, count_kept)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    return FakeDeliveryLedger(clock)


@pytest.fixture(params=["fake ledger", "real ledger"])
def any_ledger(request, clock, tmp_path):
    """The rules hold on the real ledger as on the fake one."""
    if request.param == "fake ledger":
        yield FakeDeliveryLedger(clock)
        return
    ledger = Ledger.connect(f"sqlite:///{tmp_path / 'ledger.db'}", clock=clock)
    ledger.migrate()
    yield ledger
    ledger.close()


@pytest.fixture
def items(any_ledger, tmp_path, clock):
    """Three objects of a run that the ledger knows."""
    items = make_items(tmp_path / "run")
    if isinstance(any_ledger, Ledger):
        note_run(any_ledger, items, clock())
    return items


def states(ledger, run_id):
    return {row.object_uid: str(row.state) for row in ledger.deliveries_of(run_id)}


# -- the wait -------------------------------------------------------------------------------------


def test_backoff_doubles_from_five_seconds_to_fifteen_minutes():
    assert [backoff_s(attempt, 0.0) for attempt in range(1, 10)] == [5, 10, 20, 40, 80, 160, 320, 640, 900]


@given(attempt=st.integers(-3, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(attempt, jitter):
    assert 0.75 * 5 <= backoff_s(attempt, jitter) <= BACKOFF_CAP_S
    assert backoff_s(attempt, jitter) <= backoff_s(attempt + 1, 0.0)


def test_rechecks_slow_down():
    assert [recheck_s(elapsed) for elapsed in (-1, 0, 12, 1e6)] == [5, 5, 12, 60]


# -- the choice -----------------------------------------------------------------------------------


def test_a_destination_gets_its_kinds_in_order(tmp_path):
    items = [*make_items(tmp_path), make_bundle(tmp_path)]
    profile = DestinationProfile(name="pacs", kinds=frozenset({"overview", "segmentation"}))
    assert [item.kind for item in select_items(profile, items)] == ["segmentation", "overview"]


def test_a_destination_gets_its_encoding_of_the_segmentation(tmp_path):
    binary, label_map = (
        make_item(tmp_path, "segmentation", uid, "1.2.3") for uid in (SEGMENTATION, LABEL_MAP)
    )
    for segmentation, expected in (("BINARY", binary), ("LABELMAP", label_map)):
        profile = DestinationProfile(name="pacs", kinds=KINDS, segmentation=segmentation)
        assert select_items(profile, [binary, label_map]) == (expected,)
        assert select_items(profile, [binary]) == (binary,), "the only encoding is better than none"
    assert len(select_items(DestinationProfile(name="folder", kinds=KINDS), [binary, label_map])) == 2


def test_nothing_wanted_is_finished(tmp_path, ledger, clock):
    destination = FakeDestination(DestinationProfile(name="none", kinds=frozenset()))
    assert deliver_run(destination, make_items(tmp_path), ledger, clock).is_finished
    assert ledger.rows == {}


# -- attempts -------------------------------------------------------------------------------------


def test_an_outage_of_hours_delays_and_duplicates_nothing(items, any_ledger, clock):
    destination = FakeDestination()
    destination.failures_to_come, start = 17, clock()
    outcome = deliver_until_finished(Rig(destination, items, dict), any_ledger, clock, attempts=30)
    assert set(outcome.confirmed) == {item.object_uid for item in items}
    assert sorted(destination.sent_uids) == sorted(item.object_uid for item in items), "each sent once"
    assert (clock() - start).total_seconds() > 2 * 3600
    assert all(row.attempts >= 17 and row.error == "" for row in any_ledger.deliveries_of(items[0].run_id))


def test_a_failed_attempt_is_written_with_its_reason_and_time(items, any_ledger, clock):
    destination = FakeDestination()
    destination.failures_to_come = 1
    outcome = deliver_run(destination, items, any_ledger, clock, jitter=lambda: 0.5)
    assert outcome.reason == "fake: down"
    assert outcome.retry_after_s == pytest.approx(5 * 0.875)
    assert not outcome.is_finished
    for row in any_ledger.deliveries_of(items[0].run_id):
        assert (row.state, row.error, row.attempts) == ("queued", "fake: down", 1)
        assert (row.next_attempt_at - clock()).total_seconds() == pytest.approx(4.375)


def test_too_early_a_call_waits(tmp_path, ledger, clock):
    destination, items = FakeDestination(), make_items(tmp_path)
    destination.failures_to_come = 1
    deliver_run(destination, items, ledger, clock)
    clock.advance(1)
    outcome = deliver_run(destination, items, ledger, clock)
    assert (destination.sent_uids, outcome.retry_after_s) == ([], 4)


def test_one_refused_object_does_not_hold_up_the_others(items, any_ledger, clock):
    destination = FakeDestination()
    destination.refused = {items[0].object_uid: False}
    outcome = deliver_run(destination, items, any_ledger, clock)
    assert outcome.is_finished
    assert outcome.failed == (items[0].object_uid,)
    assert set(outcome.confirmed) == {items[1].object_uid, items[2].object_uid}


def test_only_what_is_missing_is_sent_again(items, any_ledger, clock):
    destination = FakeDestination()
    destination.refused = {items[1].object_uid: True}
    outcome = deliver_run(destination, items, any_ledger, clock)
    assert outcome.pending == (items[1].object_uid,)
    destination.refused = {}
    clock.advance(outcome.retry_after_s)
    assert len(deliver_run(destination, items, any_ledger, clock).confirmed) == 3
    assert sorted(destination.sent_uids) == sorted(item.object_uid for item in items)


def test_what_is_sent_waits_for_its_confirmation_and_is_not_sent_again(items, any_ledger, clock):
    destination = FakeDestination()
    destination.is_confirming = False
    outcome = deliver_run(destination, items, any_ledger, clock)
    assert (len(outcome.pending), outcome.retry_after_s) == (3, 5)
    assert set(states(any_ledger, items[0].run_id).values()) == {"sent"}
    clock.advance(30)
    assert deliver_run(destination, items, any_ledger, clock).retry_after_s == 30
    destination.is_confirming = True
    assert len(deliver_run(destination, items, any_ledger, clock).confirmed) == 3
    assert len(destination.sent_uids) == 3


@pytest.mark.parametrize("is_taken", [False, True])
def test_patience_ends_after_seven_days(items, any_ledger, clock, is_taken):
    destination = FakeDestination()
    destination.failures_to_come = 0 if is_taken else 10
    destination.is_confirming = False
    assert not deliver_run(destination, items, any_ledger, clock).is_finished
    clock.advance(DEFAULT_PATIENCE_S)
    outcome = deliver_run(destination, items, any_ledger, clock)
    assert len(outcome.failed) == 3
    assert all("7 days" in row.error for row in any_ledger.deliveries_of(items[0].run_id))


def test_retry_after_is_honoured(tmp_path, ledger, clock):
    destination = FakeDestination()
    destination.send = lambda items: _raise(DestinationUnavailableError("busy", retry_after_s=120))
    assert deliver_run(destination, make_items(tmp_path), ledger, clock).retry_after_s == 120


def test_a_refusal_of_everything_is_final(tmp_path, ledger, clock):
    destination = FakeDestination()
    destination.send = lambda items: _raise(DestinationRejectedError("never"))
    outcome = deliver_run(destination, make_items(tmp_path), ledger, clock)
    assert len(outcome.failed) == 3
    assert outcome.reason == "never"


def test_an_object_without_an_answer_is_tried_again(tmp_path, ledger, clock):
    destination = FakeDestination()
    destination.send = lambda items: iter(())
    assert len(deliver_run(destination, make_items(tmp_path), ledger, clock).pending) == 3


def test_a_break_between_objects_keeps_what_was_taken(items, any_ledger, clock):
    destination = FakeDestination()
    whole_send = destination.send

    def breaking_send(items):
        yield from whole_send(items[:1])
        raise DestinationUnavailableError("cable pulled")

    destination.send = breaking_send
    outcome = deliver_run(destination, items, any_ledger, clock)
    assert outcome.confirmed == (items[0].object_uid,)
    assert len(outcome.pending) == 2


def test_a_failing_confirmation_leaves_objects_sent(tmp_path, ledger, clock):
    destination, items = FakeDestination(), make_items(tmp_path)
    destination.confirm = lambda awaiting: _raise(DestinationUnavailableError("no answer"))
    outcome = deliver_run(destination, items, ledger, clock)
    assert (len(outcome.pending), outcome.reason) == (3, "no answer")
    assert set(states(ledger, items[0].run_id).values()) == {"sent"}


def test_a_kill_at_any_write_loses_and_doubles_nothing(tmp_path, clock):
    """The ledger dies at its n-th write, for every n; the next attempt finishes."""
    items = make_items(tmp_path)
    for write in range(20):  # three rows queued, sent and confirmed are nine writes
        ledger, destination = _DyingLedger(FakeDeliveryLedger(clock), writes_left=write), FakeDestination()
        with contextlib.suppress(_KilledError):
            deliver_run(destination, items, ledger, clock)
        ledger.writes_left = 10**6
        outcome = deliver_run(destination, items, ledger, clock)
        assert len(outcome.confirmed) == 3
        assert len(destination.sent_uids) <= 4, "at most the object in flight is sent again"


def test_errors_say_whether_to_retry():
    assert issubclass(DestinationUnavailableError, TransientError)
    assert issubclass(DestinationRejectedError, PermanentError)


# -- the status tables ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "code", "verdict"),
    [
        (C_STORE_STATUSES, 0x0000, Verdict.ACCEPTED),
        (C_STORE_STATUSES, 0xB006, Verdict.ACCEPTED),
        (C_STORE_STATUSES, 0xA700, Verdict.RETRY),
        (C_STORE_STATUSES, 0xA7FF, Verdict.RETRY),
        (C_STORE_STATUSES, 0xA900, Verdict.REFUSED),
        (C_STORE_STATUSES, 0xC123, Verdict.REFUSED),
        (C_STORE_STATUSES, 0x0122, Verdict.REFUSED),
        (C_STORE_STATUSES, 0x9999, Verdict.REFUSED),
        (STOW_FAILURE_REASONS, 0xC122, Verdict.REFUSED),
        (STOW_FAILURE_REASONS, 45070, Verdict.ACCEPTED),
        (COMMITMENT_FAILURE_REASONS, 0x0112, Verdict.RETRY),
        (COMMITMENT_FAILURE_REASONS, 0x0119, Verdict.REFUSED),
        (HTTP_DESTINATION_STATUSES, 503, Verdict.RETRY),
        (HTTP_DESTINATION_STATUSES, 401, Verdict.RETRY),
        (HTTP_DESTINATION_STATUSES, 422, Verdict.REFUSED),
        (FHIR_STATUSES, 201, Verdict.ACCEPTED),
        (FHIR_STATUSES, 412, Verdict.RETRY),
    ],
)
def test_statuses_mean_what_the_standards_say(table, code, verdict):
    assert classify(code, table).verdict is verdict


@given(code=st.integers(-1, 0x1FFFF))
def test_every_code_has_a_meaning(code):
    for table in (C_STORE_STATUSES, STOW_FAILURE_REASONS, COMMITMENT_FAILURE_REASONS, FHIR_STATUSES):
        row = classify(code, table)
        assert row.first <= code <= row.last
        assert row.meaning


class _KilledError(BaseException):
    """Stands for SIGKILL."""


class _DyingLedger:
    def __init__(self, ledger, writes_left):
        self._ledger, self.writes_left = ledger, writes_left

    def __getattr__(self, name):
        method = getattr(self._ledger, name)
        if not name.startswith(("mark_", "queue_")):
            return method

        def write(*args, **kwargs):
            if self.writes_left == 0:
                raise _KilledError
            self.writes_left -= 1
            return method(*args, **kwargs)

        return write


def _raise(error):
    raise error
