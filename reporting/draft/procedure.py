"""Pure. The first parts of the draft: how urgent the study looks, and who read what."""

from __future__ import annotations

from collections.abc import Sequence

from inference.findings import Analysis, Finding
from reporting.draft.words import capitalise, count, end_sentence, join, name_series
from reporting.projection import Views, locate
from reporting.safety import HEATMAP_SENTENCE, POSITION_SENTENCE, describe_doubt, describe_triage
from reporting.text import Sentence


def describe_priority(analyses: Sequence[Analysis]) -> tuple[Sentence, ...]:
    """Return what must be read first: triage, and which model gave no answer."""
    sentences: list[str] = []
    for analysis in analyses:
        said = [describe_doubt(doubt) for doubt in analysis.doubts if doubt.is_blocking]
        if analysis.triage is not None and not analysis.is_refused:
            said.append(describe_triage(analysis.triage))
        name = f"{analysis.model.name}: " if len(analyses) > 1 else ""
        sentences += [f"{name}{text}" for text in said]
    return tuple(Sentence(text=text, is_fixed=True) for text in sentences)


def describe_procedure(
    analyses: Sequence[Analysis], views: Views, *, has_heatmaps: bool
) -> tuple[Sentence, ...]:
    """Return which algorithms read which series, and what stood in for what."""
    sentences = [text for analysis in analyses for text in _describe_reading(analysis)]
    if any(_has_estimated_place(f, views) for analysis in analyses for f in analysis.findings):
        sentences.append(POSITION_SENTENCE)
    if has_heatmaps:
        sentences.append(HEATMAP_SENTENCE)
    return tuple(Sentence(text=text, is_fixed=True) for text in sentences)


def _describe_reading(analysis: Analysis) -> list[str]:
    model = analysis.model
    series = [f"{name_series(item.role)} ({count(len(item.frames), 'image')})" for item in analysis.inputs]
    sentences = [f"The images were read by the algorithm {model.name}, version {model.version}."]
    sentences.append(f"It read {join(series)}.")
    sentences += [
        f"{capitalise(name_series(role))} was not available; {name_series(substitute)} stood in for it."
        for role, substitute in analysis.substitutions
    ]
    sentences += [capitalise(end_sentence(note)) for note in analysis.notes]
    return sentences


def _has_estimated_place(finding: Finding, views: Views) -> bool:
    if finding.box is None:
        return False
    place = locate(finding.box, views)
    return place.zone is not None or (finding.laterality is None and place.side is not None)
