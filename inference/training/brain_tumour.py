"""Adapter: the recipe of the ``brain-tumour-lgg`` package: trains, chooses the decision rule, packs, scores.

The data set is a folder in the LGG layout (`lgg`): ``index.csv`` with one row a slice (``patient_id``,
``institution``, ``slice``, ``image``, ``mask``), RGB images whose channels are T1 before contrast, FLAIR and
T1 after contrast, and one-bit masks. How the network is trained is in `segmentation`, what the scores mean
in `metrics`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import JsonValue
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file
from torch import nn

from inference.familiarity import pooled_features
from inference.packages import BUILTIN_NETWORKS
from inference.preparation import stack_context
from inference.training.calibration import fit_familiarity, largest_familiar_deviation
from inference.training.evaluation import (
    DecisionRule,
    Evaluation,
    channels_last,
    choose_rule,
    evaluate,
    predict_probabilities,
    read_package,
)
from inference.training.lgg import (
    LggCase,
    cache_path,
    prepare_case,
    read_cases,
    read_institutions,
    split_patients,
)
from inference.training.metrics import Interval
from inference.training.recipe import EvaluateRequest, Metrics, Recipe, TrainRequest
from inference.training.run_files import BEST, override, write_card, write_weights
from inference.training.segmentation import TrainingConfig, train
from inference.uncertainty import dropout_deviation

NAME: Final = "brain-tumour-lgg"
VERSION: Final = "2.0.0"

_LAYER: Final = "neck"
"""Where features are pooled to tell familiar slices: the coarsest map of the decoder."""

_EXPLAINED_LAYER: Final = "stages.2"
"""Where Grad-CAM is computed, at a quarter of the resolution: maps of the neck do not point at lesions."""

_DROPOUT_PASSES: Final = 8

_SEQUENCES: Final = {"all sequences": "all_sequences", "FLAIR alone": "flair_alone"}


def train_model(request: TrainRequest) -> Path:
    """Train the network and pack its best weights.

    Raises
    ------
    DataFolderError
        If the folder does not hold the data set.
    OverrideError
        If a setting does not fit the configuration.
    """
    config = override(TrainingConfig(seed=request.seed), request.overrides)
    train(config, request.data, request.out, resume=request.resume, encoder=request.pretrained)
    return pack(request.data, request.out)


def pack(data: Path, run: Path) -> Path:
    """Make a model package of a run's best weights and choose the decision rule on its validation patients.

    Parameters
    ----------
    data : Path
        Folder of the data set.
    run : Path
        Run folder.

    Returns
    -------
    Path
        ``<run>/package/brain-tumour-lgg/<version>``; its card holds the measured figures.
    """
    console = Console()
    folder = run / "package" / NAME / VERSION
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    network = BUILTIN_NETWORKS[config["network"]](config["arguments"])
    network.load_state_dict(load_file(run / BEST))
    files = write_weights(network, folder)
    network.load_state_dict(load_file(folder / files[0]["file"]))
    channels_last(network.eval())
    cases = read_cases(data, split["validation"], cache_path(data, run.parent))
    maps, masks = [], []
    for case in track(cases, "predicting", console=console):
        for flair_alone in (False, True):
            slices = stack_context(prepare_case(case, flair_alone=flair_alone), config["context"])
            maps.append(predict_probabilities(network, slices, mirror=True))
            masks.append(case.masks)
    rule, table = choose_rule(maps, masks)
    console.print(_rule_table(table))
    training = read_cases(data, split["training"], cache_path(data, run.parent))
    card = _card() | {
        "network": {"builtin": config["network"], "arguments": config["arguments"]},
        "threshold": rule.threshold,
        "min_component_voxels": rule.min_component_voxels,
        "weights": {"files": files, "dtype": "float16"},
    }
    card["input"] |= {"context": config["context"]}
    card["training_data"] |= {
        "patients": {"training": len(split["training"]), "validation": len(split["validation"])},
        "slices": {
            "training": sum(len(case.masks) for case in training),
            "with_tumour": sum(int(case.masks.any(axis=(1, 2)).sum()) for case in training),
        },
        "validation_patients": split["validation"],
    }
    card["explanation_layer"] = _EXPLAINED_LAYER
    card["doubt"] = _doubt(network, training, cases, config["context"], folder)
    write_card(folder, card)
    card["metrics"] |= dict(evaluate_model(EvaluateRequest(data=data, package=folder)))
    write_card(folder, card)
    return folder


def evaluate_model(request: EvaluateRequest) -> Metrics:
    """Score a package with all sequences and with FLAIR alone, and print each patient's scores.

    Raises
    ------
    DataFolderError
        If the folder does not hold the data set.
    ModelPackageError
        If the package is not usable.
    """
    console = Console()
    institutions = read_institutions(request.data)
    wanted = sorted(institutions) if request.is_every_patient else split_patients(institutions).validation
    packaged = read_package(request.package)
    cases = read_cases(request.data, wanted)
    evaluations = []
    for flair_alone in (False, True):
        title = "FLAIR alone" if flair_alone else "all sequences"
        evaluations.append(evaluate(packaged, track(cases, title, console=console), flair_alone=flair_alone))
    console.print(_patient_table(evaluations))
    console.print(_summary_table(evaluations))
    return {_SEQUENCES[evaluation.sequences]: _figures(evaluation) for evaluation in evaluations}


RECIPE: Final = Recipe(
    name=NAME,
    summary="FLAIR abnormality on brain MR: Attention Res-UNet on a pretrained encoder (LGG data set)",
    train=train_model,
    evaluate=evaluate_model,
)


def _doubt(
    network: nn.Module, training: Sequence[LggCase], validation: Sequence[LggCase], context: int, folder: Path
) -> dict[str, JsonValue]:
    """Fit what the package knows of its own limits: familiar slices, and how much dropout may move it."""

    def features(case: LggCase, step: int) -> npt.NDArray[np.float32]:
        slices = stack_context(prepare_case(case), context)
        return pooled_features(network, slices[len(slices) // 4 :: step], _LAYER)

    familiarity = fit_familiarity(
        np.concatenate([features(case, 4) for case in training]),
        [features(case, 2) for case in validation],
        folder,
        _LAYER,
    )
    deviations = [_deviation(network, case, context) for case in validation]
    return {
        "dropout_passes": _DROPOUT_PASSES,
        "largest_uncertainty": largest_familiar_deviation(deviations),
        "familiarity": familiarity.model_dump(mode="json"),
    }


def _deviation(network: nn.Module, case: LggCase, context: int) -> float:
    """Return the mean deviation over dropout passes within the outline of a case's largest slice."""
    largest = int(case.masks.sum(axis=(1, 2)).argmax())
    images = torch.from_numpy(stack_context(prepare_case(case), context)[largest : largest + 1])
    _, deviation = dropout_deviation(
        network, lambda: torch.sigmoid(network(images)), _DROPOUT_PASSES, seed=largest
    )
    return float(deviation[0, 0][case.masks[largest]].mean())


def _card() -> dict[str, Any]:
    """Return what the card says whatever the run: purpose, inputs, labels, limits, licence."""
    path = resources.files("inference.training").joinpath(f"cards/{NAME}.yaml")
    card: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return card | {"name": NAME, "version": VERSION}


def _figures(evaluation: Evaluation) -> dict[str, JsonValue]:
    """Return an evaluation as the card holds it."""
    return {
        "dice": _interval(evaluation.dice),
        "iou": _interval(evaluation.iou),
        "dice_median": round(float(np.median([score.dice for score in evaluation.scores])), 3),
        "dice_pooled_voxels": round(evaluation.pooled_dice, 3),
        "hd95_in_plane_median_px": round(evaluation.median_hd95_px, 1),
        "tumour_free_slices_marked": round(evaluation.false_positive_slice_rate, 3),
        "dice_by_institution": {
            name: _interval(interval) for name, interval in evaluation.dice_by_institution.items()
        },
    }


def _interval(interval: Interval) -> dict[str, JsonValue]:
    bounds: list[JsonValue] = [round(interval.low, 3), round(interval.high, 3)]
    return {"mean": round(interval.mean, 3), "ci95": bounds, "n": interval.count}


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
