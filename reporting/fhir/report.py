"""Pure. The DiagnosticReport and its Provenance."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from pydicom.dataset import Dataset

from inference.findings import Analysis, Presence
from reporting import codes
from reporting.context import ReportContext, ResultKind, ResultObject
from reporting.fhir.elements import (
    ALTERNATE_REFERENCE,
    Json,
    ai_asserted,
    ai_role,
    codeable,
    dicom_uid,
    effective,
    hl7_concept,
    instant,
)
from reporting.fhir.names import ResourceName, name_resource
from reporting.fhir.policy import FhirPolicy, ReportStatus
from reporting.fhir.study import identify_accession, name_model, name_software
from reporting.html import render_narrative, render_page
from reporting.text import ReportText, SectionName


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportParts:
    """What the report refers to.

    Attributes
    ----------
    study, results : ResourceName
        ImagingStudy; the Observations of the findings.
    interpreter : str or None
        Who signed, for a report that is no longer preliminary.
    """

    subject: Json
    study: ResourceName
    results: tuple[ResourceName, ...]
    started: datetime | date | None
    status: ReportStatus
    interpreter: str | None = None


def name_report(study_uid: str, analyses: Sequence[Analysis]) -> ResourceName:
    """Return the name of the report: one per study and set of models, whatever their versions."""
    return name_resource("DiagnosticReport", study_uid, *sorted({a.model.name for a in analyses}))


def describe_report(
    analyses: Sequence[Analysis],
    text: ReportText,
    *,
    header: Dataset,
    objects: Sequence[ResultObject],
    parts: ReportParts,
    context: ReportContext,
    policy: FhirPolicy,
) -> Json:
    """Return the DiagnosticReport.

    References
    ----------
    FHIR R4 DiagnosticReport; US Core DiagnosticReport for Report and Note Exchange;
    HL7 AI Transparency on FHIR (security label, alternate-reference to the Device).
    """
    sites = frozenset(finding.site for analysis in analyses for finding in analysis.findings)
    resource: Json = {
        "resourceType": "DiagnosticReport",
        "meta": {"security": [ai_asserted()]},
        "text": {"status": "generated", "div": render_narrative(text)},
        "identifier": [dicom_uid(o.object_uid) for o in objects if o.kind is ResultKind.NARRATIVE],
        "status": parts.status.value,
        "category": [
            {"coding": [{"system": "http://loinc.org", "code": "LP29684-5", "display": "Radiology"}]},
            hl7_concept("v2-0074", "RAD", "Radiology"),
        ],
        "code": codeable(codes.code_study(str(header.Modality), sites)),
        "subject": parts.subject,
        **effective(parts.started),
        "issued": instant(context.created_at),
        "performer": [_issue_by(analyses, policy)],
        "imagingStudy": [parts.study.reference],
        "result": [name.reference for name in parts.results],
        "conclusion": f"{text.banner} {text.section(SectionName.IMPRESSION).text}",
        "presentedForm": [_attach_page(text, header, context)],
    }
    conclusions = _conclude(analyses)
    if conclusions:
        resource["conclusionCode"] = conclusions
    accession = identify_accession(header, policy)
    if accession:
        resource["basedOn"] = [{"type": "ServiceRequest", "identifier": accession}]
    if parts.interpreter is not None:
        resource["resultsInterpreter"] = [{"type": "Practitioner", "display": parts.interpreter}]
    return {key: value for key, value in resource.items() if value != []}


def describe_provenance(
    analyses: Sequence[Analysis], targets: Sequence[ResourceName], parts: ReportParts, context: ReportContext
) -> Json:
    """Return who made the report from what (HL7 AI Transparency, AI-Provenance)."""
    models = dict.fromkeys(analysis.model for analysis in analyses)
    agents: list[Json] = [
        {
            "type": hl7_concept("provenance-participant-type", "author", "Author"),
            "role": [ai_role()],
            "who": name_model(model).reference,
        }
        for model in models
    ]
    agents.append(
        {
            "type": hl7_concept("provenance-participant-type", "assembler", "Assembler"),
            "who": name_software(context.software_version).reference,
        }
    )
    return {
        "resourceType": "Provenance",
        "meta": {"security": [ai_asserted()]},
        "target": [name.reference for name in targets],
        "recorded": instant(context.created_at),
        "reason": [{"coding": [ai_asserted()]}],
        "activity": hl7_concept("v3-DataOperation", "UPDATE", "revise"),
        "agent": agents,
        "entity": [{"role": "source", "what": parts.study.reference}],
    }


def _issue_by(analyses: Sequence[Analysis], policy: FhirPolicy) -> Json:
    """Return the department as performer; a Device cannot be one in R4, so it is named beside it."""
    models = dict.fromkeys(analysis.model for analysis in analyses)
    return {
        "extension": [
            {"url": ALTERNATE_REFERENCE, "valueReference": name_model(model).reference} for model in models
        ],
        "type": "Organization",
        "display": policy.organization,
    }


def _conclude(analyses: Sequence[Analysis]) -> list[Json]:
    """Return what was seen, once each: signs, never diagnoses."""
    present = [f for analysis in analyses for f in analysis.findings if f.presence is Presence.PRESENT]
    return [
        codeable(codes.code_finding(key).conclusion, codes.code_finding(key).noun)
        for key in dict.fromkeys(finding.concept for finding in present)
    ]


_PAGE_TITLE: Final = "AI draft report, not reviewed"


def _attach_page(text: ReportText, header: Dataset, context: ReportContext) -> Json:
    page = render_page(text, str(header.get("StudyDescription") or "")).encode()
    return {
        "contentType": "text/html; charset=utf-8",
        "language": "en",
        "data": base64.b64encode(page).decode(),
        "size": len(page),
        "hash": base64.b64encode(hashlib.sha1(page, usedforsecurity=False).digest()).decode(),
        "title": _PAGE_TITLE,
        "creation": instant(context.created_at),
    }
