"""Adapter: sends DICOM files to an application entity, for ``preread send`` and the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.part10 import NotPartTenError, split_part10
from integration.connections import DimsePeer
from integration.pacs import MAX_PRESENTATION_CONTEXTS, PresentationContext, open_association
from integration.statuses import C_STORE_STATUSES, Verdict, classify

_HEADER_PEEK_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one file: its C-STORE status, or why it was not sent."""

    path: Path
    is_stored: bool
    detail: str


def find_dicom_files(paths: Iterable[Path]) -> list[Path]:
    """Return the Part 10 files among files and below folders, sorted."""
    candidates = [
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]
    return [file for file in candidates if _context_of(file) is not None]


def send_files(peer: DimsePeer, files: Sequence[Path], report: Callable[[Sent], None]) -> None:
    """Send files as they are, one association per 128 presentation contexts.

    Parameters
    ----------
    report : callable
        Called once per file, as soon as its fate is known.

    Raises
    ------
    DestinationUnavailableError
        If there is no association, or it breaks; files not reported were not sent.
    """
    for contexts, group in _group_by_contexts(files):
        with open_association(peer, contexts) as association:
            for file, context in group:
                if not association.accepts(context):
                    report(
                        Sent(
                            path=file,
                            is_stored=False,
                            detail="the peer refuses this SOP Class or transfer syntax",
                        )
                    )
                    continue
                row = classify(association.store(file), C_STORE_STATUSES)
                report(Sent(path=file, is_stored=row.verdict is Verdict.ACCEPTED, detail=row.meaning))


def _group_by_contexts(
    files: Sequence[Path],
) -> Iterator[tuple[list[PresentationContext], list[tuple[Path, PresentationContext]]]]:
    contexts: list[PresentationContext] = []
    group: list[tuple[Path, PresentationContext]] = []
    for file in files:
        context = _context_of(file)
        if context is None:
            continue
        if context not in contexts:
            if len(contexts) == MAX_PRESENTATION_CONTEXTS:
                yield contexts, group
                contexts, group = [], []
            contexts.append(context)
        group.append((file, context))
    if group:
        yield contexts, group


def _context_of(file: Path) -> PresentationContext | None:
    with file.open("rb") as stream:
        head = stream.read(_HEADER_PEEK_BYTES)
    try:
        meta = split_part10(head).meta()
    except NotPartTenError:
        return None
    if not meta.sop_class_uid or not meta.transfer_syntax_uid:
        return None
    return meta.sop_class_uid, meta.transfer_syntax_uid
