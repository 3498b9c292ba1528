"""Pure. The impression of the draft: what all models of a study say together, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from inference.findings import Analysis, Finding, Presence, Quantity
from reporting import codes
from reporting.draft.findings import describe_estimate
from reporting.draft.kinds import is_anatomy, is_outlined, name_finding, present
from reporting.draft.words import (
    capitalise,
    count,
    describe_place,
    describe_side,
    format_volume,
    join,
    number_word,
    plural,
)
from reporting.projection import Views
from reporting.safety import ABSENCE_SENTENCE, REFUSAL_SENTENCE, describe_doubt, format_probability
from reporting.text import Sentence

Said: TypeAlias = tuple[Analysis, Finding]


def summarise(analyses: Sequence[Analysis], views: Views) -> tuple[Sentence, ...]:
    """Return the impression: what was outlined, marked, called and estimated, then the doubts."""
    answered = [analysis for analysis in analyses if not analysis.is_refused]
    sentences: list[Sentence] = []
    for analysis in answered:
        sentences += _summarise_outlined(analysis)
    sentences += _summarise_marks(answered, views)
    sentences += _summarise_nothing(answered)
    sentences += _summarise_undetermined(answered)
    for analysis in answered:
        for estimate in analysis.estimates:
            sentences += [Sentence(text=text, is_fixed=True) for text in describe_estimate(estimate)]
    doubts = dict.fromkeys(describe_doubt(doubt) for analysis in answered for doubt in analysis.doubts)
    sentences += [Sentence(text=text, is_fixed=True) for text in doubts]  # what two models doubt, once
    sentences += [
        Sentence(text=f"{analysis.model.name}: {REFUSAL_SENTENCE}", is_fixed=True)
        for analysis in analyses
        if analysis.is_refused
    ]
    return tuple(sentences)


def _summarise_outlined(analysis: Analysis) -> list[Sentence]:
    outlined = [f for f in present(analysis.findings) if is_outlined(f)]
    structures = [f for f in outlined if is_anatomy(f)]
    lesions = [f for f in outlined if not is_anatomy(f)]
    sentences = []
    for kind in dict.fromkeys((f.concept, f.site) for f in lesions):
        group = [finding for finding in lesions if (finding.concept, finding.site) == kind]
        sentences.append(_summarise_kind(analysis, group))
    if structures:
        sentences.append(_summarise_structures(analysis, structures))
    return sentences


def _summarise_kind(analysis: Analysis, group: list[Finding]) -> Sentence:
    noun = codes.code_finding(group[0].concept).noun
    site = codes.code_site(group[0].site).noun
    ids = tuple(name_finding(analysis, finding) for finding in group)
    volumes = [m for m in (f.measured(Quantity.VOLUME) for f in group) if m is not None]
    volume = format_volume(sum(codes.value_in_ml(m) for m in volumes)) if volumes else None
    if len(group) == 1:
        size = f" with a volume of {volume}" if volume else ""
        return Sentence(text=f"One {noun} outlined {describe_side(group[0])}{size}.", finding_ids=ids)
    size = f" with a total volume of {volume}" if volume and len(volumes) == len(group) else ""
    many = f"{number_word(len(group))} {plural(noun)}"
    return Sentence(text=f"{many} outlined in the {site}{size}.", finding_ids=ids)


def _summarise_structures(analysis: Analysis, structures: list[Finding]) -> Sentence:
    parts = []
    for finding in structures:
        volume = finding.measured(Quantity.VOLUME)
        noun = codes.code_finding(finding.concept).noun
        parts.append(noun if volume is None else f"{noun} {format_volume(codes.value_in_ml(volume))}")
    return Sentence(
        text=f"Measured: {join(parts)}.",
        finding_ids=tuple(name_finding(analysis, finding) for finding in structures),
    )


def _summarise_marks(analyses: Sequence[Analysis], views: Views) -> list[Sentence]:
    """Return one sentence per finding that was marked or called present, by whichever model."""
    said = [(analysis, f) for analysis in analyses for f in present(analysis.findings) if not is_outlined(f)]
    sentences = []
    for concept in dict.fromkeys(finding.concept for _, finding in said):
        group = [pair for pair in said if pair[1].concept == concept]
        denied = [
            (analysis, f)
            for analysis in analyses
            for f in analysis.findings
            if f.concept == concept and f.presence is Presence.ABSENT
        ]
        sentences.append(_summarise_concept(group, denied, views))
    return sentences


def _summarise_concept(group: Sequence[Said], denied: Sequence[Said], views: Views) -> Sentence:
    parts = []
    boxes = [finding for _, finding in group if finding.box is not None]
    if boxes:
        places = join(list(dict.fromkeys(describe_place(box, views) for box in boxes)))
        number = "" if len(boxes) == 1 else f" in {count(len(boxes), 'place')}"
        parts.append(f"marked{number} {places}")
    parts += [f"called present{_odds(finding)}" for _, finding in group if finding.box is None]
    parts += [f"but called absent by {analysis.model.name}{_odds(finding)}" for analysis, finding in denied]
    label = codes.code_finding(group[0][1].concept).label
    disagreement = " The algorithms disagree." if denied else ""
    return Sentence(
        text=f"{label}: {'; '.join(parts)}.{disagreement}",
        finding_ids=tuple(name_finding(analysis, finding) for analysis, finding in (*group, *denied)),
        is_fixed=bool(denied),  # two facts that contradict each other are told by rule alone
    )


def _summarise_nothing(analyses: Sequence[Analysis]) -> list[Sentence]:
    """Return, for models that saw nothing, that they saw nothing and what that does not mean."""
    silent = [a for a in analyses if not present(a.findings) and not a.estimates]
    sentences = []
    for analysis in silent:
        who = "The algorithm" if len(analyses) == 1 else capitalise(f"the algorithm {analysis.model.name}")
        ids = tuple(name_finding(analysis, finding) for finding in analysis.findings)
        text = f"{who} detected no abnormality of the kind it looks for."
        said = (text, ABSENCE_SENTENCE)
        sentences += [Sentence(text=sentence, finding_ids=ids, is_fixed=True) for sentence in said]
    return sentences


def _summarise_undetermined(analyses: Sequence[Analysis]) -> list[Sentence]:
    open_ones = [
        (analysis, f)
        for analysis in analyses
        for f in analysis.findings
        if f.presence is Presence.UNDETERMINED and present(analysis.findings)
    ]
    if not open_ones:
        return []
    nouns = list(dict.fromkeys(codes.code_finding(finding.concept).noun for _, finding in open_ones))
    ids = tuple(name_finding(analysis, finding) for analysis, finding in open_ones)
    return [Sentence(text=f"Could not be determined: {join(nouns)}.", finding_ids=ids)]


def _odds(finding: Finding) -> str:
    if finding.confidence is None:
        return ""
    return f" (probability {format_probability(finding.confidence)})"
