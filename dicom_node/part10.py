"""Pure. A DICOM Part 10 file as two pieces of bytes: header and Data Set.

The node never re-encodes what it receives. This module finds where the Data
Set begins, so that its digest does not depend on the file meta information
(which carries the implementation that wrote it), and builds the header for a
Data Set that came over DIMSE. It must never decode a Data Set.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from dicom_node.errors import PermanentError
from dicom_node.study import Digest

#: PS3.10 7.1: 128 bytes of preamble, then this prefix.
_PREAMBLE_LENGTH = 128
_PREFIX = b"DICM"
_META_START = _PREAMBLE_LENGTH + len(_PREFIX)
_META_GROUP = 0x0002
#: PS3.5 7.1.2: these VRs have a 32-bit length in explicit VR encodings.
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_SHORT_ELEMENT = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<L")
#: PS3.10 7.1: bytes of (0002,0001), version 1.
_META_VERSION = b"\x00\x01"


class NotPartTenError(PermanentError):
    """The bytes are not a DICOM file: no ``DICM`` prefix or a broken file meta information group."""


@dataclass(frozen=True, slots=True)
class PartTen:
    """A Part 10 file in two pieces that follow each other without a gap.

    Attributes
    ----------
    header : bytes or memoryview
        Preamble, prefix and file meta information (group 0002).
    data_set : bytes or memoryview
        The encoded Data Set, untouched.
    """

    header: bytes | memoryview
    data_set: bytes | memoryview

    @property
    def size_bytes(self) -> int:
        """Length of the whole file."""
        return len(self.header) + len(self.data_set)

    def digest(self) -> Digest:
        """Return the SHA-256 of the Data Set bytes, file meta information excluded."""
        return Digest(hashlib.sha256(self.data_set).hexdigest())

    def meta(self) -> FileMeta:
        """Return the identifying elements of the file meta information.

        Raises
        ------
        NotPartTenError
            If the file meta information cannot be walked.
        """
        return _read_meta(memoryview(self.header))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What file meta information says of its Data Set; empty text where an element is absent."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""


def split_part10(part10: bytes | memoryview) -> PartTen:
    """Split a Part 10 file at the end of its file meta information.

    Parameters
    ----------
    part10 : bytes or memoryview
        A whole file.

    Raises
    ------
    NotPartTenError
        If there is no prefix, or the file meta information runs past the end.

    References
    ----------
    PS3.10 section 7.1 (DICOM File Meta Information).
    """
    view = memoryview(part10)
    if bytes(view[_PREAMBLE_LENGTH:_META_START]) != _PREFIX:
        raise NotPartTenError("not a DICOM Part 10 file: send a file with preamble and DICM prefix")
    position = _META_START
    while (element := _next_meta_element(view, position)) is not None:
        position = element[3]
    return PartTen(view[:position], view[position:])


def build_header(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    implementation_class_uid: str,
    implementation_version_name: str,
    source_ae: str = "",
) -> bytes:
    """Return preamble, prefix and file meta information for a Data Set received over DIMSE.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid : str
        From the C-STORE command set; may be empty if the sender left them out.
    transfer_syntax_uid : str
        That of the presentation context.
    source_ae : str
        Calling AE title, kept in (0002,0016).

    References
    ----------
    PS3.10 Table 7.1-1; PS3.7 Table 9.3-1 (Affected SOP Class and Instance UID).
    """
    elements = b"".join(
        (
            _meta_element(0x0001, b"OB", _META_VERSION),
            _meta_element(0x0002, b"UI", _uid_bytes(sop_class_uid)),
            _meta_element(0x0003, b"UI", _uid_bytes(sop_instance_uid)),
            _meta_element(0x0010, b"UI", _uid_bytes(transfer_syntax_uid)),
            _meta_element(0x0012, b"UI", _uid_bytes(implementation_class_uid)),
            _meta_element(0x0013, b"SH", _text_bytes(implementation_version_name)),
            _meta_element(0x0016, b"AE", _text_bytes(source_ae)) if source_ae else b"",
        )
    )
    group_length = _meta_element(0x0000, b"UL", _LONG_LENGTH.pack(len(elements)))
    return bytes(_PREAMBLE_LENGTH) + _PREFIX + group_length + elements


def _next_meta_element(view: memoryview, position: int) -> tuple[int, int, int, int] | None:
    """Return (element number, value start, value end, next position), or None past group 0002."""
    if position + _SHORT_ELEMENT.size > len(view):
        return None
    group, element, vr, length = _SHORT_ELEMENT.unpack_from(view, position)
    if group != _META_GROUP:
        return None
    start = position + _SHORT_ELEMENT.size
    if vr in _LONG_VRS:
        if start + _LONG_LENGTH.size > len(view):
            raise NotPartTenError("file meta information ends inside an element: send the file again")
        (length,) = _LONG_LENGTH.unpack_from(view, start)
        start += _LONG_LENGTH.size
    end = start + length
    if end > len(view):
        raise NotPartTenError("file meta information runs past the end of the file: send the file again")
    return element, start, end, end


def _read_meta(header: memoryview) -> FileMeta:
    wanted = {0x0002: "sop_class_uid", 0x0003: "sop_instance_uid", 0x0010: "transfer_syntax_uid"}
    found: dict[str, str] = {}
    position = _META_START
    while (element := _next_meta_element(header, position)) is not None:
        number, start, end, position = element
        if number in wanted:
            found[wanted[number]] = bytes(header[start:end]).decode("ascii", "replace").strip("\0 ")
    return FileMeta(**found)


def _meta_element(element: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_VRS:
        return _SHORT_ELEMENT.pack(_META_GROUP, element, vr, 0) + _LONG_LENGTH.pack(len(value)) + value
    return _SHORT_ELEMENT.pack(_META_GROUP, element, vr, len(value)) + value


def _uid_bytes(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)


def _text_bytes(text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + b" " * (len(value) % 2)
