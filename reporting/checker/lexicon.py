"""Pure. The closed vocabulary: which words and phrases a checked text may hold, and what each does in it.

The tables are data (``lexicon.yaml``), so that a site can extend them without touching code. What is in
no table cannot be said: it is found as an unknown word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml

from reporting.checker.faults import FaultKind
from reporting.errors import ReportingError

_PATH: Final = Path(__file__).with_name("lexicon.yaml")
_FAMILY: Final = re.compile(r"\{(\w+)\}")
_ENDS: Final = ((), (".",), (")",))
_JOINING: Final = frozenset({"or", "/"})
_COUNTS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class LexiconError(ReportingError):
    """A lexicon file has another form than docs/checker.md says."""


class Part(StrEnum):
    """What a word or a phrase does in a sentence."""

    CONCEPT = "concept"
    GENERIC = "generic"
    SITE = "site"
    SIDE = "side"
    ZONE = "zone"
    NEGATION = "negation"
    DENIAL = "denial"
    PSEUDO = "pseudo"
    UNDETERMINED = "undetermined"
    CERTAINTY = "certainty"
    ATTRIBUTION = "attribution"
    AFFIRMATION = "affirmation"
    QUANTITY = "quantity"
    UNIT = "unit"
    COUNT = "count"
    NUMBER = "number"
    CONNECTOR = "connector"
    TIMES = "times"
    ARTICLE = "article"
    PRONOUN = "pronoun"
    BREAK = "break"
    FINITE = "finite"
    SCOPE = "scope"
    DISAGREEMENT = "disagreement"
    ALGORITHM = "algorithm"
    ELSEWHERE = "elsewhere"
    NAME = "name"
    EXAMINATION = "examination"
    FILLER = "filler"
    REFUSED = "refused"
    STOP = "stop"
    MARK = "mark"
    UNKNOWN = "unknown"


class Form(StrEnum):
    """How a word for a finding counts."""

    ONE = "one"
    MANY = "many"
    MASS = "mass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a phrase means.

    Attributes
    ----------
    value : str
        Its meaning within its part: a site's key, a side, a unit.
    concepts : tuple of str
        The findings that a phrase of part ``CONCEPT`` may name.
    refused : FaultKind or None
        What is wrong with it, though it can be read.
    """

    part: Part
    value: str = ""
    concepts: tuple[str, ...] = ()
    form: Form = Form.ONE
    refused: FaultKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """The vocabulary.

    Attributes
    ----------
    phrases : mapping
        The phrases and their entries by the first word, longest first.
    predicates : mapping
        By site, the finding that a word after its name says: «the heart is enlarged».
    contents : mapping
        By word, the finding that it is in a site: «fluid in the pleural space».
    rewrites : mapping
        Words that are read as others: «gray and white matter».
    entries, lengths : mapping
        The same phrases to look up, and how long those with a first word are, longest first.
    """

    phrases: Mapping[str, tuple[tuple[tuple[str, ...], Entry], ...]]
    spellings: Mapping[str, tuple[str, ...]]
    wider_sites: Mapping[str, frozenset[str]]
    concepts: frozenset[str] = field(default_factory=frozenset)
    predicates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    contents: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rewrites: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    entries: Mapping[tuple[str, ...], Entry] = field(default_factory=dict, repr=False)
    lengths: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def spell(self, word: str) -> tuple[str, ...]:
        """Return a word as the tables spell it."""
        return self.spellings.get(word, (word,))

    def rewrite(self, words: Sequence[str]) -> list[str]:
        """Return words with those replaced that are read as others."""
        read: list[str] = []
        start = 0
        while start < len(words):
            found = next(
                (one for one in self.rewrites if tuple(words[start : start + len(one)]) == one), None
            )
            read += self.rewrites[found] if found else (words[start],)
            start += len(found) if found else 1
        return read

    def match(
        self, words: tuple[str, ...], start: int, cited: frozenset[str] | None = None
    ) -> tuple[int, Entry] | None:
        """Return the longest phrase that begins at a word, as its length and its entry.

        A phrase that joins two findings («nodule or mass») is one only where it is cited as one; what
        another algorithm did not find stands at the end of its sentence.
        """
        for length in self.lengths.get(words[start], ()):
            phrase = words[start : start + length]
            entry = self.entries.get(phrase)
            if entry is None:
                continue
            is_joined = entry.part is Part.CONCEPT and not _JOINING.isdisjoint(phrase)
            if is_joined and cited is not None and cited.isdisjoint(entry.concepts):
                continue
            if entry.part is Part.ELSEWHERE and words[start + length : start + length + 1] not in _ENDS:
                continue
            return len(phrase), entry
        return None


@lru_cache(maxsize=1)
def default_lexicon() -> Lexicon:
    """Return the lexicon that ships with Preread."""
    return build_lexicon(read_tables(_PATH))


def read_tables(path: Path) -> dict[str, Any]:
    """Return the tables of a lexicon file.

    Raises
    ------
    LexiconError
        If it is no YAML mapping.
    """
    try:
        # Every scalar is a word: «no» and «on» must not become booleans.
        tables = yaml.load(path.read_text("utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
    except yaml.YAMLError as exc:
        raise LexiconError(f"{path.name} is not valid YAML: correct it (docs/checker.md).") from exc
    if not isinstance(tables, dict):
        raise LexiconError(f"{path.name} is not a mapping of tables (docs/checker.md).")
    return tables


def build_lexicon(tables: Mapping[str, Any]) -> Lexicon:
    """Return the lexicon of tables in the form of ``lexicon.yaml``.

    A phrase that two tables hold keeps its first meaning, in the order of `_entries`; one that names
    several findings names them all.

    Raises
    ------
    LexiconError
        If a table is missing or has another form.
    """
    spellings = {word: tuple(str(other).split()) for word, other in tables.get("spellings", {}).items()}
    meanings: dict[tuple[str, ...], Entry] = {}
    try:
        for phrase, entry in _entries(_fill(tables)):
            words = _words(phrase, spellings)
            known = meanings.get(words)
            if known is None:
                meanings[words] = entry
            elif known.part is Part.CONCEPT and entry.part is Part.CONCEPT:
                meanings[words] = _merge(known, entry)
        wider = {
            site: frozenset({site, *(place for place in table.get("within", ()) if place)})
            for site, table in tables["sites"].items()
        }
        concepts = frozenset(tables["concepts"])
        predicates = {site: dict(words) for site, words in tables.get("predicates", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise LexiconError("A table of the lexicon is missing or malformed (docs/checker.md).") from exc
    phrases: dict[str, list[tuple[tuple[str, ...], Entry]]] = {}
    for words, entry in meanings.items():
        phrases.setdefault(words[0], []).append((words, entry))
    return Lexicon(
        phrases={
            first: tuple(sorted(group, key=lambda pair: -len(pair[0]))) for first, group in phrases.items()
        },
        spellings=spellings,
        wider_sites=wider,
        concepts=concepts,
        predicates=predicates,
        contents={word: dict(sites) for word, sites in tables.get("contents", {}).items()},
        rewrites={
            tuple(words.split()): tuple(others.split())
            for words, others in tables.get("rewrites", {}).items()
        },
        entries=meanings,
        lengths={
            first: tuple(sorted({len(words) for words, _ in group}, reverse=True))
            for first, group in phrases.items()
        },
    )


#: Tables of phrases by what they mean, and tables of phrases alone, in the order in which they are read.
_VALUED: Final = (
    ("certainty", Part.CERTAINTY),
    ("quantities", Part.QUANTITY),
    ("units", Part.UNIT),
    ("sides", Part.SIDE),
    ("zones", Part.ZONE),
)
_LISTED: Final = (
    ("generic", Part.GENERIC),
    ("scopes", Part.SCOPE),
    ("disagreement", Part.DISAGREEMENT),
    ("elsewhere", Part.ELSEWHERE),
    ("algorithm", Part.ALGORITHM),
    ("examination", Part.EXAMINATION),
    ("pronouns", Part.PRONOUN),
    ("attribution", Part.ATTRIBUTION),
    ("affirmation", Part.AFFIRMATION),
    ("connectors", Part.CONNECTOR),
    ("times", Part.TIMES),
    ("articles", Part.ARTICLE),
    ("breaks", Part.BREAK),
    ("finite", Part.FINITE),
    ("fillers", Part.FILLER),
)


def _fill(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tables with each «{family}» in a phrase replaced by every word of that family."""
    families = tables.get("families", {})

    def fill(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: fill(inner) for key, inner in value.items()}
        if isinstance(value, str):
            return value
        return [phrase for one in value for phrase in _expand(str(one), families)]

    return {name: fill(table) for name, table in tables.items() if name != "families"}


def _expand(phrase: str, families: Mapping[str, Sequence[str]]) -> Iterator[str]:
    names = _FAMILY.findall(phrase)
    if not names:
        yield phrase
        return
    frame = _FAMILY.sub("{}", phrase)
    yield from (frame.format(*words) for words in product(*(families[name] for name in names)))


def _entries(tables: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    yield from _concept_entries(tables["concepts"])
    yield from _denial_entries(tables)
    for name, part in _VALUED:
        for value, phrases in tables[name].items():
            yield from ((phrase, Entry(part=part, value=value)) for phrase in phrases)
    for site, table in tables["sites"].items():
        yield from ((phrase, Entry(part=Part.SITE, value=site)) for phrase in table["words"])
    for number, word in enumerate(_COUNTS, 1):
        yield word, Entry(part=Part.COUNT, value=str(number))
    for name, part in _LISTED:
        yield from ((phrase, Entry(part=part, value=phrase)) for phrase in tables[name])
    for kind, phrases in tables["refused"].items():
        refused = FaultKind(kind)
        yield from ((phrase, Entry(part=Part.REFUSED, value=phrase, refused=refused)) for phrase in phrases)


def _denial_entries(tables: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    for part in (Part.NEGATION, Part.DENIAL, Part.PSEUDO, Part.UNDETERMINED):
        table = tables[part.value]
        for kind, phrases in table.get("refused", {}).items():
            yield from ((phrase, Entry(part=part, refused=FaultKind(kind))) for phrase in phrases)
        yield from ((phrase, Entry(part=part)) for phrase in table["words"])


def _concept_entries(table: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    for concept, forms in table.items():
        for form in Form:
            for phrase in forms.get(form.value, ()):
                yield phrase, Entry(part=Part.CONCEPT, concepts=(concept,), form=form)
        for phrase in (*forms.get(Form.ONE.value, ()), *forms.get(Form.MASS.value, ())):
            yield _pluralise(phrase), Entry(part=Part.CONCEPT, concepts=(concept,), form=Form.MANY)
        for phrase in forms.get("refused", ()):
            entry = Entry(part=Part.CONCEPT, concepts=(concept,), refused=FaultKind.DIAGNOSIS)
            yield phrase, entry
            yield _pluralise(phrase), entry


def _merge(known: Entry, other: Entry) -> Entry:
    """Return one entry for a phrase of several findings; allowed if it is the word for any of them."""
    if known.refused is not other.refused:
        return known if known.refused is None else other
    concepts = tuple(dict.fromkeys((*known.concepts, *other.concepts)))
    return Entry(part=Part.CONCEPT, concepts=concepts, form=known.form, refused=known.refused)


def _pluralise(phrase: str) -> str:
    for tail in (" on ", " of ", " in ", " like ", " resembling "):
        if tail in phrase:
            head, rest = phrase.split(tail, 1)
            return f"{_pluralise(head)}{tail}{rest}"
    if phrase.endswith("y"):
        return f"{phrase[:-1]}ies"
    if phrase.endswith("sis"):
        return f"{phrase[:-2]}es"
    return f"{phrase}es" if phrase.endswith(("s", "x")) else f"{phrase}s"


def _words(phrase: str, spellings: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    words = str(phrase).lower().replace("-", " ").split()
    if not words:
        raise ValueError("an empty phrase")
    return tuple(part for word in words for part in spellings.get(word, (word,)))
