"""Pure. What may be said about a study: every finding as one fact, with the words that carry it.

Facts stand between the models and any text that is not drafted by rule. A language
model is given nothing else, its sentences cite nothing else, and what can be read out
of its text must be these facts again (``reporting/checker/``). They hold no patient,
no date, no UID.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from inference.findings import Analysis, Finding, Laterality, Presence, Quantity
from reporting import codes
from reporting.draft.kinds import is_anatomy, is_outlined, name_finding
from reporting.draft.words import format_area, format_length, format_volume, has_sides
from reporting.projection import Place, Views, Zone, locate
from reporting.safety import describe_confidence

_NO_VIEWS: Final[Views] = MappingProxyType({})


class FactKind(StrEnum):
    """How a model showed what it says; the same kinds as in the draft."""

    OUTLINED = "outlined"
    MARKED = "marked"
    LABEL = "label"
    ANATOMY = "anatomy"


class Certainty(StrEnum):
    """How sure the algorithm is of a present finding (`reporting.safety.describe_confidence`)."""

    HIGH = "high"
    MODERATE = "moderate"
    LOW = "low"
    UNSTATED = "unstated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One measured number as text writes it.

    Attributes
    ----------
    value : float
        In ``unit``, unrounded.
    unit : str
        ``mL``, ``mm``, ``mm2``: the canonical unit of the quantity.
    text : str
        The number with its unit as the draft writes it, for example ``12.3 mL``.
    """

    quantity: Quantity
    value: float
    unit: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One finding of one model, as a text may say it.

    Attributes
    ----------
    fact_id : str
        ``model/F1``, as `reporting.text.Sentence` names findings.
    alias : str
        ``F1``, ``F2``, ... in the order of the report: unique over all models, short enough for a prompt.
    concept, site : str
        Keys in ``codes.py``.
    noun, site_noun : str
        The finding and its site in words (``codes.py``).
    side, zone : Laterality or None, Zone or None
        Where it lies; the model's own side, else that of its mark on a frontal radiograph.
    certainty : Certainty
        Of a present finding; ``UNSTATED`` where the model gives no confidence.
    confidence : float or None
        0 to 1, the number behind ``certainty``.
    algorithm : str
        Name of the model.
    """

    fact_id: str
    alias: str
    kind: FactKind
    concept: str
    site: str
    noun: str
    site_noun: str
    presence: Presence
    side: Laterality | None = None
    zone: Zone | None = None
    certainty: Certainty = Certainty.UNSTATED
    confidence: float | None = None
    sizes: tuple[Size, ...] = ()
    algorithm: str = ""

    @property
    def key(self) -> tuple[str, Presence, Laterality | None]:
        """What must be the same in the text: which finding, whether it is there, on which side."""
        return self.concept, self.presence, self.side


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All facts of one study, in the order of the draft."""

    facts: tuple[Fact, ...]

    def by_alias(self, alias: str) -> Fact | None:
        """Return the fact of an alias, or None."""
        return next((fact for fact in self.facts if fact.alias == alias), None)

    def by_id(self, fact_id: str) -> Fact | None:
        """Return the fact of a finding id, or None."""
        return next((fact for fact in self.facts if fact.fact_id == fact_id), None)

    def with_presence(self, presence: Presence) -> tuple[Fact, ...]:
        """Return the facts that are present, absent or undetermined."""
        return tuple(fact for fact in self.facts if fact.presence is presence)


def collect_facts(analyses: Sequence[Analysis], views: Views = _NO_VIEWS) -> Facts:
    """Return every finding of every model that answered, as facts.

    Parameters
    ----------
    analyses : sequence of Analysis
        In the order in which they are reported; one that gave no answer has no facts.
    views : mapping of FrameReference to RadiographView
        How the radiographs show the patient (`reporting.projection.read_views`).

    Raises
    ------
    UnknownConceptError
        If a finding has no wording in ``codes.py``.
    """
    answered = [analysis for analysis in analyses if not analysis.is_refused]
    said = [(analysis, finding) for analysis in answered for finding in analysis.findings]
    return Facts(
        facts=tuple(
            _state(analysis, finding, f"F{number}", views)
            for number, (analysis, finding) in enumerate(said, 1)
        )
    )


def _state(analysis: Analysis, finding: Finding, alias: str, views: Views) -> Fact:
    place = Place()
    if finding.box is not None and has_sides(finding.site):  # a mark elsewhere has no side in the draft
        place = locate(finding.box, views)
    return Fact(
        fact_id=name_finding(analysis, finding),
        alias=alias,
        kind=_kind(finding),
        concept=finding.concept,
        site=finding.site,
        noun=codes.code_finding(finding.concept).noun,
        site_noun=codes.code_site(finding.site).noun,
        presence=finding.presence,
        side=finding.laterality or place.side,
        zone=place.zone,
        certainty=_certainty(finding),
        confidence=finding.confidence,
        sizes=tuple(_sizes(finding)),
        algorithm=analysis.model.name,
    )


def _kind(finding: Finding) -> FactKind:
    if is_anatomy(finding):
        return FactKind.ANATOMY
    if finding.box is not None:
        return FactKind.MARKED
    return FactKind.OUTLINED if is_outlined(finding) else FactKind.LABEL


def _certainty(finding: Finding) -> Certainty:
    if finding.confidence is None or finding.presence is not Presence.PRESENT:
        return Certainty.UNSTATED
    return Certainty(describe_confidence(finding.confidence, finding.uncertainty))


def _sizes(finding: Finding) -> list[Size]:
    sizes = []
    for quantity, convert, unit, write in (
        (Quantity.VOLUME, codes.value_in_ml, "mL", format_volume),
        (Quantity.AREA, codes.value_in_mm2, "mm2", format_area),
        (Quantity.LONG_AXIS, codes.value_in_mm, "mm", format_length),
        (Quantity.PERPENDICULAR_AXIS, codes.value_in_mm, "mm", format_length),
    ):
        measurement = finding.measured(quantity)
        if measurement is not None:
            value = convert(measurement)
            sizes.append(Size(quantity=quantity, value=value, unit=unit, text=write(value)))
    return sizes
