"""The graph: what it relates to findings, why, and what must not change that."""

from __future__ import annotations

import pytest

from reporting.codes import code_finding, code_site
from reporting.errors import UnknownConceptError
from reporting.language.finding_terms import FINDING_TERMS
from reporting.language.knowledge_graph import KnowledgeGraph, NodeKind, assemble_graph
from reporting.language.passages import Passage
from reporting.language.phenotypes import Disease, Phenotype, PhenotypeTable

pytest.importorskip("networkx")

_ROOTS = {link.term_id: link.name for terms in FINDING_TERMS.values() for link in terms.phenotypes}
_OTHERS = {"HP:0001945": "Fever", "HP:0000252": "Microcephaly"}


def phenotype(term_id: str, name: str) -> Phenotype:
    return Phenotype(term_id=term_id, name=name, synonyms=(), information=3.0, parents=())


def disease(key: str, name: str, *terms: str) -> Disease:
    return Disease(disease_ids=(key,), name=name, term_ids=terms)


TABLE = PhenotypeTable(
    release="2000-01-01",
    phenotypes=tuple(phenotype(*item) for item in sorted({**_ROOTS, **_OTHERS}.items())),
    diseases=(
        disease("OMIM:1", "Wet lung disease", "HP:0002202", "HP:0001945"),
        disease("OMIM:2", "Big wet heart disease", "HP:0002202", "HP:0001640"),
        disease("OMIM:3", "Small head disease", "HP:0000252"),
    ),
)


def passage(key: str, text: str) -> Passage:
    return Passage(passage_id=key, document_id=key, title=f"About {key}", source="S", licence="L", text=text)


ANNOTATION = "(HPO 2000-01-01, annotation of OMIM:1)"
PASSAGES = (
    passage("a#1", "Effusions are tapped."),
    passage("b#1", "No effusion, but fever and microcephaly."),
    passage("c#1", "The weather is fine."),
)


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return assemble_graph(TABLE, PASSAGES)


def test_the_disease_with_both_signs_comes_first(graph: KnowledgeGraph) -> None:
    found = graph.related(["effusion", "cardiomegaly"], kinds=[NodeKind.DISEASE])
    assert [(r.name, r.key) for r in found] == [
        ("Big wet heart disease", "OMIM:2"),
        ("Wet lung disease", "OMIM:1"),
    ]


def test_a_disease_that_no_way_leads_to_is_not_named(graph: KnowledgeGraph) -> None:
    assert "OMIM:3" not in {r.key for r in graph.related(["effusion"], 50)}


def test_every_answer_shows_its_way_and_sources(graph: KnowledgeGraph) -> None:
    (first, *_) = graph.related(["effusion"], 1, [NodeKind.DISEASE])
    assert first.path == (
        "Pleural effusion is the sign Pleural effusion [HP:0002202] (this node's table, HPO 2000-01-01)",
        "Pleural effusion [HP:0002202] is a sign of Wet lung disease [OMIM:1] " + ANNOTATION,
    )


@pytest.mark.parametrize("concepts", [["effusion", "cardiomegaly"], ["cardiomegaly", "effusion"]])
def test_of_ways_that_are_as_short_the_one_from_the_finding_named_first_is_shown(graph, concepts) -> None:
    (first, *_) = graph.related(concepts, 1, [NodeKind.DISEASE])
    assert first.key == "OMIM:2"
    assert first.path[0].startswith(code_finding(concepts[0]).label)


def test_the_way_to_a_passage_ends_at_the_passage(graph: KnowledgeGraph) -> None:
    found = graph.related(["effusion"], kinds=[NodeKind.PASSAGE])
    assert [r.key for r in found] == ["a#1", "b#1"]
    assert found[0].path == ("Pleural effusion is named in About a#1 [a#1] (S)",)


def test_the_library_does_not_change_what_is_associated(graph: KnowledgeGraph) -> None:
    kinds = [NodeKind.DISEASE, NodeKind.PHENOTYPE]
    assert graph.related(["effusion"], 50, kinds) == assemble_graph(TABLE, ()).related(
        ["effusion"], 50, kinds
    )


def test_a_findings_own_sign_is_no_answer(graph: KnowledgeGraph) -> None:
    assert "HP:0002202" not in {r.key for r in graph.related(["effusion"], 50)}
    assert "HP:0001945" in {r.key for r in graph.related(["effusion"], 50)}


def test_a_finding_without_a_term_has_no_diseases_of_its_own(graph: KnowledgeGraph) -> None:
    assert graph.related(["calcification"], 5, [NodeKind.PASSAGE]) == ()
    assert graph.related([], 5) == graph.related(["effusion"], 0) == graph.related(["brain"], 5) == ()


def test_an_unknown_finding_is_named(graph: KnowledgeGraph) -> None:
    with pytest.raises(UnknownConceptError, match="dragon"):
        graph.related(["dragon"])


def test_texts_are_ranked_for_a_question(graph: KnowledgeGraph) -> None:
    assert [key for key, _ in graph.rank_for_text("What is an effusion?", NodeKind.PASSAGE, 5)] == [
        "a#1",
        "b#1",
    ]
    assert graph.rank_for_text("What is the weather?", NodeKind.PASSAGE, 5) == ()


def test_nodes_are_counted(graph: KnowledgeGraph) -> None:
    counts = graph.counts()
    assert counts["disease"] == 3
    assert counts["passage"] == 2
    assert counts["finding"] == len(FINDING_TERMS)


def test_every_finding_and_site_of_the_table_has_a_code() -> None:
    from reporting import codes

    assert {key for key, value in codes._FINDINGS.items() if not value.is_anatomy} == set(FINDING_TERMS)
    for key, terms in FINDING_TERMS.items():
        assert not code_finding(key).is_anatomy
        assert code_site(terms.site)
