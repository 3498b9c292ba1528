"""Pure. The report grammar: facts in varied, fluent sentences that say neither more nor less.

What a language model is trained on. Every sentence cites its facts, every fact stands once
under findings, and every text passes ``reporting/checker/``. A style is drawn a report at
a time, so that a report keeps to its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from inference.findings import Laterality, Presence
from reporting.draft.words import capitalise, join
from reporting.facts import Certainty, Fact, FactKind
from reporting.language.drawing import STUDY_KINDS, draw_facts
from reporting.language.phrases import (
    Form,
    either,
    form_of,
    join_places,
    place_of,
    short_size_of,
    side_adjective,
    sizes_of,
    verb_be,
    zone_of,
)
from reporting.refine.answer import CitedSentence
from reporting.refine.prompt import Ground
from reporting.text import SectionName

Said: TypeAlias = tuple[str, Sequence[Fact]]
Group: TypeAlias = list[Fact]

_MOST_IN_A_LIST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """The words that one report keeps to.

    Attributes
    ----------
    seen, missed : str
        Participle of what is there, and of what is not.
    hedge : str
        Adjective before what may be there.
    image : str
        What shows it.
    """

    random: Random
    seen: str
    missed: str
    hedge: str
    image: str

    def pick(self, forms: Sequence[str]) -> str:
        """Return one of several wordings."""
        return self.random.choice(forms)

    def chance(self, share: float) -> bool:
        """Say yes in a share of the cases."""
        return self.random.random() < share


def write_answer_sentences(ground: Ground, random: Random) -> tuple[CitedSentence, ...]:
    """Return a report that states every fact once, sums up, and copies the advice.

    Parameters
    ----------
    ground : Ground
        Its facts and recommendations; what is unverified in it is left alone.
    random : random.Random
        Equal grounds and states give equal reports.

    Returns
    -------
    tuple of CitedSentence
        In the order of the report; the recommendations alone where there are no facts.
    """
    is_film = "radiograph" in ground.examination
    style = _Style(
        random=random,
        seen=random.choice(("seen", "seen", "noted", "identified", "visible", "present")),
        missed=random.choice(("seen", "seen", "detected", "identified", "visible")),
        hedge=random.choice(("possible", "possible", "suspected")),
        image=random.choice(("the radiograph", "the film")) if is_film else "the examination",
    )
    facts = ground.facts.facts
    structures = [f for f in facts if f.kind is FactKind.ANATOMY and f.presence is Presence.PRESENT]
    groups = _group([fact for fact in facts if fact not in structures])
    return (
        *_cite(SectionName.FINDINGS, [*_findings(groups, style), *_structures(structures, style)]),
        *_cite(SectionName.IMPRESSION, _impression(groups, structures, style)),
        *(
            CitedSentence(section=SectionName.RECOMMENDATION, text=one.text, aliases=(one.alias,))
            for one in ground.recommendations
        ),
    )


def _cite(section: SectionName, said: Sequence[Said]) -> list[CitedSentence]:
    return [
        CitedSentence(
            section=section,
            text=f"{capitalise(text)}.",
            aliases=tuple(dict.fromkeys(fact.alias for fact in facts)),
        )
        for text, facts in said
    ]


def _group(facts: Sequence[Fact]) -> list[Group]:
    """Return the facts of each finding together, whichever model stated them, in the order of the prompt."""
    groups: dict[str, Group] = {}
    for fact in sorted(facts, key=lambda fact: fact.presence is not Presence.PRESENT):
        groups.setdefault(fact.noun, []).append(fact)
    return list(groups.values())


# -- findings -----------------------------------------------------------------------------------


def _findings(groups: Sequence[Group], style: _Style) -> list[Said]:
    said: list[Said] = []
    for group in groups:
        if _is_present(group):
            said += _say_present(group, style)
    said += [_say_open(group, style) for group in groups if _is_open(group)]
    said += [_say_absent(part, style) for part in _split(_all_of(groups, Presence.ABSENT), style)]
    said += [_say_unsure(part, style) for part in _split(_all_of(groups, Presence.UNDETERMINED), style)]
    return said


def _say_present(group: Group, style: _Style) -> list[Said]:
    """Return what is there, surer statements first; what other models say to the contrary at the end."""
    there = [fact for fact in group if fact.presence is Presence.PRESENT]
    said: list[Said] = []
    told: set[str] = set()
    for facts in _statements(there):
        is_further = facts[0].algorithm in told
        told |= {fact.algorithm for fact in facts}
        said.append((_state(facts, style, is_further=is_further), facts))
    contrary = _contrary(group, style)
    if contrary:
        text, last = said[-1]
        said[-1] = f"{text}; {contrary}", [*last, *(f for f in group if f not in there)]
    return said


def _statements(there: Group) -> list[Group]:
    """Return which facts of one finding share a sentence: those without a size, alike in certainty.

    What one model marked twice in one place is told twice, as what has a size is.
    """
    if len(there) == 1 or any(fact.sizes for fact in there) or not _are_apart(there):
        return [[fact] for fact in there]
    return [part for part in ([f for f in there if _is_sure(f) is sure] for sure in (True, False)) if part]


def _are_apart(there: Group) -> bool:
    """Say whether the places tell apart all that one model marked."""
    marks = [fact for fact in there if fact.kind is FactKind.MARKED]
    many = [fact for fact in marks if sum(other.algorithm == fact.algorithm for other in marks) > 1]
    places = {(fact.algorithm, fact.side, fact.zone) for fact in many}
    sides = {fact.side for fact in many}
    return len(places) == len(many) and not sides & {None, Laterality.BILATERAL}


def _state(facts: Group, style: _Style, *, is_further: bool = False) -> str:
    form = form_of(facts[0])
    many = _is_many(facts)
    side, place = _whereabouts(facts, style)
    size = sizes_of(facts[0], style.random) if len(facts) == 1 else ""
    more = "further" if is_further and form.is_counted and not many else ""
    be = verb_be(form, many=many)
    if _is_sure(facts[0]):
        frames = _plain_frames(form.named(more, side, many=many), be, place, style)
    elif style.chance(0.5):
        frames = _plain_frames(form.named(more, style.hedge, side, many=many), be, place, style)
    else:
        frames = _hedged_frames(form.named(more, side, many=many), be, place, style)
    return f"{style.pick(frames)}{size}"


def _whereabouts(facts: Group, style: _Style) -> tuple[str, str]:
    """Return the side before the noun, if it stands there, and the place after it with its space."""
    if len(facts) == 1 and side_adjective(facts[0]) and style.chance(0.6):
        zone = zone_of(facts[0])
        return side_adjective(facts[0]), f" {zone}" if zone else ""
    places = [place for place in (place_of(fact, style.random) for fact in _distinct(facts)) if place]
    return "", f" {join_places(places)}" if places else ""


def _distinct(facts: Group) -> list[Fact]:
    """Return one fact for each place."""
    return list({(fact.side, fact.zone, fact.site): fact for fact in facts}.values())


def _plain_frames(name: str, be: str, place: str, style: _Style) -> list[str]:
    frames = [
        f"there {be} {name}{place}",
        f"{name} {be} {style.seen}{place}",
        f"{style.image} shows {name}{place}",
    ]
    return [*frames, f"{place.strip()}, {name} {be} {style.seen}"] if place else frames


def _hedged_frames(name: str, be: str, place: str, style: _Style) -> list[str]:
    frames = [
        f"{name} {be} suspected{place}",
        f"{name} may be present{place}",
        f"{style.image} may show {name}{place}",
        f"{name} {be} possible{place}",
    ]
    return [*frames, f"{place.strip()}, {name} may be present"] if place else frames


def _contrary(group: Group, style: _Style) -> str:
    """Return what other models say of a finding that is there for one: clauses after a semicolon."""
    form = form_of(group[0])
    clauses = []
    denied = [fact for fact in group if fact.presence is Presence.ABSENT]
    if denied:
        who, plural = _others(denied)
        clauses.append(
            style.pick(
                (
                    f"{who} {'detect' if plural else 'detects'} no {form.bare}",
                    f"{who} {'do' if plural else 'does'} not detect {form.named()}",
                )
            )
        )
    unsure = [fact for fact in group if fact.presence is Presence.UNDETERMINED]
    if unsure:
        who, _ = _others(unsure)
        clauses.append(f"for {who} it is undetermined whether there {verb_be(form)} {form.named()}")
    return "; ".join(clauses)


def _others(facts: Group) -> tuple[str, bool]:
    several = len({fact.algorithm for fact in facts}) > 1
    return ("two algorithms", True) if several else ("another algorithm", False)


def _say_open(group: Group, style: _Style) -> Said:
    """Return that one model finds nothing where another cannot tell."""
    form = form_of(group[0])
    denial = style.pick((f"detects no {form.bare}", f"does not detect {form.named()}"))
    doubt = f"it is undetermined whether there {verb_be(form)} {form.named()}"
    return f"one algorithm {denial}; for another algorithm {doubt}", group


def _say_absent(groups: Sequence[Group], style: _Style) -> Said:
    nouns = either([form_of(group[0]).bare for group in groups])
    forms = [
        f"no {nouns} is {style.missed}",
        f"there is no {nouns}",
        f"no evidence of {nouns}",
        f"{style.image} shows no {nouns}",
        f"there is no evidence of {nouns}",
    ]
    sites = {fact.site for fact in _flat(groups)}
    where = f" in the {groups[0][0].site_noun}" if sites & {"brain", "head"} and len(sites) == 1 else ""
    return f"{style.pick(forms)}{where}", _flat(groups)


def _say_unsure(groups: Sequence[Group], style: _Style) -> Said:
    forms = [form_of(group[0]) for group in groups]
    names = either([form.named() for form in forms])
    be = verb_be(forms[0])
    return (
        style.pick(
            (
                f"it could not be determined whether there {be} {names}",
                f"whether there {be} {names} could not be determined",
                f"whether there {be} {names} is undetermined",
                f"it is undetermined whether there {be} {names}",
            )
        ),
        _flat(groups),
    )


def _structures(structures: Sequence[Fact], style: _Style) -> list[Said]:
    """Return the sizes of normal structures: in one sentence, or one each."""
    said = [fact for fact in structures if fact.sizes]
    bare = [fact for fact in structures if not fact.sizes]
    sentences: list[Said] = [(f"the {fact.noun} was outlined", [fact]) for fact in bare]
    if not said:
        return sentences
    if len(said) == 1 or style.chance(0.4):
        return sentences + [(_say_structure(fact, style), [fact]) for fact in said]
    parts = [f"{fact.noun} {_sizes_in_a_list(fact)}" for fact in said]
    of_parts = [f"{_sizes_in_a_list(fact)} for the {fact.noun}" for fact in said]
    return [
        *sentences,
        (style.pick((f"measured: {join(parts)}", f"the measurements are {join(of_parts)}")), said),
    ]


def _say_structure(fact: Fact, style: _Style) -> str:
    forms = [f"the {fact.noun} measures {_sizes_in_a_list(fact)}"]
    if len(fact.sizes) == 1 and fact.sizes[0].unit == "mL":
        forms += [f"the volume of the {fact.noun} is {fact.sizes[0].text}"]
        forms += [f"the {fact.noun} has a volume of {fact.sizes[0].text}"]
    return style.pick(forms)


def _sizes_in_a_list(fact: Fact) -> str:
    return " and ".join(size.text for size in fact.sizes)


# -- impression ---------------------------------------------------------------------------------


def _impression(groups: Sequence[Group], structures: Sequence[Fact], style: _Style) -> list[Said]:
    """Return what is there in short, what stays open, and that nothing was found where nothing was."""
    said: list[Said] = []
    for group in groups:
        if _is_present(group):
            said += _sum_up(group, style)
    absent, unsure = _all_of(groups, Presence.ABSENT), _all_of(groups, Presence.UNDETERMINED)
    if absent and not said:
        said += [_say_absent(part, style) for part in _split(absent, style)]
    said += [_say_open(group, style) for group in groups if _is_open(group)]
    if unsure:
        said += [_say_unsure(part, style) for part in _split(unsure, style)]
    if structures and (not said or style.chance(0.5)):
        said += _structures(structures, style)
    return said


def _sum_up(group: Group, style: _Style) -> list[Said]:
    there = [fact for fact in group if fact.presence is Presence.PRESENT]
    said: list[Said] = []
    for facts in _statements(there):
        form = form_of(facts[0])
        many = _is_many(facts)
        side, place = _whereabouts(facts, style)
        hedge = "" if _is_sure(facts[0]) else style.hedge
        name = form.named(hedge, side, many=many)
        if form.is_counted and not many and style.chance(0.7):
            name = name.partition(" ")[2]
        size = short_size_of(facts[0]) if len(facts) == 1 else ""
        said.append((f"{name}{place}{size}", facts))
    contrary = _contrary(group, style)
    if contrary:
        text, last = said[-1]
        said[-1] = f"{text}; {contrary}", [*last, *(f for f in group if f not in there)]
    return said


# -- what a group is ----------------------------------------------------------------------------


def _is_sure(fact: Fact) -> bool:
    """Say whether a present fact is stated without a hedge."""
    return fact.certainty is Certainty.HIGH


def _is_present(group: Group) -> bool:
    return any(fact.presence is Presence.PRESENT for fact in group)


def _is_open(group: Group) -> bool:
    return not _is_present(group) and len({fact.presence for fact in group}) > 1


def _is_many(facts: Group) -> bool:
    """Say whether several facts are several findings: one model marked more than one place."""
    marks = [(fact.algorithm, fact.side, fact.zone) for fact in facts if fact.kind is FactKind.MARKED]
    return len({algorithm for algorithm, *_ in marks}) < len(marks) or len(_placed(facts)) > 1


def _placed(facts: Group) -> set[object]:
    return {(fact.side, fact.zone) for fact in facts if fact.side or fact.zone}


def _all_of(groups: Sequence[Group], presence: Presence) -> list[Group]:
    return [group for group in groups if all(fact.presence is presence for fact in group)]


def _split(groups: list[Group], style: _Style) -> list[list[Group]]:
    """Return a long list in two halves, now and then a short one too."""
    if len(groups) > _MOST_IN_A_LIST or (len(groups) > 3 and style.chance(0.3)):  # noqa: PLR2004
        half = (len(groups) + 1) // 2
        return [groups[:half], groups[half:]]
    return [groups] if groups else []


def _flat(groups: Sequence[Group]) -> list[Fact]:
    return [fact for group in groups for fact in group]


__all__ = ["STUDY_KINDS", "Form", "draw_facts", "write_answer_sentences"]
