"""Adapter: wait for a condition, never on a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(
    look: Callable[[], Found], *, what: str, timeout_s: float = 60.0, interval_s: float = 0.2
) -> Found:
    """Return the first truthy answer of ``look``; fail the test when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}; the last look gave {found!r}")
        time.sleep(interval_s)
