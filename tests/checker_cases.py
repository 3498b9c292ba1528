"""Hand-written cases for the text checker: ``tests/reporting/checker/cases/``.

A case is one change to a faithful text about a study: its sentences stand in for those of the
study's text that cite nothing but the same facts in the same section.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from inference.findings import Laterality, Presence, Quantity
from reporting import codes
from reporting.draft.words import format_area, format_length, format_volume
from reporting.facts import Certainty, Fact, FactKind, Facts, Size
from reporting.projection import Zone
from reporting.recommendations import allow_recommendations
from reporting.refine.answer import CitedSentence
from reporting.refine.prompt import Ground
from reporting.safety import describe_confidence
from reporting.text import SectionName

FOLDER = Path(__file__).parent / "reporting" / "checker" / "cases"
_SECTIONS = {
    "f": SectionName.FINDINGS,
    "i": SectionName.IMPRESSION,
    "r": SectionName.RECOMMENDATION,
}
_ORDER = list(SectionName)
_LINE = re.compile(r"(?:(?P<study>\w+) )?(?P<section>[fir]) (?P<cited>[\w,]*) ?:(?P<text>.*)")
_ESCAPE = re.compile(r"\\(u[0-9a-f]{4}|U[0-9a-f]{8}|n|t)")
_QUANTITIES = {
    "volume": (Quantity.VOLUME, "mL", format_volume),
    "area": (Quantity.AREA, "mm2", format_area),
    "long_axis": (Quantity.LONG_AXIS, "mm", format_length),
    "perpendicular_axis": (Quantity.PERPENDICULAR_AXIS, "mm", format_length),
}


@dataclass(frozen=True)
class CheckerCase:
    """A text about a study, and whether it may pass."""

    name: str
    group: str
    is_faithful: bool
    ground: Ground
    sentences: tuple[CitedSentence, ...]
    line: str


def make_fact(alias: str, said: dict) -> Fact:
    presence = Presence(said["presence"])
    confidence = said.get("confidence")
    certainty = Certainty.UNSTATED
    if confidence is not None and presence is Presence.PRESENT:
        certainty = Certainty(describe_confidence(confidence))
    sizes = tuple(
        Size(quantity=quantity, value=said[key], unit=unit, text=write(said[key]))
        for key, (quantity, unit, write) in _QUANTITIES.items()
        if key in said
    )
    return Fact(
        fact_id=f"{said['algorithm']}/{alias}",
        alias=alias,
        kind=FactKind(said["kind"]),
        concept=said["concept"],
        site=said["site"],
        noun=codes.code_finding(said["concept"]).noun,
        site_noun=codes.code_site(said["site"]).noun,
        presence=presence,
        side=Laterality(said["side"]) if "side" in said else None,
        zone=Zone(said["zone"]) if "zone" in said else None,
        certainty=certainty,
        confidence=confidence,
        sizes=sizes,
        algorithm=said["algorithm"],
    )


@cache
def read_grounds() -> dict[str, tuple[Ground, tuple[CitedSentence, ...]]]:
    """Return each study with its faithful text."""
    grounds = {}
    for name, study in yaml.safe_load((FOLDER / "grounds.yaml").read_text("utf-8")).items():
        facts = Facts(facts=tuple(make_fact(alias, said) for alias, said in study["facts"].items()))
        ground = Ground(
            facts=facts, examination=study["examination"], recommendations=allow_recommendations(facts)
        )
        text = tuple(_read_line(line)[1] for line in study["text"].splitlines())
        grounds[name] = (ground, text)
    return grounds


def read_cases(file: str) -> list[CheckerCase]:
    """Return the cases of ``faithful``, ``unfaithful``, or a set that was looked at once."""
    groups = yaml.safe_load((FOLDER / f"{file}.yaml").read_text("utf-8"))
    if file not in {"held_back", "second_look", "third_look", "fourth_look"}:
        groups = {file: groups}
    return [
        _make_case(f"{group}-{number}", group, line.strip(), is_faithful=verdict == "faithful")
        for verdict, lines in groups.items()
        for group, block in lines.items()
        for number, line in enumerate(block.splitlines(), 1)
    ]


def _make_case(name: str, group: str, line: str, *, is_faithful: bool) -> CheckerCase:
    first, *more = line.split(" || ")
    study, sentence = _read_line(first)
    written = [sentence, *(_read_line(part)[1] for part in more)]
    ground, text = read_grounds()[study]
    replaced = {(one.section, alias) for one in written for alias in one.aliases}
    kept = [one for one in text if any((one.section, alias) not in replaced for alias in one.aliases)]
    sentences = sorted(
        [*kept, *(one for one in written if one.text)], key=lambda one: _ORDER.index(one.section)
    )
    return CheckerCase(
        name=name, group=group, is_faithful=is_faithful, ground=ground, sentences=tuple(sentences), line=line
    )


def _read_line(line: str) -> tuple[str, CitedSentence]:
    found = _LINE.fullmatch(line.strip())
    assert found, line
    text = _ESCAPE.sub(_unescape, found["text"].strip())
    aliases = tuple(alias for alias in found["cited"].split(",") if alias)
    return found["study"], CitedSentence(section=_SECTIONS[found["section"]], text=text, aliases=aliases)


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return {"n": "\n", "t": "\t"}.get(code) or chr(int(code[1:], 16))
