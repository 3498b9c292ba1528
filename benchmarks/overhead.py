"""The node's own time per study: everything but the network.

Sends N synthetic brain MR studies over a real association to an embedded node
(SQLite, folder destination), one after the other, and compares the time from
the release of the association to the confirmed delivery with the time that the
model's ``read`` step took.

    python benchmarks/overhead.py --studies 10            # drafts
    python benchmarks/overhead.py --studies 10 --worded   # worded by the embedded language model
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from dicom_node.ledger import RunState
from dicom_node.phantom import brain_mr_study
from integration.app import Node
from integration.demo import embedded_settings, send_to_node
from integration.observability import configure_logging

STEPS = ("assemble", "route", "read", "draft", "refine", "encode", "gate", "deliver")


def write_study(folder: Path, seed: int) -> list[Path]:
    folder.mkdir(parents=True)
    files = []
    for number, dataset in enumerate(brain_mr_study(seed).datasets):
        path = folder / f"{number:03d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def step_seconds(node: Node) -> dict[str, float]:
    samples = {
        sample.labels["step"]: sample.value
        for metric in node.metrics.steps.collect()
        for sample in metric.samples
        if sample.name.endswith("_sum")
    }
    return {step: samples.get(step, 0.0) for step in STEPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--worded", action="store_true", help="let the embedded language model word reports")
    arguments = parser.parse_args()
    configure_logging(level=40)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        studies = [write_study(out / "studies" / str(n), seed=1000 + n) for n in range(arguments.studies)]
        quiet_s = 0.5
        settings = embedded_settings(out, quiet_period_s=quiet_s, is_worded=arguments.worded)
        with Node(settings) as node:
            node.start()
            for files in studies:
                before = step_seconds(node)
                began = time.perf_counter()
                send_to_node(node, files, lambda *_: None)
                sent = time.perf_counter()
                known = len(node.ledger.runs_in([RunState.DONE]))
                while len(node.ledger.runs_in([RunState.DONE])) == known:
                    time.sleep(0.01)
                done = time.perf_counter()
                steps = {name: seconds - before[name] for name, seconds in step_seconds(node).items()}
                rows.append({"send": sent - began, "total": done - sent, "quiet": quiet_s, **steps})
    print(f"{len(rows)} studies of {len(studies[0])} images, {os.cpu_count()} cores, {platform.machine()}")
    print(f"{'':12s} {'median':>8s} {'min':>8s} {'max':>8s}  seconds")
    for name in ("send", "total", "quiet", *STEPS):
        values = [row[name] for row in rows]
        print(f"{name:12s} {statistics.median(values):8.3f} {min(values):8.3f} {max(values):8.3f}")
    own = [row["total"] - row["read"] - row["quiet"] for row in rows]
    print(f"{'own':12s} {statistics.median(own):8.3f} {min(own):8.3f} {max(own):8.3f}  (total-quiet-read)")


if __name__ == "__main__":
    main()
