"""Pure. A text held to its ground: each sentence to the facts it cites, and the whole to all facts.

Nothing passes that cannot be read: a word outside the lexicon, a number that belongs to nothing, a
sentence whose parts the rules cannot tell apart are faults like any other. A refused sentence costs
little, because the draft's stands in for it; one let through could harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from inference.findings import Presence
from reporting.checker.characters import find_bad_characters
from reporting.checker.faults import Fault, FaultKind
from reporting.checker.form import find_malformed
from reporting.checker.holding import hold
from reporting.checker.items import ELSEWHERE, Item, is_name, read_items, split_sentences
from reporting.checker.lexicon import Form, Lexicon, Part, default_lexicon
from reporting.checker.reading import read_statements
from reporting.checker.sizes import find_size
from reporting.checker.statements import Reading, Stated, Statement
from reporting.facts import Certainty, Fact, FactKind
from reporting.refine.answer import CitedSentence
from reporting.refine.prompt import Ground
from reporting.text import SectionName

_WORDED: Final = frozenset({SectionName.FINDINGS, SectionName.IMPRESSION})
_UNSURE: Final = frozenset({Certainty.MODERATE, Certainty.LOW})
#: Words that say who found or did not find something.
_ATTRIBUTING: Final = frozenset({Part.ALGORITHM, Part.NAME, Part.DISAGREEMENT, Part.ELSEWHERE})
#: Findings that are one or the other of two.
_HALVES: Final = {"nodule_mass": ("nodule", "mass")}
_FURTHER: Final = frozenset({"another", "second", "other", "different", "further", "third"})
_FILM: Final = frozenset({"film", "radiograph", "x ray"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stated:
    """What one sentence was found to state: each statement with its facts."""

    index: int
    section: SectionName
    cited: tuple[Fact, ...]
    pairs: tuple[tuple[Statement, tuple[Fact, ...]], ...]
    is_faulty: bool
    implied: tuple[Fact, ...] = ()


def check_sentences(
    sentences: Sequence[CitedSentence], ground: Ground, lexicon: Lexicon | None = None
) -> tuple[Fault, ...]:
    """Return everything that is wrong with a text; nothing means that it is faithful.

    Parameters
    ----------
    sentences : sequence of CitedSentence
        Findings, impression and recommendation, in the order of the report.
    ground : Ground
        Its facts and recommendations are all that a text may say; what it holds of the order and of
        the crude report is no fact.
    lexicon : Lexicon or None
        None is the one that ships.

    Returns
    -------
    tuple of Fault
        In the order of the sentences, then those of the whole text.
    """
    words = lexicon or default_lexicon()
    faults: list[Fault] = []
    stated: list[_Stated] = []
    for index, sentence in enumerate(sentences):
        if sentence.section is SectionName.RECOMMENDATION:
            faults += _check_advice(index, sentence, ground)
            continue
        if sentence.section not in _WORDED:
            faults.append(
                Fault(kind=FaultKind.UNCLEAR, index=index, detail="this section is worded by rule alone")
            )
            continue
        before = sentences[index - 1] if index else None
        found, one = _check_sentence(index, sentence, before, ground, words)
        faults += found
        stated.append(one)
    faults += _check_repeats(stated)
    return (*faults, *_check_whole(stated, ground))


# -- one sentence -------------------------------------------------------------------------------


def _check_advice(index: int, sentence: CitedSentence, ground: Ground) -> list[Fault]:
    allowed = {one.alias: " ".join(one.text.split()) for one in ground.recommendations}
    if not sentence.aliases:
        return [_fault(FaultKind.NO_CITATION, index, detail="the advice cites no recommendation")]
    unknown = tuple(alias for alias in sentence.aliases if alias not in allowed)
    if unknown:
        return [
            _fault(FaultKind.UNKNOWN_CITATION, index, detail="the advice cites what is no recommendation")
        ]
    expected = " ".join(allowed[alias] for alias in sentence.aliases)
    if " ".join(sentence.text.split()) != expected:
        return [
            _fault(
                FaultKind.ADVICE, index, sentence.aliases, "it is not word for word an allowed recommendation"
            )
        ]
    return []


def _check_sentence(
    index: int, sentence: CitedSentence, before: CitedSentence | None, ground: Ground, lexicon: Lexicon
) -> tuple[list[Fault], _Stated]:
    every = ground.facts.facts
    cited = tuple(fact for fact in every if fact.alias in sentence.aliases)
    faults = _check_citations(index, sentence, ground)
    faults += [_fault(kind, index, detail=why) for kind, why in find_bad_characters(sentence.text)]
    if any(fault.kind in {FaultKind.CHARACTER, FaultKind.UNCLEAR} for fault in faults):
        return faults, _Stated(index=index, section=sentence.section, cited=cited, pairs=(), is_faulty=True)
    names = [name for name in sorted({fact.algorithm for fact in every}) if is_name(name, lexicon)]
    items = read_items(sentence.text, lexicon, names, frozenset(fact.concept for fact in cited))
    faults += [_fault(kind, index, detail=why) for kind, why in _check_words(items, ground)]
    malformed = (why for part in split_sentences(items) for why in find_malformed(part))
    faults += [_fault(FaultKind.UNCLEAR, index, detail=why) for why in dict.fromkeys(malformed)]
    faults += [_fault(kind, index, detail=why) for kind, why in _check_algorithms(items, cited, every)]
    reading = read_statements(items)
    faults += [_fault(kind, index, detail=why) for kind, why in _check_reading(reading, cited)]
    pairs: list[tuple[Statement, tuple[Fact, ...]]] = []
    taken: list[Fact] = []
    implied: list[Fact] = []
    for statement in _merge_halves(reading.statements, cited):
        meant = _resolve(statement, sentence, before, cited)
        if meant is None:
            faults.append(_fault(FaultKind.UNCLEAR, index, detail="a pronoun without the finding it means"))
            continue
        verdict = hold(meant, cited, taken, every, lexicon)
        if _is_unattributed(verdict.facts, every, items):
            why = "algorithms disagree, and the text does not say that one did not detect it"
            faults.append(_fault(FaultKind.CONTRADICTION, index, (fact.alias for fact in verdict.facts), why))
        aliases = tuple(fact.alias for fact in cited if fact.concept in meant.concepts)
        faults += [_fault(kind, index, aliases, why) for kind, why in verdict.faults]
        taken += [fact for fact in verdict.facts if fact not in taken]
        implied += verdict.implied
        pairs.append((meant, verdict.facts))
    unstated = tuple(fact.alias for fact in cited if fact not in taken and fact not in implied)
    if unstated:
        faults.append(_fault(FaultKind.UNSTATED_CITATION, index, unstated, "it is cited and not stated"))
    return faults, _Stated(
        index=index,
        section=sentence.section,
        cited=cited,
        pairs=tuple(pairs),
        implied=tuple(implied),
        is_faulty=bool(faults),
    )


def _merge_halves(statements: Sequence[Statement], cited: Sequence[Fact]) -> list[Statement]:
    """Return statements; where neither half of a joint finding is there, the joint one is not."""
    merged = list(statements)
    known = {fact.concept for fact in cited}
    for joint, halves in _HALVES.items():
        told = [
            (index, one)
            for index, one in enumerate(merged)
            if len(one.concepts) == 1 and one.concepts[0] in halves and one.presence is Presence.ABSENT
        ]
        is_meant = joint in known and known.isdisjoint(halves) and len(told) == len(halves)
        if is_meant and {one.concepts[0] for _, one in told} == set(halves):
            (first, one), (second, other) = told
            if replace(other, concepts=one.concepts, form=one.form, is_listed=one.is_listed) == one:
                merged[first] = replace(one, concepts=(joint,))
                del merged[second]
    return merged


def _is_unattributed(facts: Sequence[Fact], every: Sequence[Fact], items: Sequence[Item]) -> bool:
    """Say whether a text denies outright what another algorithm found."""
    there = {fact.concept for fact in every if fact.presence is Presence.PRESENT}
    is_disputed = any(fact.presence is Presence.ABSENT and fact.concept in there for fact in facts)
    is_attributed = any(
        item.part in _ATTRIBUTING
        or item.value == ELSEWHERE
        or "detect" in item.text
        or item.text == "called absent"
        for item in items
    )
    return is_disputed and not is_attributed


def _fault(kind: FaultKind, index: int | None, aliases: Iterable[str] = (), detail: str = "") -> Fault:
    return Fault(kind=kind, index=index, aliases=tuple(aliases), detail=detail)


def _check_citations(index: int, sentence: CitedSentence, ground: Ground) -> list[Fault]:
    if not sentence.aliases:
        return [_fault(FaultKind.NO_CITATION, index, detail="it cites no fact")]
    if any(ground.facts.by_alias(alias) is None for alias in sentence.aliases):
        return [_fault(FaultKind.UNKNOWN_CITATION, index, detail="it cites what is no fact")]
    return []


def _check_words(items: Sequence[Item], ground: Ground) -> list[tuple[FaultKind, str]]:
    faults = []
    for item in items:
        if item.entry.refused is not None:
            faults.append((item.entry.refused, f"«{item.text}» says more than the facts do"))
        elif item.part is Part.UNKNOWN:
            faults.append((FaultKind.UNKNOWN_WORD, f"word {item.position + 1} is not in the lexicon"))
        elif item.part is Part.EXAMINATION and not _is_examination(item.text, ground):
            faults.append((FaultKind.WRONG_EXAMINATION, f"«{item.text}» is not the examination"))
        elif item.part is Part.MARK and item.value == "-":
            faults.append((FaultKind.WRONG_NUMBER, "a range is given"))
    return faults


def _check_algorithms(
    items: Sequence[Item], cited: Sequence[Fact], every: Sequence[Fact]
) -> list[tuple[FaultKind, str]]:
    """Return whether more algorithms are spoken of than have stated what is cited, or than there are."""
    is_alone = len({fact.algorithm for fact in every}) < 2  # noqa: PLR2004
    is_another = any(_is_another(item, after) for item, after in pairwise([*items, *items[-1:]]))
    if is_alone and is_another:
        return [(FaultKind.WRONG_ALGORITHM, "another algorithm is spoken of, and there is one")]
    known = len({fact.algorithm for fact in cited})
    said = [int(item.value) for item, after in pairwise(items) if _is_count_of_algorithms(item, after)]
    if any(number > known for number in said):
        return [(FaultKind.WRONG_ALGORITHM, "more algorithms are spoken of than have stated it")]
    return []


def _is_another(item: Item, after: Item) -> bool:
    """Say whether an item speaks of another algorithm."""
    is_noun = item.part is Part.ARTICLE and after.part in {Part.ALGORITHM, Part.NAME}
    is_phrase = item.part in {Part.ALGORITHM, Part.ELSEWHERE} or item.value == ELSEWHERE
    return (is_noun or is_phrase) and not _FURTHER.isdisjoint(item.text.split())


def _is_count_of_algorithms(item: Item, after: Item) -> bool:
    return item.part is Part.COUNT and after.part is Part.ALGORITHM


def _is_examination(text: str, ground: Ground) -> bool:
    words = set(ground.examination.lower().replace("-", " ").split())
    if text in _FILM:
        return bool({"radiograph", "radiographs"} & words)
    if text.startswith("flair"):
        return any(fact.concept == "neoplasm" for fact in ground.facts.facts)
    return text in words or (text == "mri" and "mr" in words) or (text == "mr" and "mri" in words)


def _check_reading(reading: Reading, cited: Sequence[Fact]) -> list[tuple[FaultKind, str]]:
    faults = [(FaultKind.UNCLEAR, why) for why in dict.fromkeys(reading.unclear)]
    if reading.stray_numbers:
        faults.append((FaultKind.WRONG_NUMBER, "a number belongs to nothing"))
    if reading.severe_marks:
        faults.append((FaultKind.EMBELLISHMENT, "«marked» stands where it means severe"))
    if reading.is_disagreement and not _disagree(cited):
        faults.append((FaultKind.CONTRADICTION, "the algorithms do not disagree on what is cited"))
    return faults


def _disagree(facts: Sequence[Fact]) -> bool:
    there = {fact.concept for fact in facts if fact.presence is Presence.PRESENT}
    gone = {fact.concept for fact in facts if fact.presence is Presence.ABSENT}
    return not there.isdisjoint(gone)


def _resolve(
    statement: Statement, sentence: CitedSentence, before: CitedSentence | None, cited: Sequence[Fact]
) -> Statement | None:
    """Return a statement with the finding that its pronoun means: the one of the sentence before."""
    if not statement.is_pronoun:
        return statement
    is_led_to = (
        before is not None
        and before.section is sentence.section
        and set(before.aliases) == set(sentence.aliases)
    )
    if len(cited) != 1 or not is_led_to:
        return None
    return replace(statement, concepts=(cited[0].concept,))


# -- the whole text -----------------------------------------------------------------------------


def _check_repeats(stated: Sequence[_Stated]) -> list[Fault]:
    """Return where a finding that can be counted is brought in a second time: a reader would count two."""
    faults: list[Fault] = []
    for section in _WORDED:
        seen: set[str] = set()
        for one in (one for one in stated if one.section is section):
            for statement, facts in one.pairs:
                if (
                    statement.is_pronoun
                    or statement.is_definite
                    or statement.presence is not Presence.PRESENT
                ):
                    continue
                again = [fact.alias for fact in facts if fact.alias in seen]
                if again and statement.form is not Form.MASS:
                    faults.append(_fault(FaultKind.WRONG_COUNT, one.index, again, "it is brought in twice"))
                seen.update(fact.alias for fact in facts)
    return faults


def _check_whole(stated: Sequence[_Stated], ground: Ground) -> list[Fault]:
    faults = []
    every = ground.facts.facts
    for fact in every:
        faults += _check_stated(fact, SectionName.FINDINGS, stated)
        is_lesion = fact.presence is Presence.PRESENT and fact.kind is not FactKind.ANATOMY
        if is_lesion and not _is_told_by_rule(fact, every):
            faults += _check_stated(fact, SectionName.IMPRESSION, stated)
    return [*faults, *_check_denials(stated, every)]


def _is_told_by_rule(fact: Fact, every: Sequence[Fact]) -> bool:
    """Say whether the impression has a sentence by rule on a finding: where algorithms disagree on a mark."""
    is_denied = any(other.concept == fact.concept and other.presence is Presence.ABSENT for other in every)
    return is_denied and fact.kind in {FactKind.MARKED, FactKind.LABEL}


def _check_stated(fact: Fact, section: SectionName, stated: Sequence[_Stated]) -> list[Fault]:
    """Return what a section lacks of a fact; where it is told in a faulty sentence, that is fault enough."""
    mine = [one for one in stated if one.section is section and fact in one.cited]
    if any(one.is_faulty for one in mine):
        return []
    told = [statement for one in mine for statement, facts in one.pairs if fact in facts]
    named = [statement for statement in told if statement.concepts]
    if not named and any(fact in one.implied for one in mine):
        return []
    if not named:
        detail = f"it is not stated under {section.value}"
        return [Fault(kind=FaultKind.MISSING_FACT, aliases=(fact.alias,), section=section, detail=detail)]
    lacks = _find_lacks(fact, named) if section is SectionName.FINDINGS else []
    lacks += _find_unhedged(fact, named)
    return [
        Fault(
            kind=FaultKind.MISSING_DETAIL,
            aliases=(fact.alias,),
            section=section,
            detail=f"{what} is not stated under {section.value}",
        )
        for what in lacks
    ]


def _find_lacks(fact: Fact, told: Sequence[Statement]) -> list[str]:
    if fact.presence is not Presence.PRESENT:
        return []
    places = [place for statement in told for place in statement.places]
    sizes = [size for statement in told for size in statement.sizes]
    lacks = []
    if fact.side is not None and not any(place.side for place in places):
        lacks.append("its side")
    if fact.zone is not None and not any(place.zone is fact.zone for place in places):
        lacks.append("its zone")
    lacks += [
        f"its {size.quantity.value.replace('_', ' ')}"
        for size in fact.sizes
        if not any(find_size(one, (size,)) is not None for one in sizes)
    ]
    return lacks


def _find_unhedged(fact: Fact, told: Sequence[Statement]) -> list[str]:
    """Return that a finding the algorithm is not sure of is never said to be so."""
    if (
        fact.kind is FactKind.ANATOMY
        or fact.presence is not Presence.PRESENT
        or fact.certainty not in _UNSURE
    ):
        return []
    is_hedged = any(one.certainty is not Stated.PLAIN or one.probability for one in told)
    return [] if is_hedged else ["its certainty"]


def _check_denials(stated: Sequence[_Stated], every: Sequence[Fact]) -> list[Fault]:
    """Return where the impression denies what one algorithm found, without saying that it was found."""
    there = {fact.concept for fact in every if fact.presence is Presence.PRESENT}
    faults = []
    for one in stated:
        if one.section is not SectionName.IMPRESSION:
            continue
        said = {fact.concept for _, facts in one.pairs for fact in facts if fact.presence is Presence.PRESENT}
        denied = [
            fact
            for statement, facts in one.pairs
            if statement.concepts
            for fact in facts
            if fact.presence is Presence.ABSENT and fact.concept in there - said
        ]
        if denied:
            detail = "another algorithm found what the impression denies"
            faults.append(_fault(FaultKind.CONTRADICTION, one.index, [fact.alias for fact in denied], detail))
    return faults
