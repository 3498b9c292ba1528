"""Adapter: reads one CR or DX image in memory as a radiograph: polarity, projection and pixel size settled.

A radiograph has no position in the patient, so it is no `Volume`. Nothing here decides what a model may read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from dicom_node.errors import PermanentError
from inference.findings import Box, FrameReference
from inference.planes import decode_stored, padding_of

READABLE_RADIOGRAPHS: Final = frozenset(
    {ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage}
)
"""SOP Classes that can be read; a secondary capture only when its Modality says CR or DX (PS3.4 B.5)."""

MODALITIES: Final = frozenset({"CR", "DX"})
"""Modalities of projection radiographs (PS3.3 C.7.3.1.1.1)."""

LATERAL_VIEWS: Final = frozenset({"LL", "RL", "LAT"})
"""Views from the side; ``LAT`` when the header does not say from which."""

_FALLBACK_PERCENTILES: Final = (0.5, 99.5)
"""Percentiles of the values that become black and white when the image has no usable window or table."""

_VIEW_POSITIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PA": "PA",
        "AP": "AP",
        "LL": "LL",
        "RL": "RL",
        "LLAT": "LL",
        "RLAT": "RL",
        "LLD": "LLD",
        "RLD": "RLD",
        "LLO": "LLO",
        "RLO": "RLO",
        "LAT": "LAT",
        "LATERAL": "LAT",
        "POSTERO-ANTERIOR": "PA",
        "ANTERO-POSTERIOR": "AP",
        "POSTEROANTERIOR": "PA",
        "ANTEROPOSTERIOR": "AP",
    }
)
"""View Position (0018,5101): defined terms of PS3.3 C.8.7.1.1.3, and what devices write besides them."""

_VIEW_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "272479007": "PA",
        "399348003": "AP",
        "399173006": "LL",
        "399198007": "RL",
        "399067008": "LAT",
        "R-10214": "PA",
        "R-10206": "AP",
        "R-10236": "LL",
        "R-10232": "RL",
        "R-10228": "LAT",
    }
)
"""View Code Sequence: CID 4010, SCT, and the SRT codes of older images."""

_LATERAL_WORDS: Final = re.compile(r"(^|[^a-z])(lat|lateral|left lat|ll|rl)([^a-z]|$)", re.IGNORECASE)
"""What a Series Description says of a lateral view, where nothing else does."""

_OPPOSITE: Final[Mapping[str, str]] = MappingProxyType(
    {"L": "R", "R": "L", "H": "F", "F": "H", "A": "P", "P": "A"}
)


class UnreadableRadiographError(PermanentError):
    """An image cannot be read as a radiograph; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How a stored image was turned to be read: transposed first, then its rows and columns reversed.

    Attributes
    ----------
    is_transposed : bool
        Whether rows and columns were exchanged.
    flips_rows, flips_columns : bool
        Whether the order of the rows, of the columns, was reversed after that.
    """

    is_transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    def apply(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn (H, W) as stored into the radiograph's orientation."""
        turned = array.T if self.is_transposed else array
        return np.ascontiguousarray(turned[self._steps])

    def undo(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn (H, W) in the radiograph's orientation back to how the image is stored."""
        turned = array[self._steps]
        return np.ascontiguousarray(turned.T if self.is_transposed else turned)

    def apply_corners(
        self, left: float, top: float, right: float, bottom: float, shape: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Map a rectangle on the stored image to one on the turned image of ``shape`` (H, W)."""
        height, width = shape
        if self.is_transposed:
            left, top, right, bottom = top, left, bottom, right
        if self.flips_columns:
            left, right = width - right, width - left
        if self.flips_rows:
            top, bottom = height - bottom, height - top
        return left, top, right, bottom

    def undo_corners(
        self, left: float, top: float, right: float, bottom: float, shape: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Map a rectangle on a radiograph of ``shape`` (H, W) to left, top, right, bottom as stored."""
        height, width = shape
        if self.flips_columns:
            left, right = width - right, width - left
        if self.flips_rows:
            top, bottom = height - bottom, height - top
        return (top, left, bottom, right) if self.is_transposed else (left, top, right, bottom)

    @property
    def _steps(self) -> tuple[slice, slice]:
        return (
            slice(None, None, -1 if self.flips_rows else 1),
            slice(None, None, -1 if self.flips_columns else 1),
        )


AS_STORED: Final = Turn()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Radiograph:
    """One projection image as a person would see it.

    Attributes
    ----------
    array : ndarray
        (H, W) float32, 0 (black, air) to 1 (white, bone): Modality LUT, VOI window or LUT and MONOCHROME1
        are applied, rows from the patient's head to the feet, the patient's right on the left for AP and PA.
    frame : FrameReference
        The image.
    series_uid : str
        Series Instance UID.
    modality : str
        ``CR`` or ``DX``.
    view : str
        ``PA``, ``AP``, ``LL``, ``RL``, ``LAT`` (lateral, side not said), another View Position as it is
        written; empty when the header does not say.
    pixel_spacing_mm : tuple of float or None
        Distance between rows and between columns in the patient, where the header can be trusted for it
        (Pixel Spacing calibrated, or Imager Pixel Spacing with a magnification factor), else None.
    turn : Turn
        How the stored image was turned to become ``array``: results lie on the stored image again.
    """

    array: npt.NDArray[np.float32]
    frame: FrameReference
    series_uid: str
    modality: str
    view: str
    pixel_spacing_mm: tuple[float, float] | None = None
    turn: Turn = AS_STORED

    @property
    def is_lateral(self) -> bool:
        """Whether the header says that the view is from the side."""
        return self.view in LATERAL_VIEWS

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return a rectangle on ``array`` (columns and rows from the outer corner) on the stored image."""
        shape = (self.array.shape[0], self.array.shape[1])
        corners = self.turn.undo_corners(left, top, right, bottom, shape)
        return Box(frame=self.frame, left=corners[0], top=corners[1], right=corners[2], bottom=corners[3])

    def stored(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (H, W) values on ``array``, for example a heat map, on the pixels of the stored image."""
        return self.turn.undo(values)


def read_radiographs(datasets: Sequence[Dataset]) -> tuple[Radiograph, ...]:
    """Read the images of one CR or DX series, in the order of Instance Number.

    Images "For Processing" are left out where the series also holds images for presentation.

    Parameters
    ----------
    datasets : sequence of Dataset
        All images of one series with pixel data.

    Returns
    -------
    tuple of Radiograph
        One an image.

    Raises
    ------
    UnreadableRadiographError
        If the series is empty, or an image cannot be read.
    """
    if not datasets:
        raise UnreadableRadiographError("The series holds no image: wait for its images.")
    shown = [d for d in datasets if d.get("SOPClassUID") != DigitalXRayImageStorageForProcessing]
    ordered = sorted(shown or datasets, key=lambda d: (_instance_number(d), str(d.get("SOPInstanceUID", ""))))
    return tuple(read_radiograph(dataset) for dataset in ordered)


def read_radiograph(dataset: Dataset) -> Radiograph:
    """Read one image as a radiograph.

    The grey values are those that a viewer shows first: the Modality LUT, then the first VOI LUT or window,
    or, where there is none, the central 99 % of the values; then the polarity.

    Parameters
    ----------
    dataset : Dataset
        A CR, DX for presentation, or secondary capture image of modality CR or DX, with pixel data.

    Returns
    -------
    Radiograph
        The image, upright.

    Raises
    ------
    UnreadableRadiographError
        If the image is of another kind, unprocessed, in colour, multi-frame or without contrast.
    UnstackableSeriesError
        If its pixels cannot be decoded.

    References
    ----------
    PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.11.6 (Presentation LUT Shape), C.7.6.1.1.1 (Patient
    Orientation), C.8.7.1.1.3 (View Position), 10.7.1.3 (calibration of pixel spacing).
    """
    _require_radiograph(dataset)
    stored = decode_stored(dataset)[0]
    grey = _present(dataset, stored)
    view = _view(dataset)
    turn = _turn(dataset)
    spacing = _pixel_spacing_mm(dataset)
    return Radiograph(
        array=turn.apply(grey),
        frame=FrameReference(sop_instance_uid=str(dataset.get("SOPInstanceUID", ""))),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        modality=str(dataset.get("Modality", "")),
        view=view,
        pixel_spacing_mm=spacing[::-1] if spacing is not None and turn.is_transposed else spacing,
        turn=turn,
    )


def view_of(header: Dataset) -> str:
    """Return the projection of an image from its header alone, as `Radiograph.view` has it."""
    return _view(header)


def turn_of(header: Dataset) -> Turn:
    """Return how an image is turned to be read, from its header alone, as `Radiograph.turn` has it."""
    return _turn(header)


def _require_radiograph(dataset: Dataset) -> None:
    """Refuse what is no single greyscale radiograph for presentation."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class == DigitalXRayImageStorageForProcessing:
        reason = "The image is unprocessed (For Processing): route the image for presentation instead."
    elif sop_class not in READABLE_RADIOGRAPHS or str(dataset.get("Modality", "")) not in MODALITIES:
        reason = "The image is no CR or DX radiograph: exclude its series in the routing rules."
    elif not dataset.get("Rows") or not dataset.get("Columns"):
        reason = "The image says no matrix: send it again from its source."
    elif dataset.get("SamplesPerPixel", 1) != 1 or dataset.get("PhotometricInterpretation") not in {
        "MONOCHROME1",
        "MONOCHROME2",
    }:
        reason = "The image is in colour or a palette: route the original greyscale image instead."
    elif str(dataset.get("NumberOfFrames") or 1) != "1":
        reason = "The image has several frames: route single radiographs."
    else:
        return
    raise UnreadableRadiographError(reason, sop_class=sop_class or None)


def _present(dataset: Dataset, stored: npt.NDArray[np.number]) -> npt.NDArray[np.float32]:
    """Return (H, W) float32 grey values as shown, 0 black to 1 white."""
    is_padding = padding_of(dataset, stored)
    try:
        values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
        grey = _apply_table(dataset, values)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError) as exc:
        raise UnreadableRadiographError(
            "A grey value table of the image is malformed: send the image again from its source.",
            sop_class=str(dataset.SOPClassUID),
        ) from exc
    if grey is None:
        grey = _apply_window(dataset, values)
    if grey is None:
        grey = _apply_percentiles(values, is_padding)
    if not np.isfinite(grey).all():
        raise UnreadableRadiographError(
            "The grey values of the image are not finite: send the image again from its source.",
            sop_class=str(dataset.SOPClassUID),
        )
    grey = np.clip(grey, 0.0, 1.0)
    if _is_inverted(dataset):
        grey = 1.0 - grey
    if not is_padding.all():
        grey[is_padding] = 0.0
    return np.asarray(grey, dtype=np.float32)


def _is_inverted(dataset: Dataset) -> bool:
    """Return whether low values are shown white; either attribute may say so (PS3.3 C.8.11.3.1.2)."""
    return (
        str(dataset.PhotometricInterpretation) == "MONOCHROME1"
        or str(dataset.get("PresentationLUTShape")) == "INVERSE"
    )


def _apply_table(dataset: Dataset, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Apply the first VOI LUT; None when there is none. White is its largest entry."""
    if not dataset.get("VOILUTSequence"):
        return None
    whole = np.rint(values).astype(np.int64)
    shown = np.asarray(apply_voi(whole, dataset, index=0), dtype=np.float64)
    item = dataset.VOILUTSequence[0]
    every = np.asarray(apply_voi(_table_inputs(item), dataset, index=0), dtype=np.float64)
    low, high = float(every.min()), float(every.max())
    return (shown - low) / (high - low) if high > low else None


def _table_inputs(item: Dataset) -> npt.NDArray[np.int64]:
    """Return every input value that a LUT maps (PS3.3 C.11.2.1.1)."""
    entries, first = int(item.LUTDescriptor[0]) or 65536, int(item.LUTDescriptor[1])
    return np.arange(first, first + entries, dtype=np.int64)


def _apply_window(dataset: Dataset, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Apply the first window by its VOI LUT Function; None when there is no usable one (PS3.3 C.11.2.1)."""
    centre, width = _first_number(dataset.get("WindowCenter")), _first_number(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or width < (1.0 if function == "LINEAR" else 1e-9):
        return None
    if centre + width / 2 <= values.min() or centre - width / 2 >= values.max():
        return None
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -50.0, 50.0))))
    if function == "LINEAR_EXACT":
        return np.asarray((values - centre) / width + 0.5)
    return np.asarray((values - (centre - 0.5)) / max(width - 1.0, 1e-9) + 0.5)


def _apply_percentiles(
    values: npt.NDArray[np.float64], is_padding: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Spread the central values over the grey scale, for an image that says nothing of its own."""
    measured = values if is_padding.all() else values[~is_padding]
    low, high = (float(value) for value in np.percentile(measured, _FALLBACK_PERCENTILES))
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros(values.shape)


def _view(dataset: Dataset) -> str:
    """Return the projection, from the most exact statement to the least."""
    position = str(dataset.get("ViewPosition") or "").strip().upper()
    if position:
        return _VIEW_POSITIONS.get(position, position)
    for item in dataset.get("ViewCodeSequence") or ():
        if (view := _VIEW_CODES.get(str(item.get("CodeValue", "")))) is not None:
            return view
    directions = _directions(dataset)
    if directions is not None and {"A", "P"} & set(directions):
        return "LAT"
    words = " ".join(
        str(dataset.get(keyword) or "")
        for keyword in ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
    )
    return "LAT" if _LATERAL_WORDS.search(words) else ""


def _directions(dataset: Dataset) -> tuple[str, str] | None:
    """Return the main direction of the rows and of the columns; None when the header does not say."""
    value = dataset.get("PatientOrientation")
    if not value or isinstance(value, str) or len(value) != 2:  # noqa: PLR2004 - rows and columns
        return None
    row, column = (str(part).strip().upper()[:1] for part in value)
    return (row, column) if row in _OPPOSITE and column in _OPPOSITE else None


def _turn(dataset: Dataset) -> Turn:
    """Return the turn that puts the head up and, in a frontal view, the patient's right on the left.

    A lateral view keeps its left and right: both ways of hanging it are in use.
    """
    directions = _directions(dataset)
    if directions is None or ("H" in directions) == ("F" in directions):
        return AS_STORED
    row, column = directions
    is_transposed = row in {"H", "F"}
    if is_transposed:
        row, column = column, row
    return Turn(is_transposed=is_transposed, flips_rows=column == "H", flips_columns=row == "R")


def _pixel_spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    """Return the spacing in the patient; None where the header gives only that of the detector."""
    calibrated = _spacing(dataset.get("PixelSpacing"))
    imager = _spacing(dataset.get("ImagerPixelSpacing"))
    if calibrated is not None and (
        dataset.get("PixelSpacingCalibrationType") or (imager is not None and imager != calibrated)
    ):
        return calibrated
    factor = _first_number(dataset.get("EstimatedRadiographicMagnificationFactor"))
    if factor is None:
        detector = _first_number(dataset.get("DistanceSourceToDetector"))
        patient = _first_number(dataset.get("DistanceSourceToPatient"))
        factor = detector / patient if detector and patient else None
    if imager is None or factor is None or not 1.0 <= factor < _LARGEST_MAGNIFICATION:
        return None
    return imager[0] / factor, imager[1] / factor


_LARGEST_MAGNIFICATION: Final = 3.0
"""A larger factor is a mistake in the header: no chest or limb stands that far from the detector."""


def _spacing(value: object) -> tuple[float, float] | None:
    """Return two positive numbers, or None."""
    try:
        pair = tuple(float(part) for part in value or ())  # type: ignore[attr-defined]  # whatever it holds
    except (TypeError, ValueError):
        return None
    if len(pair) != 2 or not all(math.isfinite(part) and part > 0 for part in pair):  # noqa: PLR2004
        return None
    return pair[0], pair[1]


def _first_number(value: object) -> float | None:
    """Return the first value of a decimal attribute, or None when it is no finite number."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever the file holds
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _instance_number(dataset: Dataset) -> int:
    try:
        return int(dataset.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        return 0
