"""Adapter: serves an ASGI application in a thread of its own."""

from __future__ import annotations

import threading

import uvicorn
from fastapi import FastAPI

from integration.settings import SettingsError

_LOOK_EVERY_S = 0.02
_STOP_WITHIN_S = 10.0


class HttpServer:
    """One listening HTTP server.

    Parameters
    ----------
    api : FastAPI
        What answers.
    host, port
        Where to listen; port 0 takes a free one.
    """

    def __init__(self, api: FastAPI, host: str, port: int) -> None:
        config = uvicorn.Config(api, host=host, port=port, access_log=False, log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="preread-http", daemon=True)

    def start(self) -> None:
        """Listen; return when requests are answered.

        Raises
        ------
        SettingsError
            If the port is taken.
        """
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise SettingsError(
                    "http.port cannot be listened on: another program has it; choose another one."
                )
            self._thread.join(timeout=_LOOK_EVERY_S)

    def stop(self) -> None:
        """Answer what is in progress, then stop."""
        self._server.should_exit = True
        self._thread.join(timeout=_STOP_WITHIN_S)

    @property
    def port(self) -> int:
        """The TCP port in use."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])
