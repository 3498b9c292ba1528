"""A scripted HTTP server on 127.0.0.1: answers what the test says, and remembers what it was sent."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def parts(self) -> list[bytes]:
        """The bodies of a multipart request, by an independent parser."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + self.body)
        return [part.get_payload(decode=True) for part in message.iter_parts()]


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    #: Content-Length claimed beyond the body, after which the connection closes.
    missing_bytes: int = 0
    #: Answer nothing until the server stops.
    is_silent: bool = False


Script = Callable[[Call], Answer]


class HttpPeer:
    """``script`` decides every answer; replace it between steps of a test."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.stopping = threading.Event()

    def posts(self) -> list[Call]:
        return [call for call in self.calls if call.method == "POST"]


@contextmanager
def http_peer(script: Script, *, tls: ssl.SSLContext | None = None) -> Iterator[tuple[HttpPeer, str]]:
    """Run the server; yield it and its base URL."""
    peer = HttpPeer(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *args: object) -> None:
            """Stay silent."""

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, self.path, headers, body)
            peer.calls.append(call)
            answer = peer.script(call)
            if answer.is_silent:
                peer.stopping.wait(30)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body) + answer.missing_bytes))
            self.end_headers()
            self.wfile.write(answer.body)
            if answer.missing_bytes:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that breaks off is part of the script
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield peer, f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        peer.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
