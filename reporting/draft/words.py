"""Pure. The words that sentences of the draft are made of: numbers, lists, series, places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from inference.findings import Finding, Laterality, Measurement, Quantity
from reporting import codes
from reporting.projection import Place, Views, locate

_SIDES: Final = {Laterality.LEFT: "left", Laterality.RIGHT: "right"}
#: How series roles of the model cards are written in a sentence.
_ROLES: Final = {
    "flair": "FLAIR",
    "t1": "T1-weighted",
    "t1_pre": "T1-weighted",
    "t1_post": "contrast-enhanced T1-weighted",
    "t1ce": "contrast-enhanced T1-weighted",
    "t2": "T2-weighted",
    "pre": "pre-contrast T1-weighted",
    "post": "post-contrast T1-weighted",
    "ct": "CT",
    "mr": "MR",
    "mri": "MR",
}
_RADIOGRAPH_ROLES: Final = frozenset({"radiograph", "radiographs", "chest", "cxr", "image", "xray"})
_NUMBER_WORDS: Final = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
_MM2_PER_CM2: Final = 100
#: Sites that have a side of their own; a mark elsewhere is said to be at the site alone.
_SIDED_SITES: Final = {"lung": "lung", "pleura": "pleural space", "thorax": "side of the chest"}


def format_volume(volume_ml: float) -> str:
    """Return a volume as text reads it: two decimals below 1 mL, else one."""
    return f"{volume_ml:.2f} mL" if round(volume_ml, 2) < 1 else f"{volume_ml:.1f} mL"


def format_length(length_mm: float) -> str:
    """Return a length as text reads it: whole millimetres from 10 mm, one decimal below."""
    return f"{length_mm:.1f} mm" if round(length_mm, 1) < 10 else f"{length_mm:.0f} mm"  # noqa: PLR2004


def format_area(area_mm2: float) -> str:
    """Return an area as text reads it: in mm2 below 1 cm2, else in cm2 with one decimal."""
    return f"{area_mm2:.0f} mm2" if area_mm2 < _MM2_PER_CM2 else f"{area_mm2 / _MM2_PER_CM2:.1f} cm2"


def name_series(role: str) -> str:
    """Return the series of a role, with its article."""
    if role in _RADIOGRAPH_ROLES:
        return "the radiograph series"
    return f"the {_ROLES.get(role, role.replace('_', ' '))} series"


def describe_sizes(finding: Finding) -> list[str]:
    """Return the sizes of a finding, each to follow «It measures»."""
    sizes = []
    volume, area = finding.measured(Quantity.VOLUME), finding.measured(Quantity.AREA)
    if volume is not None:
        sizes.append(f"{format_volume(codes.value_in_ml(volume))} in volume")
    if area is not None:
        sizes.append(f"{format_area(codes.value_in_mm2(area))} in area")
    long_axis = finding.measured(Quantity.LONG_AXIS)
    perpendicular = finding.measured(Quantity.PERPENDICULAR_AXIS)
    if long_axis is not None and perpendicular is not None:
        pair = (_length(long_axis), _length(perpendicular))
        sizes.append(f"{pair[0]} x {pair[1]} in its longest and perpendicular diameters")
    elif long_axis is not None:
        sizes.append(f"{_length(long_axis)} in its longest diameter")
    return sizes


def describe_side(finding: Finding) -> str:
    """Return where an outlined finding is: its site, and the side of it."""
    site = codes.code_site(finding.site).noun
    if finding.laterality is None:
        return f"in the {site}"
    if finding.laterality is Laterality.BILATERAL:
        return f"on both sides of the {site}"
    return f"on the {_SIDES[finding.laterality]} side of the {site}"


def describe_place(finding: Finding, views: Views) -> str:
    """Return where a marked finding is: side and zone for lung and pleura, else the site alone.

    The model's own word for the side stands before that of the position in the image.
    """
    place = locate(finding.box, views) if finding.box is not None else Place()
    side = finding.laterality or place.side
    noun = _SIDED_SITES.get(finding.site)
    if noun is None:
        return f"over the {codes.code_site(finding.site).noun}"
    zone = "" if place.zone is None else f", {place.zone.value} zone"
    if side is None:
        return f"over the {codes.code_site(finding.site).noun}{zone}"
    if side is Laterality.BILATERAL:
        return f"over both sides{zone}"
    return f"over the {_SIDES[side]} {noun}{zone}"


def has_sides(site: str) -> bool:
    """Say whether a mark at a site is told with its side and zone in the image."""
    return site in _SIDED_SITES


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it needs one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def join(parts: Sequence[str]) -> str:
    """Return a list as a sentence has it."""
    if len(parts) <= 1:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def plural(noun: str) -> str:
    """Return the plural of a finding: «signs of fibrosis», «nodules or masses»."""
    for tail in (" or ", " of ", " like "):
        head, joint, rest = noun.partition(tail)
        if joint:
            return f"{plural(head)}{joint}{plural(rest) if tail == ' or ' else rest}"
    if noun.endswith("y"):
        return f"{noun.removesuffix('y')}ies"
    if noun.endswith("sis"):
        return f"{noun.removesuffix('is')}es"
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def number_word(number: int) -> str:
    """Return a number as the first word of a sentence."""
    return _NUMBER_WORDS[number] if number < len(_NUMBER_WORDS) else str(number)


def capitalise(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def end_sentence(text: str) -> str:
    """Return a text with a full stop, unless it has an end already."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _length(measurement: Measurement) -> str:
    return format_length(codes.value_in_mm(measurement))
