"""Adapter: trains whole-image classifiers: augmentation, loss, loop, checkpoints.

What the labels are and where images come from is the recipes' matter (`chest_labels`, `head_ct`); what scores
mean is in `classification_metrics`. Nothing here runs in the node.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from inference.networks.classifiers import Classifier, EncoderClassifier, ResNet50Classifier
from inference.radiograph_preparation import BLACK
from inference.training.devices import device_of, training_device
from inference.training.keras_resnet import load_keras_resnet50
from inference.training.pretrained import load_encoder
from inference.training.run_files import (
    BEST,
    CHECKPOINT,
    HISTORY,
    append_history,
    load_checkpoint,
    plot_curves,
    save_checkpoint,
)
from inference.training.schedule import follow, one_cycle
from inference.training.tfjs import read_tfjs_weights

_WARM_UP: Final = 0.15
"""Share of the run in which the learning rate rises."""

_DARKEST, _BRIGHTEST = -2.5, 2.5
"""Range of augmented standardised grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How much a training image is changed; every change is drawn anew each time it is seen.

    Attributes
    ----------
    mirror : bool
        Whether left and right are exchanged in every second image.
    rotation_degrees, scale, shift : float
        Largest rotation, largest change of size (share), largest shift (share of the image).
    contrast, brightness : float
        Largest change of contrast (share) and of standardised grey.
    """

    mirror: bool = True
    rotation_degrees: float = 10.0
    scale: float = 0.15
    shift: float = 0.06
    contrast: float = 0.25
    brightness: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the training images.
    batch_size : int
        Images a step.
    peak_rate, pretrained_rate : float
        AdamW's largest learning rate (one cycle) of new layers and of pretrained ones.
    frozen : tuple of str
        Submodules that keep their pretrained weights and statistics, which saves their gradients' time.
    weight_decay, clip_norm : float
        Decoupled decay of matrices, and limit of the gradient's norm.
    label_smoothing : float
        Share by which targets move to one half: text-mined labels are about 90 % right.
    box_weight : float
        Weight of the loss that asks where a label lies; it needs boxes.
    average_decay : float
        Decay a step of the exponential moving average of the weights, which is what is validated and kept.
    patience_epochs : int
        Epochs without a better validation score after which the run ends.
    """

    epochs: int
    batch_size: int = 16
    peak_rate: float = 3e-4
    pretrained_rate: float = 1e-4
    frozen: tuple[str, ...] = ()
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    box_weight: float = 0.0
    average_decay: float = 0.99
    patience_epochs: int = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Prepared images with their truth.

    Attributes
    ----------
    images : ndarray
        (N, C, S, S) float16 standardised grey.
    targets : ndarray
        (N, L) bool, which labels are there.
    patients : tuple of str
        (N,) patient, or group of near-duplicates, of each image.
    places : ndarray or None
        (N, L, s, s) bool, the parts of the image inside a box of the label.
    is_placed : ndarray or None
        (N, L) bool, whether ``places`` is the truth: the label is absent, or present with boxes.
    """

    images: npt.NDArray[np.float16]
    targets: npt.NDArray[np.bool_]
    patients: tuple[str, ...]
    places: npt.NDArray[np.bool_] | None = None
    is_placed: npt.NDArray[np.bool_] | None = None

    def take(self, chosen: npt.NDArray[np.int64]) -> Examples:
        """Return some of the examples, in the order asked for."""
        return Examples(
            images=self.images[chosen],
            targets=self.targets[chosen],
            patients=tuple(self.patients[index] for index in chosen),
            places=None if self.places is None else self.places[chosen],
            is_placed=None if self.is_placed is None else self.is_placed[chosen],
        )


@dataclass(slots=True, kw_only=True)
class _State:
    """What a resumed run continues from."""

    network: Classifier
    average: Classifier
    locator: nn.Conv2d
    optimiser: torch.optim.AdamW
    epoch: int = 0
    step: int = 0
    best_score: float = -math.inf
    best_epoch: int = -1

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "network": self.network,
            "average": self.average,
            "locator": self.locator,
            "optimiser": self.optimiser,
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint, complete or not at all."""
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
        }
        save_checkpoint(path, self._parts, values)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        for name, value in load_checkpoint(path, self._parts, device_of(self.network)).items():
            setattr(self, name, value)


Score = Callable[[npt.NDArray[np.float32], Examples], dict[str, float]]
"""From (N, L) validation logits to figures for the history; ``score`` among them chooses the best epoch."""


def fit(
    network: Classifier,
    training: Examples,
    validation: Examples | None,
    score: Score,
    out: Path,
    *,
    schedule: Schedule,
    augmentation: Augmentation,
    seed: int,
    resume: bool = False,
) -> Path:
    """Train a classifier and keep the averaged weights with the best validation score.

    Positive images of a label count as the square root of how rare they are, at most five times; afterwards
    the head's bias is set back by as much, so that probabilities are those of the data set.

    Parameters
    ----------
    network : Classifier
        Begun from pretrained weights, or not.
    training, validation : Examples
        Of different patients. Without validation the weights of the last epoch are kept, so that what is
        scored afterwards had no say in the choice.
    score : callable
        Scores the validation logits.
    out : Path
        Run folder: ``history.jsonl``, ``curves.png``, ``checkpoint.pt``, ``best.safetensors``.
    resume : bool
        Whether to continue from the run folder's checkpoint, if there is one.

    Returns
    -------
    Path
        The best weights (float32, safetensors).
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    state = _start(network, schedule, training.targets.shape[1])
    if resume and (out / CHECKPOINT).exists():
        state.load(out / CHECKPOINT)
        console.print(f"resumed after epoch {state.epoch}")
    else:
        (out / HISTORY).unlink(missing_ok=True)
    weights = positive_weights(training.targets)
    while state.epoch < schedule.epochs and state.epoch - state.best_epoch <= schedule.patience_epochs:
        started = time.monotonic()
        record: dict[str, float] = {"epoch": state.epoch}
        record |= _train_epoch(state, training, schedule, augmentation, seed)
        record["seconds"] = round(time.monotonic() - started, 1)
        if validation is None:
            record["score"] = float(state.epoch)
        else:
            record |= score(predict_logits(state.average, validation.images, reduced=True), validation)
        if record["score"] > state.best_score:
            state.best_score, state.best_epoch = record["score"], state.epoch
            save_file(_calibrated_weights(state.average, weights), out / BEST)
        state.epoch += 1
        append_history(out, record)
        state.save(out / CHECKPOINT)
        plot_curves(out, losses=("loss", "box_loss"), scores=("score",))
        console.print(" ".join(f"{key} {value:.4g}" for key, value in record.items()))
    return out / BEST


def begin(network: Classifier, path: Path) -> None:
    """Begin a classifier from ImageNet weights.

    Parameters
    ----------
    network : Classifier
        A ResNet-50 or a timm encoder.
    path : Path
        Keras' ResNet-50 as TensorFlow.js weights, or the encoder's PyTorch state dict.

    Raises
    ------
    TensorFlowJsError, PretrainedWeightsError
        If the file does not fit.
    """
    if isinstance(network, ResNet50Classifier):
        load_keras_resnet50(network, read_tfjs_weights(path))
    elif isinstance(network, EncoderClassifier):
        load_encoder(network.encoder, path)


def predict_logits(
    network: nn.Module,
    images: npt.NDArray[np.floating],
    *,
    batch_size: int = 4,
    reduced: bool = False,
    mirror: bool = False,
) -> npt.NDArray[np.float32]:
    """Return the (N, L) logits of prepared images.

    The last batch is filled up, so that an image has the same bits whichever are beside it.

    Parameters
    ----------
    network : nn.Module
        Classifier in evaluation mode.
    images : ndarray
        (N, C, S, S) prepared images.
    reduced : bool
        Whether to compute in bfloat16, for validation during training; the node computes in float32.
    mirror : bool
        Whether to average with the logits of the mirrored images.
    """
    if mirror:
        views = (images, np.ascontiguousarray(images[..., ::-1]))
        sides = [predict_logits(network, view, batch_size=batch_size, reduced=reduced) for view in views]
        return np.asarray((sides[0] + sides[1]) / 2, dtype=np.float32)
    parts: list[npt.NDArray[np.float32]] = []
    device = device_of(network)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            filled = np.zeros((batch_size, *images.shape[1:]), dtype=np.float32)
            filled[: len(part)] = part
            logits = network(torch.from_numpy(filled).to(device, memory_format=torch.channels_last))
            parts.append(logits.float()[: len(part)].cpu().numpy())
    return np.concatenate(parts)


def _start(network: Classifier, schedule: Schedule, labels: int) -> _State:
    """Lay out the network, freeze what is frozen, and build the average, the locator and the optimiser."""
    device = training_device()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub
    for name in schedule.frozen:
        network.get_submodule(name).requires_grad_(requires_grad=False)
    locator = nn.Conv2d(network.feature_channels, labels, kernel_size=1).to(device)
    nn.init.constant_(cast("torch.Tensor", locator.bias), -3.0)
    groups: list[dict[str, Any]] = []
    for is_new, rate in ((True, schedule.peak_rate), (False, schedule.pretrained_rate)):
        for is_decayed, decay in ((True, schedule.weight_decay), (False, 0.0)):
            parameters = [
                parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad
                and is_new_layer(name) == is_new
                and (parameter.ndim > 1) == is_decayed
            ]
            groups.append({"params": parameters, "peak": rate, "weight_decay": decay})
    if schedule.box_weight > 0.0:
        groups.append({"params": list(locator.parameters()), "peak": schedule.peak_rate, "weight_decay": 0.0})
    return _State(
        network=network,
        average=deepcopy(network).eval(),
        locator=locator,
        optimiser=torch.optim.AdamW([group for group in groups if group["params"]], lr=schedule.peak_rate),
    )


def is_new_layer(name: str) -> bool:
    """Whether a parameter belongs to what ImageNet weights do not have: heads and gates."""
    return any(part in {"head", "last_linear", "se_layer"} for part in name.split("."))


def positive_weights(targets: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Return (L,) weights of positive images: the square root of negatives a positive, 1 to 5."""
    positives = targets.sum(axis=0)
    ratio = (len(targets) - positives) / np.maximum(positives, 1)
    return torch.from_numpy(np.clip(np.sqrt(ratio), 1.0, 5.0).astype(np.float32))


def _calibrated_weights(network: nn.Module, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a copy of the weights whose head states the frequencies of the data set.

    Weighting positives by w multiplies the odds that a network learns by w: the bias takes the log off again.
    """
    stored = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    bias = next(name for name in reversed(stored) if name.endswith(("last_linear.bias", "head.bias")))
    stored[bias] -= weights.log()
    return stored


def _train_epoch(
    state: _State,
    training: Examples,
    schedule: Schedule,
    augmentation: Augmentation,
    seed: int,
) -> dict[str, float]:
    """Train one epoch and return its mean losses; its draws depend on the seed and its number only."""
    device = device_of(state.network)
    weights = positive_weights(training.targets).to(device)
    torch.manual_seed(seed + state.epoch)
    generator = torch.Generator().manual_seed(seed + state.epoch)
    order = np.random.default_rng((seed, state.epoch)).permutation(len(training.targets))
    steps = max(len(order) // schedule.batch_size, 1)
    total_steps = steps * schedule.epochs
    _train_mode(state.network, schedule.frozen)
    losses, box_losses = [], []
    for step in range(steps):
        batch = training.take(order[step * schedule.batch_size : (step + 1) * schedule.batch_size])
        images, places = augment(batch, augmentation, generator)
        for group in state.optimiser.param_groups:
            group["lr"] = one_cycle(state.step / total_steps, _WARM_UP) * group["peak"]
        targets = torch.from_numpy(batch.targets).float().to(device)
        smooth = targets * (1.0 - schedule.label_smoothing) + 0.5 * schedule.label_smoothing
        with torch.autocast(device.type, torch.bfloat16):
            maps = state.network.features(images.to(device, memory_format=torch.channels_last))
            logits = state.network.classify(maps)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), smooth, pos_weight=weights)
        losses.append(loss.item())
        if places is not None and batch.is_placed is not None and schedule.box_weight > 0.0:
            is_placed = torch.from_numpy(batch.is_placed).to(device)
            where = box_loss(state.locator(maps.float()), places.to(device), is_placed)
            box_losses.append(where.item())
            loss = loss + schedule.box_weight * where
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # missing from torch's stub
        nn.utils.clip_grad_norm_(state.network.parameters(), schedule.clip_norm)
        state.optimiser.step()
        state.step += 1
        follow(
            state.average, state.network, min(schedule.average_decay, (1 + state.step) / (10 + state.step))
        )
    record = {"loss": float(np.mean(losses))}
    return record | ({"box_loss": float(np.mean(box_losses))} if box_losses else {})


def _train_mode(network: Classifier, frozen: Sequence[str]) -> None:
    """Put a network into training mode, except what is frozen: that keeps its statistics too."""
    network.train()
    for name in frozen:
        network.get_submodule(name).eval()


def augment(
    batch: Examples, augmentation: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Change a batch at random, its boxes along with it.

    Returns
    -------
    tuple
        (N, C, S, S) float32 images, and (N, L, s, s) float32 places or None.
    """
    images = torch.from_numpy(np.ascontiguousarray(batch.images)).float()
    count = len(images)

    def draw() -> torch.Tensor:
        return torch.rand(count, generator=generator) * 2.0 - 1.0

    angle = torch.deg2rad(draw() * augmentation.rotation_degrees)
    size = 1.0 + draw() * augmentation.scale
    side = torch.where(draw() < 0.0, -1.0, 1.0) if augmentation.mirror else torch.ones(count)
    shift_x, shift_y = (2.0 * augmentation.shift * draw() for _ in range(2))
    rows = [
        torch.stack([side * angle.cos() * size, -angle.sin() * size, shift_x], dim=1),
        torch.stack([side * angle.sin() * size, angle.cos() * size, shift_y], dim=1),
    ]
    theta = torch.stack(rows, dim=1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images - BLACK, grid, align_corners=False) + BLACK
    contrast = 1.0 + draw() * augmentation.contrast
    brightness = draw() * augmentation.brightness
    moved = moved * contrast[:, None, None, None] + brightness[:, None, None, None]
    moved = moved.clamp(_DARKEST, _BRIGHTEST)
    if batch.places is None:
        return moved, None
    places = torch.from_numpy(batch.places).float()
    grid = functional.affine_grid(theta, list(places.shape), align_corners=False)
    return moved, functional.grid_sample(places, grid, align_corners=False)


def box_loss(logits: torch.Tensor, places: torch.Tensor, is_placed: torch.Tensor) -> torch.Tensor:
    """Score where labels are said to lie.

    Parameters
    ----------
    logits : torch.Tensor
        (N, L, h, w) logits of a label at each place of the last maps.
    places : torch.Tensor
        (N, L, s, s) 0 to 1, inside the label's boxes; a place counts as inside when any of it is.
    is_placed : torch.Tensor
        (N, L) bool, where the truth is known; labels that have a box nowhere in the batch still learn to be
        absent.
    """
    inside = functional.adaptive_max_pool2d(places, logits.shape[-2:])
    entropy = functional.binary_cross_entropy_with_logits(
        logits, inside, pos_weight=torch.tensor(_INSIDE_WEIGHT, device=logits.device), reduction="none"
    ).mean(dim=(2, 3))
    known = is_placed.float()
    return (entropy * known).sum() / known.sum().clamp_min(1.0)


_INSIDE_WEIGHT: Final = 4.0
"""How much a place inside a box counts: most places are outside."""
