"""Pure. Personalised PageRank: how much of its time a walker spends at each node of a weighted graph.

References
----------
Haveliwala. Topic-sensitive PageRank. WWW 2002. doi:10.1145/511446.511513
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

_DAMPING: Final = 0.85
"""Probability that the walker goes on, rather than back to the starts (Page et al. 1999)."""
_LEAST_STRENGTH: Final = 0.05
"""Keeps a node without edges from a division by zero; no edge weighs less."""
_MAXIMUM_ROUNDS: Final = 100
_TOLERANCE: Final = 1e-8


class Walk:
    """Walks in one graph: as ``networkx.pagerank``, which a test holds it to, but with a matrix made once.

    A question takes milliseconds so, instead of a second.

    Parameters
    ----------
    graph : networkx.Graph
        Undirected, edges with ``weight``.
    """

    def __init__(self, graph: Any) -> None:
        import networkx as nx
        import scipy.sparse

        self._nodes = list(graph)
        self._positions = {node: index for index, node in enumerate(self._nodes)}
        weights = nx.to_scipy_sparse_array(graph, nodelist=self._nodes, weight="weight", dtype=float)
        scale = scipy.sparse.diags_array(1.0 / weights.sum(axis=0).clip(min=_LEAST_STRENGTH))
        self._transitions = (weights @ scale).tocsr()
        """(N, N) probabilities of stepping from a column to a row."""

    def shares(self, starts: Sequence[str]) -> dict[str, float]:
        """Return the share of the walk spent at each node that can be reached; they sum to 1.

        Parameters
        ----------
        starts : sequence of str
            Nodes at which the walker starts, and to which it returns now and then.
        """
        start = np.zeros(len(self._nodes))
        start[[self._positions[node] for node in starts]] = 1.0 / len(starts)
        ranks = start
        for _ in range(_MAXIMUM_ROUNDS):
            last, ranks = ranks, _DAMPING * (self._transitions @ ranks) + (1.0 - _DAMPING) * start
            if float(np.abs(ranks - last).sum()) < _TOLERANCE:
                break
        return {self._nodes[index]: float(ranks[index]) for index in np.flatnonzero(ranks > 0)}
