"""Adapter: reads the weights of TensorFlow.js layers models: ``model.json`` and its binary shards.

Only the weights manifest is read; the model's topology is data that nothing here builds or runs.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicom_node.errors import PermanentError

MODEL_NAME: Final = "model.json"
"""File name of the model beside its shards."""

_FLOAT32: Final = np.dtype("<f4")


class TensorFlowJsError(PermanentError):
    """Weights of TensorFlow.js cannot be read; the message says why and what to choose instead."""


def read_tfjs_weights(path: Path) -> Mapping[str, npt.NDArray[np.float32]]:
    """Read all weights of a TensorFlow.js layers model.

    Parameters
    ----------
    path : Path
        ``model.json``, a folder with exactly one somewhere below it, or an npm package (``.tgz``) with one,
        as ``npm pack`` leaves it.

    Returns
    -------
    mapping of str to ndarray
        ``<layer>/<weight>`` to float32 values in TensorFlow's axis order (convolutions: H, W, in, out).

    Raises
    ------
    TensorFlowJsError
        If there is no model, a shard is missing or short, or weights are not plain float32.

    References
    ----------
    TensorFlow.js ``io.WeightsManifestConfig``: groups of shards, whose bytes are joined and cut in the order
    of the group's weights.
    """
    if path.suffix == ".tgz":
        with tarfile.open(path) as archive:
            files = {PurePosixPath(member.name): member for member in archive if member.isfile()}
            model = _only_model([name for name in files if name.name == MODEL_NAME], path)

            def read(name: PurePosixPath) -> bytes:
                stream = archive.extractfile(files[name]) if name in files else None
                if stream is None:
                    raise TensorFlowJsError(f"{path.name}: {name.name} is missing; fetch the package again.")
                return stream.read()

            return _read_manifest(model, read)
    found = [path] if path.is_file() else sorted(path.rglob(MODEL_NAME))
    root = path if path.is_dir() else path.parent
    model = _only_model([PurePosixPath(each.relative_to(root).as_posix()) for each in found], path)
    return _read_manifest(model, lambda name: _read_file(root / name))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise TensorFlowJsError(f"{path.name} is missing or unreadable; fetch the weights again.") from exc


def _only_model(found: list[PurePosixPath], path: Path) -> PurePosixPath:
    if len(found) != 1:
        raise TensorFlowJsError(f"{path.name}: {len(found)} files {MODEL_NAME}; name one of them.")
    return found[0]


def _read_manifest(
    model: PurePosixPath, read: Callable[[PurePosixPath], bytes]
) -> Mapping[str, npt.NDArray[np.float32]]:
    """Read the groups of a manifest; shard paths are relative to the model and may not leave its folder."""
    try:
        groups: list[dict[str, Any]] = json.loads(read(model))["weightsManifest"]
        weights: dict[str, npt.NDArray[np.float32]] = {}
        for group in groups:
            shards = [model.parent / PurePosixPath(name).name for name in group["paths"]]
            weights |= _cut(b"".join(map(read, shards)), group["weights"])
    except (KeyError, TypeError, ValueError) as exc:
        raise TensorFlowJsError(f"{model.name} has no weights manifest; choose a layers model.") from exc
    return weights


def _cut(content: bytes, specifications: list[dict[str, Any]]) -> dict[str, npt.NDArray[np.float32]]:
    """Cut the bytes of a group into its weights."""
    weights, offset = {}, 0
    for specification in specifications:
        name, shape = str(specification["name"]), tuple(map(int, specification["shape"]))
        if specification["dtype"] != "float32" or "quantization" in specification:
            raise TensorFlowJsError(f"{name} is not plain float32; choose the model that is not quantised.")
        count = math.prod(shape)
        if len(content) < offset + count * _FLOAT32.itemsize:
            raise TensorFlowJsError(f"{name} is cut off; fetch the shards again.")
        values = np.frombuffer(content, dtype=_FLOAT32, count=count, offset=offset)
        weights[name] = values.reshape(shape).astype(np.float32)
        offset += count * _FLOAT32.itemsize
    return weights
