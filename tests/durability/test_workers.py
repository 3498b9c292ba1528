"""Receiving and reading in processes of their own: a worker that dies leaves no study behind."""

from __future__ import annotations

import random
import sys

import pytest
from durability import rig
from stack.node import Node, build_tiny_model
from stack.waiting import wait_for

from orthanc.process import Process

pytestmark = [
    pytest.mark.durability,
    pytest.mark.timeout(1200),
    # pynetdicom leaves the socket of a refused association to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
]

CLI = (sys.executable, "-m", "integration.cli")


class Workers:
    """Two ``preread worker`` processes beside a node."""

    def __init__(self, node, folder):
        self.node = node
        self.processes = {
            name: Process(
                name,
                [
                    *CLI,
                    "worker",
                    "--queues",
                    "read",
                    "--name",
                    name,
                    "--config",
                    str(node.folder / "preread.yaml"),
                ],
                log_file=folder / f"{name}.log",
                environment={"OMP_NUM_THREADS": "1"},
            )
            for name in ("gpu-1", "gpu-2")
        }

    def start(self):
        for process in self.processes.values():
            process.start(lambda: True)

    def stop(self):
        for process in self.processes.values():
            process.stop()

    def logs(self):
        return {name: process.log_file.read_text() for name, process in self.processes.items()}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request):
    if request.param == "sqlite":
        yield ""
        return
    postgres = pytest.importorskip("stack.postgres", reason="the PostgreSQL starter is not in this checkout")
    with postgres.postgres_server() as url:
        yield url


def test_the_studies_of_a_worker_that_dies_are_taken_over(tmp_path, database_url):
    build_tiny_model(tmp_path / "models")
    outbox, ward = tmp_path / "outbox", rig.Ward(count=8)
    destination = {"type": "folder", "name": "outbox", "path": str(outbox)}
    node = Node(tmp_path / "node", rig.settings_for(tmp_path / "models", [destination], database_url))
    node.command = [*CLI, "serve", "--queues", "runs,deliver", "--config"]
    node.start()
    workers = Workers(node, tmp_path)
    workers.start()
    try:
        ward.begin(node)
        wait_for(
            lambda: "study_read" in workers.logs()["gpu-1"],
            what="the first worker's first study",
            timeout_s=180,
        )
        rng = random.Random(1)
        wait_for(lambda: rng.random() < 0.3, what="a moment to die at")
        workers.processes["gpu-1"].kill()
        rig.wait_until_done(node, ward, timeout_s=300)
    finally:
        ward.stop()
        workers.stop()
        node.stop()
    rig.check_nothing_lost(node, ward)
    rig.check_one_result_set_each(rig.results_in_folder(outbox), ward)
    assert "study_read" not in node.log_file.read_text(), "the receiver read a study itself"
    print({name: log.count('"study_read"') for name, log in workers.logs().items()})
