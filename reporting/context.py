"""Pure. What every result object of one run has in common, and the result object itself.

``ReportContext.created_at`` is the only time that enters an object: encoding the
same run again, after a crash or on another machine, gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from inference.findings import Analysis, Heatmap, Mask, ModelIdentity
from inference.radiograph import Radiograph
from reporting.uids import DicomUID, derive_uid

#: Header data sets (pixel data may be absent) of each series, by Series Instance UID.
SourceSeries = Mapping[str, Sequence[Dataset]]


class ResultKind(StrEnum):
    """The kinds of object a run makes, in the order in which they are delivered.

    What a report refers to (segments, heat maps) comes before the report.
    """

    SEGMENTATION = "segmentation"
    HEATMAP = "heatmap"
    FINDINGS = "findings"
    MEASUREMENTS = "measurements"
    VOLUMES = "volumes"
    ESTIMATES = "estimates"
    KEY_IMAGES = "key_images"
    NARRATIVE = "narrative"
    PDF = "pdf"
    OVERVIEW = "overview"


class SegmentationForm(StrEnum):
    """How masks are stored: the classic 1-bit form or the Label Map Segmentation of 2023."""

    BINARY = "BINARY"
    LABELMAP = "LABELMAP"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultProfile:
    """Which form of object a destination wants.

    Attributes
    ----------
    segmentation : SegmentationForm
        ``BINARY`` is read by every SEG viewer; ``LABELMAP`` is smaller and newer.
    is_compressed : bool
        RLE Lossless pixel data; label maps only (RLE does not apply to 1-bit pixels).
    """

    segmentation: SegmentationForm = SegmentationForm.BINARY
    is_compressed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "segmentation", SegmentationForm(self.segmentation))
        if self.is_compressed and self.segmentation is not SegmentationForm.LABELMAP:
            raise ValueError("Only label maps can be RLE compressed: leave is_compressed off for BINARY.")

    @property
    def key(self) -> str:
        """Name of the profile as it enters UIDs."""
        return f"{self.segmentation.value}{'+RLE' if self.is_compressed else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredecessorObject:
    """An object that an earlier run of the same study made, of which this run's is a new version."""

    kind: ResultKind
    model_name: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """The run that results belong to.

    Attributes
    ----------
    run_id : str
        The run, free of patient data.
    created_at : datetime
        When the run was created; aware, UTC.
    software_version : str
        Version of Preread.
    inputs_digest : str
        Digest of the sorted SOP Instance UIDs of the study (`dicom_node.study`).
    predecessor : tuple of PredecessorObject
        Objects of the run before, empty for the first.
    site_timezone : tzinfo
        Zone of dates and times in headers that name none (`reporting.times`).
    """

    run_id: str
    created_at: datetime
    software_version: str
    inputs_digest: str
    predecessor: tuple[PredecessorObject, ...] = ()
    profile: ResultProfile = ResultProfile()
    site_timezone: tzinfo = UTC

    def __post_init__(self) -> None:
        if self.created_at.utcoffset() != timedelta(0):
            raise ValueError("created_at must be an aware UTC time.")

    def name_result(self, study_uid: str, models: Sequence[ModelIdentity], *what: str) -> DicomUID:
        """Return the UID of something that this run makes.

        It depends on the study, its images, the models with their weights, the version
        of Preread and the profile, and on nothing else: not on the run and not on the time.
        """
        identities = [part for m in models for part in (m.name, m.version, m.weights_sha256)]
        return derive_uid(
            study_uid, self.inputs_digest, self.software_version, self.profile.key, *what, *identities
        )

    def predecessors_of(self, kind: ResultKind, model_name: str) -> tuple[PredecessorObject, ...]:
        """Return the objects of the earlier run that an object of this kind and model replaces."""
        return tuple(p for p in self.predecessor if p.kind is kind and p.model_name == model_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one model said, with the mask and the pixels that it lies on.

    Attributes
    ----------
    mask : Mask or None
        None for a model that outlines nothing.
    heatmaps : tuple of Heatmap
        Where the network looked.
    background : ndarray or None
        (D, H, W) float32: the reference series on the frames of the mask, for pictures.
    radiographs : tuple of Radiograph
        The projection images that were read, for pictures; empty for CT and MR.
    """

    analysis: Analysis
    mask: Mask | None = None
    heatmaps: tuple[Heatmap, ...] = ()
    background: npt.NDArray[np.float32] | None = None
    radiographs: tuple[Radiograph, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """One DICOM object ready for the gate, and the model (or models, joined by +) that made it."""

    kind: ResultKind
    model_name: str
    dataset: Dataset

    @property
    def object_uid(self) -> str:
        """SOP Instance UID of the object."""
        return str(self.dataset.SOPInstanceUID)

    def as_predecessor(self) -> PredecessorObject:
        """Return what a later run needs to know of this object."""
        return PredecessorObject(
            kind=self.kind,
            model_name=self.model_name,
            sop_class_uid=str(self.dataset.SOPClassUID),
            sop_instance_uid=str(self.dataset.SOPInstanceUID),
            series_instance_uid=str(self.dataset.SeriesInstanceUID),
        )


def name_device(model: ModelIdentity) -> DicomUID:
    """Return the Device UID (0018,1002) of a model: another version or other weights, another device."""
    return derive_uid("device", model.name, model.version, model.weights_sha256)


def name_tracking(context: ReportContext, analysis: Analysis, finding_id: str) -> DicomUID:
    """Return the Tracking UID (0062,0021) of a finding or an estimate, shared by segment and groups."""
    return context.name_result(analysis.study_uid, (analysis.model,), "tracking", finding_id)
