"""Adapter: the training recipe of the slice segmentation network: losses, augmentation, loop, checkpoints.

It reads a data set, writes checkpoints and prints progress. What the scores mean is in `metrics`, how a
volume becomes network input in `inference.preparation`. Nothing here runs in the node.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from inference.networks.encoder_attention_unet import EncoderAttentionUNet
from inference.packages import BUILTIN_NETWORKS
from inference.preparation import context_indices, stack_context
from inference.training.augmentation import Crop, MissingSequences, SliceAugmenter
from inference.training.evaluation import (
    WEIGHTS,
    DecisionRule,
    Evaluation,
    channels_last,
    choose_rule,
    evaluate,
    predict_probabilities,
    read_package,
    write_weights,
)
from inference.training.lgg import (
    FLAIR,
    LggCase,
    cache_path,
    prepare_case,
    read_cases,
    read_institutions,
    split_patients,
)
from inference.training.metrics import Interval, dice
from inference.training.pretrained import load_encoder

__all__ = ["SegmentationLoss", "Stage", "TrainingConfig", "app", "evaluate", "train"]

_WARM_UP: Final = 0.1
"""Share of the run in which the learning rate rises."""


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
        Crops in order; patches smaller than the slice come first.
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
        Tumour-free slices drawn an epoch, as a share of the tumour slices, which all are used.
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
    stages: tuple[Stage, ...] = (
        Stage(epochs=14, crop=Crop(matrix=192, span_px=192)),
        Stage(epochs=8, crop=Crop(matrix=256, span_px=256)),
    )
    batch_size: int = 16
    peak_rate: float = 1e-3
    encoder_rate: float = 3e-4
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    focal_gamma: float = 0.0
    average_decay: float = 0.995
    tumour_free_share: float = 0.5
    flair_alone_probability: float = 0.1
    channel_dropout_probability: float = 0.07
    validation_epochs: int = 2
    patience_epochs: int = 10
    seed: int = 20261122


class SegmentationLoss(nn.Module):
    """Binary cross-entropy (focal if asked) plus one minus the Dice coefficient of the batch, in equal parts.

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
        overlap = 2.0 * (probability * target).sum() + 1.0
        batch_dice = overlap / (probability.sum() + target.sum() + 1.0)
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self._focal_gamma > 0.0:
            entropy = entropy * (probability - target).abs() ** self._focal_gamma
        return entropy.mean() + 1.0 - batch_dice


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

    def save(self, path: Path) -> None:
        """Write the checkpoint, complete or not at all."""
        partial = path.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "counters": [self.epoch, self.step, self.best_epoch],
                "best_dice": self.best_dice,
            },
            partial,
        )
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        stored = torch.load(path, weights_only=True)
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.epoch, self.step, self.best_epoch = stored["counters"]
        self.best_dice = stored["best_dice"]

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
        Run folder: `config.json`, `split.json`, `history.jsonl`, `checkpoint.pt`, `best.safetensors`.
    resume : bool
        Whether to continue from the run folder's checkpoint, if there is one.
    encoder : Path or None
        ImageNet weights of the network's encoder to begin with (`inference.training.pretrained`).

    Returns
    -------
    Path
        The best weights (float32, safetensors).
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    split = split_patients(read_institutions(data))
    (out / "config.json").write_text(json.dumps(asdict(config), indent=2), encoding="utf-8")
    (out / "split.json").write_text(json.dumps(asdict(split), indent=2), encoding="utf-8")
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
    if resume and (out / "checkpoint.pt").exists():
        state.load(out / "checkpoint.pt")
        console.print(f"resumed after epoch {state.epoch}")
    else:
        (out / "history.jsonl").unlink(missing_ok=True)
    schedule = [stage for stage in config.stages for _ in range(stage.epochs)]
    while state.epoch < len(schedule) and not state.is_stale(config.patience_epochs):
        record = _run_epoch(config, state, pool, validation, schedule[state.epoch])
        if state.best_epoch == state.epoch - 1:
            save_file(_contiguous(state.average), out / "best.safetensors")
        with (out / "history.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        state.save(out / "checkpoint.pt")
        console.print(" ".join(f"{key} {value:.4g}" for key, value in record.items()))
    return out / "best.safetensors"


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

    (N, 3, 256, 256) float16 images, (N, 1, 256, 256) bool masks, (N, 2 * context + 1) neighbours, and (N,)
    which slices hold tumour.
    """

    images: torch.Tensor
    masks: torch.Tensor
    neighbours: torch.Tensor
    is_tumour: npt.NDArray[np.bool_]

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
    )


def _draw_slices(
    config: TrainingConfig, is_tumour: npt.NDArray[np.bool_], epoch: int
) -> npt.NDArray[np.int64]:
    """Draw an epoch's slices in random order: every tumour slice, and a share of tumour-free ones."""
    draws = np.random.default_rng((config.seed, epoch))
    with_tumour, without = np.flatnonzero(is_tumour), np.flatnonzero(~is_tumour)
    count = min(len(without), round(config.tumour_free_share * len(with_tumour)))
    return draws.permutation(np.concatenate((with_tumour, draws.choice(without, count, replace=False))))


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
    order = _draw_slices(config, pool.is_tumour, state.epoch)
    total_steps = len(order) // config.batch_size * sum(each.epochs for each in config.stages)
    state.network.train()
    losses = []
    for batch in _batches(pool, order, config.batch_size):
        inputs, targets = augment(*batch, stage.crop)
        for group in state.optimiser.param_groups:
            group["lr"] = _one_cycle(state.step / total_steps) * group["peak"]
        with torch.autocast("cpu", torch.bfloat16):
            scales = _forward(state.network, inputs.contiguous(memory_format=torch.channels_last))
        loss = _supervise(score, scales, targets)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # missing from torch's stub
        nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
        state.optimiser.step()
        state.step += 1
        _follow(state.average, state.network, min(config.average_decay, (1 + state.step) / (10 + state.step)))
        losses.append(loss.item())
    return float(np.mean(losses))


def _forward(network: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return the network's logits, at several resolutions if it gives them, the finest first."""
    if isinstance(network, EncoderAttentionUNet):
        return network.forward_scales(inputs)
    return [network(inputs)]


def _supervise(score: SegmentationLoss, scales: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Score the logits of every resolution, each coarser one half as much as the one before."""
    loss = torch.zeros(())
    for depth, logits in enumerate(scales):
        coarse = functional.adaptive_max_pool2d(target, logits.shape[-2:]) if depth else target
        loss = loss + 0.5**depth * score(logits.float(), coarse)
    return loss


def _one_cycle(progress: float) -> float:
    """Share of the peak learning rate at a share of the run: linear warm-up, then a half cosine to zero."""
    if progress < _WARM_UP:
        return 0.04 + 0.96 * progress / _WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * (progress - _WARM_UP) / (1.0 - _WARM_UP))) + 1e-3


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's weights and running statistics towards the network's."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1.0 - decay)
        else:
            kept.copy_(new)


def _validate(
    network: nn.Module, cases: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
) -> float:
    """Mean per-patient Dice at threshold 0.5 on the prepared slices' matrix."""
    rule = DecisionRule()
    predictions = (predict_probabilities(network, slices, reduced=True) for slices, _ in cases)
    return float(
        np.mean([dice(rule.decide(maps), masks) for maps, (_, masks) in zip(predictions, cases, strict=True)])
    )


def _contiguous(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a network's weights for safetensors, which takes contiguous tensors only."""
    return {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}


app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Train and evaluate the segmentation network."
)


@app.callback()
def _root() -> None:
    """Train and evaluate the segmentation network."""


@app.command("train")
def train_command(
    data: Annotated[Path, typer.Option(help="Folder of the LGG data set.")],
    out: Annotated[Path, typer.Option(help="Run folder.")],
    *,
    encoder: Annotated[Path | None, typer.Option(help="ImageNet weights of the encoder (.pth).")] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the run folder's checkpoint.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of weights and draws.")] = TrainingConfig().seed,
) -> None:
    """Train the network on the LGG data set."""
    train(TrainingConfig(seed=seed), data, out, resume=resume, encoder=encoder)


@app.command("pack")
def pack_command(
    data: Annotated[Path, typer.Option(help="Folder of the LGG data set.")],
    run: Annotated[Path, typer.Option(help="Run folder.")],
    model: Annotated[Path, typer.Option(help="Model package whose weights are written.")],
) -> None:
    """Write a run's best weights as a package's and choose the decision rule on its validation patients."""
    console = Console()
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    network = BUILTIN_NETWORKS[stored["network"]](stored["arguments"])
    network.load_state_dict(load_file(run / "best.safetensors"))
    digest = write_weights(network, model)
    network.load_state_dict(load_file(model / WEIGHTS))
    channels_last(network.eval())
    cases = read_cases(data, split["validation"], cache_path(data, run.parent))
    maps, masks = [], []
    for case in track(cases, "predicting", console=console):
        for flair_alone in (False, True):
            slices = stack_context(prepare_case(case, flair_alone=flair_alone), stored["context"])
            maps.append(predict_probabilities(network, slices, mirror=True))
            masks.append(case.masks)
    best, table = choose_rule(maps, masks)
    console.print(_rule_table(table))
    console.print(f"best: threshold {best.threshold}, min_component_voxels {best.min_component_voxels}")
    console.print(f"network: {stored['network']} {json.dumps(stored['arguments'])}")
    console.print(f"sha256: {digest}", soft_wrap=True)


@app.command("evaluate")
def evaluate_command(
    data: Annotated[Path, typer.Option(help="Folder of a data set in the LGG layout.")],
    model: Annotated[Path, typer.Option(help="Model package.")],
    *,
    every_patient: Annotated[
        bool, typer.Option(help="Score every patient of the folder, not only the validation split.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Also write the scores to this JSON file.")] = None,
) -> None:
    """Score a model package with all sequences and with FLAIR alone."""
    console = Console()
    institutions = read_institutions(data)
    wanted = sorted(institutions) if every_patient else split_patients(institutions).validation
    packaged = read_package(model)
    cases = read_cases(data, wanted)
    evaluations = []
    for flair_alone in (False, True):
        title = "FLAIR alone" if flair_alone else "all sequences"
        progress = track(cases, title, console=console)
        evaluations.append(evaluate(packaged, progress, flair_alone=flair_alone))
    console.print(_patient_table(evaluations))
    console.print(_summary_table(evaluations))
    if report is not None:
        scores = {evaluation.sequences: asdict(evaluation)["scores"] for evaluation in evaluations}
        report.write_text(json.dumps(scores, indent=2), encoding="utf-8")


def _rule_table(table: Mapping[DecisionRule, float]) -> Table:
    """Lay out the mean Dice of every decision rule: thresholds down, component sizes across."""
    sizes = sorted({rule.min_component_voxels for rule in table})
    laid_out = Table("threshold", *(f"{size} voxels" for size in sizes), title="mean Dice")
    for threshold in sorted({rule.threshold for rule in table}):
        rules = [DecisionRule(threshold=threshold, min_component_voxels=size) for size in sizes]
        laid_out.add_row(f"{threshold:.2f}", *(f"{table[rule]:.4f}" for rule in rules))
    return laid_out


def _patient_table(evaluations: Sequence[Evaluation]) -> Table:
    """Lay out each patient's scores, one group of columns an evaluation."""
    table = Table("patient", "tumour voxels", title="per patient")
    for evaluation in evaluations:
        for score_name in ("Dice", "HD95 px", "false-positive slices"):
            table.add_column(f"{score_name}, {evaluation.sequences}", justify="right")
    for scores in zip(*(evaluation.scores for evaluation in evaluations), strict=True):
        cells = [scores[0].patient_id, str(scores[0].reference_voxels)]
        for score in scores:
            marked = f"{score.false_positive_slices}/{score.tumour_free_slices}"
            cells += [f"{score.dice:.3f}", f"{score.hd95_px:.1f}", marked]
        table.add_row(*cells)
    return table


def _summary_table(evaluations: Sequence[Evaluation]) -> Table:
    """Lay out the means with their intervals, one column an evaluation."""
    table = Table("score", *(evaluation.sequences for evaluation in evaluations), title="summary")
    table.add_row("Dice, mean per patient [95 % CI]", *(_interval_text(each.dice) for each in evaluations))
    table.add_row("IoU, mean per patient [95 % CI]", *(_interval_text(each.iou) for each in evaluations))
    table.add_row("Dice, voxels pooled", *(f"{each.pooled_dice:.3f}" for each in evaluations))
    table.add_row("HD95 in plane, median, px", *(f"{each.median_hd95_px:.1f}" for each in evaluations))
    rates = (f"{each.false_positive_slice_rate:.3f}" for each in evaluations)
    table.add_row("tumour-free slices marked", *rates)
    for institution in evaluations[0].dice_by_institution:
        intervals = (_interval_text(each.dice_by_institution[institution]) for each in evaluations)
        table.add_row(f"Dice, {institution}", *intervals)
    return table


def _interval_text(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] n={interval.count}"


if __name__ == "__main__":
    app()
