"""Pure. Dates and times of DICOM headers as instants, and instants as DICOM values.

DICOM writes local times. They are in the zone of Timezone Offset From UTC
(0008,0201) when the header has one, else in the zone of the site: that rule lives
here and nowhere else. What cannot be read is None, never a guess.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo

from pydicom.dataset import Dataset

_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
_TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(?:\.(\d{1,6}))?")


def zone_of(header: Dataset, site_timezone: tzinfo) -> tzinfo:
    """Return the zone in which the dates and times of a header are written.

    Parameters
    ----------
    header : Dataset
        Any object of the study.
    site_timezone : tzinfo
        Zone of the site, for headers without Timezone Offset From UTC.

    References
    ----------
    PS3.3 C.12.1.1.8.
    """
    match = _OFFSET.fullmatch(str(header.get("TimezoneOffsetFromUTC") or "").strip())
    if match is None:
        return site_timezone
    sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    if offset >= timedelta(days=1):
        return site_timezone
    return timezone(-offset if sign == "-" else offset)


def study_started(header: Dataset, site_timezone: tzinfo) -> datetime | date | None:
    """Return when a study started: an aware UTC time, or its date alone if there is no time.

    Parameters
    ----------
    header : Dataset
        Any object of the study, with Study Date and Study Time.
    site_timezone : tzinfo
        See `zone_of`.

    Returns
    -------
    datetime or date or None
        Whole seconds; None if Study Date is missing or no date.
    """
    day = _parse_date(str(header.get("StudyDate") or ""))
    if day is None:
        return None
    clock = _parse_time(str(header.get("StudyTime") or ""))
    if clock is None:
        return day
    local = datetime.combine(day, clock, zone_of(header, site_timezone))
    try:
        return local.astimezone(UTC)
    except OverflowError:
        return day


def write_date_and_time(instant: datetime, zone: tzinfo) -> tuple[str, str]:
    """Return an instant as DICOM DA and TM in ``zone``, to the microsecond."""
    local = instant.astimezone(zone)
    return local.strftime("%Y%m%d"), local.strftime("%H%M%S.%f")


def write_date_time(instant: datetime) -> str:
    """Return an instant as DICOM DT in UTC with its offset."""
    return instant.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def _parse_date(text: str) -> date | None:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return date(*(int(part) for part in match.groups()))
    except ValueError:
        return None


def _parse_time(text: str) -> time | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, second, _ = match.groups()
    try:
        return time(int(hour), int(minute or 0), int(second or 0))
    except ValueError:
        return None
