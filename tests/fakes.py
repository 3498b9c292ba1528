"""In-memory fakes of the ports. The contract suites prove that they behave like the real adapters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from integration.delivery import (
    ALL_KINDS,
    Awaiting,
    DeliveryItem,
    DestinationProfile,
    DestinationRejectedError,
    DestinationUnavailableError,
    Receipt,
    ReceiptState,
)


class FakeClock:
    """A clock that moves only when told."""

    def __init__(self, now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeDelivery:
    object_uid: str
    destination: str
    run_id: str
    queued_at: datetime
    state: str = "queued"
    attempts: int = 0
    receipt: str = ""
    error: str = ""
    sent_at: datetime | None = None
    confirmed_at: datetime | None = None
    next_attempt_at: datetime | None = None


@dataclass
class FakeDeliveryLedger:
    """Deliveries in a dictionary, with the rules of the real ledger."""

    clock: FakeClock
    rows: dict[tuple[str, str], FakeDelivery] = field(default_factory=dict)

    def queue_delivery(self, object_uid: str, destination: str, run_id: str) -> None:
        self.rows.setdefault(
            (object_uid, destination),
            FakeDelivery(
                object_uid=object_uid, destination=destination, run_id=run_id, queued_at=self.clock()
            ),
        )

    def mark_sent(self, object_uid: str, destination: str, *, at: datetime, receipt: str) -> None:
        row = self.rows[object_uid, destination]
        self._mark(
            row,
            state="sent",
            sent_at=row.sent_at or at,
            receipt=receipt,
            next_attempt_at=None,
            error="",
            attempts=row.attempts + (row.state != "sent"),
        )

    def mark_confirmed(self, object_uid: str, destination: str, *, at: datetime, receipt: str) -> None:
        row = self.rows[object_uid, destination]
        self._mark(
            row,
            state="confirmed",
            sent_at=row.sent_at or at,
            confirmed_at=at,
            receipt=receipt,
            next_attempt_at=None,
            error="",
        )

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
        row = self.rows[object_uid, destination]
        self._mark(
            row,
            state="failed" if permanent else "queued",
            error=error,
            sent_at=None,
            attempts=row.attempts + 1,
            next_attempt_at=None if permanent else next_attempt_at or at,
        )

    def deliveries_of(self, run_id: str) -> tuple[FakeDelivery, ...]:
        return tuple(row for row in self.rows.values() if row.run_id == run_id)

    def pending_deliveries(self, destination: str) -> tuple[FakeDelivery, ...]:
        return tuple(
            row
            for row in self.rows.values()
            if row.destination == destination and row.state in {"queued", "sent"}
        )

    def _mark(self, row: FakeDelivery, **changes: object) -> None:
        if row.state != "confirmed":
            self.rows[row.object_uid, row.destination] = replace(row, **changes)  # type: ignore[arg-type]


class FakeDestination:
    """A destination in memory that can be down, refuse objects, and confirm late."""

    def __init__(self, profile: DestinationProfile | None = None) -> None:
        self.profile = profile or DestinationProfile(name="fake", kinds=frozenset(map(str, ALL_KINDS)))
        self.kept: dict[str, str] = {}
        self.sent_uids: list[str] = []
        self.failures_to_come = 0
        self.refused: dict[str, bool] = {}
        self.is_confirming = True

    def send(self, items: Sequence[DeliveryItem]) -> Iterator[Receipt]:
        if self.failures_to_come:
            self.failures_to_come -= 1
            raise DestinationUnavailableError("fake: down")
        for item in items:
            if item.object_uid in self.refused:
                yield Receipt(
                    object_uid=item.object_uid,
                    state=ReceiptState.FAILED,
                    detail="fake: refused",
                    retry=self.refused[item.object_uid],
                )
                continue
            if not item.path.is_file():
                raise DestinationRejectedError("fake: no such file: encode the run again")
            self.sent_uids.append(item.object_uid)
            self.kept[item.object_uid] = hashlib.sha256(item.path.read_bytes()).hexdigest()
            yield Receipt(object_uid=item.object_uid, state=ReceiptState.SENT, detail="fake: taken")

    def confirm(self, awaiting: Sequence[Awaiting]) -> Iterator[Receipt]:
        for entry in awaiting:
            if self.is_confirming and entry.item.object_uid in self.kept:
                yield Receipt(
                    object_uid=entry.item.object_uid, state=ReceiptState.CONFIRMED, detail="fake: kept safely"
                )


class WordEncoder:
    """A text encoder that knows no meaning: each word adds a direction of its own."""

    def __init__(self, dimension: int = 64, name: str = "words") -> None:
        self.dimension = dimension
        self.identity = f"{name} {dimension}"
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.encoded += len(texts)
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in ["", *text.lower().split()]:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
                vectors[row] += np.random.default_rng(seed).standard_normal(self.dimension, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
