"""Pure. The drafted report as a Basic Text SR document (TID 2000).

Text only, so that every SR viewer shows it. The first section is the banner: whoever
reads the report reads first that an algorithm made it and that nobody reviewed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from reporting import codes
from reporting.codes import Concept
from reporting.envelope import Envelope, reference_instances, seal
from reporting.items import code_content_item, container_item, template_item, text_item
from reporting.sr import link_predecessors, observe_by_device
from reporting.text import ReportText, Section, SectionName

#: Heading (CID 7001) and element (CID 7002) of each section; what is urgent stands below the banner.
_SECTIONS: Final[dict[SectionName, tuple[Concept, Concept]]] = {
    SectionName.CLINICAL: (codes.CLINICAL_SECTION, codes.CLINICAL_ELEMENT),
    SectionName.PROCEDURE: (codes.PROCEDURE_SECTION, codes.PROCEDURE_ELEMENT),
    SectionName.COMPARISON: (codes.PREVIOUS_FINDINGS_SECTION, codes.PREVIOUS_FINDING),
    SectionName.FINDINGS: (codes.FINDINGS_SECTION, codes.FINDING),
    SectionName.IMPRESSION: (codes.IMPRESSIONS_SECTION, codes.IMPRESSION_ELEMENT),
    SectionName.RECOMMENDATION: (codes.RECOMMENDATIONS_SECTION, codes.RECOMMENDATION_ELEMENT),
}


def encode_narrative(text: ReportText, sources: Sequence[Dataset], envelope: Envelope) -> Dataset:
    """Return the report as a Basic Text SR document.

    Parameters
    ----------
    text : ReportText
        The report; its banner, and who worded it, become the first section.
    sources : sequence of Dataset
        Headers of the images that were read; they become the evidence.
    envelope : Envelope
        Names and origin of the object; every model of the run is an observer.

    Returns
    -------
    Dataset
        Preliminary, unverified, complete.

    References
    ----------
    PS3.3 A.35.1 (Basic Text SR), PS3.16 TID 2000, TID 1002, TID 1004, TID 1204.
    """
    document = container_item(codes.DIAGNOSTIC_IMAGING_REPORT, _content(text, envelope))
    del document.RelationshipType
    document.ContentTemplateSequence = [template_item("2000")]
    document.SOPClassUID = BasicTextSRStorage
    document.SOPInstanceUID = envelope.sop_instance_uid
    document.Modality = "SR"
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.CompletionFlag = "COMPLETE"
    document.VerificationFlag = "UNVERIFIED"
    document.PreliminaryFlag = "PRELIMINARY"
    document.CurrentRequestedProcedureEvidenceSequence = _evidence(sources)
    link_predecessors(document, envelope)
    return seal(document, envelope)


def _content(text: ReportText, envelope: Envelope) -> list[Dataset]:
    content = [code_content_item(codes.LANGUAGE_OF_CONTENT, codes.ENGLISH, "HAS CONCEPT MOD")]
    for model in envelope.models:
        content += observe_by_device(model)
    first = [
        *text.notices,
        *(p for s in text.sections if s.name is SectionName.PRIORITY for p in s.paragraphs),
    ]
    summary = [text_item(codes.SUMMARY_ELEMENT, paragraph) for paragraph in first]
    content.append(container_item(codes.SUMMARY_SECTION, summary))
    content += [_encode_section(s) for s in text.sections if s.sentences and s.name in _SECTIONS]
    return content


def _encode_section(section: Section) -> Dataset:
    heading, element = _SECTIONS[section.name]
    return container_item(heading, [text_item(element, paragraph) for paragraph in section.paragraphs])


def _evidence(sources: Sequence[Dataset]) -> list[Dataset]:
    """Return the evidence: an item per study, and in it one per series."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for source in sources:
        series = studies.setdefault(str(source.StudyInstanceUID), {})
        series.setdefault(str(source.SeriesInstanceUID), []).append(source)
    return [_describe_study(study_uid, series) for study_uid, series in studies.items()]


def _describe_study(study_uid: str, by_series: Mapping[str, Sequence[Dataset]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for series_uid, headers in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = reference_instances(headers)
        study.ReferencedSeriesSequence.append(series)
    return study
