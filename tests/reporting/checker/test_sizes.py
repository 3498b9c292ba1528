import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.findings import Quantity
from reporting.checker.sizes import find_size, is_total
from reporting.checker.statements import Axis, StatedSize
from reporting.draft import format_length, format_volume
from reporting.facts import Size


def length(value, quantity=Quantity.LONG_AXIS):
    return Size(quantity=quantity, value=value, unit="mm", text=format_length(value))


def volume(value):
    return Size(quantity=Quantity.VOLUME, value=value, unit="mL", text=format_volume(value))


def is_right(number, unit, size, axis=Axis.UNNAMED):
    return find_size(StatedSize(number=number, unit=unit, axis=axis), (size,)) is not None


@pytest.mark.parametrize(
    ("number", "unit", "value", "expected"),
    [
        ("34", "mm", 34.2, True),
        ("34.2", "mm", 34.2, True),
        ("3.4", "cm", 34.2, True),
        ("3.42", "cm", 34.2, True),
        ("34.0", "mm", 34.2, False),
        ("35", "mm", 34.2, False),
        ("3", "cm", 34.2, False),
        ("1", "cm", 12.4, False),
        ("1.2", "cm", 12.4, True),
        ("12", "mm", 12.4, True),
        ("12.0", "mm", 12.4, False),
        ("34", "mL", 34.2, False),
        ("34", "cm", 34.2, False),
    ],
)
def test_a_length_may_be_rounded_and_take_another_unit(number, unit, value, expected):
    assert is_right(number, unit, length(value)) is expected


@pytest.mark.parametrize(
    ("number", "unit", "value", "expected"),
    [
        ("12.3", "mL", 12.34, True),
        ("12.3", "cm3", 12.34, True),
        ("12", "mL", 12.34, True),
        ("12.34", "mL", 12.34, True),
        ("12.4", "mL", 12.34, False),
        ("10", "mL", 12.34, False),
        ("0.02", "mL", 0.024, True),
        ("24", "mm3", 0.024, True),
        ("20", "mm3", 0.024, False),
    ],
)
def test_a_volume_may_be_rounded_and_take_another_unit(number, unit, value, expected):
    assert is_right(number, unit, volume(value)) is expected


@settings(deadline=None)
@given(st.floats(1, 500), st.integers(0, 3))
def test_a_value_rounded_too_far_off_is_refused(value, decimals):
    number = f"{value:.{decimals}f}"
    size = length(value)
    if number != size.text.split()[0] and abs(float(number) - value) > 0.051 * value:
        assert not is_right(number, "mm", size)


@settings(deadline=None)
@given(st.floats(1, 500), st.sampled_from([0.8, 0.9, 1.1, 1.25, 10.0, 0.1]))
def test_a_number_off_by_a_tenth_is_refused(value, factor):
    size = length(value)
    number = f"{float(size.text.split()[0]) * factor:.1f}"
    if abs(float(number) - value) > 0.06 * value and float(number) != float(size.text.split()[0]):
        assert not is_right(number, "mm", size)


def test_a_bare_length_is_the_longest_diameter():
    across = length(21.4, Quantity.PERPENDICULAR_AXIS)
    assert not is_right("21", "mm", across)
    assert is_right("21", "mm", across, Axis.PERPENDICULAR)
    assert not is_right("21", "mm", across, Axis.LONG)


def test_a_total_is_the_sum_of_all():
    both = (volume(1.24), volume(0.203))
    assert is_total(StatedSize(number="1.4", unit="mL"), both)
    assert not is_total(StatedSize(number="1.2", unit="mL"), both)
