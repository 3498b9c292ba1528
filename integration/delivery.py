"""Pure, but for ``deliver_run``, which writes to the ledger given: what goes where, and when again.

The port that every destination implements, the rules (selection, back-off,
patience) and one attempt to bring a run's objects to one destination. The loop
with durable sleeps lives in the workflow; wire protocols live in the adapters.
Nothing here may talk to a network or sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from dicom_node.clock import Clock
from dicom_node.errors import PermanentError, TransientError
from dicom_node.study import StudyKey
from reporting.context import ResultKind

SegmentationProfile = Literal["BINARY", "LABELMAP"]

#: First wait after a failed attempt, seconds; doubles with every further one.
BACKOFF_FIRST_S = 5.0
#: Longest wait between two attempts, seconds.
BACKOFF_CAP_S = 15 * 60.0
#: Share of a wait that jitter may take away, so that many runs do not return at one instant.
BACKOFF_JITTER_SHARE = 0.25
#: How long a destination may stay away before a result is given up, seconds (7 days).
DEFAULT_PATIENCE_S = 7 * 24 * 3600.0
#: Bounds of the wait before looking again for a confirmation, seconds.
RECHECK_FIRST_S, RECHECK_CAP_S = 5.0, 60.0

#: Segmentation Storage and Label Map Segmentation Storage, PS3.4 Table B.5-1.
_SEGMENTATION_SOP_CLASSES: dict[SegmentationProfile, str] = {
    "BINARY": "1.2.840.10008.5.1.4.1.1.66.4",
    "LABELMAP": "1.2.840.10008.5.1.4.1.1.66.7",
}


class DestinationUnavailableError(TransientError):
    """A destination cannot take anything now: down, overloaded, or misconfigured.

    Parameters
    ----------
    message : str
        What happened and what to check; no address, no credentials, no patient data.
    retry_after_s : float or None
        Seconds the destination asked us to stay away (Retry-After, RFC 9110 10.2.3).
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DestinationRejectedError(PermanentError):
    """A destination refuses what was sent and will refuse it again."""


#: A DICOM object's kind, or a file beside them: the FHIR Bundle, the report as a page.
DeliverableKind = ResultKind | Literal["bundle", "report"]
#: Kinds that are DICOM objects, hence fit for a PACS.
DICOM_KINDS: frozenset[DeliverableKind] = frozenset(ResultKind)
#: Every kind there is.
ALL_KINDS: frozenset[DeliverableKind] = DICOM_KINDS | {"bundle", "report"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryItem:
    """One result object on disk that a destination may want.

    ``object_uid`` is the SOP Instance UID of a DICOM object and any unique name
    of another file; ``sop_class_uid`` is None where the file is not DICOM.
    """

    object_uid: str
    kind: str
    path: Path
    sop_class_uid: str | None
    run_id: str
    study_key: StudyKey


class ReceiptState(StrEnum):
    """How far an object has come, as one destination reports it."""

    SENT = "sent"
    """Taken by the destination; safe keeping not yet proved."""
    CONFIRMED = "confirmed"
    """Proved to be kept by the destination."""
    FAILED = "failed"
    """Not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a destination says about one object. ``detail`` is stored and shown: no patient data.

    ``retry`` and ``retry_after_s`` have a meaning for failed receipts only.
    """

    object_uid: str
    state: ReceiptState
    detail: str
    retry: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaiting:
    """An object that was sent and is not yet confirmed, with the detail of its last receipt."""

    item: DeliveryItem
    detail: str
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationProfile:
    """What a destination wants and how long it is waited for.

    ``segmentation`` None takes every encoding of a segmentation.
    """

    name: str
    kinds: frozenset[str]
    segmentation: SegmentationProfile | None = None
    patience_s: float = DEFAULT_PATIENCE_S


class Destination(Protocol):
    """A place where results go. One instance serves one run at a time.

    Both methods yield a receipt as soon as it is known, and continue only when
    the consumer has made it durable: an adapter may rely on that order (storage
    commitment does). Both raise `DestinationUnavailableError` for a failure that
    concerns all objects not yet reported, and `DestinationRejectedError` when
    all of those are refused for good.
    """

    @property
    def profile(self) -> DestinationProfile:
        """What this destination wants."""

    def send(self, items: Sequence[DeliveryItem]) -> Iterator[Receipt]:
        """Try once to bring these objects there; sending one again is harmless."""

    def confirm(self, awaiting: Sequence[Awaiting]) -> Iterator[Receipt]:
        """Look whether sent objects are kept; yield nothing for those still undecided."""


class DeliveryRow(Protocol):
    """What the ledger knows of one object at one destination."""

    @property
    def object_uid(self) -> str:
        """Name of the object."""

    @property
    def destination(self) -> str:
        """Name of the destination."""

    @property
    def state(self) -> str:
        """One of queued, sent, confirmed, failed (failed is final until requeued)."""

    @property
    def attempts(self) -> int:
        """Finished attempts."""

    @property
    def receipt(self) -> str:
        """Detail of the last sent or confirmed receipt."""

    @property
    def queued_at(self) -> datetime:
        """When the delivery was asked for, or asked for again by a person."""

    @property
    def sent_at(self) -> datetime | None:
        """When the destination first took the object."""

    @property
    def next_attempt_at(self) -> datetime | None:
        """Not before this time; None is at once."""


class DeliveryLedger(Protocol):
    """The ledger as deliveries need it. Every call commits before it returns; confirmed is final."""

    def queue_delivery(self, object_uid: str, destination: str, run_id: str) -> None:
        """Note that an object is wanted; changes nothing if that is known."""

    def mark_sent(self, object_uid: str, destination: str, *, at: datetime, receipt: str) -> None:
        """Note that a destination took an object."""

    def mark_confirmed(self, object_uid: str, destination: str, *, at: datetime, receipt: str) -> None:
        """Note that a destination keeps an object."""

    def mark_failed(
        self,
        object_uid: str,
        destination: str,
        *,
        error: str,
        at: datetime,
        next_attempt_at: datetime | None,
        permanent: bool,
    ) -> None:
        """Note a failed attempt: back to queued, or to failed where permanent."""

    def deliveries_of(self, run_id: str) -> Sequence[DeliveryRow]:
        """Return the deliveries of a run to all destinations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOutcome:
    """Where a run stands at one destination after an attempt: object names by state.

    ``retry_after_s`` is None when nothing is pending; ``reason`` is the last
    obstacle in words, for logs and the console.
    """

    confirmed: tuple[str, ...]
    pending: tuple[str, ...]
    failed: tuple[str, ...]
    retry_after_s: float | None
    reason: str | None = None

    @property
    def is_finished(self) -> bool:
        """Nothing more to do: all confirmed or given up."""
        return not self.pending


def backoff_s(attempt: int, jitter: float) -> float:
    """Return the wait after a failed attempt.

    Parameters
    ----------
    attempt : int
        Failed attempts so far, from 1.
    jitter : float
        Random number in [0, 1): 0 gives the full wait.

    Returns
    -------
    float
        Seconds: 5, 10, 20, ... up to 15 minutes, less up to a quarter.
    """
    doublings = min(max(attempt, 1) - 1, 30)
    return min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0**doublings) * (1 - BACKOFF_JITTER_SHARE * jitter)


def recheck_s(elapsed_s: float) -> float:
    """Return the wait before the next look for a confirmation, seconds since sending given."""
    return min(RECHECK_CAP_S, max(RECHECK_FIRST_S, elapsed_s))


def select_items(profile: DestinationProfile, items: Sequence[DeliveryItem]) -> tuple[DeliveryItem, ...]:
    """Return the objects that a destination wants, in the order given.

    Of segmentations in several encodings only the destination's encoding is
    taken; where that does not exist, what exists is: a result in the second
    best encoding is refused visibly at worst, a dropped one is lost silently.
    """
    wanted = [item for item in items if item.kind in profile.kinds]
    if profile.segmentation is None:
        return tuple(wanted)
    preferred = _SEGMENTATION_SOP_CLASSES[profile.segmentation]
    segmentations = [item for item in wanted if item.sop_class_uid in _SEGMENTATION_SOP_CLASSES.values()]
    if not any(item.sop_class_uid == preferred for item in segmentations):
        return tuple(wanted)
    unwanted = {item.object_uid for item in segmentations if item.sop_class_uid != preferred}
    return tuple(item for item in wanted if item.object_uid not in unwanted)


def without_jitter() -> float:
    """Return no jitter: every wait in full."""
    return 0.0


def deliver_run(
    destination: Destination,
    items: Sequence[DeliveryItem],
    ledger: DeliveryLedger,
    clock: Clock,
    *,
    jitter: Callable[[], float] = without_jitter,
) -> DeliveryOutcome:
    """Make one attempt to bring a run's objects to one destination.

    Sends what is due and not yet taken, then looks for the confirmation of what
    was taken. Every receipt is in the ledger before the next step, so that the
    call may be killed and repeated at any point: it resumes what is missing and
    never sends again what is confirmed.

    Parameters
    ----------
    destination : Destination
        Where to.
    items : sequence of DeliveryItem
        All objects of one run; the destination's profile selects among them.
    ledger : DeliveryLedger
        Where the state of every object is kept.
    clock : callable
        Returns the present time, aware UTC.
    jitter : callable
        Returns random numbers in [0, 1).

    Returns
    -------
    DeliveryOutcome
        The state of every selected object, and when to call again.
    """
    wanted = select_items(destination.profile, items)
    if not wanted:
        return DeliveryOutcome(confirmed=(), pending=(), failed=(), retry_after_s=None)
    attempt = _Attempt(destination=destination, items=wanted, ledger=ledger, clock=clock, jitter=jitter)
    attempt.queue()
    attempt.send()
    attempt.confirm()
    attempt.give_up()
    return attempt.outcome()


class _Attempt:
    """One attempt: the destination, the objects and the ledger held together."""

    def __init__(
        self,
        *,
        destination: Destination,
        items: tuple[DeliveryItem, ...],
        ledger: DeliveryLedger,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        self._destination = destination
        self._profile = destination.profile
        self._items = items
        self._ledger = ledger
        self._clock = clock
        self._jitter = jitter
        self._reason: str | None = None

    def queue(self) -> None:
        for item in self._items:
            self._ledger.queue_delivery(item.object_uid, self._profile.name, item.run_id)

    def send(self) -> None:
        now, rows = self._clock(), self._rows()
        due = [item for item in self._items if _is_due(rows[item.object_uid], now)]
        if not due:
            return
        unreported = {item.object_uid for item in due}
        try:
            for receipt in self._destination.send(due):
                self._record(receipt, rows)
                unreported.discard(receipt.object_uid)
        except (TransientError, PermanentError) as error:
            ending = _failure_for_all(error)
        else:
            ending = Receipt(
                object_uid="",
                state=ReceiptState.FAILED,
                detail="the destination gave no answer for this object",
                retry=True,
            )
        for object_uid in sorted(unreported):
            self._fail(rows[object_uid], ending)

    def confirm(self) -> None:
        rows = self._rows()
        awaiting = [
            Awaiting(item=item, detail=row.receipt, sent_at=row.sent_at or row.queued_at)
            for item in self._items
            if (row := rows[item.object_uid]).state == "sent"
        ]
        if not awaiting:
            return
        undecided = {entry.item.object_uid for entry in awaiting}
        try:
            for receipt in self._destination.confirm(awaiting):
                self._record(receipt, rows)
                if receipt.state is not ReceiptState.SENT:
                    undecided.discard(receipt.object_uid)
        except TransientError as error:  # what was sent stays sent: look again later
            self._reason = str(error)
        except PermanentError as error:
            for object_uid in sorted(undecided):
                self._fail(rows[object_uid], _failure_for_all(error))

    def give_up(self) -> None:
        """End what was taken but never confirmed within the patience."""
        now = self._clock()
        for row in self._rows().values():
            if row.state == "sent" and self._is_out_of_patience(row, now):
                error = (
                    f"taken but not confirmed within {_days(self._profile.patience_s)}: check the destination"
                )
                self._mark_failed(row, error, now, next_attempt_at=None, permanent=True)

    def outcome(self) -> DeliveryOutcome:
        rows, now = self._rows(), self._clock()
        by_state: dict[str, list[str]] = {"confirmed": [], "failed": [], "queued": [], "sent": []}
        waits: list[float] = []
        for item in self._items:
            row = rows[item.object_uid]
            by_state[row.state].append(item.object_uid)
            if row.state == "queued":
                waits.append((row.next_attempt_at - now).total_seconds() if row.next_attempt_at else 0.0)
            elif row.state == "sent":
                waits.append(recheck_s((now - (row.sent_at or row.queued_at)).total_seconds()))
        return DeliveryOutcome(
            confirmed=tuple(by_state["confirmed"]),
            pending=(*by_state["queued"], *by_state["sent"]),
            failed=tuple(by_state["failed"]),
            retry_after_s=max(0.0, min(waits)) if waits else None,
            reason=self._reason,
        )

    def _rows(self) -> dict[str, DeliveryRow]:
        name, run_id = self._profile.name, self._items[0].run_id
        return {row.object_uid: row for row in self._ledger.deliveries_of(run_id) if row.destination == name}

    def _record(self, receipt: Receipt, rows: dict[str, DeliveryRow]) -> None:
        name, now = self._profile.name, self._clock()
        if receipt.state is ReceiptState.FAILED:
            self._fail(rows[receipt.object_uid], receipt)
            return
        if receipt.state is ReceiptState.CONFIRMED:
            self._ledger.mark_confirmed(receipt.object_uid, name, at=now, receipt=receipt.detail)
        else:
            self._ledger.mark_sent(receipt.object_uid, name, at=now, receipt=receipt.detail)

    def _fail(self, row: DeliveryRow, receipt: Receipt) -> None:
        now, error = self._clock(), receipt.detail
        wait_s = max(backoff_s(row.attempts + 1, self._jitter()), receipt.retry_after_s or 0.0)
        is_out_of_patience = receipt.retry and self._is_out_of_patience(row, now)
        if is_out_of_patience:
            error = f"given up after {_days(self._profile.patience_s)}: {error}"
        may_retry = receipt.retry and not is_out_of_patience
        next_attempt_at = now + timedelta(seconds=wait_s) if may_retry else None
        self._mark_failed(row, error, now, next_attempt_at=next_attempt_at, permanent=not may_retry)

    def _mark_failed(
        self, row: DeliveryRow, error: str, at: datetime, *, next_attempt_at: datetime | None, permanent: bool
    ) -> None:
        self._reason = error
        self._ledger.mark_failed(
            row.object_uid,
            self._profile.name,
            error=error,
            at=at,
            next_attempt_at=next_attempt_at,
            permanent=permanent,
        )

    def _is_out_of_patience(self, row: DeliveryRow, now: datetime) -> bool:
        return (now - row.queued_at).total_seconds() >= self._profile.patience_s


def _is_due(row: DeliveryRow, now: datetime) -> bool:
    return row.state == "queued" and (row.next_attempt_at is None or row.next_attempt_at <= now)


def _failure_for_all(error: TransientError | PermanentError) -> Receipt:
    """Return the failed receipt that an error means for every object it concerns."""
    return Receipt(
        object_uid="",
        state=ReceiptState.FAILED,
        detail=str(error),
        retry=isinstance(error, TransientError),
        retry_after_s=getattr(error, "retry_after_s", None),
    )


def _days(patience_s: float) -> str:
    hours = patience_s / 3600
    return f"{hours / 24:g} days" if hours >= 24 else f"{hours:.3g} hours"  # noqa: PLR2004 (hours in a day)
