"""Pure. Reading ``multipart/related`` bodies (RFC 2387), piece by piece, for STOW-RS.

The parser is fed chunks as they come off the wire and gives back whole parts,
so that a study of gigabytes needs the memory of one instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from dicom_node.errors import PermanentError

_MAXIMUM_HEADER_BYTES = 16_384


class MultipartError(PermanentError):
    """The body is not the multipart/related message that its headers announce."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One body part: its media type (lower case, no parameters) and its content."""

    content_type: str
    content: bytes


def boundary_of(content_type: str) -> tuple[str, bytes]:
    """Return the media type of the parts and the boundary.

    Parameters
    ----------
    content_type : str
        The ``Content-Type`` header of the request.

    Raises
    ------
    MultipartError
        If it is not multipart/related with a boundary.
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary:
        raise MultipartError(
            'Send Content-Type: multipart/related; type="application/dicom"; boundary=... (PS3.18 10.5.1).'
        )
    part_type = message.get_param("type") or "application/dicom"
    return str(part_type).lower(), boundary.encode("latin-1", "replace")


class MultipartReader:
    """Incremental reader of one multipart body.

    Parameters
    ----------
    boundary : bytes
        The boundary, without leading dashes.
    maximum_part_bytes : int
        Largest part taken; a larger one raises.
    """

    def __init__(self, boundary: bytes, *, maximum_part_bytes: int) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first boundary looks like every other
        self._maximum = maximum_part_bytes
        self._in_preamble = True
        self._searched = 0
        self.is_finished = False

    def feed(self, chunk: bytes) -> Iterator[Part]:
        """Take the next bytes of the body; yield the parts that they complete.

        Raises
        ------
        MultipartError
            On a part that is too large, or has no proper headers.
        """
        if self.is_finished:
            return  # epilogue
        self._buffer += chunk
        while (end := self._next_delimiter()) is not None:
            content = bytes(self._buffer[:end])
            tail = bytes(self._buffer[end + len(self._delimiter) : end + len(self._delimiter) + 2])
            del self._buffer[: end + len(self._delimiter)]
            self._searched = 0
            if self._in_preamble:
                self._in_preamble = False
            else:
                yield _parse_part(content)
            if tail == b"--":
                self.is_finished = True
                return

    def _next_delimiter(self) -> int | None:
        """Return where a delimiter starts whose two following bytes have arrived."""
        found = self._buffer.find(self._delimiter, self._searched)
        if found < 0:
            self._searched = max(0, len(self._buffer) - len(self._delimiter))
            if len(self._buffer) > self._maximum + _MAXIMUM_HEADER_BYTES:
                raise MultipartError(
                    f"An instance is larger than {self._maximum} bytes: raise http.maximum_instance_mb "
                    "or send it by C-STORE."
                )
            return None
        self._searched = found
        return found if len(self._buffer) >= found + len(self._delimiter) + 2 else None


def _parse_part(raw: bytes) -> Part:
    head, separator, content = raw.partition(b"\r\n\r\n")
    if not separator or len(head) > _MAXIMUM_HEADER_BYTES:
        raise MultipartError("A body part has no header block that ends with an empty line.")
    content_type = "application/dicom"
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            content_type = value.decode("latin-1").split(";")[0].strip().lower()
    return Part(content_type=content_type, content=content)
