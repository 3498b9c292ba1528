from __future__ import annotations

import pytest

from reporting.language.finding_terms import FINDING_TERMS
from reporting.language.graph_content import NodeKind, fill_graph, key_of, name_node
from reporting.language.passages import Passage
from reporting.language.phenotypes import Disease, Phenotype, PhenotypeTable

nx = pytest.importorskip("networkx")

SIGNS = sorted({link.term_id for terms in FINDING_TERMS.values() for link in terms.phenotypes})
TABLE = PhenotypeTable(
    release="2000-01-01",
    phenotypes=tuple(
        Phenotype(term_id=term_id, name=f"Sign {term_id}", synonyms=(), information=0.0, parents=())
        for term_id in SIGNS
    ),
    diseases=(Disease(disease_ids=("OMIM:1", "ORPHA:2"), name="A disease", term_ids=tuple(SIGNS[:2])),),
)


def passage(key: str, text: str) -> Passage:
    return Passage(passage_id=key, document_id=key, title="", source="Ward book", licence="L", text=text)


@pytest.fixture
def graph():
    graph = nx.Graph()
    fill_graph(graph, TABLE, [passage("a#1", "An effusion."), passage("b#1", "The weather.")])
    return graph


def test_every_node_has_a_kind_that_its_name_begins_with(graph):
    for node, data in graph.nodes(data=True):
        assert name_node(data["kind"], key_of(node)) == node
        assert data["name"] or data["kind"] is NodeKind.PASSAGE


def test_every_edge_reads_both_ways_names_its_source_and_weighs_something(graph):
    for one, other, edge in graph.edges(data=True):
        assert edge["origin"] in (one, other)
        assert edge["relation"]
        assert edge["reverse"]
        assert edge["source"]
        assert edge["weight"] > 0
    edge = graph.edges[name_node(NodeKind.DISEASE, "OMIM:1"), name_node(NodeKind.PHENOTYPE, SIGNS[0])]
    assert edge["source"] == "HPO 2000-01-01, annotation of OMIM:1, ORPHA:2"


def test_only_a_passage_that_names_something_is_a_node(graph):
    assert name_node(NodeKind.PASSAGE, "b#1") not in graph
    node = name_node(NodeKind.PASSAGE, "a#1")
    assert set(graph[node]) == {name_node(NodeKind.FINDING, "effusion")}
    assert graph.edges[node, name_node(NodeKind.FINDING, "effusion")]["source"] == "Ward book"
