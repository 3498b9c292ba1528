"""Adapter: reads the texts of a library from files: plain text, Markdown, JSON lines, and MedQuAD.

Text and Markdown files may begin with YAML between two lines of ``---`` that gives ``id``, ``title``,
``source`` and ``licence``. JSON lines carry the same keys and ``text``. PDF is not read: no reader of it is
installed, and its text comes out of order too often to be cited unseen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import yaml

from reporting.errors import ReportingError
from reporting.language.passages import Document

TEXT_SUFFIXES: Final = (".md", ".markdown", ".txt")
LINES_SUFFIX: Final = ".jsonl"
UNKNOWN_LICENCE: Final = "licence not stated"
MEDQUAD_LICENCE: Final = "CC BY 4.0 (MedQuAD, Ben Abacha and Demner-Fushman 2019)"

_FRONT_MATTER: Final = re.compile(r"\A---\s*\n(.*?)\n---\s*\n(.*)\Z", re.DOTALL)
_FIRST_HEADING: Final = re.compile(r"^#\s+(.+?)\s*#*$", re.MULTILINE)
_KEYS: Final = frozenset({"id", "title", "source", "licence"})
_MEDQUAD_KEYS: Final = frozenset({"id", "qtype", "focus", "source", "question", "answer"})
_SAMPLE: Final = "sample_library"


class DocumentError(ReportingError):
    """A file cannot be taken into the library; the message names it and says what it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What is said of texts that do not say it themselves."""

    source: str = ""
    licence: str = UNKNOWN_LICENCE


def read_documents(path: Path, provenance: Provenance | None = None) -> tuple[Document, ...]:
    """Read a file, or all files of the known kinds in a folder and below.

    Parameters
    ----------
    path : Path
        File or folder. A document's id is the one it gives, else its path below the folder.
    provenance : Provenance or None
        Source and licence of the texts that give none; without it the source is the file's name.

    Raises
    ------
    DocumentError
        If a file is of no known kind, is no UTF-8, or lacks what it needs.
    """
    provenance = provenance or Provenance()
    if path.is_dir():
        kinds = {*TEXT_SUFFIXES, LINES_SUFFIX}
        found = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in kinds)
        if not found:
            raise DocumentError(f"There is no {', '.join(sorted(kinds))} file in {path}: check the path.")
        pairs = [(file, file.relative_to(path).as_posix()) for file in found]
    else:
        pairs = [(path, path.name)]
    return tuple(document for file, name in pairs for document in _read(file, name, provenance))


def read_medquad(path: Path) -> tuple[Document, ...]:
    """Read question-and-answer pairs of MedQuAD (JSON lines): the answer is the text, the disease its title.

    The texts are those of NIH pages of 2016 to 2018: a sample, dated, and no clinical advice.

    Raises
    ------
    DocumentError
        If a line is no pair of MedQuAD.
    """
    return tuple(
        Document(
            document_id=f"medquad/{item['source']}/{item['id']}",
            title=f"{item['focus']} ({item['qtype']})",
            source=str(item.get("url") or item["source"]),
            licence=MEDQUAD_LICENCE,
            text=str(item["answer"]),
        )
        for item in read_lines(path, _MEDQUAD_KEYS)
    )


def read_sample_library() -> tuple[Document, ...]:
    """Read the texts that come with Preread: samples, not clinical guidance."""
    folder: Traversable = files("reporting.language") / _SAMPLE
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".md")), key=lambda f: f.name)
    return tuple(_parse_text(f.read_text(encoding="utf-8"), f.name, Provenance()) for f in found)


def read_lines(path: Path, keys: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a file of JSON lines, each of which has the keys.

    Raises
    ------
    DocumentError
        Names the line that is no such object.
    """
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as exc:
            raise DocumentError(f"Line {number} of {path.name} is no JSON: write one object a line.") from exc
        if not isinstance(item, dict) or not keys <= item.keys():
            raise DocumentError(f"Line {number} of {path.name} needs the keys {', '.join(sorted(keys))}.")
        yield item


def _read(file: Path, name: str, provenance: Provenance) -> Sequence[Document]:
    suffix = file.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return [_parse_text(_text_of(file), name, provenance)]
    if suffix == LINES_SUFFIX:
        needed = frozenset({"id", "title", "text"})
        return [
            Document(
                document_id=str(item["id"]),
                title=str(item["title"]),
                source=str(item.get("source") or provenance.source or file.name),
                licence=str(item.get("licence") or provenance.licence),
                text=str(item["text"]),
            )
            for item in read_lines(file, needed)
        ]
    advice = "save its text as .txt or .md and read it through" if suffix == ".pdf" else "give text"
    raise DocumentError(f"{file.name} is none of {', '.join((*TEXT_SUFFIXES, LINES_SUFFIX))}: {advice}.")


def _parse_text(content: str, name: str, provenance: Provenance) -> Document:
    given: Mapping[str, Any] = {}
    match = _FRONT_MATTER.match(content)
    if match is not None:
        given, content = _front_matter(match[1], name), match[2]
    heading = _FIRST_HEADING.search(content)
    return Document(
        document_id=str(given.get("id") or _identify(name)),
        title=str(given.get("title") or (heading[1] if heading else Path(name).stem)),
        source=str(given.get("source") or provenance.source or name),
        licence=str(given.get("licence") or provenance.licence),
        text=content.strip(),
    )


def _front_matter(text: str, name: str) -> Mapping[str, Any]:
    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError as exc:
        raise DocumentError(f"The lines between --- in {name} are no YAML: write key: value.") from exc
    if not isinstance(given, dict) or not given.keys() <= _KEYS:
        raise DocumentError(f"The lines between --- in {name} may only give {', '.join(sorted(_KEYS))}.")
    return given


def _identify(name: str) -> str:
    """Return a document id made from a path: what an id may not hold becomes a hyphen."""
    stem = name[: -len(Path(name).suffix)] if Path(name).suffix else name
    return re.sub(r"[^A-Za-z0-9._:/-]+", "-", stem).strip("-./") or "document"


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DocumentError(f"{path.name} is no UTF-8 text: save it as UTF-8.") from exc
    except OSError as exc:
        raise DocumentError(f"{path} cannot be read ({type(exc).__name__}): check path and rights.") from exc
