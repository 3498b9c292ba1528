"""Pure. The data types that all our FHIR resources are made of."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Final

from reporting.codes import Concept

#: A FHIR resource or element as JSON.
Json = dict[str, Any]

_AI_ASSERTED: Final[Json] = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"
#: HL7 AI Transparency on FHIR (R4): what a Device is, and the role it plays.
AI_DEVICE_TYPES: Final = "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS"
ALTERNATE_REFERENCE: Final = "http://hl7.org/fhir/StructureDefinition/alternate-reference"
DATA_ABSENT_REASON: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
DICOM_UID_SYSTEM: Final = "urn:dicom:uid"


def coding(concept: Concept) -> Json:
    """Return a Coding."""
    return {"system": concept.fhir_system, "code": concept.value, "display": concept.meaning}


def codeable(concept: Concept, text: str | None = None) -> Json:
    """Return a CodeableConcept with one coding."""
    element: Json = {"coding": [coding(concept)]}
    return element if text is None else {**element, "text": text}


def hl7_concept(system: str, code: str, display: str) -> Json:
    """Return a CodeableConcept of a code system on terminology.hl7.org."""
    return {"coding": [{"system": f"{_TERMINOLOGY}{system}", "code": code, "display": display}]}


def ai_asserted() -> Json:
    """Return the security label that says that an algorithm asserted this."""
    return dict(_AI_ASSERTED)


def ai_role() -> Json:
    """Return the concept Artificial-Intelligence of the AI Transparency guide."""
    return {
        "coding": [
            {
                "system": AI_DEVICE_TYPES,
                "code": "Artificial-Intelligence",
                "display": "Artificial Intelligence",
            }
        ]
    }


def quantity(value: float, unit: Concept) -> Json:
    """Return a Quantity with its UCUM unit, rounded to three decimals."""
    return {"value": round(value, 3), "unit": unit.value, "system": unit.fhir_system, "code": unit.value}


def dicom_uid(uid: str) -> Json:
    """Return the Identifier of a DICOM object or study."""
    return {"system": DICOM_UID_SYSTEM, "value": f"urn:oid:{uid}"}


def instant(moment: datetime) -> str:
    """Return an instant in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def effective(started: datetime | date | None) -> Json:
    """Return the effective[x] elements for the start of a study: never a time without a zone."""
    if started is None:
        absent = {"extension": [{"url": DATA_ABSENT_REASON, "valueCode": "unknown"}]}
        return {"_effectiveDateTime": absent}
    return {"effectiveDateTime": date_time(started)}


def date_time(moment: datetime | date) -> str:
    """Return a FHIR dateTime: a zoned time, or a day."""
    if isinstance(moment, datetime):
        return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return moment.isoformat()
