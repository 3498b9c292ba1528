"""Pure. How a report's text came to be, as values: which wording stands, why, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reporting.text import ReportText


class Standing(StrEnum):
    """Whose wording stands."""

    MODEL = "model"
    REPAIRED = "repaired"
    DRAFT = "draft"


class Reason(StrEnum):
    """Why the draft stands, or why an answer was repaired; ``FAITHFUL`` where neither is so."""

    FAITHFUL = "faithful"
    NO_MODEL = "no_model"
    NOTHING_TO_WORD = "nothing_to_word"
    UNREACHABLE = "unreachable"
    OUT_OF_TIME = "out_of_time"
    RESTING = "resting"
    CANCELLED = "cancelled"
    UNUSABLE = "unusable"
    UNFAITHFUL = "unfaithful"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one report may cost.

    Attributes
    ----------
    seconds : float
        In all, over every attempt; then the draft goes out.
    tokens : int
        Most tokens of all answers together.
    attempts : int
        How often the model may answer: once, and again after it has seen its faults.
    """

    seconds: float = 60.0
    tokens: int = 1536
    attempts: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementRecord:
    """What is kept of a refinement beside its text; free of patient data.

    Attributes
    ----------
    model : str
        Identity of the language model that was asked; empty if none was.
    prompt_sha256 : str
        Of the first prompt, system and user message joined by a line feed.
    checker : str
        Version of the checker.
    draft_sha256 : str
        Of the draft that was refined, as plain text.
    attempts : int
        Answers that were asked for.
    faults, remaining_faults : tuple of (kind, number)
        What the checker found in the answer that was used, and in the text after repair.
    kept, replaced, added : int
        Sentences of the model that stand, that gave way to the draft's, and sentences of the draft that
        tell what the model left out.
    remark : str
        The sentence about it that stands in the report.
    unverified : tuple of str
        Sentences of the crude report that no finding supports: not included in the text.
    """

    standing: Standing
    reason: Reason
    remark: str = ""
    model: str = ""
    prompt_sha256: str = ""
    checker: str = ""
    draft_sha256: str = ""
    attempts: int = 0
    faults: tuple[tuple[str, int], ...] = ()
    remaining_faults: tuple[tuple[str, int], ...] = ()
    kept: int = 0
    replaced: int = 0
    added: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """The report that stands, and how it came to be."""

    text: ReportText
    record: RefinementRecord
