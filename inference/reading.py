"""Pure. One door to every task: the images of a study in their roles in, an outcome out.

Which code reads a study follows from the task on the model's card, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from inference.admission import admit_header, is_blocked
from inference.classification import classify
from inference.detection import detect
from inference.findings import Analysis, Outcome, SeriesInput
from inference.fusion import fuse
from inference.packages import ModelPackage
from inference.radiograph import Radiograph
from inference.report_writing import write_report
from inference.runner import Progress, Runner
from inference.segmentation import segment
from inference.volume import Volume
from inference.volume_segmentation import segment_volume

VOLUMETRIC: Final = 3
"""Dimensions of the input of a network that reads whole volumes."""

StudyImages: TypeAlias = Mapping[str, Volume | Sequence[Radiograph]]
"""Role to what fills it: a volume (CT, MR), or the radiographs of a series (CR, DX)."""

_NO_HEADERS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({})


def read_study(
    package: ModelPackage,
    images: StudyImages,
    runner: Runner,
    study_uid: str,
    progress: Progress | None = None,
    *,
    headers: Mapping[str, Mapping[str, str]] = _NO_HEADERS,
) -> Outcome:
    """Let a model read a study.

    Parameters
    ----------
    package : ModelPackage
        The model.
    images : mapping
        What fills each role of its input contract.
    runner : Runner
        Where the network runs.
    study_uid : str
        Study Instance UID.
    progress : callable or None
        Called with (images done, images).
    headers : mapping
        Role to what the header of its series says, by keyword (`inference.admission`). Where it contradicts
        what the model reads, that is a doubt, or the model gives no answer.

    Returns
    -------
    Outcome
        Analysis, mask and heat maps, or the crude report.

    Raises
    ------
    PermanentError
        If the study is not what the model reads; the message says what to do.
    TransientError
        If the device failed or has no memory now.
    """
    sites = {label.site for label in package.card.labels}
    doubts = tuple(dict.fromkeys(d for header in headers.values() for d in admit_header(header, sites)))
    if is_blocked(doubts):
        inputs = tuple(_describe_input(role, image) for role, image in images.items())
        return Outcome(
            analysis=Analysis(
                model=package.identity, study_uid=study_uid, inputs=inputs, findings=(), doubts=doubts
            )
        )
    outcome = _read(package, images, runner, study_uid, progress)
    analysis = replace(outcome.analysis, doubts=(*doubts, *outcome.analysis.doubts))
    return replace(outcome, analysis=analysis)


def _describe_input(role: str, image: Volume | Sequence[Radiograph]) -> SeriesInput:
    if isinstance(image, Volume):
        return SeriesInput(role=role, series_uid=image.series_uid, frames=image.frames)
    frames = tuple(radiograph.frame for radiograph in image)
    return SeriesInput(role=role, series_uid=image[0].series_uid, frames=frames)


def _read(
    package: ModelPackage,
    images: StudyImages,
    runner: Runner,
    study_uid: str,
    progress: Progress | None,
) -> Outcome:
    """Let the task of the model's card read the study."""
    if package.card.task == "classification":
        return classify(package, images, runner, study_uid, progress)
    if package.card.task == "detection":
        return detect(package, images, runner, study_uid, progress)
    if package.card.task == "fusion":
        return fuse(package, images, runner, study_uid, progress)
    if package.card.task == "report":
        return write_report(package, images, runner, study_uid)
    volumes = {role: cast("Volume", image) for role, image in images.items()}
    if package.card.input.dimensions == VOLUMETRIC:
        return segment_volume(package, volumes, runner, study_uid, progress)
    return segment(package, volumes, runner, study_uid, progress)
