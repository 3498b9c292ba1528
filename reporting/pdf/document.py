"""Pure. The report as a PDF file: what a clinician prints, and reads without any viewer.

It says nothing that the other results do not say: the text that stands, the numbers behind it,
the pictures, and who made them. Patient and study stand on its first page only, as the images
name them; the file's own description (title, author, subject) names no patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.dataset import Dataset
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, KeepTogether, Paragraph, Spacer, Table

from dicom_node.headers import OWN_MANUFACTURER
from inference.findings import Analysis
from reporting.comparison import Comparison
from reporting.context import Reading, ReportContext, ResultObject, SourceSeries
from reporting.html import title_section
from reporting.pdf.figures import collect_figures, lay_out
from reporting.pdf.fonts import markup
from reporting.pdf.page import (
    ALARM,
    ALARM_PALE,
    BODY,
    HEADING,
    NOTICE,
    POINT,
    SUBHEADING,
    SUBTITLE,
    TITLE,
    PageFrame,
    PageSize,
    build_pdf,
)
from reporting.pdf.tables import (
    change_table,
    findings_table,
    inputs_table,
    models_table,
    name_prior,
    patient_table,
)
from reporting.projection import read_views
from reporting.safety import ABSENCE_SENTENCE, HEATMAP_SENTENCE, REVIEW_SENTENCE, describe_doubt
from reporting.text import Author, ReportText

DOCUMENT_TITLE: Final = "AI draft report, not reviewed"
_AUTHORS: Final = {
    Author.RULES: "The sentences were made from the findings by rule.",
    Author.LANGUAGE_MODEL: "The sentences were worded by a language model and checked against the findings.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNotes:
    """What a model's card says that a reader of its results must know."""

    intended_use: str = ""
    limits: tuple[str, ...] = ()


def note_model(intended_use: str, limits: object) -> ModelNotes:
    """Return the notes of a model's card, which writes its limits as a text, a list or a mapping."""
    return ModelNotes(intended_use=intended_use.strip(), limits=tuple(_flatten(limits)))


def _flatten(value: object) -> Iterator[str]:
    """Yield the texts in a card's field."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from (f"{key}: {text}" for text in _flatten(held))
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _flatten(held)
    elif value is not None and str(value).strip():
        yield " ".join(str(value).split())


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentExtras:
    """What the PDF has beyond the other results.

    Attributes
    ----------
    comparisons : tuple of Comparison
        Earlier studies that this one was compared with, and what changed.
    notes : mapping of str to ModelNotes
        By model name.
    """

    size: PageSize = PageSize.A4
    comparisons: tuple[Comparison, ...] = ()
    notes: Mapping[str, ModelNotes] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """What tells the objects of a run apart that was compared with other studies; empty without one."""
        return "+".join(comparison.prior.run_id for comparison in self.comparisons)


def render_report(
    readings: Sequence[Reading],
    sources: SourceSeries,
    text: ReportText,
    *,
    header: Dataset,
    objects: Sequence[ResultObject],
    context: ReportContext,
    extras: DocumentExtras,
) -> bytes:
    """Return the report as a PDF file.

    Parameters
    ----------
    readings : sequence of Reading
        What each model said, with the pixels for pictures of heat maps.
    sources : mapping of str to sequence of Dataset
        Headers of every series that was read, by Series Instance UID.
    text : ReportText
        The report that stands.
    header : Dataset
        An image of the study that the report is filed in: patient and study are named as it has them.
    objects : sequence of ResultObject
        The results of the same run; their pictures are shown.
    context : ReportContext
        The run; its ``created_at`` is the time of the file.
    extras : DocumentExtras
        Paper, earlier studies, cards.

    Returns
    -------
    bytes
        Equal arguments give equal bytes.
    """
    frame = PageFrame(
        title=DOCUMENT_TITLE,
        author=f"{OWN_MANUFACTURER} {context.software_version}",
        run_id=context.run_id,
        created_at=context.created_at,
        size=extras.size,
    )
    analyses = [reading.analysis for reading in readings]
    figures = collect_figures(readings, objects, sources)
    story: list[Flowable] = [
        Paragraph(markup(DOCUMENT_TITLE, is_bold=True), TITLE),
        Paragraph(markup(_describe_making(context)), SUBTITLE),
        patient_table(header, frame.width),
        Spacer(1, 3 * mm),
        _notice(text.notices, frame.width),
        *_sections(text),
        *_findings(analyses, sources, frame),
        *_comparisons(extras, frame),
        *(_headed("Images", lay_out(figures, frame)) if figures else ()),
        *_origin(analyses, sources, text, extras, frame),
    ]
    return build_pdf(story, frame)


def _describe_making(context: ReportContext) -> str:
    made = context.created_at.strftime("%Y-%m-%d %H:%M UTC")
    return f"Made on {made} by {OWN_MANUFACTURER} {context.software_version}. English."


def _notice(notices: Sequence[str], width: float) -> Table:
    table = Table([[[Paragraph(markup(said, is_bold=True), NOTICE) for said in notices]]], colWidths=[width])
    table.setStyle([("BOX", (0, 0), (-1, -1), 1, ALARM), ("BACKGROUND", (0, 0), (-1, -1), ALARM_PALE)])
    return table


def _sections(text: ReportText) -> list[Flowable]:
    return [
        flowable
        for section in text.sections
        if section.sentences
        for flowable in _headed(title_section(section.name), [_paragraph(p) for p in section.paragraphs])
    ]


def _findings(analyses: Sequence[Analysis], sources: SourceSeries, frame: PageFrame) -> list[Flowable]:
    table = findings_table(analyses, read_views(sources), frame.width)
    return [] if table is None else _headed("Findings and measurements", [table])


def _comparisons(extras: DocumentExtras, frame: PageFrame) -> list[Flowable]:
    flowables: list[Flowable] = []
    for comparison in extras.comparisons:
        table = change_table(comparison.changes, frame.width)
        if table is not None:
            name = name_prior(comparison.prior)
            flowables += [Paragraph(markup(name, is_bold=True), SUBHEADING), table]
    return _headed("Compared with earlier studies", flowables) if flowables else []


def _origin(
    analyses: Sequence[Analysis],
    sources: SourceSeries,
    text: ReportText,
    extras: DocumentExtras,
    frame: PageFrame,
) -> list[Flowable]:
    """Return who made it, from what, what must be doubted, and what it does not say."""
    models = list(dict.fromkeys(analysis.model for analysis in analyses))
    flowables = _headed("Algorithms", [models_table(models, frame.width)])
    flowables += _headed("Images that were read", [inputs_table(analyses, sources, frame.width)])
    doubts = [
        f"{a.model.name}: {said}"
        for a in analyses
        for said in (*(describe_doubt(doubt) for doubt in a.doubts), *a.notes)
    ]
    if doubts:
        flowables += _headed("Doubts and notes", [_paragraph(doubt) for doubt in doubts])
    provenance = text.provenance
    worded = f" Language model: {provenance.language_model}." if provenance.language_model else ""
    making = f"{_AUTHORS[provenance.author]}{worded} {provenance.remark}"
    flowables += _headed("How the text was made", [_paragraph(making)])
    limits = [REVIEW_SENTENCE, f"Nothing found: {ABSENCE_SENTENCE}", HEATMAP_SENTENCE]
    said = [_paragraph(limit) for limit in limits]
    for model in models:
        notes = extras.notes.get(model.name, ModelNotes())
        own = [f"Intended use: {notes.intended_use}"] if notes.intended_use else []
        if own or notes.limits:
            said.append(Paragraph(markup(f"{model.name} {model.version}", is_bold=True), SUBHEADING))
            said += [_paragraph(text) for text in own]
            said += [Paragraph(markup(text), POINT, bulletText="-") for text in notes.limits]
    flowables += _headed("Limits", said)
    return flowables


def _headed(title: str, flowables: Sequence[Flowable]) -> list[Flowable]:
    """Return a heading that stays with what follows it."""
    first, *others = flowables
    return [KeepTogether([Paragraph(markup(title, is_bold=True), HEADING), first]), *others]


def _paragraph(text: str) -> Paragraph:
    return Paragraph(markup(text), BODY)
