"""Pure. Whether a language model's sentence says only what the evidence that it cites says.

Strict on purpose, because the composed answer is always there to stand instead: every
number, side, finding and word of substance must come from what is cited, and a negation
must be there in both or in neither. A part of a quotation can say the contrary of the
whole: what is quoted is never a language model's to word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from reporting.assistant.answer import AnswerSentence
from reporting.assistant.evidence import QUOTED, STATED, Evidence
from reporting.assistant.identifiers import Identifiers, mentions
from reporting.assistant.instructions import reads_as_instruction
from reporting.assistant.rules import read_table
from reporting.assistant.vocabulary import CONCEPT_WORDS, find_concepts, find_other_terms
from reporting.checker import check_sentences
from reporting.facts import Facts
from reporting.refine.answer import CitedSentence
from reporting.refine.prompt import Ground
from reporting.text import SectionName

_STEM: Final = 5


def find_fault(
    sentence: AnswerSentence, evidence: Mapping[str, Evidence], asked: str, identifiers: Identifiers
) -> str:
    """Return what is wrong with a sentence; empty if nothing is.

    Parameters
    ----------
    sentence : AnswerSentence
        As the language model worded it.
    evidence : mapping
        What the tools returned, by id.
    asked : str
        The question, cleaned: its words may be used.
    """
    if not sentence.citations or not set(sentence.citations) <= set(evidence):
        return "it cites nothing that a tool returned"
    cited = [evidence[name] for name in sentence.citations]
    if reads_as_instruction(sentence.text) or mentions(sentence.text, identifiers):
        return "it holds an instruction or an identifier"
    if all(item.kind in STATED and item.finding_ids for item in cited):
        return ""  # `check_findings` holds it to the facts
    if any(item.kind in QUOTED for item in cited):
        return "a source is told in its own words alone"
    return _find_surplus(sentence.text, " ".join(item.text for item in cited), asked)


def _find_surplus(text: str, ground: str, asked: str) -> str:
    """Return what a sentence says that its ground does not; empty if nothing."""
    for what, words in _EXTRACTS.items():
        if not words(text) <= words(ground):
            return f"{what} is not in what it cites"
    if bool(_NEGATION.search(text)) != bool(_NEGATION.search(ground)):
        return "it denies what is said, or says what is denied"
    return _find_foreign_word(text, ground, asked)


def check_findings(
    sentences: Sequence[AnswerSentence], evidence: Mapping[str, Evidence], facts: Facts
) -> str:
    """Return what the checker of reports finds wrong with sentences about findings; empty if nothing.

    An answer need not tell all that a report must: only faults of a sentence count.
    """
    about = [
        CitedSentence(section=SectionName.FINDINGS, text=sentence.text, aliases=aliases)
        for sentence in sentences
        if (aliases := _aliases(sentence, evidence, facts))
    ]
    if not about:
        return ""
    faults = check_sentences(about, Ground(facts=facts))
    return "; ".join(dict.fromkeys(fault.detail for fault in faults if fault.index is not None))


def _aliases(sentence: AnswerSentence, evidence: Mapping[str, Evidence], facts: Facts) -> tuple[str, ...]:
    """Return the facts that a sentence about findings cites, by the names that the checker knows."""
    cited = [evidence[name] for name in sentence.citations if evidence[name].kind in STATED]
    found = [facts.by_id(one) for item in cited for one in item.finding_ids]
    return tuple(dict.fromkeys(fact.alias for fact in found if fact is not None))


def _find_foreign_word(text: str, ground: str, asked: str) -> str:
    """Return the first word of substance that is neither in the evidence nor in the question."""
    known = _stems(ground) | _stems(asked) | _GLUE
    if any(concept in find_concepts(ground) for concept in find_concepts(text)):
        known |= _CONCEPT_STEMS
    foreign = _stems(text) - known
    return "it uses a word of its own" if foreign else ""


def _numbers(text: str) -> set[str]:
    return {number.lstrip("0") or "0" for number in re.findall(r"\d+(?:\.\d+)?", text)}


def _sides(text: str) -> set[str]:
    found = {side.lower() for side in re.findall(r"\b(?:left|right|bilateral|both)\b", text, re.IGNORECASE)}
    return found | {"both"} if "bilateral" in found else found


def _zones(text: str) -> set[str]:
    return set(
        re.findall(r"\b(?:upper|mid|middle|lower|basal|apical|frontal|parietal|temporal|occipital)\b", text)
    )


def _findings(text: str) -> set[str]:
    """Return what a text names: a word that may mean several findings counts as all of them."""
    return set(find_other_terms(text))


def _concepts(text: str) -> set[str]:
    return {"any"} if find_concepts(text) else set()


def _units(text: str) -> set[str]:
    return set(re.findall(r"(?<=\d)\s*(mL|mm2|mm|cm2|cm|%)", text))


def _verdicts(text: str) -> set[str]:
    return {word.lower()[:_STEM] for word in _VERDICT.findall(text)}


def _stems(text: str) -> set[str]:
    return {word[:_STEM] for word in re.findall(r"[^\W\d_]{4,}", text.lower())}


_EXTRACTS: Final = {
    "a number": _numbers,
    "a unit": _units,
    "a side": _sides,
    "a place": _zones,
    "a condition": _findings,
    "a finding": _concepts,
    "a verdict or advice": _verdicts,
}
_NEGATION: Final = re.compile(
    r"\b(?:no|not|none|never|neither|nor|without|absent|absence|negative|free of|cannot|unremarkable|normal)"
    r"\b",
    re.IGNORECASE,
)
_VERDICT: Final = re.compile(
    r"\b(?:certain(?:ly)?|definite(?:ly)?|confirm\w*|prove[ns]?|proof|diagnos\w*|suggest\w*|indicat\w*|consistent|"
    r"likely|unlikely|probably|benign|malignant|cancer\w*|urgent\w*|recommend\w*|advis\w*|should|must|need\w*|"
    r"treat\w*|therap\w*|biops\w*|surg\w*|follow-up|dose\w*|high|moderate|low|stable|grew|shrank|increas\w*|"
    r"decreas\w*|new|severe|mild|small|large|significant|serious|high-risk)\b",
    re.IGNORECASE,
)
_GLUE: Final = frozenset(word[:_STEM] for word in read_table("vocabulary")["glue"].split())
_CONCEPT_STEMS: Final = frozenset(
    word[:_STEM]
    for words in CONCEPT_WORDS.values()
    for phrase in words
    for word in re.findall(r"[a-z]{4,}", phrase)
)
