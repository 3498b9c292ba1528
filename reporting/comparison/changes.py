"""Pure. What changed between two readings of one patient: values, and when a change counts.

A change counts only where it is larger than what two readings of the same lesion differ by.
The thresholds are ratios, the same upwards and downwards, so that exchanging the two studies
gives the inverse; none of them is a category of response, which is a physician's judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from inference.findings import Analysis, Finding, Laterality, ModelIdentity, Quantity
from reporting import codes


class Course(StrEnum):
    """What became of a finding."""

    #: Present now; the earlier reading looked for it and did not find it.
    NEW = "new"
    #: Found earlier and not now.
    RESOLVED = "resolved"
    INCREASED = "increased"
    DECREASED = "decreased"
    #: Present in both; what differs in size is within the uncertainty of measurement.
    UNCHANGED = "unchanged"
    #: The readings differ, and whether the patient changed cannot be said.
    UNCERTAIN = "uncertain"


class Dimension(StrEnum):
    """What of a lesion is compared."""

    VOLUME = "volume"
    #: Longest diameter times the longest one perpendicular to it (RANO, Macdonald).
    PRODUCT = "product"
    AREA = "area"
    LONG_AXIS = "long_axis"
    PERPENDICULAR_AXIS = "perpendicular_axis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Below what a difference does not count.

    Attributes
    ----------
    ratio : float
        Larger value over smaller value.
    floor : float
        Difference in the unit of the dimension.
    """

    ratio: float
    floor: float = 0.0


#: RANO-LGG calls a change of the product of diameters on T2/FLAIR below 25 % stable
#: (doi:10.1016/S1470-2045(11)70057-2; table 1 of doi:10.1093/noajnl/vdad118). RECIST 1.1 wants 20 % and 5 mm
#: of a diameter (doi:10.1016/j.ejca.2008.10.026). For volumes there is no agreed number: a trained rater
#: detects changes of FLAIR volume from 15 % on with one tool, while raters' outlines of one glioma agree by
#: 0.60 to 0.77 (generalised conformity, doi:10.1016/j.nicl.2019.101727); 20 % is this project's choice, and
#: 0.2 mL keeps a few voxels of a small lesion from counting.
NOISE: Final = MappingProxyType(
    {
        Dimension.VOLUME: Noise(ratio=1.20, floor=0.2),
        Dimension.PRODUCT: Noise(ratio=1.25),
        Dimension.AREA: Noise(ratio=1.25),
        Dimension.LONG_AXIS: Noise(ratio=1.20, floor=5.0),
        Dimension.PERPENDICULAR_AXIS: Noise(ratio=1.20, floor=5.0),
    }
)
#: Difference of the probability of a label below which present and absent are not told apart; twice the
#: standard deviation from which ``reporting/safety.py`` calls a probability unsteady would be 0.3, which
#: hides real changes of well-calibrated labels: this project's choice.
LABEL_NOISE: Final = 0.2
#: The dimension that decides: the first of these that both readings have.
_DECIDING: Final = (Dimension.VOLUME, Dimension.PRODUCT, Dimension.AREA, Dimension.LONG_AXIS)
UNITS: Final = MappingProxyType(
    {
        Dimension.VOLUME: "mL",
        Dimension.PRODUCT: "mm2",
        Dimension.AREA: "mm2",
        Dimension.LONG_AXIS: "mm",
        Dimension.PERPENDICULAR_AXIS: "mm",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeChange:
    """One size then and now, in the unit that ``UNITS`` has for the dimension."""

    dimension: Dimension
    before: float
    now: float

    @property
    def unit(self) -> str:
        """UCUM unit of both values."""
        return UNITS[self.dimension]

    @property
    def difference(self) -> float:
        """Now minus before, in the unit."""
        return self.now - self.before

    @property
    def percent(self) -> float | None:
        """The difference in percent of before; None if that was zero."""
        return 100 * self.difference / self.before if self.before > 0 else None

    @property
    def course(self) -> Course:
        """Whether the difference counts, and in which direction."""
        noise = NOISE[self.dimension]
        small, large = sorted((self.before, self.now))
        if large - small < noise.floor or large < noise.ratio * small or large == small:
            return Course.UNCHANGED
        return Course.INCREASED if self.now > self.before else Course.DECREASED


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What models said of an earlier study of the patient.

    Attributes
    ----------
    run_id : str
        The run that read it; free of patient data.
    days : int
        Days from that study to this one, by their dates.
    studied_on : date or None
        Its date, for tables that a clinician reads; never for a text that a language model is given.
    """

    run_id: str
    days: int
    analyses: tuple[Analysis, ...]
    studied_on: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one finding, or of all lesions of a kind together.

    Attributes
    ----------
    model, prior_model : ModelIdentity
        Which algorithm read this study and which the earlier one: of one name, perhaps of two versions.
    days : int
        Days between the studies.
    now, before : Finding or None
        The finding in each reading; of a label also where it is absent. Both None for a total.
    sizes : tuple of SizeChange
        Where both readings measured it, the deciding dimension first.
    is_total : bool
        Whether this is the sum over all lesions of the kind.
    is_same_input : bool
        Whether both readings had the same series in the same roles.
    is_doubted : bool
        Whether either reading comes with a doubt.
    """

    course: Course
    concept: str
    site: str
    model: ModelIdentity
    prior_model: ModelIdentity
    days: int
    laterality: Laterality | None = None
    now: Finding | None = None
    before: Finding | None = None
    sizes: tuple[SizeChange, ...] = ()
    is_total: bool = False
    is_same_input: bool = True
    is_doubted: bool = False

    @property
    def finding_ids(self) -> tuple[str, ...]:
        """The finding of this study that it rests on, as sentences name it."""
        return () if self.now is None else (f"{self.model.name}/{self.now.finding_id}",)

    @property
    def is_same_version(self) -> bool:
        """Whether both studies were read with the same version and weights."""
        return (self.model.version, self.model.weights_sha256) == (
            self.prior_model.version,
            self.prior_model.weights_sha256,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An earlier study and what changed since."""

    prior: Prior
    changes: tuple[Change, ...]


def measure(finding: Finding) -> dict[Dimension, float]:
    """Return the sizes of a finding in the units of ``UNITS``, those that decide first.

    Raises
    ------
    UnknownConceptError
        If a unit does not fit its quantity.
    """
    volume, area = finding.measured(Quantity.VOLUME), finding.measured(Quantity.AREA)
    long_axis = finding.measured(Quantity.LONG_AXIS)
    perpendicular = finding.measured(Quantity.PERPENDICULAR_AXIS)
    sizes: dict[Dimension, float] = {}
    if volume is not None:
        sizes[Dimension.VOLUME] = codes.value_in_ml(volume)
    if long_axis is not None and perpendicular is not None:
        sizes[Dimension.PRODUCT] = codes.value_in_mm(long_axis) * codes.value_in_mm(perpendicular)
    if area is not None:
        sizes[Dimension.AREA] = codes.value_in_mm2(area)
    if long_axis is not None:
        sizes[Dimension.LONG_AXIS] = codes.value_in_mm(long_axis)
    if perpendicular is not None:
        sizes[Dimension.PERPENDICULAR_AXIS] = codes.value_in_mm(perpendicular)
    return sizes


def change_sizes(now: Finding, before: Finding) -> tuple[SizeChange, ...]:
    """Return the sizes that both readings have."""
    sizes, earlier = measure(now), measure(before)
    return tuple(
        SizeChange(dimension=dimension, before=earlier[dimension], now=value)
        for dimension, value in sizes.items()
        if dimension in earlier
    )


def judge(sizes: Sequence[SizeChange]) -> Course:
    """Return what became of a lesion that both readings have.

    The deciding dimension decides, unless another one says the opposite: then nothing can be said.
    """
    deciding = next((size for size in sizes if size.dimension in _DECIDING), None)
    if deciding is None:
        return Course.UNCHANGED
    courses = {size.course for size in sizes}
    if {Course.INCREASED, Course.DECREASED} <= courses:
        return Course.UNCERTAIN
    return deciding.course
