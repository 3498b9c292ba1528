"""Adapter: the training loop of the report writer: features or images, batches, steps, checkpoints.

With the extractor frozen, as a small data set wants it, patches are computed once, and only the
encoder-decoder learns. Nothing here runs in the node.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from inference.networks.r2gen_cmn import R2GenCMN
from inference.report_vocabulary import Vocabulary
from inference.training.devices import device_of
from inference.training.run_files import (
    BEST,
    CHECKPOINT,
    HISTORY,
    append_history,
    load_checkpoint,
    plot_curves,
    save_checkpoint,
)
from inference.training.schedule import contiguous, follow, one_cycle
from reporting.language.film_reports import mirror_text

_EXTRACTED_AT_ONCE: Final = 16
_LIKE_BATCHES: Final = 8
"""Batches among whose texts lengths are sorted."""

_BETAS: Final = (0.9, 0.98)
"""AdamW's, as in the published training."""

Images = npt.NDArray[np.float16]
Score = Callable[[Sequence[str]], Mapping[str, float]]
"""From the texts of the validation images to figures; ``score`` decides which weights are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSchedule:
    """How the writer is trained.

    Attributes
    ----------
    epochs, batch_size : int, int
        Passes over the reports, reports a step.
    peak_rate, extractor_rate, weight_decay, clip_norm : float
        AdamW's peak learning rate (one cycle), that of the extractor where it learns, its decoupled decay,
        and the gradient norm limit.
    warm_up : float
        Share of the run in which the rate rises.
    label_weight : float
        Weight of a second task that teaches the encoder alone: which findings are there, from the mean of
        the encoded patches. Its head is not kept.
    label_smoothing : float
        Share of a word's probability that the others get.
    average_decay : float
        Decay a step of the moving average of the weights, which is what is validated and kept.
    is_extractor_frozen : bool
        Whether the convolutions stay as they are.
    frozen_share : float
        Where they learn: share of their weights, counted from the image, that stay all the same. The first
        layers cost most of the time, and a small data set teaches them little.
    mirror : bool
        Whether half of the images are mirrored, with left and right exchanged in the text.
    is_bfloat16 : bool
        Whether to compute in bfloat16.
    validation_epochs : int
        Epochs between validations.
    """

    epochs: int = 30
    batch_size: int = 32
    peak_rate: float = 1e-3
    extractor_rate: float = 1e-4
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    warm_up: float = 0.1
    label_weight: float = 1.0
    label_smoothing: float = 0.0
    average_decay: float = 0.99
    is_extractor_frozen: bool = True
    frozen_share: float = 0.0
    mirror: bool = True
    is_bfloat16: bool = True
    validation_epochs: int = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WriterData:
    """What one fold gives the writer: (N, views, S, S) prepared images, N texts, (N, L) findings there."""

    images: Images
    texts: tuple[str, ...]
    targets: npt.NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class _State:
    """What a resumed run continues from."""

    network: R2GenCMN
    average: R2GenCMN
    labeller: nn.Linear
    optimiser: torch.optim.AdamW
    epoch: int = 0
    step: int = 0
    best: float = -1.0

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "network": self.network,
            "average": self.average,
            "labeller": self.labeller,
            "optimiser": self.optimiser,
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint, complete or not at all."""
        save_checkpoint(path, self._parts, {"epoch": self.epoch, "step": self.step, "best": self.best})

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        for name, value in load_checkpoint(path, self._parts, device_of(self.network)).items():
            setattr(self, name, value)


def fit_writer(
    network: R2GenCMN,
    vocabulary: Vocabulary,
    training: WriterData,
    validation: WriterData,
    *,
    write: Callable[[R2GenCMN, torch.Tensor], Sequence[str]],
    score: Score,
    out: Path,
    schedule: WriterSchedule,
    seed: int,
    resume: bool = False,
) -> Path:
    """Train a writer and keep the weights with the best validation score.

    Parameters
    ----------
    network : R2GenCMN
        On the device where it learns.
    vocabulary : Vocabulary
        Its words.
    training, validation : WriterData
        The folds; without validation images the last epoch is kept.
    write : callable
        From a network and (N, patches, channels) features to texts.
    score : callable
        From the validation texts to figures.
    out : Path
        Run folder.
    schedule : WriterSchedule
        How.
    seed : int
        Of the order and the mirrors.
    resume : bool
        Whether to continue from the run folder's checkpoint, if there is one.

    Returns
    -------
    Path
        The best weights (float32, safetensors).
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    _choose_learned(network, schedule)
    state = _start(network, schedule, training.targets.shape[1])
    if resume and (out / CHECKPOINT).exists():
        state.load(out / CHECKPOINT)
        console.print(f"resumed after epoch {state.epoch}")
    else:
        (out / HISTORY).unlink(missing_ok=True)
    frozen = seen = None
    if schedule.is_extractor_frozen:
        frozen, seen = (extract_once(network, fold.images, out) for fold in (training, validation))
    steps = max(len(training.texts) // schedule.batch_size, 1) * schedule.epochs
    while state.epoch < schedule.epochs:
        state.epoch += 1
        record: dict[str, float] = {"epoch": state.epoch}
        record["loss"] = _run_epoch(
            state, vocabulary, training, frozen, schedule=schedule, steps=steps, seed=seed
        )
        is_last = state.epoch == schedule.epochs
        if is_last or state.epoch % schedule.validation_epochs == 0:
            if len(validation.texts):
                patches = seen if seen is not None else extract(state.average, validation.images)
                record |= score(write(state.average.eval(), patches.to(device_of(network)).float()))
            if record.get("score", float(state.epoch)) >= state.best:
                state.best = record.get("score", float(state.epoch))
                save_file(contiguous(state.average), out / BEST)
        append_history(out, record)
        plot_curves(out, losses=("loss",), scores=("score", "bleu_4", "micro_f1"))
        state.save(out / CHECKPOINT)
        console.print(" ".join(f"{key} {value:.4g}" for key, value in record.items()), highlight=False)
    return out / BEST


def _choose_learned(network: R2GenCMN, schedule: WriterSchedule) -> None:
    """Set which weights of the extractor learn, and lay it out as its convolutions run fastest on a CPU."""
    network.visual_extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = list(network.visual_extractor.parameters())
    kept = len(weights) if schedule.is_extractor_frozen else int(schedule.frozen_share * len(weights))
    for number, weight in enumerate(weights):
        weight.requires_grad_(number >= kept)


def _train_mode(network: R2GenCMN) -> None:
    """Let a network learn; layers whose weights stay keep their statistics too."""
    network.train()
    for module in network.visual_extractor.modules():
        own = list(module.parameters())
        if own and not any(weight.requires_grad for weight in own):
            module.eval()


def extract_once(network: R2GenCMN, images: Images, folder: Path) -> torch.Tensor:
    """Return what `extract` does, or find it in the folder for the same extractor and images."""
    digest = hashlib.sha256()
    for value in network.visual_extractor.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    for start in range(0, len(images), _EXTRACTED_AT_ONCE):
        digest.update(np.ascontiguousarray(images[start : start + _EXTRACTED_AT_ONCE]).tobytes())
    digest.update(str((network.visual_extractor.pool, images.shape)).encode())
    path = folder / f"patches-{digest.hexdigest()[:12]}.npy"
    if not path.exists():
        partial = path.with_suffix(".part.npy")
        np.save(partial, extract(network, images).numpy())
        partial.replace(path)
    return torch.from_numpy(np.load(path))


@torch.inference_mode()
def extract(network: R2GenCMN, images: Images) -> torch.Tensor:
    """Return the (N, patches, channels) float16 features of prepared images, on the CPU."""
    device, extractor = device_of(network), network.visual_extractor
    was_training = extractor.training
    extractor.eval()
    parts = []
    for start in range(0, len(images), _EXTRACTED_AT_ONCE):
        part = torch.from_numpy(np.array(images[start : start + _EXTRACTED_AT_ONCE], dtype=np.float32))
        parts.append(network.patches(part.to(device)).half().cpu())
    extractor.train(was_training)
    return torch.cat(parts) if parts else torch.zeros(0, 1, extractor.channels, dtype=torch.float16)


def draw_batches(
    lengths: Sequence[int], size: int, draws: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Return an epoch's batches: random, of texts of like length, so that little is padded.

    What does not fill a batch is left out, another part each time; fewer texts than one batch are one.
    """
    order = draws.permutation(len(lengths))
    order = order[: max(len(order) // size * size, min(size, len(order)))]
    stretch = size * _LIKE_BATCHES
    parts = [order[start : start + stretch] for start in range(0, len(order), stretch)]
    sorted_parts = [part[np.argsort([lengths[index] for index in part], kind="stable")] for part in parts]
    batches = [part[start : start + size] for part in sorted_parts for start in range(0, len(part), size)]
    return [batches[int(index)] for index in draws.permutation(len(batches))]


def pad_tokens(texts: Sequence[Sequence[int]], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a network is given and what it is asked for: (N, L) int64 each.

    The first begins with 0; the second ends with 0 and has -100 where nothing is asked.
    """
    cut = [list(text[: longest - 1]) for text in texts]
    length = max(len(text) for text in cut) + 1
    given = torch.zeros(len(cut), length, dtype=torch.long)
    wanted = torch.full((len(cut), length), -100, dtype=torch.long)
    for row, text in enumerate(cut):
        words = torch.tensor(text, dtype=torch.long)
        given[row, 1 : len(text) + 1] = words
        wanted[row, : len(text)] = words
        wanted[row, len(text)] = 0
    return given, wanted


def word_loss(log_probabilities: torch.Tensor, wanted: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the mean loss of a word, as `pad_tokens` asks for it."""
    flat, targets = log_probabilities.flatten(0, 1).float(), wanted.flatten()
    is_asked = targets >= 0
    flat, targets = flat[is_asked], targets[is_asked]
    return (1.0 - smoothing) * functional.nll_loss(flat, targets) - smoothing * flat.mean()


def mirror_patches(patches: torch.Tensor, views: int) -> torch.Tensor:
    """Return (N, views * side * side, channels) patches as if their images had been mirrored.

    Convolutions that learned from mirrored images see a mirrored image as nearly the mirror of its patches.
    """
    side = math.isqrt(patches.shape[1] // views)
    grid = patches.view(len(patches), views, side, side, patches.shape[2])
    return grid.flip(3).reshape(patches.shape)


def _start(network: R2GenCMN, schedule: WriterSchedule, labels: int) -> _State:
    labeller = nn.Linear(network.encoder_decoder.logit.in_features, labels).to(device_of(network))
    groups: list[dict[str, Any]] = []
    for is_extractor, rate in ((True, schedule.extractor_rate), (False, schedule.peak_rate)):
        for is_decayed, decay in ((True, schedule.weight_decay), (False, 0.0)):
            weights = [
                weight
                for name, weight in network.named_parameters()
                if weight.requires_grad
                and (weight.ndim > 1) == is_decayed
                and name.startswith("visual_extractor.") == is_extractor
            ]
            groups.append({"params": weights, "peak": rate, "weight_decay": decay})
    groups.append({"params": list(labeller.parameters()), "peak": schedule.peak_rate, "weight_decay": 0.0})
    optimiser = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=schedule.peak_rate, betas=_BETAS
    )
    return _State(network=network, average=deepcopy(network).eval(), labeller=labeller, optimiser=optimiser)


def _run_epoch(
    state: _State,
    vocabulary: Vocabulary,
    training: WriterData,
    frozen: torch.Tensor | None,
    *,
    schedule: WriterSchedule,
    steps: int,
    seed: int,
) -> float:
    """Learn from every report once, and return the mean loss."""
    draws = np.random.default_rng((seed, state.epoch))
    batches = draw_batches([len(text) for text in training.texts], schedule.batch_size, draws)
    device = device_of(state.network)
    _train_mode(state.network)
    longest = int(state.network.encoder_decoder.model.tgt_embed[1].pe.shape[1])  # type: ignore[index]
    losses = []
    for chosen in batches:
        mirrored = draws.random(len(chosen)) < (0.5 if schedule.mirror else 0.0)
        texts = [
            vocabulary.encode(mirror_text(text) if flip else text)
            for text, flip in zip((training.texts[index] for index in chosen), mirrored, strict=True)
        ]
        given, wanted = (part.to(device) for part in pad_tokens(texts, longest))
        for group in state.optimiser.param_groups:
            group["lr"] = one_cycle(state.step / steps, schedule.warm_up) * group["peak"]
        with torch.autocast(device.type, torch.bfloat16, enabled=schedule.is_bfloat16):
            encoded = state.network.encode(_see(state.network, training, frozen, chosen, mirrored))
            answer = state.network.continue_from(encoded, given)
            labels = state.labeller(encoded.mean(dim=1))
        loss = word_loss(answer, wanted, schedule.label_smoothing)
        losses.append(loss.item())
        targets = torch.from_numpy(training.targets[chosen]).to(device)
        loss = loss + schedule.label_weight * functional.binary_cross_entropy_with_logits(
            labels.float(), targets
        )
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # missing from torch's stub
        nn.utils.clip_grad_norm_(state.network.parameters(), schedule.clip_norm)
        state.optimiser.step()
        state.step += 1
        decay = min(schedule.average_decay, (1 + state.step) / (10 + state.step))
        follow(state.average, state.network, decay)
    return float(np.mean(losses))


def _see(
    network: R2GenCMN,
    training: WriterData,
    frozen: torch.Tensor | None,
    chosen: npt.NDArray[np.int64],
    mirrored: npt.NDArray[np.bool_],
) -> torch.Tensor:
    """Return the (N, patches, channels) features of a batch."""
    device = device_of(network)
    if frozen is not None:
        patches = frozen[torch.from_numpy(chosen)].to(device).float()
        flips = torch.from_numpy(mirrored).view(-1, 1, 1).to(device)
        return torch.where(flips, mirror_patches(patches, network.views), patches)
    images = torch.from_numpy(np.array(training.images[np.sort(chosen)], dtype=np.float32))
    images = images[torch.from_numpy(np.argsort(np.argsort(chosen)))]
    flips = torch.from_numpy(mirrored).view(-1, 1, 1, 1)
    return network.patches(torch.where(flips, images.flip(-1), images).to(device))
