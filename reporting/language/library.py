"""Adapter: the library of a site's guideline and case texts: documents go in, passages are found.

What is on the disk is a `passage_table`, which sees to crashes and to other processes. A library of another
encoder is refused until it is embedded again. Nothing here may reach a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from reporting.language.embedding import TextEncoder
from reporting.language.keywords import KeywordIndex
from reporting.language.library_intake import (
    Progress,
    cut_documents,
    embed_cuts,
    embed_rows,
    require_usable,
    searched_text,
)
from reporting.language.passage_table import (
    COLUMNS,
    LibraryEncoderError,
    LibraryError,
    PassageTable,
    create_table,
    open_table,
    replace_table,
    translated,
)
from reporting.language.passages import CutPolicy, Document, Passage, digest_document
from reporting.language.ranking import fuse_rankings

__all__ = [
    "Addition",
    "Library",
    "LibraryEncoderError",
    "LibraryEntry",
    "LibraryError",
    "Progress",
    "SearchKind",
    "open_library",
    "reembed_library",
]

SearchKind = Literal["hybrid", "vector", "keyword"]

#: How deep each ranking is that hybrid search merges.
_FUSED_DEPTH: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEntry:
    """One document of a library, as a list shows it."""

    document_id: str
    title: str
    source: str
    licence: str
    passages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What adding documents did: numbers of documents, and of the passages that were embedded."""

    added: int
    replaced: int
    unchanged: int
    passages: int


def open_library(folder: Path, encoder: TextEncoder) -> Library:
    """Open the library in a folder; an empty one is made where there is none.

    Parameters
    ----------
    folder : Path
        Folder of the library, its own.
    encoder : TextEncoder
        What makes vectors of texts and queries.

    Raises
    ------
    LibraryEncoderError
        If its vectors are another encoder's: name that one, or embed the library again.
    LibraryError
        If LanceDB is not installed, or the folder holds no readable library.
    """
    table = open_table(folder)
    if table is None:
        table = create_table(folder, encoder)
    table.require_encoder(encoder)
    return Library(table, encoder)


def reembed_library(folder: Path, encoder: TextEncoder, progress: Progress | None = None) -> int:
    """Make the vectors of a library again with another encoder, in one commit.

    Returns
    -------
    int
        Passages embedded; 0 if the library is this encoder's already.

    Raises
    ------
    LibraryError
        If there is no library in the folder.
    """
    table = open_table(folder)
    if table is None:
        raise LibraryError(f"There is no library in {folder}: `preread library add` makes one.")
    if table.encoder == encoder.identity:
        return 0
    with translated(folder):
        rows = table.read(COLUMNS)
        replace_table(folder, rows, embed_rows(rows, encoder, progress), encoder)
    return len(rows)


class Library:
    """An open library. ``open_library`` makes it.

    Parameters
    ----------
    table : PassageTable
        Its passages.
    encoder : TextEncoder
        The encoder that made its vectors.
    policy : CutPolicy
        How long the passages of documents added from now on are.
    """

    def __init__(self, table: PassageTable, encoder: TextEncoder, policy: CutPolicy | None = None) -> None:
        self._table = table
        self._encoder = encoder
        self._policy = policy or CutPolicy()
        self._snapshot: _Snapshot | None = None

    @property
    def version(self) -> int:
        """Number that grows with every change, whoever makes it."""
        return self._table.version

    def documents(self) -> tuple[LibraryEntry, ...]:
        """Return what the library holds, sorted by document id."""
        counts: dict[str, int] = {}
        for passage in self.passages():
            counts[passage.document_id] = counts.get(passage.document_id, 0) + 1
        rows = self._table.read(["document_id", "document_title", "source", "licence"])
        return tuple(
            LibraryEntry(
                document_id=document_id,
                title=row["document_title"],
                source=row["source"],
                licence=row["licence"],
                passages=counts[document_id],
            )
            for document_id, row in sorted({row["document_id"]: row for row in rows}.items())
        )

    def passages(self) -> tuple[Passage, ...]:
        """Return all passages, without scores, sorted by passage id."""
        return self._current().passages

    def add(self, documents: Sequence[Document], progress: Progress | None = None) -> Addition:
        """Add documents; one that is there already and has not changed is left as it is.

        Parameters
        ----------
        documents : sequence of Document
            Each replaces the document of the same id.
        progress : callable or None
            Told how many passages are embedded.

        Raises
        ------
        LibraryError
            If an id is unusable or given twice, or a document has no text; nothing is added then.
        """
        require_usable(documents)
        known = self._table.digests()
        digests = {d.document_id: digest_document(d, self._policy) for d in documents}
        changed = [d for d in documents if known.get(d.document_id) != digests[d.document_id]]
        cuts = cut_documents(changed, self._policy)
        for batch in embed_cuts(cuts, digests, self._encoder, progress):
            self._table.write(batch.rows, batch.vectors, self._encoder, batch.document_ids)
        if changed:
            self._table.tidy()
        replaced = sum(document.document_id in known for document in changed)
        return Addition(
            added=len(changed) - replaced,
            replaced=replaced,
            unchanged=len(documents) - len(changed),
            passages=sum(len(passages) for _, passages in cuts),
        )

    def remove(self, document_ids: Sequence[str]) -> int:
        """Remove documents and return how many there were of them."""
        there = sorted(set(document_ids) & set(self._table.digests()))
        if there:
            self._table.remove(there)
        return len(there)

    def search(self, query: str, limit: int = 5, kind: SearchKind = "hybrid") -> tuple[Passage, ...]:
        """Find the passages that fit a query best.

        Parameters
        ----------
        query : str
            A question or some words.
        limit : int
            Most passages returned.
        kind : {"hybrid", "vector", "keyword"}
            By meaning, by words, or by both rankings merged.

        Returns
        -------
        tuple of Passage
            Best first. The score is the cosine, the BM25 score, or the sum of reciprocal ranks.

        Raises
        ------
        LibraryError
            If there is no such kind.
        """
        if kind not in get_args(SearchKind):
            raise LibraryError(
                f"There is no search {kind!r}: choose among {', '.join(get_args(SearchKind))}."
            )
        if limit < 1 or not query.strip():
            return ()
        current = self._current()
        if kind == "vector":
            found = self._by_vector(query, limit)
        elif kind == "keyword":
            found = current.by_keyword(query, limit)
        else:
            depth = max(limit, _FUSED_DEPTH)
            rankings = (self._by_vector(query, depth), current.by_keyword(query, depth))
            found = fuse_rankings([[key for key, _ in ranking] for ranking in rankings])
        hits = ((current.by_id.get(key), score) for key, score in found)
        return tuple(passage.scored(score) for passage, score in hits if passage is not None)[:limit]

    def _by_vector(self, query: str, limit: int) -> tuple[tuple[str, float], ...]:
        return self._table.nearest(self._encoder.encode([query])[0], limit)

    def _current(self) -> _Snapshot:
        """Return the passages of the present version; read and indexed once a version."""
        version = self.version
        if self._snapshot is None or self._snapshot.version != version:
            self._table.require_encoder(self._encoder)
            self._snapshot = _Snapshot(version, sorted(self._table.passages(), key=_place))
        return self._snapshot


class _Snapshot:
    """The passages of one version of a library, and their keyword index when it is first asked for."""

    def __init__(self, version: int, passages: Sequence[Passage]) -> None:
        self.version = version
        self.passages = tuple(passages)
        self.by_id = {passage.passage_id: passage for passage in passages}
        self._index: KeywordIndex | None = None

    def by_keyword(self, query: str, limit: int) -> tuple[tuple[str, float], ...]:
        if self._index is None:
            self._index = KeywordIndex([searched_text(p.title, p.text) for p in self.passages])
        return tuple(
            (self.passages[position].passage_id, score)
            for position, score in self._index.search(query, limit)
        )


def _place(passage: Passage) -> tuple[str, int]:
    return passage.document_id, int(passage.passage_id.rpartition("#")[2])
