"""Pure. One statement held to the facts that its sentence cites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType
from typing import Final

from inference.findings import Laterality, Presence, Quantity
from reporting import codes
from reporting.checker.faults import FaultKind
from reporting.checker.lexicon import Form, Lexicon
from reporting.checker.sizes import find_size, has_wrong_unit, is_total
from reporting.checker.statements import Axis, Context, Stated, StatedPlace, StatedSize, Statement
from reporting.facts import Certainty, Fact, FactKind, Size
from reporting.safety import format_probability

_MOST_PERMUTED: Final = 5
_SIDES: Final = frozenset({Laterality.LEFT, Laterality.RIGHT})
#: Sites of which there is one on each side, so that what lies in both is two.
_PAIRED: Final = frozenset({"pleura"})

#: How sure a text may be of a present finding, by how sure the algorithm is.
ALLOWED: Final[Mapping[Certainty, frozenset[Stated]]] = MappingProxyType(
    {
        Certainty.HIGH: frozenset({Stated.PLAIN, Stated.ATTRIBUTED, Stated.HIGH}),
        Certainty.MODERATE: frozenset({Stated.ATTRIBUTED, Stated.POSSIBLE, Stated.PROBABLE, Stated.MODERATE}),
        Certainty.LOW: frozenset({Stated.ATTRIBUTED, Stated.POSSIBLE, Stated.WEAK, Stated.LOW}),
        Certainty.UNSTATED: frozenset({Stated.PLAIN, Stated.ATTRIBUTED, Stated.POSSIBLE}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one statement was found to be.

    Attributes
    ----------
    facts : tuple of Fact
        Those that it states, where nothing is wrong with it.
    implied : tuple of Fact
        Labels without a place that are true with it, from other algorithms.
    faults : tuple of (FaultKind, str)
        What is wrong, and the same in words free of patient data.
    """

    facts: tuple[Fact, ...] = ()
    implied: tuple[Fact, ...] = ()
    faults: tuple[tuple[FaultKind, str], ...] = ()


def hold(
    statement: Statement,
    cited: Sequence[Fact],
    taken: Sequence[Fact],
    every: Sequence[Fact],
    lexicon: Lexicon,
) -> Verdict:
    """Return which of the cited facts a statement states.

    Parameters
    ----------
    cited, taken : sequence of Fact
        What the sentence cites, and what its earlier statements have stated.
    every : sequence of Fact
        All facts of the study.
    """
    if statement.context is not Context.CURRENT:
        return _wrong(FaultKind.HYPOTHETICAL, "it speaks of the past or of a condition")
    if not statement.concepts:
        return _hold_generic(statement, cited, every)
    same = [fact for fact in cited if fact.concept in statement.concepts]
    if not same:
        known = any(fact.concept in statement.concepts for fact in every)
        reason = "is not what the sentence cites" if known else "is in no fact"
        return _wrong(FaultKind.UNSUPPORTED_FINDING, f"the finding {statement.concepts[0]} {reason}")
    alike = [fact for fact in same if fact.presence is statement.presence]
    if not alike:
        detail = f"{same[0].alias} is {same[0].presence.value}, and the text says {statement.presence.value}"
        return _wrong(FaultKind.WRONG_PRESENCE, detail)
    return _hold_alike(statement, alike, taken, every, lexicon)


def _hold_alike(
    statement: Statement,
    alike: Sequence[Fact],
    taken: Sequence[Fact],
    every: Sequence[Fact],
    lexicon: Lexicon,
) -> Verdict:
    """Hold a statement to the facts of its finding and presence."""
    there = [
        fact for fact in every if fact.concept in statement.concepts and fact.presence is Presence.PRESENT
    ]
    if statement.is_further and len(there) < (2 if statement.presence is Presence.PRESENT else 1):
        return _wrong(FaultKind.WRONG_COUNT, "one more is spoken of than there is")
    if statement.presence is not Presence.PRESENT and statement.count is not None:
        return _wrong(FaultKind.WRONG_COUNT, "a number is given of what is not there")
    compared = [(fact, _compare(statement, fact, every, lexicon)) for fact in alike]
    fitting = [fact for fact, faults in compared if not faults]
    if not fitting:
        return Verdict(faults=min((faults for _, faults in compared), key=len))
    if statement.presence is not Presence.PRESENT:
        return Verdict(facts=tuple(fitting))
    verdict = _assign(statement, fitting, taken, lexicon)
    implied = [fact for fact in alike if verdict.facts and _is_implied(fact, verdict.facts, statement)]
    return Verdict(facts=verdict.facts, implied=tuple(implied), faults=verdict.faults)


def _is_implied(fact: Fact, stated: Sequence[Fact], statement: Statement) -> bool:
    """Say whether a label without a place is told with what another algorithm found in one."""
    has_place = fact.side is not None or fact.zone is not None or bool(fact.sizes)
    return (
        fact.kind is FactKind.LABEL
        and not has_place
        and fact not in stated
        and all(other.algorithm != fact.algorithm for other in stated)
        and not _compare_certainty(statement, fact)
    )


def _wrong(kind: FaultKind, detail: str) -> Verdict:
    return Verdict(faults=((kind, detail),))


def _hold_generic(statement: Statement, cited: Sequence[Fact], every: Sequence[Fact]) -> Verdict:
    """Hold «no abnormality of the kind it looks for»; any other general word says too much."""
    if statement.presence is Presence.PRESENT:
        return _wrong(FaultKind.UNCLEAR, "a finding is spoken of without its name")
    if not statement.is_scoped or statement.presence is not Presence.ABSENT:
        detail = "that nothing was found is said without the words «of the kind it looks for»"
        return _wrong(FaultKind.OVERCLAIMED_ABSENCE, detail)
    name = statement.algorithm
    concerned = [fact for fact in every if name is None or fact.algorithm == name]
    present = [fact for fact in (*concerned, *cited) if fact.presence is Presence.PRESENT]
    if present:
        return _wrong(FaultKind.WRONG_PRESENCE, f"{present[0].alias} is present")
    if any(fact not in concerned for fact in cited):
        return _wrong(FaultKind.WRONG_ALGORITHM, "another algorithm than the one that is named")
    if statement.sizes or any(place.side or place.zone for place in statement.places):
        return _wrong(FaultKind.UNCLEAR, "a place or a size is given to nothing")
    return Verdict(facts=tuple(cited))


# -- one statement and one fact -----------------------------------------------------------------


def _compare(
    statement: Statement, fact: Fact, every: Sequence[Fact], lexicon: Lexicon
) -> tuple[tuple[FaultKind, str], ...]:
    faults: list[tuple[FaultKind, str]] = []
    faults += _compare_places(statement, fact, lexicon)
    faults += _compare_sizes(statement, fact)
    faults += _compare_certainty(statement, fact)
    if statement.algorithm is not None and statement.algorithm != fact.algorithm:
        faults.append((FaultKind.WRONG_ALGORITHM, f"{fact.alias} is of another algorithm"))
    if statement.index is not None and statement.index != _number_of(fact, every):
        faults.append((FaultKind.WRONG_NUMBER, f"{fact.alias} has another number among its kind"))
    return tuple(faults)


def _compare_places(statement: Statement, fact: Fact, lexicon: Lexicon) -> list[tuple[FaultKind, str]]:
    if not statement.places:
        return []
    judged = [_compare_place(place, statement, fact, lexicon) for place in statement.places]
    kinds = min(judged, key=len)
    return [
        (kind, f"{fact.alias} lies elsewhere, or the text says more of where than is known") for kind in kinds
    ]


def _compare_place(place: StatedPlace, statement: Statement, fact: Fact, lexicon: Lexicon) -> list[FaultKind]:
    kinds = []
    if place.side is not None and not _is_side(place.side, statement, fact):
        kinds.append(FaultKind.WRONG_SIDE)
    if place.site is not None and place.site not in lexicon.wider_sites.get(fact.site, {fact.site}):
        kinds.append(FaultKind.WRONG_SITE)
    if place.zone is not None and place.zone is not fact.zone:
        kinds.append(FaultKind.WRONG_ZONE)
    return kinds


def _is_side(side: Laterality, statement: Statement, fact: Fact) -> bool:
    if fact.presence is not Presence.PRESENT or fact.side is None:
        return side is fact.side
    if side is fact.side:
        return True
    if side is Laterality.BILATERAL:
        return True  # both sides must then be stated: see _check_places
    sides = {place.side for place in statement.places}
    return fact.side is Laterality.BILATERAL and sides >= _SIDES


def _compare_sizes(statement: Statement, fact: Fact) -> list[tuple[FaultKind, str]]:
    if _is_several(statement):
        return []
    faults = []
    for stated in statement.sizes:
        if stated.is_total:
            faults.append((FaultKind.WRONG_NUMBER, f"a total is given of {fact.alias} alone"))
        elif find_size(stated, fact.sizes) is None:
            is_unit = has_wrong_unit(stated, fact.sizes)
            kind = FaultKind.WRONG_UNIT if is_unit else FaultKind.WRONG_NUMBER
            faults.append((kind, f"a size is not one of {fact.alias}"))
    return faults


def _compare_certainty(statement: Statement, fact: Fact) -> list[tuple[FaultKind, str]]:
    has_figure = statement.probability is not None
    if has_figure and not _is_figure(str(statement.probability), fact):
        return [(FaultKind.WRONG_NUMBER, f"the figure of confidence is not that of {fact.alias}")]
    if fact.presence is not Presence.PRESENT or fact.kind is FactKind.ANATOMY:
        is_plain = statement.certainty in {Stated.PLAIN, Stated.ATTRIBUTED}
        return [] if is_plain else [(FaultKind.WRONG_CERTAINTY, f"{fact.alias} takes no word of certainty")]
    if has_figure and statement.certainty in {Stated.PLAIN, Stated.ATTRIBUTED}:
        return []
    is_continued = statement.is_pronoun or (statement.is_definite and bool(statement.sizes))
    if is_continued and statement.certainty in {Stated.PLAIN, Stated.ATTRIBUTED}:
        return []
    if statement.certainty in ALLOWED[fact.certainty]:
        return []
    detail = (
        f"the confidence in {fact.alias} is {fact.certainty.value}, the text says {statement.certainty.value}"
    )
    return [(FaultKind.WRONG_CERTAINTY, detail)]


def _is_figure(figure: str, fact: Fact) -> bool:
    if fact.confidence is None:
        return False
    if figure.endswith("%"):
        return figure == f"{100 * fact.confidence:.0f}%"
    return figure in {format_probability(fact.confidence), f"{fact.confidence:.2f}"}


def _number_of(fact: Fact, every: Sequence[Fact]) -> int:
    """Return the number that a fact has in the titles of the draft, among those of its name."""
    label = codes.code_finding(fact.concept).label
    alike = [
        other
        for other in every
        if other.algorithm == fact.algorithm
        and other.presence is Presence.PRESENT
        and codes.code_finding(other.concept).label == label
    ]
    return alike.index(fact) + 1


# -- one statement and several facts ------------------------------------------------------------


def _is_several(statement: Statement) -> bool:
    return statement.form is Form.MANY or (statement.count or 0) > 1


def _assign(
    statement: Statement, fitting: Sequence[Fact], taken: Sequence[Fact], lexicon: Lexicon
) -> Verdict:
    """Return the facts that a present statement states: as many as it says there are."""
    free = [fact for fact in fitting if fact not in taken]
    if statement.is_definite or statement.is_pronoun:
        free = [fact for fact in fitting if fact in taken] or free
    pool = sorted(free or fitting, key=lambda fact: fact.kind is FactKind.LABEL)
    number = statement.count
    if number is None and statement.form is Form.ONE:
        number = 1
    if statement.form is Form.MANY and number == 1:
        return _wrong(FaultKind.WRONG_COUNT, "a plural is said of one")
    if number is None:
        chosen = pool
        if statement.form is Form.MANY and len(chosen) == 1 and not _is_paired(statement, chosen[0]):
            return _wrong(FaultKind.WRONG_COUNT, f"{chosen[0].alias} is one, and the text has a plural")
    else:
        if len(fitting) < number:
            detail = f"{number} are said to be there, and {len(fitting)} of what is cited fit"
            return _wrong(FaultKind.WRONG_COUNT, detail)
        chosen = (pool if len(pool) >= number else list(fitting))[:number]
    faults = [*_check_places(statement, chosen, lexicon), *_check_sizes(statement, chosen)]
    return Verdict(faults=tuple(faults)) if faults else Verdict(facts=tuple(chosen))


def _is_paired(statement: Statement, fact: Fact) -> bool:
    """Say whether one finding on both sides may be told as several: «bilateral pleural effusions»."""
    sides = {place.side for place in statement.places}
    is_both = Laterality.BILATERAL in sides or sides >= _SIDES
    return fact.site in _PAIRED and fact.side is Laterality.BILATERAL and is_both and not statement.sizes


def _check_places(
    statement: Statement, chosen: Sequence[Fact], lexicon: Lexicon
) -> list[tuple[FaultKind, str]]:
    """Return what is wrong where a statement names several places: each must be one of a fact."""
    sides = {fact.side for fact in chosen}
    for place in statement.places:
        is_both = place.side is Laterality.BILATERAL
        if is_both and Laterality.BILATERAL not in sides and not sides >= _SIDES:
            return [(FaultKind.WRONG_SIDE, f"{chosen[0].alias} is on one side")]
        if all(_compare_place(place, statement, fact, lexicon) for fact in chosen):
            return [(FaultKind.WRONG_SITE, "a place is named at which nothing lies")]
    for place in statement.common:
        if any(_compare_place(place, statement, fact, lexicon) for fact in chosen):
            return [(FaultKind.WRONG_SITE, "a place is said of several findings that is not that of each")]
    if len(chosen) > 1 and _is_partly_zoned(statement, chosen):
        return [(FaultKind.UNCLEAR, "it is not said which of several findings lie in a zone")]
    return []


def _is_partly_zoned(statement: Statement, chosen: Sequence[Fact]) -> bool:
    """Say whether a zone is given with some places of several, and not all findings lie in it."""
    zones = {place.zone for place in statement.places}
    named = zones - {None}
    return None in zones and bool(named) and any({fact.zone} != named for fact in chosen)


def _check_sizes(statement: Statement, chosen: Sequence[Fact]) -> list[tuple[FaultKind, str]]:
    """Return what is wrong with the sizes of several findings together."""
    if not _is_several(statement):
        return []
    for stated in (size for size in statement.sizes if size.is_total):
        if len(chosen) < 2 or not is_total(stated, _summed(stated, chosen)):  # noqa: PLR2004
            return [(FaultKind.WRONG_NUMBER, "a total is not the sum of what was measured")]
    own = [size for size in statement.sizes if not size.is_total]
    if not own:
        return []
    if len(statement.places) > 1 or len(own) != len(chosen) or len(own) > _MOST_PERMUTED:
        return [(FaultKind.UNCLEAR, "it is not said which size belongs to which of several")]
    if not any(_fit_in_order(own, order) for order in permutations(chosen)):
        return [(FaultKind.WRONG_NUMBER, "a size is not one of what is cited")]
    return []


def _fit_in_order(stated: Sequence[StatedSize], facts: Sequence[Fact]) -> bool:
    return all(find_size(size, fact.sizes) is not None for size, fact in zip(stated, facts, strict=True))


def _summed(stated: StatedSize, facts: Sequence[Fact]) -> list[Size]:
    """Return the sizes of all facts that a total may add up; none unless each fact has one."""
    quantity = Quantity.AREA if stated.axis is Axis.AREA else Quantity.VOLUME
    sizes = [size for fact in facts for size in fact.sizes if size.quantity is quantity]
    return sizes if len(sizes) == len(facts) else []
