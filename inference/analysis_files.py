"""Adapter: keeps an analysis and its mask in a run's folder, as JSON and npz.

The JSON names the digest of the mask's file, so that a pair that does not belong together is noticed. Files
appear whole or not at all, and the same analysis gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dicom_node.errors import PermanentError
from inference.findings import Analysis, FrameReference, Mask

FORMAT: Final = 1
"""Version of the files' layout."""


class AnalysisFileError(PermanentError):
    """A stored analysis is missing, damaged, or does not belong to its mask: run the model again."""


class _AnalysisFile(BaseModel):
    """The JSON file."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    format: Literal[1]
    analysis: Analysis
    mask_file: str
    mask_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    mask_series_uid: str
    mask_frames: tuple[FrameReference, ...]


_ADAPTER: Final = TypeAdapter(_AnalysisFile)


def save_analysis(folder: Path, analysis: Analysis, mask: Mask) -> Path:
    """Write an analysis and its mask.

    Parameters
    ----------
    folder : Path
        The run's folder; it is created if need be.
    analysis : Analysis
        What the model found.
    mask : Mask
        Its label map.

    Returns
    -------
    Path
        ``folder/analysis-<model>.json``; the mask lies beside it as ``mask-<model>.npz``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = _pack(mask)
    mask_path = folder / f"mask-{analysis.model.name}.npz"
    content = _AnalysisFile(
        format=FORMAT,
        analysis=analysis,
        mask_file=mask_path.name,
        mask_sha256=hashlib.sha256(packed).hexdigest(),
        mask_series_uid=mask.series_uid,
        mask_frames=mask.frames,
    )
    path = folder / f"analysis-{analysis.model.name}.json"
    _write_whole(mask_path, packed)
    _write_whole(path, _ADAPTER.dump_json(content, indent=1))
    return path


def load_analysis(path: Path) -> tuple[Analysis, Mask]:
    """Read what `save_analysis` wrote.

    Parameters
    ----------
    path : Path
        The JSON file.

    Returns
    -------
    tuple of Analysis and Mask
        Equal to what was saved.

    Raises
    ------
    AnalysisFileError
        If a file is missing or damaged, or the mask is not the one that the JSON describes.
    """
    try:
        content = _ADAPTER.validate_json(path.read_bytes())
        packed = (path.parent / Path(content.mask_file).name).read_bytes()
    except (OSError, ValidationError) as exc:
        raise AnalysisFileError("A stored analysis is missing or damaged: run the model again.") from exc
    if hashlib.sha256(packed).hexdigest() != content.mask_sha256:
        raise AnalysisFileError("A stored mask is not the one its analysis describes: run the model again.")
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
            labels = stored["labels"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as exc:
        raise AnalysisFileError("A stored mask is damaged: run the model again.") from exc
    mask = Mask(labels=labels, series_uid=content.mask_series_uid, frames=content.mask_frames)
    return content.analysis, mask


def _pack(mask: Mask) -> bytes:
    """Return the label map as compressed npz. Its entries are dated 1980: equal masks give equal bytes."""
    stream = io.BytesIO()
    np.savez_compressed(stream, labels=mask.labels)
    return stream.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is complete on disk before it has its name."""
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
