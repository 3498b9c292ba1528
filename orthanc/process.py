"""Adapter: starts one companion server as a child process, waits until it answers, stops it.

Every server of the stack is started through ``Process``; none is waited for by
sleeping on a guess. Output goes to a log file beside the server's data.
"""


# ruff: noqa: INP001, S603 -- a folder of configuration is no package; the commands are our own

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_LOOK_INTERVAL_S = 0.05
_LOG_TAIL_BYTES = 4000


class CompanionError(RuntimeError):
    """A companion server is not installed, did not start or stopped by itself."""


class Process:
    """A server process in a session of its own.

    Parameters
    ----------
    name : str
        What it is called in messages.
    command : sequence of str
        Program and arguments.
    log_file : Path
        Takes standard output and error; appended to.
    environment : mapping, optional
        Added to this process's environment.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_file: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log_file = log_file
        self._environment = dict(environment or {})
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._child is None:
            raise CompanionError(f"{self.name} is not running: start it first.")
        return self._child.pid

    def is_running(self) -> bool:
        """Say whether the process lives."""
        return self._child is not None and self._child.poll() is None

    def start(self, is_ready: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
        """Start the server and return when ``is_ready`` says so.

        Raises
        ------
        CompanionError
            If the program is missing, ends early, or is not ready in time.
        """
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | self._environment,
                    start_new_session=True,
                )
            except FileNotFoundError as exc:
                raise CompanionError(f"{self.name} needs the program {self.command[0]}: install it.") from exc
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running():
                raise CompanionError(f"{self.name} ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise CompanionError(f"{self.name} was not ready after {timeout_s:.0f} s:\n{self.log_tail()}")
            time.sleep(_LOOK_INTERVAL_S)

    def stop(self, *, timeout_s: float = 20.0) -> None:
        """End the server: SIGTERM, and SIGKILL for its whole session if that does not help."""
        if self._child is None:
            return
        if self.is_running():
            self._child.terminate()
            try:
                self._child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._child.wait()
        self._child = None

    def kill(self) -> None:
        """End the server's whole session at once, as a power cut would."""
        if self._child is not None and self.is_running():
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def log_tail(self) -> str:
        """Return the end of the log."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts_connections(port: int) -> bool:
    """Say whether somebody listens on ``port`` of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
