"""Pure. What the knowledge graph holds: typed nodes, and edges that say how they read and what they rest on.

The weight of an edge is what it weighs in the walk of `knowledge_graph.KnowledgeGraph`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from reporting.codes import code_finding, code_quantity, code_site
from reporting.language.finding_terms import FINDING_TERMS, QUANTITY_PHRASES
from reporting.language.mentions import Vocabulary
from reporting.language.passages import Passage
from reporting.language.phenotypes import PhenotypeTable

_CODES: Final = "codes.py of this node"
#: What an edge weighs in the walk; of edges to phenotypes, what a nat of information content weighs.
_CODED_AS: Final = 4.0
_MENTIONS: Final = 1.0
_LIES_IN: Final = 0.25
_MEASURED_BY: Final = 0.25
_IS_A: Final = 1.0
_PER_NAT: Final = 0.25
#: No edge weighs less: a sign of all diseases is still a way to them.
_LEAST: Final = 0.05


class NodeKind(StrEnum):
    """What a node is."""

    FINDING = "finding"
    ANATOMY = "anatomy"
    MEASUREMENT = "measurement"
    PHENOTYPE = "phenotype"
    DISEASE = "disease"
    PASSAGE = "passage"


def name_node(kind: NodeKind, key: str) -> str:
    """Return a node's name in the graph; with an empty key, what the names of the kind begin with."""
    return f"{kind.value}|{key}"


def key_of(node: str) -> str:
    """Return the key in a node's name."""
    return node.partition("|")[2]


def fill_graph(graph: Any, table: PhenotypeTable, passages: Iterable[Passage]) -> Vocabulary:
    """Add findings, what they lead to, and the passages that name any of it.

    Parameters
    ----------
    graph : networkx.Graph
        An empty graph. Its nodes get ``kind`` and ``name``; its edges ``relation``, ``reverse``, ``origin``,
        ``source`` and ``weight``.
    table : PhenotypeTable
        Terms and diseases of the HPO.
    passages : iterable of Passage
        Texts to link by what they name.

    Returns
    -------
    Vocabulary
        Names of the findings, phenotypes, diseases and measurements in the graph.
    """
    _add_phenotypes(graph, table)
    _add_findings(graph, table)
    vocabulary = Vocabulary(_name_nodes(table))
    _add_passages(graph, vocabulary, passages)
    return vocabulary


def _add_phenotypes(graph: Any, table: PhenotypeTable) -> None:
    source = f"HPO {table.release}"
    information = {phenotype.term_id: phenotype.information for phenotype in table.phenotypes}
    for phenotype in table.phenotypes:
        node = name_node(NodeKind.PHENOTYPE, phenotype.term_id)
        graph.add_node(node, kind=NodeKind.PHENOTYPE, name=phenotype.name)
    for phenotype in table.phenotypes:
        node = name_node(NodeKind.PHENOTYPE, phenotype.term_id)
        for parent in phenotype.parents:
            broader = name_node(NodeKind.PHENOTYPE, parent)
            _link(graph, node, broader, relation="is a", reverse="can be", source=source, weight=_IS_A)
    for disease in table.diseases:
        node = name_node(NodeKind.DISEASE, disease.disease_ids[0])
        graph.add_node(node, kind=NodeKind.DISEASE, name=disease.name)
        for term_id in disease.term_ids:
            _link(
                graph,
                node,
                name_node(NodeKind.PHENOTYPE, term_id),
                relation="has the sign",
                reverse="is a sign of",
                source=f"{source}, annotation of {', '.join(disease.disease_ids)}",
                weight=_PER_NAT * information[term_id],
            )


def _add_findings(graph: Any, table: PhenotypeTable) -> None:
    source = f"this node's table, HPO {table.release}"
    for key, terms in FINDING_TERMS.items():
        node = name_node(NodeKind.FINDING, key)
        graph.add_node(node, kind=NodeKind.FINDING, name=code_finding(key).label)
        for link in terms.phenotypes:
            sign = name_node(NodeKind.PHENOTYPE, link.term_id)
            words = link.match.value
            _link(graph, node, sign, relation=words, reverse="is found as", source=source, weight=_CODED_AS)
        site = name_node(NodeKind.ANATOMY, terms.site)
        graph.add_node(site, kind=NodeKind.ANATOMY, name=code_site(terms.site).noun)
        _link(graph, node, site, relation="lies in", reverse="may hold", source=_CODES, weight=_LIES_IN)
        for quantity in terms.quantities:
            measure = name_node(NodeKind.MEASUREMENT, quantity.value)
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
        node = name_node(NodeKind.PASSAGE, passage.passage_id)
        graph.add_node(node, kind=NodeKind.PASSAGE, name=passage.title)
        for other, count in found.items():
            weight = _MENTIONS * count / sum(found.values())
            _link(
                graph, node, other, relation="names", reverse="is named in", source=passage.source,
                weight=weight,
            )  # fmt: skip


def _name_nodes(table: PhenotypeTable) -> dict[str, tuple[str, ...]]:
    """Return the phrases of each node that a text can name."""
    names = {name_node(NodeKind.FINDING, key): terms.phrases for key, terms in FINDING_TERMS.items()}
    measured = {quantity for terms in FINDING_TERMS.values() for quantity in terms.quantities}
    names |= {
        name_node(NodeKind.MEASUREMENT, quantity.value): QUANTITY_PHRASES[quantity] for quantity in measured
    }
    names |= {name_node(NodeKind.PHENOTYPE, p.term_id): (p.name, *p.synonyms) for p in table.phenotypes}
    names |= {name_node(NodeKind.DISEASE, d.disease_ids[0]): (d.name,) for d in table.diseases}
    return names


def _link(
    graph: Any, origin: str, end: str, *, relation: str, reverse: str, source: str, weight: float
) -> None:
    """Add an edge that reads ``origin relation end``, and ``end reverse origin`` the other way."""
    weight = max(weight, _LEAST)
    graph.add_edge(
        origin, end, origin=origin, relation=relation, reverse=reverse, source=source, weight=weight
    )
