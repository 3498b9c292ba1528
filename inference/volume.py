"""Pure. A series as one volume: slices sorted, geometry exact, or refused with the reason.

Medical geometry is never guessed here. A series either is a regular stack of parallel planes along their
normal within the named tolerances, or `UnstackableSeriesError` says why it is not and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from inference.findings import FrameReference
from inference.planes import (
    READABLE_SOP_CLASSES,
    Cause,
    ImagePlane,
    UnstackableSeriesError,
    decode_planes,
    read_planes,
)

__all__ = ["Cause", "UnstackableSeriesError", "Volume", "read_volume"]

ORIENTATION_TOLERANCE: Final = 1e-3
"""Largest difference of a direction cosine within a stack: 0.06 degrees, 0.15 mm at 150 mm distance."""

PIXEL_SPACING_TOLERANCE_MM: Final = 1e-3
"""Largest difference of Pixel Spacing within a stack, mm."""

SAME_POSITION_TOLERANCE_MM: Final = 0.01
"""Planes nearer than this along the normal are images of one position: positions are rounded to it."""

GAP_TOLERANCE_FRACTION: Final = 0.05
"""Largest departure of a slice from the regular grid, as a fraction of the slice spacing."""

GAP_TOLERANCE_MM: Final = 0.02
"""Departures below this are rounding of Image Position (Patient), mm."""

DRIFT_TOLERANCE_PIXELS: Final = 0.5
"""Largest in-plane shift of a slice against the line along the normal; more is a tilted gantry."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """A regular stack of parallel image planes in the patient.

    Attributes
    ----------
    array : ndarray
        (D, H, W) float32: slices, rows, columns. Values in the modality's unit (Hounsfield for CT, arbitrary
        for MR), as stored: MONOCHROME1 is not inverted.
    affine : ndarray
        (4, 4) float64: (column, row, slice, 1) of a pixel centre, 0-based, to LPS mm.
    frames : tuple of FrameReference
        D images in the order of axis 0. Slices ascend along the patient axis nearest to the stack's normal:
        foot to head (axial), front to back (coronal), right to left (sagittal).
    series_uid : str
        Series Instance UID.
    frame_of_reference_uid : str or None
        Volumes that share it lie in one coordinate system.
    modality : str
        ``CT`` or ``MR``.
    is_inverted_for_display : bool
        Whether low values are shown bright (MONOCHROME1). Concerns display only.
    """

    array: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    frames: tuple[FrameReference, ...]
    series_uid: str
    frame_of_reference_uid: str | None
    modality: str
    is_inverted_for_display: bool = False

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between neighbouring columns, rows and slices, mm."""
        column, row, step = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(column), float(row), float(step)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, mm3."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    def to_patient(self, indices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Map (..., 3) column, row, slice indices of pixel centres to (..., 3) LPS mm."""
        return np.asarray(indices @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def to_indices(self, points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Map (..., 3) LPS mm to (..., 3) column, row, slice indices: the inverse of `to_patient`."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        return np.asarray((points_mm - self.affine[:3, 3]) @ inverse.T, dtype=np.float64)


def read_volume(datasets: Sequence[Dataset]) -> Volume:
    """Read the images of one series as a volume.

    The order of the images does not matter. A series of one image is a volume of one slice whose spacing is
    the Slice Thickness: that is the only statement the standard makes about its extent.

    Parameters
    ----------
    datasets : sequence of Dataset
        All images of one CT or MR series with pixel data: single-frame, or enhanced multi-frame.

    Returns
    -------
    Volume
        The stack, (D, H, W) float32.

    Raises
    ------
    UnstackableSeriesError
        If the images are not one regular stack; ``cause`` says why.

    References
    ----------
    PS3.3 C.7.6.2.1.1 (Image Position and Orientation), C.7.6.16.2 (functional groups), C.11.1 (Modality LUT).
    """
    if not datasets:
        raise UnstackableSeriesError("The series holds no image: wait for its images.", cause=Cause.EMPTY)
    _require_one_series(datasets)
    planes = [plane for dataset in datasets for plane in read_planes(dataset)]
    _require_one_grid(planes)
    normal = _stack_normal(planes[0])
    planes.sort(key=lambda plane: float(plane.position @ normal))
    _require_one_stack(planes)
    _require_one_plane_per_position(planes, normal)
    _require_no_tilt(planes, normal)
    _require_regular_spacing(planes, normal)
    first = planes[0].dataset
    return Volume(
        array=decode_planes(planes),
        affine=_affine(planes, normal),
        frames=tuple(plane.frame for plane in planes),
        series_uid=str(first.get("SeriesInstanceUID", "")),
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID") or "") or None,
        modality=READABLE_SOP_CLASSES[str(first.SOPClassUID)],
        is_inverted_for_display=str(first.PhotometricInterpretation) == "MONOCHROME1",
    )


def _stack_normal(plane: ImagePlane) -> npt.NDArray[np.float64]:
    """Return the unit normal of the planes, pointing to the head, the back or the left."""
    normal = np.cross(plane.row_direction, plane.column_direction)
    nearest = int(np.abs(normal).round(6).argmax())
    return normal if normal[nearest] > 0 else -normal


def _affine(planes: Sequence[ImagePlane], normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the affine of sorted planes; first and last slice lie exactly where their headers say."""
    first, last = planes[0], planes[-1]
    if len(planes) > 1:
        step = (last.position - first.position) / (len(planes) - 1)
    elif first.thickness_mm is not None:
        step = first.thickness_mm * normal
    else:
        raise UnstackableSeriesError(
            "The series has one image and no Slice Thickness, so its extent is unknown: route the full "
            "series.",
            cause=Cause.GEOMETRY_MISSING,
        )
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.column_spacing_mm
    affine[:3, 1] = first.column_direction * first.row_spacing_mm
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return affine


def _require_one_series(datasets: Sequence[Dataset]) -> None:
    if len({str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}) > 1:
        raise UnstackableSeriesError(
            "The images belong to several series: read one series at a time.", cause=Cause.SEVERAL_SERIES
        )
    if len({str(dataset.get("FrameOfReferenceUID", "")) for dataset in datasets}) > 1:
        raise UnstackableSeriesError(
            "The images of the series lie in several frames of reference: the patient was repositioned. "
            "Route "
            "each part as its own series.",
            cause=Cause.SEVERAL_FRAMES_OF_REFERENCE,
        )


def _require_one_grid(planes: Sequence[ImagePlane]) -> None:
    """Refuse localizers, mixed orientations and mixed matrices."""
    if any(plane.is_localizer for plane in planes):
        raise UnstackableSeriesError(
            "The series is a localizer: exclude it in the routing rules.", cause=Cause.LOCALIZER
        )
    directions = np.stack([np.concatenate((p.row_direction, p.column_direction)) for p in planes])
    if np.abs(directions - directions[0]).max() > ORIENTATION_TOLERANCE:
        raise UnstackableSeriesError(
            "The images of the series have different orientations (a localizer, or a rotating projection): "
            "exclude "
            "the series in the routing rules, or send each orientation as its own series.",
            cause=Cause.MIXED_ORIENTATIONS,
        )
    spacings = np.array([(p.row_spacing_mm, p.column_spacing_mm) for p in planes])
    has_one_matrix = len({(p.rows, p.columns) for p in planes}) == 1
    if not has_one_matrix or np.abs(spacings - spacings[0]).max() > PIXEL_SPACING_TOLERANCE_MM:
        raise UnstackableSeriesError(
            "The images of the series differ in matrix or pixel spacing: send each grid as its own series.",
            cause=Cause.MIXED_GRIDS,
        )
    if len({str(p.dataset.PhotometricInterpretation) for p in planes}) > 1:
        raise UnstackableSeriesError(
            "The images of the series mix MONOCHROME1 and MONOCHROME2: route the original series.",
            cause=Cause.MIXED_GRIDS,
        )


def _require_one_stack(planes: Sequence[ImagePlane]) -> None:
    """Refuse what the dimensions of a multi-frame image declare to be several volumes."""
    stacks = {plane.stack_id for plane in planes}
    if len(stacks) > 1:
        raise UnstackableSeriesError(
            f"The series holds {len(stacks)} stacks: send each stack as its own series.",
            cause=Cause.SEVERAL_STACKS,
        )
    times = {plane.temporal_index for plane in planes}
    if len(times) > 1:
        raise UnstackableSeriesError(
            f"The series holds {len(times)} points in time: send the one to be read as its own series.",
            cause=Cause.TEMPORAL,
        )


def _distances(planes: Sequence[ImagePlane], normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distance of each plane from the first along the normal, mm."""
    return np.array([float((plane.position - planes[0].position) @ normal) for plane in planes])


def _require_one_plane_per_position(planes: Sequence[ImagePlane], normal: npt.NDArray[np.float64]) -> None:
    gaps = np.diff(_distances(planes, normal))
    repeated = np.flatnonzero(gaps < SAME_POSITION_TOLERANCE_MM)
    if repeated.size == 0:
        return
    pairs = [(planes[i].distinguishing, planes[i + 1].distinguishing) for i in repeated.tolist()]
    keywords = sorted({k for a, b in pairs for k in a.keys() | b.keys() if a.get(k) != b.get(k)})
    difference = (
        f"they differ in {', '.join(keywords)}" if keywords else "nothing in their headers tells them apart"
    )
    raise UnstackableSeriesError(
        f"{repeated.size} slice positions hold more than one image ({difference}): send each echo, phase or "
        "repetition as its own series, or route another series.",
        cause=Cause.SAME_POSITION,
    )


def _require_no_tilt(planes: Sequence[ImagePlane], normal: npt.NDArray[np.float64]) -> None:
    offsets = np.stack([plane.position for plane in planes]) - planes[0].position
    drift_mm = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1).max()
    pixel_mm = min(planes[0].row_spacing_mm, planes[0].column_spacing_mm)
    if drift_mm > DRIFT_TOLERANCE_PIXELS * pixel_mm:
        raise UnstackableSeriesError(
            f"The slices are not stacked along their normal (in-plane shift of {drift_mm:.1f} mm over the "
            "stack, as "
            "with a tilted gantry): reformat the series to a straight stack and send that.",
            cause=Cause.TILTED,
        )


def _require_regular_spacing(planes: Sequence[ImagePlane], normal: npt.NDArray[np.float64]) -> None:
    distances = _distances(planes, normal)
    gaps = np.diff(distances)
    if gaps.size == 0:
        return
    grid = np.linspace(0.0, distances[-1], len(planes))
    usual = float(np.median(gaps))
    tolerance_mm = max(GAP_TOLERANCE_FRACTION * usual, GAP_TOLERANCE_MM)
    if max(np.abs(gaps - usual).max(), np.abs(distances - grid).max()) <= tolerance_mm:
        return
    multiples = gaps / usual
    has_holes = bool((np.abs(multiples - multiples.round()) * usual <= tolerance_mm).all())
    missing = int(multiples.round().sum()) - gaps.size
    reason = (
        f"{missing} slices are missing from the stack: send the series again"
        if has_holes and missing > 0
        else "reformat it to equal spacing and send that"
    )
    raise UnstackableSeriesError(
        f"The slice spacing varies between {gaps.min():.2f} and {gaps.max():.2f} mm: {reason}.",
        cause=Cause.IRREGULAR_SPACING,
    )
