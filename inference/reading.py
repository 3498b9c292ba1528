"""Pure. One door to every task: the images of a study in their roles in, an outcome out.

Which code reads a study follows from the task on the model's card, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

from inference.classification import classify
from inference.findings import Outcome
from inference.packages import ModelPackage
from inference.radiograph import Radiograph
from inference.runner import Progress, Runner
from inference.segmentation import segment
from inference.volume import Volume
from inference.volume_segmentation import segment_volume

VOLUMETRIC: Final = 3
"""Dimensions of the input of a network that reads whole volumes."""

StudyImages: TypeAlias = Mapping[str, Volume | Sequence[Radiograph]]
"""Role to what fills it: a volume (CT, MR), or the radiographs of a series (CR, DX)."""


def read_study(
    package: ModelPackage,
    images: StudyImages,
    runner: Runner,
    study_uid: str,
    progress: Progress | None = None,
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

    Returns
    -------
    Outcome
        Analysis, mask and heat maps.

    Raises
    ------
    PermanentError
        If the study is not what the model reads; the message says what to do.
    TransientError
        If the device failed or has no memory now.
    """
    if package.card.task == "classification":
        return classify(package, images, runner, study_uid, progress)
    volumes = {role: cast("Volume", image) for role, image in images.items()}
    if package.card.input.dimensions == VOLUMETRIC:
        return segment_volume(package, volumes, runner, study_uid, progress)
    analysis, mask = segment(package, volumes, runner, study_uid, progress)
    return Outcome(analysis=analysis, mask=mask)
