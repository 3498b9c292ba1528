"""Pure. Which radiographs of a series a model of frontal views may read, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dicom_node.errors import PermanentError
from inference.admission import admit_radiograph, is_blocked
from inference.findings import Caveat, Doubt, FrameReference, SeriesInput
from inference.packages import ModelPackage
from inference.radiograph import Radiograph
from inference.segmentation import MissingInputError
from inference.volume import Volume

FRONTAL_VIEWS: Final = frozenset({"PA", "AP", ""})
"""Views that are read; an image whose header says nothing is taken for a frontal one, and that is said."""

_CHEST_SITES: Final = frozenset({"aorta", "heart", "lung", "mediastinum", "pleura", "thorax"})
"""Sites whose radiographs are those of a chest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontalFilms:
    """What a model reads of a study's radiographs.

    Attributes
    ----------
    films : tuple of Radiograph
        Frontal and admitted; empty when a doubt blocks.
    inputs : tuple of SeriesInput
        Their series; those of all images when none is read.
    doubts : tuple of Doubt
        What makes the answer doubtful or impossible.
    notes : tuple of str
        Which images were not read, and what was assumed.
    """

    films: tuple[Radiograph, ...]
    inputs: tuple[SeriesInput, ...]
    doubts: tuple[Doubt, ...]
    notes: tuple[str, ...]


def choose_frontal(
    package: ModelPackage, images: Mapping[str, Volume | Sequence[Radiograph]]
) -> FrontalFilms:
    """Choose the frontal radiographs that a model may read.

    Parameters
    ----------
    package : ModelPackage
        The model.
    images : mapping
        What fills each role.

    Returns
    -------
    FrontalFilms
        The films, or the blocking doubt that there are none.

    Raises
    ------
    MissingInputError
        If no role is filled.
    PermanentError
        If a role holds a volume.
    """
    role, given = _filled(package, images)
    is_chest = any(label.site in _CHEST_SITES for label in package.card.labels)
    frontal = [film for film in given if film.view in FRONTAL_VIEWS]
    checked = [(film, admit_radiograph(film, is_chest=is_chest)) for film in frontal]
    readable = [(film, doubts) for film, doubts in checked if not is_blocked(doubts)]
    doubts = tuple(dict.fromkeys(doubt for _, found in readable or checked for doubt in found))
    if not frontal:
        sentence = "The series has no frontal radiograph; the model reads frontal ones only."
        doubts = (Doubt(caveat=Caveat.WRONG_BODY_PART, sentence=sentence, is_blocking=True),)
    films = tuple(film for film, _ in readable)
    return FrontalFilms(
        films=films,
        inputs=_inputs(role, films or tuple(given)),
        doubts=doubts,
        notes=_notes(len(given) - len(frontal), len(checked) - len(readable) if readable else 0, films),
    )


def _filled(
    package: ModelPackage, images: Mapping[str, Volume | Sequence[Radiograph]]
) -> tuple[str, Sequence[Radiograph]]:
    """Return the role that is read, the reference or the first that is there, and its images."""
    names = [package.card.input.reference.name, *(role.name for role in package.card.input.roles)]
    role = next((name for name in names if name in images), None)
    if role is None:
        raise MissingInputError(
            f"The study has no usable series for the role {names[0]} of {package.card.name}: acquire it, or "
            "name its series description in the model's card or the routing rules."
        )
    given = images[role]
    if isinstance(given, Volume):
        raise PermanentError(f"{package.card.name} reads radiographs: send it a CR or DX series.")
    return role, given


def _inputs(role: str, films: Sequence[Radiograph]) -> tuple[SeriesInput, ...]:
    """Return the series of radiographs, in their order."""
    frames: dict[str, list[FrameReference]] = {}
    for film in films:
        frames.setdefault(film.series_uid, []).append(film.frame)
    return tuple(SeriesInput(role=role, series_uid=uid, frames=tuple(found)) for uid, found in frames.items())


def _notes(oblique: int, refused: int, films: Sequence[Radiograph]) -> tuple[str, ...]:
    notes = []
    if oblique:
        notes.append(f"{_count(oblique)} from the side or oblique {_was(oblique)} not read.")
    if refused:
        notes.append(f"{_count(refused)} {_was(refused)} not read: not readable.")
    if any(not film.view for film in films):
        notes.append("The header does not say the projection; the image was taken for a frontal one.")
    return tuple(notes)


def _count(number: int) -> str:
    return f"{number} image" + ("" if number == 1 else "s")


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
