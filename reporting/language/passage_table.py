"""Adapter: the table of a library's passages and their vectors in LanceDB, a folder.

A change is one commit of LanceDB, so that a crash leaves the table as it was before or after, and a node that
serves sees what the command line adds. The table's schema says which encoder made the vectors. Why LanceDB:
docs/adr/0011-retrieval-store.md. Nothing here may reach a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from reporting.errors import ReportingError
from reporting.language.embedding import TextEncoder
from reporting.language.passages import Document, Passage

COLUMNS: Final = (
    "passage_id", "document_id", "document_title", "title", "source", "licence", "text", "digest",
)  # fmt: skip
"""Columns of text; ``vector`` is the last one beside them."""
_PASSAGE_COLUMNS: Final = ("passage_id", "document_id", "title", "source", "licence", "text")
_TABLE: Final = "passages"
_FORMAT: Final = "1"
#: Old versions that another process may still read.
_KEPT_VERSIONS: Final = timedelta(hours=1)


class LibraryError(ReportingError):
    """The library cannot do what was asked; the message says what to do."""


class LibraryEncoderError(LibraryError):
    """The library's vectors were made by another encoder."""


class PassageTable:
    """A table of passages. ``open_table`` and ``create_table`` open it.

    Parameters
    ----------
    table : lancedb.table.Table
        LanceDB's own.
    """

    def __init__(self, table: Any) -> None:
        self._table = table

    @property
    def version(self) -> int:
        """Number that grows with every change, whoever makes it."""
        return int(self._table.version)

    @property
    def encoder(self) -> str:
        """Identity of the encoder that made the vectors."""
        return str(self._table.schema.metadata[b"encoder"].decode())

    def require_encoder(self, encoder: TextEncoder) -> None:
        """Raise if another encoder made the vectors.

        Raises
        ------
        LibraryEncoderError
            If so: name that one, or embed the library again.
        """
        made_by = self.encoder
        if made_by != encoder.identity:
            raise LibraryEncoderError(
                f"The library was embedded by {made_by!r}, but the encoder here is {encoder.identity!r}: "
                "set library.encoder to that one, or run `preread library reembed`."
            )

    def read(self, columns: Sequence[str]) -> list[dict[str, str]]:
        """Return columns of text of all passages."""
        rows: list[dict[str, str]] = self._rows(columns)
        return rows

    def passages(self) -> tuple[Passage, ...]:
        """Return all passages, without scores."""
        return tuple(Passage(**row) for row in self._rows(_PASSAGE_COLUMNS))

    def digests(self) -> dict[str, str]:
        """Return the digest of each document, by its id."""
        return {row["document_id"]: row["digest"] for row in self.read(["document_id", "digest"])}

    def nearest(self, vector: Any, limit: int) -> tuple[tuple[str, float], ...]:
        """Return (passage id, cosine) of the passages nearest to a (D,) float32 vector, best first."""
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

    def write(
        self, rows: Sequence[dict[str, str]], vectors: Any, encoder: TextEncoder, document_ids: Sequence[str]
    ) -> None:
        """Write passages, and in the same commit drop those that their documents no longer have.

        Parameters
        ----------
        rows : sequence of dict
            As `describe_passage` returns them.
        vectors : ndarray
            (N, D) float32, in the order of the rows.
        document_ids : sequence of str
            The documents that the passages are all of; usable ids have no quotes.
        """
        (
            self._table.merge_insert("passage_id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(_among(document_ids))
            .execute(_to_arrow(rows, vectors, encoder))
        )

    def remove(self, document_ids: Sequence[str]) -> None:
        """Remove the passages of documents."""
        self._table.delete(_among(document_ids))

    def tidy(self) -> None:
        """Merge small files, and drop versions that nobody reads any more."""
        self._table.optimize(cleanup_older_than=_KEPT_VERSIONS)

    def _rows(self, columns: Sequence[str]) -> Any:
        return self._table.search().select(list(columns)).to_arrow().to_pylist()


def open_table(folder: Path) -> PassageTable | None:
    """Return the table of passages in a folder, or None where there is none.

    Raises
    ------
    LibraryError
        If LanceDB is not installed, or the folder holds no readable library.
    """
    if not folder.is_dir():
        return None
    if not (folder / f"{_TABLE}.lance").is_dir():
        if any(folder.iterdir()):
            raise LibraryError(f"{folder} holds other files but no library: give the library its own folder.")
        return None
    with translated(folder):
        table = _connect(folder).open_table(_TABLE)
        metadata = table.schema.metadata or {}
    if metadata.get(b"format") != _FORMAT.encode():
        raise LibraryError(
            f"The library in {folder} has another format: add its texts again in a new folder."
        )
    return PassageTable(table)


def create_table(folder: Path, encoder: TextEncoder) -> PassageTable:
    """Make an empty table in a folder.

    Raises
    ------
    LibraryError
        If LanceDB is not installed or cannot use the folder.
    """
    with translated(folder):
        return PassageTable(_connect(folder).create_table(_TABLE, schema=_schema(encoder)))


def replace_table(folder: Path, rows: Sequence[dict[str, str]], vectors: Any, encoder: TextEncoder) -> None:
    """Write a table over the one in a folder, in one commit.

    Raises
    ------
    LibraryError
        If LanceDB cannot use the folder.
    """
    with translated(folder):
        _connect(folder).create_table(_TABLE, data=_to_arrow(rows, vectors, encoder), mode="overwrite")


def describe_passage(document: Document, passage: Passage, digest: str) -> dict[str, str]:
    """Return the row of a passage without its vector."""
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


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn LanceDB's errors into ours."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as exc:
        raise LibraryError(
            f"LanceDB cannot use {folder} ({type(exc).__name__}): check its rights and free space, or add "
            "the texts again in a new folder."
        ) from exc


def _connect(folder: Path) -> Any:
    try:
        import lancedb
    except ImportError as exc:
        raise LibraryError("lancedb is missing for the library: install the extra `language`.") from exc
    return lancedb.connect(str(folder.absolute()), read_consistency_interval=timedelta(0))


def _schema(encoder: TextEncoder) -> Any:
    import pyarrow as pa

    fields = [pa.field(name, pa.string(), nullable=False) for name in COLUMNS]
    fields.append(pa.field("vector", pa.list_(pa.float32(), encoder.dimension), nullable=False))
    return pa.schema(fields, metadata={"encoder": encoder.identity, "format": _FORMAT})


def _to_arrow(rows: Sequence[dict[str, str]], vectors: Any, encoder: TextEncoder) -> Any:
    import pyarrow as pa

    columns = [pa.array([row[name] for row in rows], pa.string()) for name in COLUMNS]
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    columns.append(pa.FixedSizeListArray.from_arrays(flat, encoder.dimension))
    return pa.Table.from_arrays(columns, schema=_schema(encoder))


def _among(document_ids: Sequence[str]) -> str:
    """Return the SQL condition for documents; ids have no quotes (``library_intake.require_usable``)."""
    quoted = ", ".join(f"'{key}'" for key in document_ids)
    return f"document_id IN ({quoted})"
