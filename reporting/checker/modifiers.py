"""Pure. What stands around a finding in a clause: places, sizes, counts, figures of confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inference.findings import Laterality
from reporting.checker.clauses import is_connector
from reporting.checker.items import Item
from reporting.checker.lexicon import Form, Part
from reporting.checker.statements import Axis, StatedPlace, StatedSize
from reporting.projection import Zone

_AXES: Final = {
    "volume": Axis.VOLUME,
    "area": Axis.AREA,
    "long_axis": Axis.LONG,
    "perpendicular_axis": Axis.PERPENDICULAR,
}
_LINKS: Final = frozenset({Part.FILLER, Part.FINITE, Part.ARTICLE, Part.QUANTITY, Part.PRONOUN})
_DIAMETERS: Final = frozenset({"diameters", "axes", "dimensions"})
_FIGURES: Final = frozenset({"probability", "confidence"})
_PLACE_WORDS: Final = frozenset({"place", "places", "position", "positions"})
_PLACING: Final = frozenset(
    {"in", "on", "at", "over", "within", "inside", "onto", "the other in", "the other on"}
)
_FIGURE_REACH: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers of a run of items.

    Attributes
    ----------
    stray : int
        How many belong to nothing.
    """

    sizes: tuple[StatedSize, ...] = ()
    count: int | None = None
    probability: str | None = None
    stray: int = 0


def read_places(items: Sequence[Item]) -> tuple[StatedPlace, ...]:
    """Return the places that items name, in order: a second side, site or zone begins a second place."""
    places: list[dict[Part, str]] = [{}]
    for index, item in enumerate(items):
        if item.part is Part.CONNECTOR and places[-1] and items[index + 1 : index + 2]:
            is_new = items[index + 1].text in _PLACING
            places += [{}] if is_new else []
        if item.part not in {Part.SIDE, Part.SITE, Part.ZONE}:
            continue
        known = places[-1].get(item.part)
        if known is not None and not (item.part is Part.SITE and known == item.value):
            places.append({})
        places[-1][item.part] = item.value
    found = [place for place in places if place]
    sides = {place[Part.SIDE] for place in found if Part.SIDE in place}
    common = sides.pop() if len(sides) == 1 else None
    return tuple(
        StatedPlace(
            side=_side(place.get(Part.SIDE, None if Part.SITE in place else common)),
            site=place.get(Part.SITE),
            zone=Zone(place[Part.ZONE]) if Part.ZONE in place else None,
        )
        for place in found
    )


def read_numbers(items: Sequence[Item]) -> Numbers:
    """Return what the numbers of a run of items are: sizes, a count, a figure of confidence."""
    sizes: list[StatedSize] = []
    count, probability, stray = None, None, 0
    index = 0
    while index < len(items):
        item = items[index]
        is_of_algorithms = index + 1 < len(items) and items[index + 1].part is Part.ALGORITHM
        if item.part is Part.COUNT and is_of_algorithms:
            pass  # «two algorithms»: reporting/checker/checking.py
        elif item.part is Part.COUNT:
            count, stray = (int(item.value), stray) if count is None else (count, stray + 1)
        elif item.part is Part.NUMBER:
            figure = _figure(items, index)
            found, length = _read_size(items, index)
            if found:
                sizes += found
                index += length
                continue
            if figure is not None and probability is None:
                probability = figure
            elif count is None and item.value.isdigit() and _is_count(items, index):
                count = int(item.value)
            else:
                stray += 1
        index += 1
    return Numbers(sizes=tuple(sizes), count=count, probability=probability, stray=stray)


def _side(value: str | None) -> Laterality | None:
    return None if value is None else Laterality(value)


def _figure(items: Sequence[Item], index: int) -> str | None:
    before = " ".join(item.text for item in items[max(0, index - _FIGURE_REACH) : index]).split()
    if not _FIGURES.intersection(before):
        return None
    word = before[-1] if before[-1] in {"above", "below"} else ""
    is_percent = index + 1 < len(items) and items[index + 1].text == "%"
    return f"{word} {items[index].value}{'%' if is_percent else ''}".strip()


def _is_count(items: Sequence[Item], index: int) -> bool:
    """Say whether a whole number counts what follows it: «2 right nodules», «in 2 places»."""
    for item in items[index + 1 :]:
        if item.part is Part.CONCEPT:
            return item.entry.form is Form.MANY or item.entry.form is Form.ONE
        if item.text in _PLACE_WORDS or item.part is Part.GENERIC:
            return True
        if item.part not in {Part.SIDE, Part.SITE, Part.ZONE, Part.CERTAINTY}:
            return False
    return False


def _read_size(items: Sequence[Item], start: int) -> tuple[list[StatedSize], int]:
    """Return the length or the product of lengths that begins at a number, and how many items it takes."""
    numbers: list[tuple[str, str | None]] = []
    index = start
    while index < len(items) and items[index].part is Part.NUMBER:
        number, unit = items[index].value, None
        index += 1
        if index < len(items) and items[index].part is Part.UNIT:
            unit = items[index].value
            index += 1
        numbers.append((number, unit))
        is_product = index + 1 < len(items) and (
            items[index].part is Part.TIMES or (items[index].text == "and" and _is_of_diameters(items, start))
        )
        if not is_product or items[index + 1].part is not Part.NUMBER:
            break
        index += 1
    last = numbers[-1][1]
    if last is None:
        return [], 0
    if len(numbers) == 1:
        axis, is_total = _axis_around(items, start, index)
        return [StatedSize(number=numbers[0][0], unit=last, axis=axis, is_total=is_total)], index - start
    axes = (Axis.LONG, Axis.PERPENDICULAR, *([Axis.AREA] * len(numbers)))
    sizes = [
        StatedSize(number=number, unit=unit or last, axis=axis)
        for (number, unit), axis in zip(numbers, axes, strict=False)
    ]
    return sizes, index - start


def _is_of_diameters(items: Sequence[Item], start: int) -> bool:
    """Say whether a number begins the two diameters of one finding: «diameters of 34 mm and 21 mm»."""
    before = [item.text for item in items[max(0, start - 2) : start]]
    is_several = any(item.part is Part.CONCEPT and item.entry.form is Form.MANY for item in items)
    return not is_several and not _DIAMETERS.isdisjoint(before)


def _axis_around(items: Sequence[Item], start: int, stop: int) -> tuple[Axis, bool]:
    """Return which quantity the words next to a number name, and whether they say that it is a total."""
    before: list[str] = []
    for item in reversed(items[:start]):
        is_link = item.part in _LINKS or item.text == ":"
        if not is_link:
            break
        if item.part is Part.QUANTITY:
            before.append(item.value)
    after: list[str] = []
    for item in items[stop:]:
        if item.part not in _LINKS or is_connector(item):
            break
        if item.part is Part.QUANTITY:
            after.append(item.value)
    named = [value for value in (*before[:3], *after) if value in _AXES]
    is_total = "total" in before or "total" in after
    return (_AXES[named[0]] if named else Axis.UNNAMED), is_total
