"""Adapter: what the engine does not do by itself, so that no run stays behind.

Three duties, on the engine's public interface only:

- *reconcile*: a run that the ledger knows and no workflow carries is submitted
  again; one whose workflow kept ending the process is quarantined;
- *lease*: each worker renews a lease; the open-source engine resumes only the
  work of an executor that comes back under the same name;
- *reap*: the work of a worker whose lease ran out is adopted, and counted, so
  that a study that ends every worker is quarantined instead of passed on.

With ``workflow.py`` the only module that imports dbos.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import structlog
from dbos import DBOS, DBOSClient

from dicom_node.clock import Clock
from dicom_node.ledger import DeliveryState, Ledger, RunRow, RunState
from integration.observability import describe_error
from integration.pipeline import PIPELINE_VERSION
from integration.workflow import Engine, JsonSerializer, is_shadow_workflow, run_of_workflow

_ACTIVE = frozenset({"PENDING", "ENQUEUED", "DELAYED"})
_CRASHED = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
#: A run's row changes and its workflow starts within milliseconds of each other.
_GRACE = timedelta(seconds=15)

Quarantine = Callable[[str, str], object]

log = structlog.get_logger(__name__)


class Activity(StrEnum):
    """What the engine is doing about a run."""

    NONE = "none"
    ACTIVE = "active"
    CRASHED = "crashed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySettings:
    """How often recovery looks, and when it gives up.

    Attributes
    ----------
    executor_id : str
        Name of this worker among the workers.
    lease_s : float
        Seconds after which a silent worker counts as gone.
    reconcile_every_s : float
        Seconds between two reconciliations.
    maximum_crashes : int
        Adoptions of one run after which it is quarantined.
    """

    executor_id: str
    lease_s: float
    reconcile_every_s: float
    maximum_crashes: int


class Recovery:
    """Keeps the ledger and the engine in agreement while the node runs.

    Parameters
    ----------
    quarantine : callable
        Sets a run aside: (run id, reason).
    """

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        settings: RecoverySettings,
        quarantine: Quarantine,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._settings = settings
        self._quarantine = quarantine
        self._clock = clock
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=job, name=f"preread-{job[0].__name__}", daemon=True)
            for job in ((self.keep_lease, settings.lease_s / 3), (self.reconcile, settings.reconcile_every_s))
        ]

    def start(self) -> None:
        """Take the lease and begin to look."""
        self.keep_lease()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop looking and give the lease back."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self._ledger.drop_lease(self._settings.executor_id)

    def keep_lease(self) -> None:
        """Renew this worker's lease; adopt the work of workers whose lease ran out."""
        now = self._clock()
        self._ledger.renew_lease(
            self._settings.executor_id, until=now + timedelta(seconds=self._settings.lease_s)
        )
        for executor_id in self._ledger.expired_leases(now):
            if executor_id != self._settings.executor_id:
                self._adopt(executor_id)

    def reconcile(self) -> None:
        """Submit, resume or quarantine every run that the engine does not carry."""
        self._adopt_old_version()
        settled_before = self._clock() - _GRACE
        for row in self._ledger.runs_in((RunState.QUEUED, RunState.RUNNING, RunState.DELIVERING)):
            if row.updated_at <= settled_before:
                self._reconcile_run(row)

    def _adopt_old_version(self) -> None:
        """Begin anew what an older PIPELINE_VERSION left: its workflows have other steps."""
        active = DBOS.list_workflows(status=sorted(_ACTIVE), load_input=False, load_output=False)
        stale = [
            status.workflow_id for status in active if status.app_version not in (None, PIPELINE_VERSION)
        ]
        if not stale:
            return
        DBOS.cancel_workflows(stale)
        carried = {
            run_of_workflow(workflow_id) for workflow_id in stale if not is_shadow_workflow(workflow_id)
        }
        for run_id in sorted(carried):
            log.warning("run_of_older_version_begun_anew", run_id=run_id)
            if self._ledger.run(run_id).state is RunState.DELIVERING:
                self._resume_deliveries(run_id)
            else:
                self._engine.submit(run_id, attempt=self._ledger.begin_attempt(run_id))

    def _reconcile_run(self, row: RunRow) -> None:
        run_id = row.run.run_id
        activity = activity_of(run_id, row.attempt)
        if activity is Activity.ACTIVE:
            return
        if activity is Activity.CRASHED:
            self._quarantine(
                run_id,
                "Processing this study ended the node again and again. Check memory and the images, then "
                f"`preread requeue {run_id}`.",
            )
        elif row.state is RunState.DELIVERING:
            self._resume_deliveries(run_id)
        elif activity is Activity.NONE:
            log.warning("run_resubmitted", run_id=run_id)
            self._engine.submit(run_id, attempt=row.attempt)
        else:
            self._quarantine(
                run_id,
                f"The engine lost track of this run. `preread requeue {run_id}` reads the study again.",
            )

    def _resume_deliveries(self, run_id: str) -> None:
        unfinished = {
            delivery.destination
            for delivery in self._ledger.deliveries_of(run_id)
            if delivery.state in (DeliveryState.QUEUED, DeliveryState.SENT)
        }
        token = f"r{int(self._clock().timestamp())}"
        priority = self._ledger.run(run_id).priority
        for destination in sorted(unfinished):
            log.warning("delivery_resubmitted", run_id=run_id, destination=destination)
            self._engine.submit_delivery(run_id, destination, token=token, priority=priority)
        if not unfinished:
            self._engine.close_run(run_id)

    def _adopt(self, executor_id: str) -> None:
        """Take over what a silent worker had in progress."""
        if not self._ledger.drop_lease(executor_id):
            return  # another worker was faster
        for status in DBOS.list_workflows(
            status="PENDING", executor_id=executor_id, load_input=False, load_output=False
        ):
            run_id = run_of_workflow(status.workflow_id)
            if is_shadow_workflow(status.workflow_id):
                log.warning("shadow_given_up", run_id=run_id, executor_id=executor_id)
                DBOS.cancel_workflow(status.workflow_id)  # it may be what ended the worker
                continue
            crashes = self._ledger.count_crash(run_id)
            log.warning("work_adopted", run_id=run_id, executor_id=executor_id, count=crashes)
            if crashes > self._settings.maximum_crashes:
                DBOS.cancel_workflow(status.workflow_id)
                self._quarantine(
                    run_id, f"Processing this study ended {crashes} workers. Check memory and the images."
                )
            else:
                DBOS.resume_workflow(
                    status.workflow_id, queue_name=status.queue_name
                )  # else any process takes it

    def _repeat(self, job: Callable[[], None], every_s: float) -> None:
        while not self._stop.is_set():
            try:
                job()
            except Exception as exc:  # noqa: BLE001 - outermost loop: log once, look again
                log.error("recovery_failed", step=job.__name__, error=describe_error(exc))
            self._stop.wait(every_s)


def activity_of(run_id: str, attempt: int) -> Activity:
    """Return what the engine is doing about one attempt at a run; shadows carry no run."""
    statuses = [
        status.status
        for status in DBOS.list_workflows(workflow_id_prefix=run_id, load_input=False, load_output=False)
        if run_of_workflow(status.workflow_id, attempt) == run_id
        and not is_shadow_workflow(status.workflow_id)
    ]
    if any(status in _ACTIVE for status in statuses):
        return Activity.ACTIVE
    if _CRASHED in statuses:
        return Activity.CRASHED
    return Activity.ENDED if statuses else Activity.NONE


def forget_workflows(database_url: str, run_ids: Sequence[str]) -> None:
    """Remove the engine's records of runs, from outside of a running node."""
    client = DBOSClient(system_database_url=database_url, serializer=JsonSerializer())
    try:
        for run_id in run_ids:
            ended = client.list_workflows(workflow_id_prefix=run_id, load_input=False, load_output=False)
            client.delete_workflows([status.workflow_id for status in ended if status.status not in _ACTIVE])
    finally:
        client.destroy()
