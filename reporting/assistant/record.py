"""Pure. What the assistant knows of a run, as values; nothing in it names the patient but ``identifiers``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from inference.findings import Analysis
from reporting.assistant.identifiers import Identifiers
from reporting.projection import Place, Views


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """Where a network looked most for one answer.

    Attributes
    ----------
    model : str
        Name of the model.
    answer : str
        A finding id (``F1``) or the scale of an estimate.
    image, images : int
        1-based number of the image with the strongest value, foot to head, and how many there are.
    place : Place
        Side and zone on a frontal radiograph; unknown elsewhere.
    share : float
        0 to 1, part of that image where the value is at least half its peak.
    """

    model: str
    answer: str
    image: int
    images: int
    place: Place = field(default_factory=Place)
    share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLine:
    """One series of the study; ``description`` is for choosing a series and enters no text."""

    number: int
    modality: str
    images: int
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """A model that the node can run; ``concepts`` are the findings that it can report."""

    reference: str
    task: str
    title: str
    concepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One run as the assistant sees it.

    Attributes
    ----------
    analyses : tuple of Analysis
        What each model said, in the order of the report.
    views : mapping
        How radiographs show the patient.
    looked_at : tuple of LookedAt
        One per heat map.
    sought : mapping
        Model name to the findings that it can report.
    """

    run_id: str
    analyses: tuple[Analysis, ...]
    views: Views = field(default_factory=dict)
    looked_at: tuple[LookedAt, ...] = ()
    sought: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    series: tuple[SeriesLine, ...] = ()
    installed: tuple[InstalledModel, ...] = ()
    identifiers: Identifiers = field(default_factory=Identifiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What the knowledge graph relates to a finding, in words, with where that comes from."""

    text: str
    source: str
    licence: str = ""


class AsideState(StrEnum):
    """What became of a reading that a person asked for."""

    DONE = "done"
    UNDERWAY = "underway"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True, kw_only=True)
class AsideReading:
    """A reading on request, kept beside the run.

    Attributes
    ----------
    reference : str
        ``name@version`` of the model.
    reason : str
        Why there is no result; free of patient data.
    """

    state: AsideState
    reference: str
    analysis: Analysis | None = None
    reason: str = ""
