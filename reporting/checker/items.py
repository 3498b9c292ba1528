"""Pure. A text as items: each word, phrase, number and mark with the part it plays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reporting.checker.lexicon import Entry, Lexicon, Part

_PRODUCT: Final = re.compile(r"(?<=\d)x(?=\d)")
_JOINED: Final = re.compile(r"(?<=[a-z0-9])-(?=[a-z])|(?<=[a-z])-(?=[0-9])")
_TOKEN: Final = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|[a-z]+(?:'[a-z]+)?[23]?(?![a-z0-9])|[a-z0-9']+|\S"
)
_NUMBER: Final = re.compile(r"[\d,]*\d(?:\.\d+)?")
#: Words that are a site, and a structure that is measured.
_SITES_AND_STRUCTURES: Final = frozenset({"brain"})
_PLACING: Final = frozenset({"in", "of", "within", "over", "on", "to", "from"})
_NEAR: Final = 5
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
    return tuple(_tell_site(items, index, cited) for index in range(len(items)))


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
        for token in _TOKEN.findall(_PRODUCT.sub(" x ", _JOINED.sub(" ", piece))):
            words += lexicon.spell(token)
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
