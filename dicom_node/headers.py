"""Adapter: reads the headers of stored files with pydicom.

The only place of the receiving side that decodes a Data Set, and it runs
outside of the receive path. Files come from anywhere: whatever a file does
here, the outcome is a header or an UnreadableInstanceError whose reason
carries no patient data.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import MediaStorageDirectoryStorage

from dicom_node.errors import PermanentError, TransientError
from dicom_node.study import SeriesUID, SOPClassUID, SOPInstanceUID, StudyUID

#: Manufacturer (0008,0070) on the equipment of every object that Preread makes; how results are recognised.
OWN_MANUFACTURER: Final = "Preread"
#: Longest header value kept, in characters.
MAX_VALUE_LENGTH: Final = 256
#: Longer values are skipped before pydicom converts them: no header value is that long.
_SKIP_ABOVE_BYTES = 16 * 1024
#: PS3.5 6.2: VRs whose values are short text or numbers.
_HEADER_VRS = frozenset(
    (
        *("AE", "AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH"),
        *("SL", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UR", "US", "UT", "UV"),
    )
)
#: PS3.5 section 9.1, read leniently: leading zeros exist in the field.
_UID = re.compile(r"[0-9.]{1,64}")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: What pydicom raises on hostile or broken files (RecursionError: nested sequences; MemoryError: lengths).
_READ_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
#: ``warnings.catch_warnings`` changes process-wide state; parsing holds the interpreter lock anyway.
_READING = threading.Lock()
_PYDICOM_LOG = logging.getLogger("pydicom")


class UnreadableInstanceError(PermanentError):
    """A stored file cannot be used as an instance: look at it with a DICOM dump tool, ask the source.

    Parameters
    ----------
    reason : str
        Why, without patient data; also what the quarantine shows.
    """

    def __init__(self, reason: str, *, sop_class: str | None = None) -> None:
        super().__init__(reason, sop_class=sop_class)
        self.reason = reason


class HeaderUnavailableError(TransientError):
    """A stored file could not be opened just now: check the volume; it will be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeader:
    """What the node needs to know of one instance.

    ``header`` maps DICOM keywords of top-level elements to text: at most 256
    characters, multiple values joined by a backslash. It holds patient data.
    """

    study_uid: StudyUID
    series_uid: SeriesUID
    sop_instance_uid: SOPInstanceUID
    sop_class_uid: SOPClassUID
    modality: str = ""
    series_description: str = ""
    study_description: str = ""
    body_part: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    number_of_frames: int = 1
    manufacturer: str = ""
    is_own_result: bool = False
    header: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_header(path: Path) -> InstanceHeader:
    """Read the header of one stored file, without its pixels.

    Parameters
    ----------
    path : Path
        A Part 10 file.

    Raises
    ------
    UnreadableInstanceError
        If the file is no readable DICOM instance with its four UIDs.
    HeaderUnavailableError
        If the file system fails.

    References
    ----------
    PS3.3 C.7.1-C.7.6 (Type 1 UIDs); PS3.3 F.3 (a DICOMDIR is a directory, not an instance to read).
    """
    with _reading_quietly():
        try:
            # force: a Data Set without preamble is read if it turns out to be one.
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            values = _header_values(dataset)
            is_own = _is_own_result(dataset, values)
            media_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        except FileNotFoundError as error:
            raise UnreadableInstanceError("the stored file is gone: have it sent again") from error
        except RecursionError as error:
            raise UnreadableInstanceError("sequences are nested too deeply to be read") from error
        except _READ_ERRORS as error:
            kind = type(error).__name__
            raise UnreadableInstanceError(f"the file cannot be parsed as DICOM ({kind})") from error
        except OSError as error:
            raise HeaderUnavailableError("a stored file cannot be opened: check the volume") from error
    return _to_header(values, is_own=is_own, media_class=media_class)


def read_study_time(header: Mapping[str, str]) -> datetime | None:
    """Return when a study was acquired, for differences between studies of one site; None if not said.

    Parameters
    ----------
    header : mapping
        DICOM keywords to text. Study Date (0008,0020), Study Time (0008,0030), and Timezone Offset From UTC
        (0008,0201), without which the site's own time is taken for UTC.
    """
    date, time = header.get("StudyDate", ""), header.get("StudyTime", "").partition(".")[0]
    try:
        told = datetime.strptime(f"{date} {time or '0':0<6}", "%Y%m%d %H%M%S").replace(tzinfo=UTC)
        offset = header.get("TimezoneOffsetFromUTC", "")
        if not offset:
            return told
        zone = datetime.strptime(offset, "%z").tzinfo
        return told.replace(tzinfo=zone).astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def clean_text(text: str, max_length: int = MAX_VALUE_LENGTH) -> str:
    """Return text that every database and log accepts: no control characters, no lone surrogates."""
    return _CONTROL_CHARACTERS.sub("", text[: max_length * 2]).strip()[:max_length]


@contextmanager
def _reading_quietly() -> Iterator[None]:
    """Keep pydicom's warnings and log lines to itself: they quote values of the patient."""
    with _READING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        was_disabled, _PYDICOM_LOG.disabled = _PYDICOM_LOG.disabled, True
        try:
            yield
        finally:
            _PYDICOM_LOG.disabled = was_disabled


def _to_header(values: Mapping[str, str], *, is_own: bool, media_class: str) -> InstanceHeader:
    sop_class = values.get("SOPClassUID", "")
    if MediaStorageDirectoryStorage in (sop_class, media_class):
        raise UnreadableInstanceError("a DICOMDIR lists files and is no image: send the files that it lists")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not values.get(keyword):
            raise UnreadableInstanceError(f"{keyword} is missing")
        if not _UID.fullmatch(values[keyword]):
            raise UnreadableInstanceError(f"{keyword} is not a UID")
    return InstanceHeader(
        study_uid=StudyUID(values["StudyInstanceUID"]),
        series_uid=SeriesUID(values["SeriesInstanceUID"]),
        sop_instance_uid=SOPInstanceUID(values["SOPInstanceUID"]),
        sop_class_uid=SOPClassUID(sop_class),
        modality=values.get("Modality", "")[:16],
        series_description=values.get("SeriesDescription", ""),
        study_description=values.get("StudyDescription", ""),
        body_part=values.get("BodyPartExamined", "")[:64],
        series_number=_integer(values.get("SeriesNumber")),
        instance_number=_integer(values.get("InstanceNumber")),
        number_of_frames=max(1, _integer(values.get("NumberOfFrames")) or 1),
        manufacturer=values.get("Manufacturer", ""),
        is_own_result=is_own,
        header=values,
    )


def _header_values(dataset: FileDataset) -> dict[str, str]:
    values: dict[str, str] = {}
    for tag in sorted(dataset.keys()):
        keyword = keyword_for_tag(tag)
        if keyword and (text := _text_of(dataset, tag)) is not None:
            values[keyword] = text
    return values


def _text_of(dataset: Dataset, tag: BaseTag) -> str | None:
    """Return one element as text, or None if it is none, or damaged: one bad element spoils no header."""
    raw = dataset.get_item(tag)
    if raw is None or raw.VR == "SQ" or getattr(raw, "length", 0) > _SKIP_ABOVE_BYTES:
        return None
    try:
        element = dataset[tag]
        if element.VR not in _HEADER_VRS:
            return None
        value = element.value
        if isinstance(value, MultiValue | list | tuple):
            return clean_text("\\".join(str(item) for item in value[:MAX_VALUE_LENGTH]))
        return clean_text("" if value is None else str(value))
    except _READ_ERRORS:
        return None


def _is_own_result(dataset: Dataset, values: Mapping[str, str]) -> bool:
    """Tell whether Preread made the object, alone or as contributing equipment (PS3.3 C.12.1)."""
    if values.get("Manufacturer") == OWN_MANUFACTURER:
        return True
    try:
        contributors: Iterable[Dataset] = dataset.get("ContributingEquipmentSequence") or ()
        return any(str(item.get("Manufacturer", "")) == OWN_MANUFACTURER for item in contributors)
    except RecursionError:
        raise
    except _READ_ERRORS:
        return False


def _integer(text: str | None) -> int | None:
    """Return an IS value that fits a 32-bit database column, or None."""
    try:
        number = int(float(text)) if text else None
    except (OverflowError, ValueError):
        return None
    return number if number is None or abs(number) < 2**31 else None
