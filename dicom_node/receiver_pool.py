"""Adapter: several receiving processes on one port.

Python runs one thread at a time, so one process fills one core. Here the kernel
spreads connections over processes (SO_REUSEPORT), each with its own store and
ledger connection. What must be seen across processes goes through the ledger;
events come back as JSON lines. A process that dies is replaced, and what it
left open is closed as aborted.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import TypeAdapter

from dicom_node.clock import utc_now
from dicom_node.commitment import CommitmentPeer
from dicom_node.errors import TransientError
from dicom_node.ledger import Ledger
from dicom_node.receiver import CommitmentReportHandler, ScpSettings, ScpSettingsError

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0
_RESTART_PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverPlan:
    """Everything a receiving process needs to build its own adapters."""

    settings: ScpSettings
    store_root: Path
    watermark: tuple[int, float]
    ledger_url: str
    commitment_peers: Mapping[str, CommitmentPeer] = field(default_factory=dict)
    receiver_id: str = ""


PLAN: Final = TypeAdapter(ReceiverPlan)


class _Member:
    """One receiving process and the thread that listens to it."""

    def __init__(self, plan: ReceiverPlan, on_event: Callable[[list[Any]], None]) -> None:
        self.receiver_id = plan.receiver_id
        self._on_event = on_event
        self.is_ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.receiver_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(PLAN.dump_json(plan) + b"\n")
        self.process.stdin.flush()

    def listen(self) -> None:
        """Hand on what the process says until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event == ["ready"]:
                self.is_ready.set()
            else:
                self._on_event(event)
        self.process.stdout.close()
        self.process.wait()

    def end(self) -> None:
        """Ask the process to stop; its standard input is its leash."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def reap(self) -> None:
        """Wait for the process to end, and end it if it does not."""
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class ReceiverPool:
    """``settings.receiver_processes`` processes that listen on one port.

    Parameters
    ----------
    plan : ReceiverPlan
        What each process builds.
    on_association_released, on_commitment_report : callable, optional
        As of ``Receiver``; called in this process.
    """

    def __init__(
        self,
        plan: ReceiverPlan,
        *,
        on_association_released: Callable[[str], None] | None = None,
        on_commitment_report: CommitmentReportHandler | None = None,
    ) -> None:
        self._plan = plan
        self._on_released = on_association_released
        self._on_report = on_commitment_report
        self._keepers: list[threading.Thread] = []
        self._members: dict[int, _Member] = {}
        self._reserved: socket.socket | None = None
        self._is_stopping = threading.Event()

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return self._plan.settings.port

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Ids of the processes that listen now."""
        return tuple(m.process.pid for m in list(self._members.values()) if m.is_ready.is_set())

    def start(self) -> None:
        """Start the processes and wait until all listen.

        Raises
        ------
        ScpSettingsError
            If the port cannot be bound, or a process does not come up.
        """
        settings = self._plan.settings
        self._reserved = _reserve_port(settings)
        port = int(self._reserved.getsockname()[1])
        self._plan = replace(self._plan, settings=replace(settings, port=port))
        for slot in range(settings.receiver_processes):
            self._members[slot] = self._spawn()
            keeper = threading.Thread(
                target=self._keep, args=(slot,), name=f"preread-receiver-{slot}", daemon=True
            )
            keeper.start()
            self._keepers.append(keeper)
        for member in tuple(self._members.values()):
            if not member.is_ready.wait(_START_TIMEOUT_S):
                self.stop()
                raise ScpSettingsError("dicom.receiver_processes: a process did not start: see its log")

    def stop(self) -> None:
        """End the processes; associations that are open are aborted."""
        self._is_stopping.set()
        for member in self._members.values():
            member.end()
        for member in self._members.values():
            member.reap()
        for keeper in self._keepers:
            keeper.join(_STOP_TIMEOUT_S)
        if self._reserved is not None:
            self._reserved.close()

    def kill_process(self, process_id: int) -> None:
        """End one process without warning, as a crash would; it is replaced."""
        for member in self._members.values():
            if member.process.pid == process_id:
                member.process.kill()

    def _spawn(self) -> _Member:
        return _Member(replace(self._plan, receiver_id=uuid.uuid4().hex), self._on_event)

    def _keep(self, slot: int) -> None:
        """Listen to one process; replace it when it dies."""
        while True:
            member = self._members[slot]
            member.listen()
            if self._is_stopping.is_set():
                return
            log.error("receiver_died", reason=f"exit code {member.process.returncode}")
            member.is_ready.clear()
            member.end()
            self._close_associations(member.receiver_id)
            if self._is_stopping.wait(_RESTART_PAUSE_S):
                return
            self._members[slot] = self._spawn()

    def _close_associations(self, receiver_id: str) -> None:
        ledger = Ledger.connect(self._plan.ledger_url)
        try:
            with contextlib.suppress(TransientError):
                ledger.close_stale_associations(utc_now(), receiver_id=receiver_id)
        finally:
            ledger.close()

    def _on_event(self, event: list[Any]) -> None:
        kind, *content = event
        try:
            if kind == "released" and self._on_released is not None:
                self._on_released(*content)
            elif kind == "report" and self._on_report is not None:
                transaction_uid, committed, failed = content
                self._on_report(
                    transaction_uid, tuple(committed), tuple((uid, reason) for uid, reason in failed)
                )
        except Exception as error:
            log.exception("receiver_event_failed", error=type(error).__name__)


def _reserve_port(settings: ScpSettings) -> socket.socket:
    """Bind the port without listening: it gets no connections, and nobody else gets the port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        reserved.bind((settings.host, settings.port))
    except OSError as error:
        reserved.close()
        where = f"{settings.host}:{settings.port}"
        raise ScpSettingsError(f"dicom.port: cannot listen on {where}: is it in use?") from error
    return reserved
