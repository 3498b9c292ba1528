from __future__ import annotations

import pytest

from reporting.language.graph_walk import Walk

nx = pytest.importorskip("networkx")


@pytest.fixture(scope="module")
def graph():
    """A connected graph with weights, a part that nothing leads to, and a node by itself."""
    graph = nx.gnm_random_graph(40, 90, seed=3)
    graph = nx.relabel_nodes(graph.subgraph(max(nx.connected_components(graph), key=len)), str)
    for index, (_, _, edge) in enumerate(graph.edges(data=True)):
        edge["weight"] = 0.05 + index % 7
    graph.add_edge("far", "away", weight=1.0)
    graph.add_node("alone")
    return graph


@pytest.mark.parametrize("starts", [["0"], ["1", "2", "3"]])
def test_the_walk_is_personalised_pagerank(graph, starts):
    share = dict.fromkeys(starts, 1.0)
    expected = nx.pagerank(graph, alpha=0.85, personalization=share, tol=1e-12, max_iter=1000)
    walked = Walk(graph).shares(starts)
    assert sum(walked.values()) == pytest.approx(1.0)
    for node, visited in expected.items():
        assert walked.get(node, 0.0) == pytest.approx(visited, abs=1e-6)


def test_what_no_way_leads_to_has_no_share(graph):
    assert not {"far", "away", "alone"} & set(Walk(graph).shares(["0"]))
