"""A whole node in this process, on SQLite and folders, with a tiny model of random weights."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset
from random_model_package import NAME, write_random_package

from dicom_node.ledger import RunState
from dicom_node.phantom import brain_mr_study
from integration.app import Node
from integration.demo import send_to_node
from integration.destinations import FolderSettings
from integration.settings import (
    CompletenessSection,
    DicomSection,
    EngineSection,
    HttpSection,
    Settings,
    StoreSection,
)

RULES = f"""
rules:
  - name: brain
    when: {{modality: MR}}
    models: [{NAME}]
fallback: {{models: []}}
"""


def embedded_settings(folder: Path, **changes: object) -> Settings:
    """Return settings below ``folder``; a model package and rules are written there."""
    if not (folder / "models").exists():
        write_random_package(folder / "models", threshold=0.52)
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    values: dict[str, object] = {
        "data_dir": folder / "data",
        "models_dir": folder / "models",
        "rules_file": rules,
        "dicom": DicomSection(port=0),
        "http": HttpSection(port=0),
        "store": StoreSection(minimum_free_mb=0, minimum_free_fraction=0.0),
        "completeness": CompletenessSection(quiet_period_s=0.3, aborted_quiet_period_s=0.5),
        "engine": EngineSection(executor_id="test", poll_interval_s=0.05),
        "destinations": (FolderSettings(name="results", type="folder", path=folder / "results"),),
    }
    return Settings(**(values | changes))  # type: ignore[arg-type]


def small_study(seed: int = 1, *, slices: int = 6) -> list[Dataset]:
    """Return a brain MR study that a tiny model reads in a moment."""
    return copy.deepcopy(_draw_study(seed, slices))


@functools.cache
def _draw_study(seed: int, slices: int) -> list[Dataset]:
    return list(brain_mr_study(seed, matrix=64, slices=slices).datasets)


def write_files(datasets: list[Dataset], folder: Path) -> list[Path]:
    """Write data sets as Part 10 files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(datasets):
        path = folder / f"{number:03d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def send_study(node: Node, datasets: list[Dataset], folder: Path) -> None:
    """Send data sets to a node over a real association."""
    send_to_node(node, write_files(datasets, folder), lambda *_: None)


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def ended_runs(node: Node) -> list[str]:
    """Return the ids of runs that ended, one way or the other."""
    return [row.run.run_id for row in node.ledger.runs_in((RunState.DONE, RunState.QUARANTINED))]
