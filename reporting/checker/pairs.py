"""Pure. Places and sizes of several findings that are told together, each with the finding it belongs to.

«Nodules in the upper zone (12 mm) and the lower zone (8 mm)», «the volumes of A and B are 5 mL and 3 mL»,
«two nodules: one nodule ... and one nodule ...». Where the parts do not pair off exactly, nothing is paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from inference.findings import Laterality, Presence
from reporting.checker.clauses import PLACES, is_connector
from reporting.checker.items import Item
from reporting.checker.lexicon import Form, Part
from reporting.checker.modifiers import read_numbers, read_places
from reporting.checker.statements import Stated, Statement

_HEADINGS: Final = frozenset({"finding", "findings", "abnormalities"})
_HEADED: Final = frozenset({Part.ALGORITHM, Part.ARTICLE, Part.NAME, Part.EXAMINATION})
_LEADING: Final = frozenset(
    {"one", "another", "a second", "a third", "the other in", "the other on", "the other at"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """One finding with the items before and after it that belong to it."""

    mention: Item
    before: tuple[Item, ...]
    after: tuple[Item, ...]


def split_pairs(phrase: Phrase) -> tuple[Phrase, ...]:
    """Return one phrase for each place with its size: «nodules in the upper (12 mm) and lower zone (8 mm)».

    Nothing where the items do not pair off: then they are read together.
    """
    number = read_numbers(phrase.before).count
    is_many = phrase.mention.entry.form is Form.MANY and number != 1
    placed = read_places(phrase.before)
    is_both = any(place.side is Laterality.BILATERAL for place in placed)
    if not is_many or any(place.zone or (place.side and not is_both) for place in placed):
        return ()
    parts: list[list[Item]] = [[]]
    for index, item in enumerate(phrase.after):
        rest = phrase.after[index + 1 :]
        if is_connector(item) and _is_pair(parts[-1]) and _start_of(rest) is _start_of(parts[0]):
            parts.append([])
        else:
            parts[-1].append(item)
    is_whole = len(parts) > 1 and all(_is_pair(part) for part in parts)
    if not is_whole or number not in {None, len(parts)}:
        return ()
    sides = {place.side for part in parts for place in read_places(part)}
    if is_both and sides != {Laterality.LEFT, Laterality.RIGHT}:
        return ()
    return tuple(
        Phrase(
            mention=phrase.mention,
            before=tuple(item for item in phrase.before if item.part is not Part.SIDE),
            after=tuple(item for item in part if item.part not in {Part.COUNT, Part.ARTICLE}),
        )
        for part in parts
    )


def _is_pair(items: Sequence[Item]) -> bool:
    """Say whether items give one place, and a size or that it is the place of one."""
    numbers = read_numbers([item for item in items if item.part is not Part.COUNT])
    is_led = any(item.text in _LEADING for item in items)
    is_sure = not any(item.part in {Part.CERTAINTY, Part.NEGATION, Part.DENIAL} for item in items)
    counts = [item for item in items if item.part is Part.COUNT]
    is_one = all(item.value == "1" for item in counts) and len(counts) <= 1
    return (
        is_sure
        and is_one
        and len(read_places(items)) == 1
        and not numbers.stray
        and numbers.count is None
        and (bool(numbers.sizes) or is_led)
    )


def _start_of(items: Sequence[Item]) -> Part | None:
    """Return whether a pair begins with its place or with its size."""
    kinds = (
        Part.UNIT if item.part in {Part.NUMBER, Part.UNIT} else Part.SIDE
        for item in items
        if item.part in {*PLACES, Part.NUMBER, Part.UNIT}
    )
    return next(kinds, None)


def pair_in_order(statements: Sequence[Statement], phrases: Sequence[Phrase]) -> list[Statement] | None:
    """Return statements with their sizes in order: «the volumes of A and B are 5 mL and 3 mL»."""
    *first, last = phrases
    if not first or any(not is_connector(item) for phrase in first for item in phrase.after):
        return None
    allowed = {Part.NUMBER, Part.UNIT, Part.FINITE, Part.CONNECTOR, Part.FILLER, Part.MARK, Part.QUANTITY}
    before = {Part.ARTICLE, Part.QUANTITY, Part.FILLER, Part.CONNECTOR}
    is_plain = all(item.part in allowed for item in last.after) and all(
        item.part in before or is_connector(item) for phrase in phrases for item in phrase.before
    )
    sizes = read_numbers(last.after).sizes
    if not is_plain or len(sizes) != len(phrases) or any(size.is_total for size in sizes):
        return None
    return [
        replace(statement, sizes=(size,), form=Form.MASS)
        if statement.form is not Form.ONE
        else replace(statement, sizes=(size,))
        for statement, size in zip(statements, sizes, strict=True)
    ]


def drop_title(statements: list[Statement], phrases: Sequence[Phrase]) -> list[Statement]:
    """Return statements without the title that counts them: «two nodules: one nodule ... and one ...»."""
    title, *others = statements
    is_title = bool(phrases[0].after) and phrases[0].after[-1].text == ":"
    is_counted = title.count is not None and title.count == len(others)
    is_bare = not title.places and not title.sizes and title.probability is None
    is_plain = title.certainty in {Stated.PLAIN, Stated.ATTRIBUTED} and title.presence is Presence.PRESENT
    are_ones = all(
        one.concepts == title.concepts and one.form is Form.ONE and one.count in {None, 1} for one in others
    )
    is_heading = (
        phrases[0].mention.text in _HEADINGS
        and all(item.part in _HEADED for item in phrases[0].before)
        and len(phrases[0].after) == 1
    )
    if is_title and is_heading and others:  # «Findings: a nodule ...»
        return others
    return others if is_title and is_counted and is_bare and is_plain and are_ones else statements
