"""Adapter: reads pydicom datasets in memory as image planes with exact geometry.

One plane is one single-frame image or one frame of an enhanced multi-frame image, whichever functional group
its geometry sits in. What is not there is an error, never a default. Nothing here decides whether planes form
a volume: that is `inference/volume.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, uid
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from dicom_node.errors import PermanentError
from inference.findings import FrameReference

READABLE_SOP_CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        CTImageStorage: "CT",
        EnhancedCTImageStorage: "CT",
        LegacyConvertedEnhancedCTImageStorage: "CT",
        MRImageStorage: "MR",
        EnhancedMRImageStorage: "MR",
        LegacyConvertedEnhancedMRImageStorage: "MR",
    }
)
"""SOP Classes whose planes can form a volume, and their modality (PS3.4 B.5)."""

_MULTI_FRAME_SOP_CLASSES: Final = frozenset(READABLE_SOP_CLASSES) - {CTImageStorage, MRImageStorage}

_DIRECTION_TOLERANCE: Final = 1e-3
"""Largest departure of the direction cosines from unit length and a right angle (PS3.3 C.7.6.2.1.1)."""

_DISTINGUISHING_KEYWORDS: Final = (
    "EchoTime",
    "EchoNumbers",
    "EffectiveEchoTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
    "AcquisitionNumber",
    "InversionTime",
    "ImageType",
    "ComplexImageComponent",
    "ContentTime",
)
"""What images at one slice position usually differ in; the refusal names it, so that a site can split it."""


class Cause(StrEnum):
    """Why a series is not one volume."""

    EMPTY = "empty"
    SOP_CLASS = "sop_class"
    SEVERAL_SERIES = "several_series"
    PIXELS = "pixels"
    COLOUR = "colour"
    RESCALE = "rescale"
    GEOMETRY_MISSING = "geometry_missing"
    LOCALIZER = "localizer"
    MIXED_ORIENTATIONS = "mixed_orientations"
    MIXED_GRIDS = "mixed_grids"
    SEVERAL_FRAMES_OF_REFERENCE = "several_frames_of_reference"
    SEVERAL_STACKS = "several_stacks"
    TEMPORAL = "temporal"
    SAME_POSITION = "same_position"
    TILTED = "tilted"
    IRREGULAR_SPACING = "irregular_spacing"


class UnstackableSeriesError(PermanentError):
    """A series cannot be read as one regular volume.

    Parameters
    ----------
    message : str
        The reason, and what to do about it; free of patient data.
    cause : Cause
        The reason as a value.
    sop_class : str or None
        SOP Class UID of the image concerned.
    """

    def __init__(self, message: str, *, cause: Cause, sop_class: str | None = None) -> None:
        super().__init__(message, sop_class=sop_class)
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagePlane:
    """One image plane: where it lies, and where its pixels are.

    Attributes
    ----------
    frame : FrameReference
        The image; with a frame number when the SOP Class is multi-frame.
    position : ndarray
        (3,) float64, Image Position (Patient): LPS mm of the centre of the first pixel.
    row_direction, column_direction : ndarray
        (3,) float64 unit vectors in LPS: along a row (towards higher columns) and down a column.
    row_spacing_mm, column_spacing_mm : float
        Pixel Spacing: distance between neighbouring rows, and between neighbouring columns.
    thickness_mm : float or None
        Slice Thickness.
    rows, columns : int
        Matrix.
    slope, intercept : float
        Rescale to the modality's unit.
    stack_id : str or None
        Stack ID of the frame; None for a single-frame image.
    temporal_index : int or None
        Temporal Position Index of the frame.
    is_localizer : bool
        Whether Image Type or Frame Type says so.
    frame_index : int
        0-based index of the frame in its dataset.
    dataset : Dataset
        The dataset that holds the pixels.
    distinguishing : mapping
        Values of what images at one position usually differ in, by keyword.
    """

    frame: FrameReference
    position: npt.NDArray[np.float64]
    row_direction: npt.NDArray[np.float64]
    column_direction: npt.NDArray[np.float64]
    row_spacing_mm: float
    column_spacing_mm: float
    thickness_mm: float | None
    rows: int
    columns: int
    slope: float
    intercept: float
    stack_id: str | None
    temporal_index: int | None
    is_localizer: bool
    frame_index: int
    dataset: Dataset
    distinguishing: Mapping[str, str]


def read_planes(dataset: Dataset) -> tuple[ImagePlane, ...]:
    """Read where every plane of one image lies.

    Parameters
    ----------
    dataset : Dataset
        A single-frame or enhanced multi-frame CT or MR image.

    Returns
    -------
    tuple of ImagePlane
        One plane a frame, in the order of the frames; pixels are not decoded yet.

    Raises
    ------
    UnstackableSeriesError
        If the SOP Class, the pixel format or the geometry does not allow it.

    References
    ----------
    PS3.3 C.7.6.2 (Image Plane), C.7.6.16 (Multi-frame Functional Groups).
    """
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class not in READABLE_SOP_CLASSES:
        raise UnstackableSeriesError(
            "The series holds an object that is not a CT or MR image: route image series only.",
            cause=Cause.SOP_CLASS,
            sop_class=sop_class or None,
        )
    _require_grey_pixels(dataset, sop_class)
    count = _frame_count(dataset)
    if sop_class not in _MULTI_FRAME_SOP_CLASSES:
        if count != 1:
            raise _missing("a position for each of its frames", sop_class)
        return (_read_plane(dataset, 0, (dataset,), sop_class),)
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if len(per_frame) != count or len(shared) > 1:
        raise _missing("functional groups for every frame", sop_class)
    return tuple(_read_plane(dataset, i, (per_frame[i], *shared), sop_class) for i in range(count))


def decode_planes(planes: Sequence[ImagePlane]) -> npt.NDArray[np.float32]:
    """Decode the pixels of planes and rescale them to the modality's unit.

    Photometric interpretation MONOCHROME1 is left as stored: inverting it is a matter of display. Padding
    (PS3.3 C.7.5.1.1.2) is no measurement; it becomes the smallest real value of the planes.

    Parameters
    ----------
    planes : sequence of ImagePlane
        Planes of one matrix.

    Returns
    -------
    ndarray
        (D, rows, columns) float32, in the order of the planes; Hounsfield units for CT.

    Raises
    ------
    UnstackableSeriesError
        If pixels are missing, truncated, in an unknown transfer syntax, or not finite.
    """
    array = np.empty((len(planes), planes[0].rows, planes[0].columns), dtype=np.float32)
    is_padding = np.zeros(array.shape, dtype=np.bool_)
    cached: tuple[int, npt.NDArray[np.number]] | None = None
    for index in sorted(range(len(planes)), key=lambda i: (id(planes[i].dataset), planes[i].frame_index)):
        plane = planes[index]
        if cached is None or cached[0] != id(plane.dataset):
            cached = (id(plane.dataset), decode_stored(plane.dataset))
        stored = cached[1][plane.frame_index]
        if stored.shape != array.shape[1:]:
            raise _undecodable(plane.dataset)
        array[index] = stored.astype(np.float64) * plane.slope + plane.intercept
        is_padding[index] = padding_of(plane.dataset, stored)
    if not np.isfinite(array).all():
        raise _undecodable(planes[0].dataset)
    if is_padding.any() and not is_padding.all():
        array[is_padding] = array[~is_padding].min()
    return array


#: GDCM is kept to the JPEG processes that nothing else decodes: it ends the process on some broken streams.
_DECODERS: Final = {
    uid.RLELossless: "pydicom",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}


def decode_stored(dataset: Dataset) -> npt.NDArray[np.number]:
    """Decode all frames of one image to (frames, rows, columns) stored values."""
    try:
        stored = pixel_array(dataset, decoding_plugin=_DECODERS.get(dataset.file_meta.TransferSyntaxUID, ""))
    except Exception as exc:  # a decoder may raise whatever its plug-in raises
        raise _undecodable(dataset) from exc
    return stored.reshape(_frame_count(dataset), *stored.shape[-2:])


def _undecodable(dataset: Dataset) -> UnstackableSeriesError:
    return UnstackableSeriesError(
        "The pixel data of an image are missing, truncated or in a transfer syntax without a decoder: "
        "send the series again, uncompressed if it persists.",
        cause=Cause.PIXELS,
        sop_class=str(dataset.get("SOPClassUID", "")) or None,
    )


def padding_of(dataset: Dataset, stored: npt.NDArray[np.number]) -> npt.NDArray[np.bool_]:
    """Return which stored values lie in the image's padding range."""
    value = dataset.get("PixelPaddingValue")
    if value is None or isinstance(value, bytes):
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(limit)))
    return np.asarray((stored >= low) & (stored <= high), dtype=np.bool_)


def _require_grey_pixels(dataset: Dataset, sop_class: str) -> None:
    """Refuse colour, palettes, non-linear modality tables and images without a matrix."""
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if not photometric or not dataset.get("Rows") or not dataset.get("Columns"):
        raise _undecodable(dataset)
    if dataset.get("SamplesPerPixel", 1) != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise UnstackableSeriesError(
            "The images are in colour or a palette: route the original greyscale series instead.",
            cause=Cause.COLOUR,
            sop_class=sop_class,
        )
    if dataset.get("ModalityLUTSequence"):
        raise UnstackableSeriesError(
            "The images carry a non-linear modality table, which CT and MR do not have: route the original "
            "series.",
            cause=Cause.RESCALE,
            sop_class=sop_class,
        )


def _frame_count(dataset: Dataset) -> int:
    """Return Number of Frames, 1 when absent."""
    try:
        return max(int(dataset.get("NumberOfFrames") or 1), 1)
    except (TypeError, ValueError):
        return 1


def _read_plane(dataset: Dataset, index: int, groups: Sequence[Dataset], sop_class: str) -> ImagePlane:
    """Read one plane; ``groups`` are searched in order, the frame's own before the shared ones."""
    is_multi_frame = sop_class in _MULTI_FRAME_SOP_CLASSES
    position = _numbers(_macro(groups, "PlanePositionSequence"), "ImagePositionPatient", 3, sop_class)
    orientation = _numbers(
        _macro(groups, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, sop_class
    )
    measures = _macro(groups, "PixelMeasuresSequence")
    spacing = _numbers(measures, "PixelSpacing", 2, sop_class)
    if min(spacing) <= 0:
        raise _missing("a positive Pixel Spacing", sop_class)
    row_direction, column_direction = _directions(np.array(orientation), sop_class)
    slope, intercept = _rescale(groups, sop_class)
    content = _macro(groups, "FrameContentSequence")
    temporal_index = content.get("TemporalPositionIndex")
    return ImagePlane(
        frame=FrameReference(
            sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
            frame_number=index + 1 if is_multi_frame else None,
        ),
        position=np.array(position),
        row_direction=row_direction,
        column_direction=column_direction,
        row_spacing_mm=spacing[0],
        column_spacing_mm=spacing[1],
        thickness_mm=_positive(measures.get("SliceThickness")),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        slope=slope,
        intercept=intercept,
        stack_id=str(content.get("StackID", "")) if is_multi_frame else None,
        temporal_index=None if temporal_index is None else int(temporal_index),
        is_localizer=_is_localizer(dataset, groups),
        frame_index=index,
        dataset=dataset,
        distinguishing=_distinguishing(dataset, groups),
    )


def _macro(groups: Sequence[Dataset], sequence: str) -> Dataset:
    """Return the functional group item: from a frame's own groups, the shared ones, or the image itself.

    A single-frame image holds the attributes of every macro at its top level.
    """
    for group in groups:
        items = group.get(sequence)
        if items:
            item: Dataset = items[0]
            return item
    return groups[0]


def _directions(
    orientation: npt.NDArray[np.float64], sop_class: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the unit vectors of Image Orientation (Patient), made exactly orthonormal."""
    row, column = orientation[:3], orientation[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1).max() > _DIRECTION_TOLERANCE or abs(float(row @ column)) > _DIRECTION_TOLERANCE:
        raise _missing("two orthogonal unit vectors in Image Orientation (Patient)", sop_class)
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _rescale(groups: Sequence[Dataset], sop_class: str) -> tuple[float, float]:
    """Return slope and intercept; CT without them has no unit and is refused, MR needs none."""
    values = _macro(groups, "PixelValueTransformationSequence")
    slope, intercept = values.get("RescaleSlope"), values.get("RescaleIntercept")
    if slope is None and intercept is None and READABLE_SOP_CLASSES[sop_class] == "MR":
        return 1.0, 0.0
    try:
        pair = float(slope), float(intercept)
    except (TypeError, ValueError):
        pair = math.nan, math.nan
    if not all(map(math.isfinite, pair)) or pair[0] == 0:
        raise UnstackableSeriesError(
            "An image lacks a usable Rescale Slope or Intercept, so its values have no unit: route the "
            "original series.",
            cause=Cause.RESCALE,
            sop_class=sop_class,
        )
    return pair


def _numbers(item: Dataset, keyword: str, count: int, sop_class: str) -> tuple[float, ...]:
    """Return a multi-valued decimal string as finite floats."""
    try:
        values = tuple(float(value) for value in item.get(keyword) or ())
    except (TypeError, ValueError, OverflowError):
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise _missing(keyword, sop_class)
    return values


def _missing(what: str, sop_class: str) -> UnstackableSeriesError:
    return UnstackableSeriesError(
        f"An image lacks {what}, so where it lies in the patient is unknown: route the original series.",
        cause=Cause.GEOMETRY_MISSING,
        sop_class=sop_class,
    )


def _positive(value: object) -> float | None:
    """Return a positive finite number, or None."""
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever the file holds
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _is_localizer(dataset: Dataset, groups: Sequence[Dataset]) -> bool:
    """Return whether Image Type or Frame Type value 3 is LOCALIZER (PS3.3 C.7.6.1.1.2)."""
    types = [dataset.get("ImageType") or ()]
    types += [
        _macro(groups, name).get("FrameType") or ()
        for name in ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")
    ]
    return any("LOCALIZER" in tuple(values) for values in types)


def _distinguishing(dataset: Dataset, groups: Sequence[Dataset]) -> Mapping[str, str]:
    """Collect what tells images at one position apart."""
    echo = _macro(groups, "MREchoSequence")
    diffusion = _macro(groups, "MRDiffusionSequence")
    found = {}
    for keyword in _DISTINGUISHING_KEYWORDS:
        for source in (echo, diffusion, dataset):
            if (value := source.get(keyword)) is not None:
                found[keyword] = str(value)
                break
    return found
