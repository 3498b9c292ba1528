"""Pure. What a text states: which finding, whether it is there, where, how sure, how large.

Rules in the manner of ConText (Harkema et al. 2009): a negation reaches forward to the next break, a
denial reaches over its clause, doubt is tied to the nearest finding or to the clause. Where the rules
cannot tell what a sentence means, they say so; the checker refuses such a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from inference.findings import Laterality, Presence
from reporting.checker.lexicon import Form
from reporting.projection import Zone


class Stated(StrEnum):
    """How sure a text is of a finding."""

    PLAIN = "plain"
    ATTRIBUTED = "attributed"
    POSSIBLE = "possible"
    PROBABLE = "probable"
    WEAK = "weak"
    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"


class Context(StrEnum):
    """Of what time, or under which condition, a text speaks."""

    CURRENT = "current"
    HISTORICAL = "historical"
    HYPOTHETICAL = "hypothetical"


class Axis(StrEnum):
    """Which quantity a stated number is said to be; ``UNNAMED`` where only its unit tells."""

    UNNAMED = "unnamed"
    VOLUME = "volume"
    AREA = "area"
    LONG = "long_axis"
    PERPENDICULAR = "perpendicular_axis"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedPlace:
    """Where a text puts a finding; None is not said."""

    side: Laterality | None = None
    site: str | None = None
    zone: Zone | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedSize:
    """A number with its unit as a text gives it.

    Attributes
    ----------
    number : str
        As written: its decimals are what it claims to know.
    unit : str
        ``mm``, ``cm``, ``mL``, ``cm3``, ``mm3``, ``mm2``, ``cm2``.
    is_total : bool
        Whether it is the sum over several findings.
    """

    number: str
    unit: str
    axis: Axis = Axis.UNNAMED
    is_total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing that a text says about one finding, or about several of a kind.

    Attributes
    ----------
    concepts : tuple of str
        Keys in ``codes.py`` that the words may mean; empty for «no abnormality» and for a pronoun.
    places : tuple of StatedPlace
        More than one where several places are listed.
    common : tuple of StatedPlace
        Those of the places that are said of each of several: «upper zone nodules».
    form : Form
        Whether the words are a singular, a plural, or neither.
    count, index : int or None
        How many are said to be there; which of several, by the number in its title.
    probability : str or None
        The probability or confidence in figures, with ``above`` or ``below`` before it.
    algorithm : str or None
        The algorithm that is said to have found it.
    is_scoped : bool
        Of «no abnormality»: whether it says that only some kinds were looked for.
    is_pronoun : bool
        Whether it goes on about the finding before it.
    is_definite : bool
        Whether it says «the» or «this» finding.
    is_further : bool
        Whether it says «another» or «a further» finding, and so that there is one more.
    is_listed : bool
        Whether its place was said of a list of findings, next to another of them.
    """

    concepts: tuple[str, ...]
    presence: Presence
    places: tuple[StatedPlace, ...] = ()
    common: tuple[StatedPlace, ...] = ()
    certainty: Stated = Stated.PLAIN
    sizes: tuple[StatedSize, ...] = ()
    form: Form = Form.ONE
    count: int | None = None
    index: int | None = None
    probability: str | None = None
    algorithm: str | None = None
    context: Context = Context.CURRENT
    is_scoped: bool = False
    is_pronoun: bool = False
    is_definite: bool = False
    is_further: bool = False
    is_listed: bool = False

    @property
    def concept(self) -> str | None:
        """The first finding that the words may mean."""
        return self.concepts[0] if self.concepts else None

    @property
    def side(self) -> Laterality | None:
        """The side, where one place is said."""
        return self.places[0].side if len(self.places) == 1 else None

    @property
    def site(self) -> str | None:
        """The site, where one place is said."""
        return self.places[0].site if len(self.places) == 1 else None

    @property
    def zone(self) -> Zone | None:
        """The zone, where one place is said."""
        return self.places[0].zone if len(self.places) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a text states, and what in it could not be read.

    Attributes
    ----------
    unclear : tuple of str
        Why its meaning is open, in words of this package.
    stray_numbers : int
        Numbers that belong to nothing.
    severe_marks : int
        «Marked» in the sense of severe.
    is_disagreement : bool
        Whether it says that the algorithms disagree.
    """

    statements: tuple[Statement, ...]
    unclear: tuple[str, ...] = ()
    stray_numbers: int = 0
    severe_marks: int = 0
    is_disagreement: bool = False
