"""Adapter: writes results into a folder, for a first look, a share that others read, or an export.

Files appear whole or not at all: temporary name, fsync, rename, fsync of the
folder. What is written is read back before it counts as confirmed.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from integration.delivery import (
    Awaiting,
    DeliveryItem,
    DestinationProfile,
    DestinationRejectedError,
    DestinationUnavailableError,
    Receipt,
    ReceiptState,
)

_COPY_CHUNK_BYTES = 1 << 20
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Hexadecimal digits of the object's name that tell two objects of one kind apart.
_NAME_DIGITS = 8


class FolderDestination:
    """A destination that is a folder: ``<path>/<study key>/<run>/<file>``.

    Parameters
    ----------
    profile : DestinationProfile
        Name and wishes.
    path : Path
        Root folder; created when missing.
    """

    def __init__(self, *, profile: DestinationProfile, path: Path) -> None:
        self._profile = profile
        self._path = path

    @property
    def profile(self) -> DestinationProfile:
        """What this destination wants."""
        return self._profile

    def send(self, items: Sequence[DeliveryItem]) -> Iterator[Receipt]:
        """Write each object and confirm it by reading it back.

        Raises
        ------
        DestinationUnavailableError
            If the folder cannot be written: full, read-only or gone.
        DestinationRejectedError
            If an object is missing from the run folder.
        """
        for item in items:
            target = self._path / file_name(item)
            try:
                digest = _copy(open_result(item), target)
                is_kept = _digest_of(target) == digest
            except OSError as error:
                raise DestinationUnavailableError(
                    f"folder: cannot write ({error.strerror or 'I/O error'}): check space and permissions"
                ) from error
            yield Receipt(
                object_uid=item.object_uid,
                state=ReceiptState.CONFIRMED if is_kept else ReceiptState.FAILED,
                detail=f"read back, sha256 {digest}"
                if is_kept
                else "folder: read back other bytes than written",
                retry=not is_kept,
            )

    def confirm(self, awaiting: Sequence[Awaiting]) -> Iterator[Receipt]:
        """Write again what another version of this node left unconfirmed."""
        return self.send([entry.item for entry in awaiting])


def file_name(item: DeliveryItem) -> Path:
    """Return where an object goes below the root folder.

    DICOM objects are named by their kind and a hash of their UID, because a run
    may hold several of a kind; other files keep their name.

    Raises
    ------
    DestinationRejectedError
        If a part of the name could leave the folder.
    """
    digest = hashlib.sha256(item.object_uid.encode()).hexdigest()[:_NAME_DIGITS]
    name = item.path.name if item.sop_class_uid is None else f"{item.kind}-{digest}.dcm"
    parts = (item.study_key, item.run_id, name)
    if not all(_SAFE_NAME.fullmatch(part) for part in parts):
        raise DestinationRejectedError("folder: a study key, run or file name is not fit for a file name")
    return Path(*parts)


def open_result(item: DeliveryItem) -> bytes:
    """Return the bytes of a result object.

    Raises
    ------
    DestinationRejectedError
        If the run folder no longer holds it.
    """
    try:
        return item.path.read_bytes()
    except OSError as error:
        raise DestinationRejectedError(
            "the run folder lacks a result object: encode the run again"
        ) from error


def _copy(content: bytes, target: Path) -> str:
    """Write the bytes durably under the target's name; return their SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".incoming-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folders(target.parent)
    return hashlib.sha256(content).hexdigest()


def _sync_folders(folder: Path) -> None:
    """Make the entries of a run's folder and of the two above it durable."""
    for level in (folder, folder.parent, folder.parent.parent):
        descriptor = os.open(level, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_COPY_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
