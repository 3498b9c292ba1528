"""What the assistant cites of a site's library and graph: as they are now, and nothing found by chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import WordEncoder

from integration import assistant_sources
from integration.assistant_sources import SiteSources
from integration.settings import LibrarySection, Settings
from reporting.language import embedding
from reporting.language.finding_terms import FINDING_TERMS
from reporting.language.knowledge_graph import KnowledgeGraph, assemble_graph
from reporting.language.library import Library, open_library
from reporting.language.passages import Document
from reporting.language.phenotypes import Disease, Phenotype, PhenotypeTable

pytest.importorskip("lancedb")
pytest.importorskip("networkx")


def phenotype(term_id: str, name: str) -> Phenotype:
    return Phenotype(term_id=term_id, name=name, synonyms=(), information=3.0, parents=())


SIGNS = {link.term_id: link.name for terms in FINDING_TERMS.values() for link in terms.phenotypes}
TABLE = PhenotypeTable(
    release="2025-01-16",
    phenotypes=(
        *(phenotype(term_id, name) for term_id, name in sorted(SIGNS.items())),
        phenotype("HP:0009999", "Sample sign"),
    ),
    diseases=(
        Disease(disease_ids=("OMIM:999999",), name="Sample syndrome", term_ids=("HP:0001640", "HP:0009999")),
    ),
)


def document(key: str, text: str) -> Document:
    return Document(document_id=key, title=f"On {key}", source="Ward", licence="own text", text=text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SiteSources, Library]:
    built: list[KnowledgeGraph] = []

    def build(_settings: Settings, library: Library) -> KnowledgeGraph:
        built.append(assemble_graph(TABLE, library.passages()))
        return built[-1]

    encoder = WordEncoder()
    monkeypatch.setattr(embedding, "open_encoder", lambda *_, **__: encoder)
    monkeypatch.setattr(assistant_sources, "build_site_graph", build)
    settings = Settings(data_dir=tmp_path, library=LibrarySection(enabled=True))
    library = open_library(settings.library_folder, encoder)
    library.add(
        [
            document("heart", "Cardiomegaly is judged upright."),
            document("syndrome", "A sample syndrome is rare."),
            document("sign", "A sample sign is rare."),
        ]
    )
    return SiteSources(settings), library


def test_a_finding_leads_to_a_disease_and_to_texts_with_their_own_source(
    site: tuple[SiteSources, Library],
) -> None:
    relations = site[0].related(["cardiomegaly"])
    by_source = {one.source: one for one in relations}
    ontology = by_source["Human Phenotype Ontology, release 2025-01-16"]
    assert "HPO 2025-01-16" in ontology.text
    assert (by_source["On heart, Ward"].licence, ontology.licence) == ("own text", "")
    assert "Cardiomegaly is named in On heart [heart#1] (Ward)" in by_source["On heart, Ward"].text
    assert "On syndrome, Ward" in by_source


def test_a_text_that_only_names_another_sign_of_a_disease_is_no_relation(
    site: tuple[SiteSources, Library],
) -> None:
    assert "On sign, Ward" not in {one.source for one in site[0].related(["cardiomegaly"])}


def test_texts_that_come_and_go_are_related_from_the_next_question_on(
    site: tuple[SiteSources, Library],
) -> None:
    sources, library = site
    assert sources.related(["cardiomegaly"])
    library.add([document("silhouette", "A cardiomegaly is wide.")])
    library.remove(["heart"])
    named = {one.source for one in sources.related(["cardiomegaly"])}
    assert "On silhouette, Ward" in named
    assert "On heart, Ward" not in named
