"""Pure. Results as FHIR R4: one transaction Bundle per run, that may be posted any number of times.

The Bundle holds what Preread owns (DiagnosticReport, Observations, Devices, Provenance),
an ImagingStudy per study that was read, only created if the archive has none, and a Patient only if the
site says so. Serialised by the R4B models of ``fhir.resources``, whose shapes are those of
R4 for these resources; the wire version is 4.0.1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from fhir.resources.R4B import get_fhir_model_class
from pydicom.dataset import Dataset

from inference.findings import Analysis
from reporting.context import ReportContext, ResultObject, SourceSeries
from reporting.errors import UnencodableResultError
from reporting.fhir.elements import Json, effective, instant
from reporting.fhir.names import ResourceName, name_resource
from reporting.fhir.observations import ObservationFrame, name_results, observe, retract
from reporting.fhir.policy import FhirPolicy, ReportStatus, SubjectPolicy, WritePolicy
from reporting.fhir.report import ReportParts, describe_provenance, describe_report, name_report
from reporting.fhir.study import (
    create_patient,
    describe_language_model,
    describe_model,
    describe_software,
    describe_study,
    name_language_model,
    name_model,
    name_software,
    name_study,
    reference_subject,
    search_study,
)
from reporting.text import ReportText
from reporting.times import study_started


def build_bundle(
    analyses: Sequence[Analysis],
    text: ReportText,
    *,
    sources: SourceSeries,
    objects: Sequence[ResultObject],
    context: ReportContext,
    policy: FhirPolicy,
    status: ReportStatus = ReportStatus.PRELIMINARY,
    interpreter: str | None = None,
    previous: Sequence[Analysis] = (),
    patient_reference: str | None = None,
) -> Json:
    """Return the transaction Bundle of a run.

    Parameters
    ----------
    analyses : sequence of Analysis
        What each model said; at least one.
    text : ReportText
        The report that stands.
    sources : mapping of str to sequence of Dataset
        Headers of every series that was read, by Series Instance UID.
    objects : sequence of ResultObject
        The DICOM results of the same run; the report names its narrative.
    context : ReportContext
        The run.
    policy : FhirPolicy
        The site's choices.
    status : ReportStatus
        ``PRELIMINARY`` until a person signs.
    interpreter : str or None
        Who signed; needed for, and only for, a final or amended report.
    previous : sequence of Analysis
        The analyses of the run before, whose findings are retracted where they are gone.
    patient_reference : str or None
        ``Patient/id``, if the caller has looked the patient up at the server.

    Returns
    -------
    dict
        Bundle of type transaction; equal arguments give equal Bundles.

    Raises
    ------
    UnencodableResultError
        If the study has no Patient ID, or the status does not fit the interpreter.
    """
    _require_interpreter(status, interpreter)
    header = _first_header(analyses, sources)
    study_uid, started = str(header.StudyInstanceUID), study_started(header, context.site_timezone)
    subject = reference_subject(header, policy, patient_reference)
    studies = _group_by_study(header, sources)
    shared = {
        "subject": subject,
        **effective(started),
        "issued": instant(context.created_at),
        "derivedFrom": [name_study(headers[0]).reference for headers in _first_headers(studies)],
    }
    frame = ObservationFrame(study_uid=study_uid, status=status, shared=shared)
    observations = [named for analysis in analyses for named in observe(analysis, frame)]
    current = frozenset(name for name, _ in observations)
    observations += retract(previous, current, frame)
    parts = ReportParts(
        subject=subject,
        studies=tuple(name_study(headers[0]) for headers in _first_headers(studies)),
        results=tuple(name for analysis in analyses for name in name_results(analysis)),
        started=started,
        status=status,
        interpreter=interpreter,
    )
    report = name_report(study_uid, analyses)
    provenance = name_resource("Provenance", report.value)
    targets = (report, *(name for name, _ in observations))
    owned: list[tuple[ResourceName, Json]] = [
        *_devices((*analyses, *previous), text, context),
        *observations,
        (
            report,
            describe_report(
                analyses, text, header=header, objects=objects, parts=parts, context=context, policy=policy
            ),
        ),
        (
            provenance,
            describe_provenance(analyses, targets, parts, context, text.provenance.language_model),
        ),
    ]
    is_created = policy.subject is SubjectPolicy.CREATE and patient_reference is None
    entries = [create_patient(header, policy)] if is_created else []
    for series in studies:
        first = next(iter(series.values()))[0]
        resource = describe_study(first, series, study_started(first, context.site_timezone), subject, policy)
        entries.append(_study_entry(name_study(first), resource, first, policy))
    entries += [_owned_entry(name, resource, policy) for name, resource in owned]
    return _serialise({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _group_by_study(header: Dataset, sources: SourceSeries) -> list[SourceSeries]:
    """Return the series of each study that was read, the one that the report is filed in first."""
    studies: dict[str, dict[str, Sequence[Dataset]]] = {str(header.StudyInstanceUID): {}}
    for series_uid, headers in sources.items():
        if headers:
            studies.setdefault(str(headers[0].StudyInstanceUID), {})[series_uid] = headers
    return [series for series in studies.values() if series]


def _first_headers(studies: Sequence[SourceSeries]) -> list[Sequence[Dataset]]:
    return [next(iter(series.values())) for series in studies]


def _require_interpreter(status: ReportStatus, interpreter: str | None) -> None:
    is_signed = status in {ReportStatus.FINAL, ReportStatus.AMENDED}
    if is_signed and not interpreter:
        raise UnencodableResultError(
            "A report is final or amended only when a person has signed it: name them."
        )
    if interpreter and status is ReportStatus.PRELIMINARY:
        raise UnencodableResultError("A preliminary report has no interpreter yet.")


def _first_header(analyses: Sequence[Analysis], sources: SourceSeries) -> Dataset:
    headers = sources.get(analyses[0].inputs[0].series_uid, ()) if analyses and analyses[0].inputs else ()
    if not headers:
        raise UnencodableResultError("The headers of the series that the model read are missing.")
    return headers[0]


def _devices(
    analyses: Sequence[Analysis], text: ReportText, context: ReportContext
) -> list[tuple[ResourceName, Json]]:
    version = context.software_version
    models = dict.fromkeys(analysis.model for analysis in analyses)
    devices = [
        (name_software(version), describe_software(version)),
        *((name_model(model), describe_model(model, version)) for model in models),
    ]
    writer = text.provenance.language_model
    if writer is not None:
        devices.append((name_language_model(writer), describe_language_model(writer, version)))
    return devices


def _study_entry(name: ResourceName, resource: Json, header: Dataset, policy: FhirPolicy) -> Json:
    """Return the entry of the ImagingStudy: the archive's own is never overwritten."""
    if policy.write is WritePolicy.CLIENT_ID:
        return _owned_entry(name, resource, policy)
    request = {"method": "POST", "url": "ImagingStudy", "ifNoneExist": search_study(header)}
    return {"fullUrl": name.full_url, "resource": resource, "request": request}


def _owned_entry(name: ResourceName, resource: Json, policy: FhirPolicy) -> Json:
    return {
        "fullUrl": name.full_url,
        "resource": name.own(resource, policy),
        "request": name.request(policy),
    }


def _serialise(bundle: Json) -> Json:
    """Return the Bundle as the R4B models write it; they refuse what has no R4 structure."""
    model = get_fhir_model_class("Bundle").model_validate(bundle)
    serialised: Json = json.loads(model.model_dump_json(exclude_none=True))
    return serialised


__all__ = ["FhirPolicy", "Json", "ReportStatus", "SubjectPolicy", "WritePolicy", "build_bundle"]
