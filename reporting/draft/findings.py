"""Pure. The findings section of the draft: what each model found, one sentence after the other."""

from __future__ import annotations

from collections.abc import Sequence

from inference.findings import Analysis, Estimate, Finding, Presence, Scale
from reporting import codes
from reporting.draft.kinds import is_anatomy, is_outlined, name_finding, number_titles, present
from reporting.draft.words import describe_place, describe_side, describe_sizes, join
from reporting.projection import Views
from reporting.safety import (
    ESTIMATE_SENTENCE,
    SURVIVAL_SENTENCE,
    describe_confidence,
    describe_doubt,
    describe_uncertainty,
    format_probability,
)
from reporting.text import Sentence

_ABSENCE_OF_SEVERAL = "This does not rule them out."
_NOTHING = {"detection": "marked", "segmentation": "outlined"}


def describe_findings(analysis: Analysis, views: Views) -> list[Sentence]:
    """Return what one model found; of a model that gave no answer, why."""
    if analysis.is_refused:
        reasons = [describe_doubt(doubt) for doubt in analysis.doubts if doubt.is_blocking]
        return [_fix(f"The algorithm {analysis.model.name}: {reason}") for reason in reasons]
    seen = present(analysis.findings)
    titles = number_titles(seen)
    sentences: list[Sentence] = []
    for finding in seen:
        sentences += _describe_present(analysis, finding, titles[finding.finding_id], views)
    sentences += _describe_others(analysis)
    if not analysis.findings and not analysis.estimates:
        verb = _NOTHING.get(analysis.model.task, "reported")
        sentences.append(_fix(f"The algorithm {verb} nothing."))
    for estimate in analysis.estimates:
        sentences += [_fix(text) for text in describe_estimate(estimate)]
    sentences += [_fix(describe_doubt(doubt)) for doubt in analysis.doubts]
    return sentences


def describe_estimate(estimate: Estimate) -> list[str]:
    """Return an estimate in words, with what it does not mean.

    Raises
    ------
    UnknownConceptError
        If the value has no wording in ``codes.py``.
    """
    scale = codes.code_scale(estimate.scale)
    _, words = codes.code_category(estimate.scale, estimate.value)
    if estimate.number is not None:
        ratio = f"{estimate.number:.2f} times that of the median training patient"
        return [f"The algorithm estimates {scale.noun} at {ratio}, in {words}.", SURVIVAL_SENTENCE]
    if estimate.scale is Scale.SURVIVAL_RISK:
        return [f"The algorithm places {scale.noun} in {words}.", SURVIVAL_SENTENCE]
    odds = [
        f"{codes.code_category(estimate.scale, value)[1]} {format_probability(probability)}"
        for value, probability in sorted(estimate.probabilities, key=lambda pair: -pair[1])
    ]
    stated = f" ({join(odds)})" if odds else ""
    return [f"The algorithm estimates {scale.noun}: most like {words}{stated}.", ESTIMATE_SENTENCE]


def _describe_present(analysis: Analysis, finding: Finding, title: str, views: Views) -> list[Sentence]:
    ids = (name_finding(analysis, finding),)
    fixed: list[str] = []
    if is_anatomy(finding):
        texts = _describe_structure(finding, title)
    elif finding.box is not None:
        texts = [f"{title}: marked {describe_place(finding, views)}.", *_size(finding)]
        fixed = _confidence(finding, "mark")
    elif is_outlined(finding):
        texts = [f"{title}: outlined {describe_side(finding)}.", *_size(finding)]
        fixed = _confidence(finding, "outline")
    else:
        texts = [_describe_label(finding, title)]
        fixed = _spread(finding)
    return [Sentence(text=text, finding_ids=ids) for text in texts] + [_fix(text, ids) for text in fixed]


def _describe_structure(finding: Finding, title: str) -> list[str]:
    sizes = describe_sizes(finding)
    return [f"{title}: {join(sizes)}." if sizes else f"{title} was outlined."]


def _describe_label(finding: Finding, title: str) -> str:
    stated = "" if finding.confidence is None else f" (probability {format_probability(finding.confidence)})"
    side = "" if finding.laterality is None else f", {describe_side(finding)}"
    return f"{title}: called present{side}{stated}."


def _describe_others(analysis: Analysis) -> list[Sentence]:
    """Return the findings that are absent, together, and those that could not be determined."""
    absent = [f for f in analysis.findings if f.presence is Presence.ABSENT]
    sentences = [_describe_undetermined(analysis, f) for f in analysis.findings if _is_undetermined(f)]
    ids = tuple(name_finding(analysis, f) for f in absent)
    if len(absent) == 1:
        concept, site = codes.code_finding(absent[0].concept), codes.code_site(absent[0].site)
        sentences.append(
            Sentence(text=f"No {concept.noun} was detected in the {site.noun}.", finding_ids=ids)
        )
    elif absent:
        sentences.append(Sentence(text=f"Not detected: {join(_nouns(absent))}.", finding_ids=ids))
        sentences.append(_fix(_ABSENCE_OF_SEVERAL, ids))
    return sentences


def _describe_undetermined(analysis: Analysis, finding: Finding) -> Sentence:
    concept, site = codes.code_finding(finding.concept), codes.code_site(finding.site)
    article = "an" if concept.noun[0] in "aeio" else "a"
    stated = "" if finding.confidence is None else f" (probability {format_probability(finding.confidence)})"
    return Sentence(
        text=f"Whether the {site.noun} shows {article} {concept.noun} could not be determined{stated}.",
        finding_ids=(name_finding(analysis, finding),),
    )


def _is_undetermined(finding: Finding) -> bool:
    return finding.presence is Presence.UNDETERMINED


def _nouns(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(codes.code_finding(finding.concept).noun for finding in findings))


def _size(finding: Finding) -> list[str]:
    sizes = describe_sizes(finding)
    return [f"It measures {join(sizes)}."] if sizes else []


def _confidence(finding: Finding, what: str) -> list[str]:
    if finding.confidence is None:
        return []
    word = describe_confidence(finding.confidence, finding.uncertainty)
    text = f"The algorithm's confidence in this {what} is {word} ({finding.confidence:.2f})."
    return [text, *_spread(finding)]


def _spread(finding: Finding) -> list[str]:
    return [] if finding.uncertainty is None else [describe_uncertainty(finding.uncertainty)]


def _fix(text: str, finding_ids: tuple[str, ...] = ()) -> Sentence:
    return Sentence(text=text, finding_ids=finding_ids, is_fixed=True)
