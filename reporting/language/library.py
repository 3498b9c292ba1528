"""Adapter: the library of a site's guideline and case texts: passages and their vectors in LanceDB, a folder.

One table holds everything: a change is one commit of LanceDB, so that a crash leaves the library as it was
before or after, and a node that serves sees what the command line adds. The table's schema says which
encoder made the vectors; a library of another encoder is refused until it is embedded again. Why LanceDB:
docs/adr/0011-retrieval-store.md. Nothing here may reach a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from reporting.errors import ReportingError
from reporting.language.embedding import TextEncoder
from reporting.language.keywords import KeywordIndex
from reporting.language.passages import CutPolicy, Document, Passage, cut_document, digest_document
from reporting.language.ranking import fuse_rankings

SearchKind = Literal["hybrid", "vector", "keyword"]
Progress = Callable[[str, int, int], None]
"""Takes what is done, how many of it are done, and how many there are."""

_TABLE: Final = "passages"
_FORMAT: Final = "1"
_DOCUMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_TEXT_COLUMNS: Final = ("passage_id", "document_id", "title", "source", "licence", "text")
#: Passages embedded and committed together: some seconds of work.
_BATCH_PASSAGES: Final = 256
#: How deep each ranking is that hybrid search merges.
_FUSED_DEPTH: Final = 50
#: Old versions that another process may still read.
_KEPT_VERSIONS: Final = timedelta(hours=1)


class LibraryError(ReportingError):
    """The library cannot do what was asked; the message says what to do."""


class LibraryEncoderError(LibraryError):
    """The library's vectors were made by another encoder."""


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
    table = _open_table(folder)
    if table is None:
        with _translated(folder):
            table = _connect(folder).create_table(_TABLE, schema=_schema(encoder))
    _require_encoder(table, encoder)
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
    table = _open_table(folder)
    if table is None:
        raise LibraryError(f"There is no library in {folder}: `preread library add` makes one.")
    if _encoder_of(table) == encoder.identity:
        return 0
    with _translated(folder):
        rows = table.search().select(list(_schema(encoder).names[:-1])).to_arrow().to_pylist()
        vectors = _encode([_embedded_text(row["title"], row["text"]) for row in rows], encoder, progress)
        _connect(folder).create_table(_TABLE, data=_to_arrow(rows, vectors, encoder), mode="overwrite")
    return len(rows)


class Library:
    """An open library. ``open_library`` makes it.

    Parameters
    ----------
    table : lancedb.table.Table
        The table of passages.
    encoder : TextEncoder
        The encoder that made its vectors.
    policy : CutPolicy
        How long the passages of documents added from now on are.
    """

    def __init__(self, table: Any, encoder: TextEncoder, policy: CutPolicy | None = None) -> None:
        self._table = table
        self._encoder = encoder
        self._policy = policy or CutPolicy()
        self._snapshot: _Snapshot | None = None

    @property
    def version(self) -> int:
        """Number that grows with every change, whoever makes it."""
        return int(self._table.version)

    def documents(self) -> tuple[LibraryEntry, ...]:
        """Return what the library holds, sorted by document id."""
        counts: dict[str, int] = {}
        for passage in self.passages():
            counts[passage.document_id] = counts.get(passage.document_id, 0) + 1
        columns = ["document_id", "document_title", "source", "licence"]
        rows = self._table.search().select(columns).to_arrow().to_pylist()
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
        _require_usable(documents)
        known = self._digests()
        digests = {d.document_id: digest_document(d, self._policy) for d in documents}
        changed = [d for d in documents if known.get(d.document_id) != digests[d.document_id]]
        cuts = [(document, cut_document(document, self._policy)) for document in changed]
        for document, passages in cuts:
            if not passages:
                raise LibraryError(f"The document {document.document_id} has no text: leave it out.")
        total = sum(len(passages) for _, passages in cuts)
        done = 0
        for batch in _batches(cuts):
            rows = [
                _row(document, passage, digests[document.document_id])
                for document, passages in batch
                for passage in passages
            ]
            offset = done

            def report(stage: str, now: int, _: int, offset: int = offset) -> None:
                if progress is not None:
                    progress(stage, offset + now, total)

            vectors = _encode(
                [_embedded_text(row["title"], row["text"]) for row in rows], self._encoder, report
            )
            self._merge(rows, vectors, [document.document_id for document, _ in batch])
            done += len(rows)
        if changed:
            self._table.optimize(cleanup_older_than=_KEPT_VERSIONS)
        replaced = sum(document.document_id in known for document in changed)
        return Addition(
            added=len(changed) - replaced,
            replaced=replaced,
            unchanged=len(documents) - len(changed),
            passages=total,
        )

    def remove(self, document_ids: Sequence[str]) -> int:
        """Remove documents and return how many there were of them."""
        there = sorted(set(document_ids) & set(self._digests()))
        if there:
            self._table.delete(_among(there))
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
        vector = self._encoder.encode([query])[0]
        rows = (
            self._table.search(vector, vector_column_name="vector")
            .distance_type("cosine")
            .select(["passage_id", "_distance"])
            .limit(limit)
            .to_arrow()
            .to_pylist()
        )
        ranked = sorted((float(row["_distance"]), str(row["passage_id"])) for row in rows)
        return tuple((key, 1.0 - distance) for distance, key in ranked)

    def _current(self) -> _Snapshot:
        """Return the passages of the present version; read and indexed once a version."""
        version = self.version
        if self._snapshot is None or self._snapshot.version != version:
            _require_encoder(self._table, self._encoder)
            rows = self._table.search().select(list(_TEXT_COLUMNS)).to_arrow().to_pylist()
            self._snapshot = _Snapshot(version, sorted((Passage(**row) for row in rows), key=_place))
        return self._snapshot

    def _digests(self) -> dict[str, str]:
        rows = self._table.search().select(["document_id", "digest"]).to_arrow().to_pylist()
        return {row["document_id"]: row["digest"] for row in rows}

    def _merge(self, rows: Sequence[dict[str, str]], vectors: Any, document_ids: Sequence[str]) -> None:
        """Write passages, and in the same commit drop those that their documents no longer have."""
        (
            self._table.merge_insert("passage_id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(_among(document_ids))
            .execute(_to_arrow(rows, vectors, self._encoder))
        )


class _Snapshot:
    """The passages of one version of a library, and their keyword index when it is first asked for."""

    def __init__(self, version: int, passages: Sequence[Passage]) -> None:
        self.version = version
        self.passages = tuple(passages)
        self.by_id = {passage.passage_id: passage for passage in passages}
        self._index: KeywordIndex | None = None

    def by_keyword(self, query: str, limit: int) -> tuple[tuple[str, float], ...]:
        if self._index is None:
            self._index = KeywordIndex([_embedded_text(p.title, p.text) for p in self.passages])
        return tuple(
            (self.passages[position].passage_id, score)
            for position, score in self._index.search(query, limit)
        )


def _place(passage: Passage) -> tuple[str, int]:
    return passage.document_id, int(passage.passage_id.rpartition("#")[2])


def _embedded_text(title: str, text: str) -> str:
    """Return what is searched: a passage does not always name what it is about, its title does."""
    return f"{title}\n{text}"


def _row(document: Document, passage: Passage, digest: str) -> dict[str, str]:
    return {
        "passage_id": passage.passage_id,
        "document_id": passage.document_id,
        "document_title": document.title,
        "title": passage.title,
        "source": passage.source,
        "licence": passage.licence,
        "text": passage.text,
        "digest": digest,
    }


def _require_usable(documents: Sequence[Document]) -> None:
    seen: set[str] = set()
    for document in documents:
        if not _DOCUMENT_ID.fullmatch(document.document_id):
            raise LibraryError(
                f"The document id {document.document_id[:80]!r} is unusable: take letters, digits and "
                "the signs . _ : / - (200 at most, the first a letter or digit)."
            )
        if document.document_id in seen:
            raise LibraryError(f"Two documents have the id {document.document_id}: give each its own.")
        seen.add(document.document_id)


def _batches(
    cuts: Sequence[tuple[Document, tuple[Passage, ...]]],
) -> Iterator[list[tuple[Document, tuple[Passage, ...]]]]:
    """Yield whole documents together, until they have enough passages for one commit."""
    batch: list[tuple[Document, tuple[Passage, ...]]] = []
    size = 0
    for document, passages in cuts:
        batch.append((document, passages))
        size += len(passages)
        if size >= _BATCH_PASSAGES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(texts: Sequence[str], encoder: TextEncoder, progress: Progress | None) -> Any:
    """Return (N, D) float32 vectors, telling the progress every few texts."""
    step = 16
    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), step):
        vectors[start : start + step] = encoder.encode(texts[start : start + step])
        if progress is not None:
            progress("embedding", min(start + step, len(texts)), len(texts))
    return vectors


def _schema(encoder: TextEncoder) -> Any:
    import pyarrow as pa

    names = ("passage_id", "document_id", "document_title", "title", "source", "licence", "text", "digest")
    fields = [pa.field(name, pa.string(), nullable=False) for name in names]
    fields.append(pa.field("vector", pa.list_(pa.float32(), encoder.dimension), nullable=False))
    return pa.schema(fields, metadata={"encoder": encoder.identity, "format": _FORMAT})


def _to_arrow(rows: Sequence[dict[str, str]], vectors: Any, encoder: TextEncoder) -> Any:
    import pyarrow as pa

    schema = _schema(encoder)
    columns = [pa.array([row[name] for row in rows], pa.string()) for name in schema.names[:-1]]
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    columns.append(pa.FixedSizeListArray.from_arrays(flat, encoder.dimension))
    return pa.Table.from_arrays(columns, schema=schema)


def _among(document_ids: Sequence[str]) -> str:
    """Return the SQL condition for documents; ids have no quotes (``_require_usable``)."""
    quoted = ", ".join(f"'{key}'" for key in document_ids)
    return f"document_id IN ({quoted})"


def _connect(folder: Path) -> Any:
    try:
        import lancedb
    except ImportError as exc:
        raise LibraryError("lancedb is missing for the library: install the extra `language`.") from exc
    return lancedb.connect(str(folder.absolute()), read_consistency_interval=timedelta(0))


def _open_table(folder: Path) -> Any | None:
    """Return the table of passages, or None where there is no library."""
    if not folder.is_dir():
        return None
    if not (folder / f"{_TABLE}.lance").is_dir():
        if any(folder.iterdir()):
            raise LibraryError(f"{folder} holds other files but no library: give the library its own folder.")
        return None
    with _translated(folder):
        table = _connect(folder).open_table(_TABLE)
        metadata = table.schema.metadata or {}
    if metadata.get(b"format") != _FORMAT.encode():
        raise LibraryError(
            f"The library in {folder} has another format: add its texts again in a new folder."
        )
    return table


def _require_encoder(table: Any, encoder: TextEncoder) -> None:
    made_by = _encoder_of(table)
    if made_by != encoder.identity:
        raise LibraryEncoderError(
            f"The library was embedded by {made_by!r}, but the encoder here is {encoder.identity!r}: "
            "set library.encoder to that one, or run `preread library reembed`."
        )


def _encoder_of(table: Any) -> str:
    return str(table.schema.metadata[b"encoder"].decode())


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turn LanceDB's errors into ours."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as exc:
        raise LibraryError(
            f"LanceDB cannot use {folder} ({type(exc).__name__}): check its rights and free space, or add "
            "the texts again in a new folder."
        ) from exc
