from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from reporting.times import study_started, write_date_and_time, write_date_time, zone_of

BERLIN = ZoneInfo("Europe/Berlin")


def header(day="20260702", clock="101500", offset=None):
    dataset = Dataset()
    dataset.StudyDate, dataset.StudyTime = day, clock
    if offset is not None:
        dataset.TimezoneOffsetFromUTC = offset
    return dataset


def test_the_sites_zone_is_the_rule_for_headers_without_an_offset():
    assert study_started(header(), BERLIN) == datetime(2026, 7, 2, 8, 15, tzinfo=UTC)


def test_the_headers_own_offset_wins():
    assert study_started(header(offset="-0500"), BERLIN) == datetime(2026, 7, 2, 15, 15, tzinfo=UTC)


@pytest.mark.parametrize("offset", ["", "UTC", "+9999", "0100"])
def test_a_nonsense_offset_is_ignored(offset):
    dataset = Dataset()
    dataset.TimezoneOffsetFromUTC = offset
    assert zone_of(dataset, BERLIN) is BERLIN


@pytest.mark.parametrize("clock", ["", "2515", "noon"])
def test_a_study_without_a_time_has_its_day(clock):
    dataset = Dataset()
    dataset.StudyDate = "20260702"
    dataset.add_new("StudyTime", "SH", clock)
    assert study_started(dataset, UTC) == date(2026, 7, 2)


@pytest.mark.parametrize("day", ["", "20261399", "yesterday"])
def test_a_study_without_a_day_has_no_start(day):
    dataset = Dataset()
    dataset.add_new("StudyDate", "SH", day)
    assert study_started(dataset, UTC) is None


@given(
    st.datetimes(
        min_value=datetime(1900, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    st.integers(-14 * 60, 14 * 60),
)
def test_what_is_written_is_read_back_to_the_second(instant, offset_minutes):
    zone = timezone(timedelta(minutes=offset_minutes))
    day, clock = write_date_and_time(instant, zone)
    assert study_started(header(day, clock), zone) == instant.replace(microsecond=0)


def test_date_time_names_its_offset():
    assert write_date_time(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)) == "20260102030405.000006+0000"
