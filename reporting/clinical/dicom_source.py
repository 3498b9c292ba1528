"""Pure. What the headers of a study say of why it was ordered.

Order text lies at the study and in the Request Attributes Sequence, in free text and
in codes. Tags that name people (referring physician, requesting service, comments to
the patient) are not read at all.

References
----------
PS3.3 C.7.2.1 (General Study), C.7.2.2 (Patient Study), C.7.3.1 (General Series, Request
Attributes Sequence, table 10-9), C.4.12 (Imaging Service Request).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pydicom.dataset import Dataset

from reporting.clinical.problem import SourceKind, SourceText

#: Free text by keyword; the kind says whether it is the order or the patient's history.
_TEXTS: Final = {
    "ReasonForTheRequestedProcedure": SourceKind.ORDER,
    "ReasonForTheImagingServiceRequest": SourceKind.ORDER,
    "ReasonForStudy": SourceKind.ORDER,
    "ReasonForVisit": SourceKind.ORDER,
    "RequestedProcedureDescription": SourceKind.ORDER,
    "RequestedProcedureComments": SourceKind.ORDER,
    "ImagingServiceRequestComments": SourceKind.ORDER,
    "ScheduledProcedureStepDescription": SourceKind.ORDER,
    "StudyDescription": SourceKind.ORDER,
    "AdmittingDiagnosesDescription": SourceKind.HISTORY,
    "AdditionalPatientHistory": SourceKind.HISTORY,
    "MedicalAlerts": SourceKind.HISTORY,
    "PatientState": SourceKind.HISTORY,
    "SmokingStatus": SourceKind.HISTORY,
    "PregnancyStatus": SourceKind.HISTORY,
}
#: Code sequences whose Code Meaning is read as text.
_CODES: Final = {
    "ReasonForRequestedProcedureCodeSequence": SourceKind.ORDER,
    "ReasonForVisitCodeSequence": SourceKind.ORDER,
    "AdmittingDiagnosesCodeSequence": SourceKind.HISTORY,
    "PertinentConditionsSequence": SourceKind.HISTORY,
}
#: Defined terms that are no words (PS3.3 C.7.2.2, C.7.2.2.1.1): what they stand for.
_TERMS: Final = {
    ("SmokingStatus", "YES"): "smoker",
    ("PregnancyStatus", "3"): "pregnant",
    ("PregnancyStatus", "2"): "possibly pregnant",
}
_TERMED: Final = frozenset(keyword for keyword, _ in _TERMS)


def read_headers(headers: Iterable[Dataset]) -> tuple[SourceText, ...]:
    """Return the order text and the history in the headers of a study, each text once.

    Parameters
    ----------
    headers : iterable of Dataset
        One header of each series, or of each image.
    """
    found: dict[tuple[SourceKind, str], SourceText] = {}
    for header in headers:
        for source in _read(header):
            found.setdefault((source.kind, source.text), source)
    return tuple(found.values())


def _read(header: Dataset) -> Iterator[SourceText]:
    yield from _texts(header)
    yield from _coded(header)
    for request in header.get("RequestAttributesSequence") or ():
        yield from _texts(request)
        yield from _coded(request)


def _texts(dataset: Dataset) -> Iterator[SourceText]:
    for keyword, kind in _TEXTS.items():
        value = dataset.get(keyword)
        if value is None:
            continue
        values = [str(value)] if isinstance(value, str | int) else [str(part) for part in value]
        for text in values:
            said = _TERMS.get((keyword, text), "") if keyword in _TERMED else text
            if said.strip():
                yield SourceText(kind=kind, origin=keyword, text=said)


def _coded(dataset: Dataset) -> Iterator[SourceText]:
    for keyword, kind in _CODES.items():
        for item in dataset.get(keyword) or ():
            # Pertinent Conditions nests the code one level deeper.
            for code in (item, *(item.get("ConceptCodeSequence") or ())):
                meaning = str(code.get("CodeMeaning") or "")
                if meaning.strip():
                    yield SourceText(kind=kind, origin=keyword, text=meaning)
