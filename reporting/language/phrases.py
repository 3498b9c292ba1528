"""Pure. The parts of a sentence about a fact: nouns with their articles, places, sizes, lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from inference.findings import Laterality, Quantity
from reporting.draft.words import join
from reporting.facts import Fact

_VOWELS: Final = frozenset("aeio")
_SIDES: Final = MappingProxyType({Laterality.LEFT: "left", Laterality.RIGHT: "right"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How one finding is put into a sentence.

    Attributes
    ----------
    one, many : str
        In the singular and the plural, without an article.
    bare : str
        After "No": without "sign of".
    is_counted : bool
        Whether it takes an article and a plural.
    """

    one: str
    many: str
    bare: str
    is_counted: bool = True

    def named(self, *adjectives: str, many: bool = False) -> str:
        """Return the noun phrase: ``a possible nodule``, ``possible nodules``, ``possible cardiomegaly``."""
        words = " ".join([*(word for word in adjectives if word), self.many if many else self.one])
        if many or not self.is_counted:
            return words
        return f"{'an' if words[0] in _VOWELS else 'a'} {words}"


def _counted(noun: str, many: str | None = None) -> Form:
    return Form(one=noun, many=many or f"{noun}s", bare=noun)


def _mass(noun: str) -> Form:
    return Form(one=noun, many=noun, bare=noun, is_counted=False)


def _signs(noun: str) -> Form:
    return Form(one=f"signs of {noun}", many=f"signs of {noun}", bare=noun, is_counted=False)


#: By the noun of ``codes.py``, for those whose forms do not follow from it.
_FORMS: Final = MappingProxyType(
    {
        "FLAIR signal abnormality": _counted("FLAIR signal abnormality", "FLAIR signal abnormalities"),
        "lesion like a tumour": _counted("lesion like a tumour", "lesions like a tumour"),
        "aortic enlargement": _mass("aortic enlargement"),
        "atelectasis": _mass("atelectasis"),
        "cardiomegaly": _mass("cardiomegaly"),
        "consolidation": _mass("consolidation"),
        "lung opacity": _counted("lung opacity", "lung opacities"),
        "mass": _counted("mass", "masses"),
        "nodule or mass": _counted("nodule or mass", "nodules or masses"),
        "opacity like pneumonia": _counted("opacity like pneumonia", "opacities like pneumonia"),
        "pneumothorax": _counted("pneumothorax", "pneumothoraces"),
        "pleural thickening": _mass("pleural thickening"),
    }
)
_SIGN_OF: Final = "sign of "


def form_of(fact: Fact) -> Form:
    """Return how a fact's finding is put into a sentence."""
    if fact.noun.startswith(_SIGN_OF):
        return _signs(fact.noun.removeprefix(_SIGN_OF))
    return _FORMS.get(fact.noun) or _counted(fact.noun)


def verb_be(form: Form, *, many: bool = False) -> str:
    """Return is or are."""
    return "are" if (many and form.is_counted) or form.one.startswith("signs of") else "is"


def place_of(fact: Fact, random: Random) -> str:
    """Return where a present fact lies, ``in the right lung, upper zone``; empty where nobody says.

    The side of a mark over the heart, the aorta or the mediastinum is left out, as in the draft.
    """
    places = {"lung": _in_lung, "pleura": _in_pleura, "thorax": _in_chest}.get(fact.site)
    if places is not None:
        return random.choice(places(fact))
    if fact.site in {"brain", "head"}:
        return random.choice(_in_head(fact))
    return ""


def side_adjective(fact: Fact) -> str:
    """Return the side before the noun, for what the pleura has: ``left``, ``bilateral``."""
    if fact.site != "pleura" or fact.side is None:
        return ""
    return _SIDES.get(fact.side, "bilateral")


def zone_of(fact: Fact) -> str:
    """Return the zone alone, for a sentence that has the side already."""
    return "" if fact.zone is None else f"in the {fact.zone.value} zone"


def join_places(places: Sequence[str]) -> str:
    """Return distinct places in a row."""
    distinct = list(dict.fromkeys(place for place in places if place))
    return distinct[0] if len(distinct) == 1 else ", ".join(distinct[:-1]) + ", and " + distinct[-1]


def sizes_of(fact: Fact, random: Random) -> str:
    """Return the sizes as the end of a sentence, with its comma or space before; empty if there are none."""
    texts = {size.quantity: size.text for size in fact.sizes}
    volume, area = texts.get(Quantity.VOLUME), texts.get(Quantity.AREA)
    long_axis, across = texts.get(Quantity.LONG_AXIS), texts.get(Quantity.PERPENDICULAR_AXIS)
    with_words, in_words = [], []
    if volume:
        with_words.append(f"a volume of {volume}")
        in_words.append(f"{volume} in volume")
    if area:
        with_words.append(f"an area of {area}")
        in_words.append(f"{area} in area")
    if long_axis and across:
        with_words.append(f"diameters of {long_axis} x {across}")
        in_words.append(f"{long_axis} x {across} in its longest and perpendicular diameters")
    elif long_axis:
        with_words.append(f"a longest diameter of {long_axis}")
        in_words.append(f"{long_axis} in its longest diameter")
    if not in_words:
        return ""
    return random.choice(
        (f" with {join(with_words)}", f", measuring {join(in_words)}", f", {join(in_words)}")
    )


def short_size_of(fact: Fact) -> str:
    """Return the first size alone, for the impression: ``, 12.3 mL``."""
    return f", {fact.sizes[0].text}" if fact.sizes else ""


def either(parts: Sequence[str]) -> str:
    """Return a list with "or"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def _in_lung(fact: Fact) -> tuple[str, ...]:
    zone = fact.zone.value if fact.zone else ""
    if fact.side is Laterality.BILATERAL:
        return (f"in the {zone} zones of both lungs", f"in both {zone} zones") if zone else ("in both lungs",)
    if fact.side is None:
        return (f"in the {zone} zone of the lung",) if zone else ("",)
    side = _SIDES[fact.side]
    if not zone:
        return (f"in the {side} lung",)
    return (
        f"in the {side} {zone} zone",
        f"in the {zone} zone of the {side} lung",
        f"in the {side} lung, {zone} zone",
    )


def _in_pleura(fact: Fact) -> tuple[str, ...]:
    zone = f", {fact.zone.value} zone" if fact.zone else ""
    if fact.side is None:
        return (zone_of(fact),)
    if fact.side is Laterality.BILATERAL:
        return (f"on both sides{zone}",)
    side = _SIDES[fact.side]
    return (f"on the {side}{zone}", f"in the {side} pleural space{zone}")


def _in_chest(fact: Fact) -> tuple[str, ...]:
    zone = f", {fact.zone.value} zone" if fact.zone else ""
    if fact.side is None:
        return (zone_of(fact),)
    if fact.side is Laterality.BILATERAL:
        return (f"on both sides of the chest{zone}",)
    return (f"on the {_SIDES[fact.side]} side of the chest{zone}",)


def _in_head(fact: Fact) -> tuple[str, ...]:
    if fact.side is None:
        return (f"in the {fact.site_noun}", "") if not fact.sizes else (f"in the {fact.site_noun}",)
    if fact.side is Laterality.BILATERAL:
        return (f"on both sides of the {fact.site_noun}",)
    return (f"on the {_SIDES[fact.side]} side of the {fact.site_noun}",)
