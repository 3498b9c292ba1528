"""Adapter: one folder per run, where its steps leave what the next ones need.

The engine carries names, the folder carries content: the study as assembled,
each model's analysis and mask, the text, the objects. Files are replaced
atomically, so a step that runs twice leaves what it would have left once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dicom_node.errors import PermanentError
from dicom_node.study import Study

_STUDY = TypeAdapter(Study)


class RunFolderError(PermanentError):
    """A file of the run is gone; requeue the run so that every step runs again."""


class RunFolder:
    """Files of one run.

    Parameters
    ----------
    root : Path
        Folder of all runs.
    run_id : str
        The run.
    """

    def __init__(self, root: Path, run_id: str) -> None:
        self.path = root / run_id

    def create(self) -> None:
        """Make the folder; it may be there already."""
        self.path.mkdir(parents=True, exist_ok=True)

    def write_json(self, name: str, value: Any) -> Path:
        """Write ``value`` as JSON under ``name``, durably and at once."""
        return self.write_bytes(name, json.dumps(value, indent=1, sort_keys=True).encode())

    def read_json(self, name: str) -> Any:
        """Return the JSON under ``name``.

        Raises
        ------
        RunFolderError
            If it is not there.
        """
        try:
            return json.loads((self.path / name).read_bytes())
        except FileNotFoundError as exc:
            raise RunFolderError(
                f"The run has no {name}: requeue it, so that every step runs again."
            ) from exc

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file durably and at once: temporary file, fsync, rename, fsync of the folder."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return target

    def exists(self, name: str) -> bool:
        """Say whether the run has a file ``name``."""
        return (self.path / name).is_file()

    def remove(self, pattern: str) -> None:
        """Remove the run's files that match a glob pattern."""
        for path in self.path.glob(pattern):
            path.unlink(missing_ok=True)

    def write_study(self, study: Study) -> None:
        """Keep the study as assembled: exactly these instances are what the run is about."""
        self.write_bytes("study.json", _STUDY.dump_json(study))

    def read_study(self) -> Study:
        """Return the study as assembled."""
        if not self.exists("study.json"):
            raise RunFolderError("The run has no study.json: requeue it, so that every step runs again.")
        return _STUDY.validate_json((self.path / "study.json").read_bytes())
