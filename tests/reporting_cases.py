"""Small synthetic MR studies and analyses on them; nothing here is anybody's data."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from inference.findings import (
    Analysis,
    Diameter,
    Finding,
    FrameReference,
    ImagePoint,
    Laterality,
    Mask,
    Measurement,
    ModelIdentity,
    Presence,
    Quantity,
    SeriesInput,
)
from reporting.context import Reading, ReportContext, ResultKind, ResultObject
from reporting.draft import draft_report
from reporting.encode import encode_results, write_part10

STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
SERIES_UID = "1.2.826.0.1.3680043.8.498.1.1"
FRAME_OF_REFERENCE_UID = "1.2.826.0.1.3680043.8.498.1.9"
SPACING_MM = (4.0, 0.9, 0.9)

MODEL = ModelIdentity(
    name="brain-tumour-lgg",
    version="1.0.0",
    weights_sha256=hashlib.sha256(b"weights").hexdigest(),
    task="segmentation",
    title="FLAIR abnormality of lower-grade glioma",
)
CONTEXT = ReportContext(
    run_id="0123456789abcdef0123-0123456789ab-1",
    created_at=datetime(2026, 3, 4, 5, 6, 7, 890000, tzinfo=UTC),
    software_version="0.1.0",
    inputs_digest=hashlib.sha256(b"inputs").hexdigest(),
)


def patient_header() -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName = "Müller^Änne"
    header.PatientID = "SYN0001"
    header.PatientBirthDate = "19600101"
    header.PatientSex = "F"
    header.PatientAge = "066Y"
    header.StudyInstanceUID = STUDY_UID
    header.StudyDate = "20260102"
    header.StudyTime = "101500.250"
    header.StudyID = "S1"
    header.AccessionNumber = "ACC0001"
    header.ReferringPhysicianName = "Haus^Gregor"
    header.StudyDescription = "MR HEAD"
    header.Manufacturer = "ScannerWorks"
    header.Modality = "MR"
    return header


def mr_series(depth: int = 6, rows: int = 32, columns: int = 32) -> list[Dataset]:
    """Headers of an axial MR series, foot to head, without pixel data."""
    series = []
    for index in range(depth):
        header = patient_header()
        header.SOPClassUID = MRImageStorage
        header.SOPInstanceUID = f"{SERIES_UID}.{index + 1}"
        header.SeriesInstanceUID = SERIES_UID
        header.SeriesNumber = 3
        header.InstanceNumber = index + 1
        header.SeriesDescription = "AX FLAIR"
        header.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
        header.FrameOfReferenceUID = FRAME_OF_REFERENCE_UID
        header.PositionReferenceIndicator = ""
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-15.0, -20.0, index * SPACING_MM[0] - 10]
        header.PixelSpacing = list(SPACING_MM[1:])
        header.SliceThickness = SPACING_MM[0]
        header.Rows, header.Columns = rows, columns
        series.append(header)
    return series


def enhanced_mr(depth: int = 6, rows: int = 32, columns: int = 32) -> Dataset:
    """One enhanced MR image; its frames are stored head to foot."""
    header = patient_header()
    header.SOPClassUID = EnhancedMRImageStorage
    header.SOPInstanceUID = f"{SERIES_UID}.77"
    header.SeriesInstanceUID = SERIES_UID
    header.InstanceNumber = 1
    header.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    header.FrameOfReferenceUID = FRAME_OF_REFERENCE_UID
    header.PositionReferenceIndicator = ""
    header.Rows, header.Columns, header.NumberOfFrames = rows, columns, depth
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = list(SPACING_MM[1:])
    measures.SliceThickness = SPACING_MM[0]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in reversed(range(depth)):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-15.0, -20.0, index * SPACING_MM[0] - 10]
        group.PlanePositionSequence = [position]
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    return header


def frames_of(series: list[Dataset]) -> tuple[FrameReference, ...]:
    return tuple(FrameReference(sop_instance_uid=str(header.SOPInstanceUID)) for header in series)


def ellipsoid(shape: tuple[int, int, int], centre, radii) -> npt.NDArray[np.bool_]:
    grid = np.indices(shape)
    return sum(((grid[a] - centre[a]) / radii[a]) ** 2 for a in range(3)) <= 1


def two_lesions(shape: tuple[int, int, int] = (6, 32, 32)) -> npt.NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[ellipsoid(shape, (2, 12, 10), (1.6, 6, 4.5))] = 1
    labels[ellipsoid(shape, (4, 22, 24), (1.2, 3, 3))] = 2
    return labels


def diameter(frame: FrameReference, start: tuple[float, float], end: tuple[float, float]) -> Diameter:
    length = np.hypot(end[0] - start[0], end[1] - start[1]) * SPACING_MM[1]
    return Diameter(
        length_mm=float(length),
        frame=frame,
        start=ImagePoint(column=start[0], row=start[1]),
        end=ImagePoint(column=end[0], row=end[1]),
    )


def finding(number: int, frame: FrameReference, volume_ml: float, laterality: Laterality) -> Finding:
    column, row = (10.0, 12.0) if number == 1 else (24.0, 22.0)
    long_axis = diameter(frame, (column, row - 6), (column, row + 6))
    short_axis = diameter(frame, (column - 4, row), (column + 4, row))
    return Finding(
        finding_id=f"F{number}",
        concept="neoplasm",
        site="brain",
        presence=Presence.PRESENT,
        laterality=laterality,
        segment_number=number,
        confidence=0.93 if number == 1 else 0.74,
        measurements=(
            Measurement(quantity=Quantity.VOLUME, value=volume_ml, unit="mL"),
            Measurement(quantity=Quantity.LONG_AXIS, value=long_axis.length_mm, unit="mm"),
            Measurement(quantity=Quantity.PERPENDICULAR_AXIS, value=short_axis.length_mm, unit="mm"),
        ),
        long_axis=long_axis,
        perpendicular_axis=short_axis,
        key_frame=frame,
    )


def analysis_of(frames: tuple[FrameReference, ...]) -> Analysis:
    return Analysis(
        model=MODEL,
        study_uid=STUDY_UID,
        inputs=(SeriesInput(role="flair", series_uid=SERIES_UID, frames=frames),),
        findings=(
            finding(1, frames[2], 1.2345, Laterality.RIGHT),
            finding(2, frames[4], 0.2, Laterality.LEFT),
        ),
        substitutions=(("t1_post", "flair"),),
        notes=("The slices are thicker than those of the training data.",),
    )


@dataclass(frozen=True)
class Case:
    """A study read by one model."""

    series: list[Dataset]
    reading: Reading
    context: ReportContext = CONTEXT

    @property
    def analysis(self) -> Analysis:
        return self.reading.analysis

    @property
    def mask(self) -> Mask:
        assert self.reading.mask is not None
        return self.reading.mask

    @property
    def sources(self) -> dict[str, list[Dataset]]:
        return {SERIES_UID: self.series}

    def without_findings(self) -> Case:
        mask = replace(self.mask, labels=np.zeros_like(self.mask.labels))
        analysis = replace(self.analysis, findings=())
        return replace(self, reading=replace(self.reading, analysis=analysis, mask=mask))


def make_case(
    series: list[Dataset] | None = None,
    labels: npt.NDArray[np.uint8] | None = None,
    *,
    with_points: bool = True,
) -> Case:
    series = series or mr_series()
    labels = two_lesions() if labels is None else labels
    frames = frames_of(series)
    analysis = analysis_of(frames if with_points else frames[:1] * 6)
    if not with_points:
        bare = {"long_axis": None, "perpendicular_axis": None, "key_frame": None}
        findings = tuple(replace(f, **bare) for f in analysis.findings)
        analysis = replace(analysis, findings=findings)
    background = np.random.default_rng(5).normal(300, 40, labels.shape).astype(np.float32)
    background[labels > 0] += 200
    mask = Mask(labels=labels, series_uid=SERIES_UID, frames=frames)
    return Case(series, Reading(analysis=analysis, mask=mask, background=background))


def make_enhanced_case() -> Case:
    image = enhanced_mr()
    frames = tuple(
        FrameReference(sop_instance_uid=str(image.SOPInstanceUID), frame_number=6 - index)
        for index in range(6)
    )
    labels = two_lesions()
    background = np.random.default_rng(5).normal(300, 40, labels.shape).astype(np.float32)
    mask = Mask(labels=labels, series_uid=SERIES_UID, frames=frames)
    return Case([image], Reading(analysis=analysis_of(frames), mask=mask, background=background))


def results_of(case: Case) -> tuple[ResultObject, ...]:
    """The results of a case as they will be sent: written and read back."""
    text = draft_report([case.analysis])
    objects = encode_results([case.reading], case.sources, text, case.context)
    return tuple(replace(o, dataset=pydicom.dcmread(io.BytesIO(write_part10(o.dataset)))) for o in objects)


@cache
def _pristine_files() -> tuple[tuple[ResultKind, str, bytes], ...]:
    return tuple((o.kind, o.model_name, write_part10(o.dataset)) for o in results_of(make_case()))


def pristine_results() -> tuple[ResultObject, ...]:
    """The results of ``make_case()``, encoded once and read anew each time."""
    return tuple(
        ResultObject(kind=kind, model_name=name, dataset=pydicom.dcmread(io.BytesIO(file)))
        for kind, name, file in _pristine_files()
    )


def by_kind(objects: tuple[ResultObject, ...]) -> dict[ResultKind, Dataset]:
    return {o.kind: o.dataset for o in objects}


def items_of(root: Dataset):
    """All content items below a root."""
    for item in root.get("ContentSequence", []):
        yield item
        yield from items_of(item)


def concept_of(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in item else ""
