"""Pure but for the model it asks. From a draft to the report that stands, with a record of the way.

An answer that passes the checker stands as it is; one with faults is repaired from the draft
and checked again; what is not faithful then is thrown away and the draft stands, with the
reason. Nothing that a language model does can fail a run or hold it up beyond the budget.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event
from typing import Final

from reporting import safety
from reporting.refine.answer import CitedSentence
from reporting.refine.asking import Asked, Checker, ask
from reporting.refine.layout import lay_out
from reporting.refine.port import CompletionRequest, LanguageModel
from reporting.refine.prompt import Ground, build_request, clean_crude
from reporting.refine.record import Budget, Reason, Refinement, RefinementRecord, Standing
from reporting.refine.repair import Repaired, SeenFault, repair_answer
from reporting.text import Author, ReportText, SectionName, TextProvenance

#: Most tokens of one answer: a report with some twenty findings.
_MOST_TOKENS: Final = 1024
#: The fault that a sentence has for every fact that it is held to and does not state.
_UNSTATED: Final = "unstated_citation"


def refine_report(
    draft: ReportText,
    ground: Ground,
    model: LanguageModel | None,
    *,
    checker: Checker,
    budget: Budget,
    clock: Callable[[], float],
    cancel: Event | None = None,
) -> Refinement:
    """Return the report that stands: the model's wording if it is faithful, else the draft.

    Parameters
    ----------
    draft : ReportText
        The text that rules made.
    ground : Ground
        The facts of the same study, and all else that the text may rest on.
    model : LanguageModel or None
        None if the site has none.
    checker : Checker
        What the answer must pass.
    budget : Budget
        Seconds, tokens and attempts.
    clock : callable
        Returns seconds of a clock that never goes back.
    cancel : threading.Event or None
        Ends the generation when it is set; the draft stands.
    """
    began = clock()
    record = RefinementRecord(
        standing=Standing.DRAFT,
        reason=Reason.NO_MODEL,
        checker=checker.version,
        draft_sha256=digest_text(draft),
        unverified=list_unverified(ground, checker),
    )
    if model is None:
        return _let_draft_stand(draft, record)
    record = replace(record, model=model.identity, reason=Reason.NOTHING_TO_WORD)
    if not ground.facts.facts:
        return _let_draft_stand(draft, record)
    request = build_request(ground, max_tokens=min(budget.tokens, _MOST_TOKENS), timeout_s=budget.seconds)
    asked = ask(request, ground, model, checker=checker, budget=budget, clock=clock, cancel=cancel)
    record = replace(_note(record, request, asked), seconds=round(clock() - began, 3))
    if not asked.answer:
        return _let_draft_stand(draft, record)
    repaired = repair_answer(asked.answer, asked.faults, draft, ground)
    remaining = _find_remaining(repaired, checker.check(repaired.cited, ground))
    if remaining or not repaired.kept:
        faults = _count(remaining)
        return _let_draft_stand(draft, replace(record, reason=Reason.UNFAITHFUL, remaining_faults=faults))
    return _let_model_stand(draft, repaired, ground, record)


def digest_text(text: ReportText) -> str:
    """Return the SHA-256 of a report as plain text."""
    return hashlib.sha256(text.plain.encode()).hexdigest()


def list_unverified(ground: Ground, checker: Checker) -> tuple[str, ...]:
    """Return the sentences of the crude report that say what no fact says, in plain characters."""
    everything = tuple(fact.alias for fact in ground.facts.facts)
    unverified = []
    for text in (clean_crude([sentence]) for sentence in ground.crude):
        cited = CitedSentence(section=SectionName.FINDINGS, text=text, aliases=everything)
        faults = checker.check((cited,), ground)
        if text and any(fault.index is not None and str(fault.kind) != _UNSTATED for fault in faults):
            unverified.append(text)
    return tuple(unverified)


def _note(record: RefinementRecord, request: CompletionRequest, asked: Asked) -> RefinementRecord:
    return replace(
        record,
        reason=asked.failure,
        prompt_sha256=hashlib.sha256(f"{request.system}\n{request.user}".encode()).hexdigest(),
        attempts=asked.attempts,
        faults=_count(asked.faults),
        prompt_tokens=asked.prompt_tokens,
        completion_tokens=asked.completion_tokens,
    )


def _let_draft_stand(draft: ReportText, record: RefinementRecord) -> Refinement:
    remark = safety.describe_draft(record.reason)
    provenance = TextProvenance(author=Author.RULES, remark=remark)
    return Refinement(text=replace(draft, provenance=provenance), record=replace(record, remark=remark))


def _let_model_stand(
    draft: ReportText, repaired: Repaired, ground: Ground, record: RefinementRecord
) -> Refinement:
    remark = safety.describe_refinement(record.model, replaced=repaired.replaced, added=repaired.added)
    provenance = TextProvenance(author=Author.LANGUAGE_MODEL, remark=remark, language_model=record.model)
    is_whole = not repaired.replaced and not repaired.added
    mended = Reason.UNFAITHFUL if repaired.replaced else Reason.INCOMPLETE
    return Refinement(
        text=lay_out(draft, repaired.sentences, ground, provenance),
        record=replace(
            record,
            standing=Standing.MODEL if is_whole else Standing.REPAIRED,
            reason=Reason.FAITHFUL if is_whole else mended,
            remark=remark,
            kept=repaired.kept,
            replaced=repaired.replaced,
            added=repaired.added,
        ),
    )


def _find_remaining(repaired: Repaired, faults: Sequence[SeenFault]) -> tuple[SeenFault, ...]:
    """Return the faults of the model's sentences and of the whole; what the draft tells is fact by rule."""
    remaining = []
    for fault in faults:
        if fault.index is not None:
            is_by_rule = not repaired.sentences[fault.index].is_of_model
        else:
            is_by_rule = bool(fault.aliases) and repaired.is_by_rule(fault.aliases, fault.section)
        if not is_by_rule:
            remaining.append(fault)
    return tuple(remaining)


def _count(faults: Sequence[SeenFault]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(str(fault.kind) for fault in faults).items()))
