"""Pure. A sentence as clauses, each of one polarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from reporting.checker.items import Item
from reporting.checker.lexicon import Part

MENTIONS: Final = frozenset({Part.CONCEPT, Part.GENERIC})
PLACES: Final = frozenset({Part.SIDE, Part.SITE, Part.ZONE})
ALTERNATIVES: Final = frozenset({"or", "and or", "and / or", "nor"})
INDEFINITE: Final = frozenset({"a", "an"})
#: What may stand between a connector and the finding that it brings in.
PREMODIFIERS: Final = frozenset(
    {
        Part.ARTICLE,
        Part.SIDE,
        Part.SITE,
        Part.ZONE,
        Part.CERTAINTY,
        Part.COUNT,
        Part.NUMBER,
        Part.UNIT,
        Part.TIMES,
        Part.REFUSED,
        Part.UNKNOWN,
        Part.PRONOUN,
    }
)
_OPENERS: Final = frozenset({Part.ARTICLE, Part.COUNT, Part.CERTAINTY, Part.PRONOUN})
_DOUBTFUL_VERBS: Final = frozenset({"is", "are", "may", "might", "could"})
#: First words of the negations that are a verb: «does not show a mass and a nodule» denies both.
_VERBAL: Final = frozenset({"did", "does", "do", "fails", "failed", "not", "unable", "neither", "nor"})
_PLACING: Final = frozenset({"in", "on", "at", "within", "over", "of"})
_TELLING: Final = frozenset({Part.FINITE, Part.DENIAL, Part.NEGATION})
_PLACE_PARTS: Final = frozenset({Part.SIDE, Part.ZONE, Part.SITE, Part.ARTICLE})
_ACCOMPANYING: Final = frozenset(
    {
        "with",
        "along with",
        "together with",
        "accompanied by",
        "and with",
        "plus",
        "in addition to",
        "and also",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """A part of a sentence in which every finding is present, absent or undetermined alike.

    Attributes
    ----------
    negations : int
        How many words deny; more than one cannot be read.
    is_led : bool
        Whether it begins with its negation.
    """

    items: tuple[Item, ...]
    negations: int
    is_led: bool

    @property
    def has_mention(self) -> bool:
        """Whether it names a finding."""
        return any(item.part in MENTIONS for item in self.items)

    @property
    def has_pronoun(self) -> bool:
        """Whether it speaks of a finding named before."""
        return any(item.part is Part.PRONOUN for item in self.items)


def is_connector(item: Item) -> bool:
    """Say whether an item joins: a word such as «and», a comma or a slash."""
    return item.part is Part.CONNECTOR or (item.part is Part.MARK and item.value in {",", "/"})


def is_existential(item: Item) -> bool:
    """Say whether an item is «there is» or «there may be»: its subject comes after it."""
    return item.part in {Part.AFFIRMATION, Part.CERTAINTY} and "there" in item.text.split()


def split_clauses(sentence: Sequence[Item]) -> tuple[Clause, ...]:
    """Return the clauses of a sentence, in order; breaks are dropped."""
    clauses: list[Clause] = []
    opened = (part for piece in _cut_at_breaks(sentence) for part in _cut_at_open(piece))
    for part in (rest for one in opened for rest in _cut_after_open(one)):
        if any(item.part is Part.UNDETERMINED for item in part):
            clauses.append(_make(part, is_led=False))
            continue
        for items, is_led in _cut_at_negations(part):
            for piece, leads in _cut_negated(items, is_led=is_led):
                clauses += _cut_at_verbs(piece, is_led=leads)
    return tuple(_join_prefixes(clauses))


def _cut_at_breaks(sentence: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    piece: list[Item] = []
    for item in sentence:
        if item.part is Part.BREAK:
            if piece:
                yield tuple(piece)
            piece = []
        else:
            piece.append(item)
    if piece:
        yield tuple(piece)


def _cut_at_open(items: tuple[Item, ...]) -> Iterator[tuple[Item, ...]]:
    """Yield what is told, and what is left open after it: «a nodule is seen, and whether ...»."""
    opening = {Part.UNDETERMINED} if any(item.part is Part.UNDETERMINED for item in items) else set()
    first = next(
        (
            index
            for index, item in enumerate(items)
            if opening and (item.part in opening or item.text == "whether")
        ),
        None,
    )
    if first is not None and any(item.part in MENTIONS for item in items[first:]):
        cuts = [index for index in range(first) if is_connector(items[index])]
        if cuts and any(item.part in MENTIONS for item in items[: cuts[-1]]):
            yield items[: cuts[-1]]
            yield items[cuts[-1] :]
            return
    yield items


def _cut_after_open(items: tuple[Item, ...]) -> Iterator[tuple[Item, ...]]:
    """Yield what is left open, and what is told after it: «... is undetermined, and a nodule is seen»."""
    first = next((index for index, item in enumerate(items) if item.part is Part.UNDETERMINED), None)
    cuts = [] if first is None else [i for i in range(first + 1, len(items)) if _tells_after_open(items, i)]
    if cuts:
        yield items[: cuts[0]]
        yield items[cuts[0] :]
    else:
        yield items


def _tells_after_open(items: Sequence[Item], index: int) -> bool:
    rest = items[index:]
    is_joint = is_connector(items[index]) and items[index].value not in ALTERNATIVES
    is_open = any(item.part is Part.UNDETERMINED or item.text.startswith("whether") for item in rest)
    has_verb = any(item.part in _TELLING or is_existential(item) for item in rest)
    has_mention = any(item.part in MENTIONS for item in items[:index])
    return (
        is_joint and not is_open and has_verb and has_mention and any(item.part in MENTIONS for item in rest)
    )


def _cut_at_negations(items: Sequence[Item]) -> Iterator[tuple[tuple[Item, ...], bool]]:
    """Yield pieces that begin with a negation that has a finding to reach, and what lies before them."""
    starts = [
        index
        for index, item in enumerate(items)
        if item.part is Part.NEGATION and any(later.part in MENTIONS for later in items[index:])
    ]
    bounds = [0]
    for start in starts:  # «another algorithm detects» belongs to the «no nodule» after it
        if any(item.part in MENTIONS for item in items[bounds[-1] : start]):
            bounds.append(start)
    bounds.append(len(items))
    for start, stop in pairwise(bounds):
        if stop > start:
            yield tuple(items[start:stop]), any(start <= spot < stop for spot in starts)


def _cut_negated(items: tuple[Item, ...], *, is_led: bool) -> Iterator[tuple[tuple[Item, ...], bool]]:
    """Yield a negated piece up to where its list ends, and the rest: «no effusion | and a nodule»."""
    if not is_led:
        yield items, False
        return
    seen = False
    for index, item in enumerate(items):
        if item.part in MENTIONS:
            seen = True
        if seen and is_connector(item) and _ends_list(items, index):
            yield items[:index], True
            yield items[index:], False
            return
    yield items, True


def _ends_list(items: Sequence[Item], index: int) -> bool:
    rest = items[index:]
    joined = []
    for item in rest:
        if not is_connector(item):
            break
        joined.append(item.value)
    after = rest[len(joined)] if len(joined) < len(rest) else None
    if after is None or not any(item.part in MENTIONS for item in rest):
        return False
    if _ACCOMPANYING.intersection(joined):
        return True
    if ALTERNATIVES.intersection(joined):
        return False
    if is_existential(after):
        return True
    is_verbal = any(item.part is Part.NEGATION and item.text.split()[0] in _VERBAL for item in items[:index])
    has_verb = any(item.part in {Part.FINITE, Part.DENIAL} for item in rest)
    return after.part in _OPENERS and (has_verb or not is_verbal)


def _cut_at_verbs(items: tuple[Item, ...], *, is_led: bool) -> Iterator[Clause]:
    """Yield one clause per verb that has a subject of its own."""
    verbs = [index for index, item in enumerate(items) if _is_verb(item)]
    start = 0
    for before, verb in pairwise(verbs):
        cut = _find_cut(items, start, before, verb)
        if cut is not None:
            yield _make(items[start:cut], is_led=is_led and start == 0)
            start = cut
    yield _make(items[start:], is_led=is_led and start == 0)


def _is_verb(item: Item) -> bool:
    is_doubtful = item.part is Part.CERTAINTY and item.text.split()[0] in _DOUBTFUL_VERBS
    return item.part is Part.FINITE or is_doubtful or is_existential(item)


def _find_cut(items: Sequence[Item], start: int, before: int, verb: int) -> int | None:
    between = range(before + 1, verb)
    if is_existential(items[verb]):
        leads = [
            index for index in between if is_connector(items[index]) and _is_place(items[index + 1 : verb])
        ]
        return leads[-1] if leads else verb
    cuts = [
        index for index in between if is_connector(items[index]) and _leads_to_mention(items, index, verb)
    ]
    if not cuts:
        return None
    has_subject = any(item.part in MENTIONS or item.part is Part.PRONOUN for item in items[start:before])
    return cuts[0] if has_subject else cuts[-1]


def _is_place(items: Sequence[Item]) -> bool:
    """Say whether items are a place that leads to «there is»: «and in the left lower zone there is»."""
    is_whole = all(
        item.part in _PLACE_PARTS or (item.part is Part.FILLER and item.text in _PLACING) or item.text == ","
        for item in items
    )
    return is_whole and any(item.part in {Part.SIDE, Part.ZONE, Part.SITE} for item in items)


def _leads_to_mention(items: Sequence[Item], index: int, stop: int) -> bool:
    for item in items[index + 1 : stop]:
        if item.part in MENTIONS:
            return True
        is_place = item.part is Part.FILLER and item.text in _PLACING
        if item.part not in PREMODIFIERS and not is_connector(item) and not is_place:
            return False
    return False


def _make(items: Sequence[Item], *, is_led: bool) -> Clause:
    denials = sum(_denies(items, index) for index in range(len(items)))
    return Clause(items=tuple(items), negations=denials, is_led=is_led)


def _denies(items: Sequence[Item], index: int) -> bool:
    """Say whether an item denies a finding: «without» that leads to no finding of the lexicon does not."""
    item = items[index]
    if item.part is Part.NEGATION:
        is_last = index + 1 == len(items) or items[index + 1].part is Part.MARK
        return (item.text == "not" and is_last) or any(after.part in MENTIONS for after in items[index + 1 :])
    return item.part is Part.DENIAL


def _join_prefixes(clauses: Sequence[Clause]) -> Iterator[Clause]:
    """Yield the clauses; what stands before the first finding goes with it."""
    prefix: tuple[Item, ...] = ()
    count = 0
    has_begun = False
    for clause in clauses:
        if not has_begun and not clause.has_mention and not clause.has_pronoun:
            prefix += clause.items
            count += clause.negations
            continue
        if not has_begun and prefix:
            yield Clause(
                items=prefix + clause.items, negations=count + clause.negations, is_led=clause.is_led
            )
        else:
            yield clause
        has_begun = True
    if prefix and not has_begun:
        yield Clause(items=prefix, negations=count, is_led=False)
