"""Small synthetic studies (MR, CT, chest radiographs) and analyses; nothing here is anybody's data."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    MRImageStorage,
)

from inference.findings import (
    Analysis,
    Box,
    Caveat,
    Diameter,
    Doubt,
    Estimate,
    Finding,
    FrameReference,
    Heatmap,
    ImagePoint,
    Laterality,
    Mask,
    Measurement,
    ModelIdentity,
    Presence,
    Quantity,
    RiskClass,
    Scale,
    SeriesInput,
    Triage,
)
from inference.radiograph import Radiograph
from reporting.context import Reading, ReportContext, ResultKind, ResultObject
from reporting.draft import draft_report
from reporting.encode import encode_results, write_part10
from reporting.gate import Violation, check_objects
from reporting.projection import read_views
from reporting.text import ReportText

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
    further_series: dict[str, list[Dataset]] = field(default_factory=dict)

    @property
    def analysis(self) -> Analysis:
        return self.reading.analysis

    @property
    def mask(self) -> Mask:
        assert self.reading.mask is not None
        return self.reading.mask

    @property
    def sources(self) -> dict[str, list[Dataset]]:
        return {str(self.series[0].SeriesInstanceUID): self.series, **self.further_series}

    def saying(self, **changes) -> Case:
        """The same case with another analysis."""
        return replace(
            self, reading=replace(self.reading, analysis=replace(self.reading.analysis, **changes))
        )

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


def draft_of(case: Case) -> ReportText:
    """The drafted report of a case."""
    explained = {case.analysis.model.name} if case.reading.heatmaps else set()
    return draft_report([case.analysis], read_views(case.sources), explained)


def violations_of(case: Case, objects: tuple[ResultObject, ...] | None = None) -> tuple[Violation, ...]:
    """What the gate says of the results of a case."""
    name, reading = case.analysis.model.name, case.reading
    return check_objects(
        results_of(case) if objects is None else objects,
        case.sources,
        {} if reading.mask is None else {name: reading.mask},
        {name: reading.heatmaps},
    )


def results_of(case: Case) -> tuple[ResultObject, ...]:
    """The results of a case as they will be sent: written and read back."""
    text = draft_of(case)
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


# -- chest radiographs --------------------------------------------------------------------------

DX_SERIES_UID = f"{STUDY_UID}.2"
DETECTOR = replace(MODEL, name="chest-detector", task="detection", title="Boxes on chest radiographs")
LABELLER = replace(MODEL, name="chest-labels", task="classification", title="Labels of chest radiographs")
FUSION = replace(MODEL, name="brain-fusion", task="fusion", title="CT and MR of a brain tumour")
HEAD_CT = replace(MODEL, name="head-ct", task="classification", title="Head CT, lesion or none")


def radiograph_header(number: int = 1, view: str = "PA", rows: int = 96, columns: int = 80) -> Dataset:
    """Header of one digital radiograph of the chest."""
    header = patient_header()
    header.StudyDescription = "XR CHEST"
    header.Modality = "DX"
    header.SOPClassUID = DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID = f"{DX_SERIES_UID}.{number}"
    header.SeriesInstanceUID = DX_SERIES_UID
    header.SeriesNumber = 1
    header.InstanceNumber = number
    header.SeriesDescription = f"CHEST {view}"
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.BodyPartExamined = "CHEST"
    header.ViewPosition = view
    header.PatientOrientation = ["L", "F"] if view in {"PA", "AP"} else ["A", "F"]
    header.ImagerPixelSpacing = [0.2, 0.2]
    header.Rows, header.Columns = rows, columns
    return header


def chest_pixels(rows: int = 96, columns: int = 80) -> npt.NDArray[np.float32]:
    """(H, W) float32: two dark lungs in a grey chest."""
    down, across = np.mgrid[0:rows, 0:columns] / np.array([rows, columns])[:, None, None]
    lungs = [((across - x) / 0.17) ** 2 + ((down - 0.42) / 0.32) ** 2 < 1 for x in (0.28, 0.72)]
    noise = np.random.default_rng(3).normal(0, 0.02, (rows, columns))
    return (0.65 - 0.45 * (lungs[0] | lungs[1]) + noise).clip(0, 1).astype(np.float32)


def chest_box(left: float, top: float, right: float, bottom: float, number: int = 1) -> Box:
    frame = FrameReference(sop_instance_uid=f"{DX_SERIES_UID}.{number}")
    return Box(frame=frame, left=left, top=top, right=right, bottom=bottom)


def mark(number: int, concept: str, site: str, box: Box, confidence: float, **further) -> Finding:
    """A present finding with a box."""
    return Finding(
        finding_id=f"F{number}",
        concept=concept,
        site=site,
        presence=Presence.PRESENT,
        confidence=confidence,
        box=box,
        **further,
    )


def label(number: int, concept: str, site: str, presence: Presence, confidence: float, **further) -> Finding:
    """A finding without a place."""
    return Finding(
        finding_id=f"F{number}",
        concept=concept,
        site=site,
        presence=presence,
        confidence=confidence,
        **further,
    )


def chest_case(model: ModelIdentity, findings: tuple[Finding, ...], **further) -> Case:
    """A frontal and a lateral radiograph, read by one model."""
    series = [radiograph_header(1, "PA"), radiograph_header(2, "LL")]
    frames = frames_of(series)
    analysis = Analysis(
        model=model,
        study_uid=STUDY_UID,
        inputs=(SeriesInput(role="radiograph", series_uid=DX_SERIES_UID, frames=frames),),
        findings=findings,
        **further,
    )
    radiographs = tuple(
        Radiograph(array=chest_pixels(), frame=frame, series_uid=DX_SERIES_UID, modality="DX", view=view)
        for frame, view in zip(frames, ("PA", "LL"), strict=True)
    )
    return Case(series, Reading(analysis=analysis, radiographs=radiographs))


def make_detection_case() -> Case:
    """Three boxes, one of them explained by a heat map; the study is of high risk."""
    findings = (
        mark(1, "cardiomegaly", "heart", chest_box(26, 48, 62, 74), 0.93),
        mark(2, "effusion", "pleura", chest_box(56, 62, 74, 80), 0.87, uncertainty=0.04),
        mark(3, "nodule", "lung", chest_box(16, 16, 24, 24), 0.71, uncertainty=0.21),
    )
    triage = Triage(risk=RiskClass.HIGH, score=0.94, predictive_value=0.88, calibration_patients=512)
    case = chest_case(DETECTOR, findings, triage=triage)
    heat = np.zeros((1, 96, 80), np.float32)
    heat[0, 60:82, 54:76] = np.hypot(*np.mgrid[-1:1:22j, -1:1:22j]).clip(0, 1)[:, ::-1] * 0.9
    heatmap = Heatmap(values=heat, series_uid=DX_SERIES_UID, frames=frames_of(case.series)[:1], answer="F2")
    return replace(case, reading=replace(case.reading, heatmaps=(heatmap,)))


def make_outlined_detection_case() -> Case:
    """A box with a mask from it: a radiograph has no frame of reference, so the area goes to the text."""
    area = Measurement(quantity=Quantity.AREA, value=350.0, unit="mm2")
    findings = (
        mark(
            1,
            "mass",
            "lung",
            chest_box(10, 30, 26, 46),
            0.8,
            segment_number=1,
            measurements=(area,),
            laterality=Laterality.RIGHT,
        ),
    )
    case = chest_case(DETECTOR, findings)
    labels = np.zeros((1, 96, 80), np.uint8)
    labels[0, 32:44, 12:24] = 1
    mask = Mask(labels=labels, series_uid=DX_SERIES_UID, frames=frames_of(case.series)[:1])
    return replace(case, reading=replace(case.reading, mask=mask))


def make_label_case() -> Case:
    """Labels present, absent and undetermined."""
    present, absent, undetermined = Presence.PRESENT, Presence.ABSENT, Presence.UNDETERMINED
    return chest_case(
        LABELLER,
        (
            label(1, "effusion", "pleura", present, 0.91, uncertainty=0.03),
            label(2, "pneumonia", "lung", present, 0.62),
            label(3, "edema", "lung", undetermined, 0.44),
            label(4, "hernia", "thorax", absent, 0.004),
            label(5, "pneumothorax", "pleura", absent, 0.03),
        ),
        triage=Triage(risk=RiskClass.LOW, score=0.04, predictive_value=0.97, calibration_patients=400),
    )


# -- head CT and fusion -------------------------------------------------------------------------

CT_SERIES_UID = f"{STUDY_UID}.3"
OTHER_STUDY_UID = f"{STUDY_UID}7"
OTHER_SERIES_UID = f"{OTHER_STUDY_UID}.1"


def ct_series(depth: int = 6) -> list[Dataset]:
    """Headers of an axial head CT."""
    series = mr_series(depth)
    for index, header in enumerate(series):
        header.Modality = "CT"
        header.SOPClassUID = CTImageStorage
        header.SOPInstanceUID = f"{CT_SERIES_UID}.{index + 1}"
        header.SeriesInstanceUID = CT_SERIES_UID
        header.SeriesDescription = "HEAD 5 mm"
        header.StudyDescription = "CT HEAD"
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    return series


def heat_of(series: list[Dataset], answer: str) -> Heatmap:
    """A heat map that is zero on the first and last slices."""
    values = np.zeros((len(series), 32, 32), np.float32)
    values[2:4, 8:20, 10:22] = np.random.default_rng(1).random((2, 12, 12), np.float32)
    return Heatmap(
        values=values,
        series_uid=str(series[0].SeriesInstanceUID),
        frames=frames_of(series),
        answer=answer,
    )


def make_head_ct_case() -> Case:
    """Haemorrhage present with its key slice, tumour absent, and where the network looked."""
    series = ct_series()
    frames = frames_of(series)
    findings = (
        label(1, "intracranial_haemorrhage", "brain", Presence.PRESENT, 0.95, key_frame=frames[3]),
        label(2, "tumour", "brain", Presence.ABSENT, 0.08),
    )
    analysis = Analysis(
        model=HEAD_CT,
        study_uid=STUDY_UID,
        inputs=(SeriesInput(role="ct", series_uid=CT_SERIES_UID, frames=frames),),
        findings=findings,
        doubts=(Doubt(caveat=Caveat.OUT_OF_DISTRIBUTION, sentence="The slices are unusually thick"),),
    )
    return Case(series, Reading(analysis=analysis, heatmaps=(heat_of(series, "F1"),)))


def make_fusion_case() -> Case:
    """A CT, and an MR of another study of the patient; class, grade and survival are estimated."""
    ct, mr = ct_series(), mr_series()
    for index, header in enumerate(mr):
        header.StudyInstanceUID = OTHER_STUDY_UID
        header.SeriesInstanceUID = OTHER_SERIES_UID
        header.SOPInstanceUID = f"{OTHER_SERIES_UID}.{index + 1}"
        header.StudyID, header.AccessionNumber, header.StudyDate = "S2", "ACC0002", "20260105"
    analysis = Analysis(
        model=FUSION,
        study_uid=STUDY_UID,
        inputs=(
            SeriesInput(role="ct", series_uid=CT_SERIES_UID, frames=frames_of(ct)),
            SeriesInput(role="mr", series_uid=OTHER_SERIES_UID, frames=frames_of(mr)),
        ),
        findings=(),
        notes=("The MR is of another study, three days later",),
        estimates=(
            Estimate(
                scale=Scale.TUMOUR_CLASS,
                value="malignant",
                probabilities=(("healthy", 0.09), ("benign", 0.2), ("malignant", 0.71)),
            ),
            Estimate(
                scale=Scale.TUMOUR_STAGE,
                value="grade_3",
                probabilities=(("grade_2", 0.38), ("grade_3", 0.62)),
            ),
            Estimate(scale=Scale.SURVIVAL_RISK, value="higher", number=1.4375),
        ),
    )
    heatmaps = (heat_of(ct, "tumour_class"), heat_of(mr, "tumour_class"))
    reading = Reading(analysis=analysis, heatmaps=heatmaps)
    return Case(ct, reading, further_series={OTHER_SERIES_UID: mr})


def make_structure_case() -> Case:
    """Gray and white matter as a foreign package outlines them, explained by a heat map."""
    case = make_case()
    structures = tuple(
        replace(
            finding,
            concept=concept,
            laterality=None,
            confidence=None,
            measurements=finding.measurements[:1],
            long_axis=None,
            perpendicular_axis=None,
            key_frame=None,
        )
        for finding, concept in zip(case.analysis.findings, ("gray_matter", "white_matter"), strict=True)
    )
    case = case.saying(findings=structures, substitutions=(), notes=())
    return replace(case, reading=replace(case.reading, heatmaps=(heat_of(case.series, "F1"),)))


def make_refused_case() -> Case:
    """A head CT that the model would not read, although its output is there."""
    doubt = Doubt(caveat=Caveat.WRONG_BODY_PART, sentence="The images show no head.", is_blocking=True)
    return make_head_ct_case().saying(doubts=(doubt,))


MAKERS = (
    make_case,
    make_detection_case,
    make_outlined_detection_case,
    make_label_case,
    make_head_ct_case,
    make_fusion_case,
    make_structure_case,
    make_refused_case,
)
