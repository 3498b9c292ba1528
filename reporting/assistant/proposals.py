"""Adapter: talks to the language model: what it proposes, a plan or a wording, and what of it stands.

It is believed nothing: a plan may name tools of the closed set alone, and a sentence
stands only where it says what the evidence says that it cites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from reporting.assistant.answer import AnswerSentence
from reporting.assistant.evidence import Evidence
from reporting.assistant.grounding import check_findings, find_fault
from reporting.assistant.intents import Plan, Turn
from reporting.assistant.session import AssistantLimits, Session
from reporting.assistant.wording import ask_for_answer, ask_for_plan, read_answer, read_plan
from reporting.refine.answer import UnusableAnswerError
from reporting.refine.port import LanguageModel, LanguageModelError

_RULES_STAND: Final = "The composed answer stands: "


class Proposer:
    """Asks a language model for plans and wordings, and judges them.

    Parameters
    ----------
    model : LanguageModel or None
        Without one nothing is proposed.
    limits : AssistantLimits
        Bound each request, and say whether answers are worded.
    """

    def __init__(self, model: LanguageModel | None, limits: AssistantLimits) -> None:
        self._model = model
        self._limits = limits

    def propose_plan(self, session: Session, asked: str, history: Sequence[Turn]) -> Plan | None:
        """Return the language model's plan; None if it gave none that can be used."""
        if self._model is None:
            return None
        timeout_s = min(self._limits.wording_timeout_s, session.remaining_s())
        request = ask_for_plan(asked, history, session.record, timeout_s)
        session.took_part = True
        try:
            text = self._model.complete(request, session.cancel).text
            return read_plan(text, asked, session.record)
        except (LanguageModelError, UnusableAnswerError):
            return None

    def propose_wording(
        self, session: Session, asked: str, evidence: Sequence[Evidence]
    ) -> tuple[tuple[AnswerSentence, ...], str]:
        """Return the language model's sentences, or none and why."""
        if self._model is None or not self._limits.is_worded:
            return (), ""
        timeout_s = min(self._limits.wording_timeout_s, session.remaining_s())
        request = ask_for_answer(asked, evidence, session.facts, timeout_s)
        session.took_part = True
        try:
            text = self._model.complete(request, session.cancel).text
            return read_answer(text, evidence), ""
        except LanguageModelError:
            return (), f"{_RULES_STAND}the language model did not answer."
        except UnusableAnswerError:
            return (), f"{_RULES_STAND}the language model answered in another form than was asked for."

    def judge(
        self, session: Session, asked: str, worded: Sequence[AnswerSentence], evidence: Mapping[str, Evidence]
    ) -> tuple[tuple[AnswerSentence, ...], str]:
        """Return those sentences that stand, and the verdict; none if the composed answer must stand."""
        faults = [find_fault(one, evidence, asked, session.record.identifiers) for one in worded]
        kept = tuple(one for one, fault in zip(worded, faults, strict=True) if not fault)
        if not kept:
            return (), f"{_RULES_STAND}{next(iter(faults), 'there was no sentence')}."
        wrong = check_findings(kept, evidence, session.facts)
        if wrong:
            return (), f"{_RULES_STAND}{wrong}."
        dropped = len(worded) - len(kept)
        return kept, f"{len(kept)} sentences of the language model passed the checks, {dropped} were dropped."
