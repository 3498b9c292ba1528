"""Adapter: what the assistant cites beside the run: earlier studies, the texts and the graph of the site."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from integration.library import build_site_graph, open_site_library
from integration.priors import load_comparisons
from integration.run_folder import RunFolder
from integration.settings import Settings
from reporting.assistant.record import Relation
from reporting.comparison import Comparison
from reporting.language.knowledge_graph import KnowledgeGraph as PhenotypeGraph
from reporting.language.knowledge_graph import NodeKind
from reporting.language.knowledge_graph import Relation as GraphRelation
from reporting.language.library import Library as TextLibrary
from reporting.language.passages import Passage

#: Diseases, phenotypes and passages, of each so many.
_RELATIONS: Final = 3
_PASSAGES_LOOKED_AT: Final = 30
#: Edges from a finding to a passage: through a sign and a disease at the most; what is farther off is chance.
_LONGEST_WAY: Final = 3


class KeptComparisons:
    """What the run was compared with when its report was drafted: the same that the report says."""

    def __init__(self, folder_of: Callable[[str], RunFolder]) -> None:
        self._folder_of = folder_of

    def comparisons_of(self, run_id: str) -> Sequence[Comparison]:
        """Return the comparisons, the latest study first."""
        return load_comparisons(self._folder_of(run_id))


class SiteSources:
    """The site's library and knowledge graph as the assistant asks them; opened at the first question.

    Parameters
    ----------
    settings : Settings
        Say where they are, and whether questions may search them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._library: TextLibrary | None = None
        self._graph: tuple[int, PhenotypeGraph] | None = None

    def search(self, query: str, limit: int) -> Sequence[Passage]:
        """Return the passages of the library that fit best."""
        return self._open_library().search(query, limit)

    def related(self, concepts: Sequence[str]) -> Sequence[Relation]:
        """Return diseases, phenotypes and passages near to findings, with the way that leads there."""
        graph = self._open_graph()
        ontology = f"Human Phenotype Ontology, release {graph.release}"
        named = [
            Relation(text=_word_relation(one), source=ontology)
            for one in graph.related(concepts, _RELATIONS, (NodeKind.DISEASE, NodeKind.PHENOTYPE))
        ]
        passages = {passage.passage_id: passage for passage in self._open_library().passages()}
        near = [
            (_word_relation(one), passages[one.key])
            for one in graph.related(concepts, _PASSAGES_LOOKED_AT, (NodeKind.PASSAGE,))
            if len(one.path) <= _LONGEST_WAY and one.key in passages
        ]
        texts = [
            Relation(text=words, source=f"{passage.title}, {passage.source}", licence=passage.licence)
            for words, passage in near[:_RELATIONS]
        ]
        return (*named, *texts)

    def _open_library(self) -> TextLibrary:
        with self._lock:
            if self._library is None:
                self._library = open_site_library(self._settings)
            return self._library

    def _open_graph(self) -> PhenotypeGraph:
        """Return the graph of the library as it is now: texts may have come or gone since it was built."""
        library = self._open_library()
        with self._lock:
            version = library.version
            if self._graph is None or self._graph[0] != version:
                self._graph = (version, build_site_graph(self._settings, library))
            return self._graph[1]


def _word_relation(one: GraphRelation) -> str:
    return f"{one.name} ({one.kind.value}): {'; '.join(one.path)}"
