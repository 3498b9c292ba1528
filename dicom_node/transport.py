"""Adapter: the TCP side of the DICOM port, below pynetdicom's state machine.

pynetdicom accepts and negotiates associations; this module changes what a
hospital network needs: a TLS handshake that cannot block other peers, limits on
silence and size, a port shared by several processes, and a socket that reads in
large pieces.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from typing import Any, Final

import structlog
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

#: Waiting connections that the kernel keeps while all threads are busy.
_BACKLOG: Final = 128
#: No peer needs a larger PDU: ours is 128 KiB, and association requests are far below.
_MAX_PDU_BYTES: Final = 16 * 1024 * 1024
#: Linux: acknowledge at once. Senders with Nagle's algorithm otherwise wait 40 ms for it at every message.
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)

log = structlog.get_logger(__name__)


class OversizedPduError(OSError):
    """A peer announced a PDU that no peer needs; the connection is closed."""


class ReceiverSocket(AssociationSocket):
    """An association's socket that reads in as few system calls as possible."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly ``nr_bytes``, or what came before the peer closed.

        Raises
        ------
        OversizedPduError
            If more is asked for than any PDU needs.
        TimeoutError
            If the peer fell silent inside a PDU.
        """
        if nr_bytes > _MAX_PDU_BYTES:
            raise OversizedPduError("a peer announced a PDU above the limit")
        assert self.socket is not None
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        position = 0
        if _QUICK_ACK is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        while position < nr_bytes:
            count = self.socket.recv_into(view[position:])
            if count == 0:
                view.release()
                del buffer[position:]
                break
            position += count
        return buffer

    def _shutdown_socket(self) -> None:
        """Close the connection also when the peer is gone; pynetdicom leaves that to the collector."""
        if self.socket is None:
            return
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.socket.close()


class ReceiverHandler(RequestHandler):
    """Makes one association of one connection."""

    server: ReceiverServer

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        # A plain AssociationSocket was made a moment ago; only its methods differ.
        assoc.dul.socket.__class__ = ReceiverSocket
        assoc.dul.artim_timer.timeout = self.server.request_timeout_s
        return assoc


class ReceiverServer(ThreadedAssociationServer):
    """Accepts connections; each is prepared in its own thread.

    Parameters
    ----------
    tls : ssl.SSLContext or None
        Context of the DICOM port.
    handshake_timeout_s : float
        Longest TLS handshake.
    request_timeout_s : float
        Longest wait for the A-ASSOCIATE-RQ (ARTIM, PS3.8 9.1.5).
    is_port_shared : bool
        Whether other processes listen on the same port (SO_REUSEPORT).
    """

    request_queue_size = _BACKLOG
    daemon_threads = True

    def __init__(
        self,
        *arguments: Any,
        tls: ssl.SSLContext | None,
        handshake_timeout_s: float,
        request_timeout_s: float,
        is_port_shared: bool,
        **options: Any,
    ) -> None:
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s
        self._is_port_shared = is_port_shared
        self.request_timeout_s = request_timeout_s
        options["request_handler"] = ReceiverHandler
        super().__init__(*arguments, **options)

    def server_bind(self) -> None:
        """Bind the port, shared with other processes if asked."""
        if self._is_port_shared:
            assert self.socket is not None
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Prepare a connection in its own thread, then hand it to pynetdicom.

        The TLS handshake belongs here: in the accept loop, where pynetdicom has it,
        one silent client would keep everybody else out.
        """
        connection: socket.socket = request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection.settimeout(self._handshake_timeout_s)
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except (OSError, ssl.SSLError) as error:
                log.warning("tls_handshake_failed", error=type(error).__name__)
                self.shutdown_request(request)
                return
        # A peer that stops inside a PDU must not hold its thread for ever.
        connection.settimeout(self.ae.network_timeout)
        super().finish_request(connection, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a failed connection without its address or data."""
        del request, client_address
        log.error("connection_failed", error=getattr(sys.exc_info()[0], "__name__", ""))


def stop_waiting_for_request(assoc: Association) -> None:
    """End the thread of a connection on which no association was requested.

    pynetdicom lets it wait for the whole timeout, also when the peer is long gone,
    and counts it among the associations meanwhile.
    """
    if assoc.requestor.primitive is None:
        assoc.dul.to_user_queue.put(None)  # type: ignore[arg-type]  # what a timeout returns
