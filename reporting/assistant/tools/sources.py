"""Pure. The tools for the site's texts and the knowledge graph: quoted, with source and licence.

What they return is free text that others wrote: it is shown without identifiers, and left
out, which is said, where it reads as an instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from threading import Event
from typing import Final

from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, remark
from reporting.assistant.free_text import clean_free_text
from reporting.assistant.record import StudyRecord
from reporting.assistant.rules import read_table
from reporting.assistant.tools.ports import FoundPassage, ToolPorts
from reporting.assistant.tools.selection import choose_concepts
from reporting.draft.kinds import present
from reporting.draft.words import capitalise, end_sentence
from reporting.language.knowledge_graph import ASSOCIATION_NOTICE
from reporting.safety import LEFT_OUT_SENTENCE

#: Longest quotation, in characters: what a reader takes in beside the images.
_LONGEST_QUOTE: Final = 700
_MOST_PASSAGES: Final = 3
_MOST_RELATIONS: Final = 9
#: Letters by which two words count as one.
_STEM: Final = 6
_EMPTY_WORDS: Final = frozenset(read_table("vocabulary")["empty"].split())


def quote_passages(
    call: ToolCall, record: StudyRecord, ports: ToolPorts, _cancel: Event
) -> Iterator[Evidence]:
    """Quote the passages that fit the question and share a word of substance with it."""
    if ports.library is None:
        yield remark("sources/none", "This site has added no texts that could be quoted.")
        return
    query = call.get("query")
    found = ports.library.search(query, 2 * _MOST_PASSAGES)
    fitting = [passage for passage in found if _shares_words(query, f"{passage.title} {passage.text}")]
    names: set[str] = set()
    for number, passage in enumerate(fitting[:_MOST_PASSAGES], 1):
        clean = clean_free_text(passage.text, record.identifiers)
        title = clean_free_text(passage.title, record.identifiers)
        name = f"source/{_name_passage(passage, record)}"
        name = f"{name}-{number}" if name in names else name
        names.add(name)
        if not clean or not title:
            yield remark(name, LEFT_OUT_SENTENCE, is_required=True)
            continue
        yield Evidence(
            evidence_id=name,
            kind=EvidenceKind.PASSAGE,
            text=_shorten(clean),
            source=f"{title}, {clean_free_text(passage.source, record.identifiers) or 'source not named'}",
            licence=clean_free_text(passage.licence, record.identifiers) or "licence not stated",
        )
    if not fitting:
        yield remark("sources/none", "The site's sources hold nothing on this question.")


def _name_passage(passage: FoundPassage, record: StudyRecord) -> str:
    """Return the id by which a passage is cited: the library's, without identifiers."""
    document, mark, place = passage.passage_id.rpartition("#")
    if not place.isdecimal():
        document, mark, place = passage.passage_id, "", ""
    return f"{clean_free_text(document, record.identifiers).replace(' ', '-') or 'unnamed'}{mark}{place}"


def state_relations(
    call: ToolCall, record: StudyRecord, ports: ToolPorts, _cancel: Event
) -> Iterator[Evidence]:
    """State what the graph relates to the findings asked for, or to all that are present."""
    if ports.graph is None:
        yield remark("graph/none", "This site has no knowledge graph.")
        return
    concepts = sorted(
        choose_concepts(call, record) or {f.concept for a in record.analyses for f in present(a.findings)}
    )
    relations = ports.graph.related(concepts) if concepts else ()
    if relations:
        yield remark("graph/notice", ASSOCIATION_NOTICE, is_required=True)
    for number, one in enumerate(relations[:_MOST_RELATIONS], 1):
        text = clean_free_text(one.text, record.identifiers)
        source = clean_free_text(one.source, record.identifiers)
        if not text or not source:
            yield remark(f"graph/{number}", LEFT_OUT_SENTENCE, is_required=True)
            continue
        yield Evidence(
            evidence_id=f"graph/{number}",
            kind=EvidenceKind.RELATION,
            text=capitalise(end_sentence(text)),
            source=source,
            licence=clean_free_text(one.licence, record.identifiers),
        )
    if not relations:
        yield remark("graph/none", "The knowledge graph holds nothing on this question.")


def _shorten(text: str) -> str:
    """Return the first sentences of a quotation, as many as fit."""
    if len(text) <= _LONGEST_QUOTE:
        return text
    cut = text[:_LONGEST_QUOTE]
    end = max(cut.rfind(mark) for mark in (". ", "! ", "? "))
    return cut[: end + 1] if end > 0 else f"{cut.rsplit(' ', 1)[0]} ..."


def _shares_words(query: str, text: str) -> bool:
    """Say whether a passage has a word of substance in common with the question."""
    stems = {word[:_STEM] for word in re.findall(r"[a-z]{4,}", query.lower()) if word not in _EMPTY_WORDS}
    return any(word[:_STEM] in stems for word in re.findall(r"[a-z]{4,}", text.lower()))
