"""Latency and throughput of every usable model package in each engine, beside plain eager PyTorch.

Engines of one network are timed in turns, round by round, in one process, so that whatever else the machine
does meets them alike; figures are medians of n rounds. Grad-CAM is timed beside the prediction that it
explains. A network that does not take one array and give one array (a detector, the fusion of CT and MR) runs
in plain PyTorch only, and is timed reading a made-up study.

    python benchmarks/models.py                       every package in models/
    python benchmarks/models.py --model brain-tumour-lgg --budget-s 60
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

from dicom_node.errors import PrereadError
from inference.engines import EngineName, EngineUnavailableError, available_engines, build_engine, device_name
from inference.explain import grad_cam
from inference.packages import ModelPackage, discover
from inference.reading import VOLUMETRIC, read_study
from inference.rehearsal import example_batch, example_study
from inference.runner import CPU_BATCH_SIZE, DEFAULT_GPU_BATCH_SIZE, DEFAULT_GPU_WINDOWS, Runner
from inference.tuning import time_once

MIN_ROUNDS, MAX_ROUNDS = 5, 25


def batch_sizes(package: ModelPackage, device: torch.device) -> list[int]:
    """Return 1, for latency, and the runner's own batch, for throughput."""
    is_volume = package.card.input.dimensions == VOLUMETRIC
    if device.type == "cpu":
        return [1] if is_volume else [1, CPU_BATCH_SIZE]
    return [1, DEFAULT_GPU_WINDOWS if is_volume else DEFAULT_GPU_BATCH_SIZE]


def in_turns(
    calls: dict[str, Callable[[], object]], budget_s: float, device: torch.device
) -> dict[str, list[float]]:
    """Time calls in turns and return the seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    rounds = MIN_ROUNDS
    done = 0
    while done < rounds:
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - started)
        done += 1
        each = sum(seconds[-1] for seconds in times.values())
        rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget_s / each)))
    return times


def time_engines(package: ModelPackage, runner: Runner, budget_s: float) -> bool:
    """Print a line an engine; return whether the network takes one array."""
    with runner.borrow(package) as (network, device):
        for size in batch_sizes(package, device):
            batch = torch.from_numpy(example_batch(package, size)).to(device)
            forwards = {}
            for engine in available_engines(device):
                try:
                    forwards[engine] = build_engine(engine, network, batch)
                except EngineUnavailableError as error:
                    if engine is EngineName.EAGER:
                        return False
                    print(f"  {engine:16} batch {size:3}: {error}")
                except torch.OutOfMemoryError:
                    print(f"  {engine:16} batch {size:3}: out of memory")
            calls = {
                str(name): (lambda forward=forward: time_once(forward, batch, time.perf_counter))  # noqa: B023
                for name, forward in forwards.items()
            }
            times = in_turns(calls, budget_s, device)
            eager = median(times[EngineName.EAGER])
            for name, seconds in times.items():
                middle = median(seconds)
                print(
                    f"  {name:16} batch {size:3}: {1000 * middle:8.1f} ms, {size / middle:8.2f} images/s, "
                    f"{eager / middle:5.2f} x eager (n = {len(seconds)})"
                )
    return True


def time_grad_cam(package: ModelPackage, runner: Runner, budget_s: float) -> None:
    """Print what Grad-CAM of one image costs beside its prediction, both in plain PyTorch."""
    layer = package.card.explanation_layer
    if layer is None:
        print("  Grad-CAM          the card names no explanation_layer")
        return
    with runner.borrow(package) as (network, device):
        image = example_batch(package, 1)
        batch = torch.from_numpy(image).to(device)

        def score(output: torch.Tensor) -> torch.Tensor:
            return output.flatten(1).sum(dim=1)

        calls = {
            "prediction": lambda: time_once(network, batch, time.perf_counter),
            "Grad-CAM": lambda: grad_cam(network, image, layer, score, device=device),
        }
        times = in_turns(calls, budget_s, device)
    prediction, explanation = median(times["prediction"]), median(times["Grad-CAM"])
    print(
        f"  {'Grad-CAM':16} batch   1: {1000 * explanation:8.1f} ms beside {1000 * prediction:.1f} ms of the "
        f"prediction: {explanation / prediction:.2f} x (n = {len(times['Grad-CAM'])})"
    )


def time_study(package: ModelPackage, runner: Runner, budget_s: float) -> None:
    """Print the time of a whole made-up study."""
    study = example_study(package)
    device = torch.device(runner.device)
    read_study(package, study, runner, "2.25.1")
    times = in_turns({"study": lambda: read_study(package, study, runner, "2.25.1")}, budget_s, device)[
        "study"
    ]
    print(
        f"  {'eager':16} a study : {1000 * median(times):8.1f} ms with everything around the network, "
        f"explanation included (n = {len(times)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--model", action="append", help="name, or name@version; repeatable")
    parser.add_argument("--budget-s", type=float, default=30.0, help="seconds of timing a network and batch")
    arguments = parser.parse_args()
    catalogue = discover(arguments.models_dir)
    packages = list(catalogue.newest.values())
    if arguments.model:
        pairs = [name.partition("@") for name in arguments.model]
        packages = [catalogue.package(name, version or None) for name, _, version in pairs]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.platform()}, torch {torch.__version__}")
    for name in devices:
        runner = Runner(name)
        print(f"\n{name}: {device_name(torch.device(runner.device))}")
        for package in packages:
            print(f"\n{package.card.name}@{package.card.version} ({package.card.task})")
            try:
                if time_engines(package, runner, arguments.budget_s):
                    time_grad_cam(package, runner, arguments.budget_s / 2)
                else:
                    time_study(package, runner, arguments.budget_s)
            except PrereadError as error:
                print(f"  not timed: {error}")
    for broken in catalogue.broken:
        print(f"\nbroken: {broken.reason}")


if __name__ == "__main__":
    main()
