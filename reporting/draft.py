"""Pure. The drafted report: plain sentences made from findings by rule.

The draft is the report that stands when there is no language model, and the ground
that a language model's wording is checked against. It says what was measured, on
which side, by which model, from which series, and what that does not mean. It knows
no patient: it is made from analyses alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inference.findings import Analysis, Finding, Laterality, Presence, Quantity
from reporting import codes
from reporting.safety import ABSENCE_SENTENCE, REVIEW_SENTENCE, describe_confidence
from reporting.text import Author, ReportText, Section, SectionName, Sentence, TextProvenance

_SIDES = {
    Laterality.LEFT: "left",
    Laterality.RIGHT: "right",
}
_DRAFT_REMARK = "Drafted from the findings by rule; no language model took part."


def draft_report(analyses: Sequence[Analysis]) -> ReportText:
    """Return the report that rules draft from findings.

    Parameters
    ----------
    analyses : sequence of Analysis
        What each model said, in the order in which they are reported; at least one.

    Returns
    -------
    ReportText
        Procedure, findings, impression and recommendation; equal analyses give equal text.

    Raises
    ------
    ValueError
        If there are no analyses.
    UnknownConceptError
        If a finding has no wording in ``codes.py``.
    """
    if not analyses:
        raise ValueError("A report needs at least one analysis.")
    return ReportText(
        sections=(
            Section(name=SectionName.PROCEDURE, sentences=_all(_describe_procedure, analyses)),
            Section(name=SectionName.FINDINGS, sentences=_all(_describe_findings, analyses)),
            Section(name=SectionName.IMPRESSION, sentences=_all(_summarise, analyses)),
            Section(name=SectionName.RECOMMENDATION, sentences=(Sentence(text=REVIEW_SENTENCE),)),
        ),
        provenance=TextProvenance(author=Author.RULES, remark=_DRAFT_REMARK),
    )


def name_finding(analysis: Analysis, finding: Finding) -> str:
    """Return the id by which a sentence names a finding: unique among all analyses of a run."""
    return f"{analysis.model.name}/{finding.finding_id}"


def format_volume(volume_ml: float) -> str:
    """Return a volume as text reads it: two decimals below 1 mL, else one."""
    return f"{volume_ml:.2f} mL" if round(volume_ml, 2) < 1 else f"{volume_ml:.1f} mL"


def format_length(length_mm: float) -> str:
    """Return a length as text reads it: whole millimetres from 10 mm, one decimal below."""
    return f"{length_mm:.1f} mm" if round(length_mm, 1) < 10 else f"{length_mm:.0f} mm"  # noqa: PLR2004


def _all(
    describe: Callable[[Analysis], list[Sentence]], analyses: Sequence[Analysis]
) -> tuple[Sentence, ...]:
    return tuple(sentence for analysis in analyses for sentence in describe(analysis))


def _describe_procedure(analysis: Analysis) -> list[Sentence]:
    model = analysis.model
    series = [f"{_series_noun(item.role)} ({_count(len(item.frames), 'image')})" for item in analysis.inputs]
    sentences = [
        Sentence(text=f"The images were read by the algorithm {model.name}, version {model.version}."),
        Sentence(text=f"It read {_join(series)}."),
    ]
    sentences += [
        Sentence(text=f"{_series_noun(role)} was not available; {_series_noun(substitute)} stood in for it.")
        for role, substitute in analysis.substitutions
    ]
    sentences += [Sentence(text=_end(note)) for note in analysis.notes]
    return [
        Sentence(text=_capitalise(sentence.text), finding_ids=sentence.finding_ids) for sentence in sentences
    ]


def _describe_findings(analysis: Analysis) -> list[Sentence]:
    present = _present(analysis)
    sentences = []
    for finding in present:
        sentences += _describe_finding(analysis, finding, is_only=len(present) == 1)
    sentences += [
        _describe_other(analysis, finding) for finding in analysis.findings if finding not in present
    ]
    if not analysis.findings:
        sentences.append(Sentence(text="The algorithm outlined nothing."))
    return sentences


def _describe_finding(analysis: Analysis, finding: Finding, *, is_only: bool) -> list[Sentence]:
    concept, site = codes.code_finding(finding.concept), codes.code_site(finding.site)
    ids = (name_finding(analysis, finding),)
    title = concept.label if is_only else f"{concept.label} {finding.finding_id.removeprefix('F')}"
    sentences = [Sentence(text=f"{title}: {_place(finding, site.noun)}.", finding_ids=ids)]
    sizes = _sizes(finding)
    if sizes:
        sentences.append(Sentence(text=f"It measures {_join(sizes)}.", finding_ids=ids))
    if finding.confidence is not None:
        word = describe_confidence(finding.confidence)
        sentences.append(
            Sentence(
                text=f"The algorithm's confidence in this outline is {word} ({finding.confidence:.2f}).",
                finding_ids=ids,
            )
        )
    return sentences


def _describe_other(analysis: Analysis, finding: Finding) -> Sentence:
    concept, site = codes.code_finding(finding.concept), codes.code_site(finding.site)
    ids = (name_finding(analysis, finding),)
    if finding.presence is Presence.ABSENT:
        return Sentence(text=f"No {concept.noun} was detected in the {site.noun}.", finding_ids=ids)
    return Sentence(
        text=f"Whether the {site.noun} shows a {concept.noun} could not be determined.", finding_ids=ids
    )


def _summarise(analysis: Analysis) -> list[Sentence]:
    present = _present(analysis)
    if not present:
        ids = tuple(name_finding(analysis, finding) for finding in analysis.findings)
        return [
            Sentence(text="The algorithm detected no abnormality of the kind it looks for.", finding_ids=ids),
            Sentence(text=ABSENCE_SENTENCE, finding_ids=ids),
        ]
    sentences = []
    for kind in dict.fromkeys((f.concept, f.site) for f in present):
        group = [finding for finding in present if (finding.concept, finding.site) == kind]
        sentences.append(_summarise_kind(analysis, group))
    return sentences


def _summarise_kind(analysis: Analysis, group: list[Finding]) -> Sentence:
    noun = codes.code_finding(group[0].concept).noun
    site = codes.code_site(group[0].site).noun
    ids = tuple(name_finding(analysis, finding) for finding in group)
    volumes = [m for m in (f.measured(Quantity.VOLUME) for f in group) if m is not None]
    volume = format_volume(sum(codes.value_in_ml(m) for m in volumes)) if volumes else None
    if len(group) == 1:
        size = f" with a volume of {volume}" if volume else ""
        return Sentence(text=f"One {noun}, {_place(group[0], site)}{size}.", finding_ids=ids)
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else f"{noun}s"
    size = f" with a total volume of {volume}" if volume and len(volumes) == len(group) else ""
    return Sentence(text=f"{_number_word(len(group))} {plural} of the {site}{size}.", finding_ids=ids)


def _present(analysis: Analysis) -> list[Finding]:
    return [finding for finding in analysis.findings if finding.presence is Presence.PRESENT]


def _place(finding: Finding, site: str) -> str:
    if finding.laterality is None:
        return f"in the {site}"
    if finding.laterality is Laterality.BILATERAL:
        return f"on both sides of the {site}"
    return f"on the {_SIDES[finding.laterality]} side of the {site}"


def _sizes(finding: Finding) -> list[str]:
    sizes = []
    volume = finding.measured(Quantity.VOLUME)
    if volume is not None:
        sizes.append(f"{format_volume(codes.value_in_ml(volume))} in volume")
    long_axis = finding.measured(Quantity.LONG_AXIS)
    perpendicular = finding.measured(Quantity.PERPENDICULAR_AXIS)
    if long_axis is not None and perpendicular is not None:
        pair = (format_length(codes.value_in_mm(long_axis)), format_length(codes.value_in_mm(perpendicular)))
        sizes.append(f"{pair[0]} x {pair[1]} in its longest and perpendicular diameters")
    elif long_axis is not None:
        sizes.append(f"{format_length(codes.value_in_mm(long_axis))} in its longest diameter")
    return sizes


def _series_noun(role: str) -> str:
    return f"the {_ROLES.get(role, role.replace('_', ' '))} series"


#: How series roles of the model cards are written in a sentence.
_ROLES = {
    "flair": "FLAIR",
    "t1": "T1-weighted",
    "t1_pre": "T1-weighted",
    "t1_post": "contrast-enhanced T1-weighted",
    "t1ce": "contrast-enhanced T1-weighted",
    "t2": "T2-weighted",
    "pre": "pre-contrast T1-weighted",
    "post": "post-contrast T1-weighted",
}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _join(parts: Sequence[str]) -> str:
    if len(parts) <= 1:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


_NUMBER_WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")


def _number_word(number: int) -> str:
    return _NUMBER_WORDS[number] if number < len(_NUMBER_WORDS) else str(number)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _end(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
