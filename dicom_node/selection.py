"""Pure. Which series of a study a model reads, in which role.

A model's input contract names roles (``flair``, ``post``); a series fits a role
by modality, Series Description, plane and number of images, and by nothing else: FLAIR
is never taken for T1 because it looks similar. Localizers, results of our own,
secondary captures (but for digitised radiographs), raw detector data and
everything that is no image never fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.globs import list_patterns, matches_any
from dicom_node.headers import OWN_MANUFACTURER
from dicom_node.planes import Plane, read_plane
from dicom_node.sop_classes import IMAGE_CLASSES, RAW_CLASSES
from dicom_node.study import Series, SeriesUID, SOPClassUID, Study

_SECONDARY_CAPTURE: Final = SOPClassUID(SecondaryCaptureImageStorage)
#: PS3.3 C.7.3.1.1.1: modalities of radiographs.
PROJECTION_MODALITIES: Final = frozenset({"CR", "DX"})
#: PS3.3 C.7.6.1.1.2: values of Image Type (0008,0008).
_LOCALIZER: Final = "LOCALIZER"
_DERIVED: Final = "DERIVED"
#: View Position (0018,5101), PS3.3 C.8.7.1.1.3, and what devices write besides; Series Descriptions.
_LATERAL_VIEWS: Final = frozenset({"LL", "RL", "LLAT", "RLAT", "LAT", "LATERAL"})
_LATERAL_DESCRIPTIONS: Final = ("lat", "* lat", "lat *", "* lat *", "*lateral*", "*_lat*", "*-lat*")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRole:
    """One series that a model wants.

    Attributes
    ----------
    name : str
        For example ``flair``.
    required : bool
        Whether the model cannot run without it.
    modalities : tuple of str
        Modality (0008,0060), one of these; empty takes any.
    any_description : tuple of str
        Globs; Series Description must match one. Empty takes any.
    none_of : tuple of str
        Globs that Series Description must not match.
    min_images : int
        Fewest images.
    plane : Plane or None
        Plane of the slices; a series whose header does not tell its plane fits all the same.
    substitute : str or None
        Role whose series stands in when no series fits this one.
    """

    name: str
    required: bool = False
    modalities: tuple[str, ...] = ()
    any_description: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    min_images: int = 1
    plane: Plane | None = None
    substitute: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputContract:
    """Everything a model wants of a study; role names are unique.

    Attributes
    ----------
    is_any_role_enough : bool
        Whether the model runs with whichever roles have a series, as long as there is one; such a model also
        reads series of the study's partners.
    """

    roles: tuple[InputRole, ...]
    is_any_role_enough: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The series chosen for a model.

    Attributes
    ----------
    roles : tuple of (role, Series Instance UID)
        In the order of the contract, those of partner studies last; substitutes included.
    substitutions : tuple of (missing role, role whose series stands in)
    obstacles : tuple of str
        Why the model cannot run; empty if it can.
    """

    roles: tuple[tuple[str, SeriesUID], ...] = ()
    substitutions: tuple[tuple[str, str], ...] = ()
    obstacles: tuple[str, ...] = ()


def select_series(study: Study, contract: InputContract) -> Selection:
    """Choose the best series for every role of a contract.

    Best is: original before derived, a frontal radiograph before a lateral one, most
    images, lowest series number, lowest UID. A series fills one role. Required roles
    choose first. A partner study's series is taken only by a model that any role is
    enough for, and only where the study has none; what the study has itself comes first.
    """
    chosen: dict[str, SeriesUID] = {}
    for role in sorted(contract.roles, key=lambda role: not role.required):
        free = [series for series in study.series if series.series_uid not in chosen.values()]
        fitting = [series for series in free if not explain_misfit(series, role)]
        if not fitting and contract.is_any_role_enough:
            fitting = [series for series in _of_partners(study) if not explain_misfit(series, role)]
        if fitting:
            chosen[role.name] = min(fitting, key=_preference).series_uid
    return _with_substitutes(study, contract, chosen)


def explain_misfit(series: Series, role: InputRole) -> str:
    """Return why a series does not fit a role; empty if it fits."""
    return next(_misfits(series, role), "")


def _misfits(series: Series, role: InputRole) -> Iterator[str]:
    if not series.sop_classes or not series.sop_classes <= _readable_classes(series):
        yield "it holds no images that a model reads"
    if series.sop_classes and series.sop_classes <= RAW_CLASSES:
        yield "its images are raw detector data (For Processing)"
    if series.header.get("Manufacturer") == OWN_MANUFACTURER:
        yield "it is a result of Preread"
    if _LOCALIZER in _image_type(series):
        yield "it is a localizer"
    if role.modalities and series.modality.upper() not in role.modalities:
        yield f"modality is {series.modality or 'empty'}"
    if role.any_description and not matches_any(series.description, role.any_description):
        yield f"description does not match {list_patterns(role.any_description)}"
    if role.none_of and matches_any(series.description, role.none_of):
        yield f"description matches {list_patterns(role.none_of)}"
    plane = read_plane(series.header.get("ImageOrientationPatient", ""))
    if role.plane is not None and plane is not None and plane is not role.plane:
        yield f"its slices are {plane}"
    if series.number_of_images < role.min_images:
        yield f"it has {series.number_of_images} images of at least {role.min_images}"


def _with_substitutes(study: Study, contract: InputContract, chosen: dict[str, SeriesUID]) -> Selection:
    substitutions: list[tuple[str, str]] = []
    obstacles: list[str] = []
    roles: list[tuple[str, SeriesUID]] = []
    for role in contract.roles:
        if role.name in chosen:
            roles.append((role.name, chosen[role.name]))
        elif not role.required and role.substitute in chosen:
            assert role.substitute is not None
            roles.append((role.name, chosen[role.substitute]))
            substitutions.append((role.name, role.substitute))
        elif role.required or (contract.is_any_role_enough and not chosen):
            why = _why_missing(study, role, chosen)
            kind = "required role" if role.required else "role"
            obstacles.append(f"no series for the {kind} {role.name}: {why}")
    if obstacles:
        return Selection(obstacles=tuple(obstacles))
    if contract.is_any_role_enough:
        foreign = {series.series_uid for series in _of_partners(study)}
        roles.sort(key=lambda pair: pair[1] in foreign)
    return Selection(roles=tuple(roles), substitutions=tuple(substitutions))


def _of_partners(study: Study) -> list[Series]:
    return [series for partner in study.partners for series in partner.series]


def _why_missing(study: Study, role: InputRole, chosen: dict[str, SeriesUID]) -> str:
    reasons = (
        explain_misfit(series, role) or _used_by(series, chosen)
        for series in sorted(study.series, key=_preference)
    )
    distinct = list(dict.fromkeys(reasons))
    return "; ".join(distinct) or "the study has no readable series"


def _used_by(series: Series, chosen: dict[str, SeriesUID]) -> str:
    users: Iterable[str] = (name for name, uid in chosen.items() if uid == series.series_uid)
    return f"the one that fits is {next(iter(users), 'used')}"


def _preference(series: Series) -> tuple[bool, bool, int, bool, int, str]:
    number = series.series_number
    return (
        _DERIVED in _image_type(series),
        _is_lateral(series),
        -series.number_of_images,
        number is None,
        number or 0,
        series.series_uid,
    )


def _readable_classes(series: Series) -> frozenset[SOPClassUID]:
    """Return the classes that are images here: digitised films are secondary captures (PS3.4 B.5)."""
    is_projection = series.modality.upper() in PROJECTION_MODALITIES
    return IMAGE_CLASSES | {_SECONDARY_CAPTURE} if is_projection else IMAGE_CLASSES


def _is_lateral(series: Series) -> bool:
    """Say whether a radiograph shows the patient from the side, by its header; volumes have no view."""
    if series.modality.upper() not in PROJECTION_MODALITIES:
        return False
    view = series.header.get("ViewPosition", "").strip().upper()
    return view in _LATERAL_VIEWS if view else matches_any(series.description, _LATERAL_DESCRIPTIONS)


def _image_type(series: Series) -> tuple[str, ...]:
    return tuple(value.strip().upper() for value in series.header.get("ImageType", "").split("\\"))
