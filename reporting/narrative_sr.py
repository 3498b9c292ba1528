"""Pure. The drafted report as a Basic Text SR document (TID 2000).

Text only, so that every SR viewer shows it. The first section is the banner: whoever
reads the report reads first that an algorithm made it and that nobody reviewed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from inference.findings import ModelIdentity
from reporting import codes
from reporting.codes import Concept
from reporting.context import name_device
from reporting.envelope import Envelope, reference_instances, seal
from reporting.items import code_content_item, container_item, text_item, uid_item
from reporting.sr import link_predecessors
from reporting.text import ReportText, Section, SectionName

#: Heading (CID 7001) and element (CID 7002) of each section.
_SECTIONS: Final[dict[SectionName, tuple[Concept, Concept]]] = {
    SectionName.PROCEDURE: (codes.PROCEDURE_SECTION, codes.PROCEDURE_ELEMENT),
    SectionName.FINDINGS: (codes.FINDINGS_SECTION, codes.FINDING),
    SectionName.IMPRESSION: (codes.IMPRESSIONS_SECTION, codes.IMPRESSION_ELEMENT),
    SectionName.RECOMMENDATION: (codes.RECOMMENDATIONS_SECTION, codes.RECOMMENDATION_ELEMENT),
}


def encode_narrative(text: ReportText, sources: Sequence[Dataset], envelope: Envelope) -> Dataset:
    """Return the report as a Basic Text SR document.

    Parameters
    ----------
    text : ReportText
        The report; its banner becomes the first section.
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
    document.ContentTemplateSequence = [_template("2000")]
    document.SOPClassUID = BasicTextSRStorage
    document.SOPInstanceUID = envelope.sop_instance_uid
    document.Modality = "SR"
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.CompletionFlag = "COMPLETE"
    document.VerificationFlag = "UNVERIFIED"
    document.PreliminaryFlag = "PRELIMINARY"
    document.CurrentRequestedProcedureEvidenceSequence = [_evidence(sources, envelope)]
    link_predecessors(document, envelope)
    return seal(document, envelope)


def _content(text: ReportText, envelope: Envelope) -> list[Dataset]:
    content = [code_content_item(codes.LANGUAGE_OF_CONTENT, codes.ENGLISH, "HAS CONCEPT MOD")]
    for model in envelope.models:
        content += _observe_by_device(model)
    content.append(container_item(codes.SUMMARY_SECTION, [text_item(codes.SUMMARY_ELEMENT, text.banner)]))
    content += [_encode_section(section) for section in text.sections if section.sentences]
    return content


def _encode_section(section: Section) -> Dataset:
    heading, element = _SECTIONS[section.name]
    return container_item(heading, [text_item(element, paragraph) for paragraph in section.paragraphs])


def _observe_by_device(model: ModelIdentity) -> list[Dataset]:
    """Return the rows of TID 1002 and TID 1004 for a device."""
    relationship = "HAS OBS CONTEXT"
    return [
        code_content_item(codes.OBSERVER_TYPE, codes.DEVICE, relationship),
        uid_item(codes.DEVICE_OBSERVER_UID, name_device(model), relationship),
        text_item(codes.DEVICE_OBSERVER_NAME, model.name, relationship),
        text_item(codes.DEVICE_OBSERVER_MANUFACTURER, model.manufacturer, relationship),
        text_item(codes.DEVICE_OBSERVER_MODEL, f"{model.name} {model.version}", relationship),
    ]


def _template(identifier: str) -> Dataset:
    item = Dataset()
    item.MappingResource = "DCMR"
    item.TemplateIdentifier = identifier
    return item


def _evidence(sources: Sequence[Dataset], envelope: Envelope) -> Dataset:
    """Return the study item of the evidence, series by series."""
    by_series: dict[str, list[Dataset]] = {}
    for source in sources:
        by_series.setdefault(str(source.SeriesInstanceUID), []).append(source)
    study = Dataset()
    study.StudyInstanceUID = envelope.source.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for series_uid, headers in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = reference_instances(headers)
        study.ReferencedSeriesSequence.append(series)
    return study
