"""Pure. Why the words of a clause can be taken in more than one way: what a sentence must not leave open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reporting.checker.clauses import (
    ALTERNATIVES,
    INDEFINITE,
    MENTIONS,
    PLACES,
    PREMODIFIERS,
    Clause,
    is_connector,
)
from reporting.checker.items import Item
from reporting.checker.lexicon import Part
from reporting.checker.pairs import Phrase
from reporting.checker.statements import Stated

#: Words of certainty that tie what comes after them to what stands before: «nodule suggestive of».
TYING: Final = frozenset(
    {
        "suggest",
        "suggests",
        "suggesting",
        "suggestive",
        "suggested",
        "suspicious",
        "raise",
        "raises",
        "raising",
    }
)
_OF_THE_IMAGE: Final = frozenset({"findings", "finding", "features", "appearances", "appearance", "signs"})
_BEING: Final = frozenset({"may be", "might be", "could be"})
_PLACING: Final = frozenset({"in", "on", "at", "of", "over", "within", "inside", "onto", "for"})
_SIDES_LEFT_OPEN: Final = frozenset(
    {"right or left", "left or right", "right or the left", "left or the right"}
    | {"right or on the left", "left or on the right", "right or left sided", "left or right sided"}
)


def find_ties(items: Sequence[Item]) -> list[str]:
    """Return why one finding is made a sign of another, or is said to be it."""
    seen = False
    for index, item in enumerate(items):
        if item.part is Part.CERTAINTY and seen:
            words = item.text.split()
            is_of_image = words[0] in _OF_THE_IMAGE or items[index - 1].text in _OF_THE_IMAGE
            is_tied = any(after.part in MENTIONS for after in items[index + 1 :])
            if TYING.intersection(words) and is_tied and not is_of_image:
                return ["one finding is made a sign of another"]
            if item.text in _BEING and _leads_to_finding(items[index + 1 :]):
                return ["one finding is said to be another"]
        seen = seen or item.part is Part.CONCEPT
    return []


def _leads_to_finding(after: Sequence[Item]) -> bool:
    for item in after:
        if item.part in MENTIONS:
            return True
        if item.part not in PREMODIFIERS:
            return False
    return False


def is_place_measured(before: Sequence[Item]) -> bool:
    """Say whether a size before a finding is that of a place: «the left side, 12 mL, shows»."""
    sizes = [index for index, item in enumerate(before) if item.part is Part.UNIT]
    places = [index for index, item in enumerate(before) if item.part in PLACES]
    if not sizes or not places or places[0] > sizes[-1]:
        return False
    return not all(item.part in PREMODIFIERS for item in before[sizes[-1] :])


def find_unpaired(items: Sequence[Item], *, is_paired: bool, is_in_order: bool) -> list[str]:
    """Return why words that pair several things pair nothing."""
    problems = []
    if not is_in_order and any(item.text == "respectively" for item in items):
        problems.append("«respectively» leads to nothing")
    if not is_paired and any(
        item.part is Part.FILLER and item.text.startswith("the other ") for item in items
    ):
        problems.append("it is not said which other one is meant")
    return problems


def find_either(clause: Clause, *, is_there: bool) -> list[str]:
    """Return why «either» leaves something open: it may only say that neither side has what is absent."""
    for index, item in enumerate(clause.items):
        if item.text == "either" and item.part is Part.FILLER:
            is_placed = index > 0 and clause.items[index - 1].text in _PLACING
            if is_there or not is_placed:
                return ["«either» leaves open which"]
        if item.text in _SIDES_LEFT_OPEN and is_there:
            return ["the side is left open"]
    return []


def find_list_traps(phrases: Sequence[Phrase]) -> list[str]:
    """Return why the reach of a negation is open: «no effusion, nodule», «no effusion and nodule is seen»."""
    if len(phrases) <= 1:
        return []
    joints = [item for item in phrases[-2].after if is_connector(item)]
    joints += [item for item in phrases[-1].before if is_connector(item)]
    words = {item.value for item in joints}
    if words <= {","}:
        return ["a list after a negation ends without «or»"]
    has_or = not ALTERNATIVES.isdisjoint(words)
    is_pair = len(phrases) == 2  # noqa: PLR2004
    if is_pair and "," in words and has_or and any(item.text in INDEFINITE for item in phrases[-1].before):
        return ["a negation may or may not reach what comes after a comma"]
    has_verb = any(item.part is Part.FINITE and item.value in {"is", "was"} for item in phrases[-1].after)
    if has_verb and not has_or:
        return ["a negation may or may not reach the last of a list"]
    return []


def is_clashing(items: Sequence[Item]) -> bool:
    """Say whether a finding is told both with doubt and with high confidence."""
    values = {item.value for item in items if item.part is Part.CERTAINTY}
    return Stated.HIGH.value in values and len(values) > 1
