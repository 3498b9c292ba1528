"""Pure. An answer as values, and the one that rules compose from what the tools returned.

Every sentence cites what it rests on. The composed answer is the one that stands where
there is no language model, and wherever one's wording fails its checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reporting.assistant.evidence import Evidence, EvidenceKind, ToolResult
from reporting.assistant.question import Refusal, word_refusal
from reporting.safety import ASSISTANT_BANNER, ASSISTANT_CLOSING, QUOTATION_SENTENCE
from reporting.text import Author

_MOST_SENTENCES: Final = 14
_REFUSAL_ID: Final = "assistant/scope"


class Outcome(StrEnum):
    """What became of a question."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSentence:
    """One sentence (or one statement of a few), and the ids of the evidence that it rests on."""

    text: str
    citations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """What is cited.

    Attributes
    ----------
    citation_id : str
        Id of the evidence.
    finding_ids : tuple of str
        The findings of the run that it states, as reports name them.
    """

    citation_id: str
    kind: EvidenceKind
    finding_ids: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer: never shown without its banner and its closing sentence."""

    outcome: Outcome
    sentences: tuple[AnswerSentence, ...]
    citations: tuple[Citation, ...] = ()
    refusal: Refusal | None = None
    author: Author = Author.RULES
    banner: str = ASSISTANT_BANNER
    closing: str = ASSISTANT_CLOSING

    @property
    def text(self) -> str:
        """The sentences alone."""
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def plain(self) -> str:
        """The whole answer as plain text: banner, sentences with their citations, closing."""
        lines = [f"{s.text} [{', '.join(s.citations)}]" for s in self.sentences]
        return "\n\n".join([self.banner, *lines, self.closing])


def compose_answer(results: Sequence[ToolResult]) -> tuple[AnswerSentence, ...]:
    """Return the sentences that rules make of what the tools returned: each statement, once."""
    evidence = list(gather(results).values())
    surplus = len(evidence) - _MOST_SENTENCES
    optional = [item for item in evidence if not item.is_required]
    dropped = {item.evidence_id for item in optional[len(optional) - surplus :]} if surplus > 0 else set()
    return tuple(state(item) for item in evidence if item.evidence_id not in dropped)


def state(item: Evidence) -> AnswerSentence:
    """Return a piece of evidence as a sentence; what is quoted says from where and on which terms."""
    if item.kind is EvidenceKind.PASSAGE:
        text = f'{item.source} ({item.licence}): "{item.text}" {QUOTATION_SENTENCE}'
    elif item.kind is EvidenceKind.RELATION:
        terms = ", ".join(part for part in (item.source, item.licence) if part)
        text = f"{item.text} (Source: {terms or 'not named'}.)"
    else:
        text = item.text
    return AnswerSentence(text=text, citations=(item.evidence_id,))


def finish(
    sentences: Sequence[AnswerSentence], results: Sequence[ToolResult], author: Author = Author.RULES
) -> Answer:
    """Return the answer of these sentences with all that they cite.

    Raises
    ------
    ValueError
        If a sentence cites nothing, or nothing that a tool returned.
    """
    evidence = gather(results)
    for sentence in sentences:
        if not sentence.citations or not set(sentence.citations) <= set(evidence):
            raise ValueError("Every sentence of an answer must cite what a tool returned.")
    cited = dict.fromkeys(name for sentence in sentences for name in sentence.citations)
    return Answer(
        outcome=Outcome.ANSWERED,
        sentences=tuple(sentences),
        citations=tuple(_cite(evidence[name]) for name in cited),
        author=author,
    )


def refuse(refusal: Refusal) -> Answer:
    """Return the answer to a question that is not answered: why, and what can be asked."""
    return Answer(
        outcome=Outcome.REFUSED,
        sentences=tuple(
            AnswerSentence(text=text, citations=(_REFUSAL_ID,)) for text in word_refusal(refusal)
        ),
        refusal=refusal,
    )


def show_citation(citation: Citation) -> dict[str, object]:
    """Return a citation as JSON, as it is streamed, answered and audited."""
    return {
        "id": citation.citation_id,
        "kind": citation.kind.value,
        "finding_ids": list(citation.finding_ids),
        "source": citation.source,
        "licence": citation.licence,
    }


def gather(results: Sequence[ToolResult]) -> dict[str, Evidence]:
    """Return all evidence by id, in the order in which the tools returned it."""
    gathered: dict[str, Evidence] = {}
    for result in results:
        for item in result.evidence:
            gathered.setdefault(item.evidence_id, item)
    return gathered


def _cite(item: Evidence) -> Citation:
    return Citation(
        citation_id=item.evidence_id,
        kind=item.kind,
        finding_ids=item.finding_ids,
        source=item.source,
        licence=item.licence,
    )
