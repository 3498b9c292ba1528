"""Pure. The drafted report: plain sentences made from findings by rule.

The draft is the report that stands when there is no language model, and the ground
that a language model's wording is checked against. It says what was measured, on
which side, by which model, from which series, and what that does not mean. It knows
no patient: it is made from analyses alone, and from how radiographs are turned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import Final

from inference.findings import Analysis
from reporting.draft.findings import describe_findings
from reporting.draft.impression import summarise
from reporting.draft.kinds import name_finding
from reporting.draft.procedure import describe_priority, describe_procedure
from reporting.draft.words import format_area, format_length, format_volume
from reporting.projection import Views
from reporting.safety import REVIEW_SENTENCE
from reporting.text import Author, ReportText, Section, SectionName, Sentence, TextProvenance

_DRAFT_REMARK: Final = "Drafted from the findings by rule; no language model took part."
_NO_VIEWS: Final[Views] = MappingProxyType({})
#: Left out where there is nothing to tell.
_OPTIONAL: Final = frozenset({SectionName.PRIORITY, SectionName.COMPARISON})


def draft_report(
    analyses: Sequence[Analysis],
    views: Views = _NO_VIEWS,
    explained: Collection[str] = (),
    comparison: Sequence[Sentence] = (),
) -> ReportText:
    """Return the report that rules draft from findings.

    Parameters
    ----------
    analyses : sequence of Analysis
        What each model said, in the order in which they are reported; at least one.
    views : mapping of FrameReference to RadiographView
        How the radiographs show the patient (`reporting.projection.read_views`); without it
        marks on them have no side but the model's own.
    explained : collection of str
        Names of the models that come with a heat map.
    comparison : sequence of Sentence
        What changed since an earlier study (`reporting.comparison.describe_changes`).

    Returns
    -------
    ReportText
        Priority and comparison (if there is any to tell), procedure, findings, impression
        and recommendation; equal arguments give equal text.

    Raises
    ------
    ValueError
        If there are no analyses.
    UnknownConceptError
        If a finding or an estimate has no wording in ``codes.py``.
    """
    if not analyses:
        raise ValueError("A report needs at least one analysis.")
    has_heatmaps = any(a.model.name in explained and not a.is_refused for a in analyses)
    findings = tuple(sentence for analysis in analyses for sentence in describe_findings(analysis, views))
    priority = describe_priority(analyses)
    sections = {
        SectionName.PRIORITY: priority,
        SectionName.PROCEDURE: describe_procedure(analyses, views, has_heatmaps=has_heatmaps),
        SectionName.COMPARISON: tuple(comparison),
        SectionName.FINDINGS: findings,
        SectionName.IMPRESSION: summarise(analyses, views),
        SectionName.RECOMMENDATION: (Sentence(text=REVIEW_SENTENCE, is_fixed=True),),
    }
    return ReportText(
        sections=tuple(
            Section(name=name, sentences=sentences)
            for name, sentences in sections.items()
            if sentences or name not in _OPTIONAL
        ),
        provenance=TextProvenance(author=Author.RULES, remark=_DRAFT_REMARK),
    )


__all__ = ["draft_report", "format_area", "format_length", "format_volume", "name_finding"]
