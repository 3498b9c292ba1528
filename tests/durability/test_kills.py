"""A node that is killed again and again loses nothing and duplicates nothing."""

from __future__ import annotations

import json
import os
import random
import sys
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from durability import rig
from durability.killing_node import MOMENTS
from stack.node import Node, build_tiny_model
from stack.servers import fhir_server, orthanc_server
from stack.waiting import wait_for

from orthanc.companions import OrthancSettings

pytestmark = [
    pytest.mark.durability,
    pytest.mark.timeout(3000),
    # pynetdicom leaves the socket of a refused association to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
]

KILLING_NODE = Path(__file__).with_name("killing_node.py")
STUDIES = int(os.environ.get("PREREAD_RIG_STUDIES", "20"))
KILLS = int(os.environ.get("PREREAD_RIG_KILLS", "10"))
SEED = int(os.environ.get("PREREAD_RIG_SEED", "1"))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    build_tiny_model(folder)
    return folder


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request, tmp_path):
    if request.param == "sqlite":
        yield ""
        return
    postgres = pytest.importorskip("stack.postgres", reason="the PostgreSQL starter is not in this checkout")
    with postgres.postgres_server() as url:
        yield url


def to_folder(path):
    return {"type": "folder", "name": "outbox", "path": str(path)}


def to_orthanc(orthanc):
    auth = {"type": "basic", "user": orthanc.user, "password": orthanc.password}
    return {"type": "stow", "name": "orthanc", "url": orthanc.dicomweb_url, "auth": auth}


def to_fhir(url):
    return {"type": "fhir", "name": "ehr", "url": url}


@contextmanager
def rig_running(node, ward):
    """The node alive, the sender sending, and somebody who starts the node again when it dies."""
    revival = rig.Revival(node)
    with ExitStack() as stack:
        stack.callback(node.stop)
        stack.callback(revival.end)
        stack.callback(ward.stop)
        revival.start()
        wait_for(node.is_ready, what="the first start", timeout_s=180)
        ward.begin(node)
        yield revival


def fhir_count(url, resource_type, **search):
    query = urllib.parse.urlencode({**search, "_count": 1000})
    with urllib.request.urlopen(f"{url}/{resource_type}?{query}", timeout=30) as answer:
        return len(json.load(answer).get("entry", []))


def test_a_kill_before_and_after_every_step_loses_and_duplicates_nothing(
    tmp_path, models_dir, database_url, monkeypatch
):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("KILL_MARKS", str(marks))
    outbox, ward = tmp_path / "outbox", rig.Ward(count=3)
    node = Node(
        tmp_path / "node",
        rig.settings_for(models_dir, [to_folder(outbox)], database_url),
        launcher=(sys.executable, str(KILLING_NODE)),
    )
    with rig_running(node, ward) as revival:
        rig.wait_until_done(node, ward, timeout_s=1800)
        assert revival.failure is None

        assert {mark.name for mark in marks.iterdir()} == set(MOMENTS), "some moments were never reached"
        rig.check_nothing_lost(node, ward)
        pattern = rig.check_one_result_set_each(rig.results_in_folder(outbox), ward)
        assert pattern["SEG"] == 1
        print(f"{revival.deaths} starts, every study with {dict(pattern)}")


def test_kills_at_random_times_lose_and_duplicate_nothing(tmp_path, models_dir, database_url):
    outbox, ward = tmp_path / "outbox", rig.Ward(count=STUDIES)
    node = Node(tmp_path / "node", rig.settings_for(models_dir, [to_folder(outbox)], database_url))
    with rig_running(node, ward) as revival:
        rig.kill_at_random(node, random.Random(SEED), times=KILLS, is_over=lambda: False)
        rig.wait_until_done(node, ward, timeout_s=1800)
        assert revival.failure is None

        rig.check_nothing_lost(node, ward)
        pattern = rig.check_one_result_set_each(rig.results_in_folder(outbox), ward)
        print(f"{STUDIES} studies, {KILLS} kills (seed {SEED}), each with {dict(pattern)}")


@pytest.mark.orthanc
@pytest.mark.fhir_server
def test_kills_of_the_node_leave_one_result_set_in_orthanc_and_in_the_fhir_server(tmp_path, models_dir):
    ward = rig.Ward(count=STUDIES)
    with (
        orthanc_server(OrthancSettings(folder=tmp_path / "orthanc")) as orthanc,
        fhir_server(tmp_path) as fhir,
    ):
        node = Node(tmp_path / "node", rig.settings_for(models_dir, [to_orthanc(orthanc), to_fhir(fhir.url)]))
        with rig_running(node, ward) as revival:
            rig.kill_at_random(node, random.Random(SEED + 1), times=KILLS, is_over=lambda: False)
            rig.wait_until_done(node, ward, timeout_s=1800)
            assert revival.failure is None

            rig.check_nothing_lost(node, ward)
            rig.check_one_result_set_each(rig.results_in_orthanc(orthanc, ward), ward)
            assert fhir_count(fhir.url, "DiagnosticReport") == ward.count
            assert fhir_count(fhir.url, "ImagingStudy") == ward.count


@pytest.mark.orthanc
@pytest.mark.fhir_server
def test_destinations_that_are_down_get_everything_once_they_are_back(tmp_path, models_dir):
    ward = rig.Ward(count=3)
    with (
        orthanc_server(OrthancSettings(folder=tmp_path / "orthanc")) as orthanc,
        fhir_server(tmp_path) as fhir,
    ):
        orthanc.stop()
        fhir.stop()
        node = Node(tmp_path / "node", rig.settings_for(models_dir, [to_orthanc(orthanc), to_fhir(fhir.url)]))
        with rig_running(node, ward) as revival:
            wait_for(ward.is_sent, what="all studies to be acknowledged", timeout_s=300)
            ledger = rig.open_ledger(node)
            runs = [f"{key}" for key in rig.study_keys(node, ward).values()]
            wait_for(
                lambda: all(
                    any(d.error for row in ledger.runs_of(key) for d in ledger.deliveries_of(row.run.run_id))
                    for key in runs
                ),
                what="every study to have met the outage",
                timeout_s=300,
            )
            ledger.close()
            orthanc.start()
            fhir.start()
            rig.wait_until_done(node, ward, timeout_s=900)
            assert revival.deaths == 1, "the outage must not bring the node down"

            rig.check_one_result_set_each(rig.results_in_orthanc(orthanc, ward), ward)
            assert fhir_count(fhir.url, "DiagnosticReport") == ward.count
