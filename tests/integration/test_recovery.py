"""What the engine does not do by itself, on a real engine and a real ledger (embedded SQLite)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from noted_steps import NotedSteps

from dicom_node.ledger import Ledger, Run, RunState
from dicom_node.study import Digest, StudyKey
from integration.recovery import Recovery, RecoverySettings
from integration.settings import EngineSection
from integration.workflow import Engine

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's own threads warn at shutdown

RUN_ID = "key-digest-1"


class TestClock:
    """A clock that tests turn."""

    __test__ = False

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: TestClock) -> Iterator[Ledger]:
    opened = Ledger.connect(f"sqlite:///{tmp_path / 'ledger.db'}", clock=clock)
    opened.migrate()
    opened.begin_run(
        Run(
            run_id=RUN_ID,
            study_key=StudyKey("key"),
            version=1,
            instance_digest=Digest("digest"),
            predecessor=None,
            created_at=clock(),
        )
    )
    yield opened
    opened.close()


@pytest.fixture
def steps() -> NotedSteps:
    return NotedSteps.of_one_model()


def start_engine(steps: NotedSteps, folder: Path, executor_id: str) -> Engine:
    engine = Engine(
        steps,  # type: ignore[arg-type]
        EngineSection(executor_id=executor_id, poll_interval_s=0.05),
        f"sqlite:///{folder / 'engine.db'}",
    )
    engine.launch()
    return engine


def recovery_of(
    engine: Engine, ledger: Ledger, steps: NotedSteps, clock: TestClock, executor_id: str
) -> Recovery:
    return Recovery(
        engine=engine,
        ledger=ledger,
        settings=RecoverySettings(
            executor_id=executor_id, lease_s=10, reconcile_every_s=60, maximum_crashes=2
        ),
        quarantine=steps.quarantine,
        clock=clock,
    )


def test_a_run_that_no_workflow_carries_is_submitted(
    steps: NotedSteps, ledger: Ledger, clock: TestClock, tmp_path: Path
) -> None:
    engine = start_engine(steps, tmp_path, "a")
    recovery = recovery_of(engine, ledger, steps, clock, "a")
    recovery.reconcile()
    assert steps.calls == []  # the assembler may be about to submit it
    clock.pass_s(60)
    recovery.reconcile()
    steps.wait_for("close_run")
    engine.close()


def test_a_run_whose_workflow_ended_without_result_is_quarantined(
    steps: NotedSteps, ledger: Ledger, clock: TestClock, tmp_path: Path
) -> None:
    engine = start_engine(steps, tmp_path, "a")
    engine.submit(RUN_ID, attempt=1)
    steps.wait_for("close_run")
    ledger.set_run_state(RUN_ID, RunState.RUNNING)  # the steps of this test note only their name
    clock.pass_s(60)

    def is_settled() -> bool:
        recovery_of(engine, ledger, steps, clock, "a").reconcile()
        return "quarantine" in steps.names

    steps.wait_until(is_settled)
    engine.close()


def test_a_silent_workers_study_is_adopted_and_goes_on_after_its_last_step(
    steps: NotedSteps, ledger: Ledger, clock: TestClock, tmp_path: Path
) -> None:
    gone = steps.hang_in("read")
    dead = start_engine(steps, tmp_path, "dead")
    recovery_of(dead, ledger, steps, clock, "dead").keep_lease()
    dead.submit(RUN_ID, attempt=1)
    steps.wait_for("read")
    dead.close()
    steps.answers["read"] = lambda *_: {}
    alive = start_engine(steps, tmp_path, "alive")
    recovery = recovery_of(alive, ledger, steps, clock, "alive")
    clock.pass_s(5)
    recovery.keep_lease()
    assert steps.count("read") == 1  # the lease still holds
    clock.pass_s(6)
    recovery.keep_lease()
    steps.wait_for("close_run")
    gone.set()
    alive.close()
    assert steps.count("assemble") == 1
    assert steps.count("read") == 2
    assert ledger.run(RUN_ID).crash_count == 1


def test_a_study_that_ends_every_worker_is_quarantined(
    steps: NotedSteps, ledger: Ledger, clock: TestClock, tmp_path: Path
) -> None:
    gone = steps.hang_in("read")
    for name in ("a", "b", "c"):
        worker = start_engine(steps, tmp_path, name)
        recovery_of(worker, ledger, steps, clock, name).keep_lease()
        if name == "a":
            worker.submit(RUN_ID, attempt=1)
        steps.wait_for("read", times="abc".index(name) + 1)
        worker.close()
        clock.pass_s(11)
    last = start_engine(steps, tmp_path, "d")
    recovery_of(last, ledger, steps, clock, "d").keep_lease()
    steps.wait_for("quarantine")
    gone.set()
    last.close()
    assert "workers" in steps.calls[-1][2]
    assert steps.count("read") == 3


def test_what_an_older_version_left_is_begun_anew(
    steps: NotedSteps, ledger: Ledger, clock: TestClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = steps.hang_in("read")
    with monkeypatch.context() as earlier:
        earlier.setattr("integration.workflow.PIPELINE_VERSION", "0")
        old = start_engine(steps, tmp_path, "a")
        old.submit(RUN_ID, attempt=1)
        steps.wait_for("read")
        old.close()
    steps.answers["read"] = lambda *_: {}
    new = start_engine(steps, tmp_path, "a")
    recovery_of(new, ledger, steps, clock, "a").reconcile()
    steps.wait_for("close_run")
    gone.set()
    new.close()
    assert steps.count("assemble") == 2
    assert ledger.run(RUN_ID).attempt == 2
