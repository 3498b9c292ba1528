"""Adapter: the recipe of the ``ct-mr-fusion`` package: trains both encoders, fits the heads, packs, scores.

The data folder holds the four sets that `fusion_data` names. Both encoders and the class head are trained
with modality dropout on slices; grade and survival are linear heads on the frozen MR features of LGG
patients (`survival`). No data set has both modalities of a patient with a diagnosis: in training, a CT and an
MR slice of unrelated people with compatible labels stand for a pair, and the pairs without a diagnosis only
pull the answers from CT, from MR and from both together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import torch
import typer
import yaml
from pydantic import TypeAdapter
from rich.console import Console
from torch import nn
from torch.nn import functional

from inference.networks.dual_encoder import DualEncoder
from inference.packages import load_package
from inference.training.devices import device_of
from inference.training.fusion_augmentation import augment
from inference.training.fusion_data import (
    CLASSES,
    GRADES,
    GliomaPatient,
    GroupSplit,
    PairSet,
    SliceSet,
    read_ct_slices,
    read_gliomas,
    read_mr_slices,
    read_pairs,
    split_groups,
    split_lgg,
)
from inference.training.fusion_heads import RiskScale, fit_patient_heads
from inference.training.fusion_scores import Held, StoredFigure, fit_class_temperature, score_network
from inference.training.pretrained import load_encoder
from inference.training.recipe import EvaluateRequest, Metrics, Recipe, TrainRequest
from inference.training.run_files import (
    CHECKPOINT,
    append_history,
    load_checkpoint,
    override,
    plot_curves,
    save_checkpoint,
    write_card,
    write_json,
    write_weights,
)
from inference.training.schedule import follow, one_cycle

NAME: Final = "ct-mr-fusion"
VERSION: Final = "1.0.0"
SPLIT_SEED: Final = 20261122
"""Seed of the split by block and group; the LGG patients' split has its own."""

CALIBRATION_SHARE: Final = 0.1
VALIDATION_SHARE: Final = 0.25

_CHANCE: Final = 0.5
"""Area under the curve, and concordance, of a guess."""

_WARM_UP: Final = 0.1
"""Share of the run in which the learning rate rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionConfig:
    """Everything that a run depends on besides the data.

    Attributes
    ----------
    encoder : str
        Name of a timm network: ``tf_efficientnet_lite0`` or, heavier, ``resnet50``.
    matrix : int
        Side of the slices, pixels.
    features : int
        Features of each modality.
    dropout, drop_path : float
        Dropout before the heads, stochastic depth of the encoders.
    epochs, batch_size : int
        Passes over the labelled MR slices, and slices a step.
    ct_alone, mr_alone : float
        Modality dropout: share of the rows that keep the CT alone, and the MR alone; the rest keep both.
    glioma_slices : int
        Slices with and as many without tumour that each LGG patient adds to an epoch.
    pairs : int
        Undiagnosed pairs a step.
    agreement : float
        Weight of their agreement.
    peak_rate, encoder_rate, weight_decay, clip_norm : float
        AdamW with one cycle: peak rates of the heads and of a pretrained encoder, decay, gradient norm.
    average_decay : float
        Decay a step of the moving average of the weights, which is what is scored and packed.
    seed : int
        Seed of weights, draws and augmentation.
    """

    encoder: str = "tf_efficientnet_lite0"
    matrix: int = 160
    features: int = 512
    dropout: float = 0.3
    drop_path: float = 0.1
    epochs: int = 4
    batch_size: int = 16
    ct_alone: float = 0.25
    mr_alone: float = 0.45
    glioma_slices: int = 3
    pairs: int = 2
    agreement: float = 0.2
    peak_rate: float = 1e-3
    encoder_rate: float = 4e-4
    weight_decay: float = 2e-2
    clip_norm: float = 1.0
    average_decay: float = 0.99
    seed: int = 20261122

    @property
    def arguments(self) -> dict[str, Any]:
        """Constructor arguments of the network, as the card names them."""
        return {
            "encoder": self.encoder,
            "features": self.features,
            "classes": len(CLASSES),
            "grades": len(GRADES),
            "dropout": self.dropout,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FusionData:
    """The four sets, and what of them is trained on."""

    mr: SliceSet
    mr_split: GroupSplit
    ct: SliceSet
    ct_split: GroupSplit
    pairs: PairSet
    gliomas: tuple[GliomaPatient, ...]
    glioma_validation: tuple[GliomaPatient, ...]

    @property
    def held(self) -> Held:
        """What no weight was trained on, for scores."""
        return Held(
            mr=self.mr.take(self.mr_split.validation),
            ct=self.ct.take(self.ct_split.validation),
            pairs=self.pairs,
            training_patients=self.gliomas,
            validation_patients=self.glioma_validation,
        )


@dataclass(kw_only=True)
class _State:
    """What a checkpoint holds."""

    network: DualEncoder
    average: DualEncoder
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}

    def save(self, path: Path) -> None:
        """Write the checkpoint, complete or not at all."""
        values = {"epoch": self.epoch, "step": self.step}
        save_checkpoint(path, self._parts, values)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        for name, value in load_checkpoint(path, self._parts, device_of(self.network)).items():
            setattr(self, name, value)


def read_data(root: Path, matrix: int) -> FusionData:
    """Read the four sets below a folder and split each by what must stay together."""
    mr = read_mr_slices(root / "brain_mri_cls", matrix)
    ct = read_ct_slices(root / "head_ct", matrix)
    training, validation = split_lgg(root / "lgg")
    shares = {"calibration": CALIBRATION_SHARE, "validation": VALIDATION_SHARE, "seed": SPLIT_SEED}
    return FusionData(
        mr=mr,
        mr_split=split_groups(mr.groups, mr.classes.tolist(), **shares),  # type: ignore[arg-type]
        ct=ct,
        ct_split=split_groups(ct.groups, ct.classes.tolist(), **(shares | {"calibration": 0.0})),  # type: ignore[arg-type]
        pairs=read_pairs(root / "ct_mri_pairs", matrix),
        gliomas=tuple(read_gliomas(root / "lgg", matrix, training)),
        glioma_validation=tuple(read_gliomas(root / "lgg", matrix, validation)),
    )


def train_model(request: TrainRequest) -> Path:
    """Train the network, fit the patients' heads and pack.

    Raises
    ------
    DataFolderError
        If the folder does not hold the data sets.
    OverrideError
        If a setting does not fit the configuration.
    """
    config = override(FusionConfig(seed=request.seed), request.overrides)
    data = read_data(request.data, config.matrix)
    network = train(config, data, request.out, resume=request.resume, encoder=request.pretrained)
    return pack(config, network, data, request.out)


def train(
    config: FusionConfig,
    data: FusionData,
    out: Path,
    *,
    resume: bool = False,
    encoder: Path | None = None,
) -> DualEncoder:
    """Train both encoders and the class head; leave checkpoints, history and curves in the run folder.

    Parameters
    ----------
    config : FusionConfig
        What to do.
    data : FusionData
        What to learn from.
    out : Path
        Run folder.
    resume : bool
        Whether to continue from its checkpoint.
    encoder : Path or None
        ImageNet weights of the encoder.

    Returns
    -------
    DualEncoder
        The moving average of the weights, in evaluation mode.
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config)
    write_json(out / "split.json", describe_split(data))
    state = _start(config, encoder)
    if resume and (out / CHECKPOINT).exists():
        state.load(out / CHECKPOINT)
    mr = data.mr.take(data.mr_split.training)
    ct = data.ct.take(data.ct_split.training)
    held = data.held
    while state.epoch < config.epochs:
        started = time.monotonic()
        record: dict[str, float] = {"epoch": state.epoch}
        record |= _train_epoch(config, state, mr, ct, data)
        record["seconds"] = round(time.monotonic() - started, 1)
        record |= _glance(state.average, held)
        state.epoch += 1
        append_history(out, record)
        state.save(out / CHECKPOINT)
        plot_curves(
            out, losses=("loss", "agreement"), scores=("mr_accuracy", "ct_accuracy", "glioma_slice_accuracy")
        )
        console.print(" ".join(f"{key} {value:.4g}" for key, value in record.items()))
    return state.average.eval()


def pack(config: FusionConfig, network: DualEncoder, data: FusionData, run: Path) -> Path:
    """Fit grade, survival and temperature, and write the model package with its figures.

    Returns
    -------
    Path
        ``<run>/package/ct-mr-fusion/<version>``.
    """
    folder = run / "package" / NAME / VERSION
    scale = fit_patient_heads(network, data.gliomas)
    temperature = fit_class_temperature(network, data.mr.take(data.mr_split.calibration))
    files = write_weights(network, folder)
    card = _card(config, scale, temperature)
    card["weights"] = {"files": files, "dtype": "float16"}
    card["training_data"] |= describe_counts(data)
    write_card(folder, card)
    figures = _score(folder, data)
    card["metrics"] |= dict(figures)
    card["options"] |= {"warning": warn_of_chance(figures)}
    write_card(folder, card)
    return folder


def warn_of_chance(figures: Metrics) -> str:
    """Return what every result must say of grade and risk; empty when both are proven better than chance.

    Parameters
    ----------
    figures : mapping
        What `score_network` measured; the intervals are of left-out training patients.
    """
    parts = []
    for name, figure, what in (("grade", "auc_grade_3", "area"), ("survival", "c_index", "index")):
        measured = TypeAdapter(dict[str, dict[str, Any]]).validate_python(figures[name])
        value = TypeAdapter(StoredFigure).validate_python(measured["cross_validation"][figure])
        low, high = value.ci95
        if low <= _CHANCE:
            parts.append(f"{name}: {what} {value.mean:.2f}, 95 % interval {low:.2f} to {high:.2f}")
    if not parts:
        return ""
    return f"On patients left out of training it was not shown to be better than chance ({'; '.join(parts)})."


def evaluate_model(request: EvaluateRequest) -> Metrics:
    """Score a package by the inputs that are there, and print the figures.

    With ``is_every_patient`` every slice, pair and LGG patient of the folder counts as held out, for a folder
    that was never trained on; there is no cross-validation then.

    Raises
    ------
    DataFolderError
        If the folder does not hold the data sets.
    ModelPackageError
        If the package is not usable.
    """
    matrix = load_package(request.package).card.input.matrix
    data = read_data(request.data, matrix)
    if not request.is_every_patient:
        return _score(request.package, data)
    everyone = Held(
        mr=data.mr,
        ct=data.ct,
        pairs=data.pairs,
        training_patients=(),
        validation_patients=(*data.gliomas, *data.glioma_validation),
    )
    return _score(request.package, data, everyone)


RECIPE: Final = Recipe(
    name=NAME,
    summary="CT and MR of the head together or alone: tumour class, glioma grade, survival risk",
    train=train_model,
    evaluate=evaluate_model,
)


def describe_split(data: FusionData) -> dict[str, Any]:
    """Return what is used for what, by name."""
    return {
        name: {part: sorted(groups) for part, groups in asdict(split).items()}
        for name, split in (("brain_mri_cls", data.mr_split), ("head_ct", data.ct_split))
    } | {
        "lgg": {
            "training": [patient.patient_id for patient in data.gliomas],
            "validation": [patient.patient_id for patient in data.glioma_validation],
        }
    }


def describe_counts(data: FusionData) -> dict[str, Any]:
    """Return how much of each set is used for what."""
    counts: dict[str, Any] = {}
    for name, slices, split in (
        ("brain_mri_cls", data.mr, data.mr_split),
        ("head_ct", data.ct, data.ct_split),
    ):
        counts[name] = {
            part: len(slices.take(groups).groups) for part, groups in asdict(split).items() if groups
        }
    counts["lgg_patients"] = {
        "training": len(data.gliomas),
        "validation": len(data.glioma_validation),
        "with_grade": sum(patient.grade is not None for patient in data.gliomas),
        "deaths": sum(bool(patient.is_dead) for patient in data.gliomas),
    }
    counts["ct_mri_pairs"] = {"pairs": len(data.pairs.cases), "cases": len(set(data.pairs.cases))}
    return {"counts": counts}


def partial_label_loss(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return the mean negative log probability of the allowed classes together.

    Parameters
    ----------
    logits : torch.Tensor
        (N, classes).
    allowed : torch.Tensor
        (N, classes) bool: one class when it is known; several when the label only excludes the others.
    """
    admitted = logits.masked_fill(~allowed, -math.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - admitted).mean()


def agreement_loss(together: torch.Tensor, *alone: torch.Tensor) -> torch.Tensor:
    """Return how far the answers from one modality lie from that of both, which is left alone (KL).

    Parameters
    ----------
    together, alone : torch.Tensor
        (N, classes) logits.
    """
    target = together.detach().softmax(dim=1)
    losses = [functional.kl_div(single.log_softmax(dim=1), target, reduction="batchmean") for single in alone]
    return torch.stack(losses).mean()


def _start(config: FusionConfig, encoder: Path | None) -> _State:
    torch.manual_seed(config.seed)
    network = DualEncoder(**config.arguments, drop_path=config.drop_path)
    if encoder is not None:
        for side in ("ct_encoder", "mr_encoder"):
            load_encoder(network.get_submodule(f"{side}.backbone"), encoder)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stub
    groups: list[dict[str, Any]] = []
    for is_encoder, rate in ((True, config.encoder_rate), (False, config.peak_rate)):
        for is_decayed, decay in ((True, config.weight_decay), (False, 0.0)):
            weights = [
                weight
                for name, weight in network.named_parameters()
                if (weight.ndim > 1) == is_decayed and (".backbone." in name) == is_encoder
            ]
            if weights:
                groups.append({"params": weights, "peak": rate, "weight_decay": decay})
    optimiser = torch.optim.AdamW(groups, lr=config.peak_rate)
    return _State(network=network, average=deepcopy(network).eval(), optimiser=optimiser)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Epoch:
    """MR slices of an epoch in random order, the CT slice that goes with each, and which of both counts."""

    mr: torch.Tensor
    ct: torch.Tensor
    presence: torch.Tensor
    allowed: torch.Tensor


def _draw_epoch(
    config: FusionConfig, mr: SliceSet, ct: SliceSet, gliomas: Sequence[GliomaPatient], epoch: int
) -> _Epoch:
    draws = np.random.default_rng((config.seed, epoch))
    glioma_images, glioma_classes = _draw_gliomas(config, gliomas, draws)
    images = np.concatenate([mr.images, glioma_images])
    classes = np.concatenate([mr.classes, glioma_classes])
    order = draws.permutation(len(images))
    images, classes = images[order], classes[order]
    partners = np.array(
        [draws.choice(np.flatnonzero(ct.classes == int(label > 0))) for label in classes], dtype=np.int64
    )
    fate = draws.random(len(images))
    has_mr = fate >= config.ct_alone
    has_ct = ~has_mr | (fate >= config.ct_alone + config.mr_alone)
    known = functional.one_hot(torch.from_numpy(classes), len(CLASSES)).bool()
    lesion = torch.tensor([False] + [True] * (len(CLASSES) - 1))
    by_ct = torch.where(torch.from_numpy(classes)[:, None] > 0, lesion, ~lesion)
    return _Epoch(
        mr=torch.from_numpy(images),
        ct=torch.from_numpy(ct.images[partners]),
        presence=torch.from_numpy(np.stack([has_ct, has_mr], axis=1)),
        allowed=torch.where(torch.from_numpy(has_mr)[:, None], known, by_ct),
    )


def _draw_gliomas(
    config: FusionConfig, gliomas: Sequence[GliomaPatient], draws: np.random.Generator
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
    """Draw slices with tumour (malignant) and without (healthy, of the same people and scanners)."""
    images, classes = [], []
    for patient in gliomas:
        names = sorted(patient.sequences)
        for has_tumour, label in ((True, CLASSES.index("malignant")), (False, CLASSES.index("healthy"))):
            among = np.flatnonzero(patient.has_tumour == has_tumour)
            for index in draws.permutation(among)[: config.glioma_slices]:
                images.append(patient.sequences[names[draws.integers(len(names))]][index])
                classes.append(label)
    return np.stack(images), np.array(classes, dtype=np.int64)


def _train_epoch(
    config: FusionConfig, state: _State, mr: SliceSet, ct: SliceSet, data: FusionData
) -> dict[str, float]:
    """Train one epoch. Its draws depend on the seed and its number only."""
    torch.manual_seed(config.seed + state.epoch)
    generator = torch.Generator().manual_seed(config.seed + state.epoch)
    epoch = _draw_epoch(config, mr, ct, data.gliomas, state.epoch)
    steps = len(epoch.mr) // config.batch_size
    losses, agreements = [], []
    state.network.train()
    for step in range(steps):
        rows = slice(step * config.batch_size, (step + 1) * config.batch_size)
        pairs = torch.randint(len(data.pairs.cases), (config.pairs,), generator=generator).numpy()
        for group in state.optimiser.param_groups:
            group["lr"] = one_cycle(state.step / (steps * config.epochs), _WARM_UP) * group["peak"]
        loss, agreement = _step_losses(
            state.network,
            epoch,
            rows,
            torch.from_numpy(data.pairs.ct[pairs]),
            torch.from_numpy(data.pairs.mr[pairs]),
            generator,
        )
        state.optimiser.zero_grad(set_to_none=True)
        (loss + config.agreement * agreement).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
        state.optimiser.step()
        state.step += 1
        follow(state.average, state.network, min(config.average_decay, (1 + state.step) / (10 + state.step)))
        losses.append(loss.item())
        agreements.append(agreement.item())
    return {"loss": float(np.mean(losses)), "agreement": float(np.mean(agreements))}


def _step_losses(  # noqa: PLR0917 - the parts of one step
    network: DualEncoder,
    epoch: _Epoch,
    rows: slice,
    pair_ct: torch.Tensor,
    pair_mr: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the class loss of the labelled rows and the disagreement on the pairs."""
    presence = epoch.presence[rows]
    count, pairs = len(presence), len(pair_ct)
    features = []
    for column, (encoder, slices, extra) in enumerate(
        ((network.ct_encoder, epoch.ct[rows], pair_ct), (network.mr_encoder, epoch.mr[rows], pair_mr))
    ):
        there = presence[:, column]
        images = augment(torch.cat([slices[there], extra]).float(), generator)
        encoded = encoder(images.contiguous(memory_format=torch.channels_last))
        whole = torch.zeros(count + pairs, encoded.shape[1])
        places = torch.cat([there.nonzero()[:, 0], torch.arange(count, count + pairs)])
        features.append(whole.index_copy(0, places, encoded))
    ct, mr = features
    loss = partial_label_loss(
        network.read(network.represent(ct[:count], mr[:count], presence)).tumour_class, epoch.allowed[rows]
    )
    if not pairs:
        return loss, torch.zeros(())
    answers = [
        network.read(network.represent(one, other)).tumour_class
        for one, other in ((ct[count:], mr[count:]), (ct[count:], None), (None, mr[count:]))
    ]
    return loss, agreement_loss(*answers)


def _glance(network: DualEncoder, held: Held) -> dict[str, float]:
    """Return quick validation figures for the curves; nothing is chosen by them."""
    from inference.training.fusion_scores import class_probabilities, stack_gliomas

    mr = class_probabilities(network, mr=held.mr.images)
    ct = class_probabilities(network, ct=held.ct.images)
    images, has_tumour, _ = stack_gliomas(held.validation_patients, "flair")
    glioma = class_probabilities(network, mr=images)
    return {
        "mr_accuracy": float((mr.argmax(axis=1) == held.mr.classes).mean()),
        "ct_accuracy": float(((ct.argmax(axis=1) > 0) == held.ct.classes).mean()),
        "glioma_slice_accuracy": float(((glioma.argmax(axis=1) > 0) == has_tumour).mean()),
    }


def _score(folder: Path, data: FusionData, held: Held | None = None) -> Metrics:
    package = load_package(folder)
    network = package.build()
    assert isinstance(network, DualEncoder)
    temperature = package.card.doubt.temperatures[0] if package.card.doubt.temperatures else 1.0
    return score_network(network, held or data.held, temperature=temperature, console=Console())


def _card(config: FusionConfig, scale: RiskScale, temperature: float) -> dict[str, Any]:
    """Return the card but for weights and figures."""
    path = resources.files("inference.training").joinpath(f"cards/{NAME}.yaml")
    card: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    card |= {
        "name": NAME,
        "version": VERSION,
        "network": {"builtin": "dual_encoder", "arguments": config.arguments, "activation": "softmax"},
    }
    card["input"] |= {"matrix": config.matrix}
    card["options"] |= {
        "risk_median": round(scale.median, 4),
        "risk_tertiles": [round(bound, 4) for bound in scale.tertiles],
    }
    card["doubt"] |= {"temperatures": [round(temperature, 3)]}
    return card


app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train and evaluate the fusion network.")


@app.callback()
def _root() -> None:
    """Train and evaluate the fusion network."""


@app.command("train")
def train_command(
    data: Annotated[Path, typer.Option(help="Folder with the four data sets.")],
    out: Annotated[Path, typer.Option(help="Run folder.")],
    *,
    pretrained: Annotated[Path | None, typer.Option(help="ImageNet weights of the encoder (.pth).")] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the run folder's checkpoint.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of weights and draws.")] = FusionConfig().seed,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Field of the configuration: epochs=3.")
    ] = None,
) -> None:
    """Train the network and write its package."""
    overrides = dict(entry.split("=", 1) for entry in setting or [])
    folder = train_model(
        TrainRequest(data=data, out=out, resume=resume, seed=seed, pretrained=pretrained, overrides=overrides)
    )
    Console().print(str(folder), soft_wrap=True)


@app.command("evaluate")
def evaluate_command(
    data: Annotated[Path, typer.Option(help="Folder with the four data sets.")],
    model: Annotated[Path, typer.Option(help="Model package.")],
    *,
    every_patient: Annotated[bool, typer.Option(help="Score everything in the folder.")] = False,
) -> None:
    """Score a package."""
    evaluate_model(EvaluateRequest(data=data, package=model, is_every_patient=every_patient))


if __name__ == "__main__":
    app()
