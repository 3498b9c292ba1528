"""Pure. The repair of an answer: what is wrong gives way to the draft, what is missing is added from it.

Every fact ends up told by one voice, the model's or the draft's: where the draft steps in for
a fact, no sentence of the model tells it too. The draft's sentences are made from the facts by
rule and need no check.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inference.findings import Presence
from reporting.facts import FactKind, Facts
from reporting.refine.answer import CitedSentence
from reporting.refine.prompt import Ground
from reporting.text import ReportText, SectionName, Sentence


class SeenFault(Protocol):
    """What repair needs to know of a fault (`reporting.checker.faults.Fault`)."""

    @property
    def kind(self) -> str:
        """What is wrong."""
        ...

    @property
    def index(self) -> int | None:
        """Which sentence; None for the whole text."""
        ...

    @property
    def section(self) -> SectionName | None:
        """Of which section, for a fault of no single sentence."""
        ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Which facts."""
        ...

    @property
    def detail(self) -> str:
        """The same in words, free of patient data."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSentence:
    """A sentence of the answer or, in its place, of the draft.

    Attributes
    ----------
    cited : CitedSentence
        The sentence as the checker reads it.
    is_of_model : bool
        Whether the language model worded it.
    """

    cited: CitedSentence
    is_of_model: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """An answer after repair.

    Attributes
    ----------
    replaced, added : int
        Sentences of the model that are gone; sentences of the draft that tell what was left out.
    """

    sentences: tuple[ToldSentence, ...]
    replaced: int = 0
    added: int = 0

    @property
    def kept(self) -> int:
        """Sentences of findings and impression that are the model's own."""
        return sum(
            s.is_of_model and s.cited.section is not SectionName.RECOMMENDATION for s in self.sentences
        )

    def is_by_rule(self, aliases: Iterable[str], section: SectionName | None) -> bool:
        """Say whether the draft tells these facts, in a section or in all."""
        told = [s for s in self.sentences if section in {None, s.cited.section}]
        return set(aliases) <= {alias for s in told if not s.is_of_model for alias in s.cited.aliases}

    @property
    def cited(self) -> tuple[CitedSentence, ...]:
        """The sentences as the checker reads them."""
        return tuple(sentence.cited for sentence in self.sentences)


@dataclass(slots=True)
class _Tally:
    replaced: int = 0
    added: int = 0
    sentences: list[ToldSentence] = field(default_factory=list)


def repair_answer(
    answer: Sequence[CitedSentence], faults: Sequence[SeenFault], draft: ReportText, ground: Ground
) -> Repaired:
    """Return the answer without its faults, as far as the draft can mend them.

    Parameters
    ----------
    answer : sequence of CitedSentence
        As the model gave it.
    faults : sequence of SeenFault
        What the checker found in it; none is fine, the impression is completed all the same.
    draft : ReportText
        The text that rules made from the same facts.
    """
    facts = ground.facts
    wrong = _find_wrong(answer, faults)
    tally = _Tally()
    for section in (SectionName.FINDINGS, SectionName.IMPRESSION):
        told = [(s, i in wrong) for i, s in enumerate(answer) if s.section is section]
        everything = frozenset(fact.alias for fact in facts.facts)
        owed = everything if section is SectionName.FINDINGS else _owed(draft, facts)
        _mend(told, owed, _as_cited(draft, section, facts), tally)
    advice = {one.alias: one for one in ground.recommendations}
    for index, sentence in enumerate(answer):
        if sentence.section is not SectionName.RECOMMENDATION:
            continue
        if index in wrong or not set(sentence.aliases) <= advice.keys():
            tally.replaced += 1
        else:
            tally.sentences.append(ToldSentence(cited=sentence))
    return Repaired(sentences=tuple(tally.sentences), replaced=tally.replaced, added=tally.added)


def _find_wrong(answer: Sequence[CitedSentence], faults: Sequence[SeenFault]) -> frozenset[int]:
    """Return the sentences that must go: those with a fault, and those on facts that are told wrongly."""
    wrong = {fault.index for fault in faults if fault.index is not None}
    for fault in (fault for fault in faults if fault.index is None):
        wrong |= {
            index
            for index, sentence in enumerate(answer)
            if set(fault.aliases) & set(sentence.aliases) and fault.section in {None, sentence.section}
        }
    return frozenset(wrong)


def _owed(draft: ReportText, facts: Facts) -> frozenset[str]:
    """Return the facts that an impression must tell, unless rules tell them anyhow."""
    fixed = {i for s in _sentences(draft, SectionName.IMPRESSION) if s.is_fixed for i in s.finding_ids}
    return frozenset(
        fact.alias
        for fact in facts.facts
        if fact.presence is not Presence.ABSENT
        and fact.kind is not FactKind.ANATOMY
        and fact.fact_id not in fixed
    )


def _mend(
    told: Sequence[tuple[CitedSentence, bool]],
    owed: Iterable[str],
    spare: Sequence[CitedSentence],
    tally: _Tally,
) -> None:
    """Add one section to the tally: the sentences that are right, and the draft's for all else."""
    by_draft = {alias for sentence, is_wrong in told if is_wrong for alias in sentence.aliases}
    by_model = {alias for sentence, is_wrong in told if not is_wrong for alias in sentence.aliases}
    by_draft |= set(owed) - by_model
    while True:  # a sentence of either side may tell several facts
        chosen = [sentence for sentence in spare if by_draft & set(sentence.aliases)]
        dropped = [s for s, is_wrong in told if is_wrong or by_draft & set(s.aliases)]
        grown = by_draft.union(*(s.aliases for s in chosen), *(s.aliases for s in dropped))
        if grown == by_draft:
            break
        by_draft = grown
    tally.replaced += len(dropped)
    lost = {alias for sentence in dropped for alias in sentence.aliases}
    waiting = list(chosen)
    for sentence, _ in told:
        if sentence not in dropped:
            tally.sentences.append(ToldSentence(cited=sentence))
            continue
        stand_ins = [s for s in waiting if set(s.aliases) & set(sentence.aliases)]
        tally.sentences += [ToldSentence(cited=s, is_of_model=False) for s in stand_ins]
        waiting = [s for s in waiting if s not in stand_ins]
    tally.sentences += [ToldSentence(cited=s, is_of_model=False) for s in waiting]
    tally.added += sum(not lost & set(s.aliases) for s in waiting)


def _as_cited(draft: ReportText, section: SectionName, facts: Facts) -> list[CitedSentence]:
    """Return the sentences of the draft that a model words, as it would cite them."""
    cited = []
    for sentence in _sentences(draft, section):
        found = [facts.by_id(finding_id) for finding_id in sentence.finding_ids]
        aliases = tuple(fact.alias for fact in found if fact is not None)
        if not sentence.is_fixed and aliases:
            cited.append(CitedSentence(section=section, text=sentence.text, aliases=aliases))
    return cited


def _sentences(draft: ReportText, section: SectionName) -> tuple[Sentence, ...]:
    return next((s.sentences for s in draft.sections if s.name is section), ())
