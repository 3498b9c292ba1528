"""What every destination promises; the fake and each real adapter run the same suite.

A test class derives from `DestinationContract` and gives ``make_rig``: a real
destination, the objects it wants, and how to look into what it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fakes import FakeClock, FakeDeliveryLedger

from integration.delivery import DeliveryItem, DeliveryOutcome, Destination, ReceiptState, deliver_run


@dataclass
class Rig:
    """A destination under test. ``count_kept`` says how many copies of each object it keeps."""

    destination: Destination
    items: Sequence[DeliveryItem]
    count_kept: Callable[[], dict[str, int]]


def deliver_until_finished(
    rig: Rig, ledger: FakeDeliveryLedger, clock: FakeClock, *, attempts: int = 20
) -> DeliveryOutcome:
    """Call ``deliver_run`` as the workflow does, the clock doing the sleeping."""
    for _ in range(attempts):
        outcome = deliver_run(rig.destination, rig.items, ledger, clock)
        if outcome.is_finished:
            return outcome
        assert outcome.retry_after_s is not None
        clock.advance(outcome.retry_after_s)
    raise AssertionError(f"not finished after {attempts} attempts: {outcome}")


class DestinationContract:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def ledger(self, clock) -> FakeDeliveryLedger:
        return FakeDeliveryLedger(clock)

    @pytest.fixture
    def rig(self, tmp_path: Path, clock: FakeClock, ledger: FakeDeliveryLedger) -> Rig:
        pytest.fail("every destination brings a rig of its own")

    def test_every_object_is_kept_once_and_confirmed(self, rig, ledger, clock):
        outcome = deliver_until_finished(rig, ledger, clock)
        uids = {item.object_uid for item in rig.items}
        assert set(outcome.confirmed) == uids
        assert not outcome.failed
        assert rig.count_kept() == dict.fromkeys(uids, 1)

    def test_every_confirmation_says_what_it_rests_on(self, rig, ledger, clock):
        deliver_until_finished(rig, ledger, clock)
        assert all(len(row.receipt) > 10 and row.confirmed_at for row in ledger.rows.values())

    def test_delivering_again_sends_nothing(self, rig, ledger, clock):
        deliver_until_finished(rig, ledger, clock)
        before = dict(ledger.rows)
        outcome = deliver_run(_Untouchable(rig.destination), rig.items, ledger, clock)
        assert outcome.is_finished
        assert ledger.rows == before

    def test_a_lost_ledger_does_not_duplicate(self, rig, ledger, clock):
        deliver_until_finished(rig, ledger, clock)
        ledger.rows.clear()
        assert not deliver_until_finished(rig, ledger, clock).failed
        assert set(rig.count_kept().values()) == {1}

    def test_an_empty_delivery_is_nothing(self, rig):
        assert list(rig.destination.send([])) == []
        assert list(rig.destination.confirm([])) == []

    def test_a_missing_file_fails_for_good_and_alone_knows_why(self, rig, ledger, clock, tmp_path):
        gone = replace(rig.items[0], path=tmp_path / "gone" / "object.dcm", object_uid="1.2.3.4")
        outcome = deliver_run(rig.destination, [gone], ledger, clock)
        assert outcome.failed == ("1.2.3.4",)
        assert "encode the run again" in next(iter(ledger.rows.values())).error

    def test_receipts_name_objects_asked_for(self, rig):
        receipts = list(rig.destination.send(rig.items))
        assert {receipt.object_uid for receipt in receipts} == {item.object_uid for item in rig.items}
        assert all(receipt.state is not ReceiptState.FAILED for receipt in receipts)


class _Untouchable:
    """A destination that fails the test when it is spoken to."""

    def __init__(self, destination: Destination) -> None:
        self.profile = destination.profile

    def send(self, items):
        raise AssertionError("sent what is confirmed")

    def confirm(self, awaiting):
        raise AssertionError("asked about what is confirmed")
