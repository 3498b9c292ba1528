"""Pure. The gate's check of heat maps: the values that the model gave, in their range, in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from inference.findings import FrameReference, Heatmap
from reporting import codes
from reporting.context import ResultKind, ResultObject
from reporting.errors import UnencodableResultError
from reporting.gate.evidence import Evidence
from reporting.gate.pixels import is_same_place
from reporting.gate.violation import Violation, object_violation
from reporting.geometry import read_plane
from reporting.heatmap import decode_heatmap

#: Heat maps are kept as float16 between the steps of a run.
_TOLERANCE: Final = 1e-3


def check_heatmap(result: ResultObject, evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation unless a Parametric Map holds a heat map of its model, where the images are."""
    if result.kind is not ResultKind.HEATMAP or result.dataset.get("SOPClassUID") != ParametricMapStorage:
        return
    try:
        values, frames = decode_heatmap(result.dataset)
    except (UnencodableResultError, AttributeError, ValueError) as exc:
        yield object_violation(result, "undecodable", f"It cannot be decoded ({type(exc).__name__}).")
        return
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1:
        yield object_violation(result, "value-range", "A heat map's values must lie between 0 and 1.")
    candidates = evidence.heatmaps.get(result.model_name, ())
    if not any(_holds(heatmap, values, frames) for heatmap in candidates):
        yield object_violation(result, "values", "It holds no heat map that its model made.")
    yield from _check_meaning(result)
    yield from _check_places(result, frames, evidence)


def _holds(heatmap: Heatmap, values: np.ndarray, frames: tuple[FrameReference, ...]) -> bool:
    """Say whether the frames are those of the heat map, and those left out no hotter than those kept."""
    position = {frame: index for index, frame in enumerate(heatmap.frames)}
    if not set(frames) <= set(position) or values.shape[1:] != heatmap.values.shape[1:]:
        return False
    kept = [position[frame] for frame in frames]
    expected = np.clip(heatmap.values, 0, 1)
    left_out = np.delete(expected, kept, axis=0).max(initial=0)
    coldest = expected[kept].max(axis=(1, 2)).min(initial=1)
    return bool(np.allclose(values, expected[kept], rtol=0, atol=_TOLERANCE) and left_out <= coldest)


def _check_meaning(result: ResultObject) -> Iterator[Violation]:
    names = {
        str(item.ConceptCodeSequence[0].CodeValue)
        for group in result.dataset.get("SharedFunctionalGroupsSequence") or []
        for mapping in group.get("RealWorldValueMappingSequence") or []
        for item in mapping.get("QuantityDefinitionSequence") or []
        if item.get("ConceptCodeSequence")
    }
    if names != {codes.CLASS_ACTIVATION.value}:
        yield object_violation(result, "quantity", "It does not say that its values are class activation.")


def _check_places(
    result: ResultObject, frames: tuple[FrameReference, ...], evidence: Evidence
) -> Iterator[Violation]:
    headers: list[Dataset] = list(evidence.headers.values())
    for number, frame in enumerate(frames, start=1):
        try:
            source = read_plane(headers, frame)
            own = read_plane(
                [result.dataset], FrameReference(sop_instance_uid=result.object_uid, frame_number=number)
            )
        except UnencodableResultError:
            yield object_violation(result, "place", "A frame has no place in the patient.")
            return
        if not is_same_place(source, own):
            yield object_violation(result, "place", "A frame lies elsewhere than its source image.")
            return
