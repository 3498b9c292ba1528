"""SIGKILL while images come in: what was acknowledged is there, byte for byte."""

from __future__ import annotations

import random
import threading
import time

import pytest
from receiving.images import encode_pieces, make_image
from receiving.sender import associate, contexts_of, store
from stack.waiting import wait_for

from dicom_node.ledger import Ledger
from dicom_node.part10 import split_part10
from dicom_node.receiver_pool import ReceiverPlan, ReceiverPool
from dicom_node.scp import ScpSettings
from dicom_node.storage import InstanceStore

SENDERS, KILLS = 4, 5


@pytest.mark.durability
def test_no_acknowledged_instance_is_lost(store_here: InstanceStore, sqlite_ledger: Ledger) -> None:
    plan = ReceiverPlan(
        settings=ScpSettings(port=0, receiver_processes=2),
        store_root=store_here.root,
        watermark=(0, 0.0),
        ledger_url=sqlite_ledger.url,
    )
    pool = ReceiverPool(plan)
    pool.start()
    acknowledged: dict[str, bytes] = {}
    done = threading.Event()
    senders = [
        threading.Thread(target=_send_until, args=(done, pool.port, sender, acknowledged))
        for sender in range(SENDERS)
    ]
    for thread in senders:
        thread.start()
    chooser = random.Random(7)
    for kill in range(KILLS):
        before = len(acknowledged)
        wait_for(lambda enough=before + 10: len(acknowledged) > enough, what="images", interval_s=0.01)
        time.sleep(chooser.uniform(0, 0.1))  # somewhere inside a store
        pool.kill_process(chooser.choice(pool.process_ids))
        wait_for(lambda: len(pool.process_ids) == 2, what=f"life after kill {kill + 1}", interval_s=0.05)
    done.set()
    for thread in senders:
        thread.join(60)
    pool.stop()
    rows = {row.sop_instance_uid: row for row in sqlite_ledger.unindexed(100_000)}
    assert len(acknowledged) > KILLS * 10
    assert acknowledged.keys() <= rows.keys()
    for uid, data_set in acknowledged.items():
        stored = store_here.path_of(rows[uid].path).read_bytes()
        assert bytes(split_part10(stored).data_set) == data_set


@pytest.fixture
def store_here(store: InstanceStore) -> InstanceStore:
    return store


def _send_until(done: threading.Event, port: int, sender: int, acknowledged: dict[str, bytes]) -> None:
    number = 0
    while not done.is_set():
        files = [encode_pieces(make_image(f"s{sender}", number=number + i, size=96)) for i in range(20)]
        number += len(files)
        assoc = associate(port, contexts_of(files))
        if not assoc.is_established:
            done.wait(0.05)
            continue
        for file in files:
            try:
                status = store(assoc, file)
            except (AssertionError, AttributeError, ValueError):
                break  # the process died: no answer, no promise
            if status == 0:
                acknowledged[file.meta().sop_instance_uid] = bytes(file.data_set)
        assoc.abort(block=False) if assoc.is_established else assoc.kill()
