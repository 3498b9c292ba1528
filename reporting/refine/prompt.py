"""Pure. The prompt: the facts of a study in a fixed form, and what the language model may do with them.

No identifier, no date and no UID can get in: nothing of a header is read here, clinical
information comes as words of a closed vocabulary (``reporting/clinical/``), and the crude
report is kept to letters, digits and plain punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inference.findings import Laterality, Presence, Quantity
from reporting.facts import Fact, Facts
from reporting.recommendations import Recommendation
from reporting.refine.answer import describe_schema
from reporting.refine.plan import Planned, Says, is_sure, name_others, plan_sentences
from reporting.refine.port import CompletionRequest

#: What the model is told. Short, because the embedded model is small; a large one needs no more.
SYSTEM: Final = (
    "You word radiology reports. Write one sentence for each line under findings, and sum up under "
    "impression. Cite the ids of the facts in each sentence. What is possible stays possible. Add nothing: "
    "no other finding, number, side, comparison, cause or advice. Copy recommendations word for word. "
    'Answer in JSON: {"findings": [{"text": "...", "ids": ["F1"]}], '
    '"impression": [{"text": "...", "ids": ["F1"]}], "recommendation": [{"text": "...", "ids": ["R1"]}]}'
)
_HEADINGS: Final = {
    Says.PRESENT: "Present",
    Says.OPEN: "Open",
    Says.ABSENT: "Absent",
    Says.UNDETERMINED: "Undetermined",
    Says.MEASURED: "Measured",
}
_SIDES: Final = {
    Laterality.LEFT: "left",
    Laterality.RIGHT: "right",
    Laterality.BILATERAL: "both sides",
}
_MAX_CRUDE_LENGTH: Final = 600
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 .,;:()%/-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """All that a text may rest on.

    Attributes
    ----------
    examination : str
        Which images were read, for example ``chest radiograph``.
    clinical : tuple of str
        What the order says, in words of a closed vocabulary: context, never a finding.
    crude : tuple of str
        Sentences that a network wrote from the image; unverified, never a fact.
    recommendations : tuple of Recommendation
        The advice that may be given.
    """

    facts: Facts
    examination: str = ""
    clinical: tuple[str, ...] = ()
    crude: tuple[str, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()


def build_request(ground: Ground, *, max_tokens: int = 512, timeout_s: float = 60.0) -> CompletionRequest:
    """Return what a language model is asked to word a report.

    Returns
    -------
    CompletionRequest
        Equal grounds give equal requests; its schema admits only sentences that cite the ground's facts
        and recommendations.
    """
    return CompletionRequest(
        system=SYSTEM,
        user=describe_ground(ground),
        schema=describe_schema(
            [fact.alias for fact in ground.facts.facts],
            [(one.alias, one.text) for one in ground.recommendations],
        ),
        max_tokens=max_tokens,
        timeout_s=timeout_s,
    )


def describe_ground(ground: Ground) -> str:
    """Return the user's message: one line for each planned sentence (`plan.plan_sentences`), and the rest."""
    lines = [f"Examination: {ground.examination}"] if ground.examination else []
    if ground.clinical:
        lines.append(f"Clinical information: {' '.join(ground.clinical)}")
    lines += [describe_planned(one) for one in plan_sentences(ground.facts)]
    crude = clean_crude(ground.crude)
    if crude:
        lines.append(f"Unverified text, no source of facts: {crude}")
    lines += [f"Recommendation {one.alias}: {one.text}" for one in ground.recommendations]
    return "\n".join(lines)


def describe_planned(planned: Planned) -> str:
    """Return one sentence's facts on one line.

    ``Present: F1 possible nodule, right lung, upper zone, 12 mm; another algorithm: absent F4``;
    ``Absent: F2 hernia; F3, F7 mass``.
    """
    match planned.says:
        case Says.PRESENT:
            told = [_describe_present(planned.groups[0]), *_describe_contrary(planned.contrary)]
        case Says.MEASURED:
            told = [", ".join([_name(planned.facts), *describe_sizes(planned.facts[0])])]
        case Says.OPEN:
            told = [_name(planned.groups[0]), *_describe_contrary(planned.groups[0])]
        case Says.ABSENT | Says.UNDETERMINED:
            told = [_name(group) for group in planned.groups]
    return f"{_HEADINGS[planned.says]}: {'; '.join(told)}"


def _describe_present(facts: Sequence[Fact]) -> str:
    sure = all(is_sure(fact) for fact in facts)
    placed = [fact for fact in facts if fact.side or fact.zone] or facts[:1]
    places = " and ".join(dict.fromkeys(describe_place(fact) for fact in placed))
    parts = [_name(facts, "" if sure else "possible "), places]
    return ", ".join([*parts, *describe_sizes(facts[0])] if len(facts) == 1 else parts)


def _describe_contrary(facts: Sequence[Fact]) -> list[str]:
    """Return what other models say: ``another algorithm: absent F4``, ``two algorithms: absent F4, F5``."""
    told = []
    for presence in (Presence.ABSENT, Presence.UNDETERMINED):
        alike = [fact for fact in facts if fact.presence is presence]
        if alike:
            who, _ = name_others(alike)
            told.append(f"{who}: {presence.value} {_aliases(alike)}")
    return told


def clean_crude(sentences: Sequence[str]) -> str:
    """Return a network's sentences as plain text of bounded length."""
    return _NOT_PLAIN.sub(" ", " ".join(sentences))[:_MAX_CRUDE_LENGTH].strip()


def _name(facts: Sequence[Fact], hedge: str = "") -> str:
    return f"{_aliases(facts)} {hedge}{facts[0].noun}"


def _aliases(facts: Sequence[Fact]) -> str:
    return ", ".join(fact.alias for fact in facts)


def describe_place(fact: Fact) -> str:
    """Return where a fact lies: ``right lung, upper zone``."""
    if fact.side is Laterality.BILATERAL:
        place = f"{_SIDES[fact.side]} of the {fact.site_noun}"
    else:
        place = f"{_SIDES[fact.side]} {fact.site_noun}" if fact.side else fact.site_noun
    return place if fact.zone is None else f"{place}, {fact.zone.value} zone"


def describe_sizes(fact: Fact) -> list[str]:
    """Return the sizes; two diameters as one product of lengths, as reports write them."""
    texts = {size.quantity: size.text for size in fact.sizes}
    long_axis, perpendicular = texts.get(Quantity.LONG_AXIS), texts.get(Quantity.PERPENDICULAR_AXIS)
    sizes = [texts[quantity] for quantity in (Quantity.VOLUME, Quantity.AREA) if quantity in texts]
    if long_axis and perpendicular:
        sizes.append(f"{long_axis} x {perpendicular}")
    elif long_axis:
        sizes.append(long_axis)
    return sizes
