"""Pure. Where a text names something: phrases of a vocabulary, found as whole words, the longest first.

Words are compared by their stems and in American spelling (``keywords.split_words``), so that
"pleural effusions" names "pleural effusion" and "haemorrhage" names "hemorrhage". Negation is not looked at:
a text that says "no effusion" is still about effusions, which is what retrieval asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reporting.language.keywords import split_words


class Vocabulary:
    """Names of things, ready to be found in texts.

    Parameters
    ----------
    names : mapping of str to iterable of str
        The phrases of each key. Several keys may share a phrase.
    """

    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        self._keys: dict[tuple[str, ...], list[str]] = {}
        for key, phrases in names.items():
            for phrase in phrases:
                words = tuple(split_words(phrase))
                known = self._keys.setdefault(words, [])
                if words and key not in known:
                    known.append(key)
        self._longest = max(map(len, self._keys), default=0)

    def find(self, text: str) -> dict[str, int]:
        """Return how often a text names each key; words within a longer name do not count again."""
        words = split_words(text)
        found: dict[str, int] = {}
        start = 0
        while start < len(words):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                keys = self._keys.get(tuple(words[start : start + length]))
                if keys:
                    for key in keys:
                        found[key] = found.get(key, 0) + 1
                    start += length
                    break
            else:
                start += 1
        return found
