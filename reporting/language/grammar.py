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

from inference.findings import Presence
from reporting.draft.words import capitalise
from reporting.facts import Fact, FactKind
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
from reporting.refine.plan import Group, Planned, Says, is_sure, name_others, plan_sentences
from reporting.refine.prompt import Ground
from reporting.text import SectionName

Said: TypeAlias = tuple[str, Sequence[Fact]]


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
    plan = plan_sentences(ground.facts)
    return (
        *_cite(SectionName.FINDINGS, [_say(planned, style) for planned in plan]),
        *_cite(SectionName.IMPRESSION, _impression(plan, style)),
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


# -- findings -----------------------------------------------------------------------------------


def _say(planned: Planned, style: _Style) -> Said:
    match planned.says:
        case Says.PRESENT:
            said = _state(planned.groups[0], style, is_further=planned.is_further)
            text = "; ".join([said, *_contrary(planned, style)])
        case Says.OPEN:
            text = _say_open(planned.groups[0], style)
        case Says.ABSENT:
            text = _say_absent(planned.groups, style)
        case Says.UNDETERMINED:
            text = _say_unsure(planned.groups, style)
        case Says.MEASURED:
            text = _say_structure(planned.facts[0], style)
    return text, planned.facts


def _state(facts: Group, style: _Style, *, is_further: bool = False) -> str:
    form = form_of(facts[0])
    many = _is_many(facts)
    side, place = _whereabouts(facts, style)
    size = sizes_of(facts[0], style.random) if len(facts) == 1 else ""
    more = "further" if is_further and form.is_counted and not many else ""
    be = verb_be(form, many=many)
    if is_sure(facts[0]):
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
    drawn = style.random.getrandbits(32)  # the same wording for every place
    told = [place_of(fact, Random(drawn)) for fact in _distinct(facts)]  # noqa: S311 - not a secret
    places = [place for place in told if place]
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


def _contrary(planned: Planned, style: _Style) -> list[str]:
    """Return what other models say of a finding that is there for one: clauses after a semicolon."""
    form = form_of(planned.groups[0][0])
    clauses = []
    denied = [fact for fact in planned.contrary if fact.presence is Presence.ABSENT]
    if denied:
        who, plural = name_others(denied)
        clauses.append(
            style.pick(
                (
                    f"{who} {'detect' if plural else 'detects'} no {form.bare}",
                    f"{who} {'do' if plural else 'does'} not detect {form.named()}",
                )
            )
        )
    unsure = [fact for fact in planned.contrary if fact.presence is Presence.UNDETERMINED]
    if unsure:
        who, _ = name_others(unsure)
        clauses.append(f"for {who} it is undetermined whether there {verb_be(form)} {form.named()}")
    return clauses


def _say_open(group: Group, style: _Style) -> str:
    """Return that one model finds nothing where another cannot tell."""
    form = form_of(group[0])
    denial = style.pick((f"detects no {form.bare}", f"does not detect {form.named()}"))
    doubt = f"it is undetermined whether there {verb_be(form)} {form.named()}"
    return f"one algorithm {denial}; for another algorithm {doubt}"


def _say_absent(groups: Sequence[Group], style: _Style) -> str:
    nouns = either([form_of(group[0]).bare for group in groups])
    forms = [
        f"no {nouns} is {style.missed}",
        f"there is no {nouns}",
        f"no evidence of {nouns}",
        f"{style.image} shows no {nouns}",
        f"there is no evidence of {nouns}",
    ]
    sites = {fact.site for group in groups for fact in group}
    where = f" in the {groups[0][0].site_noun}" if sites & {"brain", "head"} and len(sites) == 1 else ""
    return f"{style.pick(forms)}{where}"


def _say_unsure(groups: Sequence[Group], style: _Style) -> str:
    forms = [form_of(group[0]) for group in groups]
    names = either([form.named() for form in forms])
    be = verb_be(forms[0])
    return style.pick(
        (
            f"it could not be determined whether there {be} {names}",
            f"whether there {be} {names} could not be determined",
            f"whether there {be} {names} is undetermined",
            f"it is undetermined whether there {be} {names}",
        )
    )


def _say_structure(fact: Fact, style: _Style) -> str:
    if not fact.sizes:
        return f"the {fact.noun} was outlined"
    forms = [f"the {fact.noun} measures {_sizes_in_a_list(fact)}"]
    if len(fact.sizes) == 1 and fact.sizes[0].unit == "mL":
        forms += [f"the volume of the {fact.noun} is {fact.sizes[0].text}"]
        forms += [f"the {fact.noun} has a volume of {fact.sizes[0].text}"]
    return style.pick(forms)


def _sizes_in_a_list(fact: Fact) -> str:
    return " and ".join(size.text for size in fact.sizes)


# -- impression ---------------------------------------------------------------------------------


def _impression(plan: Sequence[Planned], style: _Style) -> list[Said]:
    """Return what is there in short, what stays open, and that nothing was found where nothing was."""
    said: list[Said] = []
    is_there = any(planned.says is Says.PRESENT for planned in plan)
    for planned in plan:
        match planned.says:
            case Says.PRESENT:
                said.append(_sum_up(planned, style))
            case Says.ABSENT if is_there:
                continue
            case Says.MEASURED if said and style.chance(0.5):
                continue
            case _:
                said.append(_say(planned, style))
    return said


def _sum_up(planned: Planned, style: _Style) -> Said:
    facts = planned.groups[0]
    form = form_of(facts[0])
    many = _is_many(facts)
    side, place = _whereabouts(facts, style)
    name = form.named("" if is_sure(facts[0]) else style.hedge, side, many=many)
    if form.is_counted and not many and style.chance(0.7):
        name = name.partition(" ")[2]
    size = short_size_of(facts[0]) if len(facts) == 1 else ""
    return "; ".join([f"{name}{place}{size}", *_contrary(planned, style)]), planned.facts


# -- what a group is ----------------------------------------------------------------------------


def _is_many(facts: Group) -> bool:
    """Say whether several facts are several findings: one model marked more than one place."""
    marks = [(fact.algorithm, fact.side, fact.zone) for fact in facts if fact.kind is FactKind.MARKED]
    return len({algorithm for algorithm, *_ in marks}) < len(marks) or len(_placed(facts)) > 1


def _placed(facts: Group) -> set[object]:
    return {(fact.side, fact.zone) for fact in facts if fact.side or fact.zone}


__all__ = ["STUDY_KINDS", "Form", "draw_facts", "write_answer_sentences"]
