"""Pure. What is known of a patient's case before the images: problems, the question, and what was read.

It carries no free text, so that nothing of a note but the lexicon's own nouns can reach
a prompt or a report: no name, number, date, address or instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reporting.clinical.lexicon import load_lexicon
from reporting.clinical.problem import ClinicalProblem, Experiencer, Polarity, SourceKind, Time
from reporting.safety import CLINICAL_SENTENCE

#: Problems of one sentence, at most: the record of a long illness must not drown the question.
MAX_NAMED: Final = 12

_BELIEVED: Final = tuple(SourceKind)


class Remark(StrEnum):
    """What went on while the sources were read, in words that may be shown."""

    RECORD_UNREACHABLE = "The clinical record could not be read: its server did not answer in time."
    RECORD_REFUSED = "The clinical record could not be read: its server refused the request."
    PATIENT_AMBIGUOUS = "The clinical record was not read: the patient was not found there without doubt."
    SHORTENED = "A clinical text was too long and was read in part."
    READER_FAILED = "A clinical text could not be read."


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalInformation:
    """The clinical information of one study.

    Attributes
    ----------
    problems : tuple of ClinicalProblem
        Each meaning once, from the source that is believed first.
    sources : tuple of SourceKind
        The kinds of source in which there was something to read.
    remarks : tuple of Remark
        What could not be read.
    """

    problems: tuple[ClinicalProblem, ...] = ()
    sources: tuple[SourceKind, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.sources or self.remarks)

    @property
    def question(self) -> str:
        """What the referrer asks, in one sentence of the closed vocabulary; empty if nothing is asked."""
        asked = _nouns(p for p in self.problems if p.is_asked)
        return f"The question is whether there is {_join(asked, 'or')}." if asked else ""

    @property
    def indication(self) -> str:
        """Why the study was ordered, in words of the closed vocabulary."""
        return " ".join(_tell([p for p in self.problems if p.source.is_order], "The order"))

    def for_prompt(self) -> tuple[str, ...]:
        """Return sentences for a language model: the lexicon's nouns in fixed sentences, nothing else."""
        ordered = [p for p in self.problems if p.source.is_order]
        recorded = [p for p in self.problems if not p.source.is_order]
        question = (self.question,) if self.question else ()
        return (*_tell(ordered, "The order"), *_tell(recorded, "The record"), *question)

    def for_report(self) -> tuple[str, ...]:
        """Return the sentences of the report's section; empty where there was nothing to read."""
        if self.is_empty:
            return ()
        said = self.for_prompt()
        if self.sources and not said:
            said = ("Nothing that this node recognises is in the order or the record.",)
        return (*said, *(remark.value for remark in self.remarks), CLINICAL_SENTENCE)


def gather(
    problems: Iterable[ClinicalProblem],
    sources: Iterable[SourceKind],
    remarks: Iterable[Remark] = (),
) -> ClinicalInformation:
    """Return the clinical information of a study from everything that its sources say.

    Parameters
    ----------
    problems : iterable of ClinicalProblem
        In any order; of equal meanings the one from the source believed first stays.
    sources : iterable of SourceKind
        Of every source that had text or codes.
    remarks : iterable of Remark
        What could not be read.
    """
    ranked = sorted(problems, key=lambda problem: _BELIEVED.index(problem.source))
    kept: dict[object, ClinicalProblem] = {}
    for problem in ranked:
        kept.setdefault((*problem.meaning, problem.is_asked), problem)
    return ClinicalInformation(
        problems=tuple(problem for problem in kept.values() if not _is_said_better(problem, kept.values())),
        sources=tuple(sorted(set(sources), key=_BELIEVED.index)),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _is_said_better(problem: ClinicalProblem, others: Iterable[ClinicalProblem]) -> bool:
    """Say whether a problem is implied by another one: earlier by now, possible by asked or by present."""
    for other in others:
        if other is problem or (other.concept, other.experiencer) != (problem.concept, problem.experiencer):
            continue
        is_there_now = other.polarity is Polarity.PRESENT and other.time is Time.CURRENT
        if is_there_now and problem.polarity is Polarity.PRESENT and problem.time is Time.HISTORICAL:
            return True
        is_only_possible = problem.polarity is Polarity.UNCERTAIN and not problem.is_asked
        if is_only_possible and (other.is_asked or is_there_now):
            return True
    return False


def _tell(problems: Sequence[ClinicalProblem], who: str) -> list[str]:
    """Return one sentence per way of saying, from the lexicon's nouns."""
    patient = [p for p in problems if p.experiencer is Experiencer.PATIENT and not p.is_asked]
    family = [p for p in problems if p.experiencer is Experiencer.FAMILY]
    stated = [p for p in patient if p.polarity is Polarity.PRESENT]
    frames = (
        ("mentions {} at present.", "and", [p for p in stated if p.time is Time.CURRENT]),
        (
            "calls {} possible.",
            "or",
            [p for p in patient if p.polarity is Polarity.UNCERTAIN and p.time is not Time.PLANNED],
        ),
        ("says that there is no {}.", "and no", [p for p in patient if p.polarity is Polarity.NEGATED]),
        ("tells of {} in the past.", "and", [p for p in stated if p.time is Time.HISTORICAL]),
        ("names {} as planned or to be expected.", "and", [p for p in stated if p.time is Time.PLANNED]),
        ("tells of {} in relatives.", "and", [p for p in family if p.polarity is Polarity.PRESENT]),
        ("says that relatives have no {}.", "and no", [p for p in family if p.polarity is Polarity.NEGATED]),
    )
    sentences = []
    for frame, word, said in frames:
        nouns = _nouns(said)
        if nouns:
            sentences.append(f"{who} {frame.format(_join(nouns, word))}")
    return sentences


def _nouns(problems: Iterable[ClinicalProblem]) -> list[str]:
    """Return the lexicon's nouns, once each; what is not in the lexicon has none."""
    nouns = (load_lexicon().noun(problem.concept) for problem in problems)
    return list(dict.fromkeys(noun for noun in nouns if noun))


def _join(nouns: Sequence[str], word: str) -> str:
    named = list(nouns[:MAX_NAMED])
    if len(nouns) > MAX_NAMED:
        return f"{', '.join(named)} {word} other problems"
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} {word} {named[-1]}"
