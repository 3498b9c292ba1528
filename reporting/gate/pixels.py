"""Pure. The gate's check of pictures: a segmentation decodes to its mask, in the right place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from inference.findings import FrameReference, Mask
from reporting.context import ResultKind, ResultObject
from reporting.errors import UnencodableResultError
from reporting.gate.evidence import Evidence
from reporting.gate.violation import Violation, object_violation
from reporting.geometry import PlaneGeometry, read_plane
from reporting.safety import REQUIRED_PHRASE
from reporting.seg import decode_segmentation, source_frame

_TOLERANCE_MM: Final = 1e-3
_TOLERANCE_COSINE: Final = 1e-4


def check_segmentation(result: ResultObject, evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation unless the segmentation holds the mask, voxel for voxel, where the images are."""
    if result.kind is not ResultKind.SEGMENTATION:
        return
    mask = evidence.masks.get(result.model_name)
    if mask is None:
        yield object_violation(result, "mask-missing", "There is no mask to compare the segmentation with.")
        return
    headers = [*evidence.sources.get(mask.series_uid, ())]
    if not headers or result.dataset.get("FrameOfReferenceUID") != headers[0].get("FrameOfReferenceUID"):
        yield object_violation(
            result, "frame-of-reference", "FrameOfReferenceUID differs from the source series'."
        )
    yield from _check_voxels(result, mask)
    yield from _check_places(result, headers)
    yield from _check_segments(result)


def check_picture(result: ResultObject, _: Evidence) -> Iterator[Violation]:
    """Yield a violation unless a picture (overview, heat map on a radiograph) says what it is."""
    if result.dataset.get("SOPClassUID") != SecondaryCaptureImageStorage:
        return
    if REQUIRED_PHRASE not in str(result.dataset.get("DerivationDescription", "")):
        yield object_violation(
            result, "banner", "DerivationDescription lacks the notice that nobody reviewed it."
        )
    if result.dataset.get("BurnedInAnnotation") not in {"YES", "NO"}:
        yield object_violation(result, "burned-in", "BurnedInAnnotation must be YES or NO.")


def _check_voxels(result: ResultObject, mask: Mask) -> Iterator[Violation]:
    try:
        decoded = decode_segmentation(result.dataset, mask.frames)
    except (UnencodableResultError, AttributeError, IndexError, ValueError) as exc:
        yield object_violation(result, "undecodable", f"It cannot be decoded ({type(exc).__name__}).")
        return
    if decoded.shape != mask.labels.shape or not np.array_equal(decoded, mask.labels):
        yield object_violation(result, "voxels", "It does not hold the mask voxel for voxel.")


def _check_places(result: ResultObject, headers: list[Dataset]) -> Iterator[Violation]:
    for number, group in enumerate(result.dataset.PerFrameFunctionalGroupsSequence, start=1):
        try:
            source = read_plane(headers, source_frame(group))
            own = read_plane(
                [result.dataset], FrameReference(sop_instance_uid=result.object_uid, frame_number=number)
            )
        except UnencodableResultError:
            yield object_violation(result, "place", "A frame has no place in the patient.")
            return
        if not is_same_place(source, own):
            yield object_violation(result, "place", "A frame lies elsewhere than its source image.")
            return


def is_same_place(one: PlaneGeometry, other: PlaneGeometry) -> bool:
    """Say whether two planes lie in the same place, to a thousandth of a millimetre."""
    return bool(
        np.allclose(one.position_mm, other.position_mm, rtol=0, atol=_TOLERANCE_MM)
        and np.allclose(one.orientation, other.orientation, rtol=0, atol=_TOLERANCE_COSINE)
        and np.isclose(one.row_spacing_mm, other.row_spacing_mm, rtol=1e-5)
        and np.isclose(one.column_spacing_mm, other.column_spacing_mm, rtol=1e-5)
    )


def _check_segments(result: ResultObject) -> Iterator[Violation]:
    segments = [s for s in result.dataset.get("SegmentSequence") or [] if int(s.SegmentNumber) > 0]
    uids = [str(segment.get("TrackingUID") or "") for segment in segments]
    if not all(uids) or len(set(uids)) != len(uids):
        yield object_violation(result, "tracking", "Each segment needs a Tracking UID of its own.")
    if any(segment.get("SegmentAlgorithmType") != "AUTOMATIC" for segment in segments):
        yield object_violation(result, "algorithm", "SegmentAlgorithmType must be AUTOMATIC.")
    if any(not segment.get("SegmentationAlgorithmIdentificationSequence") for segment in segments):
        yield object_violation(result, "algorithm", "Each segment must identify its algorithm.")
