"""Adapter: the SHA-256 of files, each read once as long as it stays as it is.

A start asks for the digest of a language model several times: to find its adapter, to name the model, to
find the two merged. Nothing is kept on the disk, so that every process has read what it vouches for.
"""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

#: Seconds that a file must have lain unchanged to be remembered: the coarsest clock of a file system (FAT).
_SETTLING_S: Final = 2.0


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, from memory if the file is the one that was read before.

    A file is the same while its inode, its size and its times of writing and of change are; the last cannot
    be set back by hand.
    """
    state = path.stat()
    if time.time() - state.st_ctime < _SETTLING_S:
        return _read(path)
    return _remember(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=64)
def _remember(path: Path, *_state: int) -> str:
    return _read(path)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
