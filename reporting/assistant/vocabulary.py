"""Pure. The words of questions: how people name findings, and medical terms that no algorithm here reports.

They are kept in ``vocabulary.yaml``, by the keys of ``reporting/codes.py``; a test holds
that every finding there has words here. Words are lower case, singular.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from reporting.assistant.rules import read_table

_TABLE: Final = read_table("vocabulary")
#: Finding key to how people ask for it, beside the noun and the label of ``codes.py``.
CONCEPT_WORDS: Final = MappingProxyType({key: tuple(words) for key, words in _TABLE["findings"].items()})
#: What radiologists ask for and no finding of ``codes.py`` covers: answered by what is looked for instead.
OTHER_TERMS: Final[tuple[str, ...]] = tuple(_TABLE["other_terms"])
#: What a question about a study, its reading or its sources is about, beside findings.
_SUBJECTS: Final = re.compile(rf"\b(?:{'|'.join(_TABLE['subjects'])})\b", re.IGNORECASE)
_ASKING_WORDS: Final = frozenset(_TABLE["asking"].split())
#: Words of its own that a question about a study may have; with more it is about something else.
_MOST_FOREIGN: Final = 3


def is_about_imaging(text: str) -> bool:
    """Say whether a question speaks of what this node knows, or of nothing else that it names."""
    if find_concepts(text) or find_other_terms(text):
        return True
    words = re.findall(r"[^\W\d_]+", text.lower())
    foreign = [word for word in words if word not in _ASKING_WORDS and not _SUBJECTS.search(word)]
    return bool(words) and len(foreign) <= (_MOST_FOREIGN if _SUBJECTS.search(text) else 0)


def find_concepts(text: str) -> tuple[str, ...]:
    """Return the keys of the findings that a text may name, in the order of the vocabulary.

    A word may name several ("lesion"): which of them a study has is for its findings to say.
    """
    return tuple(
        concept
        for concept in CONCEPT_WORDS
        if any(_word(word).search(text.lower()) for word in CONCEPT_WORDS[concept])
    )


def find_other_terms(text: str) -> tuple[str, ...]:
    """Return the medical terms of a text that no finding of ``codes.py`` covers."""
    return tuple(term for term in OTHER_TERMS if _word(term).search(text.lower()))


def is_vocabulary(word: str) -> bool:
    """Say whether a single word belongs to the closed vocabulary of questions."""
    return word.lower() in _SINGLE_WORDS


def _word(word: str) -> re.Pattern[str]:
    return _PATTERNS[word]


def _compile(word: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in word.split())
    joined = r"[\s-]+".join(parts)
    return re.compile(rf"(?<![\w-]){joined}(?:s|es)?(?!\w)")


_PATTERNS: Final = {
    word: _compile(word)
    for word in dict.fromkeys((*(w for words in CONCEPT_WORDS.values() for w in words), *OTHER_TERMS))
}
_SINGLE_WORDS: Final = frozenset(
    part for word in _PATTERNS for part in re.split(r"[\s/-]+", word)
) | frozenset(_TABLE["everyday"].split())
