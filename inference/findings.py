"""Pure. What a model found, as values: findings, measurements, masks, analyses.

This is the language between the models and the reports. It has no codes (those
are ``reporting/codes.py``) and no DICOM objects; images are named by SOP
Instance UID and 1-based frame number, points by column and row in pixels as
PS3.3 C.10.5.1.2 counts them (0,0 is the outer corner of the first pixel).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Presence(StrEnum):
    """Whether a finding is there (DICOM CID 240)."""

    PRESENT = "present"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"


class Laterality(StrEnum):
    """Side of the patient, not of the picture (DICOM CID 244)."""

    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"


class Quantity(StrEnum):
    """What a measurement measures; ``reporting/codes.py`` holds its concept code."""

    VOLUME = "volume"
    LONG_AXIS = "long_axis"
    PERPENDICULAR_AXIS = "perpendicular_axis"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which algorithm made a result, precisely enough to find its weights again."""

    name: str
    version: str
    weights_sha256: str
    task: str
    title: str
    manufacturer: str = "Preread"
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReference:
    """One image: a SOP Instance, and the 1-based frame if it has several."""

    sop_instance_uid: str
    frame_number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePoint:
    """A point in an image: column to the right, row downwards, in pixels, 0,0 the outer corner."""

    column: float
    row: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diameter:
    """A straight line in one image and its length in mm."""

    length_mm: float
    frame: FrameReference
    start: ImagePoint
    end: ImagePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A number with its UCUM unit."""

    quantity: Quantity
    value: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a model found, or looked for and did not find.

    Attributes
    ----------
    finding_id : str
        ``F1``, ``F2``, ... unique within the analysis, largest first.
    concept : str
        Key of the finding in ``reporting/codes.py``, for example ``neoplasm``.
    site : str
        Key of the anatomic site, for example ``brain``.
    segment_number : int or None
        Value of this finding in the mask, 1-based.
    confidence : float or None
        0 to 1; mean foreground probability for a segmented lesion.
    """

    finding_id: str
    concept: str
    site: str
    presence: Presence
    laterality: Laterality | None = None
    segment_number: int | None = None
    confidence: float | None = None
    measurements: tuple[Measurement, ...] = ()
    long_axis: Diameter | None = None
    perpendicular_axis: Diameter | None = None
    key_frame: FrameReference | None = None

    def measured(self, quantity: Quantity) -> Measurement | None:
        """Return the measurement of ``quantity``, or None if it was not measured."""
        return next((m for m in self.measurements if m.quantity == quantity), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesInput:
    """A series that a model read, in the role its input contract names."""

    role: str
    series_uid: str
    frames: tuple[FrameReference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything one model said about one study.

    Attributes
    ----------
    inputs : tuple of SeriesInput
        The series read. The first is the reference: masks and points lie on its frames.
    substitutions : mapping as tuple of pairs
        (role that was missing, role whose series stood in for it).
    notes : tuple of str
        Sentences a reader must know, for example that FLAIR stood in for T1.
    """

    model: ModelIdentity
    study_uid: str
    inputs: tuple[SeriesInput, ...]
    findings: tuple[Finding, ...]
    substitutions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A label map on the frames of one series.

    Attributes
    ----------
    labels : ndarray
        (D, H, W) uint8; 0 is background, n is the finding with ``segment_number`` n.
    series_uid : str
        The series on whose frames the labels lie.
    frames : tuple of FrameReference
        D frames, in the order of axis 0 (foot to head along the slice normal).
    """

    labels: npt.NDArray[np.uint8]
    series_uid: str
    frames: tuple[FrameReference, ...]
