"""Adapter: ``preread serve`` that kills itself, once each, before and after every step of the pipeline.

    KILL_MARKS=<folder> KILL_AT=all python killing_node.py serve --config preread.yaml

Each moment leaves a mark on the disk before the SIGKILL, so the next life of
the node passes it. The product knows nothing of this: the steps are wrapped
here, and only here.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from pathlib import Path

from integration.pipeline import Pipeline

STEPS = (
    "assemble",
    "route",
    "read",
    "collect_readings",
    "prioritize",
    "draft",
    "refine",
    "encode",
    "gate",
    "queue_deliveries",
    "deliver",
    "close_run",
)
MOMENTS = tuple(f"{when}-{step}" for step in STEPS for when in ("before", "after"))

_one_at_a_time = threading.Lock()


def die_once(marks: Path, moment: str) -> None:
    """Kill this process unless ``moment`` has killed one before."""
    with _one_at_a_time:
        try:
            descriptor = os.open(marks / moment, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return
        os.fsync(descriptor)
        os.close(descriptor)
        os.kill(os.getpid(), signal.SIGKILL)


def wrap(step: str, marks: Path) -> None:
    """Let the pipeline's ``step`` die once before and once after its work."""
    original = getattr(Pipeline, step)

    @functools.wraps(original)
    def dying(self, *arguments):
        die_once(marks, f"before-{step}")
        result = original(self, *arguments)
        die_once(marks, f"after-{step}")
        return result

    setattr(Pipeline, step, dying)


def main() -> None:
    marks = Path(os.environ["KILL_MARKS"])
    for step in STEPS:
        wrap(step, marks)
    from integration.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    sys.exit(main())
