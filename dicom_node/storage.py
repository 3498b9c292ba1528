"""Adapter: talks to the file system; keeps received files, addressed by content.

A file is here when ``InstanceStore.put`` returns and not before: written to a
temporary file in the same file system, fsync, rename, fsync of the directory.
Names are the SHA-256 of the Data Set, so that storing twice stores once. This
module must never look inside a Data Set.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import PermanentError, TransientError
from dicom_node.part10 import NotPartTenError, PartTen, split_part10
from dicom_node.study import Digest

_INCOMING = "incoming"
_TEMPORARY_SUFFIX = ".part"
#: One folder for each value of the first two digits of a digest.
_FOLDERS = 256
#: A writer holds a lock on its temporary file from its first moments on; younger files may not have it yet.
_ABANDONED_AFTER_S = 60.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Enough to hold any file meta information written by real devices.
_HEADER_PEEK_BYTES = 4096


class StorageFullError(TransientError):
    """The instance store is below its free-space watermark: free space or add a disk, then send again."""


class StorageUnavailableError(TransientError):
    """The file system refused to store or read: check the volume, then send again."""


class MissingFileError(PermanentError):
    """A stored file is gone: restore it from backup or ask the source to send the study again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file in the store; ``path`` is relative to the store's root."""

    digest: Digest
    path: str
    size_bytes: int


class InstanceStore:
    """Content-addressed files under one folder of a local (or locking) file system.

    Parameters
    ----------
    root : Path
        Folder of the store; made if absent.
    min_free_bytes : int
        Refuse new files when fewer bytes would be free for the process.
    min_free_fraction : float
        Likewise as a fraction (0 to 1) of the volume.
    """

    def __init__(self, root: Path, *, min_free_bytes: int, min_free_fraction: float) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._min_free_fraction = min_free_fraction
        self._incoming = root / _INCOMING
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._make_folders()
        self._remove_abandoned()

    @property
    def root(self) -> Path:
        """Folder that the paths of stored files are relative to."""
        return self._root

    @property
    def watermark(self) -> tuple[int, float]:
        """Bytes and fraction of the volume that stay free."""
        return self._min_free_bytes, self._min_free_fraction

    def has_room(self, size_bytes: int = 0) -> bool:
        """Tell whether ``size_bytes`` more leave the volume above both watermarks."""
        volume = os.statvfs(self._root)
        free_bytes = volume.f_bavail * volume.f_frsize - size_bytes
        total_bytes = volume.f_blocks * volume.f_frsize
        return free_bytes >= self._min_free_bytes and free_bytes >= self._min_free_fraction * total_bytes

    def put(self, part10: bytes | memoryview | PartTen, *, digest: str | None = None) -> StoredFile:
        """Store one Part 10 file durably; storing the same Data Set again changes nothing.

        Parameters
        ----------
        part10 : bytes, memoryview or PartTen
            The file; whole, or already split.
        digest : str, optional
            SHA-256 of the Data Set bytes in hexadecimal, if the caller knows it.

        Returns
        -------
        StoredFile
            Durable when returned: it survives a crash of the process and of the machine.

        Raises
        ------
        StorageFullError
            If the volume is below its watermark or full.
        StorageUnavailableError
            If the file system fails.
        NotPartTenError
            If whole bytes are given that are not a Part 10 file.
        """
        pieces = part10 if isinstance(part10, PartTen) else split_part10(part10)
        known_digest = Digest(digest) if digest is not None else pieces.digest()
        try:
            if not self.has_room(pieces.size_bytes):
                raise StorageFullError("instance store is below its free-space watermark: free space")
            return self._put(pieces, known_digest)
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFullError("instance store is full: free space") from error
            raise StorageUnavailableError("instance store cannot be written: check the volume") from error

    def path_of(self, path: str) -> Path:
        """Return the absolute path of a stored file.

        Raises
        ------
        MissingFileError
            If ``path`` leads out of the store.
        """
        resolved = (self._root / path).resolve()
        if not resolved.is_relative_to(self._root.resolve()):
            raise MissingFileError("a stored path leads out of the instance store: the ledger is damaged")
        return resolved

    def remove(self, path: str) -> None:
        """Delete a stored file; deleting a file that is gone is no error.

        Raises
        ------
        StorageUnavailableError
            If the file system fails.
        """
        try:
            self.path_of(path).unlink(missing_ok=True)
        except OSError as error:
            raise StorageUnavailableError("a stored file cannot be removed: check the volume") from error

    def _put(self, pieces: PartTen, digest: Digest) -> StoredFile:
        folder = self._root / digest[:2]
        target = folder / f"{digest}.dcm"
        stored = _peek(target)
        if stored is not None and stored.transfer_syntax_uid != pieces.meta().transfer_syntax_uid:
            # The same bytes under another transfer syntax are another file: keep both.
            target = folder / f"{digest}-{pieces.meta().transfer_syntax_uid.replace('.', '_')}.dcm"
            stored = _peek(target)
        if stored is None or stored.data_set_bytes != len(pieces.data_set):
            self._write(pieces, target)
        # Also for a file that exists: its writer may not have reached this line yet.
        _fsync_folder(folder)
        size_bytes = target.stat().st_size
        return StoredFile(digest=digest, path=f"{folder.name}/{target.name}", size_bytes=size_bytes)

    def _write(self, pieces: PartTen, target: Path) -> None:
        temporary = self._incoming / f"{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write_all(descriptor, pieces)
                os.fsync(descriptor)
                temporary.rename(target)
            finally:
                os.close(descriptor)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _make_folders(self) -> None:
        """Make all folders at once: one fsync now instead of one before every first file."""
        for number in range(_FOLDERS):
            (self._root / f"{number:02x}").mkdir(exist_ok=True)
        _fsync_folder(self._root)

    def _remove_abandoned(self) -> None:
        """Delete temporary files whose writer died: old, and nobody holds their lock."""
        oldest_kept = time.time() - _ABANDONED_AFTER_S
        for temporary in self._incoming.glob(f"*{_TEMPORARY_SUFFIX}"):
            with contextlib.suppress(OSError):
                if temporary.stat().st_mtime > oldest_kept:
                    continue
                with temporary.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    temporary.unlink()


@dataclass(frozen=True, slots=True)
class _Stored:
    transfer_syntax_uid: str
    data_set_bytes: int


def _peek(path: Path) -> _Stored | None:
    """Return what an existing file holds, or None if it is absent or not a Part 10 file."""
    try:
        with path.open("rb") as file:
            stored = split_part10(file.read(_HEADER_PEEK_BYTES))
            size_bytes = os.fstat(file.fileno()).st_size
    except (FileNotFoundError, NotPartTenError):
        return None
    return _Stored(stored.meta().transfer_syntax_uid, size_bytes - len(stored.header))


def _write_all(descriptor: int, pieces: PartTen) -> None:
    """Write both pieces, in one system call where the kernel takes them whole."""
    rest = [memoryview(pieces.header), memoryview(pieces.data_set)]
    while rest:
        written = os.writev(descriptor, rest)
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][written:]


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
