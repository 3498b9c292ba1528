"""Pure. A text as items: each word, phrase, number and mark with the part it plays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reporting.checker.lexicon import Entry, Form, Lexicon, Part

_PRODUCT: Final = re.compile(r"(?<=\d)x(?=\d)")
_JOINED: Final = re.compile(r"(?<=[a-z0-9])-(?=[a-z])|(?<=[a-z])-(?=[0-9])")
_TOKEN: Final = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|[a-z]+(?:'[a-z]+)?[23]?(?![a-z0-9])|[a-z0-9']+|\S"
)
_NUMBER: Final = re.compile(r"[\d,]*\d(?:\.\d+)?")
#: Words that are a site, and a structure that is measured.
_SITES_AND_STRUCTURES: Final = frozenset({"brain"})
_PLACING: Final = frozenset({"in", "of", "within", "inside", "over", "on", "onto", "at", "to", "from"})
_NEAR: Final = 5
#: What may stand between a structure and what is said of it: «the heart is not enlarged».
_LINKING: Final = frozenset(
    {Part.FINITE, Part.AFFIRMATION, Part.CERTAINTY, Part.NEGATION, Part.ARTICLE, Part.SIDE, Part.ZONE}
)
_LINKING_WORDS: Final = frozenset({":", "sign", "signs", "evidence", "of", "in", "on", "at", "size", "be"})
#: The most list numbers that a text may begin its sentences with.
_MOST_LISTED: Final = 20
#: The value of a denial that says who did not find something.
ELSEWHERE: Final = "elsewhere"
_HOLDING: Final = frozenset({"in", "within", "inside", "of"})
_FURTHER: Final = frozenset({"another", "a second", "a further"})
_BEFORE_ONE: Final = frozenset({Part.CERTAINTY, Part.SIDE, Part.ZONE})
_AFTER_ONE: Final = frozenset({Part.FINITE, Part.STOP, Part.BREAK, Part.MARK, Part.AFFIRMATION})
_DOUBTING: Final = frozenset(
    {"is possible", "is suspected", "may be", "might be", "could be", "may", "might"}
)
#: What comes after a «one» that stands for a finding.
_PLACING_ONE: Final = frozenset(
    {"in", "on", "at", "within", "inside", "over", "measuring", "measures", "with", "lies"}
)
#: What a list after «neither» is made of.
_LISTED: Final = frozenset({Part.CONCEPT, Part.ARTICLE, Part.SITE, Part.SIDE, Part.ZONE})
_SEEMING: Final = frozenset({"appear", "be"})
_NONE: Final = frozenset({"none", "no"})
_STOPS: Final = frozenset(".!")
_MARKS: Final = frozenset(",:()%/-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One word, phrase, number or mark.

    Attributes
    ----------
    text : str
        As the tables spell it.
    position : int
        Index of its first word in the text.
    """

    text: str
    entry: Entry
    position: int

    @property
    def part(self) -> Part:
        """What it does in its sentence."""
        return self.entry.part

    @property
    def value(self) -> str:
        """Its meaning within its part."""
        return self.entry.value


def read_items(
    text: str, lexicon: Lexicon, names: Sequence[str] = (), cited: frozenset[str] | None = None
) -> tuple[Item, ...]:
    """Return the items of a text, in order; every word of the text is in one of them.

    Parameters
    ----------
    names : sequence of str
        Names of algorithms, which may stand in the text as they are.
    cited : frozenset of str or None
        The findings that the text is about, if that is known: they decide whether «nodule or mass» is one
        finding or two, and whether «brain» is what was measured or where something lies.
    """
    words, found = _split(text, lexicon, names)
    items: list[Item] = []
    start = 0
    while start < len(words):
        length, entry = found.get(start) or lexicon.match(words, start, cited) or (1, _entry_of(words[start]))
        items.append(Item(text=" ".join(words[start : start + length]), entry=entry, position=start))
        start += length
    told = [_tell_site(items, index, cited) for index in range(len(items))]
    for index in range(len(told)):
        _tell_predicate(told, index, lexicon)
    told = [_tell_content(told, index, lexicon) for index in range(len(told))]
    told = [_tell_none(told, index) for index in range(len(told))]
    told = [_tell_uncertain(told, index) for index in range(len(told))]
    told = [_tell_both(told, index) for index in range(len(told))]
    told = [_tell_if(told, index) for index in range(len(told))]
    told = [_tell_nor(told, index) for index in range(len(told))]
    told = [_tell_elsewhere(told, index) for index in range(len(told))]
    return tuple(_name_ones(list(_drop_list_numbers(told))))


def _tell_site(items: Sequence[Item], index: int, cited: frozenset[str] | None) -> Item:
    """Return an item, or the site where a word names a site and a measured structure alike."""
    item = items[index]
    if item.part is not Part.CONCEPT or item.text not in _SITES_AND_STRUCTURES:
        return item
    before = [other for other in items[max(0, index - 2) : index] if other.part is not Part.ARTICLE]
    is_placed = bool(before) and before[-1].text in _PLACING
    is_measured = any(other.part is Part.UNIT for other in items[index + 1 : index + _NEAR])
    is_meant = is_measured if cited is None else not cited.isdisjoint(item.entry.concepts)
    if is_meant and not is_placed:
        return item
    return replace(item, entry=Entry(part=Part.SITE, value=item.text))


def _tell_predicate(items: list[Item], index: int, lexicon: Lexicon) -> None:
    """Name the finding that a word says of the structure before it: «the heart is not enlarged».

    An adjective makes the structure the finding, and is itself that it is there; a noun is the finding.
    """
    item = items[index]
    is_known = any(item.text in words for words in lexicon.predicates.values())
    if item.part is not Part.UNKNOWN or not is_known:
        return
    for spot in range(index - 1, -1, -1):
        before = items[spot]
        if before.part is Part.SITE:
            concept = lexicon.predicates.get(before.value, {}).get(item.text)
            if concept is not None:
                _name_predicate(items, spot, index, concept)
            return
        is_denial = before.part is Part.DENIAL and before.text.endswith(" to be")
        if before.part not in _LINKING and before.text not in _LINKING_WORDS and not is_denial:
            return


def _name_predicate(items: list[Item], site: int, index: int, concept: str) -> None:
    finding = Entry(part=Part.CONCEPT, concepts=(concept,), form=Form.MASS)
    denials = [spot for spot in range(site + 1, index) if items[spot].part is Part.NEGATION]
    last = index - 1 if items[index - 1].text not in _SEEMING else index - 2
    if not items[index].text.endswith("ed"):
        items[index] = replace(items[index], entry=finding)
    elif not denials or (denials == [last] and items[last].text == "not"):
        items[site] = replace(items[site], entry=finding)
        items[index] = replace(items[index], entry=Entry(part=Part.AFFIRMATION, value="present"))
        if denials:
            items[last] = replace(items[last], entry=Entry(part=Part.DENIAL))


def _tell_elsewhere(items: Sequence[Item], index: int) -> Item:
    """Return an item, or the denial of its own subject: «a nodule is not seen by another algorithm»."""
    item = items[index]
    before = items[index - 1] if index else None
    if item.part is not Part.ELSEWHERE or before is None or "by" not in item.text.split():
        return item
    is_joined = before.part in {Part.CONNECTOR, Part.BREAK, Part.MARK} or before.text in {"which", "that"}
    return item if is_joined else replace(item, entry=Entry(part=Part.DENIAL, value=ELSEWHERE))


def _tell_content(items: Sequence[Item], index: int, lexicon: Lexicon) -> Item:
    """Return an item, or the finding that it is in the site after it: «fluid in the left pleural space»."""
    item = items[index]
    sites = lexicon.contents.get(item.text)
    if item.part is not Part.UNKNOWN or sites is None or index + 1 >= len(items):
        return item
    if items[index + 1].text not in _HOLDING:
        return item
    for after in items[index + 2 :]:
        if after.part is Part.SITE and after.value in sites:
            return replace(
                item, entry=Entry(part=Part.CONCEPT, concepts=(sites[after.value],), form=Form.MASS)
            )
        if after.part not in {Part.ARTICLE, Part.SIDE, Part.ZONE}:
            break
    return item


def _tell_both(items: Sequence[Item], index: int) -> Item:
    """Return an item, or no side at all for a «both» that counts a list: «are both absent»."""
    item = items[index]
    after = items[index + 1].part if index + 1 < len(items) else None
    if item.text != "both" or after not in {Part.DENIAL, Part.AFFIRMATION}:
        return item
    return replace(item, entry=Entry(part=Part.FILLER, value="both"))


def _tell_if(items: Sequence[Item], index: int) -> Item:
    """Return an item, or «whether» for an «if» that follows what was left open."""
    item = items[index]
    is_led = index > 0 and items[index - 1].part is Part.UNDETERMINED
    if item.text != "if" or not is_led:
        return item
    return replace(item, text="whether", entry=Entry(part=Part.FILLER, value="whether"))


def _tell_nor(items: Sequence[Item], index: int) -> Item:
    """Return an item, or «or» for a «nor» that goes on with the list of a «neither»."""
    item = items[index]
    after = items[index + 1].part if index + 1 < len(items) else None
    if item.text != "nor" or after not in _LISTED:
        return item
    for before in reversed(items[:index]):
        if before.part is Part.NEGATION and before.text.split()[0] == "neither":
            return replace(item, text="or", entry=Entry(part=Part.CONNECTOR, value="or"))
        if before.part not in _LISTED and before.text not in {",", "nor"}:
            break
    return item


def _tell_uncertain(items: Sequence[Item], index: int) -> Item:
    """Return an item, or that it is left open: «the presence of consolidation is uncertain»."""
    item = items[index]
    if item.text != "uncertain" or not index or items[index - 1].part is not Part.FINITE:
        return item
    for before in reversed(items[:index]):
        if before.part in {Part.STOP, Part.BREAK}:
            break
        if before.text in {"presence", "presence or absence of"}:
            return replace(item, entry=Entry(part=Part.UNDETERMINED))
    return item


def _tell_none(items: Sequence[Item], index: int) -> Item:
    """Return an item, or the denial that «none» is after a title («Mass: none»)."""
    item = items[index]
    is_last = index + 1 == len(items) or items[index + 1].part in {Part.STOP, Part.BREAK}
    if item.text in _NONE and is_last and index and items[index - 1].text == ":":
        return replace(item, entry=Entry(part=Part.DENIAL))
    return item


def _name_ones(items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items, with the noun after a «one» or «another» that leaves it out («one on the left»)."""
    last: Item | None = None
    for index, item in enumerate(items):
        yield item
        if item.part is Part.STOP:
            last = None
        if item.part is Part.CONCEPT:
            last = item if item.entry.form is not Form.MANY else None
        if last is not None and last is not item and _leaves_out_noun(items, index):
            yield replace(last, position=item.position, entry=replace(last.entry, form=Form.ONE))


def _leaves_out_noun(items: Sequence[Item], index: int) -> bool:
    item = items[index]
    is_one = item.part is Part.COUNT and item.value == "1"
    if not is_one and item.text not in _FURTHER:
        return False
    spot = index - 1
    while spot > 0 and (items[spot].part in _BEFORE_ONE or items[spot].text in {"a", *_FURTHER}):
        spot -= 1
    joint = items[spot]
    is_joined = joint.part in {Part.CONNECTOR, Part.BREAK} or joint.text == ","
    if not is_joined:
        return False
    after = items[index + 1] if index + 1 < len(items) else None
    is_end = after is None or after.part in _AFTER_ONE or after.text in _DOUBTING
    return is_end or (after is not None and after.text in _PLACING_ONE)


def _drop_list_numbers(items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items without the numbers of a list («1. Nodule. 2. Effusion»)."""
    number: int | None = None
    index = 0
    while index < len(items):
        length = _list_number(items, index)
        if length:
            value = int(items[index + length - 2].value)
            if number is None if index == 0 else value == (number or 0) + 1:
                number = value
                index += length
                continue
        yield items[index]
        index += 1


def _list_number(items: Sequence[Item], index: int) -> int:
    """Return how many items the list number is that leads a part of a text here: «1.», «2)» or «(3)»."""
    before = items[index - 1] if index else None
    is_start = before is None or before.part in {Part.STOP, Part.BREAK} or before.text in {",", ":"}
    spot = index + 1 if items[index].text == "(" else index
    number, *after = (*items[spot : spot + 3], None, None, None)[:3]
    if not is_start or number is None or after[0] is None or after[1] is None:
        return 0
    is_number = number.part is Part.NUMBER and number.text.isdigit() and 1 <= int(number.text) <= _MOST_LISTED
    is_stopped = after[0].part is Part.STOP and spot == index
    is_alone = before is None or before.part is Part.STOP or not is_stopped
    is_marked = is_stopped or after[0].text == ")"
    is_followed = after[1].part not in {Part.NUMBER, Part.STOP, Part.MARK, Part.UNIT}
    return spot - index + 2 if is_number and is_alone and is_marked and is_followed else 0


def is_name(name: str, lexicon: Lexicon) -> bool:
    """Say whether a name can be told from the words of a text: one made of them alone would hide them."""
    return any(item.part is Part.UNKNOWN for item in read_items(name, lexicon))


def split_sentences(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """Yield the sentences of a text, without their full stops."""
    sentence: list[Item] = []
    for item in items:
        if item.part is Part.STOP:
            if sentence:
                yield tuple(sentence)
            sentence = []
        else:
            sentence.append(item)
    if sentence:
        yield tuple(sentence)


def _split(
    text: str, lexicon: Lexicon, names: Sequence[str]
) -> tuple[tuple[str, ...], dict[int, tuple[int, Entry]]]:
    """Return the words of a text in the spelling of the tables, and where algorithms are named."""
    lowered = text.lower()
    words: list[str] = []
    found: dict[int, tuple[int, Entry]] = {}
    for piece, name in _cut(lowered, names):
        if name is not None:
            found[len(words)] = (1, Entry(part=Part.NAME, value=name))
            words.append(piece)
            continue
        tokens = _TOKEN.findall(_PRODUCT.sub(" x ", _JOINED.sub(" ", piece)))
        words += lexicon.rewrite([word for token in tokens for word in lexicon.spell(token)])
    return tuple(words), found


def _cut(text: str, names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the pieces of a text; those that are a name come with it."""
    known = {name.lower(): name for name in names if name}
    if not known:
        yield text, None
        return
    pattern = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    end = 0
    for found in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text):
        yield text[end : found.start()], None
        yield found.group(), known[found.group()]
        end = found.end()
    yield text[end:], None


def _entry_of(word: str) -> Entry:
    if _NUMBER.fullmatch(word):
        return Entry(part=Part.NUMBER, value=word.replace(",", ""))
    if word in _STOPS:
        return Entry(part=Part.STOP)
    if word == ";":
        return Entry(part=Part.BREAK, value=word)
    if word in _MARKS:
        return Entry(part=Part.MARK, value=word)
    return Entry(part=Part.UNKNOWN, value=word)
