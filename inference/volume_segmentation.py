"""Pure. Segmentation of whole volumes by a 3-D network: volumes in their roles in, an outcome out.

The network sees the volume at its own spacing and orientation; the mask lies on exactly the grid of the
reference series. Each label is one finding with its volume: these networks outline organs and tissues, which
are not counted piece by piece as lesions are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from inference.cards import LabelCard
from inference.components import label_components
from inference.findings import (
    Analysis,
    Finding,
    Mask,
    Measurement,
    Outcome,
    Presence,
    Quantity,
)
from inference.measurement import key_slice, volume_ml
from inference.packages import ModelPackage
from inference.runner import Prediction, Progress
from inference.segmentation import MissingInputError, assemble_input
from inference.volume import Volume
from inference.volume_preparation import GridChange, plan_grid, prepare_volume

KEEP_LARGEST: Final = "keep_largest"
"""Option of the card: whether of each label only the largest connected piece counts (false)."""


class VolumePredictor(Protocol):
    """What the segmentation of a volume needs of a runner."""

    def predict_volume(
        self, package: ModelPackage, volume: npt.NDArray[np.float32], progress: Progress | None = None
    ) -> Prediction:
        """Return the probabilities of a (C, X, Y, Z) prepared volume."""
        ...


def segment_volume(
    package: ModelPackage,
    volumes: Mapping[str, Volume],
    runner: VolumePredictor,
    study_uid: str,
    progress: Progress | None = None,
) -> Outcome:
    """Segment one study with a 3-D network.

    Parameters
    ----------
    package : ModelPackage
        A segmentation model with ``input.dimensions`` 3.
    volumes : mapping of str to Volume
        Volumes by role of the package's input contract; optional roles may be missing.
    runner : VolumePredictor
        Where the network runs.
    study_uid : str
        Study Instance UID.
    progress : callable or None
        Called with (windows done, windows).

    Returns
    -------
    Outcome
        One finding for each label that is there, in the order of the card, with its volume in mL, and the
        label map on the frames of the reference series.

    Raises
    ------
    MissingInputError
        If a required role is missing.
    RegistrationError
        If a required series does not lie on the reference's frame of reference.
    VolumeGridError
        If the network's grid would be too large.
    DeviceMemoryError, ModelPackageError
        As the runner raises them.
    """
    reference = _reference(package, volumes)
    model_input = assemble_input(package, volumes)
    recipe = package.volume_recipe
    grid = plan_grid(_shape(reference), reference.affine, recipe)
    prediction = runner.predict_volume(package, prepare_volume(model_input.channels, grid, recipe), progress)
    probabilities = grid.restore(prediction.probabilities)
    label_map = choose_labels(package, probabilities, grid)
    findings: list[Finding] = []
    labels = np.zeros(label_map.shape, dtype=np.uint8)
    absent: list[str] = []
    for label in package.card.labels:
        region = label_map == label.value
        if not region.any():
            absent.append(label.name)
            continue
        number = len(findings) + 1
        labels[region] = number
        findings.append(_describe(number, label, region, probabilities[label.value - 1], reference))
    analysis = Analysis(
        model=package.identity,
        study_uid=study_uid,
        inputs=model_input.inputs,
        findings=tuple(findings),
        substitutions=model_input.substitutions,
        notes=(*model_input.notes, *_notes(package, grid, absent)),
    )
    mask = Mask(labels=labels, series_uid=reference.series_uid, frames=reference.frames)
    return Outcome(analysis=analysis, mask=mask)


def choose_labels(
    package: ModelPackage, probabilities: npt.NDArray[np.float32], grid: GridChange
) -> npt.NDArray[np.uint8]:
    """Return the label of every voxel: the most probable one, where that reaches its threshold.

    With softmax, a voxel whose background is more probable than any label has none: the background is what
    the labels leave of 1.

    Parameters
    ----------
    package : ModelPackage
        Its thresholds, smallest region and options hold; regions are counted at the network's grid.
    probabilities : ndarray
        (labels, D, H, W) float32.
    grid : GridChange
        Between the network's grid and this one.

    Returns
    -------
    ndarray
        (D, H, W) uint8, values of the card's labels, 0 for none.
    """
    card = package.card
    best = probabilities.max(axis=0)
    winner = probabilities.argmax(axis=0)
    is_marked = np.ones(best.shape, dtype=np.bool_)
    if card.network.activation == "softmax":
        is_marked = best > 1.0 - probabilities.sum(axis=0)
    label_map = np.zeros(best.shape, dtype=np.uint8)
    fewest = card.min_component_voxels * np.prod(grid.source) / np.prod(grid.target)
    keeps_largest = bool(card.options.get(KEEP_LARGEST))
    for label in card.labels:
        region = (winner == label.value - 1) & is_marked
        if card.network.activation != "softmax" or label.threshold is not None:
            region &= best >= card.threshold_of(label)
        label_map[_significant(region, fewest, keeps_largest=keeps_largest)] = label.value
    return label_map


def _significant(
    region: npt.NDArray[np.bool_], fewest: float, *, keeps_largest: bool
) -> npt.NDArray[np.bool_]:
    """Return the pieces of a region that count."""
    if not region.any() or (fewest <= 1 and not keeps_largest):
        return region
    components, sizes = label_components(region)
    is_kept = np.concatenate(([False], sizes >= fewest))
    if keeps_largest:
        is_kept &= np.arange(len(is_kept)) == 1 + int(sizes.argmax())
    return np.asarray(is_kept[components], dtype=np.bool_)


def _describe(
    number: int,
    label: LabelCard,
    region: npt.NDArray[np.bool_],
    probability: npt.NDArray[np.float32],
    reference: Volume,
) -> Finding:
    return Finding(
        finding_id=f"F{number}",
        concept=label.concept,
        site=label.site,
        presence=Presence.PRESENT,
        segment_number=number,
        confidence=float(probability[region].mean(dtype=np.float64)),
        measurements=(
            Measurement(quantity=Quantity.VOLUME, value=volume_ml(region, reference.affine), unit="mL"),
        ),
        key_frame=reference.frames[key_slice(region)],
    )


def _notes(package: ModelPackage, grid: GridChange, absent: list[str]) -> tuple[str, ...]:
    """Return what a reader must know about the answer as a whole."""
    notes = []
    if len(absent) == len(package.card.labels):
        notes.append(f"{package.card.title} marked no region. This does not exclude disease.")
    elif absent:
        notes.append(f"{package.card.title} did not mark: {', '.join(absent)}.")
    if tuple(grid.source[axis] for axis in grid.order) != grid.target:
        notes.append(
            "Volumes were measured on the original images from a mask found at the network's spacing."
        )
    return tuple(notes)


def _reference(package: ModelPackage, volumes: Mapping[str, Volume]) -> Volume:
    missing = [role.name for role in package.card.input.roles if role.required and role.name not in volumes]
    if missing:
        raise MissingInputError(
            f"The study has no usable series for the role {', '.join(missing)} of {package.card.name}: "
            "acquire it, or name its series description in the model's card or the routing rules."
        )
    return volumes[package.card.input.reference.name]


def _shape(volume: Volume) -> tuple[int, int, int]:
    depth, height, width = volume.array.shape
    return depth, height, width
