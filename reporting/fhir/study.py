"""Pure. Patient, ImagingStudy and Device: what a report is about and what made it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import quote

from pydicom.dataset import Dataset

from dicom_node.headers import OWN_MANUFACTURER
from inference.findings import ModelIdentity
from reporting.context import SourceSeries, name_device
from reporting.errors import UnencodableResultError
from reporting.fhir.elements import Json, ai_role, date_time, dicom_uid
from reporting.fhir.names import ResourceName, name_resource
from reporting.fhir.policy import FhirPolicy, SubjectPolicy, WritePolicy

_DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_GENDERS: Final = {"F": "female", "M": "male", "O": "other"}
_DATE_DIGITS: Final = 8


def reference_subject(header: Dataset, policy: FhirPolicy, resolved: str | None = None) -> Json:
    """Return the Reference to the patient.

    Parameters
    ----------
    resolved : str or None
        ``Patient/id`` if the caller has looked the patient up; else the policy decides.

    Raises
    ------
    UnencodableResultError
        If the study has no Patient ID: a report without a patient must not enter a record.
    """
    patient_id = _patient_id(header)
    identifier = {"system": policy.patient_id_system, "value": patient_id}
    if resolved is not None:
        return {"reference": resolved, "type": "Patient", "identifier": identifier}
    if policy.subject is SubjectPolicy.CREATE:
        return _patient_name(header, policy).reference
    if policy.subject is SubjectPolicy.CONDITIONAL:
        return {"reference": f"Patient?{_search(policy.patient_id_system, patient_id)}", "type": "Patient"}
    return {"type": "Patient", "identifier": identifier}


def create_patient(header: Dataset, policy: FhirPolicy) -> Json:
    """Return the entry that adds the patient.

    Under `WritePolicy.CONDITIONAL` only if the server does not know the Patient ID; under
    `WritePolicy.CLIENT_ID` under an id derived from it.
    """
    patient_id = _patient_id(header)
    resource: Json = {
        "resourceType": "Patient",
        "identifier": [{"system": policy.patient_id_system, "value": patient_id}],
    }
    name = _human_name(header)
    if name:
        resource["name"] = [name]
    gender = _GENDERS.get(str(header.get("PatientSex") or ""))
    if gender:
        resource["gender"] = gender
    born = _birth_date(header)
    if born:
        resource["birthDate"] = born.isoformat()
    patient = _patient_name(header, policy)
    request = {
        "method": "POST",
        "url": "Patient",
        "ifNoneExist": _search(policy.patient_id_system, patient_id),
    }
    if policy.write is WritePolicy.CLIENT_ID:
        resource["id"] = patient.value
        request = patient.request(policy)
    return {"fullUrl": patient.full_url, "resource": resource, "request": request}


def name_study(header: Dataset) -> ResourceName:
    """Return the name of the ImagingStudy."""
    return name_resource("ImagingStudy", str(header.StudyInstanceUID))


def describe_study(
    header: Dataset, sources: SourceSeries, started: datetime | date | None, subject: Json, policy: FhirPolicy
) -> Json:
    """Return the ImagingStudy with the series that were read.

    The archive may keep this resource itself: it is only ever created, never overwritten.
    """
    study = dicom_uid(str(header.StudyInstanceUID))
    resource: Json = {
        "resourceType": "ImagingStudy",
        "identifier": [study],
        "status": "available",
        "subject": subject,
        "modality": [{"system": _DICOM, "code": code} for code in _modalities(sources)],
        "series": [_describe_series(uid, headers) for uid, headers in sources.items() if headers],
    }
    accession = identify_accession(header, policy)
    if accession:
        resource["identifier"].append(accession)
    if started is not None:
        resource["started"] = date_time(started)
    description = str(header.get("StudyDescription") or "").strip()
    if description:
        resource["description"] = description
    return resource


def search_study(header: Dataset) -> str:
    """Return the search that finds the study, for ``ifNoneExist``."""
    return _search("urn:dicom:uid", f"urn:oid:{header.StudyInstanceUID}")


def identify_accession(header: Dataset, policy: FhirPolicy) -> Json | None:
    """Return the Identifier of the order, or None if the study has no Accession Number."""
    accession = str(header.get("AccessionNumber") or "").strip()
    if not accession:
        return None
    kind = {
        "system": "http://terminology.hl7.org/CodeSystem/v2-0203",
        "code": "ACSN",
        "display": "Accession ID",
    }
    identifier: Json = {"type": {"coding": [kind]}, "value": accession}
    if policy.accession_system is not None:
        identifier["system"] = policy.accession_system
    return identifier


def name_model(model: ModelIdentity) -> ResourceName:
    """Return the name of a model's Device: another version or other weights, another Device."""
    return name_resource("Device", model.name, model.version, model.weights_sha256)


def name_software(version: str) -> ResourceName:
    """Return the name of the Device that is Preread itself."""
    return name_resource("Device", OWN_MANUFACTURER, version)


def describe_model(model: ModelIdentity, software_version: str) -> Json:
    """Return the Device of a model (HL7 AI Transparency, AI-Device)."""
    return {
        "resourceType": "Device",
        "identifier": [dicom_uid(name_device(model))],
        "status": "active",
        "manufacturer": model.manufacturer,
        "deviceName": [{"name": model.name, "type": "model-name"}],
        "type": ai_role(),
        "version": [{"value": model.version}],
        "property": [
            {
                "type": {"text": "SHA-256 of the weights"},
                "valueCode": [{"text": model.weights_sha256}],
            }
        ],
        "note": [{"text": model.title}],
        "parent": name_software(software_version).reference,
    }


def name_language_model(identity: str) -> ResourceName:
    """Return the name of the Device of a language model."""
    return name_resource("Device", "language model", identity)


def describe_language_model(identity: str, software_version: str) -> Json:
    """Return the Device of the language model that worded a report (HL7 AI Transparency, AI-Device)."""
    return {
        "resourceType": "Device",
        "status": "active",
        "deviceName": [{"name": identity, "type": "model-name"}],
        "type": ai_role(),
        "note": [{"text": "Language model: worded the report's text from the findings; it made no finding."}],
        "parent": name_software(software_version).reference,
    }


def describe_software(version: str) -> Json:
    """Return the Device of the software that ran the models."""
    return {
        "resourceType": "Device",
        "status": "active",
        "manufacturer": OWN_MANUFACTURER,
        "deviceName": [{"name": OWN_MANUFACTURER, "type": "manufacturer-name"}],
        "version": [{"value": version}],
    }


def _patient_id(header: Dataset) -> str:
    patient_id = str(header.get("PatientID") or "").strip()
    if not patient_id:
        raise UnencodableResultError(
            "The study has no Patient ID: correct it at the source, then requeue the study for FHIR."
        )
    return patient_id


def _patient_name(header: Dataset, policy: FhirPolicy) -> ResourceName:
    return name_resource("Patient", policy.patient_id_system, _patient_id(header))


def _search(system: str, value: str) -> str:
    return f"identifier={quote(system, safe=':/')}|{quote(value, safe=':/')}"


def _human_name(header: Dataset) -> Json:
    parts = str(header.get("PatientName") or "").split("=")[0].split("^")
    family, given = parts[0].strip(), [part.strip() for part in parts[1:3] if part.strip()]
    name: Json = {}
    if family:
        name["family"] = family
    if given:
        name["given"] = given
    return name


def _birth_date(header: Dataset) -> date | None:
    text = str(header.get("PatientBirthDate") or "").strip()
    if len(text) != _DATE_DIGITS:
        return None
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _modalities(sources: SourceSeries) -> list[str]:
    return sorted({str(headers[0].Modality) for headers in sources.values() if headers})


def _describe_series(series_uid: str, headers: Sequence[Dataset]) -> Json:
    first = headers[0]
    series: Json = {
        "uid": series_uid,
        "modality": {"system": _DICOM, "code": str(first.Modality)},
        "numberOfInstances": len(headers),
    }
    if first.get("SeriesNumber") is not None:
        series["number"] = max(0, int(first.SeriesNumber))
    description = str(first.get("SeriesDescription") or "").strip()
    if description:
        series["description"] = description
    return series
