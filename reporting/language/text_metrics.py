"""Pure. Scores of texts against reference texts: BLEU-1 to 4, METEOR, ROUGE-L, with intervals.

Items that come from one patient are resampled together: give their patients as ``groups``. Every score is
0 to 1. Reads WordNet's files if NLTK finds them, and nothing else.

References
----------
Papineni et al., BLEU, doi:10.3115/1073083.1073135 (corpus level, by sacrebleu, no smoothing); Banerjee and
Lavie, METEOR, W05-0909 (mean over items, by NLTK); Lin, ROUGE, W04-1013 (mean F1 of the longest common
subsequence over items, by rouge-score).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicom_node.errors import PermanentError
from inference.training.metrics import Interval

Pairs = Sequence[tuple[str, str]]
"""Candidate and reference, one pair an item."""

ORDERS: Final = 4
"""The longest n-grams that BLEU counts."""

RESAMPLES: Final = 1_000
"""Bootstrap samples behind an interval."""

SYNONYMS: Final = "exact, stem and WordNet synonym"
NO_SYNONYMS: Final = "exact and stem (no WordNet found)"

_TOKEN: Final = re.compile(r"\w+(?:[.,'\u2019-]\w+)*|[.%]")


class TextMetricsError(PermanentError):
    """Texts cannot be scored: there are none, or a library is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScores:
    """All scores of a list of texts, with 95 % bootstrap intervals.

    Attributes
    ----------
    bleu : tuple of Interval
        BLEU-1, -2, -3 and -4; ``count`` is the number of items or, with groups, of groups.
    meteor, rouge_l : Interval
        Means over the items.
    meteor_matching : str
        What METEOR counted as a match: `SYNONYMS`, or `NO_SYNONYMS` where WordNet is absent, which lowers it.
    items : int
        Number of pairs.
    """

    bleu: tuple[Interval, ...]
    meteor: Interval
    rouge_l: Interval
    meteor_matching: str
    items: int

    def figures(self) -> dict[str, Any]:
        """Return the scores as a card's ``metrics`` hold them."""
        named = {f"bleu_{order}": score for order, score in enumerate(self.bleu, start=1)}
        named |= {"meteor": self.meteor, "rouge_l": self.rouge_l}
        return {name: figure(score) for name, score in named.items()} | {
            "meteor_matching": self.meteor_matching,
            "items": self.items,
        }


def figure(score: Interval) -> dict[str, Any]:
    """Return one score with its interval, to three places."""
    return {
        "mean": round(score.mean, 3),
        "ci95": [round(score.low, 3), round(score.high, 3)],
        "n": score.count,
    }


def tokens(text: str) -> list[str]:
    """Split a text into lower-case words and numbers, full stops and per cent signs."""
    return _TOKEN.findall(text.lower())


def score_texts(pairs: Pairs, groups: Sequence[str] | None = None) -> TextScores:
    """Score candidates against their references by every metric.

    Parameters
    ----------
    pairs : sequence of pairs of str
        Candidate and reference.
    groups : sequence of str or None
        Who each pair belongs to (its patient); None takes every item for itself.

    Raises
    ------
    TextMetricsError
        If there is no pair, or a metric's library is absent.
    """
    return TextScores(
        bleu=bleu(pairs, groups),
        meteor=meteor(pairs, groups),
        rouge_l=rouge_l(pairs, groups),
        meteor_matching=meteor_matching(),
        items=len(pairs),
    )


def bleu(pairs: Pairs, groups: Sequence[str] | None = None) -> tuple[Interval, ...]:
    """Corpus BLEU-1 to BLEU-4; 0 where no n-gram of an order agrees.

    Raises
    ------
    TextMetricsError
        If there is no pair, or sacrebleu is absent.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as exc:
        raise _absent("sacrebleu") from exc
    metric = BLEU(tokenize="none", smooth_method="none", effective_order=True, max_ngram_order=ORDERS)
    scored = [
        metric.sentence_score(_joined(candidate), [_joined(reference)]) for candidate, reference in pairs
    ]
    counts = np.array(
        [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scored], dtype=np.int64
    ).reshape(len(pairs), 2 * ORDERS + 2)

    def of(order: int) -> Interval:
        def score(summed: npt.NDArray[np.float64]) -> float:
            whole = [int(value) for value in summed]
            return (
                float(
                    BLEU.compute_bleu(
                        whole[:order],
                        whole[ORDERS : ORDERS + order],
                        whole[2 * ORDERS],
                        whole[2 * ORDERS + 1],
                        smooth_method="none",
                        max_ngram_order=order,
                    ).score
                )
                / 100.0
            )

        return _interval(counts.astype(np.float64), groups, score)

    return tuple(of(order) for order in range(1, ORDERS + 1))


def meteor(pairs: Pairs, groups: Sequence[str] | None = None) -> Interval:
    """Mean METEOR; `meteor_matching` says whether synonyms counted.

    Raises
    ------
    TextMetricsError
        If there is no pair, or NLTK is absent.
    """
    return mean_interval([meteor_of(candidate, reference) for candidate, reference in pairs], groups)


def meteor_of(candidate: str, reference: str) -> float:
    """METEOR of one text.

    Raises
    ------
    TextMetricsError
        If NLTK is absent.
    """
    try:
        from nltk.translate.meteor_score import meteor_score
    except ImportError as exc:
        raise _absent("nltk") from exc
    dictionary = _dictionary()
    return float(
        meteor_score(
            [tokens(reference)],
            tokens(candidate),
            wordnet=_NoDictionary() if dictionary is None else dictionary,
        )
    )


def meteor_matching() -> str:
    """Say what METEOR counts as a match here.

    Raises
    ------
    TextMetricsError
        If NLTK is absent.
    """
    return NO_SYNONYMS if _dictionary() is None else SYNONYMS


def rouge_l(pairs: Pairs, groups: Sequence[str] | None = None) -> Interval:
    """Mean F1 of the longest common subsequence.

    Raises
    ------
    TextMetricsError
        If there is no pair, or rouge-score is absent.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as exc:
        raise _absent("rouge-score") from exc
    scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    values = [float(scorer.score(reference, candidate)["rougeL"].fmeasure) for candidate, reference in pairs]
    return mean_interval(values, groups)


def mean_interval(values: Sequence[float], groups: Sequence[str] | None = None) -> Interval:
    """Mean of one value an item, with its 95 % bootstrap interval over groups.

    Raises
    ------
    TextMetricsError
        If there is no value.
    """
    rows = np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(values))])
    return _interval(rows, groups, lambda summed: float(summed[0] / summed[1]))


def label_scores(
    pairs: Sequence[tuple[Iterable[str], Iterable[str]]],
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Precision, recall and F1 of labels said against labels true, pooled and as the mean over labels.

    Parameters
    ----------
    pairs : sequence of pairs of iterables of str
        Labels that the candidate states, labels that are true.
    labels : sequence of str
        The labels that count; the mean is over those that are true somewhere.
    groups : sequence of str or None
        Who each pair belongs to.

    Returns
    -------
    dict of Interval
        ``micro_precision``, ``micro_recall``, ``micro_f1`` and the same as ``macro_``. A ratio without a
        denominator is 0.

    Raises
    ------
    TextMetricsError
        If there is no pair.
    """
    said = np.array([[label in set(mine) for label in labels] for mine, _ in pairs], dtype=np.float64)
    true = np.array([[label in set(theirs) for label in labels] for _, theirs in pairs], dtype=np.float64)
    rows = np.hstack([said * true, said, true]) if len(pairs) else np.zeros((0, 3))
    counted = np.flatnonzero(true.sum(axis=0)) if len(pairs) else np.zeros(0, dtype=np.int64)

    def of(name: str, *, pooled: bool) -> Interval:
        def score(summed: npt.NDArray[np.float64]) -> float:
            hit, stated, actual = (part[counted] for part in np.split(summed, 3))
            if pooled:
                hit, stated, actual = (part.sum(keepdims=True) for part in (hit, stated, actual))
            below = {"precision": stated, "recall": actual, "f1": (stated + actual) / 2}[name]
            ratios = np.divide(hit, below, out=np.zeros_like(hit), where=below > 0)
            return float(ratios.mean()) if len(ratios) else 0.0

        return _interval(rows, groups, score)

    names = ("precision", "recall", "f1")
    return {f"micro_{name}": of(name, pooled=True) for name in names} | {
        f"macro_{name}": of(name, pooled=False) for name in names
    }


def _interval(
    rows: npt.NDArray[np.float64],
    groups: Sequence[str] | None,
    score: Callable[[npt.NDArray[np.float64]], float],
) -> Interval:
    """Score the sum of (N, S) rows of counts, with a percentile bootstrap interval over groups."""
    if len(rows) == 0:
        raise TextMetricsError("There is no text to score: give at least one candidate and reference.")
    if groups is not None and len(groups) != len(rows):
        raise TextMetricsError("groups: give one group for every pair.")
    if groups is not None:
        _, members = np.unique(np.asarray(groups), return_inverse=True)
        summed = np.zeros((int(members.max()) + 1, rows.shape[1]))
        np.add.at(summed, members, rows)
    else:
        summed = rows
    draws = np.random.default_rng(0).multinomial(
        len(summed), np.full(len(summed), 1 / len(summed)), RESAMPLES
    )
    values = [score(sample) for sample in draws @ summed]
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval(mean=score(rows.sum(axis=0)), low=float(low), high=float(high), count=len(summed))


def _joined(text: str) -> str:
    return " ".join(tokens(text))


class _Tokenizer:
    """Our tokens for rouge-score."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return tokens(text)


class _NoDictionary:
    """A dictionary without synonyms, where WordNet is absent."""

    @staticmethod
    def synsets(_: str) -> tuple[()]:
        return ()


@cache
def _dictionary() -> Any | None:
    """Return WordNet if NLTK finds its files."""
    try:
        from nltk.corpus import wordnet
    except ImportError as exc:
        raise _absent("nltk") from exc
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


def _absent(package: str) -> TextMetricsError:
    return TextMetricsError(f"{package} is absent: install preread[language] to score texts.")
