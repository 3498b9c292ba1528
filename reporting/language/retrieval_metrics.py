"""Pure. How well a search finds what answers a question: recall, reciprocal rank and nDCG, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Final

from inference.training.metrics import Interval
from reporting.language.text_metrics import mean_interval

RECALL_DEPTHS: Final = (1, 5, 10)
NDCG_DEPTH: Final = 10
METRICS: Final = (*(f"recall@{depth}" for depth in RECALL_DEPTHS), "MRR", f"nDCG@{NDCG_DEPTH}")
"""Names of the figures, in the order of tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question, and what a search returned for it.

    Attributes
    ----------
    ranking : tuple of str
        Ids of documents, best first, each once.
    relevant : frozenset of str
        Ids of the documents that answer the question; at least one.
    group : str
        Questions of one group are not independent: intervals draw whole groups.
    """

    ranking: tuple[str, ...]
    relevant: frozenset[str]
    group: str


def score_question(answered: Answered) -> tuple[float, ...]:
    """Return one question's figures in the order of ``METRICS``.

    References
    ----------
    Järvelin, Kekäläinen. Cumulated gain-based evaluation of IR techniques. 2002. doi:10.1145/582415.582418
    """
    ranks = [rank for rank, key in enumerate(answered.ranking, start=1) if key in answered.relevant]
    recalls = [sum(rank <= depth for rank in ranks) / len(answered.relevant) for depth in RECALL_DEPTHS]
    gained = sum(1 / log2(rank + 1) for rank in ranks if rank <= NDCG_DEPTH)
    best = sum(1 / log2(rank + 1) for rank in range(1, min(len(answered.relevant), NDCG_DEPTH) + 1))
    return (*recalls, 1 / ranks[0] if ranks else 0.0, gained / best)


def score_search(answers: Sequence[Answered]) -> dict[str, Interval]:
    """Return the mean figures over questions, with 95 % bootstrap intervals over groups.

    Raises
    ------
    TextMetricsError
        If there is no question.
    """
    scores = [score_question(answered) for answered in answers]
    groups = [answered.group for answered in answers]
    return {
        name: mean_interval([score[column] for score in scores], groups)
        for column, name in enumerate(METRICS)
    }


def first_of_each(document_ids: Sequence[str]) -> tuple[str, ...]:
    """Return each document once, where its best passage stands."""
    return tuple(dict.fromkeys(document_ids))
