"""Pure. How sure a slice segmentation is of what it outlined, and where it looked.

The network is lent by the runner; what is asked of it here costs extra passes, so only slices that hold a
finding are asked, and of a long finding some of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from inference.cards import LabelCard
from inference.explain import DEFAULT_BATCH_SIZE, grad_cam
from inference.familiarity import Familiarity, judge, pooled_features
from inference.findings import Caveat, Doubt, Finding, Heatmap
from inference.orientation import AxialTurn
from inference.packages import ModelPackage, ModelPackageError
from inference.preparation import place_masks, restore_slices
from inference.uncertainty import dropout_deviation
from inference.volume import Volume

MAX_SLICES_A_FINDING: Final = 5
"""Slices of one finding that Monte-Carlo dropout looks at, evenly spaced through it."""

FAMILIAR_SLICES: Final = 8
"""Slices that stand for a volume when its distance from the training images is taken."""

_MIDDLE: Final = (0.25, 0.75)
"""Part of the stack that these slices come from: the ends show little of the head."""

_MIN_PASSES: Final = 2
_SEED_BYTES: Final = 4


class Lender(Protocol):
    """Who lends a package's network."""

    def borrow(self, package: ModelPackage) -> AbstractContextManager[tuple[nn.Module, torch.device]]:
        """Lend the network in evaluation mode, with its device."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkView:
    """A study as the network sees it.

    Attributes
    ----------
    package : ModelPackage
        The model.
    slices : ndarray
        (D, C, MATRIX, MATRIX) float32 prepared slices.
    turn : AxialTurn
        Between the stored slices and the network's.
    reference : Volume
        The stored slices.
    """

    package: ModelPackage
    slices: npt.NDArray[np.float32]
    turn: AxialTurn
    reference: Volume

    def restore(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring (n, MATRIX, MATRIX) maps back onto the stored slices, (n, H, W)."""
        return self.turn.apply(restore_slices(maps, *self.reference.array.shape[1:]))


def familiar_indices(depth: int) -> npt.NDArray[np.int64]:
    """Return which slices of a stack of ``depth`` stand for it, for the node and for fitting alike."""
    first, last = (round(share * (depth - 1)) for share in _MIDDLE)
    return np.unique(np.linspace(first, last, FAMILIAR_SLICES).round().astype(np.int64))


def judge_familiarity(view: NetworkView, lender: Lender) -> tuple[Doubt, ...]:
    """Say whether the images are unlike those of the training; the median of the slices decides.

    Raises
    ------
    ModelPackageError
        If the card names a familiarity and no layer for it.
    """
    card = view.package.card.doubt.familiarity
    if card is None:
        return ()
    layer = card.layer or view.package.card.explanation_layer
    if layer is None:
        raise ModelPackageError(
            f"{view.package.card.name}: name doubt.familiarity.layer or explanation_layer on the card."
        )
    known = Familiarity.load(view.package.folder, card)
    with lender.borrow(view.package) as (network, device):
        features = pooled_features(
            network, view.slices[familiar_indices(len(view.slices))], layer, device=device
        )
    doubt = judge(float(np.median(known.distance(features))), card)
    return () if doubt is None else (doubt,)


def region_deviations(
    view: NetworkView, regions: Sequence[tuple[LabelCard, npt.NDArray[np.bool_]]], lender: Lender
) -> tuple[float | None, ...]:
    """Return how much dropout moves the probability within each region.

    Parameters
    ----------
    view : NetworkView
        The study.
    regions : sequence of label and ndarray
        (D, H, W) bool masks on the stored slices.
    lender : Lender
        Who lends the network.

    Returns
    -------
    tuple of float or None
        Mean over the region's voxels of their standard deviation over ``doubt.dropout_passes`` passes; None
        where the card asks for no passes. The same study gives the same numbers.
    """
    passes = view.package.card.doubt.dropout_passes
    if passes < _MIN_PASSES or not regions:
        return (None,) * len(regions)
    chosen = [_spread_slices(mask) for _, mask in regions]
    indices = np.unique(np.concatenate(chosen))
    images = view.slices[indices]
    seed = int.from_bytes(hashlib.sha256(images.tobytes()).digest()[:_SEED_BYTES], "big")
    divisors = torch.tensor(view.package.card.doubt.temperatures or (1.0,)).view(1, -1, 1, 1)
    with lender.borrow(view.package) as (network, device):
        batches = [
            torch.from_numpy(np.ascontiguousarray(images[start : start + DEFAULT_BATCH_SIZE])).to(
                device, memory_format=torch.channels_last
            )
            for start in range(0, len(images), DEFAULT_BATCH_SIZE)
        ]

        def forward() -> torch.Tensor:
            return torch.cat([torch.sigmoid(network(batch).float().cpu() / divisors) for batch in batches])

        _, deviation = dropout_deviation(network, forward, passes, seed)
    restored = np.stack([view.restore(maps) for maps in np.moveaxis(deviation, 1, 0)])
    place = {int(index): position for position, index in enumerate(indices)}
    means = []
    for (label, mask), slices in zip(regions, chosen, strict=True):
        values = [restored[label.value - 1, place[int(index)]][mask[index]] for index in slices]
        means.append(float(np.concatenate(values).mean(dtype=np.float64)))
    return tuple(means)


def _spread_slices(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return up to `MAX_SLICES_A_FINDING` slices of a region, evenly spaced through it."""
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    wanted = min(MAX_SLICES_A_FINDING, len(held))
    return np.asarray(held[np.linspace(0, len(held) - 1, wanted).round().astype(np.int64)], dtype=np.int64)


def wavering(package: ModelPackage, findings: Sequence[Finding]) -> tuple[Doubt, ...]:
    """Name the findings of which the network is not sure."""
    largest = package.card.doubt.largest_uncertainty
    if largest is None:
        return ()
    names = [finding.finding_id for finding in findings if (finding.uncertainty or 0.0) > largest]
    if not names:
        return ()
    verb = "is" if len(names) == 1 else "are"
    sentence = f"The outline of {', '.join(names)} {verb} uncertain; check it slice by slice."
    return (Doubt(caveat=Caveat.LOW_CONFIDENCE, sentence=sentence),)


def explain_region(
    view: NetworkView,
    label: LabelCard,
    mask: npt.NDArray[np.bool_],
    answer: str,
    lender: Lender,
) -> tuple[Heatmap, ...]:
    """Return where the network looked for one region, slice by slice.

    What is explained is the sum of the logits within the region (Seg-Grad-CAM, Vinogradova et al.,
    doi:10.1609/aaai.v34i10.7244). Each slice has its own scale.

    Parameters
    ----------
    view : NetworkView
        The study.
    label : LabelCard
        What the region is.
    mask : ndarray
        (D, H, W) bool on the stored slices.
    answer : str
        Finding id.
    lender : Lender
        Who lends the network.

    Returns
    -------
    tuple of Heatmap
        One on the frames that hold the region, or none where the card names no layer.
    """
    layer = view.package.card.explanation_layer
    if layer is None:
        return ()
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    inside = place_masks(view.turn.apply(mask[held].astype(np.float32)) > 0)
    with lender.borrow(view.package) as (network, device):
        maps = explain_masks(network, view.slices[held], inside, layer, label, device=device)
    return (
        Heatmap(
            values=view.restore(maps),
            series_uid=view.reference.series_uid,
            frames=tuple(view.reference.frames[index] for index in held),
            answer=answer,
        ),
    )


def explain_masks(
    network: nn.Module,
    slices: npt.NDArray[np.float32],
    masks: npt.NDArray[np.bool_],
    layer: str,
    label: LabelCard,
    *,
    device: torch.device | None = None,
) -> npt.NDArray[np.float32]:
    """Return the (n, S, S) Grad-CAM of the logits within (n, S, S) masks on (n, C, S, S) prepared slices."""
    parts = []
    for start in range(0, len(slices), DEFAULT_BATCH_SIZE):
        part = slice(start, start + DEFAULT_BATCH_SIZE)
        inside = torch.from_numpy(masks[part].astype(np.float32))

        def score(logits: torch.Tensor, inside: torch.Tensor = inside) -> torch.Tensor:
            weights = inside.to(logits.device)
            total = (logits[:, label.value - 1] * weights).sum(dim=(1, 2))
            return total / math.prod(inside.shape[1:])

        parts.append(grad_cam(network, slices[part], layer, score, device=device))
    return np.concatenate(parts)
