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
from reporting.fhir.study import identify_accession, name_language_model, name_model, name_software
from reporting.html import render_narrative, render_page
from reporting.pdf import read_pdf
from reporting.text import ReportText, SectionName


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportParts:
    """What the report refers to.

    Attributes
    ----------
    studies, results : tuple of ResourceName
        ImagingStudies, the one that the report is filed in first; the Observations.
    interpreter : str or None
        Who signed, for a report that is no longer preliminary.
    """

    subject: Json
    studies: tuple[ResourceName, ...]
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
    sites = frozenset(
        finding.site for analysis in analyses for finding in analysis.findings if not analysis.is_refused
    )
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
        "imagingStudy": [study.reference for study in parts.studies],
        "result": [name.reference for name in parts.results],
        "conclusion": _conclude_in_words(text),
        "presentedForm": [
            _attach_page(text, header, context),
            *_attach_pdf(objects, parts.status, context, policy),
        ],
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
    analyses: Sequence[Analysis],
    targets: Sequence[ResourceName],
    parts: ReportParts,
    context: ReportContext,
    language_model: str | None = None,
) -> Json:
    """Return who made the report from what (HL7 AI Transparency, AI-Provenance).

    Parameters
    ----------
    language_model : str or None
        Identity of the language model whose wording stands, if one's does: an author like the others.
    """
    authors = [name_model(model) for model in dict.fromkeys(analysis.model for analysis in analyses)]
    if language_model is not None:
        authors.append(name_language_model(language_model))
    agents: list[Json] = [
        {
            "type": hl7_concept("provenance-participant-type", "author", "Author"),
            "role": [ai_role()],
            "who": author.reference,
        }
        for author in authors
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
        "entity": [{"role": "source", "what": study.reference} for study in parts.studies],
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


def _conclude_in_words(text: ReportText) -> str:
    """Return the notices, what is urgent, what changed, and the impression with its doubts."""
    said = [section.text for section in text.sections if section.name in _CONCLUDING]
    return " ".join([*text.notices, *said])


def _conclude(analyses: Sequence[Analysis]) -> list[Json]:
    """Return what was seen, once each: signs, never diagnoses, and no normal structures."""
    seen = [
        codes.code_finding(finding.concept)
        for analysis in analyses
        if not analysis.is_refused
        for finding in analysis.findings
        if finding.presence is Presence.PRESENT
    ]
    signs = {concept.conclusion: concept.noun for concept in reversed(seen) if not concept.is_anatomy}
    return [codeable(concept, noun) for concept, noun in reversed(signs.items())]


_CONCLUDING: Final = frozenset({SectionName.PRIORITY, SectionName.COMPARISON, SectionName.IMPRESSION})
_PAGE_TITLE: Final = "AI draft report, not reviewed"


def _attach_page(text: ReportText, header: Dataset, context: ReportContext) -> Json:
    page = render_page(text, str(header.get("StudyDescription") or "")).encode()
    return _attach(page, "text/html; charset=utf-8", context)


def _attach_pdf(
    objects: Sequence[ResultObject], status: ReportStatus, context: ReportContext, policy: FhirPolicy
) -> list[Json]:
    """Return the PDF report of the run; none for a report that a person has signed, which it would deny."""
    if status is not ReportStatus.PRELIMINARY:
        return []
    files = [read_pdf(o.dataset) for o in objects if o.kind is ResultKind.PDF]
    return [
        _attach(file, "application/pdf", context) for file in files if len(file) <= policy.largest_pdf_bytes
    ]


def _attach(file: bytes, content_type: str, context: ReportContext) -> Json:
    return {
        "contentType": content_type,
        "language": "en",
        "data": base64.b64encode(file).decode(),
        "size": len(file),
        "hash": base64.b64encode(hashlib.sha1(file, usedforsecurity=False).digest()).decode(),
        "title": _PAGE_TITLE,
        "creation": instant(context.created_at),
    }
