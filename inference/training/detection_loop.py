"""Adapter: the training loop of the radiograph detector: films, batches, steps, checkpoints.

It reads a data set, writes checkpoints and prints progress. What makes a package of it is in `detection`,
what the scores mean in `detection_metrics`. Nothing here runs in the node.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from torch.utils.data import DataLoader, Dataset

from dicom_node.errors import PermanentError
from inference.detection import DetectionOptions, FoundBoxes, find_boxes
from inference.networks.faster_rcnn import RadiographDetector, freeze_beginning
from inference.radiograph_preparation import Placement, prepare_grey
from inference.training.chest_xray import NIH_BOX_CLASSES, Film, Readers, read_film, read_films
from inference.training.detection_metrics import ScoredImage, torchmetrics_map
from inference.training.devices import device_of, training_device
from inference.training.pretrained import load_encoder
from inference.training.radiograph_augmentation import draw_view, see, see_boxes
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

_WARM_UP: Final = 0.08
"""Share of the run in which the learning rate rises."""

_MOST_CACHED: Final = 4000
"""Films that are kept prepared in memory: 0.5 MB each at 512 pixels."""

_REPORT_STEPS: Final = 25

_ABSENT: Final = "No film with boxes of these classes is there: name classes that the data set has."


class NoBoxesError(PermanentError):
    """A data set has no box that the detector could learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of the training at one resolution: epochs, and the side of the network's input."""

    epochs: int
    matrix: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionConfig:
    """Everything that a run depends on besides the data.

    Attributes
    ----------
    arch : str
        ``r50_fpn_v2``, ``c5`` or ``lite0_fpn`` (`inference.networks.faster_rcnn`); ``auto`` takes the first
        with a GPU and the last without.
    channels, head_features, dropout : int, int, float
        Size of the ``lite0_fpn`` network, and its dropout.
    classes : tuple of str
        Classes that are boxed.
    sources : tuple of str
        Whose boxes are learned: ``nih``, ``vindr``, ``rsna``.
    readers : str
        How boxes of several readers become one, ``hull`` or ``wbf``.
    matrix : int
        Side of the network's input in use, pixels.
    stages : tuple of Stage
        Epochs at rising resolutions.
    batch_size : int
        Films a step.
    peak_rate, encoder_rate, weight_decay, clip_norm : float
        AdamW's peak learning rate (one cycle) and that of a pretrained encoder, its decoupled decay, and the
        gradient norm limit.
    negative_share : float
        Films without finding drawn an epoch, as a share of the boxed ones, which all are used.
    presence_weight : float
        Weight of the whole-image loss beside the four losses of the boxes.
    average_decay : float
        Decay a step of the exponential moving average of the weights, which is what is validated and kept.
    is_beginning_frozen : bool
        Whether the encoder's layers up to stride 4 stay as ImageNet made them (with pretrained weights only).
    is_bfloat16 : bool or None
        Whether the backbone computes in bfloat16; None does so on a GPU.
    validation_epochs : int
        Epochs between validations.
    workers : int
        Processes that prepare films; 0 prepares them in this one.
    seed : int
        Seed of the weights, the draws and the augmentation.
    """

    arch: str = "auto"
    channels: int = 128
    head_features: int = 256
    dropout: float = 0.2
    classes: tuple[str, ...] = NIH_BOX_CLASSES
    sources: tuple[str, ...] = ("nih", "vindr")
    readers: Readers = "hull"
    matrix: int = 512
    stages: tuple[Stage, ...] = (Stage(epochs=10, matrix=384), Stage(epochs=3, matrix=512))
    batch_size: int = 4
    peak_rate: float = 1e-3
    encoder_rate: float = 3e-4
    weight_decay: float = 2e-2
    clip_norm: float = 5.0
    negative_share: float = 0.3
    presence_weight: float = 0.5
    average_decay: float = 0.995
    is_beginning_frozen: bool = True
    is_bfloat16: bool | None = None
    validation_epochs: int = 3
    workers: int = 0
    seed: int = 20261122

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def network_arguments(self) -> dict[str, Any]:
        """Return the network's constructor arguments, as the card will name them."""
        arguments: dict[str, Any] = {"classes": len(self.classes), "arch": self.arch, "dropout": self.dropout}
        if self.arch == "lite0_fpn":
            arguments |= {"channels": self.channels, "head_features": self.head_features}
        return arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionFilms:
    """The films of a data set that detection uses.

    Attributes
    ----------
    boxed, negative : tuple of Film
        Training films with boxes of the classes, and without any finding.
    validation : tuple of Film
        Both kinds, of the validation patients.
    """

    boxed: tuple[Film, ...]
    negative: tuple[Film, ...]
    validation: tuple[Film, ...]


def choose_films(films: Sequence[Film], config: DetectionConfig) -> DetectionFilms:
    """Leave out films that show something that nobody boxed: their background is not known to be background.

    Raises
    ------
    NoBoxesError
        If no film has a box of the classes.
    """
    boxed = [film for film in films if _boxes(film, config)]
    negative = [film for film in films if film.is_normal or (film.is_fully_boxed and not film.boxes)]
    validation = [film for film in (*boxed, *negative) if film.fold == "validation"]
    chosen = DetectionFilms(
        boxed=tuple(film for film in boxed if film.fold == "training"),
        negative=tuple(film for film in negative if film.fold == "training"),
        validation=tuple(validation),
    )
    if not chosen.boxed:
        raise NoBoxesError(_ABSENT)
    return chosen


def _boxes(film: Film, config: DetectionConfig) -> list[int]:
    """Return which boxes of a film are learned."""
    return [
        index
        for index, box in enumerate(film.boxes)
        if box.name in config.classes and box.source in config.sources
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFilm:
    """A film as the detector learns it: (1, S, S) float16, (N, 4) boxes, (N,) labels from 1, presence."""

    image: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    presence: torch.Tensor


def prepare_film(film: Film, config: DetectionConfig) -> PreparedFilm:
    """Read and prepare one film at the largest matrix of the run."""
    pixels = read_film(film)
    height, width = pixels.grey.shape
    kept = _boxes(film, config)
    where = Placement(height=height, width=width, matrix=config.matrix)
    labels = [config.classes.index(film.boxes[index].name) + 1 for index in kept]
    known = film.labels
    shown = [float(not film.is_normal)] + [
        float("nan") if known is None else float(name in known or index + 1 in labels)
        for index, name in enumerate(config.classes)
    ]
    return PreparedFilm(
        image=torch.from_numpy(prepare_grey(pixels.grey, config.matrix)).half(),
        boxes=torch.from_numpy(where.to_matrix(pixels.corners[kept])),
        labels=torch.tensor(labels, dtype=torch.int64),
        presence=torch.tensor(shown),
    )


class FilmViews(Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """Random views of films; each depends on the seed, the epoch and its place only.

    Parameters
    ----------
    films : sequence of Film
        The epoch's films, in order.
    config : DetectionConfig
        The recipe.
    epoch : int
        Number of the epoch.
    matrix : int
        Side of the views.
    cache : dict
        Prepared films by path, filled as they are read while there is room.
    """

    def __init__(
        self,
        films: Sequence[Film],
        config: DetectionConfig,
        epoch: int,
        matrix: int,
        cache: dict[Path, PreparedFilm],
    ) -> None:
        self._films, self._config, self._epoch, self._matrix = films, config, epoch, matrix
        self._cache = cache

    def __len__(self) -> int:
        """Return the number of films of the epoch."""
        return len(self._films)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return (1, matrix, matrix) float32 and its targets."""
        film = self._films[index]
        prepared = self._cache.get(film.path)
        if prepared is None:
            prepared = prepare_film(film, self._config)
            if len(self._cache) < _MOST_CACHED:
                self._cache[film.path] = prepared
        view = draw_view(np.random.default_rng((self._config.seed, self._epoch, index)))
        boxes, labels = see_boxes(
            prepared.boxes, prepared.labels, view, prepared.image.shape[-1], self._matrix
        )
        image = see(prepared.image.float(), view, self._matrix)
        return image, {"boxes": boxes, "labels": labels, "presence": prepared.presence}


@dataclass(slots=True, kw_only=True)
class _State:
    """What a resumed run continues from."""

    network: RadiographDetector
    average: RadiographDetector
    optimiser: torch.optim.AdamW
    epoch: int = 0
    step: int = 0
    best: float = -1.0

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}

    def save(self, path: Path) -> None:
        """Write the checkpoint, complete or not at all."""
        values = {"epoch": self.epoch, "step": self.step, "best": self.best}
        save_checkpoint(path, self._parts, values)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        for name, value in load_checkpoint(path, self._parts, device_of(self.network)).items():
            setattr(self, name, value)


def train_detector(
    config: DetectionConfig, data: Path, out: Path, *, resume: bool = False, encoder: Path | None = None
) -> Path:
    """Train the network and keep the weights with the best validation mean average precision.

    Parameters
    ----------
    config : DetectionConfig
        The recipe, ``arch`` settled.
    data : Path
        Folder of the data set (`inference.training.chest_xray`).
    out : Path
        Run folder.
    resume : bool
        Whether to continue from the run folder's checkpoint, if there is one.
    encoder : Path or None
        ImageNet weights of the encoder to begin with.

    Returns
    -------
    Path
        The best weights (float32, safetensors).
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    device = training_device()
    films = choose_films(read_films(data, readers=config.readers), config)
    write_json(out / "config.json", config)
    write_json(
        out / "split.json",
        {
            "training": sorted({film.patient_id for film in (*films.boxed, *films.negative)}),
            "validation": sorted({film.patient_id for film in films.validation}),
        },
    )
    console.print(
        f"{len(films.boxed)} training films with boxes, {len(films.negative)} without finding; "
        f"{len(films.validation)} validation films"
    )
    state = _start(config, encoder, device)
    if resume and (out / CHECKPOINT).exists():
        state.load(out / CHECKPOINT)
        console.print(f"resumed after epoch {state.epoch}")
    else:
        (out / HISTORY).unlink(missing_ok=True)
    cache: dict[Path, PreparedFilm] = {}
    schedule = [stage.matrix for stage in config.stages for _ in range(stage.epochs)]
    while state.epoch < len(schedule):
        record = _run_epoch(
            config, state, films, schedule[state.epoch], cache, console=console, is_frozen=encoder is not None
        )
        if record.get("map", -1.0) >= state.best and "map" in record:
            state.best = record["map"]
            save_file(contiguous(state.average), out / BEST)
        append_history(out, record)
        plot_curves(out, losses=("loss",), scores=("map",))
        state.save(out / CHECKPOINT)
        console.print(" ".join(f"{key} {value:.4g}" for key, value in record.items()))
    return out / BEST


def build_detector(config: DetectionConfig) -> RadiographDetector:
    """Build the network of a recipe."""
    return RadiographDetector(**config.network_arguments())


def _start(config: DetectionConfig, encoder: Path | None, device: torch.device) -> _State:
    """Build the network, its moving average and the optimiser."""
    torch.manual_seed(config.seed)
    network = build_detector(config)
    if encoder is not None:
        load_encoder(network.encoder, encoder)
        if config.is_beginning_frozen:
            freeze_beginning(network)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inside = {id(weight) for weight in network.encoder.parameters()} if encoder is not None else set()
    groups: list[dict[str, Any]] = []
    for is_encoder, rate in ((True, config.encoder_rate), (False, config.peak_rate)):
        for is_decayed, decay in ((True, config.weight_decay), (False, 0.0)):
            weights = [
                weight
                for weight in network.parameters()
                if weight.requires_grad
                and (weight.ndim > 1) == is_decayed
                and (id(weight) in inside) == is_encoder
            ]
            groups.append({"params": weights, "peak": rate, "weight_decay": decay})
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=config.peak_rate)
    return _State(network=network, average=deepcopy(network).eval(), optimiser=optimiser)


def draw_epoch(films: DetectionFilms, config: DetectionConfig, epoch: int) -> list[Film]:
    """Draw an epoch's films in random order: every boxed one, and a share of those without finding."""
    draws = np.random.default_rng((config.seed, epoch))
    count = min(len(films.negative), round(config.negative_share * len(films.boxed)))
    negative = draws.choice(max(len(films.negative), 1), count, replace=False)
    drawn = [*films.boxed, *(films.negative[int(index)] for index in negative)]
    return [drawn[index] for index in draws.permutation(len(drawn))]


def _run_epoch(
    config: DetectionConfig,
    state: _State,
    films: DetectionFilms,
    matrix: int,
    cache: dict[Path, PreparedFilm],
    *,
    console: Console,
    is_frozen: bool,
) -> dict[str, float]:
    """Train one epoch, validate where it is due, and return its record."""
    started = time.monotonic()
    torch.manual_seed(config.seed + state.epoch)
    drawn = draw_epoch(films, config, state.epoch)
    loader = DataLoader(
        FilmViews(drawn, config, state.epoch, matrix, cache),
        batch_size=config.batch_size,
        num_workers=config.workers,
        collate_fn=list,
        drop_last=True,
    )
    steps = config.epochs * len(loader)
    device = next(state.network.parameters()).device
    is_bfloat16 = device.type == "cuda" if config.is_bfloat16 is None else config.is_bfloat16
    state.network.train()
    if is_frozen and config.is_beginning_frozen:
        freeze_beginning(state.network)
    sums: dict[str, float] = {}
    for index, batch in enumerate(loader, start=1):
        images = torch.stack([image for image, _ in batch]).to(device, memory_format=torch.channels_last)
        targets = [{key: value.to(device) for key, value in target.items()} for _, target in batch]
        for group in state.optimiser.param_groups:
            group["lr"] = one_cycle(state.step / steps, _WARM_UP) * group["peak"]
        losses = state.network.losses(images, targets, is_bfloat16=is_bfloat16)
        for key, value in _step(config, state, losses).items():
            sums[key] = sums.get(key, 0.0) + value
        if index % _REPORT_STEPS == 0:
            console.print(
                f"epoch {state.epoch} step {index}/{len(loader)} "
                f"loss {sums['loss'] / index:.3f} {time.monotonic() - started:.0f} s"
            )
    record: dict[str, float] = {"epoch": state.epoch, "matrix": matrix}
    record |= {key: value / max(len(loader), 1) for key, value in sums.items()}
    record["seconds"] = round(time.monotonic() - started, 1)
    state.epoch += 1
    if state.epoch % config.validation_epochs == 0 or state.epoch == config.epochs:
        scored = score_films(state.average, films.validation, config, cache=cache, matrix=matrix)
        record["map"] = torchmetrics_map(scored, 0.4, len(config.classes))[0]
    return record


def _step(config: DetectionConfig, state: _State, losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Change the weights once and return the losses as numbers."""
    weighed = {
        key: value * (config.presence_weight if key == "loss_presence" else 1.0)
        for key, value in losses.items()
    }
    total = torch.stack(list(weighed.values())).sum()
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]  # missing from torch's stub
    nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    state.optimiser.step()
    state.step += 1
    decay = min(config.average_decay, (1.0 + state.step) / (10.0 + state.step))
    follow(state.average, state.network, decay)
    return {"loss": float(total.detach())} | {key: float(value.detach()) for key, value in losses.items()}


def score_films(
    network: RadiographDetector,
    films: Sequence[Film],
    config: DetectionConfig,
    *,
    cache: dict[Path, PreparedFilm] | None = None,
    matrix: int | None = None,
) -> list[ScoredImage]:
    """Let a network read films and lay what it finds beside what is there, in pixels of its input."""
    device = next(network.parameters()).device
    side = matrix or config.matrix
    scored = []
    for film in films:
        prepared = (cache or {}).get(film.path) or prepare_film(film, config)
        if cache is not None and len(cache) < _MOST_CACHED:
            cache[film.path] = prepared
        found = find_boxes(network, at_matrix(prepared, side), DetectionOptions(), device)
        scored.append(lay_beside(film, prepared, found, side))
    return scored


def at_matrix(prepared: PreparedFilm, side: int) -> npt.NDArray[np.float32]:
    """Return the (1, side, side) float32 image of a prepared film."""
    image = prepared.image.float()
    if side != image.shape[-1]:
        image = nn.functional.interpolate(image[None], size=(side, side), mode="bilinear", antialias=True)[0]
    return image.numpy()


def lay_beside(film: Film, prepared: PreparedFilm, found: FoundBoxes, side: int) -> ScoredImage:
    """Lay what was found on a film at ``side`` pixels beside what readers drew."""
    factor = np.float32(side / prepared.image.shape[-1])
    return ScoredImage(
        patient_id=film.patient_id,
        view=film.view,
        boxes=found.boxes,
        scores=found.scores,
        classes=found.classes,
        true_boxes=prepared.boxes.numpy() * factor,
        true_classes=prepared.labels.numpy() - 1,
        is_abnormal=not film.is_normal,
        presence=found.presence,
        true_presence=prepared.presence.numpy(),
    )
