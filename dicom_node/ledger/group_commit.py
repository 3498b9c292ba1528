"""Pure. Many callers, one commit: whoever comes while a commit runs shares the next one.

The first caller leads: it takes all that is waiting, applies it in one call,
and hands everybody their result. Nobody waits for a timer, so a single caller
pays for exactly its own commit; eight callers do not pay for eight in a row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class _Entry(Generic[ItemT, ResultT]):
    __slots__ = ("error", "is_done", "item", "result")

    def __init__(self, item: ItemT) -> None:
        self.item = item
        self.result: ResultT | None = None
        self.error: BaseException | None = None
        self.is_done = False


class GroupCommit(Generic[ItemT, ResultT]):
    """Gathers concurrent submissions into batches.

    Parameters
    ----------
    apply : callable
        Applies a batch durably and returns one result per item, in order; all or nothing.
    max_batch : int
        Most items in one call of ``apply``.
    """

    def __init__(
        self, apply: Callable[[Sequence[ItemT]], Sequence[ResultT]], *, max_batch: int = 256
    ) -> None:
        self._apply = apply
        self._max_batch = max_batch
        self._waiting: list[_Entry[ItemT, ResultT]] = []
        self._waiting_lock = threading.Lock()
        self._leading = threading.Lock()

    def submit(self, item: ItemT) -> ResultT:
        """Return the result of ``item`` once its batch is applied.

        Raises
        ------
        Exception
            What ``apply`` raised for this item: a batch that fails is repeated item by
            item, so that one bad item does not fail its neighbours.
        """
        entry: _Entry[ItemT, ResultT] = _Entry(item)
        with self._waiting_lock:
            self._waiting.append(entry)
        while not entry.is_done:
            with self._leading:
                if not entry.is_done:
                    self._lead()
        if entry.error is not None:
            raise entry.error
        return cast("ResultT", entry.result)

    def _lead(self) -> None:
        with self._waiting_lock:
            batch = self._waiting[: self._max_batch]
            del self._waiting[: self._max_batch]
        try:
            self._apply_entries(batch)
        except Exception as error:  # noqa: BLE001 - handed to the callers it belongs to
            if len(batch) == 1:
                batch[0].error = error
            else:
                self._apply_one_by_one(batch)
        except BaseException as error:
            for entry in batch:
                entry.error = error
            raise
        finally:
            for entry in batch:
                entry.is_done = True

    def _apply_one_by_one(self, batch: Sequence[_Entry[ItemT, ResultT]]) -> None:
        for entry in batch:
            try:
                self._apply_entries([entry])
            except Exception as error:  # noqa: BLE001 - handed to the caller it belongs to
                entry.error = error

    def _apply_entries(self, entries: Sequence[_Entry[ItemT, ResultT]]) -> None:
        results = self._apply([entry.item for entry in entries])
        for entry, result in zip(entries, results, strict=True):
            entry.result = result
