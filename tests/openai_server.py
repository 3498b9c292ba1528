"""A small server that speaks OpenAI's chat protocol, well or badly, on 127.0.0.1."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Behaviour:
    """What the server does; what it was asked is kept in ``bodies`` and ``headers``."""

    answer: str | Callable[[Json], str] = "{}"
    status: int = 200
    #: Statuses of the first requests, before ``status``.
    first_statuses: list[int] = field(default_factory=list)
    delay_s: float = 0.0
    drip_s: float = 0.0
    refused_forms: tuple[str, ...] = ()
    raw: bytes | None = None
    location: str | None = None
    bodies: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Serve until the end of the block; yields the base address with its version."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._reply(200, json.dumps({"data": [{"id": "test-model"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            behaviour.bodies.append(body)
            behaviour.headers.append(dict(self.headers))
            time.sleep(behaviour.delay_s)
            form = body.get("response_format", {}).get("type", "plain")
            status = behaviour.first_statuses.pop(0) if behaviour.first_statuses else behaviour.status
            if form in behaviour.refused_forms:
                status = 400
            if status != 200:
                self._reply(status, b'{"error": {"message": "John Doe, born 1.1.1970, is not welcome"}}')
                return
            self._reply(200, behaviour.raw if behaviour.raw is not None else self._complete(body))

        def _complete(self, body: Json) -> bytes:
            text = behaviour.answer(body) if callable(behaviour.answer) else behaviour.answer
            answer = {
                "model": body["model"],
                "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 50},
            }
            return json.dumps(answer).encode()

        def _reply(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                if behaviour.location:
                    self.send_header("Location", behaviour.location)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                pieces = [body[i : i + 1] for i in range(len(body))] if behaviour.drip_s else [body]
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()
                    time.sleep(behaviour.drip_s)
            except OSError:
                self.close_connection = True  # the client went away, as it may

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
