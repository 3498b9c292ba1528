"""Pure. How rankings of the same things become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

RRF_CONSTANT: Final = 60.0
"""The constant of Cormack, Clarke and Buettcher: how little the first places count more than later ones."""


def fuse_rankings(
    rankings: Sequence[Sequence[str]], weights: Sequence[float] | None = None
) -> tuple[tuple[str, float], ...]:
    """Merge rankings by reciprocal rank fusion.

    Parameters
    ----------
    rankings : sequence of sequence of str
        Ids, best first; each at most once in a ranking.
    weights : sequence of float or None
        What each ranking counts; None counts all as 1.

    Returns
    -------
    tuple of (str, float)
        Id and score, best first; the order of ids breaks ties.

    References
    ----------
    Cormack, Clarke, Buettcher. Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods. SIGIR 2009. doi:10.1145/1571941.1572114
    """
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + weight / (RRF_CONSTANT + rank)
    return tuple(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
