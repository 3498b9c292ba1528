"""Adapter: studies through a node that dies and comes back, and the account of what became of them.

The sender behaves as a modality does: what was not acknowledged is sent again.
What was acknowledged must be in the store in the end, and every study must have
exactly one set of results at every destination.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from stack.modality import make_study, send
from stack.node import MODEL_NAME, Node
from stack.waiting import wait_for

from dicom_node.ledger import Ledger, RunState
from dicom_node.study import StudyKey, derive_study_key

SLICES = 8
_RESEND_PAUSE_S = 0.3


@dataclass
class Ward:
    """The studies of one rig and what the node has acknowledged of them."""

    count: int
    acknowledged: set[str] = field(default_factory=set)
    announced: set[str] = field(default_factory=set)
    failure: BaseException | None = None
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def study_uids(self) -> list[str]:
        return [make_study(number, slices=1)[0].StudyInstanceUID for number in range(1, self.count + 1)]

    def begin(self, node: Node) -> None:
        """Send in a thread: each image until it is acknowledged, each study until it is announced."""
        self._thread = threading.Thread(target=self._send_all, args=(node,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def is_sent(self) -> bool:
        if self.failure is not None:
            raise self.failure
        return len(self.announced) == self.count

    def _send_all(self, node: Node) -> None:
        try:
            for number in range(1, self.count + 1):
                self._send_study(node, number)
        except BaseException as failure:  # noqa: BLE001 - handed to the test's thread
            self.failure = failure

    def _send_study(self, node: Node, number: int) -> None:
        missing = make_study(number, slices=SLICES)
        study_uid = missing[0].StudyInstanceUID
        while missing and not self._stop.is_set():
            statuses = send(missing, node.dicom_port, called="PREREAD")
            taken = {i.SOPInstanceUID for i, status in zip(missing, statuses, strict=True) if status == 0}
            self.acknowledged |= taken
            missing = [instance for instance in missing if instance.SOPInstanceUID not in taken]
            if missing:
                self._stop.wait(_RESEND_PAUSE_S)
        while not self._stop.is_set():
            if node.post(f"/studies/{study_uid}/stable", {"instances": SLICES}) == 202:
                self.announced.add(study_uid)
                return
            self._stop.wait(_RESEND_PAUSE_S)


class Revival(threading.Thread):
    """Starts the node again whenever it has died."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.deaths = 0
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        while not self._over.wait(0.1):
            with self._lock:
                if self.node.is_running() or self._over.is_set():
                    continue
                self.deaths += 1
                try:
                    self.node.start()
                except Exception as failure:  # noqa: BLE001 - a death while starting is a death like others
                    if "ended while starting" not in str(failure):
                        self.failure = failure
                        return

    def end(self) -> None:
        """Stop reviving; the node stays as it is."""
        self._over.set()
        self.join()


def settings_for(models_dir: Path, destinations: list[Mapping], database_url: str = "") -> dict:
    """Return the node's settings: runs begin when a study is announced, and crashes never quarantine."""
    return {
        "models_dir": str(models_dir),
        "database_url": database_url,
        "engine_database_url": database_url,
        "completeness": {"quiet_period_s": 600, "aborted_quiet_period_s": 600, "maximum_wait_s": 3600},
        "engine": {"executor_id": "rig", "maximum_crashes": 1000, "lease_s": 2.0},
        "destinations": destinations,
    }


def open_ledger(node: Node) -> Ledger:
    """Return the node's ledger, read beside the running node."""
    return Ledger.connect(node.settings["database_url"] or f"sqlite:///{node.data_dir / 'ledger.db'}")


def study_keys(node: Node, ward: Ward) -> dict[str, StudyKey]:
    site_key = (node.data_dir / "site.key").read_bytes()
    return {uid: derive_study_key(uid, site_key) for uid in ward.study_uids()}


def wait_until_done(node: Node, ward: Ward, *, timeout_s: float) -> None:
    """Wait until every study has a run and every run is done."""
    wait_for(ward.is_sent, what="all studies to be acknowledged", timeout_s=timeout_s)
    keys = study_keys(node, ward)
    ledger = open_ledger(node)
    try:

        def unfinished() -> dict[str, list[str]]:
            states = {key: [row.state.value for row in ledger.runs_of(key)] for key in keys.values()}
            for found in states.values():
                assert RunState.QUARANTINED.value not in found, f"a study was quarantined\n{node.log_tail()}"
            return {key: found for key, found in states.items() if found != [RunState.DONE.value]}

        deadline = time.monotonic() + timeout_s
        while left := unfinished():
            if time.monotonic() > deadline:
                raise AssertionError(f"not done after {timeout_s:.0f} s: {left}\n{node.log_tail()}")
            time.sleep(0.5)
    finally:
        ledger.close()


def check_nothing_lost(node: Node, ward: Ward) -> None:
    """Every acknowledged image is in the ledger, and its file is whole and its own."""
    ledger = open_ledger(node)
    try:
        stored = {}
        for key in study_keys(node, ward).values():
            for instance in ledger.study(key).instances:
                stored[instance.sop_instance_uid] = node.data_dir / "instances" / instance.path
    finally:
        ledger.close()
    assert ward.acknowledged <= set(stored), "acknowledged images are not in the ledger"
    for uid in ward.acknowledged:
        dataset = pydicom.dcmread(stored[uid])
        assert dataset.SOPInstanceUID == uid
        assert len(dataset.PixelData) == dataset.Rows * dataset.Columns * 2


def check_one_result_set_each(found: Mapping[str, list[str]], ward: Ward) -> Counter:
    """Every study has the same kinds of results, each as often as the first study has them.

    ``found`` maps Study Instance UID to one word per result object: its modality or resource type.
    """
    assert set(found) == set(ward.study_uids()), (
        "results of some studies are missing, or of unknown ones there"
    )
    sets = {uid: Counter(words) for uid, words in found.items()}
    pattern = next(iter(sets.values()))
    assert pattern, "there are no results at all"
    assert pattern.get("SEG", 1) == 1, f"more than one segmentation: {pattern}"
    different = {uid[-6:]: dict(counts) for uid, counts in sets.items() if counts != pattern}
    assert not different, f"not every study has {dict(pattern)}: {different}"
    return pattern


def results_in_folder(outbox: Path) -> dict[str, list[str]]:
    """Return what lies in a folder destination, by study: modalities, and ``Bundle`` per FHIR file."""
    found: dict[str, list[str]] = {}
    for path in sorted(outbox.rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found.setdefault(header.StudyInstanceUID, []).append(header.Modality)
    return found


def results_in_orthanc(orthanc, ward: Ward) -> dict[str, list[str]]:
    """Return what Orthanc holds by QIDO-RS, by study: the modality of every instance."""
    found = {}
    for uid in ward.study_uids():
        answer = orthanc.get(f"/dicom-web/studies/{uid}/instances?includefield=00080060") or []
        found[uid] = [instance["00080060"]["Value"][0] for instance in answer]
    return found


def kill_at_random(node: Node, random, *, times: int, is_over: Callable[[], bool]) -> None:
    """SIGKILL the running node ``times`` times, each after a random while of work."""
    for _ in range(times):
        wait_for(node.is_ready, what="the node to be back", timeout_s=180)
        time.sleep(random.uniform(0.05, 4.0))  # the moment of death is what is random here
        if is_over():
            return
        node.kill()
        wait_for(node.is_running, what="the revival", timeout_s=60)


__all__ = [
    "MODEL_NAME",
    "Revival",
    "Ward",
    "check_nothing_lost",
    "check_one_result_set_each",
    "kill_at_random",
    "open_ledger",
    "results_in_folder",
    "results_in_orthanc",
    "settings_for",
    "wait_until_done",
]
