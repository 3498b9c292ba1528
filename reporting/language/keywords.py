"""Pure. Keyword search: BM25 over stemmed words, with British and American spelling made one.

The baseline that vector search has to beat, and one half of hybrid search. The index lives in memory
and is made from the texts again when they change.

References
----------
Lu. BM25S: orders of magnitude faster lexical search via eager sparse scoring. 2024. arXiv:2407.03618
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from reporting.errors import ReportingError

_WORD: Final = re.compile(r"[^\W_]+(?:[.,]\d+)*", re.UNICODE)
#: British stems and their American form: this node writes the one, most public texts the other.
_SPELLING: Final = re.compile(
    r"haem|aemi|oedem|oesoph|paed|gynaec|anaes|leukaem|faec|caec|foet|tumour|centre|fibre|litre|coeli|rrhoea|colour"
)
_AMERICAN: Final = {
    "haem": "hem", "aemi": "emi", "oedem": "edem", "oesoph": "esoph", "paed": "ped", "gynaec": "gynec",
    "anaes": "anes", "leukaem": "leukem", "faec": "fec", "caec": "cec", "foet": "fet", "tumour": "tumor",
    "centre": "center", "fibre": "fiber", "litre": "liter", "coeli": "celi", "rrhoea": "rrhea",
    "colour": "color",
}  # fmt: skip
#: Words that are in every question and tell no two texts apart.
_STOP_WORDS: Final = frozenset(
    [
        "a", "about", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could",
        "did", "do", "does", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is",
        "it", "its", "may", "me", "might", "my", "of", "on", "or", "our", "should", "so", "some", "such",
        "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "to",
        "was", "we", "were", "what", "when", "where", "which", "who", "whom", "why", "will", "with",
        "would", "you", "your",
    ]
)  # fmt: skip


class KeywordSearchError(ReportingError):
    """Keyword search cannot run; the message says what to install."""


class KeywordIndex:
    """BM25 (k1 1.5, b 0.75) over texts.

    Parameters
    ----------
    texts : sequence of str
        What is searched; positions in it are the answers.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError as exc:
            raise KeywordSearchError(
                "bm25s is missing for keyword search: install the extra `language`."
            ) from exc
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for DEBUG whatever the node logs
        tokens = [split_words(text) for text in texts]
        self._known = frozenset(word for words in tokens for word in words)
        self._size = len(tokens)
        self._index: Any = bm25s.BM25()
        if self._known:
            self._index.index(tokens, show_progress=False)

    def search(self, query: str, limit: int) -> tuple[tuple[int, float], ...]:
        """Return (position, score) of the best texts that share a word with the query, best first."""
        words = [word for word in split_words(query) if word in self._known]
        if not words or limit < 1:
            return ()
        positions, scores = self._index.retrieve(
            [words], k=min(limit, self._size), show_progress=False, n_threads=1
        )
        return tuple(
            (int(position), float(score))
            for position, score in zip(positions[0], scores[0], strict=True)
            if score > 0
        )


def split_words(text: str) -> list[str]:
    """Return the stems of a text's words in order, without stop words."""
    return [_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


@cache
def _stem(word: str) -> str:
    return _stemmer()(_SPELLING.sub(lambda match: _AMERICAN[match[0]], word))


@cache
def _stemmer() -> Callable[[str], str]:
    try:
        from nltk.stem.snowball import EnglishStemmer
    except ImportError as exc:
        raise KeywordSearchError("nltk is missing for keyword search: install the extra `language`.") from exc
    stem: Callable[[str], str] = EnglishStemmer().stem
    return stem
