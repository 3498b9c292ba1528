"""The relay of workflows on a real engine (embedded SQLite), with steps that only note their name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from noted_steps import NotedSteps

from dicom_node.errors import PermanentError, TransientError
from integration.pipeline import PIPELINE_VERSION
from integration.settings import EngineSection
from integration.workflow import (
    Engine,
    JsonSerializer,
    RecordedError,
    is_shadow_workflow,
    run_of_workflow,
    run_workflow_id,
)

#: What the engine's rows refer to: whoever changes the order or the names bumps PIPELINE_VERSION.
STEPS_BY_VERSION = {
    "1": "assemble route read collect_readings draft refine encode gate queue_deliveries deliver close_run",
    "2": "assemble route read collect_readings prioritize draft refine encode gate queue_deliveries deliver "
    "close_run",
}

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's own threads warn at shutdown


@pytest.fixture
def steps() -> NotedSteps:
    return NotedSteps.of_one_model()


@pytest.fixture
def engine(steps: NotedSteps, tmp_path: Path) -> Iterator[Engine]:
    settings = EngineSection(executor_id="test", poll_interval_s=0.05, transient_attempts=3)
    started = Engine(steps, settings, f"sqlite:///{tmp_path / 'engine.db'}")  # type: ignore[arg-type]
    started.launch()
    yield started
    started.close()


def test_a_run_goes_through_its_steps_in_order_and_once(engine: Engine, steps: NotedSteps) -> None:
    engine.submit("run", attempt=1)
    engine.submit("run", attempt=1)
    steps.wait_for("close_run")
    assert steps.names == STEPS_BY_VERSION[PIPELINE_VERSION].split()


def test_a_study_without_a_model_is_closed(engine: Engine, steps: NotedSteps) -> None:
    steps.answers["route"] = lambda _run: {"models": [], "shadows": [], "priority": "routine"}
    engine.submit("run", attempt=1)
    steps.wait_for("close_run")
    assert steps.names == ["assemble", "route", "close_run"]


def test_a_passing_failure_is_tried_again(engine: Engine, steps: NotedSteps) -> None:
    def fail_once(_run: str, _model: str) -> dict[str, str]:
        if steps.count("read") == 1:
            raise TransientError("busy")
        return {}

    steps.answers["read"] = fail_once
    engine.submit("run", attempt=1)
    steps.wait_for("close_run")
    assert steps.count("read") == 2


def test_a_lasting_failure_is_quarantined_with_its_reason(engine: Engine, steps: NotedSteps) -> None:
    def refuse(_run: str) -> dict[str, str]:
        raise PermanentError("the gate says no")

    steps.answers["gate"] = refuse
    engine.submit("run", attempt=1)
    steps.wait_for("quarantine")
    assert steps.calls[-1] == ("quarantine", "run", "the gate says no")
    assert "deliver" not in steps.names


def test_an_unexpected_failure_is_quarantined_without_its_message(engine: Engine, steps: NotedSteps) -> None:
    def break_down(_run: str) -> dict[str, str]:
        raise ValueError("DOE^JANE")

    steps.answers["encode"] = break_down
    engine.submit("run", attempt=1)
    steps.wait_for("quarantine")
    reason = steps.calls[-1][2]
    assert "ValueError" in reason
    assert "DOE" not in reason


def test_one_models_failure_does_not_stop_the_report(engine: Engine, steps: NotedSteps) -> None:
    def refuse(_run: str, _model: str) -> dict[str, str]:
        raise PermanentError("the series cannot be stacked")

    steps.answers["read"] = refuse
    engine.submit("run", attempt=1)
    steps.wait_for("draft")
    assert ("note_failed_reading", "run", "model-a", "the series cannot be stacked") in steps.calls


def test_a_destination_that_is_down_is_tried_again_and_holds_up_no_other(
    engine: Engine, steps: NotedSteps
) -> None:
    steps.answers["queue_deliveries"] = lambda _run: {"destinations": ["down", "up"], "priority": "routine"}
    steps.answers["deliver"] = lambda _run, destination, number: {
        "retry_after_s": 0.2 if destination == "down" and number < 3 else None,
        "priority": "routine",
    }
    engine.submit("run", attempt=1)
    steps.wait_for("close_run", times=2)
    assert steps.calls.count(("deliver", "run", "up", 1)) == 1
    assert [call[3] for call in steps.calls if call[:3] == ("deliver", "run", "down")] == [1, 2, 3]
    first_close = steps.names.index("close_run")
    assert ("deliver", "run", "down", 3) in steps.calls[first_close:]


def test_what_is_urgent_is_reported_and_delivered_before_what_came_first(
    engine: Engine, steps: NotedSteps, tmp_path: Path
) -> None:
    steps.answers["prioritize"] = lambda run: {"shadows": [], "priority": _urgency(run)}
    steps.answers["queue_deliveries"] = lambda run: {"destinations": ["pacs"], "priority": _urgency(run)}
    steps.answers["deliver"] = lambda run, *_: {"retry_after_s": None, "priority": _urgency(run)}
    for run in ("calm", "urgent"):
        engine.submit(run, attempt=1)
    steps.wait_for("close_run", times=2)
    with sqlite3.connect(tmp_path / "engine.db") as connection:
        rows = connection.execute("SELECT workflow_uuid, priority FROM workflow_status").fetchall()
    priorities = dict(rows)
    assert priorities["urgent:report"] < priorities["calm:report"]
    assert priorities["urgent:deliver:pacs:1.1"] < priorities["calm:deliver:pacs:1.1"]


def _urgency(run: str) -> str:
    return "stat" if run == "urgent" else "routine"


def test_a_shadow_reads_after_the_models_and_its_failure_stops_nothing(
    engine: Engine, steps: NotedSteps
) -> None:
    def refuse_shadows(_run: str, model: str) -> dict[str, str]:
        if model != "model-a":
            raise PermanentError("the challenger cannot read this")
        return {}

    steps.answers["read"] = refuse_shadows
    steps.answers["prioritize"] = lambda _run: {"shadows": ["model-b@2.0.0"], "priority": "routine"}
    engine.submit("run", attempt=1)
    steps.wait_for("close_run")
    steps.wait_for("compare_shadow")
    assert ("compare_shadow", "run", "model-b@2.0.0") in steps.calls
    assert "quarantine" not in steps.names
    assert steps.count("draft") == steps.count("deliver") == 1
    assert steps.names.index("prioritize") < steps.calls.index(("read", "run", "model-b@2.0.0"))


def test_a_study_with_nothing_but_a_shadow_is_closed_and_read_by_it(
    engine: Engine, steps: NotedSteps
) -> None:
    steps.answers["route"] = lambda _run: {"models": [], "shadows": ["model-b@2.0.0"], "priority": "routine"}
    engine.submit("run", attempt=1)
    steps.wait_for("compare_shadow")
    steps.wait_for("close_run")
    assert "draft" not in steps.names


def test_a_second_attempt_runs_again(engine: Engine, steps: NotedSteps) -> None:
    engine.submit("run", attempt=1)
    steps.wait_for("close_run")
    engine.submit("run", attempt=2)
    steps.wait_for("close_run", times=2)
    assert steps.count("read") == 2


def test_what_was_interrupted_resumes_after_the_last_finished_step(steps: NotedSteps, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'engine.db'}"
    settings = EngineSection(executor_id="test", poll_interval_s=0.05)
    stopped = steps.hang_in("read")
    first = Engine(steps, settings, url)  # type: ignore[arg-type]
    first.launch()
    first.submit("run", attempt=1)
    steps.wait_for("read")
    first.close()
    steps.answers["read"] = lambda *_: {}
    second = Engine(steps, settings, url)  # type: ignore[arg-type]
    second.launch()
    steps.wait_for("close_run")
    stopped.set()
    second.close()
    assert steps.count("assemble") == steps.count("route") == 1
    assert steps.count("read") == 2


def test_the_engines_database_holds_no_foreign_messages(
    engine: Engine, steps: NotedSteps, tmp_path: Path
) -> None:
    def break_down(_run: str) -> dict[str, str]:
        raise ValueError("DOE^JANE")

    steps.answers["encode"] = break_down
    engine.submit("run", attempt=1)
    steps.wait_for("quarantine")
    with sqlite3.connect(tmp_path / "engine.db") as connection:
        dump = "\n".join(connection.iterdump())
    assert "run" in dump
    assert "DOE" not in dump


def test_the_serializer_keeps_values_and_reduces_errors() -> None:
    serializer = JsonSerializer()
    value = {"a": [1, 2.5, None, "x"], "b": {"c": True}}
    assert serializer.deserialize(serializer.serialize(value)) == value
    kept = serializer.deserialize(serializer.serialize(PermanentError("ours")))
    assert isinstance(kept, RecordedError)
    assert str(kept) == "PermanentError: ours"
    assert "DOE" not in serializer.serialize(ValueError("DOE^JANE"))
    with pytest.raises(TypeError, match="plain values"):
        serializer.serialize({1, 2})


@pytest.mark.parametrize(
    ("workflow_id", "attempt", "expected"),
    [
        ("key-digest-1", 1, "key-digest-1"),
        ("key-digest-1:read:model", 1, "key-digest-1"),
        ("key-digest-1.2:read:model", 2, "key-digest-1"),
        ("key-digest-1.2:read:model", 1, ""),
        ("key-digest-1:deliver:pacs:1.7", 3, "key-digest-1"),
        ("key-digest-1.2", None, "key-digest-1"),
    ],
)
def test_a_workflow_names_its_run(workflow_id: str, attempt: int | None, expected: str) -> None:
    assert run_of_workflow(workflow_id, attempt) == expected


def test_a_shadows_workflow_is_told_from_those_that_carry_the_run() -> None:
    assert is_shadow_workflow("key-digest-2.3:shadow:model@1.0.0")
    assert not is_shadow_workflow("key-digest-2:read:shadow@1.0.0")


def test_the_first_attempt_has_the_runs_own_name() -> None:
    assert run_workflow_id("run", 1) == "run"
    assert run_workflow_id("run", 2) == "run.2"
