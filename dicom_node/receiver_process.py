"""Adapter: one receiving process of a ``ReceiverPool``; started as ``python -m dicom_node.receiver_process``.

The plan comes as the first line of standard input, events go to standard output
as JSON lines. When standard input ends, the parent is gone or wants an end.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from typing import Any

from dicom_node.commitment import CommitmentScp
from dicom_node.intake import Intake
from dicom_node.ledger import Ledger
from dicom_node.receiver import Receiver
from dicom_node.receiver_pool import PLAN, ReceiverPlan
from dicom_node.storage import InstanceStore


class _EventWriter:
    """Writes events for the parent; a parent that is gone needs none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._target = sys.stdout.buffer
        # Whatever else prints must not get between the events.
        sys.stdout = sys.stderr

    def __call__(self, *event: Any) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._target.write(json.dumps(event).encode() + b"\n")
            self._target.flush()


def serve(plan: ReceiverPlan) -> None:
    """Receive until standard input ends."""
    send = _EventWriter()
    minimum_bytes, minimum_fraction = plan.watermark
    store = InstanceStore(plan.store_root, min_free_bytes=minimum_bytes, min_free_fraction=minimum_fraction)
    ledger = Ledger.connect(plan.ledger_url)
    peers = plan.commitment_peers
    receiver = Receiver(
        plan.settings,
        Intake(store, ledger),
        on_association_released=lambda association_id: send("released", association_id),
        on_commitment_report=lambda *report: send("report", *report),
        commitment=CommitmentScp(plan.settings.ae_title, ledger, peers) if peers else None,
        receiver_id=plan.receiver_id,
    )
    receiver.start()
    send("ready")
    sys.stdin.buffer.read()
    receiver.stop()
    ledger.close()


if __name__ == "__main__":
    # The parent decides when to stop; Ctrl-C reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(PLAN.validate_json(sys.stdin.buffer.readline()))
