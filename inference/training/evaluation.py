"""Adapter: scores a segmentation network on a data set's patients, and reads and writes its model package.

What is scored is what the node runs: the shipped weights, in float32, with the card's threshold and component
size. The scores themselves are defined in `metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from inference.components import remove_small_components
from inference.packages import load_package
from inference.preparation import stack_context
from inference.training.devices import device_of
from inference.training.lgg import LggCase, prepare_case
from inference.training.metrics import (
    Interval,
    bootstrap_interval,
    dice,
    false_positive_slices,
    hausdorff_95_px,
    intersection_over_union,
)

_THRESHOLDS: Final = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
_MIN_COMPONENT_VOXELS: Final = (1, 50, 100)
"""At 100 voxels, the smallest lesion that can be reported is about 11 mm wide in one 1 mm slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRule:
    """How probabilities become a mask.

    Attributes
    ----------
    threshold : float
        A voxel at or above this probability belongs to the mask.
    min_component_voxels : int
        Smaller face-connected components are dropped.
    """

    threshold: float = 0.5
    min_component_voxels: int = 1

    def decide(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Turn (D, H, W) probabilities into a (D, H, W) mask."""
        return remove_small_components(probabilities >= self.threshold, self.min_component_voxels)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientScore:
    """One patient's scores.

    Attributes
    ----------
    patient_id, institution : str
        Who.
    dice, iou : float
        Of the whole volume.
    hd95_px : float
        95th percentile in-plane outline distance, pixels; infinite when the lesion was missed.
    reference_voxels, predicted_voxels, common_voxels : int
        Sizes of the reference, of the prediction and of their intersection.
    false_positive_slices, tumour_free_slices : int
        Tumour-free slices that were marked, and tumour-free slices.
    """

    patient_id: str
    institution: str
    dice: float
    iou: float
    hd95_px: float
    reference_voxels: int
    predicted_voxels: int
    common_voxels: int
    false_positive_slices: int
    tumour_free_slices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of one network on a set of patients with one kind of input.

    Attributes
    ----------
    sequences : str
        Which sequences the network was given.
    scores : tuple[PatientScore, ...]
        One a patient.
    """

    sequences: str
    scores: tuple[PatientScore, ...]

    @property
    def dice(self) -> Interval:
        """Mean per-patient Dice with its 95 % interval."""
        return bootstrap_interval([score.dice for score in self.scores])

    @property
    def iou(self) -> Interval:
        """Mean per-patient intersection over union with its 95 % interval."""
        return bootstrap_interval([score.iou for score in self.scores])

    @property
    def pooled_dice(self) -> float:
        """Dice of all patients' voxels together, comparable with reports that pool slices."""
        sizes = sum(score.reference_voxels + score.predicted_voxels for score in self.scores)
        return 2.0 * sum(score.common_voxels for score in self.scores) / max(sizes, 1)

    @property
    def median_hd95_px(self) -> float:
        """Median over patients of the outline distance, pixels."""
        return float(np.median([score.hd95_px for score in self.scores]))

    @property
    def false_positive_slice_rate(self) -> float:
        """Share of the tumour-free slices that were marked."""
        marked = sum(score.false_positive_slices for score in self.scores)
        return marked / max(sum(score.tumour_free_slices for score in self.scores), 1)

    @property
    def dice_by_institution(self) -> dict[str, Interval]:
        """Mean per-patient Dice by institution."""
        institutions = sorted({score.institution for score in self.scores})
        return {
            name: bootstrap_interval([score.dice for score in self.scores if score.institution == name])
            for name in institutions
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedNetwork:
    """A model package as far as its evaluation needs it.

    Attributes
    ----------
    network : nn.Module
        In evaluation mode, float32, channels last.
    rule : DecisionRule
        The card's threshold and component size.
    context : int
        Neighbouring slices on each side.
    mirror : bool
        Whether mirrored slices are read too.
    """

    network: nn.Module
    rule: DecisionRule
    context: int = 0
    mirror: bool = False


def channels_last(network: nn.Module) -> None:
    """Lay a network's weights out channels last, in place: the faster layout for two-dimensional slices."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stub


def predict_probabilities(
    network: nn.Module,
    slices: npt.NDArray[np.float32],
    *,
    batch_size: int = 8,
    reduced: bool = False,
    mirror: bool = False,
) -> npt.NDArray[np.float32]:
    """Predict a prepared volume slice by slice.

    The last batch is filled up with empty slices: kernels are chosen by the batch's shape, so only batches of
    one size give a slice the same bits whichever slices are beside it.

    Parameters
    ----------
    network : nn.Module
        Network in evaluation mode.
    slices : npt.NDArray[np.float32]
        (D, C, S, S) prepared slices with their context.
    batch_size : int
        Slices at a time; another number may change the last bits.
    reduced : bool
        Whether to compute in bfloat16, for validation during training; the node computes in float32.
    mirror : bool
        Whether to average with the prediction of the mirrored slices.

    Returns
    -------
    npt.NDArray[np.float32]
        (D, S, S) probabilities.
    """
    if mirror:
        sides = [
            predict_probabilities(network, view, batch_size=batch_size, reduced=reduced)
            for view in (slices, np.ascontiguousarray(slices[..., ::-1]))
        ]
        return np.asarray((sides[0] + sides[1][..., ::-1]) / 2, dtype=np.float32)
    parts: list[npt.NDArray[np.float32]] = []
    device = device_of(network)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        for start in range(0, len(slices), batch_size):
            part = slices[start : start + batch_size]
            filled = np.zeros((batch_size, *slices.shape[1:]), dtype=np.float32)
            filled[: len(part)] = part
            logits = network(torch.from_numpy(filled).to(device, memory_format=torch.channels_last))
            parts.append(torch.sigmoid(logits.float())[: len(part), 0].cpu().numpy())
    return np.concatenate(parts)


def score_patient(case: LggCase, predicted: npt.NDArray[np.bool_]) -> PatientScore:
    """Score one patient's predicted mask, (D, H, W), against the reference."""
    marked, free = false_positive_slices(predicted, case.masks)
    return PatientScore(
        patient_id=case.patient_id,
        institution=case.institution,
        dice=dice(predicted, case.masks),
        iou=intersection_over_union(predicted, case.masks),
        hd95_px=hausdorff_95_px(predicted, case.masks),
        reference_voxels=int(case.masks.sum()),
        predicted_voxels=int(predicted.sum()),
        common_voxels=int((predicted & case.masks).sum()),
        false_positive_slices=marked,
        tumour_free_slices=free,
    )


def evaluate(packaged: PackagedNetwork, cases: Iterable[LggCase], *, flair_alone: bool = False) -> Evaluation:
    """Score a packaged network on patients.

    Parameters
    ----------
    packaged : PackagedNetwork
        Network and decision rule.
    cases : Iterable[LggCase]
        Patients, none of whom was trained on.
    flair_alone : bool
        Whether the network is given FLAIR in place of the other sequences.

    Returns
    -------
    Evaluation
        Scores of every patient.
    """
    scores = []
    for case in cases:
        slices = stack_context(prepare_case(case, flair_alone=flair_alone), packaged.context)
        probabilities = predict_probabilities(packaged.network, slices, mirror=packaged.mirror)
        scores.append(score_patient(case, packaged.rule.decide(probabilities)))
    return Evaluation(sequences="FLAIR alone" if flair_alone else "all sequences", scores=tuple(scores))


def choose_rule(
    probabilities: Sequence[npt.NDArray[np.float32]], masks: Sequence[npt.NDArray[np.bool_]]
) -> tuple[DecisionRule, dict[DecisionRule, float]]:
    """Choose the decision rule with the best mean Dice on validation volumes.

    Parameters
    ----------
    probabilities : Sequence[npt.NDArray[np.float32]]
        (D, H, W) per volume.
    masks : Sequence[npt.NDArray[np.bool_]]
        (D, H, W) references, in the same order.

    Returns
    -------
    tuple[DecisionRule, dict[DecisionRule, float]]
        The best rule, and the mean Dice of every rule that was tried.
    """
    table = {}
    for threshold, voxels in product(_THRESHOLDS, _MIN_COMPONENT_VOXELS):
        rule = DecisionRule(threshold=threshold, min_component_voxels=voxels)
        pairs = zip(probabilities, masks, strict=True)
        table[rule] = float(np.mean([dice(rule.decide(maps), mask) for maps, mask in pairs]))
    return max(table, key=lambda rule: table[rule]), table


def read_package(folder: Path) -> PackagedNetwork:
    """Read a network and its decision rule from a model package.

    Parameters
    ----------
    folder : Path
        Folder with `model.yaml` and the weights it names.

    Returns
    -------
    PackagedNetwork
        Ready to evaluate.

    Raises
    ------
    ModelPackageError
        If the card or the weights are not usable.
    """
    package = load_package(folder)
    network = package.build()
    channels_last(network)
    rule = DecisionRule(
        threshold=package.card.threshold, min_component_voxels=package.card.min_component_voxels
    )
    return PackagedNetwork(
        network=network,
        rule=rule,
        context=package.card.input.context,
        mirror=package.card.test_time_mirror,
    )
