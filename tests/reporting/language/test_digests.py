from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from reporting.language import digests
from reporting.language.digests import digest_file


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, one entry a reading; files count as settled at once."""
    files: list[Path] = []
    real = digests._read

    def note(path: Path) -> str:
        files.append(path)
        return real(path)

    monkeypatch.setattr(digests, "_read", note)
    monkeypatch.setattr(digests, "_SETTLING_S", 0.0)
    return files


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_stays_is_read_once_by_whatever_path(tmp_path, read, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").write_bytes(b"weights")
    assert digest_file(Path("model")) == digest_file(tmp_path / "model") == sha256(b"weights")
    assert len(read) == 1


def test_a_file_that_was_changed_is_read_again_though_its_size_and_time_are_set_back(tmp_path, read):
    file = tmp_path / "model"
    file.write_bytes(b"weights")
    before = file.stat()
    assert digest_file(file) == sha256(b"weights")
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of the file system has moved on
        file.write_bytes(b"Weights")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest_file(file) == sha256(b"Weights")
    assert len(read) == 2


def test_a_file_of_a_moment_ago_is_not_remembered(tmp_path, read, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLING_S", 60.0)
    (tmp_path / "model").write_bytes(b"weights")
    assert digest_file(tmp_path / "model") == digest_file(tmp_path / "model")
    assert len(read) == 2


def test_a_file_that_is_gone_is_not_remembered(tmp_path, read):
    (tmp_path / "model").write_bytes(b"weights")
    digest_file(tmp_path / "model")
    (tmp_path / "model").unlink()
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "model")
