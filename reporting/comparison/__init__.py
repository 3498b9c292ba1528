"""Pure. This study beside an earlier one of the same patient: what is new, what is gone, what grew.

Readings are compared model by model, never across models; another version of one model is
allowed and said. Normal structures are left out, because the thresholds here are those of
lesions and would call a shrinking brain unchanged; so are estimates of the whole study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from inference.findings import Analysis, Finding, Presence, Quantity
from reporting import codes
from reporting.comparison.changes import (
    LABEL_NOISE,
    NOISE,
    Change,
    Comparison,
    Course,
    Dimension,
    Prior,
    SizeChange,
    change_sizes,
    judge,
)
from reporting.comparison.matching import Position, is_same_side, pair_findings
from reporting.comparison.places import locate_findings
from reporting.comparison.words import describe_changes, describe_no_change
from reporting.draft.kinds import is_anatomy, is_outlined, present

_NO_PLACES: Final[Mapping[str, Position]] = MappingProxyType({})


def compare_with_prior(
    current: Sequence[Analysis],
    prior: Sequence[Analysis],
    days: int,
    *,
    places: Mapping[str, Position] = _NO_PLACES,
    prior_places: Mapping[str, Position] = _NO_PLACES,
) -> tuple[Change, ...]:
    """Return what changed since an earlier study of the same patient.

    Parameters
    ----------
    current, prior : sequence of Analysis
        What the models said of this study and of the earlier one. A model that gave no answer in
        either is not compared.
    days : int
        Days between the studies.
    places, prior_places : mapping of str to Position
        Where findings lie, by ``model/F1``, as far as it is known.

    Returns
    -------
    tuple of Change
        In the order of ``current``: lesions (outlined or marked) with a total where there are several,
        then labels. What is absent in both has no entry. A study compared with itself gives only
        `Course.UNCHANGED`; exchanging the two gives the inverse.

    Raises
    ------
    UnknownConceptError
        If a finding has no code, or a unit does not fit its quantity.
    """
    earlier = {analysis.model.name: analysis for analysis in prior if not analysis.is_refused}
    changes: list[Change] = []
    for analysis in current:
        before = earlier.get(analysis.model.name)
        if before is None or analysis.is_refused:
            continue
        pair = _Pair(now=analysis, before=before, days=days)
        changes += _compare_lesions(pair, _of(places, analysis), _of(prior_places, before))
        changes += _compare_labels(pair)
    return tuple(changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Two readings by one model."""

    now: Analysis
    before: Analysis
    days: int

    def change(
        self,
        course: Course,
        now: Finding | None,
        before: Finding | None,
        sizes: tuple[SizeChange, ...] = (),
        *,
        total_of: Finding | None = None,
    ) -> Change:
        """Return a change with what the two readings have in common."""
        one = now or before or total_of
        assert one is not None
        return Change(
            course=course,
            concept=one.concept,
            site=one.site,
            laterality=None if total_of is not None else one.laterality,
            model=self.now.model,
            prior_model=self.before.model,
            days=self.days,
            now=now,
            before=before,
            sizes=sizes,
            is_total=total_of is not None,
            is_same_input=_roles(self.now) == _roles(self.before),
            is_doubted=bool(self.now.doubts or self.before.doubts),
        )


def _compare_lesions(
    pair: _Pair, places: Mapping[str, Position], prior_places: Mapping[str, Position]
) -> Iterator[Change]:
    now, before = _lesions(pair.now), _lesions(pair.before)
    for kind in dict.fromkeys((f.concept, f.site) for f in (*now, *before)):
        group = [f for f in now if (f.concept, f.site) == kind]
        earlier = [f for f in before if (f.concept, f.site) == kind]
        for one, other in pair_findings(group, earlier, places, prior_places):
            yield _compare_lesion(pair, one, other)
        if group and earlier and len(group) + len(earlier) > 2:  # noqa: PLR2004 - more than one pair
            total = _sum_volumes(group, earlier)
            if total is not None:
                yield pair.change(total.course, None, None, (total,), total_of=group[0])


def _compare_lesion(pair: _Pair, now: Finding | None, before: Finding | None) -> Change:
    if now is None or before is None:
        return pair.change(Course.NEW if before is None else Course.RESOLVED, now, before)
    sizes = change_sizes(now, before)
    return pair.change(judge(sizes), now, before, sizes)


def _sum_volumes(now: Sequence[Finding], before: Sequence[Finding]) -> SizeChange | None:
    """Return the volume of all lesions of a kind then and now; lesions may split and merge."""
    volumes = [[f.measured(Quantity.VOLUME) for f in group] for group in (now, before)]
    if any(volume is None for group in volumes for volume in group):
        return None
    sums = [sum(codes.value_in_ml(v) for v in group if v is not None) for group in volumes]
    return SizeChange(dimension=Dimension.VOLUME, before=sums[1], now=sums[0])


def _compare_labels(pair: _Pair) -> Iterator[Change]:
    """Yield what became of each label that both readings speak of and that is not absent in both."""
    earlier = [f for f in pair.before.findings if _is_label(f)]
    for now in pair.now.findings:
        if not _is_label(now):
            continue
        before = next((f for f in earlier if _is_same_label(now, f)), None)
        course = None if before is None else _judge_label(now, before)
        if course is not None:
            yield pair.change(course, now, before)


def _judge_label(now: Finding, before: Finding) -> Course | None:
    presences = (before.presence, now.presence)
    if Presence.PRESENT not in presences:
        return None
    if presences == (Presence.PRESENT, Presence.PRESENT):
        return Course.UNCHANGED
    if Presence.UNDETERMINED in presences or _is_within_noise(now, before):
        return Course.UNCERTAIN
    return Course.NEW if now.presence is Presence.PRESENT else Course.RESOLVED


def _is_within_noise(now: Finding, before: Finding) -> bool:
    if now.confidence is None or before.confidence is None:
        return False
    return abs(now.confidence - before.confidence) < LABEL_NOISE


def _is_label(finding: Finding) -> bool:
    return finding.box is None and not is_outlined(finding)


def _is_same_label(one: Finding, other: Finding) -> bool:
    is_same_kind = (one.concept, one.site) == (other.concept, other.site)
    return is_same_kind and is_same_side(one.laterality, other.laterality)


def _lesions(analysis: Analysis) -> list[Finding]:
    return [f for f in present(analysis.findings) if not _is_label(f) and not is_anatomy(f)]


def _roles(analysis: Analysis) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    return frozenset(item.role for item in analysis.inputs), frozenset(analysis.substitutions)


def _of(places: Mapping[str, Position], analysis: Analysis) -> dict[str, Position]:
    """Return the places of one analysis by finding id."""
    prefix = f"{analysis.model.name}/"
    return {name.removeprefix(prefix): place for name, place in places.items() if name.startswith(prefix)}


__all__ = [
    "LABEL_NOISE",
    "NOISE",
    "Change",
    "Comparison",
    "Course",
    "Dimension",
    "Position",
    "Prior",
    "SizeChange",
    "compare_with_prior",
    "describe_changes",
    "describe_no_change",
    "locate_findings",
]
