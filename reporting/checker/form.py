"""Pure. Whether a sentence has the form of one: what no grammatical sentence of a report does.

Words of the lexicon in a row that no writer would put there cannot be held to a meaning, so they are
refused before any meaning is read from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from reporting.checker.clauses import MENTIONS, PREMODIFIERS, is_existential
from reporting.checker.items import Item
from reporting.checker.lexicon import Part

_PREPOSITIONS: Final = frozenset(
    {"of", "in", "on", "at", "within", "inside", "onto", "over", "for", "involving", "affecting", "having"}
    | {"in the region of", "in the area of", "the other in", "the other on", "the other at", "either"}
)
#: What makes an exception, and so needs a denial.
_EXCEPTING: Final = frozenset({"other than", "except", "except for"})
#: What leads to a number.
_COUNTING: Final = frozenset(
    {"measured at", "estimated at", "calculated at", "quantified at", "amounts to", "amount to"}
    | {"comes to", "come to", "equals", "measured as", "measured to be", "estimated as", "estimated to be"}
    | {"calculated as", "corresponding to", "is measured at", "was measured at", "are measured at"}
    | {"is estimated at", "was estimated at"}
)
#: What appears to be there needs its word of doubt.
_APPEARING: Final = frozenset(
    {"there appears to be", "there appear to be", "there seems to be", "there seem to be"}
)
_SPEAKING: Final = frozenset({Part.PRONOUN, Part.DISAGREEMENT})
_MEASURING: Final = frozenset(
    {Part.QUANTITY, Part.FILLER, Part.FINITE, Part.NUMBER, Part.UNIT, Part.TIMES, Part.MARK, Part.CONNECTOR}
    | {Part.ARTICLE}
)
#: What no sentence ends with.
_OPEN: Final = frozenset({Part.ARTICLE, Part.CONNECTOR, Part.TIMES, Part.NEGATION})
#: What no article or preposition stands right before.
_VERBS: Final = frozenset({Part.FINITE, Part.BREAK, Part.DENIAL, Part.UNDETERMINED, Part.DISAGREEMENT})
#: What may stand between a negation and what it denies.
_BETWEEN: Final = PREMODIFIERS | {Part.CONNECTOR, Part.ALGORITHM, Part.NAME, Part.EXAMINATION}
_BETWEEN_WORDS: Final = frozenset(
    {"sign", "signs", "evidence", "of", "for", "further", "visible", "detectable", "in"}
    | {"discernible", "perceptible", "demonstrable", "identifiable", "recognizable"}
    | {"right or left", "left or right", "right sided or left sided"}
)


def find_malformed(sentence: Sequence[Item]) -> Iterator[str]:
    """Yield what is wrong with the form of a sentence, in words of this package."""
    if not sentence:
        return
    yield from _check_ends(sentence)
    yield from _check_neighbours(sentence)
    yield from _check_negations(sentence)
    yield from _check_measures(sentence)
    yield from _check_phrases(sentence)
    is_open = any(item.part is Part.UNDETERMINED for item in sentence)
    if any(item.text == "whether" for item in sentence) and not is_open:
        yield "«whether» leads to nothing"
    marks = "".join(item.value for item in sentence if item.part is Part.MARK and item.value in "()")
    if marks.replace("()", ""):
        yield "a bracket is left open"
    is_about = any(item.part in MENTIONS or item.part in _SPEAKING for item in sentence)
    if not is_about and not _is_of_sizes(sentence):
        yield "a sentence speaks of no finding"


def _is_of_sizes(sentence: Sequence[Item]) -> bool:
    """Say whether a sentence gives sizes of the finding before it, and nothing else: «Volume: 12 mL»."""
    is_bare = all(item.part in _MEASURING for item in sentence)
    return is_bare and any(item.part is Part.UNIT for item in sentence)


def _check_ends(sentence: Sequence[Item]) -> Iterator[str]:
    first, last = sentence[0], sentence[-1]
    if last.part in _OPEN or last.part is Part.FINITE or last.part is Part.BREAK or _is_preposition(last):
        yield "a sentence ends in the middle"
    if last.part is Part.MARK and last.value in {",", ":", "/", "-"}:
        yield "a sentence ends in the middle"
    is_joint = first.part in {Part.CONNECTOR, Part.BREAK, Part.TIMES, Part.FINITE, Part.UNIT}
    is_lead = first.text in {"with", "in addition to", "while", "whereas", "although", "though", "apart from"}
    if (is_joint and not is_lead) or first.part is Part.MARK:
        yield "a sentence begins in the middle"


def _check_neighbours(sentence: Sequence[Item]) -> Iterator[str]:
    for index, item in enumerate(sentence):
        is_adjective = index > 0 and sentence[index - 1].part is Part.ARTICLE
        if item.part is Part.CERTAINTY and is_adjective and _is_loose_doubt(sentence, index):
            yield "a word of doubt stands before a place"
    for item, after in pairwise(sentence):
        yield from _check_pair(item, after)


def _check_pair(item: Item, after: Item) -> Iterator[str]:
    ends_phrase = after.part in _VERBS or after.part is Part.MARK
    if item.part is Part.ARTICLE and (ends_phrase or after.part in {Part.ARTICLE, Part.CONNECTOR}):
        yield "an article stands before no noun"
    if _is_preposition(item) and (after.part in _VERBS or after.part is Part.AFFIRMATION or _is_end(after)):
        yield "a preposition stands before no noun"
    if item.part is Part.FINITE and after.part in {Part.FINITE, Part.BREAK}:
        yield "two verbs stand side by side"
    if item.part in {Part.FINITE, Part.DENIAL} and after.part is Part.CONCEPT and item.text != "has":
        yield "a verb stands before a bare noun"
    is_break = after.part is Part.BREAK and item.text != ";"
    if item.part is Part.BREAK and (after.part is Part.FINITE or is_break):
        yield "a break leads to nothing"
    if item.part is Part.MARK and after.part is Part.MARK and item.value != ")":
        yield "two marks stand side by side"
    if item.part in MENTIONS and after.part is Part.NEGATION and after.text in {"no", "any"}:
        yield "a finding stands right before a negation"


def _is_loose_doubt(sentence: Sequence[Item], index: int) -> bool:
    """Say whether a word of doubt stands before a place instead of a finding: «in the possible zone»."""
    passed = False
    for item in sentence[index + 1 :]:
        if item.part in {Part.SIDE, Part.SITE, Part.ZONE}:
            passed = True
        elif item.part not in PREMODIFIERS:
            return passed and item.part not in MENTIONS
    return passed


def _is_end(item: Item) -> bool:
    return item.part is Part.MARK and item.value in {",", ":", ")"}


def _is_preposition(item: Item) -> bool:
    return item.part is Part.FILLER and item.text in _PREPOSITIONS


def _check_negations(sentence: Sequence[Item]) -> Iterator[str]:
    """Yield where a negation has no finding to deny, or something between that is no part of its name."""
    for index, item in enumerate(sentence):
        if item.part is not Part.NEGATION:
            continue
        for after in sentence[index + 1 :]:
            if after.part in MENTIONS:
                break
            is_inverted = item.text == "nor" and (after.part is Part.FINITE or is_existential(after))
            if after.part not in _BETWEEN and after.text not in _BETWEEN_WORDS and not is_inverted:
                yield "a negation stands before what it cannot deny"
                break
        else:
            yield "a negation has nothing to deny"


def _check_measures(sentence: Sequence[Item]) -> Iterator[str]:
    has_number = any(item.part is Part.NUMBER for item in sentence)
    for index, item in enumerate(sentence):
        before = sentence[index - 1].part if index else None
        after = sentence[index + 1].part if index + 1 < len(sentence) else None
        if item.part is Part.UNIT and before is not Part.NUMBER:
            yield "a unit stands after no number"
        if item.part is Part.QUANTITY and not has_number:
            yield "a quantity is named without its number"
        if item.text == "x" and (before not in {Part.NUMBER, Part.UNIT} or after is not Part.NUMBER):
            yield "a product has no factors"
        if item.part is Part.SCOPE and not any(one.part is Part.GENERIC for one in sentence[:index]):
            yield "it is said what was looked for, and of nothing"
        if item.text.startswith("probability") and not has_number:
            yield "a probability is named without its figure"
        if is_existential(item) and not any(one.part in MENTIONS for one in sentence[index + 1 :]):
            yield "«there is» leads to no finding"


def _check_phrases(sentence: Sequence[Item]) -> Iterator[str]:
    """Yield where a phrase does not stand with what it needs."""
    has_denial = any(item.part in {Part.NEGATION, Part.DENIAL} for item in sentence)
    for index, item in enumerate(sentence):
        after = sentence[index + 1].part if index + 1 < len(sentence) else None
        if item.text in _EXCEPTING and not has_denial:
            yield "an exception is made from nothing"
        if item.text == "at" and after is Part.NUMBER:
            yield "a number stands after a preposition of place"
        if (
            item.part is Part.CONCEPT
            and _is_signal(item)
            and not any("flair" in one.text for one in sentence)
        ):
            yield "a signal is spoken of without the series it was seen on"
        if item.text in _COUNTING and after is not Part.NUMBER:
            yield "a verb of measuring leads to no number"
        if item.text in _APPEARING and not _is_doubted(sentence[index + 1 :]):
            yield "it is said how something appears, and not how sure that is"
        is_last = after is None or sentence[-2:] == (item, sentence[-1])
        if item.part is Part.ELSEWHERE and not is_last:
            yield "what another algorithm did stands in the middle"


def _is_signal(item: Item) -> bool:
    words = item.text.split()
    return "flair" not in words and ("signal" in words or words == ["signal"])


def _is_doubted(after: Sequence[Item]) -> bool:
    """Say whether a word of doubt stands before the finding that comes next."""
    for item in after:
        if item.part in MENTIONS or item.part not in PREMODIFIERS:
            return False
        if item.part is Part.CERTAINTY:
            return True
    return False
