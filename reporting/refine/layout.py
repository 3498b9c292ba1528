"""Pure. A refined report, laid out: the worded sentences, with what safety fixes kept beside them.

What ``safety.py`` words (confidence, spread, doubt, absence) follows the sentence on the
same findings, word for word. Where one sentence tells several findings, each of these is
headed by the finding that it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inference.findings import Presence
from reporting.draft.words import capitalise
from reporting.facts import Fact, Facts
from reporting.recommendations import Recommendation
from reporting.refine.prompt import Ground, describe_place
from reporting.refine.repair import ToldSentence
from reporting.text import ReportText, Section, SectionName, Sentence, TextProvenance


def lay_out(
    draft: ReportText, told: Sequence[ToldSentence], ground: Ground, provenance: TextProvenance
) -> ReportText:
    """Return the report: findings, impression and recommendation as told, all other sections as drafted."""
    worded = {
        SectionName.FINDINGS: lambda section: _weave(section, told, ground.facts),
        SectionName.IMPRESSION: lambda section: _weave(section, told, ground.facts),
        SectionName.RECOMMENDATION: lambda section: _advise(section, told, ground.recommendations),
    }
    sections = tuple(
        replace(section, sentences=worded[section.name](section)) if section.name in worded else section
        for section in draft.sections
    )
    return replace(draft, sections=sections, provenance=provenance)


def _weave(section: Section, told: Sequence[ToldSentence], facts: Facts) -> tuple[Sentence, ...]:
    """Return the told sentences of a section, each fixed one after the last that tells its findings.

    What two models doubt alike is said once, since their sentences no longer stand apart.
    """
    worded = [_as_sentence(one, facts) for one in told if one.cited.section is section.name]
    followers: dict[int, list[Sentence]] = {}
    for fixed in (sentence for sentence in section.sentences if sentence.is_fixed):
        anchor = _find_anchor(fixed, worded)
        followers.setdefault(anchor, []).append(
            _head(fixed, worded[anchor], facts) if anchor < len(worded) else fixed
        )
    woven: list[Sentence] = []
    for index in range(len(worded) + 1):
        woven += [*worded[index : index + 1], *dict.fromkeys(followers.get(index, ()))]
    return tuple(woven)


def _find_anchor(fixed: Sentence, worded: Sequence[Sentence]) -> int:
    """Return the position of the last sentence on the findings of a fixed one; past the end if none is."""
    ids = set(fixed.finding_ids)
    return max((index for index, one in enumerate(worded) if ids & set(one.finding_ids)), default=len(worded))


def _head(fixed: Sentence, anchor: Sentence, facts: Facts) -> Sentence:
    """Return a fixed sentence that names its finding, if the sentence before it tells others as well."""
    fact = facts.by_id(fixed.finding_ids[0])
    others = {i for i in anchor.finding_ids if _is_present(facts.by_id(i))} - set(fixed.finding_ids)
    if fact is None or not others or not _is_present(fact):
        return fixed
    return replace(fixed, text=f"{capitalise(fact.noun)}, {describe_place(fact)}: {fixed.text}")


def _is_present(fact: Fact | None) -> bool:
    return fact is not None and fact.presence is Presence.PRESENT


def _advise(
    section: Section, told: Sequence[ToldSentence], allowed: Sequence[Recommendation]
) -> tuple[Sentence, ...]:
    """Return the chosen advice in its allowed words, then what every report ends with."""
    chosen = {alias for one in told if one.cited.section is section.name for alias in one.cited.aliases}
    advice = tuple(Sentence(text=one.text) for one in allowed if one.alias in chosen)
    return (*advice, *section.sentences)


def _as_sentence(told: ToldSentence, facts: Facts) -> Sentence:
    found = [facts.by_alias(alias) for alias in told.cited.aliases]
    return Sentence(
        text=told.cited.text, finding_ids=tuple(fact.fact_id for fact in found if fact is not None)
    )
