"""Pure. What a language model must answer: sentences in JSON that cite the facts they rest on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reporting.errors import ReportingError
from reporting.refine.port import Schema
from reporting.text import SectionName

#: The sections that a language model words, by their key in the answer, in the order of the report.
WORDED_SECTIONS: Final = {
    "findings": SectionName.FINDINGS,
    "impression": SectionName.IMPRESSION,
    "recommendation": SectionName.RECOMMENDATION,
}
_MAX_SENTENCES: Final = 40
_MAX_SENTENCE_LENGTH: Final = 400
#: Keeps a small model from copying the dots of the form that it is told.
STARTS_WITH_CAPITAL: Final = "^[A-Z]"


class UnusableAnswerError(ReportingError):
    """A language model's answer is not the JSON that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CitedSentence:
    """One sentence of an answer.

    Attributes
    ----------
    section : SectionName
        Findings, impression or recommendation.
    aliases : tuple of str
        What it cites: facts (``F1``) or allowed recommendations (``R1``).
    """

    section: SectionName
    text: str
    aliases: tuple[str, ...]


def describe_schema(fact_aliases: Sequence[str], advice: Sequence[tuple[str, str]]) -> Schema:
    """Return the JSON Schema of an answer: what is not listed here cannot be cited.

    Parameters
    ----------
    fact_aliases : sequence of str
        ``F1``, ``F2``, ...
    advice : sequence of (alias, text)
        The recommendations that are allowed, which are copied word for word.
    """
    return {
        "type": "object",
        "properties": {
            "findings": _sentences(fact_aliases, least=1, most=2 * len(fact_aliases)),
            "impression": _sentences(fact_aliases, least=1, most=len(fact_aliases) + 1),
            "recommendation": _advice(advice),
        },
        "required": list(WORDED_SECTIONS),
        "additionalProperties": False,
    }


def parse_answer(text: str) -> tuple[CitedSentence, ...]:
    """Return the sentences of an answer, in the order of the report.

    Text around the outermost JSON object (a code fence, a preamble) is ignored.

    Raises
    ------
    UnusableAnswerError
        If there is no such object, or it has another form, or holds absurdly much.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end <= start:
        raise UnusableAnswerError("The language model's answer holds no JSON object.")
    try:
        answer = json.loads(text[start : end + 1])
    except (json.JSONDecodeError, RecursionError) as exc:
        raise UnusableAnswerError("The language model's answer is not valid JSON.") from exc
    if not isinstance(answer, dict) or set(answer) - set(WORDED_SECTIONS):
        raise UnusableAnswerError("The language model's answer has other sections than were asked for.")
    sentences = tuple(
        _read_sentence(item, section)
        for key, section in WORDED_SECTIONS.items()
        for item in _read_list(answer.get(key, []))
    )
    if not sentences or len(sentences) > _MAX_SENTENCES:
        raise UnusableAnswerError("The language model's answer has no sentences, or far too many.")
    return sentences


def write_answer(sentences: Sequence[CitedSentence]) -> str:
    """Return sentences as the JSON that a model is trained to answer: compact, in the order of the report."""
    answer = {
        key: [{"text": s.text, "ids": list(s.aliases)} for s in sentences if s.section is section]
        for key, section in WORDED_SECTIONS.items()
    }
    return json.dumps(answer, ensure_ascii=False)


def _sentences(aliases: Sequence[str], *, least: int = 0, most: int) -> dict[str, Any]:
    if not aliases:
        return {"type": "array", "maxItems": 0, "items": {"type": "object"}}
    return {
        "type": "array",
        "minItems": least,
        "maxItems": min(most, _MAX_SENTENCES),
        "items": {
            "type": "object",
            "properties": {
                # No lengths: decoders compile a counted repetition state by state, for seconds a report.
                "text": {"type": "string", "pattern": STARTS_WITH_CAPITAL},
                "ids": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": len(aliases),
                    "items": {"enum": list(aliases)},
                },
            },
            "required": ["text", "ids"],
            "additionalProperties": False,
        },
    }


def _advice(advice: Sequence[tuple[str, str]]) -> dict[str, Any]:
    if not advice:
        return {"type": "array", "maxItems": 0, "items": {"type": "object"}}
    allowed = [
        {
            "type": "object",
            "properties": {
                "text": {"enum": [text]},
                "ids": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"enum": [alias]}},
            },
            "required": ["text", "ids"],
            "additionalProperties": False,
        }
        for alias, text in advice
    ]
    return {"type": "array", "maxItems": len(advice), "items": {"anyOf": allowed}}


def _read_list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise UnusableAnswerError("A section of the language model's answer is not a list of sentences.")
    return value


def _read_sentence(item: object, section: SectionName) -> CitedSentence:
    if not isinstance(item, Mapping) or set(item) != {"text", "ids"}:
        raise UnusableAnswerError("A sentence of the language model's answer lacks its text or its ids.")
    text, ids = item["text"], item["ids"]
    if not isinstance(text, str) or not text.strip() or len(text) > _MAX_SENTENCE_LENGTH:
        raise UnusableAnswerError("A sentence of the language model's answer is empty or too long.")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise UnusableAnswerError("The ids of a sentence are not a list of names.")
    return CitedSentence(section=section, text=" ".join(text.split()), aliases=tuple(dict.fromkeys(ids)))
