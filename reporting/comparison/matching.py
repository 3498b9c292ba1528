"""Pure. Which lesion of an earlier reading is which lesion of this one.

The images of two studies are not registered to each other. Lesions of one kind are paired by
side, then by place as far as it is known, measured from the middle of the images, and by size;
as many as possible, at the least difference in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from inference.findings import Finding, Laterality
from reporting.comparison.changes import measure

#: (left, posterior, head) of the middle of the images, mm; of a radiograph at a nominal width, without depth.
Position: TypeAlias = tuple[float, float, float]

#: Farther apart than this two outlines are two lesions, whatever their size. Heads lie in the field of view
#: with a spread of a few centimetres, and a lesion that grows moves its middle: this project's choice.
MATCH_WITHIN_MM: Final = 40.0
#: A lesion four times as large differs as much as one at the edge of the allowed distance.
_SIZE_STEP: Final = float(np.log(4.0))
#: More than all differences of a pairing together: pairs are never given up for a nearer one.
_FORBIDDEN: Final = 1e6


def pair_findings(
    now: Sequence[Finding],
    before: Sequence[Finding],
    places: Mapping[str, Position],
    prior_places: Mapping[str, Position],
) -> list[tuple[Finding | None, Finding | None]]:
    """Return the findings of two readings in pairs, those of now first and in their order.

    Parameters
    ----------
    now, before : sequence of Finding
        Of one kind.
    places, prior_places : mapping of str to Position
        Where findings lie, by finding id; those that are missing are paired by side and size.

    Returns
    -------
    list of pairs
        Each finding once; None where it has no partner.
    """
    from scipy.optimize import linear_sum_assignment

    partners: dict[int, int] = {}
    if now and before:
        costs = np.array(
            [
                [_difference(n, b, places.get(n.finding_id), prior_places.get(b.finding_id)) for b in before]
                for n in now
            ]
        )
        rows, columns = linear_sum_assignment(costs)
        partners = {
            int(row): int(column)
            for row, column in zip(rows, columns, strict=True)
            if costs[row, column] < _FORBIDDEN
        }
    taken = set(partners.values())
    pairs: list[tuple[Finding | None, Finding | None]] = [
        (finding, before[partners[index]] if index in partners else None) for index, finding in enumerate(now)
    ]
    return pairs + [(None, finding) for index, finding in enumerate(before) if index not in taken]


def is_same_side(one: Laterality | None, other: Laterality | None) -> bool:
    """Say whether two sides may be one: equal, unknown, or one of them both."""
    return one is None or other is None or one is other or Laterality.BILATERAL in {one, other}


def _difference(now: Finding, before: Finding, place: Position | None, prior: Position | None) -> float:
    """Return how unlike two findings are; squared, so that the best pairing is unique."""
    if not is_same_side(now.laterality, before.laterality):
        return _FORBIDDEN
    difference = 0.0
    if place is not None and prior is not None:
        distance = float(np.linalg.norm(_as_array(place) - _as_array(prior)))
        if distance > MATCH_WITHIN_MM:
            return _FORBIDDEN
        difference += (distance / MATCH_WITHIN_MM) ** 2
    sizes, earlier = measure(now), measure(before)
    shared = next((d for d in sizes if d in earlier and min(sizes[d], earlier[d]) > 0), None)
    if shared is not None:
        difference += float(np.log(sizes[shared] / earlier[shared]) / _SIZE_STEP) ** 2
    return difference


def _as_array(place: Position) -> npt.NDArray[np.float64]:
    return np.asarray(place, np.float64)
