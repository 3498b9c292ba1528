"""Pure. From report text to tokens and back, by the rules of the published R2Gen networks.

A checkpoint fits its vocabulary only if the text it was trained on is cleaned and counted here exactly as
there: same cleaning, same threshold, words in the order of their characters, numbered from 1.

References
----------
Chen et al., Generating radiology reports via memory-driven transformer, doi:10.18653/v1/2020.emnlp-main.112
(code under Apache-2.0, whose rules are followed).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

UNKNOWN: Final = "<unk>"
"""The word that stands for all that are too rare."""

Cleaning = Literal["iu_xray", "mimic_cxr"]
"""Whose rules clean a text: of IU X-ray, or of MIMIC-CXR, which has line ends and underscores."""

_DOT_PASSES: Final = {"iu_xray": 3, "mimic_cxr": 6}
_UNDERSCORE_PASSES: Final = 5
_SPACE_PASSES: Final = 5
_LIST_NUMBERS: Final = ("2", "3", "4", "5")
_DROPPED: Final = re.compile(r"[.,?;*!%^&_+():<=>@A-Z\[\]{}]")
"""What the published expression drops; its range from colon to bracket is spelt out, and a hyphen stays."""

_QUOTES: Final = str.maketrans("", "", "\"/\\'")


def clean_report(text: str, cleaning: Cleaning = "iu_xray") -> str:
    """Return a report as the network reads it: lower case, marks dropped, sentences ended by `` .``."""
    if cleaning == "mimic_cxr":
        text = text.replace("\n", " ")
        text = _repeat(text, "__", "_", _UNDERSCORE_PASSES)
        text = _repeat(text, "  ", " ", _SPACE_PASSES)
    text = _repeat(text, "..", ".", _DOT_PASSES[cleaning])
    text = text.replace("1. ", "")
    for lead in (". ", " "):
        for number in _LIST_NUMBERS:
            text = text.replace(f"{lead}{number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    return " . ".join(_clean_sentence(sentence) for sentence in sentences) + " ."


@dataclass(frozen=True)
class Vocabulary:
    """The words of a network, numbered from 1.

    Attributes
    ----------
    words : tuple of str
        In the order of their numbers; `UNKNOWN` is one of them.
    cleaning : str
        Whose rules clean a text.
    """

    words: tuple[str, ...]
    cleaning: Cleaning = "iu_xray"

    @classmethod
    def of_reports(
        cls, reports: Iterable[str], *, threshold: int = 3, cleaning: Cleaning = "iu_xray"
    ) -> Vocabulary:
        """Count the words of the training reports and keep those that come ``threshold`` times."""
        counts = Counter(word for text in reports for word in clean_report(text, cleaning).split())
        kept = [word for word, count in counts.items() if count >= threshold]
        return cls(words=tuple(sorted([*kept, UNKNOWN])), cleaning=cleaning)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=1)}

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a report, without those that begin and end it."""
        unknown = self._numbers.get(UNKNOWN, 0)
        return [self._numbers.get(word, unknown) for word in clean_report(text, self.cleaning).split()]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the words of tokens up to the first 0."""
        words = []
        for token in tokens:
            if token <= 0 or token > len(self.words):
                break
            words.append(self.words[token - 1])
        return " ".join(words)


def write_sentences(text: str) -> tuple[str, ...]:
    """Return decoded words as sentences for people: split at `` .``, capitals, full stops.

    A sentence with a word that the network does not know is left out: what it says is not known.
    """
    sentences = [" ".join(part.split()) for part in f" {text} ".split(" . ")]
    return tuple(
        f"{sentence[0].upper()}{sentence[1:]}."
        for sentence in sentences
        if sentence and UNKNOWN not in sentence.split()
    )


def _repeat(text: str, old: str, new: str, passes: int) -> str:
    for _ in range(passes):
        text = text.replace(old, new)
    return text


def _clean_sentence(sentence: str) -> str:
    return _DROPPED.sub("", sentence.translate(_QUOTES).strip().lower())
