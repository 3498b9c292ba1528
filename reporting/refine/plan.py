"""Pure. The plan of a report: which facts share a sentence, and in which order the sentences stand.

What one finding is to several models is one matter: what is there, and what another model says to the
contrary, stand in one sentence. The prompt shows the plan a line a sentence, so that a language model has to
find the words and nothing else; the report grammar writes its training texts by the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from inference.findings import Laterality, Presence
from reporting.facts import Certainty, Fact, FactKind, Facts

#: Facts of one finding, whichever model stated them.
Group: TypeAlias = tuple[Fact, ...]

_MOST_IN_A_LIST: Final = 6


class Says(StrEnum):
    """What a sentence says of its facts."""

    PRESENT = "present"
    OPEN = "open"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One sentence.

    Attributes
    ----------
    groups : tuple of Group
        One finding each. A sentence on what is present or open has one.
    contrary : tuple of Fact
        What other models say to the contrary of a present finding: absent or undetermined.
    is_further : bool
        Whether an earlier sentence told of the same finding by the same model.
    """

    says: Says
    groups: tuple[Group, ...]
    contrary: Group = ()
    is_further: bool = False

    @property
    def facts(self) -> Group:
        """All facts that the sentence rests on, what is contrary last."""
        return (*(fact for group in self.groups for fact in group), *self.contrary)


def plan_sentences(facts: Facts) -> tuple[Planned, ...]:
    """Return the sentences of the findings: every fact in exactly one.

    Returns
    -------
    tuple of Planned
        What is present; what one model denies where another cannot tell; what is absent; what is
        undetermined; normal structures.
    """
    structures = [f for f in facts.facts if f.kind is FactKind.ANATOMY and f.presence is Presence.PRESENT]
    groups = _group(fact for fact in facts.facts if fact not in structures)
    planned = [one for group in groups for one in _plan_present(group)]
    planned += [Planned(says=Says.OPEN, groups=(group,)) for group in groups if _is_open(group)]
    for says, presence in ((Says.ABSENT, Presence.ABSENT), (Says.UNDETERMINED, Presence.UNDETERMINED)):
        alike = [group for group in groups if all(fact.presence is presence for fact in group)]
        planned += [Planned(says=says, groups=part) for part in _parts(alike)]
    planned += [Planned(says=Says.MEASURED, groups=((fact,),)) for fact in structures]
    return tuple(planned)


def is_sure(fact: Fact) -> bool:
    """Say whether a present finding is stated without a word of doubt."""
    return fact.certainty is Certainty.HIGH or fact.kind is FactKind.ANATOMY


def name_others(facts: Sequence[Fact]) -> tuple[str, bool]:
    """Return who states what is contrary, ``another algorithm`` or ``two algorithms``, and if plural."""
    several = len({fact.algorithm for fact in facts}) > 1
    return ("two algorithms", True) if several else ("another algorithm", False)


def _group(facts: Iterable[Fact]) -> list[Group]:
    """Return the facts of each finding together, those that are present first."""
    groups: dict[str, list[Fact]] = {}
    for fact in sorted(facts, key=lambda fact: fact.presence is not Presence.PRESENT):
        groups.setdefault(fact.noun, []).append(fact)
    return [tuple(group) for group in groups.values()]


def _is_open(group: Group) -> bool:
    presences = {fact.presence for fact in group}
    return Presence.PRESENT not in presences and len(presences) > 1


def _plan_present(group: Group) -> list[Planned]:
    there = [fact for fact in group if fact.presence is Presence.PRESENT]
    planned: list[Planned] = []
    told: set[str] = set()
    parts = _share(there)
    for facts in parts:
        is_last = facts is parts[-1]
        planned.append(
            Planned(
                says=Says.PRESENT,
                groups=(facts,),
                contrary=tuple(f for f in group if f not in there) if is_last else (),
                is_further=any(fact.algorithm in told for fact in facts),
            )
        )
        told |= {fact.algorithm for fact in facts}
    return planned


def _share(there: Sequence[Fact]) -> list[Group]:
    """Return which present facts of one finding share a sentence: those without a size, alike in certainty.

    What one model marked twice in one place is told twice, as what has a size is.
    """
    if len(there) < 2 or any(fact.sizes for fact in there) or not _are_apart(there):  # noqa: PLR2004
        return [(fact,) for fact in there]
    parts = (tuple(fact for fact in there if is_sure(fact) is sure) for sure in (True, False))
    return [part for part in parts if part]


def _are_apart(there: Sequence[Fact]) -> bool:
    """Say whether the places tell apart all that one model marked."""
    marks = [fact for fact in there if fact.kind is FactKind.MARKED]
    many = [fact for fact in marks if sum(other.algorithm == fact.algorithm for other in marks) > 1]
    places = {(fact.algorithm, fact.side, fact.zone) for fact in many}
    sides = {fact.side for fact in many}
    return len(places) == len(many) and not sides & {None, Laterality.BILATERAL}


def _parts(groups: Sequence[Group]) -> list[tuple[Group, ...]]:
    """Return a long list in parts of about the same length."""
    if not groups:
        return []
    number = -(-len(groups) // _MOST_IN_A_LIST)
    size = -(-len(groups) // number)
    return [tuple(groups[first : first + size]) for first in range(0, len(groups), size)]
