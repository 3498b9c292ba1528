"""Pure. The drafted report as a page: for the EHR's presentedForm, the run folder and the console.

Everything that comes from a header or a model card is escaped: a study description is
written by whoever typed it at the scanner. No patient is named on the page; the record
that it is filed in knows whose it is.
"""

from __future__ import annotations

from html import escape
from typing import Final

from reporting.text import ReportText, Section, SectionName

_TITLES: Final = {
    SectionName.PRIORITY: "Priority",
    SectionName.CLINICAL: "Clinical information",
    SectionName.PROCEDURE: "Procedure",
    SectionName.COMPARISON: "Comparison",
    SectionName.FINDINGS: "Findings",
    SectionName.IMPRESSION: "Impression",
    SectionName.RECOMMENDATION: "Recommendation",
}
_STYLE: Final = (
    "body{font-family:sans-serif;max-width:45rem;margin:1rem auto;color:#222}"
    "p.banner{border:2px solid #961414;background:#fbeaea;color:#961414;padding:.6rem;font-weight:bold}"
)


def render_page(text: ReportText, study_description: str = "") -> str:
    """Return the report as a complete HTML document.

    Parameters
    ----------
    text : ReportText
        The report that stands.
    study_description : str
        Study Description (0008,1030); untrusted.
    """
    title = escape(_printable(study_description)) or "Imaging study"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{_body(text)}</body></html>"
    )


def render_narrative(text: ReportText) -> str:
    """Return the report as the XHTML of a FHIR narrative (FHIR R4, Narrative.div)."""
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{_body(text)}</div>'


def title_section(name: SectionName) -> str:
    """Return the heading of a section."""
    return _TITLES[name]


def _body(text: ReportText) -> str:
    sections = "".join(_section(section) for section in text.sections if section.sentences)
    banner, *further = text.notices
    notes = "".join(f"<p>{escape(_printable(notice))}</p>" for notice in further)
    return f'<p class="banner">{escape(_printable(banner))}</p>{notes}{sections}'


def _section(section: Section) -> str:
    paragraphs = "".join(f"<p>{escape(_printable(paragraph))}</p>" for paragraph in section.paragraphs)
    return f"<h2>{title_section(section.name)}</h2>{paragraphs}"


def _printable(text: str) -> str:
    """Return ``text`` without control characters, which XML forbids."""
    return "".join(character if character.isprintable() else " " for character in text).strip()
