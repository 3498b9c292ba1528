"""Adapter: runs a server that can only listen on every interface, so that only 127.0.0.1 reaches it.

Orthanc has no setting for the address it listens on. Here it runs in a network
namespace of its own, which has no interface but ``lo``; its ports appear on the
loopback of this machine, and the few ports it must reach appear inside::

    python -m orthanc.loopback --publish 8042 --publish 4242 --reach 11112 -- Orthanc orthanc.json

Two processes share the work, and a listening socket stays in the namespace
where it was made: the outer one makes the published sockets and lends them to
the inner one, which accepts there and connects inside; for the reached ports it
is the other way round. When either ends, so do the other and the server. Needs
root or unprivileged user namespaces, and util-linux.
"""


# ruff: noqa: INP001, S603 -- a folder of configuration is no package; the command is the caller's

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

_THIS_FILE = os.path.realpath(__file__)
_PIECE_BYTES = 256 * 1024
_MOST_PORTS = 64
_UNSHARE = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--net")


def can_isolate() -> bool:
    """Say whether this machine lets us make a network namespace with a working ``lo``."""
    if not all(shutil.which(program) for program in ("unshare", "ip")):
        return False
    made = subprocess.run([*_UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return made.returncode == 0


def wrap(command: Sequence[str], *, publish: Sequence[int], reach: Sequence[int]) -> list[str]:
    """Return the command that runs ``command`` isolated, with these ports carried across.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; they run inside.
    publish : sequence of int
        Ports of the program that 127.0.0.1 of this machine shall have.
    reach : sequence of int
        Ports of 127.0.0.1 of this machine that the program shall have.
    """
    flags = [f"--publish={port}" for port in publish] + [f"--reach={port}" for port in reach]
    return [sys.executable, _THIS_FILE, *flags, "--", *command]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(ConnectionError, OSError):
        writer.write_eof()


async def _forward(listener: socket.socket) -> None:
    """Carry every connection of ``listener`` to the same port of this namespace's loopback."""
    port = listener.getsockname()[1]

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(carry, sock=listener)
    await server.serve_forever()


def _listen(ports: Sequence[int]) -> list[socket.socket]:
    return [socket.create_server(("127.0.0.1", port), backlog=128) for port in ports]


async def _wait_for_end(control: socket.socket) -> None:
    """Return when the process at the other end of ``control`` is gone."""
    await asyncio.get_running_loop().sock_recv(control, 1)


async def _serve(listeners: Sequence[socket.socket], *ends: asyncio.Task[object]) -> None:
    """Forward until the first of ``ends`` is done, or a signal asks for it."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    forwarding = [asyncio.create_task(_forward(listener)) for listener in listeners]
    asking = asyncio.create_task(asked.wait())
    await asyncio.wait([*forwarding, *ends, asking], return_when=asyncio.FIRST_COMPLETED)
    for task in (*forwarding, asking):
        task.cancel()


async def _run_outer(publish: Sequence[int], reach: Sequence[int], command: Sequence[str]) -> int:
    published = _listen(publish)
    control, far_control = socket.socketpair()
    lent = [far_control.fileno(), *(listener.fileno() for listener in published)]
    reached = [f"--reach={port}" for port in reach]
    fds = [f"--lent={fd}" for fd in lent]
    inner = await asyncio.create_subprocess_exec(
        *_UNSHARE, sys.executable, _THIS_FILE, *reached, *fds, "--", *command, pass_fds=lent
    )
    far_control.close()
    for listener in published:
        listener.close()
    _, received, _, _ = socket.recv_fds(control, 1, _MOST_PORTS)
    control.setblocking(False)  # noqa: FBT003 -- the socket's own signature
    borrowed = [socket.socket(fileno=fd) for fd in received]
    await _serve(borrowed, asyncio.create_task(inner.wait()))
    control.close()
    return await inner.wait()


async def _run_inner(lent: Sequence[int], reach: Sequence[int], command: Sequence[str]) -> int:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: ASYNC221, S607 -- nothing runs yet
    control, *published = (socket.socket(fileno=fd) for fd in lent)
    reached = _listen(reach)
    socket.send_fds(control, [b"."], [listener.fileno() for listener in reached])
    for listener in reached:
        listener.close()
    control.setblocking(False)  # noqa: FBT003 -- the socket's own signature
    server = await asyncio.create_subprocess_exec(*command)
    await _serve(published, asyncio.create_task(server.wait()), asyncio.create_task(_wait_for_end(control)))
    if server.returncode is None:
        server.terminate()
    return await server.wait()


def main() -> int:
    """Run one of the two processes; which one, the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--publish", type=int, action="append", default=[], help="port to show on the outside"
    )
    parser.add_argument("--reach", type=int, action="append", default=[], help="outside port to show inside")
    parser.add_argument("--lent", type=int, action="append", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="+", help="program and arguments")
    given = parser.parse_args()
    if given.lent:
        return asyncio.run(_run_inner(given.lent, given.reach, given.command))
    return asyncio.run(_run_outer(given.publish, given.reach, given.command))


if __name__ == "__main__":
    sys.exit(main())
