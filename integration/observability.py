"""Adapter: structured logs without patient data, and metrics for Prometheus.

The log allow-list is the wall: a field that is not in it is dropped before any
renderer sees it, so a name or an identifier cannot reach a log by accident.
Loggers of libraries are kept at WARNING and pass through the same wall with
their message replaced by its origin, since their messages may quote headers.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pynetdicom import _config as pynetdicom_config

from dicom_node.errors import PrereadError

_SOURCE = Path(__file__).resolve().parent.parent

#: Fields that may appear in a log line. Everything else is dropped.
ALLOWED_FIELDS = frozenset(
    {
        "ae_title", "association", "attempt", "bytes", "confirmed", "count", "destination", "device", "error",
        "error_origin", "event", "executor_id", "failed", "findings", "host", "images_per_s", "instances",
        "level", "logger", "model", "model_version", "objects", "pending", "port", "priority", "reason",
        "retry_after_s", "run_id", "series", "sop_class", "state", "status", "step", "study_key", "timestamp",
        "version",
    }
)  # fmt: skip

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)


def drop_unlisted_fields(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor: keep only allow-listed fields."""
    return {key: value for key, value in event.items() if key in ALLOWED_FIELDS}


def describe_error(error: BaseException) -> str:
    """Return what may be logged of an error: our own messages, of others the class and the place.

    Messages of ``PrereadError`` carry no patient data by rule; those of foreign
    libraries may quote headers.
    """
    if isinstance(error, PrereadError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if Path(f.filename).is_relative_to(_SOURCE)), None)
    if place is None:
        return type(error).__name__
    return f"{type(error).__name__} at {Path(place.filename).relative_to(_SOURCE)}:{place.lineno}"


class _ForeignLogs(logging.Handler):
    """Pass warnings of libraries on as an event that names only their origin."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger("library").log(
            record.levelno, "library_message", logger=record.name,
            error_origin=f"{record.module}:{record.lineno}", error=error,
        )  # fmt: skip


def configure_logging(*, json: bool = False, level: int = logging.INFO) -> None:
    """Configure structlog for the process: JSON unless standard error is a terminal.

    Parameters
    ----------
    json : bool
        JSON lines also on a terminal.
    level : int
        Lowest level shown, as in :mod:`logging`.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json or not sys.stderr.isatty()
        else structlog.dev.ConsoleRenderer(colors=True)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            drop_unlisted_fields,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    adopt_library_loggers()
    logging.captureWarnings(capture=True)  # pydicom's warnings quote the value that they warn of
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False


def adopt_library_loggers() -> None:
    """Bring the loggers of libraries behind the wall; again after a library has set its own up."""
    root = logging.getLogger()
    root.handlers = [_ForeignLogs()]
    root.setLevel(logging.WARNING)
    for name in ("dbos", "uvicorn", "uvicorn.error", "pynetdicom", "httpx", "alembic"):
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
        library.setLevel(logging.WARNING)


class Metrics:
    """The node's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.instances = Gauge(
            "preread_instances", "Instances in the ledger, by state.", ["state"], registry=self.registry
        )
        self.runs = Counter("preread_runs", "Runs that ended.", ["state"], registry=self.registry)
        self.steps = Histogram(
            "preread_step_seconds",
            "Duration of pipeline steps.",
            ["step"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.deliveries = Counter(
            "preread_deliveries", "Delivery attempts.", ["destination", "outcome"], registry=self.registry
        )
        self.refinements = Counter(
            "preread_refinements", "Report texts, by whose wording stands and why.", ["standing", "reason"],
            registry=self.registry,
        )  # fmt: skip
        self.refine_seconds = Histogram(
            "preread_refine_seconds", "Seconds that a language model's wording took, checks included.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.refine_tokens = Counter(
            "preread_refine_tokens", "Tokens of a language model.", ["kind"], registry=self.registry
        )
        self.collecting = Gauge(
            "preread_studies_collecting", "Studies still arriving.", registry=self.registry
        )

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self.registry)
