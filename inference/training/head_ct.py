"""Adapter: the recipe of the ``head-ct`` package: haemorrhage or none on slices of head CT.

The data set is a folder with ``index.csv`` (``image``, ``label``: ``haemorrhage`` or ``normal``, ``group``:
what must not be torn apart by a split) and pictures of single slices in the brain window. Five networks are
trained, each without one fifth of the groups; what is reported are their answers on the fifth that they never
saw. The first of them is packed: its own fifth can be scored again with `evaluate_model`.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from dicom_node.errors import PermanentError
from inference.ct_preparation import prepare_head_ct
from inference.networks.classifiers import Classifier
from inference.packages import BUILTIN_NETWORKS, load_package
from inference.training.classification import (
    Augmentation,
    Examples,
    Schedule,
    begin,
    fit,
    predict_logits,
)
from inference.training.classification_cards import (
    familiarity_card,
    interval_figures,
    read_card_template,
)
from inference.training.classification_metrics import binary_scores, choose_threshold
from inference.training.command_line import command_line
from inference.training.metrics import Interval
from inference.training.recipe import EvaluateRequest, Metrics, Recipe, TrainRequest
from inference.training.run_files import BEST, override, write_card, write_json, write_weights
from inference.uncertainty import calibrate, calibration_error, fit_temperatures

NAME: Final = "head-ct"
VERSION: Final = "1.0.0"

FOLDS: Final = 5

_SPLIT_SEED: Final = 20261122
_LESION: Final = "haemorrhage"

_SCHEDULE: Final = Schedule(
    epochs=10,
    batch_size=8,
    peak_rate=1e-3,
    pretrained_rate=3e-4,
    frozen=("encoder.conv_stem", "encoder.bn1", "encoder.blocks.0", "encoder.blocks.1", "encoder.blocks.2"),
    average_decay=0.95,
)
_AUGMENTATION: Final = Augmentation(rotation_degrees=15.0, scale=0.1, contrast=0.3, brightness=0.4)


class HeadCtDataError(PermanentError):
    """A folder of head CT slices is not in the documented layout; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadCtConfig:
    """Everything that a run depends on besides the data.

    Attributes
    ----------
    network : str
        ``encoder_classifier`` (EfficientNet-lite0, shipped) or ``resnet50_classifier``.
    arguments : dict
        Its constructor arguments, as the card will name them.
    matrix : int
        Side of the network's input, pixels.
    schedule : Schedule
        How each network is trained.
    augmentation : Augmentation
        How slices are changed; the window of the pictures is not known exactly, so contrast varies much.
    seed : int
        Seed of the weights, the draws and the augmentation.
    """

    network: str = "encoder_classifier"
    arguments: dict[str, JsonValue] = field(
        default_factory=lambda: {"in_channels": 1, "out_channels": 1, "dropout": 0.3}
    )
    matrix: int = 160
    schedule: Schedule = _SCHEDULE
    augmentation: Augmentation = _AUGMENTATION
    seed: int = 20261122


def train_model(request: TrainRequest) -> Path:
    """Train the five networks and pack the first.

    Raises
    ------
    HeadCtDataError
        If the folder does not hold the data set.
    OverrideError
        If a setting does not fit the configuration.
    """
    config = override(HeadCtConfig(seed=request.seed), request.overrides)
    examples = read_examples(request.data, config.matrix)
    folds = deal_folds(examples)
    write_json(request.out / "config.json", config)
    write_json(request.out / "split.json", {"fold": folds.tolist(), "group": list(examples.patients)})
    console = Console()
    logits = np.zeros(examples.targets.shape, dtype=np.float32)
    for fold in range(FOLDS):
        out = request.out if fold == 0 else request.out / f"fold-{fold}"
        console.print(f"fold {fold}: {int((folds != fold).sum())} training slices")
        network = _build(config, fold, request.pretrained)
        best = fit(
            network,
            examples.take(np.flatnonzero(folds != fold)),
            None,
            lambda _logits, _validation: {},
            out,
            schedule=config.schedule,
            augmentation=config.augmentation,
            seed=config.seed + fold,
            resume=request.resume,
        )
        network.load_state_dict(load_file(best))
        held_out = np.flatnonzero(folds == fold)
        logits[held_out] = predict_logits(network.eval(), examples.images[held_out], mirror=True)
    np.savez(request.out / "cross_validation.npz", logits=logits, targets=examples.targets)
    return _pack(request, config, examples, folds, logits)


def evaluate_model(request: EvaluateRequest) -> Metrics:
    """Score a package on the fold that it was not trained on, or on every slice of a foreign folder.

    Raises
    ------
    HeadCtDataError
        If the folder does not hold the data set.
    ModelPackageError
        If the package is not usable.
    """
    package = load_package(request.package)
    examples = read_examples(request.data, package.card.input.matrix)
    if not request.is_every_patient:
        examples = examples.take(np.flatnonzero(deal_folds(examples) == 0))
    logits = predict_logits(package.build(), examples.images, mirror=package.card.test_time_mirror)
    probabilities = calibrate(logits, package.card.doubt.temperatures)[:, 0]
    threshold = package.card.threshold_of(package.card.labels[0])
    scores = binary_scores(probabilities, examples.targets[:, 0], examples.patients, threshold)
    Console().print(_table(scores, f"{package.card.name} {package.card.version}"))
    return _figures(scores)


RECIPE: Final = Recipe(
    name=NAME,
    summary="Haemorrhage on head CT slices: EfficientNet-lite0, or ResNet-50 when asked (smoke test)",
    train=train_model,
    evaluate=evaluate_model,
)


def read_examples(data: Path, matrix: int) -> Examples:
    """Read and prepare the slices of a data set.

    Raises
    ------
    HeadCtDataError
        If the table or a picture is missing.
    """
    try:
        with (data / "index.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        images = np.concatenate([_prepare(data / row["image"], matrix) for row in rows])
        return Examples(
            images=images.astype(np.float16),
            targets=np.array([[row["label"] == _LESION] for row in rows], dtype=np.bool_),
            patients=tuple(row["group"] for row in rows),
        )
    except (OSError, KeyError, ValueError) as exc:
        raise HeadCtDataError(
            f"{data.name} holds no head CT slices: put index.csv (image, label, group) and its pictures "
            "there."
        ) from exc


def _prepare(path: Path, matrix: int) -> npt.NDArray[np.float32]:
    """Return the (1, 1, matrix, matrix) slice; the picture is the brain window already."""
    with Image.open(path) as image:
        windowed = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    return prepare_head_ct(windowed[None, None], (0,), matrix).images


def deal_folds(examples: Examples) -> npt.NDArray[np.int64]:
    """Deal the groups of each class in random order onto the folds; return (N,) fold of each slice."""
    targets = examples.targets[:, 0]
    lesions = {group for group, target in zip(examples.patients, targets, strict=True) if target}
    fold_of: dict[str, int] = {}
    for stratum in (lesions, set(examples.patients) - lesions):
        groups = sorted(stratum)
        random.Random(_SPLIT_SEED).shuffle(groups)  # noqa: S311 - a split, no secret
        fold_of |= {group: index % FOLDS for index, group in enumerate(groups)}
    return np.array([fold_of[group] for group in examples.patients], dtype=np.int64)


def _build(config: HeadCtConfig, fold: int, pretrained: Path | None) -> Classifier:
    torch.manual_seed(config.seed + fold)
    network = BUILTIN_NETWORKS[config.network](config.arguments)
    assert isinstance(network, Classifier)
    if pretrained is not None:
        begin(network, pretrained)
    return network


def _pack(
    request: TrainRequest,
    config: HeadCtConfig,
    examples: Examples,
    folds: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
) -> Path:
    """Make a package of the first network; threshold and temperature come from the answers of all five."""
    folder = request.out / "package" / NAME / VERSION
    network = _build(config, 0, None)
    network.load_state_dict(load_file(request.out / BEST))
    files = write_weights(network, folder)
    targets = examples.targets
    temperatures = fit_temperatures(logits, targets.astype(np.float32))
    probabilities = calibrate(logits, temperatures)
    threshold = round(choose_threshold(probabilities[:, 0], targets[:, 0]), 4)
    scores = binary_scores(probabilities[:, 0], targets[:, 0], examples.patients, threshold)
    Console().print(_table(scores, f"{config.network}, {FOLDS}-fold cross-validation"))
    card = read_card_template(NAME, VERSION)
    layer = "body.layer4" if config.network == "resnet50_classifier" else "encoder.bn2"
    training, validation = (examples.take(np.flatnonzero(chosen)) for chosen in (folds != 0, folds == 0))
    card |= {
        "network": {"builtin": config.network, "arguments": config.arguments},
        "explanation_layer": layer,
        "doubt": {
            "temperatures": list(temperatures),
            "dropout_passes": 16,
            "largest_uncertainty": 0.2,
            "familiarity": familiarity_card(folder, network, layer, training, validation),
        },
        "weights": {"files": files, "dtype": "float16"},
    }
    card["input"] |= {"matrix": config.matrix}
    card["labels"][0] |= {"threshold": threshold}
    card["training_data"] |= {
        "slices": {"training": len(training.targets), "validation": len(validation.targets)},
        "groups": {"training": len(set(training.patients)), "validation": len(set(validation.patients))},
    }
    before = calibration_error(calibrate(logits, ()), targets.astype(np.float32))
    after = calibration_error(_cross_fitted(logits, targets, folds), targets.astype(np.float32))
    card["metrics"] |= {
        "cross_validation": _figures(scores)
        | {"calibration_error": {"before": round(before, 3), "after_cross_fitted": round(after, 3)}}
    }
    write_card(folder, card)
    held_out = evaluate_model(EvaluateRequest(data=request.data, package=folder))
    card["metrics"] |= {"packed_network_on_its_held_out_fold": dict(held_out)}
    write_card(folder, card)
    return folder


def _cross_fitted(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Calibrate every fold with a temperature fitted on the others."""
    probabilities = np.zeros_like(logits)
    for fold in range(FOLDS):
        others = folds != fold
        temperatures = fit_temperatures(logits[others], targets[others].astype(np.float32))
        probabilities[~others] = calibrate(logits[~others], temperatures)
    return probabilities


def _figures(scores: dict[str, Interval]) -> dict[str, JsonValue]:
    return {name: interval_figures(interval) for name, interval in scores.items()}


def _table(scores: dict[str, Interval], title: str) -> Table:
    table = Table("score", "value", "95 % CI", title=title)
    for name, score in scores.items():
        table.add_row(
            name, f"{score.mean:.3f}", f"[{score.low:.3f}, {score.high:.3f}] n={score.count} groups"
        )
    return table


if __name__ == "__main__":
    command_line(RECIPE)()
