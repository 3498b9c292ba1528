"""Adapter: times the engines of a network on this machine and keeps the fastest that agrees.

Results must not change silently, so that a choice exists only where somebody asked for it, holds only for the
very weights, device and library versions that were measured, and lies outside the package.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from inference.activation import to_probabilities
from inference.engines import (
    ALL_ENGINES,
    EngineName,
    EngineUnavailableError,
    Forward,
    available_engines,
    build_engine,
    device_name,
    software_of,
)
from inference.packages import ModelPackage
from inference.rehearsal import example_batch
from inference.runner import CPU_BATCH_SIZE, DEFAULT_GPU_BATCH_SIZE, DEFAULT_GPU_WINDOWS, Runner

MAX_PROBABILITY_DIFFERENCE: Final = 0.03
"""Largest difference of a probability to plain PyTorch's that still counts as the same answer.

bfloat16 keeps 8 significant bits; through some twenty layers that moves single voxels near a probability of
0.5 by 0.02 to 0.03 (measured on brain-tumour-lgg, masks at a Dice of 0.997). Thresholds on the cards are
chosen in steps of 0.05, so that nothing rests on less.
"""

MIN_DICE: Final = 0.99
"""Smallest Dice coefficient of the thresholded masks; two readers of the LGG data agree at about 0.84."""

MIN_GAIN: Final = 1.05
"""An engine must be this many times faster than plain PyTorch: less is not worth another code path."""

_MIN_ROUNDS: Final = 3
_MAX_ROUNDS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far an engine's answers may lie from plain PyTorch's."""

    max_probability_difference: float = MAX_PROBABILITY_DIFFERENCE
    min_dice: float = MIN_DICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How one engine did.

    Attributes
    ----------
    engine : str
        Its name.
    seconds : float or None
        Median time of a batch; None when it did not run.
    rounds : int
        Batches timed.
    difference : float or None
        Largest difference of a probability to plain PyTorch's.
    dice : float or None
        Dice coefficient of thresholded masks, all labels together; None for other tasks and without any voxel
        above a threshold.
    reason : str
        Why it was not chosen, or empty.
    """

    engine: str
    seconds: float | None = None
    rounds: int = 0
    difference: float | None = None
    dice: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedEngine:
    """The outcome of a measurement, as it is stored.

    Attributes
    ----------
    name, version, weights_sha256 : str
        The package.
    device : str
        Model of the device, with its threads.
    engine : str
        The choice.
    software : str
        Versions of the libraries of the choice.
    batch : tuple of int
        Shape of the batch that was timed.
    trials : tuple of Trial
        All engines.
    tuned_at : str
        ISO 8601, UTC.
    """

    name: str
    version: str
    weights_sha256: str
    device: str
    engine: str
    software: str
    batch: tuple[int, ...]
    trials: tuple[Trial, ...]
    tuned_at: str


def tune(
    package: ModelPackage,
    runner: Runner,
    *,
    now: datetime,
    allowed: Collection[EngineName] = ALL_ENGINES,
    tolerance: Tolerance | None = None,
    budget_s: float = 120.0,
    report: Callable[[str, int, int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> TunedEngine:
    """Time the engines of a package and choose one.

    Parameters
    ----------
    package : ModelPackage
        A model whose network takes one array and gives one array; others stay in plain PyTorch.
    runner : Runner
        Whose device is measured; nothing else runs on it meanwhile.
    now : datetime
        UTC, for the record.
    allowed : collection of EngineName
        Engines that may be chosen; plain PyTorch always may.
    tolerance : Tolerance or None
        How far answers may differ; None takes the defaults.
    budget_s : float
        Seconds of timing, without building the engines; at least three rounds are made all the same.
    report : callable or None
        Called with (what is done, done, total).

    Returns
    -------
    TunedEngine
        The fastest engine that agrees and gains at least `MIN_GAIN`, else plain PyTorch.

    Raises
    ------
    ModelPackageError
        If the package does not build or does not run in plain PyTorch.
    """
    bounds = Tolerance() if tolerance is None else tolerance
    with runner.borrow(package) as (network, device):
        batch = torch.from_numpy(example_batch(package, _batch_size(package, device))).to(device)
        candidates = [
            engine for engine in available_engines(device) if engine in allowed or engine is EngineName.EAGER
        ]
        built, failed = _build_all(candidates, network, batch, report)
        if EngineName.EAGER not in built:  # networks that take or give something else than one array
            trials: tuple[Trial, ...] = tuple(failed)
            batch = batch[:0]
        else:
            timed = _time_all(built, batch, budget_s=budget_s, report=report, clock=clock)
            expected = _answer(package, built[EngineName.EAGER], batch)
            trials = (
                *(
                    _judge(
                        package,
                        _trial(engine, times),
                        expected,
                        _answer(package, built[engine], batch),
                        bounds,
                    )
                    for engine, times in timed.items()
                ),
                *failed,
            )
    engine, judged = choose(trials)
    return TunedEngine(
        name=package.card.name,
        version=package.card.version,
        weights_sha256=package.card.weights.sha256,
        device=device_name(device),
        engine=engine,
        software=software_of(engine),
        batch=tuple(batch.shape),
        trials=judged,
        tuned_at=now.isoformat(timespec="seconds"),
    )


def choose(trials: tuple[Trial, ...]) -> tuple[EngineName, tuple[Trial, ...]]:
    """Return the fastest engine without an objection, and the trials with the reason of each other one.

    Parameters
    ----------
    trials : tuple of Trial
        Plain PyTorch is among them if the network ran at all.
    """
    times = {
        trial.engine: trial.seconds for trial in trials if trial.seconds is not None and not trial.reason
    }
    eager = times.get(EngineName.EAGER)
    if eager is None:
        return EngineName.EAGER, trials
    fast = {name: seconds for name, seconds in times.items() if seconds * MIN_GAIN <= eager}
    best = min(fast, key=lambda name: fast[name]) if fast else EngineName.EAGER.value
    judged = tuple(
        trial
        if trial.reason or trial.engine == best
        else replace(trial, reason="slower than the choice" if trial.engine in fast else _no_gain(trial))
        for trial in trials
    )
    return EngineName(best), judged


def _no_gain(trial: Trial) -> str:
    return "" if trial.engine == EngineName.EAGER else "no gain over plain PyTorch"


def _batch_size(package: ModelPackage, device: torch.device) -> int:
    """Return the images of a batch as the runner makes it."""
    is_volume = package.card.input.dimensions != 2  # noqa: PLR2004
    if device.type == "cpu":
        return 1 if is_volume else CPU_BATCH_SIZE
    return DEFAULT_GPU_WINDOWS if is_volume else DEFAULT_GPU_BATCH_SIZE


def _build_all(
    candidates: list[EngineName],
    network: torch.nn.Module,
    batch: torch.Tensor,
    report: Callable[[str, int, int], None] | None,
) -> tuple[dict[EngineName, Forward], list[Trial]]:
    built: dict[EngineName, Forward] = {}
    failed: list[Trial] = []
    for number, engine in enumerate(candidates):
        if report is not None:
            report("building engines", number, len(candidates))
        try:
            built[engine] = build_engine(engine, network, batch)
        except EngineUnavailableError as exc:
            failed.append(Trial(engine=engine, reason=str(exc)))
        except torch.OutOfMemoryError:
            failed.append(Trial(engine=engine, reason="out of memory"))
    if report is not None:
        report("building engines", len(candidates), len(candidates))
    return built, failed


def _time_all(
    engines: Mapping[EngineName, Forward],
    batch: torch.Tensor,
    *,
    budget_s: float,
    report: Callable[[str, int, int], None] | None,
    clock: Callable[[], float],
) -> dict[EngineName, list[float]]:
    """Time engines in turns, so that whatever else the machine does meets them alike."""
    times: dict[EngineName, list[float]] = {engine: [] for engine in engines}
    rounds, done = _MAX_ROUNDS, 0
    while done < rounds:
        for engine, forward in engines.items():
            times[engine].append(time_once(forward, batch, clock))
        done += 1
        each = sum(values[-1] for values in times.values())
        rounds = min(_MAX_ROUNDS, max(_MIN_ROUNDS, int(budget_s / max(each, 1e-9))))
        if report is not None:
            report("timing engines", min(done, rounds), rounds)
    return times


def time_once(forward: Forward, batch: torch.Tensor, clock: Callable[[], float]) -> float:
    """Return the seconds of one batch, until its result is there."""
    started = clock()
    with torch.inference_mode():
        forward(batch)
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
    return clock() - started


def _answer(package: ModelPackage, forward: Forward, batch: torch.Tensor) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        output = forward(batch)
    card = package.card
    probabilities: npt.NDArray[np.float32] = (
        to_probabilities(output, len(card.labels), card.network.activation).cpu().numpy()
    )
    return probabilities


def _trial(engine: EngineName, seconds: list[float]) -> Trial:
    return Trial(engine=engine, seconds=median(seconds), rounds=len(seconds))


def _judge(
    package: ModelPackage,
    trial: Trial,
    expected: npt.NDArray[np.float32],
    given: npt.NDArray[np.float32],
    bounds: Tolerance,
) -> Trial:
    """Add to a trial how far its answer lies from the expected one, and the objection if that is too far."""
    if given.shape != expected.shape or not np.isfinite(given).all():
        return replace(trial, reason="its answer has another form or is undefined")
    difference = float(np.abs(given - expected).max())
    dice = mask_dice(package, expected, given) if package.card.task == "segmentation" else None
    reason = ""
    if difference > bounds.max_probability_difference:
        reason = f"a probability differs by {difference:.3f}"
    elif dice is not None and dice < bounds.min_dice:
        reason = f"masks agree at a Dice of {dice:.4f} only"
    return replace(trial, difference=difference, dice=dice, reason=reason)


def mask_dice(
    package: ModelPackage, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]
) -> float | None:
    """Return the Dice coefficient of two answers' thresholded masks, or None if both are empty."""
    thresholds = np.array([package.card.threshold_of(label) for label in package.card.labels])
    shape = (1, -1, *(1,) * (first.ndim - 2))
    a, b = first >= thresholds.reshape(shape), second >= thresholds.reshape(shape)
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else None


class TunedEngines:
    """The choices of a site, one small JSON file a package and device.

    Parameters
    ----------
    folder : Path
        Where they lie; it need not exist.
    allowed : collection of EngineName
        Engines that may be used; another choice counts as none.
    """

    def __init__(self, folder: Path, allowed: Collection[EngineName] = ALL_ENGINES) -> None:
        self._folder = folder
        self._allowed = frozenset(allowed)

    def save(self, tuned: TunedEngine) -> Path:
        """Store a choice, in place of an earlier one for the same weights and device."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(tuned.name, tuned.weights_sha256, tuned.device)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(asdict(tuned), indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105 - atomic on every platform
        return path

    def load(self, package: ModelPackage, device: torch.device) -> Mapping[str, object] | None:
        """Return what was stored for a package on a device, or None."""
        path = self._path(package.card.name, package.card.weights.sha256, device_name(device))
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) else None

    def choose(self, package: ModelPackage, device: torch.device) -> EngineName:
        """Return the engine that was measured for a package on a device with these libraries, or eager."""
        stored = self.load(package, device)
        if stored is None or stored.get("weights_sha256") != package.card.weights.sha256:
            return EngineName.EAGER
        try:
            engine = EngineName(str(stored.get("engine")))
        except ValueError:
            return EngineName.EAGER
        is_current = stored.get("device") == device_name(device) and stored.get("software") == software_of(
            engine
        )
        return engine if engine in self._allowed and is_current else EngineName.EAGER

    def _path(self, name: str, digest: str, device: str) -> Path:
        slug = re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower()
        return self._folder / f"{name}-{digest[:12]}-{slug}.json"
