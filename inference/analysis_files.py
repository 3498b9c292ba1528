"""Adapter: keeps an analysis, its mask and its heat maps in a run's folder, as JSON and npz.

The JSON names the digests of the arrays' files, so that files that do not belong together are noticed. Files
appear whole or not at all, and the same analysis gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dicom_node.errors import PermanentError
from inference.findings import Analysis, FrameReference, Heatmap, Mask, Outcome


class AnalysisFileError(PermanentError):
    """A stored analysis is missing, damaged, or does not belong to its arrays: run the model again."""


class _ArrayFile(BaseModel):
    """An array beside the JSON: the mask, or a heat map; ``answer`` and ``method`` are a heat map's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    series_uid: str
    frames: tuple[FrameReference, ...]
    answer: str = ""
    method: str = ""


class _AnalysisFile(BaseModel):
    """The JSON file."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    format: Literal[2] = 2
    analysis: Analysis
    mask: _ArrayFile | None = None
    heatmaps: tuple[_ArrayFile, ...] = ()
    crude_report: tuple[str, ...] = ()


_ADAPTER: Final = TypeAdapter(_AnalysisFile)


def save_outcome(folder: Path, outcome: Outcome) -> Path:
    """Write an analysis with its mask and heat maps.

    Parameters
    ----------
    folder : Path
        The run's folder; it is created if need be.
    outcome : Outcome
        What the model returned. Heat maps are kept as float16.

    Returns
    -------
    Path
        ``folder/analysis-<model>.json``; arrays lie beside it as ``mask-<model>.npz`` and
        ``heatmap-<model>-<answer>.npz``, numbered from the second of one answer on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, mask = outcome.analysis.model.name, outcome.mask
    content = _AnalysisFile(
        analysis=outcome.analysis,
        mask=None
        if mask is None
        else _ArrayFile(
            file=f"mask-{name}.npz",
            sha256=_write_array(folder / f"mask-{name}.npz", mask.labels),
            series_uid=mask.series_uid,
            frames=mask.frames,
        ),
        heatmaps=tuple(
            _ArrayFile(
                file=file,
                sha256=_write_array(folder / file, heatmap.values.astype(np.float16)),
                series_uid=heatmap.series_uid,
                frames=heatmap.frames,
                answer=heatmap.answer,
                method=heatmap.method,
            )
            for file, heatmap in zip(_heatmap_files(name, outcome.heatmaps), outcome.heatmaps, strict=True)
        ),
        crude_report=outcome.crude_report,
    )
    path = folder / f"analysis-{name}.json"
    _write_whole(path, _ADAPTER.dump_json(content, indent=1))
    return path


def _heatmap_files(model: str, heatmaps: Sequence[Heatmap]) -> list[str]:
    """Name the files of heat maps; several series may each have a map of one answer."""
    answers = [heatmap.answer for heatmap in heatmaps]
    earlier = [answers[:index].count(answer) for index, answer in enumerate(answers)]
    return [
        f"heatmap-{model}-{answer}{f'-{number + 1}' if number else ''}.npz"
        for answer, number in zip(answers, earlier, strict=True)
    ]


def load_outcome(path: Path) -> Outcome:
    """Read what `save_outcome` wrote.

    Parameters
    ----------
    path : Path
        The JSON file.

    Returns
    -------
    Outcome
        Equal to what was saved, heat maps to float16's precision.

    Raises
    ------
    AnalysisFileError
        If a file is missing or damaged, or an array is not the one that the JSON describes.
    """
    content = _read_content(path)
    return Outcome(
        analysis=content.analysis,
        mask=None
        if content.mask is None
        else Mask(
            labels=_read_array(path.parent, content.mask),
            series_uid=content.mask.series_uid,
            frames=content.mask.frames,
        ),
        heatmaps=tuple(
            Heatmap(
                values=_read_array(path.parent, stored).astype(np.float32),
                series_uid=stored.series_uid,
                frames=stored.frames,
                answer=stored.answer,
                method=stored.method,
            )
            for stored in content.heatmaps
        ),
        crude_report=content.crude_report,
    )


def load_analysis(path: Path) -> Analysis:
    """Read the analysis alone, without its arrays.

    Raises
    ------
    AnalysisFileError
        If the file is missing or damaged.
    """
    return _read_content(path).analysis


def _read_content(path: Path) -> _AnalysisFile:
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError) as exc:
        raise AnalysisFileError("A stored analysis is missing or damaged: run the model again.") from exc


def _read_array(folder: Path, stored: _ArrayFile) -> npt.NDArray[Any]:
    try:
        packed = (folder / Path(stored.file).name).read_bytes()
    except OSError as exc:
        raise AnalysisFileError("An array of a stored analysis is missing: run the model again.") from exc
    if hashlib.sha256(packed).hexdigest() != stored.sha256:
        raise AnalysisFileError("A stored array is not the one its analysis describes: run the model again.")
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            array: npt.NDArray[Any] = arrays["values"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as exc:
        raise AnalysisFileError("A stored array is damaged: run the model again.") from exc
    return array


def _write_array(path: Path, array: npt.NDArray[Any]) -> str:
    """Write an array as compressed npz and return the digest of the file.

    The entries of an npz are dated 1980: equal arrays give equal bytes.
    """
    stream = io.BytesIO()
    np.savez_compressed(stream, values=array)
    _write_whole(path, stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()


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
