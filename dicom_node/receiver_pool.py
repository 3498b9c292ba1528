"""Adapter: several receiving processes on one port.

Python runs one thread at a time, so one process fills one core. Here the kernel
spreads connections over processes (SO_REUSEPORT), each with its own store and
ledger connection. What must be seen across processes goes through the ledger;
events come back over a pipe. A process that dies is replaced, and what it left
open is closed as aborted.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import structlog

from dicom_node.clock import utc_now
from dicom_node.commitment import CommitmentPeer, CommitmentScp
from dicom_node.errors import TransientError
from dicom_node.intake import Intake
from dicom_node.ledger import Ledger
from dicom_node.receiver import CommitmentReportHandler, Receiver, ScpSettings, ScpSettingsError
from dicom_node.storage import InstanceStore

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


@dataclass(slots=True)
class _Member:
    process: BaseProcess
    pipe: Connection
    receiver_id: str


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
        self._members: list[_Member] = []
        self._reserved: socket.socket | None = None
        self._is_stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="preread-receivers", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        if self._reserved is None:
            return self._plan.settings.port
        return int(self._reserved.getsockname()[1])

    def start(self) -> None:
        """Start the processes and wait until all listen.

        Raises
        ------
        ScpSettingsError
            If the port cannot be bound, or a process does not come up.
        """
        settings = self._plan.settings
        self._reserved = _reserve_port(settings)
        self._plan = replace(self._plan, settings=replace(settings, port=self.port))
        self._members = [self._spawn() for _ in range(settings.receiver_processes)]
        for member in self._members:
            if not member.pipe.poll(_START_TIMEOUT_S) or member.pipe.recv() != ("ready",):
                self.stop()
                raise ScpSettingsError(
                    "dicom.receiver_processes: a receiving process did not start: see its log"
                )
        self._watcher.start()

    def stop(self) -> None:
        """End the processes; associations that are open are aborted."""
        self._is_stopping.set()
        for member in self._members:
            member.pipe.close()
        for member in self._members:
            member.process.join(_STOP_TIMEOUT_S)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
        if self._watcher.is_alive():
            self._watcher.join(_STOP_TIMEOUT_S)
        if self._reserved is not None:
            self._reserved.close()

    def _spawn(self) -> _Member:
        receiver_id = uuid.uuid4().hex
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        plan = replace(self._plan, receiver_id=receiver_id)
        process = context.Process(target=_serve, args=(plan, theirs), name="preread-receiver", daemon=True)
        process.start()
        theirs.close()
        return _Member(process, ours, receiver_id)

    def _watch(self) -> None:
        while not self._is_stopping.is_set():
            pipes = {member.pipe: member for member in self._members if not member.pipe.closed}
            try:
                ready = wait(list(pipes), timeout=0.5)
            except OSError:
                continue
            for pipe in ready:
                assert isinstance(pipe, Connection)
                self._take(pipes[pipe])

    def _take(self, member: _Member) -> None:
        try:
            message = member.pipe.recv()
        except (EOFError, OSError):
            if not self._is_stopping.is_set():
                self._replace(member)
            return
        try:
            if message[0] == "released" and self._on_released is not None:
                self._on_released(message[1])
            elif message[0] == "report" and self._on_report is not None:
                self._on_report(*message[1:])
        except Exception as error:
            log.exception("receiver_event_failed", error=type(error).__name__)

    def _replace(self, member: _Member) -> None:
        log.error("receiver_died", reason=f"exit code {member.process.exitcode}")
        member.pipe.close()
        self._members.remove(member)
        ledger = Ledger.connect(self._plan.ledger_url)
        try:
            with contextlib.suppress(TransientError):
                ledger.close_stale_associations(utc_now(), receiver_id=member.receiver_id)
        finally:
            ledger.close()
        time.sleep(_RESTART_PAUSE_S)
        self._members.append(self._spawn())


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


def _serve(plan: ReceiverPlan, pipe: Connection) -> None:
    """Run one receiving process until the parent closes the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sending = threading.Lock()

    def send(*message: Any) -> None:
        with sending, contextlib.suppress(OSError):
            pipe.send(message)

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
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.recv()
    receiver.stop()
    ledger.close()
