"""Pure. Documents on their way into a library: looked over, cut, and embedded in batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from reporting.language.embedding import TextEncoder
from reporting.language.passage_table import LibraryError, describe_passage
from reporting.language.passages import CutPolicy, Document, Passage, cut_document

Progress = Callable[[str, int, int], None]
"""Takes what is done, how many of it are done, and how many there are."""
Cut: TypeAlias = tuple[Document, tuple[Passage, ...]]
"""A document and its passages."""

_DOCUMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
#: Passages embedded and committed together: some seconds of work.
_BATCH_PASSAGES: Final = 256
#: Texts embedded between two words to the progress.
_STEP: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """All passages of some documents, as a `PassageTable` takes them.

    Attributes
    ----------
    vectors : ndarray
        (N, D) float32, in the order of the rows.
    """

    document_ids: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    vectors: npt.NDArray[np.float32]


def require_usable(documents: Sequence[Document]) -> None:
    """Raise if documents cannot be added together.

    Raises
    ------
    LibraryError
        If an id is unusable or given twice.
    """
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


def cut_documents(documents: Sequence[Document], policy: CutPolicy) -> tuple[Cut, ...]:
    """Return documents with their passages.

    Raises
    ------
    LibraryError
        If one has no text.
    """
    cuts = tuple((document, cut_document(document, policy)) for document in documents)
    for document, passages in cuts:
        if not passages:
            raise LibraryError(f"The document {document.document_id} has no text: leave it out.")
    return cuts


def embed_cuts(
    cuts: Sequence[Cut], digests: Mapping[str, str], encoder: TextEncoder, progress: Progress | None
) -> Iterator[Batch]:
    """Yield whole documents, embedded, some hundred passages at a time.

    Parameters
    ----------
    cuts : sequence of Cut
        The documents.
    digests : mapping of str to str
        Digest of each document, by its id.
    progress : callable or None
        Told how many passages of all are embedded.
    """
    total = sum(len(passages) for _, passages in cuts)
    done = 0
    for batch in _batches(cuts):
        rows = tuple(
            describe_passage(document, passage, digests[document.document_id])
            for document, passages in batch
            for passage in passages
        )

        def report(stage: str, now: int, _: int, offset: int = done) -> None:
            if progress is not None:
                progress(stage, offset + now, total)

        yield Batch(
            document_ids=tuple(document.document_id for document, _ in batch),
            rows=rows,
            vectors=embed_rows(rows, encoder, report),
        )
        done += len(rows)


def embed_rows(
    rows: Sequence[Mapping[str, str]], encoder: TextEncoder, progress: Progress | None
) -> npt.NDArray[np.float32]:
    """Return (N, D) float32 vectors of passages, telling the progress every few texts."""
    texts = [searched_text(row["title"], row["text"]) for row in rows]
    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), _STEP):
        vectors[start : start + _STEP] = encoder.encode(texts[start : start + _STEP])
        if progress is not None:
            progress("embedding", min(start + _STEP, len(texts)), len(texts))
    return vectors


def searched_text(title: str, text: str) -> str:
    """Return what is searched: a passage does not always name what it is about, its title does."""
    return f"{title}\n{text}"


def _batches(cuts: Sequence[Cut]) -> Iterator[list[Cut]]:
    """Yield whole documents together, until they have enough passages for one commit."""
    batch: list[Cut] = []
    size = 0
    for document, passages in cuts:
        batch.append((document, passages))
        size += len(passages)
        if size >= _BATCH_PASSAGES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
