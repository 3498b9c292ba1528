"""Pure. Whether a stated number is a measured one: units and rounding.

The rule: in the unit in which it is stated, the number equals the measured value (or the value as the
draft writes it) rounded at the decimals that are stated, and it is no further from it than a twentieth,
unless it is as the draft writes it. 34 mm may be 3.4 cm, 12.34 mL may be 12 mL; 12 mm is not 1 cm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from inference.findings import Quantity
from reporting.checker.statements import Axis, StatedSize
from reporting.facts import Size

#: Dimension of each unit, and its size in the unit in which facts are held (mL, mm, mm2).
_UNITS: Final = {
    "mm": ("length", 1.0),
    "cm": ("length", 10.0),
    "mm2": ("area", 1.0),
    "cm2": ("area", 100.0),
    "mL": ("volume", 1.0),
    "cm3": ("volume", 1.0),
    "mm3": ("volume", 0.001),
}
_DIMENSIONS: Final = {
    Quantity.VOLUME: "volume",
    Quantity.AREA: "area",
    Quantity.LONG_AXIS: "length",
    Quantity.PERPENDICULAR_AXIS: "length",
}
_AXES: Final = {
    Quantity.VOLUME: Axis.VOLUME,
    Quantity.AREA: Axis.AREA,
    Quantity.LONG_AXIS: Axis.LONG,
    Quantity.PERPENDICULAR_AXIS: Axis.PERPENDICULAR,
}
#: How far rounding may take a number from what was measured, as a share of it.
_COARSEST: Final = 0.05
_EPSILON: Final = 1e-9


def find_size(stated: StatedSize, sizes: Sequence[Size]) -> Size | None:
    """Return the measured size that a stated one is; an unnamed length is the longest diameter."""
    return next((size for size in sizes if _fits(stated, size) and is_value(stated, size)), None)


def is_value(stated: StatedSize, size: Size) -> bool:
    """Say whether a stated number is a size's value, rounded as it may be."""
    dimension, factor = _UNITS[stated.unit]
    if dimension != _DIMENSIONS[size.quantity]:
        return False
    number, unit = size.text.split()
    written = float(number) * _UNITS[unit][1] / factor
    is_as_written = _step(stated.number) * factor >= _step(number) * _UNITS[unit][1] - _EPSILON
    return _is_rounded(stated, size.value / factor, written if is_as_written else None)


def is_total(stated: StatedSize, sizes: Sequence[Size]) -> bool:
    """Say whether a stated number is the sum of measured sizes."""
    dimension, factor = _UNITS[stated.unit]
    if not sizes or any(_DIMENSIONS[size.quantity] != dimension for size in sizes):
        return False
    total = sum(size.value for size in sizes) / factor
    return _is_rounded(stated, total, total, coarsest=math.inf if factor * total < 1 else _COARSEST)


def has_wrong_unit(stated: StatedSize, sizes: Sequence[Size]) -> bool:
    """Say whether a number would be right in another unit."""
    return any(
        find_size(StatedSize(number=stated.number, unit=unit, axis=axis), sizes) is not None
        for unit in _UNITS
        for axis in (stated.axis, *_AXES.values())
        if unit != stated.unit
    )


def _fits(stated: StatedSize, size: Size) -> bool:
    axis = _AXES[size.quantity]
    if stated.axis is Axis.UNNAMED:
        return axis is not Axis.PERPENDICULAR
    return stated.axis is axis


def _step(number: str) -> float:
    """Return the last place that a number gives: 0.1 for 12.3."""
    return float(10.0 ** -len(number.partition(".")[2]))


def _is_rounded(stated: StatedSize, value: float, written: float | None, coarsest: float = _COARSEST) -> bool:
    number = float(stated.number)
    half = 0.5 * _step(stated.number) + _EPSILON
    if written is not None and abs(number - written) <= _EPSILON:
        return True
    if abs(number - value) > coarsest * abs(value) + _EPSILON:
        return False
    return abs(number - value) <= half or (written is not None and abs(number - written) <= half)
