"""Pure. The comparison section of the draft: what changed since an earlier study, in sentences.

It counts days and names no date: the text is also given to language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from inference.findings import Finding, Presence
from reporting import codes
from reporting.comparison.changes import NOISE, Change, Course, Dimension, SizeChange
from reporting.draft.kinds import is_outlined
from reporting.draft.words import (
    capitalise,
    count,
    describe_place,
    describe_side,
    describe_sizes,
    format_area,
    format_length,
    format_volume,
    join,
)
from reporting.projection import Views
from reporting.safety import format_probability
from reporting.text import Sentence

_NO_VIEWS: Final[Views] = MappingProxyType({})
_VERBS: Final = {Course.INCREASED: "grew", Course.DECREASED: "shrank"}
_NOUNS: Final = {
    Dimension.VOLUME: "its volume",
    Dimension.PRODUCT: "the product of its diameters",
    Dimension.AREA: "its area",
    Dimension.LONG_AXIS: "its longest diameter",
    Dimension.PERPENDICULAR_AXIS: "its perpendicular diameter",
}
_FORMATS: Final = {
    Dimension.VOLUME: format_volume,
    Dimension.PRODUCT: format_area,
    Dimension.AREA: format_area,
    Dimension.LONG_AXIS: format_length,
    Dimension.PERPENDICULAR_AXIS: format_length,
}
_VERSIONS: Final = (
    "The earlier study was read by version {before} of the algorithm {name} and this one by version {now}: "
    "part of a difference can come from that."
)
_WEIGHTS: Final = (
    "The two studies were read with different weights of the algorithm {name}: "
    "part of a difference can come from that."
)
_INPUTS: Final = (
    "The algorithm {name} did not read the same kinds of series in the two studies: "
    "part of a difference can come from that."
)
_DOUBTS: Final = (
    "At least one of the two readings by the algorithm {name} must be doubted, and so the comparison."
)


def describe_changes(changes: Sequence[Change], views: Views = _NO_VIEWS) -> tuple[Sentence, ...]:
    """Return what changed in sentences.

    Parameters
    ----------
    changes : sequence of Change
        Of one or several priors, those of one prior in a row.
    views : mapping of FrameReference to RadiographView
        How this study's radiographs show the patient.

    Returns
    -------
    tuple of Sentence
        Each names the finding of this study that it rests on; what is gone, the totals and the method name
        none. Empty without changes.
    """
    sentences: list[Sentence] = []
    days: int | None = None
    for change in changes:
        first, *further = _describe(change, views)
        lead = capitalise(first) if change.days == days else f"{_compared_with(change.days)}: {first}"
        days = change.days
        text = " ".join([lead, *further])
        sentences.append(Sentence(text=text, finding_ids=change.finding_ids))
    sentences += [Sentence(text=text) for text in _cautions(changes)]
    return tuple(sentences)


def describe_no_change(days: int) -> tuple[Sentence, ...]:
    """Return the sentence for an earlier study that has nothing to compare with this one."""
    text = f"{_compared_with(days)}: there is no finding in either that can be compared."
    return (Sentence(text=text),)


def format_size(dimension: Dimension, value: float) -> str:
    """Return a size with its unit, as text reads it."""
    return _FORMATS[dimension](value)


def format_percent(size: SizeChange) -> str:
    """Return how much a size changed in percent of what it was, with its sign."""
    if size.percent is None:
        return "from nothing"
    rounded = round(size.percent)
    return f"{rounded:+d} %" if rounded else "0 %"


def _compared_with(days: int) -> str:
    if days == 0:
        return "Compared with the earlier study of the same day"
    return f"Compared with the study of {count(days, 'day')} earlier"


def _describe(change: Change, views: Views) -> list[str]:
    if change.is_total:
        return [_describe_total(change)]
    one = change.now or change.before
    assert one is not None
    if one.box is None and not is_outlined(one):
        return [_describe_label(change)]
    if change.now is None or change.before is None:
        return [_describe_one_sided(change, one, views)]
    return _describe_both(change, change.now, views)


def _describe_total(change: Change) -> str:
    (size,) = change.sizes
    noun, site = codes.code_finding(change.concept).noun, codes.code_site(change.site).noun
    what = f"the total volume of every {noun} of the {site}"
    if change.course is Course.UNCHANGED:
        return f"{what} is unchanged within the uncertainty of measurement: {_now_and_then(size)}."
    return f"{what} {_VERBS[change.course]} {_from_to(size)}."


def _describe_one_sided(change: Change, one: Finding, views: Views) -> str:
    verb = "marked" if one.box is not None else "outlined"
    sizes = describe_sizes(one)
    stated = f" ({sizes[0]})" if sizes else ""
    place = describe_place(one, views) if one.box is not None else describe_side(one)
    noun = codes.code_finding(one.concept).noun
    if change.course is Course.NEW:
        return f"the {noun} {place}{stated} was not {verb} then: it may be new."
    return f"the {noun} {verb} then {place}{stated} is not {verb} now."


def _describe_both(change: Change, now: Finding, views: Views) -> list[str]:
    noun = codes.code_finding(now.concept).noun
    place = describe_place(now, views) if now.box is not None else describe_side(now)
    what = f"the {noun} {place}"
    if not change.sizes:
        return [
            f"{what} was {'marked' if now.box is not None else 'outlined'} then too; sizes are not compared."
        ]
    deciding, *others = change.sizes
    if change.course is Course.UNCERTAIN:
        stated = join([f"{_NOUNS[size.dimension]} {_from_to(size)}" for size in change.sizes])
        return [f"whether {what} changed cannot be said, because its measures disagree: {stated}."]
    if change.course is Course.UNCHANGED:
        first = f"{what} is unchanged within the uncertainty of measurement: {_now_and_then(deciding)}."
    else:
        first = f"{what} {_VERBS[change.course]} {_from_to(deciding)}."
    if not others:
        return [first]
    stated = join([f"{_NOUNS[size.dimension]} went {_from_to(size)}" for size in others[:2]])
    return [first, f"{capitalise(stated)}."]


def _describe_label(change: Change) -> str:
    now, before = change.now, change.before
    assert now is not None
    assert before is not None
    noun = codes.code_finding(change.concept).noun
    odds = _odds(before, now)
    if change.course is Course.UNCHANGED:
        return f"{noun} is called present again{odds}."
    if change.course is Course.NEW:
        return f"{noun} is called present now and was called absent then{odds}: it may be new."
    if change.course is Course.RESOLVED:
        return f"{noun} was called present then and is called absent now{odds}."
    what = "new" if now.presence is Presence.PRESENT else "gone"
    return f"whether {noun} is {what} cannot be said{odds}."


def _odds(before: Finding, now: Finding) -> str:
    if before.confidence is None or now.confidence is None:
        return ""
    then = format_probability(before.confidence)
    return f" (probability {then} then, {format_probability(now.confidence)} now)"


def _from_to(size: SizeChange) -> str:
    before, now = (format_size(size.dimension, value) for value in (size.before, size.now))
    return f"from {before} to {now} ({format_percent(size)})"


def _now_and_then(size: SizeChange) -> str:
    before, now = (format_size(size.dimension, value) for value in (size.before, size.now))
    return f"{now} now, {before} then ({format_percent(size)})"


def _cautions(changes: Sequence[Change]) -> list[str]:
    """Return what weakens the comparison, and what counts as a change, each once."""
    cautions = []
    for change in changes:
        name = change.model.name
        if change.model.version != change.prior_model.version:
            cautions.append(
                _VERSIONS.format(before=change.prior_model.version, name=name, now=change.model.version)
            )
        elif not change.is_same_version:
            cautions.append(_WEIGHTS.format(name=name))
        if not change.is_same_input:
            cautions.append(_INPUTS.format(name=name))
        if change.is_doubted:
            cautions.append(_DOUBTS.format(name=name))
    if any(change.sizes for change in changes):
        cautions.append(_METHOD)
    return list(dict.fromkeys(cautions))


def _rise(dimension: Dimension) -> str:
    return f"{100 * (NOISE[dimension].ratio - 1):.0f} %"


_METHOD: Final = (
    f"Counted as a change are at least {_rise(Dimension.VOLUME)} more in volume, "
    f"{_rise(Dimension.PRODUCT)} in a product of diameters or an area, and "
    f"{_rise(Dimension.LONG_AXIS)} and {NOISE[Dimension.LONG_AXIS].floor:.0f} mm in a diameter, "
    "or a decrease by the same factor; the images of the two studies were not laid over each other."
)
