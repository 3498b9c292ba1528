"""Pure. The gate's check that a result belongs to its study and that what it refers to exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.dataset import Dataset

from reporting.context import ResultObject
from reporting.gate.evidence import Evidence, walk
from reporting.gate.violation import Violation, object_violation

#: Must be equal to the source's, missing and empty counting as equal.
_IDENTITY: Final = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
)


def check_identity(result: ResultObject, evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation for each patient or study attribute that differs from the source's.

    A run may have read several studies, of one patient: a result is compared with the study it is filed in.
    """
    headers = list(evidence.headers.values())
    if not headers:
        yield object_violation(result, "identity", "There are no source headers to compare with.")
        return
    patients = {(_text(header, "PatientID"), _text(header, "IssuerOfPatientID")) for header in headers}
    if len(patients) > 1:
        yield object_violation(result, "patient", "The images that were read are of several patients.")
    study_uid = result.dataset.get("StudyInstanceUID")
    source = next((header for header in headers if header.StudyInstanceUID == study_uid), headers[0])
    for keyword in _IDENTITY:
        if _text(result.dataset, keyword) != _text(source, keyword):
            yield object_violation(result, "identity", f"{keyword} differs from the source study's.")


def check_references(result: ResultObject, evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation for each reference to an instance, frame or segment that does not exist."""
    instances = evidence.instances
    predecessors = {
        id(item) for root in result.dataset.get("PredecessorDocumentsSequence") or [] for item in walk(root)
    }
    for item in walk(result.dataset):
        uid = item.get("ReferencedSOPInstanceUID")
        if uid is None or id(item) in predecessors:
            continue
        target = instances.get(str(uid))
        if target is None or str(uid) == result.object_uid:
            yield object_violation(
                result,
                "dangling-reference",
                "A referenced instance is neither in the study nor in the results.",
            )
            continue
        yield from _check_target(result, item, target)
    for series in _series_items(result.dataset):
        yield from _check_series(result, series, evidence)


def _check_target(result: ResultObject, item: Dataset, target: Dataset) -> Iterator[Violation]:
    if item.get("ReferencedSOPClassUID") != target.SOPClassUID:
        yield object_violation(
            result, "reference-class", "A reference names another SOP Class than its target has."
        )
    for number in _numbers(item, "ReferencedFrameNumber"):
        if not 1 <= number <= int(target.get("NumberOfFrames") or 1):
            yield object_violation(
                result, "reference-frame", "A reference names a frame that its target lacks."
            )
    segments = {int(s.SegmentNumber) for s in target.get("SegmentSequence") or []}
    for number in _numbers(item, "ReferencedSegmentNumber"):
        if number not in segments:
            yield object_violation(
                result, "reference-segment", "A reference names a segment that its target lacks."
            )


def _check_series(result: ResultObject, series: Dataset, evidence: Evidence) -> Iterator[Violation]:
    for keyword in ("ReferencedSOPSequence", "ReferencedInstanceSequence"):
        for item in series.get(keyword) or []:
            target = evidence.instances.get(str(item.get("ReferencedSOPInstanceUID")))
            if target is not None and target.SeriesInstanceUID != series.get("SeriesInstanceUID"):
                yield object_violation(
                    result, "reference-series", "A reference names another series than its target's."
                )


def _series_items(dataset: Dataset) -> Iterator[Dataset]:
    roots = [
        dataset,
        *(dataset.get("CurrentRequestedProcedureEvidenceSequence") or []),
        *(dataset.get("PertinentOtherEvidenceSequence") or []),
        *(dataset.get("StudiesContainingOtherReferencedInstancesSequence") or []),
    ]
    for root in roots:
        yield from root.get("ReferencedSeriesSequence") or []


def _numbers(item: Dataset, keyword: str) -> list[int]:
    value = item.get(keyword)
    if value is None:
        return []
    return [int(value)] if isinstance(value, int | str | float) else [int(number) for number in value]


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value)
