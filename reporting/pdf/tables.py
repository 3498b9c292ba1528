"""Pure. The tables of the PDF report: patient and study, findings, changes, models and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, Table, TableStyle

from inference.findings import Analysis, Estimate, Finding, ModelIdentity, Presence
from reporting import codes
from reporting.comparison import Change, Course, Dimension, Prior
from reporting.comparison.changes import measure
from reporting.comparison.words import format_percent, format_size
from reporting.context import SourceSeries
from reporting.draft.kinds import is_anatomy, is_outlined
from reporting.draft.words import capitalise, count, describe_place, describe_side, format_length
from reporting.pdf.fonts import markup
from reporting.pdf.page import CELL, CELL_HEAD, LABEL, LINE, SHADE
from reporting.projection import Views
from reporting.safety import describe_confidence, format_probability

_PRESENCE: Final = {
    Presence.PRESENT: "present",
    Presence.ABSENT: "not detected",
    Presence.UNDETERMINED: "undetermined",
}
_COURSES: Final = {
    Course.NEW: "not found then",
    Course.RESOLVED: "not found now",
    Course.INCREASED: "larger",
    Course.DECREASED: "smaller",
    Course.UNCHANGED: "unchanged",
    Course.UNCERTAIN: "uncertain",
}
_NONE: Final = "-"
_SHORT_DIGEST: Final = 16
_DATE_DIGITS: Final = 8

_SERIES: Final = ("Modality", "SeriesNumber", "SeriesDescription")

Cells = Sequence[Sequence[str]]


def patient_table(header: Dataset, width: float) -> Table:
    """Return who and what the report is about, as the images say it; what they do not say stays blank."""
    pairs = [
        ("Name", _name(header)),
        ("Study date", _moment(header)),
        ("Patient ID", _text(header, "PatientID")),
        ("Study", _text(header, "StudyDescription")),
        ("Birth date", _day(_text(header, "PatientBirthDate"))),
        ("Accession number", _text(header, "AccessionNumber")),
        ("Sex", _text(header, "PatientSex")),
        ("Study ID", _text(header, "StudyID")),
        ("Referring physician", _name(header, "ReferringPhysicianName")),
        ("Modality", _text(header, "Modality")),
    ]
    cells = [
        cell
        for label, value in pairs
        for cell in (Paragraph(markup(label), LABEL), Paragraph(markup(value), CELL))
    ]
    rows = [cells[index : index + 4] for index in range(0, len(cells), 4)]
    table = Table(rows, colWidths=[width * share for share in (0.19, 0.33, 0.18, 0.3)])
    table.setStyle(
        TableStyle(
            [
                ("BOX", (0, 0), (-1, -1), 0.6, LINE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            ]
        )
    )
    return table


def findings_table(analyses: Sequence[Analysis], views: Views, width: float) -> Table | None:
    """Return every finding and estimate of the models that answered; None if there are none."""
    rows = [
        row
        for analysis in analyses
        if not analysis.is_refused
        for row in (
            *(_finding_row(analysis, finding, views) for finding in analysis.findings),
            *(_estimate_row(analysis, estimate) for estimate in analysis.estimates),
        )
    ]
    if not rows:
        return None
    heads = ("Id", "Finding", "Place", "Size", "Confidence", "Algorithm")
    return _grid([heads, *rows], [width * share for share in (0.06, 0.21, 0.22, 0.17, 0.15, 0.19)])


def change_table(changes: Sequence[Change], width: float) -> Table | None:
    """Return the sizes then and now of what was compared; None if nothing was."""
    rows = [_change_row(change) for change in changes]
    if not rows:
        return None
    heads = ("Id", "Finding", "Then", "Now", "Difference", "Course")
    return _grid([heads, *rows], [width * share for share in (0.06, 0.28, 0.19, 0.19, 0.14, 0.14)])


def name_prior(prior: Prior) -> str:
    """Return which study was compared: its date, if the header has one, and how long ago."""
    day = _NONE if prior.studied_on is None else prior.studied_on.isoformat()
    return f"Study of {day}, {count(prior.days, 'day')} earlier"


def models_table(models: Sequence[ModelIdentity], width: float) -> Table:
    """Return which algorithms took part, precisely enough to find their weights again."""
    rows = [
        (
            f"{model.name} {model.version}",
            model.title,
            model.manufacturer,
            model.licence or _NONE,
            f"{model.weights_sha256[:_SHORT_DIGEST]}...",
        )
        for model in models
    ]
    heads = ("Algorithm and version", "What it does", "Manufacturer", "Licence", "SHA-256 of the weights")
    return _grid([heads, *rows], [width * share for share in (0.22, 0.26, 0.14, 0.16, 0.22)])


def inputs_table(analyses: Sequence[Analysis], sources: SourceSeries, width: float) -> Table:
    """Return which series each algorithm read, in which role, and what stood in for what."""
    rows = []
    for analysis in analyses:
        for item in analysis.inputs:
            header = next(iter(sources.get(item.series_uid, ())), Dataset())
            series = " ".join(
                _text(header, word) for word in ("Modality", "SeriesNumber", "SeriesDescription")
            )
            rows.append((analysis.model.name, item.role, series.strip() or _NONE, str(len(item.frames))))
        rows += [
            (analysis.model.name, role, f"not available; {substitute} stood in for it", _NONE)
            for role, substitute in analysis.substitutions
        ]
    heads = ("Algorithm", "Role", "Series: modality, number, description", "Images")
    return _grid([heads, *rows], [width * share for share in (0.23, 0.15, 0.5, 0.12)])


def _finding_row(analysis: Analysis, finding: Finding, views: Views) -> tuple[str, ...]:
    concept = codes.code_finding(finding.concept)
    stated = "" if is_anatomy(finding) else f": {_PRESENCE[finding.presence]}"
    return (
        finding.finding_id,
        f"{concept.label}{stated}",
        capitalise(_place(finding, views)),
        _sizes(finding) or _NONE,
        _confidence(finding),
        analysis.model.name,
    )


def _estimate_row(analysis: Analysis, estimate: Estimate) -> tuple[str, ...]:
    scale = codes.code_scale(estimate.scale)
    _, words = codes.code_category(estimate.scale, estimate.value)
    number = "" if estimate.number is None else f" ({estimate.number:.2f})"
    odds = [
        f"{codes.code_category(estimate.scale, value)[1]} {format_probability(p)}"
        for value, p in estimate.probabilities
    ]
    return (
        _NONE,
        f"{scale.name.meaning}: {words}{number}",
        "Whole study",
        _NONE,
        "; ".join(odds) or _NONE,
        analysis.model.name,
    )


def _place(finding: Finding, views: Views) -> str:
    if finding.box is not None:
        return describe_place(finding, views)
    if is_outlined(finding) or finding.laterality is not None:
        return describe_side(finding)
    return codes.code_site(finding.site).noun


def _confidence(finding: Finding) -> str:
    if finding.confidence is None:
        return _NONE
    stated = format_probability(finding.confidence)
    if finding.presence is Presence.PRESENT and (finding.box is not None or is_outlined(finding)):
        stated = f"{stated} ({describe_confidence(finding.confidence, finding.uncertainty)})"
    return stated if finding.uncertainty is None else f"{stated}, SD {finding.uncertainty:.2f}"


def _change_row(change: Change) -> tuple[str, ...]:
    concept = codes.code_finding(change.concept)
    identifier = change.now.finding_id if change.now is not None else _NONE
    if change.is_total:
        what = f"{concept.label}, all of the {codes.code_site(change.site).noun} together"
    else:
        one = change.now or change.before
        side = "" if one is None or one.laterality is None else f", {describe_side(one)}"
        what = f"{concept.label}{side}"
    then = [format_size(size.dimension, size.before) for size in change.sizes]
    now = [format_size(size.dimension, size.now) for size in change.sizes]
    if not change.sizes:
        then, now = [_state(change.before)], [_state(change.now)]
    return (
        identifier,
        what,
        "\n".join(then),
        "\n".join(now),
        "\n".join(format_percent(size) for size in change.sizes) or _NONE,
        _COURSES[change.course],
    )


def _sizes(finding: Finding) -> str:
    """Return volume, area and diameters, shorter than sentences have them."""
    sizes = measure(finding)
    stated = [format_size(d, sizes[d]) for d in (Dimension.VOLUME, Dimension.AREA) if d in sizes]
    diameters = [sizes[d] for d in (Dimension.LONG_AXIS, Dimension.PERPENDICULAR_AXIS) if d in sizes]
    if diameters:
        stated.append(" x ".join(format_length(value) for value in diameters))
    return "; ".join(stated)


def _state(finding: Finding | None) -> str:
    if finding is None:
        return _NONE
    stated = _sizes(finding) or _PRESENCE[finding.presence]
    return stated if finding.confidence is None else f"{stated} ({format_probability(finding.confidence)})"


def _grid(cells: Cells, widths: Sequence[float]) -> Table:
    head, *rows = cells
    lines = [[[markup(line) for line in text.split("\n")] for text in row] for row in rows]
    body = [[Paragraph("<br/>".join(cell), CELL) for cell in row] for row in lines]
    top = [Paragraph(markup(text, is_bold=True), CELL_HEAD) for text in head]
    table = Table([top, *body], colWidths=list(widths), repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, 0), SHADE),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 1.2 * mm),
                ("RIGHTPADDING", (0, 0), (-1, -1), 1.2 * mm),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
            ]
        )
    )
    return table


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def _name(header: Dataset, keyword: str = "PatientName") -> str:
    """Return a person's name: each of its representations, family name first (PS3.5 6.2.1.2)."""
    groups = [group.strip("^ ") for group in _text(header, keyword).split("=")]
    return " = ".join(group.replace("^", " ") for group in dict.fromkeys(groups) if group)


def _moment(header: Dataset) -> str:
    clock = _text(header, "StudyTime").partition(".")[0]
    time = f" {clock[:2]}:{clock[2:4]}" if clock[:4].isdigit() and len(clock) >= 4 else ""  # noqa: PLR2004
    return f"{_day(_text(header, 'StudyDate'))}{time}"


def _day(text: str) -> str:
    """Return a DICOM date as ISO 8601 writes it; what is no date is shown as it is."""
    if len(text) != _DATE_DIGITS or not text.isdigit():
        return text
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"
