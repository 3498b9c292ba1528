"""Pure. Texts of a library as values, and how a text is cut into passages that can be found and cited.

A passage stays within one section. It is cut between paragraphs where that leaves it at least half
full, else between sentences; the next one repeats the last sentences, so that what is said across the
cut can be found from both sides.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

_HEADING: Final = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
#: A stop, and a capital or digit behind it; not after one letter ("E. coli") or the commonest short forms.
_SENTENCE_END: Final = re.compile(
    r"(?<!\b[A-Za-z])(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bFig)(?<!\bDr)(?<!\bal)[.!?][\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])"
)
_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text that a site gives to its library.

    Attributes
    ----------
    document_id : str
        Unique in the library; adding another text under it replaces the first.
    title, source, licence : str
        What an answer cites: the name of the text, where it is from, and on what terms it may be used.
    text : str
        Plain text, or Markdown whose headings part it.
    """

    document_id: str
    title: str
    source: str
    licence: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of a document: what a search finds and an answer cites.

    Attributes
    ----------
    passage_id : str
        Document id, ``#`` and the 1-based number of the passage in it.
    title : str
        Title of the document, and the heading that the passage stands under.
    score : float
        How well it fits a query. Scores of different kinds of search cannot be compared; 0 without a query.
    """

    passage_id: str
    document_id: str
    title: str
    source: str
    licence: str
    text: str
    score: float = 0.0

    def scored(self, score: float) -> Passage:
        """Return the same passage with another score."""
        return replace(self, score=score)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPolicy:
    """How long passages are.

    Attributes
    ----------
    maximum_words : int
        Most words of a passage: 150 words of medical English are some 200 tokens, and MiniLM reads 256.
    overlap_words : int
        Most words of whole sentences that a passage repeats from the one before.
    """

    maximum_words: int = 150
    overlap_words: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_words < self.maximum_words:
            raise ValueError("overlap_words must be at least 0 and below maximum_words")


def cut_document(document: Document, policy: CutPolicy | None = None) -> tuple[Passage, ...]:
    """Cut a document into passages.

    Parameters
    ----------
    document : Document
        The text.
    policy : CutPolicy or None
        How long passages are; None takes the default.

    Returns
    -------
    tuple of Passage
        In the order of the text, numbered from 1; empty for a text without words.
    """
    policy = policy or CutPolicy()
    pieces = [
        (heading, text)
        for heading, paragraphs in _sections(document.text)
        for text in _pack(paragraphs, policy)
    ]
    return tuple(
        Passage(
            passage_id=f"{document.document_id}#{number}",
            document_id=document.document_id,
            title=_title(document.title, heading),
            source=document.source,
            licence=document.licence,
            text=text,
        )
        for number, (heading, text) in enumerate(pieces, start=1)
    )


def digest_document(document: Document, policy: CutPolicy) -> str:
    """Return a digest of all that decides a document's passages: equal ones need not be added again."""
    parts = [document.document_id, document.title, document.source, document.licence, document.text]
    policy_parts = [policy.maximum_words, policy.overlap_words]
    return hashlib.sha256(json.dumps([*parts, *policy_parts]).encode("utf-8")).hexdigest()


def _title(document: str, heading: str) -> str:
    return document if not heading or heading == document else f"{document}: {heading}"


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (heading, paragraphs) for each part of the text that has words."""
    heading, lines, is_code = "", list[str](), False
    for line in [*text.splitlines(), "# end"]:
        is_code ^= bool(_FENCE.match(line))
        found = None if is_code else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        paragraphs = [p.strip() for p in re.split(r"\n\s*\n", "\n".join(lines)) if p.strip()]
        if paragraphs:
            yield heading, paragraphs
        heading, lines = found[2], []
    if is_code and lines[:-1]:  # a fence that nothing closes: what it holds is text
        yield heading, ["\n".join(lines[:-1])]


def _pack(paragraphs: Sequence[str], policy: CutPolicy) -> Iterator[str]:
    """Yield texts of at most ``maximum_words`` made of whole sentences where these are short enough."""
    held: list[tuple[str, str]] = []  # (separator before it, sentence)
    fresh = 0  # sentences held that no passage has yet
    for paragraph in paragraphs:
        sentences = [piece for s in _sentences(paragraph) for piece in _shorten(s, policy.maximum_words)]
        size = _size(held)
        does_not_fit = size + sum(map(_words, sentences)) > policy.maximum_words
        if fresh and does_not_fit and size >= policy.maximum_words // 2:
            yield _join(held)
            held, fresh = [], 0
        for index, sentence in enumerate(sentences):
            if held and _size(held) + _words(sentence) > policy.maximum_words:
                if fresh:
                    yield _join(held)
                room = min(policy.overlap_words, policy.maximum_words - _words(sentence))
                held, fresh = _tail(held, room), 0
            held.append((" " if index else "\n\n", sentence))
            fresh += 1
    if fresh:
        yield _join(held)


def _sentences(paragraph: str) -> list[str]:
    """Split a paragraph at the ends of sentences and lines of lists; nothing but white space is lost."""
    marked = _SENTENCE_END.sub(lambda match: match[0].rstrip() + "\x00", paragraph)
    marked = re.sub(r"\n(?=\s*(?:[-*+]|\d+[.)])\s)", "\x00", marked)
    return [sentence.strip() for sentence in marked.split("\x00") if sentence.strip()]


def _shorten(sentence: str, maximum_words: int) -> Iterator[str]:
    words = _WORD.findall(sentence)
    if len(words) <= maximum_words:
        yield sentence
        return
    for start in range(0, len(words), maximum_words):
        yield " ".join(words[start : start + maximum_words])


def _tail(held: Sequence[tuple[str, str]], room: int) -> list[tuple[str, str]]:
    """Return the last sentences that have at most ``room`` words together."""
    kept: list[tuple[str, str]] = []
    for separator, sentence in reversed(held):
        if _size(kept) + _words(sentence) > room:
            break
        kept.insert(0, (separator, sentence))
    return kept


def _join(held: Sequence[tuple[str, str]]) -> str:
    return "".join(separator + sentence for separator, sentence in held).strip()


def _size(held: Sequence[tuple[str, str]]) -> int:
    return sum(_words(sentence) for _, sentence in held)


def _words(text: str) -> int:
    return len(_WORD.findall(text))
