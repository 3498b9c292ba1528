"""Adapter: the training recipe of the slice segmentation network: losses, augmentation, loop, checkpoints.

It reads a data set, writes checkpoints and prints progress. What the scores mean is in `metrics`, how a
volume becomes network input in `inference.preparation`. Nothing here runs in the node.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from inference.networks.encoder_attention_unet import EncoderAttentionUNet
from inference.packages import BUILTIN_NETWORKS
from inference.preparation import context_indices, stack_context
from inference.training.augmentation import Crop, MissingSequences, SliceAugmenter
from inference.training.devices import device_of, training_device
from inference.training.evaluation import DecisionRule, channels_last, predict_probabilities
from inference.training.lgg import (
    FLAIR,
    LggCase,
    cache_path,
    prepare_case,
    read_cases,
    read_institutions,
    split_patients,
)
from inference.training.metrics import dice
from inference.training.pretrained import load_encoder
from inference.training.run_files import (
    BEST,
    CHECKPOINT,
    HISTORY,
    append_history,
    load_checkpoint,
    plot_curves,
    save_checkpoint,
    write_json,
)
from inference.training.schedule import contiguous, follow, one_cycle

"""Name of the best weights in a run folder."""

_WARM_UP: Final = 0.1
"""Share of the run in which the learning rate rises."""

_SLICE_SMOOTHING: Final = 20.0
"""Pixels added to a slice's overlap and areas: a few pixels on a tumour-free slice are no catastrophe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of the training at one resolution.

    Attributes
    ----------
    epochs : int
        Number of epochs.
    crop : Crop
        Part of the slice that is drawn, and how finely.
    """

    epochs: int
    crop: Crop


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Everything that a run depends on besides the data.

    Attributes
    ----------
    network : str
        Name of a built-in network (`inference.packages.BUILTIN_NETWORKS`).
    arguments : dict
        Its constructor arguments, as the card will name them.
    context : int
        Neighbouring slices on each side that the network sees with a slice.
    stages : tuple[Stage, ...]
        Crops in order. Patches of 192 pixels, not the whole slice, take half the time and lose no accuracy.
    batch_size : int
        Slices a step.
    peak_rate, encoder_rate, weight_decay, clip_norm : float
        AdamW's peak learning rate (one cycle) and that of a pretrained encoder, its decoupled decay, and the
        gradient norm limit.
    focal_gamma : float
        Exponent by which easy pixels count less in the cross-entropy; 0 is plain cross-entropy.
    average_decay : float
        Decay a step of the exponential moving average of the weights, which is what is validated and kept.
    tumour_free_share : float
        Tumour-free slices drawn an epoch, as a share of the tumour slices.
    flair_alone_probability, channel_dropout_probability : float
        Probability that both other sequences are replaced by FLAIR, and else, that each one is.
    validation_epochs : int
        Epochs between validations.
    patience_epochs : int
        Epochs of the last stage without a better validation Dice after which the run ends.
    seed : int
        Seed of the weights, the draws and the augmentation.
    """

    network: str = "encoder_attention_unet"
    arguments: dict[str, Any] = field(
        default_factory=lambda: {"in_channels": 9, "out_channels": 1, "dropout": 0.1}
    )
    context: int = 1
    stages: tuple[Stage, ...] = (Stage(epochs=16, crop=Crop(matrix=192, span_px=192)),)
    batch_size: int = 16
    peak_rate: float = 1e-3
    encoder_rate: float = 3e-4
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    focal_gamma: float = 0.0
    average_decay: float = 0.995
    tumour_free_share: float = 0.7
    flair_alone_probability: float = 0.1
    channel_dropout_probability: float = 0.07
    validation_epochs: int = 2
    patience_epochs: int = 10
    seed: int = 20261122


class SegmentationLoss(nn.Module):
    """Binary cross-entropy (focal if asked) plus one minus Dice, in equal parts.

    Dice is the mean of the batch's, in which large lesions count most, and the slices', in which a small
    lesion counts as much as a large one and anything marked on a tumour-free slice counts against it.

    Parameters
    ----------
    focal_gamma : float
        Exponent of the focal term; 0 is plain cross-entropy.
    """

    def __init__(self, focal_gamma: float = 0.0) -> None:
        super().__init__()
        self._focal_gamma = focal_gamma

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Score logits against a mask.

        Parameters
        ----------
        logits, target : torch.Tensor
            (N, 1, H, W) float32 logits, and zeros and ones.

        Returns
        -------
        torch.Tensor
            Scalar loss.
        """
        probability = torch.sigmoid(logits)
        common = (probability * target).sum((1, 2, 3))
        marked = (probability + target).sum((1, 2, 3))
        batch_dice = (2.0 * common.sum() + 1.0) / (marked.sum() + 1.0)
        slice_dice = ((2.0 * common + _SLICE_SMOOTHING) / (marked + _SLICE_SMOOTHING)).mean()
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self._focal_gamma > 0.0:
            entropy = entropy * (probability - target).abs() ** self._focal_gamma
        return entropy.mean() + 1.0 - (batch_dice + slice_dice) / 2.0


@dataclass(slots=True, kw_only=True)
class _State:
    """What a resumed run continues from."""

    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.AdamW
    epoch: int = 0
    step: int = 0
    best_dice: float = 0.0
    best_epoch: int = -1

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "network": self.network,
            "average": self.average,
            "optimiser": self.optimiser,
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint, complete or not at all."""
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "best_epoch": self.best_epoch,
            "best_dice": self.best_dice,
        }
        save_checkpoint(path, self._parts, values)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        for name, value in load_checkpoint(path, self._parts, device_of(self.network)).items():
            setattr(self, name, value)

    def is_stale(self, patience_epochs: int) -> bool:
        """Whether the best weights are older than the patience."""
        return self.best_epoch >= 0 and self.epoch - 1 - self.best_epoch >= patience_epochs


def train(
    config: TrainingConfig, data: Path, out: Path, *, resume: bool = False, encoder: Path | None = None
) -> Path:
    """Train the network and keep the weights with the best mean per-patient validation Dice.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    data : Path
        Folder of the LGG data set.
    out : Path
        Run folder: `config.json`, `split.json`, `history.jsonl`, `curves.png`, `checkpoint.pt`,
        `best.safetensors`.
    resume : bool
        Whether to continue from the run folder's checkpoint, if there is one.
    encoder : Path or None
        ImageNet weights of the network's encoder to begin with (`inference.training.pretrained`).

    Returns
    -------
    Path
        The best weights (float32, safetensors).

    Raises
    ------
    DataFolderError
        If the folder does not hold the data set.
    PretrainedWeightsError
        If the encoder's weights are of another architecture.
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    split = split_patients(read_institutions(data))
    write_json(out / "config.json", config)
    write_json(out / "split.json", split)
    cache = cache_path(data, out.parent)
    pool = _pool(read_cases(data, split.training, cache), config.context)
    validation = [
        (stack_context(prepare_case(case), config.context), case.masks)
        for case in read_cases(data, split.validation, cache)
    ]
    console.print(
        f"{len(split.training)} training patients, {len(pool.images)} slices, "
        f"{int(pool.is_tumour.sum())} with tumour; {len(validation)} validation patients"
    )
    state = _start(config, encoder)
    if resume and (out / CHECKPOINT).exists():
        state.load(out / CHECKPOINT)
        console.print(f"resumed after epoch {state.epoch}")
    else:
        (out / HISTORY).unlink(missing_ok=True)
    schedule = [stage for stage in config.stages for _ in range(stage.epochs)]
    while state.epoch < len(schedule) and not state.is_stale(config.patience_epochs):
        record = _run_epoch(config, state, pool, validation, schedule[state.epoch])
        if state.best_epoch == state.epoch - 1:
            save_file(contiguous(state.average), out / BEST)
        append_history(out, record)
        plot_curves(out, losses=("loss",), scores=("dice",))
        state.save(out / CHECKPOINT)
        console.print(" ".join(f"{key} {value:.4g}" for key, value in record.items()))
    return out / BEST


def _run_epoch(
    config: TrainingConfig,
    state: _State,
    pool: _SlicePool,
    validation: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]],
    stage: Stage,
) -> dict[str, float]:
    """Train and validate one epoch, remember in the state whether it is the best, and return its record."""
    is_last_stage = stage == config.stages[-1]
    started = time.monotonic()
    record: dict[str, float] = {"epoch": state.epoch, "matrix": stage.crop.matrix}
    record["loss"] = _train_epoch(config, state, pool, stage)
    record["seconds"] = round(time.monotonic() - started, 1)
    if (state.epoch + 1) % config.validation_epochs == 0:
        record["dice"] = _validate(state.average, validation)
        if is_last_stage and (state.best_epoch < 0 or record["dice"] > state.best_dice):
            state.best_dice, state.best_epoch = record["dice"], state.epoch
    state.epoch += 1
    return record


def _start(config: TrainingConfig, encoder: Path | None) -> _State:
    """Build the network, its moving average and the optimiser."""
    torch.manual_seed(config.seed)
    network = BUILTIN_NETWORKS[config.network](config.arguments)
    if encoder is not None:
        load_encoder(network.get_submodule("encoder"), encoder, slices=2 * config.context + 1)
    network.to(training_device())
    channels_last(network)
    groups: list[dict[str, Any]] = []
    for is_encoder, rate in ((True, config.encoder_rate), (False, config.peak_rate)):
        for is_decayed, decay in ((True, config.weight_decay), (False, 0.0)):
            weights = [
                weight
                for name, weight in network.named_parameters()
                if (weight.ndim > 1) == is_decayed
                and (encoder is not None and name.startswith("encoder.")) == is_encoder
            ]
            groups.append({"params": weights, "peak": rate, "weight_decay": decay})
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=config.peak_rate)
    return _State(network=network, average=deepcopy(network).eval(), optimiser=optimiser)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SlicePool:
    """All training slices, and which of them each one is seen with.

    (N, 3, 256, 256) float16 images, (N, 1, 256, 256) bool masks, (N, 2 * context + 1) neighbours, (N,) which
    slices hold tumour, and (N,) whose they are.
    """

    images: torch.Tensor
    masks: torch.Tensor
    neighbours: torch.Tensor
    is_tumour: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.int64]

    def take(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, slices * 3, 256, 256) float32 images and (N, 1, 256, 256) float32 masks."""
        seen = self.images[self.neighbours[chosen]]
        return seen.flatten(1, 2).float(), self.masks[chosen].float()


def _pool(cases: Sequence[LggCase], context: int) -> _SlicePool:
    """Prepare cases and pool their slices."""
    images = np.concatenate([prepare_case(case).astype(np.float16) for case in cases])
    masks = np.concatenate([case.masks for case in cases])
    starts = np.cumsum([0, *(len(case.masks) for case in cases)])
    neighbours = [
        start + context_indices(len(case.masks), context) for start, case in zip(starts, cases, strict=False)
    ]
    return _SlicePool(
        images=torch.from_numpy(images),
        masks=torch.from_numpy(masks[:, None]),
        neighbours=torch.from_numpy(np.concatenate(neighbours)),
        is_tumour=np.asarray(masks.any(axis=(1, 2)), dtype=np.bool_),
        patients=np.repeat(np.arange(len(cases)), [len(case.masks) for case in cases]),
    )


def _draw_slices(config: TrainingConfig, pool: _SlicePool, epoch: int) -> npt.NDArray[np.int64]:
    """Draw an epoch's slices in random order: as many tumour slices as there are, and tumour-free ones.

    A tumour slice is drawn the rarer, the more of them its patient has: a patient's weight grows with the
    square root of that number, between every patient alike and every slice alike.
    """
    draws = np.random.default_rng((config.seed, epoch))
    with_tumour, without = np.flatnonzero(pool.is_tumour), np.flatnonzero(~pool.is_tumour)
    counts = np.bincount(pool.patients[with_tumour])
    weights = 1.0 / np.sqrt(counts[pool.patients[with_tumour]])
    drawn = draws.choice(with_tumour, len(with_tumour), p=weights / weights.sum())
    count = min(len(without), round(config.tumour_free_share * len(with_tumour)))
    return draws.permutation(np.concatenate((drawn, draws.choice(without, count, replace=False))))


def _batches(
    pool: _SlicePool, order: npt.NDArray[np.int64], batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield whole batches in order, as float32."""
    for start in range(0, len(order) - batch_size + 1, batch_size):
        chosen = torch.from_numpy(order[start : start + batch_size])
        yield pool.take(chosen)


def _train_epoch(config: TrainingConfig, state: _State, pool: _SlicePool, stage: Stage) -> float:
    """Train one epoch and return its mean loss. The epoch's draws depend on the seed and its number only."""
    torch.manual_seed(config.seed + state.epoch)
    missing = MissingSequences(
        flair=FLAIR, all_others=config.flair_alone_probability, each=config.channel_dropout_probability
    )
    generator = torch.Generator().manual_seed(config.seed + state.epoch)
    augment = SliceAugmenter(missing, generator, slices=2 * config.context + 1)
    score = SegmentationLoss(config.focal_gamma)
    order = _draw_slices(config, pool, state.epoch)
    total_steps = len(order) // config.batch_size * sum(each.epochs for each in config.stages)
    device = device_of(state.network)
    state.network.train()
    losses = []
    for batch in _batches(pool, order, config.batch_size):
        inputs, targets = augment(*batch, stage.crop)
        for group in state.optimiser.param_groups:
            group["lr"] = one_cycle(state.step / total_steps, _WARM_UP) * group["peak"]
        with torch.autocast(device.type, torch.bfloat16):
            scales = _forward(state.network, inputs.to(device, memory_format=torch.channels_last))
        loss = _supervise(score, scales, targets.to(device))
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # missing from torch's stub
        nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
        state.optimiser.step()
        state.step += 1
        follow(state.average, state.network, min(config.average_decay, (1 + state.step) / (10 + state.step)))
        losses.append(loss.item())
    return float(np.mean(losses))


def _forward(network: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return the network's logits, at several resolutions if it gives them, the finest first."""
    if isinstance(network, EncoderAttentionUNet):
        return network.forward_scales(inputs)
    return [network(inputs)]


def _supervise(score: SegmentationLoss, scales: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Score the logits of every resolution, each coarser one half as much as the one before."""
    loss = torch.zeros((), device=target.device)
    for depth, logits in enumerate(scales):
        coarse = functional.adaptive_max_pool2d(target, logits.shape[-2:]) if depth else target
        loss = loss + 0.5**depth * score(logits.float(), coarse)
    return loss


def _validate(
    network: nn.Module, cases: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
) -> float:
    """Mean per-patient Dice at threshold 0.5 on the prepared slices' matrix."""
    rule = DecisionRule()
    predictions = (predict_probabilities(network, slices, reduced=True) for slices, _ in cases)
    return float(
        np.mean([dice(rule.decide(maps), masks) for maps, (_, masks) in zip(predictions, cases, strict=True)])
    )
