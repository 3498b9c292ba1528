"""Adapter: the durable run of a study, on DBOS.

A run is a relay of workflows, none of which waits for another: ``process_study``
(assemble, route) hands over to one ``read_study`` per model on the read queue;
the last of them to finish hands over to ``report_results`` (draft, refine,
encode, gate), which hands over to one ``deliver_results`` per destination.
Shadows read when the active models are done, one ``read_shadow`` each, and hand
over to nobody: nothing of them leaves, and nothing waits for them. A
delivery that must be tried again enqueues its successor with a delay, so that
an outage of hours holds no slot and one bad destination never holds up another.

Every step is a method of :class:`integration.pipeline.Pipeline`, takes and
returns small JSON, and may be repeated: the engine records a step's result once
but may run it twice. Only this module and ``recovery.py`` import dbos
(docs/adr/0002).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from dbos import DBOS, DBOSConfig, Serializer, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import make_url

from dicom_node.errors import PrereadError, TransientError
from dicom_node.ledger.database import switch_to_wal
from dicom_node.routing import Priority
from integration.observability import describe_error
from integration.pipeline import PIPELINE_VERSION, Pipeline
from integration.settings import EngineSection
from integration.watchdog import Watchdog

Json = dict[str, Any]

RUN_QUEUE = "runs"
READ_QUEUE = "read"
DELIVERY_QUEUE = "deliver"
_QUEUE_PRIORITY = {Priority.STAT: 1, Priority.ROUTINE: 10}
#: Shadows take what is left of the read queue.
_SHADOW_PRIORITY = 100
_SHADOW_STAGE = "shadow"
_TRANSIENT_INTERVAL_S = 1.0
_TRANSIENT_BACKOFF = 2.0

log = structlog.get_logger(__name__)


class RecordedError(Exception):
    """A step's error as the engine's database remembers it: class name and our own message."""


class JsonSerializer(Serializer):
    """JSON instead of pickle: readable, no code on loading, no foreign messages at rest."""

    def serialize(self, data: Any) -> str:
        """Return ``data`` as JSON; of an exception only what may be kept."""
        return json.dumps(data, default=_reduce)

    def deserialize(self, serialized_data: str) -> Any:
        """Return the value, exceptions as :class:`RecordedError`."""
        return json.loads(serialized_data, object_hook=_restore)

    def name(self) -> str:
        """Return the name under which rows are marked."""
        return "preread_json"


def _reduce(value: Any) -> Any:
    if isinstance(value, BaseException):
        message = str(value) if isinstance(value, PrereadError | RecordedError) else ""
        return {"__error__": type(value).__name__, "message": message}
    raise TypeError(f"{type(value).__name__} is not JSON: steps exchange plain values only.")


def _restore(value: Json) -> Any:
    return RecordedError(f"{value['__error__']}: {value['message']}") if "__error__" in value else value


def run_workflow_id(run_id: str, attempt: int) -> str:
    """Return the workflow id of one attempt at a run; the first attempt's is the run id itself."""
    return run_id if attempt == 1 else f"{run_id}.{attempt}"


def run_of_workflow(workflow_id: str, attempt: int | None = None) -> str:
    """Return the run that a workflow belongs to.

    Parameters
    ----------
    workflow_id : str
        As :func:`run_workflow_id` and the engine make them: ``RUN[.ATTEMPT][:STAGE...]``.
    attempt : int, optional
        Of this attempt only: workflows of another attempt give an empty string. Deliveries
        belong to every attempt.
    """
    stem, _, stage = workflow_id.partition(":")
    run_id, _, number = stem.partition(".")
    if attempt is None or stage.startswith("deliver:"):
        return run_id
    return run_id if int(number or 1) == attempt else ""


def is_shadow_workflow(workflow_id: str) -> bool:
    """Say whether a workflow belongs to a shadow, on which nothing of its run depends."""
    return workflow_id.partition(":")[2].startswith(f"{_SHADOW_STAGE}:")


class Engine:
    """The pipeline made durable.

    Parameters
    ----------
    pipeline : Pipeline
        The steps.
    settings : EngineSection
        Concurrency, intervals, crash limit.
    database_url : str
        Where the engine keeps its records (SQLite or PostgreSQL).
    """

    def __init__(self, pipeline: Pipeline, settings: EngineSection, database_url: str) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._watchdog = Watchdog(settings.step_budget_s)
        _use_write_ahead_log(database_url)
        config: DBOSConfig = {
            "name": "preread",
            "system_database_url": database_url,
            "application_version": PIPELINE_VERSION,
            "executor_id": settings.executor_id,
            "serializer": JsonSerializer(),
            "log_level": "WARNING",
            "notification_listener_polling_interval_sec": settings.poll_interval_s,
        }
        DBOS(config=config)
        crashes = settings.maximum_crashes

        # Plain functions, since DBOS marks what it registers; their names and
        # arguments are what the database remembers (change: bump PIPELINE_VERSION).
        @DBOS.workflow(name="process_study", max_recovery_attempts=crashes)
        def process_study(run_id: str, attempt: int) -> Json:
            return self._process_study(run_id, attempt)

        @DBOS.workflow(name="read_study", max_recovery_attempts=crashes)
        def read_study(run_id: str, attempt: int, model: str) -> Json:
            return self._read_study(run_id, attempt, model)

        @DBOS.workflow(name="read_shadow", max_recovery_attempts=crashes)
        def read_shadow(run_id: str, model: str) -> Json:
            return self._read_shadow(run_id, model)

        @DBOS.workflow(name="report_results", max_recovery_attempts=crashes)
        def report_results(run_id: str, attempt: int) -> Json:
            return self._report_results(run_id, attempt)

        @DBOS.workflow(name="deliver_results", max_recovery_attempts=crashes)
        def deliver_results(run_id: str, destination: str, token: str, number: int) -> Json:
            return self._deliver_results(run_id, destination, token, number)

        self._process, self._read, self._shadow = process_study, read_study, read_shadow
        self._report, self._deliver = report_results, deliver_results

    def launch(self, queues: tuple[str, ...] = (RUN_QUEUE, READ_QUEUE, DELIVERY_QUEUE)) -> None:
        """Recover what this executor left behind and start to work on ``queues``."""
        DBOS.listen_queues(list(queues))
        DBOS.launch()
        poll = self._settings.poll_interval_s
        DBOS.register_queue(
            RUN_QUEUE,
            worker_concurrency=self._settings.run_concurrency,
            polling_interval_sec=poll,
            on_conflict="always_update",
        )
        DBOS.register_queue(
            READ_QUEUE,
            worker_concurrency=self._settings.read_concurrency,
            polling_interval_sec=poll,
            on_conflict="always_update",
        )
        DBOS.register_queue(
            DELIVERY_QUEUE,
            partition_worker_concurrency=self._settings.deliveries_per_destination,
            polling_interval_sec=poll,
            on_conflict="always_update",
        )

    def close(self) -> None:
        """Stop taking work; what is in progress resumes at the next launch."""
        self._watchdog.close()
        DBOS.destroy(destroy_registry=True)

    def submit(self, run_id: str, *, attempt: int) -> None:
        """Enqueue one attempt at a run; doing it twice changes nothing."""
        self._enqueue(RUN_QUEUE, run_workflow_id(run_id, attempt), self._process, run_id, attempt)

    def submit_delivery(
        self,
        run_id: str,
        destination: str,
        *,
        token: str,
        number: int = 1,
        delay_s: float = 0,
        priority: Priority = Priority.ROUTINE,
    ) -> None:
        """Enqueue one attempt at a delivery; ``token`` and ``number`` make it unique."""
        with SetEnqueueOptions(
            queue_partition_key=destination,
            delay_seconds=delay_s or None,
            priority=_QUEUE_PRIORITY[priority],
        ):
            self._enqueue(
                DELIVERY_QUEUE,
                f"{run_id}:deliver:{destination}:{token}.{number}",
                self._deliver,
                run_id,
                destination,
                token,
                number,
            )

    def close_run(self, run_id: str) -> None:
        """End a run whose deliveries have all ended."""
        self._pipeline.close_run(run_id)

    # -- workflows: deterministic; everything with an effect is a step ------------------------

    def _process_study(self, run_id: str, attempt: int) -> Json:
        try:
            self._step("assemble", self._pipeline.assemble, run_id)
            decision = self._step("route", self._pipeline.route, run_id)
            if not decision["models"]:
                self._submit_shadows(run_id, attempt, decision["shadows"])
                return self._step("close_run", self._pipeline.close_run, run_id)
        except Exception as exc:  # noqa: BLE001 - outermost loop: whatever fails is quarantined
            return self._step("quarantine", self._pipeline.quarantine, run_id, _reason_of(exc))
        for model in decision["models"]:
            with SetEnqueueOptions(priority=_QUEUE_PRIORITY[_priority_of(decision)]):
                self._enqueue(
                    READ_QUEUE,
                    f"{run_workflow_id(run_id, attempt)}:read:{model}",
                    self._read,
                    run_id,
                    attempt,
                    model,
                )
        return {"models": decision["models"]}

    def _read_study(self, run_id: str, attempt: int, model: str) -> Json:
        try:
            self._step("read", self._pipeline.read, run_id, model)
        except Exception as exc:  # noqa: BLE001 - outermost loop: whatever fails is quarantined
            self._step(
                "note_failed_reading", self._pipeline.note_failed_reading, run_id, model, _reason_of(exc)
            )
        state = self._step("collect_readings", self._pipeline.collect_readings, run_id)
        if state["is_complete"]:
            urgency = self._step("prioritize", self._pipeline.prioritize, run_id)
            with SetEnqueueOptions(priority=_QUEUE_PRIORITY[_priority_of(urgency)]):
                self._enqueue(
                    RUN_QUEUE, f"{run_workflow_id(run_id, attempt)}:report", self._report, run_id, attempt
                )
            self._submit_shadows(run_id, attempt, urgency["shadows"])
        return state

    def _submit_shadows(self, run_id: str, attempt: int, models: list[str]) -> None:
        for model in models:
            with SetEnqueueOptions(priority=_SHADOW_PRIORITY):
                self._enqueue(
                    READ_QUEUE,
                    f"{run_workflow_id(run_id, attempt)}:{_SHADOW_STAGE}:{model}",
                    self._shadow,
                    run_id,
                    model,
                )

    def _read_shadow(self, run_id: str, model: str) -> Json:
        try:
            self._step("read", self._pipeline.read, run_id, model)
        except Exception as exc:  # noqa: BLE001 - outermost loop: a shadow's failure is noted, and that is all
            self._step(
                "note_failed_reading", self._pipeline.note_failed_reading, run_id, model, _reason_of(exc)
            )
        return self._step("compare_shadow", self._pipeline.compare_shadow, run_id, model)

    def _report_results(self, run_id: str, attempt: int) -> Json:
        try:
            self._step("draft", self._pipeline.draft, run_id)
            self._step("refine", self._pipeline.refine, run_id)
            self._step("encode", self._pipeline.encode, run_id)
            self._step("gate", self._pipeline.gate, run_id)
            queued = self._step("queue_deliveries", self._pipeline.queue_deliveries, run_id)
        except Exception as exc:  # noqa: BLE001 - outermost loop: whatever fails is quarantined
            return self._step("quarantine", self._pipeline.quarantine, run_id, _reason_of(exc))
        for destination in queued["destinations"]:
            self.submit_delivery(run_id, destination, token=str(attempt), priority=_priority_of(queued))
        return queued

    def _deliver_results(self, run_id: str, destination: str, token: str, number: int) -> Json:
        outcome = self._step("deliver", self._pipeline.deliver, run_id, destination, number)
        if outcome["retry_after_s"] is None:
            self._step("close_run", self._pipeline.close_run, run_id)
        else:
            self.submit_delivery(
                run_id,
                destination,
                token=token,
                number=number + 1,
                delay_s=outcome["retry_after_s"],
                priority=_priority_of(outcome),
            )
        return outcome

    @staticmethod
    def _enqueue(queue: str, workflow_id: str, workflow: Callable[..., Json], *arguments: Any) -> None:
        with SetWorkflowID(workflow_id):
            DBOS.enqueue_workflow(queue, workflow, *arguments)

    def _step(self, name: str, function: Callable[..., Json], *arguments: Any) -> Json:
        """Run one step: recorded, retried on TransientError, watched by the clock."""

        def guarded() -> Json:
            with self._watchdog.watch(name, str(arguments[0])):
                return function(*arguments)

        result: Json = DBOS.run_step(
            {
                "name": name,
                "retries_allowed": True,
                "interval_seconds": _TRANSIENT_INTERVAL_S,
                "backoff_rate": _TRANSIENT_BACKOFF,
                "max_attempts": self._settings.transient_attempts,
                "should_retry": lambda error: isinstance(error, TransientError),
            },
            guarded,
        )
        return result


def _priority_of(answer: Json) -> Priority:
    return Priority(answer["priority"])


def _reason_of(error: Exception) -> str:
    """Return why a step failed, in words that may be stored and shown."""
    if isinstance(error, PrereadError | RecordedError):
        return str(error)
    what = describe_error(error)
    log.error("step_failed", error=what)
    return f"An unexpected {what} ended the step: report it with this line, then requeue the run."


def _use_write_ahead_log(database_url: str) -> None:
    """Put an SQLite engine database into WAL mode, once for its lifetime."""
    for path in _sqlite_file(database_url):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _sqlite_connection(path) as connection:
            switch_to_wal(connection)


def _sqlite_file(database_url: str) -> Iterator[Path]:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        yield Path(url.database)


@contextmanager
def _sqlite_connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=30)
    try:
        yield connection
    finally:
        connection.close()
