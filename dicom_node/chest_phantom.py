"""Pure. A synthetic chest radiograph for demonstration and tests: lungs, heart, ribs, and what is asked for.

Everything follows from a seed, down to the UIDs. The film is drawn as thicknesses along the beam, not
measured: it shows what a study looks like to the node, and proves nothing about how a model reads patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation

from dicom_node.synthetic_series import (
    DEFAULT_ACQUIRED_AT,
    SYNTHETIC_MANUFACTURER,
    SyntheticStudy,
    add_study,
    file_meta_of,
    synthetic_uid,
)

FIELD_OF_VIEW_MM: Final = 400.0
"""Side of the square film at the detector, mm."""

MAGNIFICATION: Final = 1.08
"""Estimated Radiographic Magnification Factor: the patient stands a little before the detector."""

View = Literal["PA", "AP", "LL"]
Side = Literal["left", "right"]

_MAX_STORED: Final = 4095
_NOISE: Final = 0.006
_EDGE_MM: Final = 3.0
"""Over which an outline fades."""

_VIEW_CODES: Final = MappingProxyType(
    {
        "PA": ("272479007", "postero-anterior"),
        "AP": ("399348003", "antero-posterior"),
        "LL": ("399173006", "left lateral"),
    }
)
"""CID 4010, SNOMED CT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodule:
    """A round opacity in a lung.

    Attributes
    ----------
    x_mm, y_mm : float
        Its centre from the middle of the film: to the patient's left, and downwards.
    diameter_mm : float
        Its diameter.
    density : float
        How much brighter than the lung, grey values 0 to 1.
    """

    x_mm: float = -78.0
    y_mm: float = -45.0
    diameter_mm: float = 24.0
    density: float = 0.22


DEFAULT_NODULE: Final = Nodule()
"""A nodule of the right upper lung."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChestStudy:
    """A synthetic study and the truth about it.

    Attributes
    ----------
    datasets : tuple of Dataset
        One film a view, each with file meta information, in one series.
    nodule_box, effusion_box : tuple of float or None
        Left, top, right, bottom on the first film, pixels from its outer corner.
    study_uid : str
        Study Instance UID.
    """

    datasets: tuple[Dataset, ...]
    nodule_box: tuple[float, float, float, float] | None
    effusion_box: tuple[float, float, float, float] | None
    study_uid: str


def chest_study(
    seed: int = 0,
    *,
    nodule: Nodule | None = DEFAULT_NODULE,
    effusion: Side | None = None,
    views: tuple[View, ...] = ("PA",),
    modality: Literal["DX", "CR"] = "DX",
    matrix: int = 512,
    is_inverted: bool = False,
    patient_name: str = "DEMO^CHEST PHANTOM",
    patient_id: str = "PHANTOM-3",
    acquired_at: datetime = DEFAULT_ACQUIRED_AT,
) -> ChestStudy:
    """Draw a chest radiograph study.

    Parameters
    ----------
    seed : int
        Anatomy, noise and UIDs follow from it.
    nodule : Nodule or None
        A round opacity; None draws none.
    effusion : str or None
        Side of the patient on which fluid fills the costophrenic angle.
    views : tuple of str
        ``PA``, ``AP`` or ``LL``, one film each.
    modality : str
        ``DX`` or ``CR``: SOP Class and modality.
    matrix : int
        Rows and columns; the film stays 400 mm.
    is_inverted : bool
        Whether the pixels are stored as MONOCHROME1.
    patient_name, patient_id : str
        Made-up identity.
    acquired_at : datetime
        Aware time of the study.

    Returns
    -------
    ChestStudy
        Digital X-Ray Image Storage - For Presentation, or Computed Radiography Image Storage.
    """
    study = SyntheticStudy(
        seed=f"chest/{seed}/{nodule}/{effusion}/{views}/{modality}/{matrix}/{is_inverted}/{patient_id}",
        patient_name=patient_name,
        patient_id=patient_id,
        description="XR CHEST",
        acquired_at=acquired_at,
    )
    datasets = []
    effusion_box = None
    for index, view in enumerate(views):
        rng = np.random.default_rng((seed, 0xC4E57, index))
        grey, box = _draw(rng, view, nodule, effusion, matrix)
        if index == 0:
            effusion_box = box
        datasets.append(_film(study, grey, view, modality, index, is_inverted=is_inverted))
    return ChestStudy(
        datasets=tuple(datasets),
        nodule_box=None if nodule is None or views[0] == "LL" else _nodule_box(nodule, matrix),
        effusion_box=effusion_box,
        study_uid=study.study_uid,
    )


def _nodule_box(nodule: Nodule, matrix: int) -> tuple[float, float, float, float]:
    pixel_mm = FIELD_OF_VIEW_MM / matrix
    radius = nodule.diameter_mm / 2
    edges = (nodule.x_mm - radius, nodule.y_mm - radius, nodule.x_mm + radius, nodule.y_mm + radius)
    left, top, right, bottom = ((edge + FIELD_OF_VIEW_MM / 2) / pixel_mm for edge in edges)
    return left, top, right, bottom


Grid = npt.NDArray[np.float64]


def _soft(distance_mm: Grid, edge_mm: float = _EDGE_MM) -> Grid:
    """Return 1 inside (negative distance), 0 outside, and a smooth edge."""
    return 1.0 / (1.0 + np.exp(np.clip(distance_mm / edge_mm * 2.0, -40.0, 40.0)))


def _ellipse(
    x: Grid, y: Grid, centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0
) -> Grid:
    """Return about the distance in mm from an ellipse tilted by radians, negative inside."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    u = (x - centre[0]) * cos + (y - centre[1]) * sin
    v = -(x - centre[0]) * sin + (y - centre[1]) * cos
    return np.asarray((np.hypot(u / axes[0], v / axes[1]) - 1.0) * min(axes))


def _draw(
    rng: np.random.Generator, view: View, nodule: Nodule | None, effusion: Side | None, matrix: int
) -> tuple[Grid, tuple[float, float, float, float] | None]:
    """Return (matrix, matrix) grey values 0 to 1, the patient's right on the left, and the fluid's box."""
    axis = (np.arange(matrix) + 0.5) / matrix * FIELD_OF_VIEW_MM - FIELD_OF_VIEW_MM / 2
    x, y = np.meshgrid(axis, axis)
    if view == "LL":
        grey, fluid = _lateral(rng, x, y), None
    else:
        grey, fluid = _frontal(rng, x, y, effusion)
        if nodule is not None:
            distance = np.hypot(x - nodule.x_mm, y - nodule.y_mm) - nodule.diameter_mm / 2
            grey = grey + nodule.density * _soft(distance, 1.5)
    noise = rng.normal(0, _NOISE, grey.shape)
    box = None
    if fluid is not None:
        rows, columns = np.nonzero(fluid)
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    return np.clip(grey + noise, 0.0, 1.0), box


def _frontal(
    rng: np.random.Generator, x: Grid, y: Grid, effusion: Side | None
) -> tuple[Grid, npt.NDArray[np.bool_] | None]:
    """Draw a frontal chest; the patient's left has positive x."""
    size = float(rng.uniform(0.95, 1.05))
    shoulders = _soft(np.abs(x) - (60.0 + 118.0 * _soft(-(y + 172.0 * size), 14.0)), 8.0)
    grey = 0.62 * shoulders
    lungs = np.zeros_like(x)
    domes = {}
    for side, sign in (("right", -1.0), ("left", 1.0)):
        outline = _ellipse(x, y, (sign * 76.0 * size, -12.0), (60.0 * size, 132.0 * size), sign * -0.08)
        dome = (78.0 if side == "right" else 88.0) * size + 0.0055 * (x - sign * 72.0) ** 2
        domes[side] = dome
        lungs = lungs + _soft(outline) * _soft(y - dome, 4.0)
    grey = grey - 0.44 * lungs * shoulders
    grey = grey + _vessels(rng, x, y) * lungs
    grey = grey + 0.07 * _ribs(x, y, size) * shoulders
    upper = np.minimum(y + 60.0, 0.0)
    mediastinum = _soft(np.abs(x + 2.0) - (24.0 + 0.0009 * upper**2), 5.0) * _soft(-(y + 190.0))
    heart = _soft(_ellipse(x, y, (26.0 * size, 52.0 * size), (66.0 * size, 50.0 * size), 0.5), 4.0)
    knob = _soft(_ellipse(x, y, (26.0, -58.0), (17.0, 20.0)), 3.0)
    shadow = np.maximum(np.maximum(0.78 * mediastinum, 0.76 * heart), 0.7 * knob)
    grey = np.maximum(grey, shadow * shoulders)
    spine = _soft(np.abs(x) - 15.0, 3.0) * (0.06 + 0.02 * np.cos(y / 24.0 * 2 * np.pi))
    trachea = _soft(np.abs(x + 1.0) - 8.0, 2.0) * _soft(y + 70.0, 4.0) * _soft(-(y + 170.0), 6.0)
    grey = grey + spine * shoulders - 0.1 * trachea
    grey = grey + 0.12 * _clavicles(x, y)
    fluid = None
    if effusion is not None:
        sign = -1.0 if effusion == "right" else 1.0
        meniscus = 45.0 + 0.35 * np.abs(x - sign * 132.0)
        thorax = _ellipse(x, y, (sign * 76.0 * size, -12.0), (62.0 * size, 134.0 * size), sign * -0.08)
        share = _soft(meniscus - y, 4.0) * _soft(thorax) * _soft(y - domes[effusion] - 30.0, 4.0)
        grey = np.maximum(grey, 0.7 * share)
        fluid = (share > 0.5) & (y < domes[effusion])  # noqa: PLR2004 - half of the pixel
    return grey, fluid


def _lateral(rng: np.random.Generator, x: Grid, y: Grid) -> Grid:
    """Draw a lateral chest, the front on the left."""
    trunk = _soft(_ellipse(x, y, (0.0, 20.0), (135.0, 260.0)), 8.0)
    lung = _soft(_ellipse(x, y, (-5.0, -30.0), (95.0, 125.0), 0.1)) * _soft(y - 85.0 + 0.002 * x**2, 5.0)
    heart = _soft(_ellipse(x, y, (-45.0, 45.0), (50.0, 48.0), -0.5), 4.0)
    spine = _soft(np.abs(x - 85.0 - 0.0006 * y**2) - 16.0, 3.0)
    grey = 0.68 * trunk - 0.42 * lung + 0.25 * heart * lung + 0.18 * spine * trunk
    return grey + 0.5 * _vessels(rng, x, y) * lung


def _ribs(x: Grid, y: Grid, size: float) -> Grid:
    """Return how much rib lies in the beam: arcs that fall from the spine and rise in front."""
    total = np.zeros_like(x)
    reach = np.abs(x) / (132.0 * size)
    inside = _soft((reach - 1.0) * 60.0, 3.0)
    for number in range(10):
        back = -128.0 + 23.0 * number + 46.0 * reach**2 - 12.0 * reach
        total = np.maximum(total, _soft(np.abs(y - back) - 4.5, 1.6))
        front = -70.0 + 25.0 * number - 34.0 * reach
        total = np.maximum(total, 0.6 * _soft(np.abs(y - front) - 5.0, 2.0) * (reach > 0.35))  # noqa: PLR2004
    return np.asarray(total * inside * _soft(y - 150.0, 10.0))


def _clavicles(x: Grid, y: Grid) -> Grid:
    """Return both collar bones."""
    line = -132.0 - 0.22 * (np.abs(x) - 20.0) + 0.0012 * (np.abs(x) - 90.0) ** 2
    return np.asarray(_soft(np.abs(y - line) - 5.0, 2.0) * _soft(np.abs(x) - 150.0, 5.0) * (np.abs(x) > 14.0))  # noqa: PLR2004


def _vessels(rng: np.random.Generator, x: Grid, y: Grid) -> Grid:
    """Return the texture of the lungs: denser towards the hila."""
    texture = np.zeros_like(x)
    for _ in range(24):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(9.0, 30.0)
        phase = rng.uniform(0, 2 * np.pi)
        texture += np.cos((x * np.cos(angle) + y * np.sin(angle)) / length * 2 * np.pi + phase) / 24
    hilum = np.exp(-((np.abs(np.abs(x) - 34.0) / 26.0) ** 2) - ((y + 18.0) / 34.0) ** 2)
    return np.asarray(0.09 * texture + 0.14 * hilum)


def _film(
    study: SyntheticStudy,
    grey: Grid,
    view: View,
    modality: str,
    index: int,
    *,
    is_inverted: bool,
) -> Dataset:
    """Make one image."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = (
        DigitalXRayImageStorageForPresentation if modality == "DX" else ComputedRadiographyImageStorage
    )
    dataset.SOPInstanceUID = synthetic_uid(study.seed, "image", index)
    dataset.InstanceNumber = index + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""] if modality == "DX" else ["ORIGINAL", "PRIMARY"]
    add_study(dataset, study)
    _add_series(dataset, study, modality)
    _add_projection(dataset, view, modality, grey.shape[0], study)
    _add_grey(dataset, grey, modality, is_inverted=is_inverted)
    dataset.file_meta = file_meta_of(dataset)
    return dataset


def _add_series(dataset: Dataset, study: SyntheticStudy, modality: str) -> None:
    """Add the series and equipment modules (PS3.3 C.7.3.1, C.8.11.1, C.7.5.1)."""
    dataset.Modality = modality
    dataset.SeriesInstanceUID = synthetic_uid(study.seed, "series")
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "CHEST"
    dataset.BodyPartExamined = "CHEST"
    dataset.Manufacturer = SYNTHETIC_MANUFACTURER
    dataset.ManufacturerModelName = "Analytic phantom"
    dataset.SoftwareVersions = "1"
    if modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"


def _add_projection(dataset: Dataset, view: View, modality: str, matrix: int, study: SyntheticStudy) -> None:
    """Add the anatomy, positioning, detector and acquisition modules (PS3.3 C.8.11.2 to C.8.11.5)."""
    dataset.AcquisitionDate = study.acquired_at.strftime("%Y%m%d")
    dataset.AcquisitionTime = study.acquired_at.strftime("%H%M%S")
    dataset.ViewPosition = view
    dataset.PatientOrientation = ["P", "F"] if view == "LL" else ["L", "F"]
    dataset.ImagerPixelSpacing = [round(FIELD_OF_VIEW_MM / matrix * MAGNIFICATION, 6)] * 2
    dataset.EstimatedRadiographicMagnificationFactor = MAGNIFICATION
    dataset.KVP = 120
    if modality != "DX":
        return
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = [_code("51185008", "Chest")]
    value, meaning = _VIEW_CODES[view]
    dataset.ViewCodeSequence = [_code(value, meaning)]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.PatientOrientationCodeSequence = [_code("10904000", "erect")]
    dataset.PositionerType = ""
    dataset.DetectorType = "DIRECT"
    dataset.DetectorID = "PHANTOM"
    dataset.AcquisitionContextSequence = []


def _add_grey(dataset: Dataset, grey: Grid, modality: str, *, is_inverted: bool) -> None:
    """Add the pixel, presentation and window modules (PS3.3 C.7.6.3, C.8.11.3, C.11.2)."""
    stored = np.rint((1.0 - grey if is_inverted else grey) * _MAX_STORED).astype("<u2")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if is_inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    low, high = (float(value) for value in np.percentile(stored, (0.5, 99.5)))
    dataset.WindowCenter = round((low + high) / 2, 1)
    dataset.WindowWidth = round(max(high - low, 1.0), 1)
    if modality == "DX":
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = -1 if not is_inverted else 1
        dataset.RescaleIntercept = 0
        dataset.RescaleSlope = 1
        dataset.RescaleType = "US"
        dataset.PresentationLUTShape = "INVERSE" if is_inverted else "IDENTITY"
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()
    dataset["PixelData"].VR = "OW"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item
