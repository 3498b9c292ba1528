"""Pure. The clock that is passed in: a function that returns an aware UTC time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present as an aware UTC time."""
    return datetime.now(UTC)
