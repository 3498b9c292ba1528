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
    AREA = "area"


class RiskClass(StrEnum):
    """What conformal triage says of a study; it sets the priority on the worklist."""

    LOW = "low_risk"
    HIGH = "high_risk"
    UNCERTAIN = "uncertain"


class Caveat(StrEnum):
    """Why a model's answer must be doubted, or why it gave none."""

    WRONG_BODY_PART = "wrong_body_part"
    NOT_A_PATIENT = "not_a_patient"
    CORRUPTED = "corrupted"
    WRONG_WINDOW = "wrong_window"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    LOW_CONFIDENCE = "low_confidence"


class Scale(StrEnum):
    """What an estimate about the whole study says; ``reporting/codes.py`` holds its concept code."""

    TUMOUR_CLASS = "tumour_class"
    TUMOUR_STAGE = "tumour_stage"
    SURVIVAL_RISK = "survival_risk"


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
class Box:
    """A rectangle in one image, in pixels, 0,0 the outer corner; right and bottom are its far edges."""

    frame: FrameReference
    left: float
    top: float
    right: float
    bottom: float


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
        0 to 1: mean foreground probability of a segmented lesion, calibrated probability that a box or a
        label is right (for an absent finding, still the probability that it is present).
    uncertainty : float or None
        Standard deviation of that probability over Monte-Carlo dropout passes, 0 to 0.5.
    box : Box or None
        Where a detected finding lies.
    """

    finding_id: str
    concept: str
    site: str
    presence: Presence
    laterality: Laterality | None = None
    segment_number: int | None = None
    confidence: float | None = None
    uncertainty: float | None = None
    box: Box | None = None
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
class Triage:
    """How urgent a study looks, with the predictive values that calibration patients showed.

    Attributes
    ----------
    score : float
        0 to 1, the calibrated probability that the study is abnormal.
    predictive_value : float or None
        Lower confidence bound of the predictive value of this class on the calibration patients: negative
        predictive value for low risk, positive for high risk; None when uncertain.
    calibration_patients : int
        How many patients that rests on.
    """

    risk: RiskClass
    score: float
    predictive_value: float | None = None
    calibration_patients: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something about the input or the answer that a reader must know.

    Attributes
    ----------
    is_blocking : bool
        Whether the model therefore gave no answer: the analysis has no findings then.
    sentence : str
        One sentence for the report, free of patient data.
    """

    caveat: Caveat
    sentence: str
    is_blocking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a model says about the whole study rather than a place in it.

    Attributes
    ----------
    value : str
        Key of the most probable category (``healthy``, ``benign``, ``malignant``; ``grade_2``, ``grade_3``),
        or, for a number, its quantile group (``lower``, ``middle``, ``higher``).
    probabilities : tuple of pairs
        Category and probability; they add up to 1. Empty for a number.
    number : float or None
        The number itself, for example the relative hazard against the median training patient.
    """

    scale: Scale
    value: str
    probabilities: tuple[tuple[str, float], ...] = ()
    number: float | None = None


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
    estimates : tuple of Estimate
        Statements about the whole study.
    triage : Triage or None
        How urgent the study looks; None for a model without calibrated triage.
    doubts : tuple of Doubt
        Why the answer must be doubted; with a blocking one there are no findings.
    """

    model: ModelIdentity
    study_uid: str
    inputs: tuple[SeriesInput, ...]
    findings: tuple[Finding, ...]
    substitutions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    triage: Triage | None = None
    doubts: tuple[Doubt, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Whether the model gave no answer because of its input."""
        return any(doubt.is_blocking for doubt in self.doubts)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """Where a network looked for one answer, on the frames of one series.

    Attributes
    ----------
    values : ndarray
        (D, H, W) float32, 0 to 1: 1 is where the answer rests most. D is 1 for a radiograph.
    series_uid : str
        The series on whose frames the values lie.
    frames : tuple of FrameReference
        D frames in the order of axis 0.
    answer : str
        What it explains: a finding id (``F1``), or the scale of an estimate (``tumour_class``).
    method : str
        ``grad_cam``.
    """

    values: npt.NDArray[np.float32]
    series_uid: str
    frames: tuple[FrameReference, ...]
    answer: str
    method: str = "grad_cam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one model returns for one study: what it says, what it outlined, where it looked.

    Attributes
    ----------
    crude_report : tuple of str
        Sentences that a network worded from the pixels: verified by nothing, and never a finding.
    """

    analysis: Analysis
    mask: Mask | None = None
    heatmaps: tuple[Heatmap, ...] = ()
    crude_report: tuple[str, ...] = ()
