"""Adapter: the recipe of the ``chest-xray-labels`` package: 14 labels of chest X-rays by an SE-ResNet50.

The data set is any layout that `chest_xray` reads; labels are NIH's, and the split by patient is the one that
the detection model has. Boxes, where there are any, teach in training where a label lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file
from scipy import optimize

from inference.cards import ModelCard
from inference.classification import abnormal_score, presence_of
from inference.findings import Presence
from inference.networks.classifiers import Classifier
from inference.packages import BUILTIN_NETWORKS, load_package
from inference.radiograph_preparation import Placement, prepare_grey
from inference.training.chest_xray import (
    NIH_LABELS,
    ChestXrayDataError,
    Film,
    FilmPixels,
    label_matrix,
    read_film,
    read_films,
)
from inference.training.classification import (
    Augmentation,
    Examples,
    Schedule,
    begin,
    fit,
    positive_weights,
    predict_logits,
)
from inference.training.classification_cards import familiarity_card, interval_figures, read_card_template
from inference.training.classification_metrics import (
    MIN_POSITIVES,
    LabelScore,
    area_under_curve,
    choose_threshold,
    frequent_labels,
    hamming_loss,
    mean_area,
    patient_interval,
    score_label,
)
from inference.training.command_line import command_line
from inference.training.metrics import Interval
from inference.training.recipe import EvaluateRequest, Metrics, Recipe, TrainRequest
from inference.training.run_files import override, write_card, write_json, write_weights
from inference.uncertainty import (
    calibrate,
    calibration_error,
    dropout_deviation,
    fit_temperatures,
    fit_triage,
    logits_of,
)

NAME: Final = "chest-xray-labels"
VERSION: Final = "1.0.0"

FEWEST_POSITIVES: Final = 10
LOWEST_BOUND: Final = 0.6
"""A label is answered when it has so many positive validation images, and the lower confidence bound of its
AUC on them is so high."""

DROPOUT_PASSES: Final = 20
"""Monte-Carlo dropout passes; they cost little, because only the head drops features."""

LARGEST_SPREAD: Final = 0.99
"""Quantile of the validation deviations above which a label is undetermined."""

NEGATIVE_TARGET, POSITIVE_TARGET = 0.7, 0.8
"""Predictive values that triage must show with confidence; few patients cannot show more."""

_PLACES: Final = 32
"""Side of the maps on which boxes are drawn; the network's last maps are coarser."""

_SCHEDULE: Final = Schedule(
    epochs=14,
    frozen=("body.layer0", "body.layer1"),
    label_smoothing=0.05,
    box_weight=0.5,
    patience_epochs=3,
)
_AUGMENTATION: Final = Augmentation()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestLabelsConfig:
    """Everything that a run depends on besides the data.

    Attributes
    ----------
    network : str
        ``resnet50_classifier`` (SE-ResNet50) or ``encoder_classifier`` (the small alternative).
    arguments : mapping
        Its constructor arguments, as the card will name them.
    matrix : int
        Side of the network's input, pixels.
    schedule : Schedule
        How it is trained.
    augmentation : Augmentation
        How images are changed.
    seed : int
        Seed of the weights, the draws and the augmentation.
    """

    network: str = "resnet50_classifier"
    arguments: dict[str, JsonValue] = field(
        default_factory=lambda: {"in_channels": 1, "out_channels": 14, "squeeze": True, "dropout": 0.3}
    )
    matrix: int = 256
    schedule: Schedule = _SCHEDULE
    augmentation: Augmentation = _AUGMENTATION
    seed: int = 20261122


def train_model(request: TrainRequest) -> Path:
    """Train the network and pack its best weights.

    Raises
    ------
    ChestXrayDataError
        If the folder holds no known data set.
    OverrideError
        If a setting does not fit the configuration.
    """
    config = override(ChestLabelsConfig(seed=request.seed), request.overrides)
    films = labelled_films(request.data)
    folds = {name: [film for film in films if film.fold == name] for name in ("training", "validation")}
    write_json(request.out / "config.json", config)
    write_json(
        request.out / "split.json",
        {name: sorted({film.patient_id for film in fold}) for name, fold in folds.items()},
    )
    training, validation = (
        chest_examples(folds[name], config.matrix, request.out.parent) for name in ("training", "validation")
    )
    Console().print(
        f"{len(training.targets)} training images of {len(set(training.patients))} patients; "
        f"{len(validation.targets)} validation images of {len(set(validation.patients))} patients"
    )
    torch.manual_seed(config.seed)
    network = BUILTIN_NETWORKS[config.network](config.arguments)
    assert isinstance(network, Classifier)
    if request.pretrained is not None:
        begin(network, request.pretrained)
    best = fit(
        network,
        training,
        validation,
        _score,
        request.out,
        schedule=config.schedule,
        augmentation=config.augmentation,
        seed=config.seed,
        resume=request.resume,
    )
    network.load_state_dict(load_file(best))
    return _pack(request, config, network.eval(), training, validation)


def evaluate_model(request: EvaluateRequest) -> Metrics:
    """Score a package on the validation patients, or on every patient of a foreign folder.

    Raises
    ------
    ChestXrayDataError
        If the folder holds no known data set.
    ModelPackageError
        If the package is not usable.
    """
    package = load_package(request.package)
    films = [
        film for film in labelled_films(request.data) if request.is_every_patient or film.fold == "validation"
    ]
    with TemporaryDirectory() as cache:
        examples = chest_examples(films, package.card.input.matrix, Path(cache))
    logits = predict_logits(package.build(), examples.images, mirror=package.card.test_time_mirror)
    return score_answers(package.card, logits, examples, tuple(film.view for film in films), is_printed=True)


RECIPE: Final = Recipe(
    name=NAME,
    summary="14 labels of frontal chest X-rays: SE-ResNet50 (NIH, VinDr-CXR or RSNA layout)",
    train=train_model,
    evaluate=evaluate_model,
)


def score_answers(
    card: ModelCard,
    logits: npt.NDArray[np.float32],
    examples: Examples,
    views: Sequence[str],
    *,
    is_printed: bool = False,
) -> dict[str, JsonValue]:
    """Score (N, 14) logits with a card's temperatures and thresholds.

    Parameters
    ----------
    card : ModelCard
        Its doubt and thresholds hold.
    logits : ndarray
        (N, 14) float32.
    examples : Examples
        The images' truth and patients.
    views : sequence of str
        (N,) ``PA``, ``AP`` or empty.
    is_printed : bool
        Whether to print the tables.

    Returns
    -------
    dict
        Figures as the card's ``metrics`` hold them.
    """
    targets, patients = examples.targets, examples.patients
    probabilities = calibrate(logits, card.doubt.temperatures)
    thresholds = [card.threshold_of(label) for label in card.labels]
    scores = [
        score_label(name, probabilities[:, index], targets[:, index], patients, thresholds[index])
        for index, name in enumerate(NIH_LABELS)
    ]
    frequent = frequent_labels(targets)
    by_view = {
        view: _mean_area_interval(probabilities, examples, frequent, np.array(views) == view)
        for view in sorted(set(views) - {""})
    }
    from_the_front = np.repeat((np.array(views) == "AP")[:, None], targets.shape[1], axis=1)
    view_alone = _mean_area_interval(from_the_front.astype(np.float32), examples, frequent)
    mean = _mean_area_interval(probabilities, examples, frequent)
    among_abnormal = _mean_area_interval(probabilities, examples, frequent, has_finding(examples))
    truth = targets.astype(np.float32)
    figures: dict[str, JsonValue] = {
        "images": len(targets),
        "mean_auc": interval_figures(mean)
        | {"labels": [NIH_LABELS[index] for index in frequent], "at_least_positives": MIN_POSITIVES},
        "mean_auc_by_view": {view: interval_figures(score) for view, score in by_view.items()},
        "view_alone": interval_figures(view_alone),
        "mean_auc_among_abnormal_images": interval_figures(among_abnormal),
        "mean_f1": round(float(np.mean([scores[index].f1 for index in frequent])), 3) if frequent else None,
        "hamming_loss": round(hamming_loss(probabilities, targets, thresholds), 3),
        "calibration_error": {
            "before": round(calibration_error(calibrate(logits, ()), truth), 4),
            "after": round(calibration_error(probabilities, truth), 4),
        },
        "labels": {score.name: _label_figures(score) for score in scores},
    }
    if is_printed:
        compared = {f"mean AUC, {view}": score for view, score in by_view.items()}
        compared |= {"mean AUC of the view alone": view_alone, "mean AUC, abnormal images": among_abnormal}
        _print(scores, mean, compared, figures)
    return figures


def _mean_area_interval(
    scores: npt.NDArray[np.float32],
    examples: Examples,
    labels: Sequence[int],
    chosen: npt.NDArray[np.bool_] | None = None,
) -> Interval:
    """Mean area under the curve of some labels, of some images, with its interval over patients."""
    picked = np.flatnonzero(np.ones(len(scores), dtype=np.bool_) if chosen is None else chosen)
    targets = examples.targets
    return patient_interval(
        lambda drawn: mean_area(scores[picked[drawn]], targets[picked[drawn]], labels),
        [examples.patients[index] for index in picked],
    )


def _label_figures(score: LabelScore) -> JsonValue:
    return {
        "positives": score.positives,
        "auc": interval_figures(score.auc),
        "threshold": score.threshold,
        "f1": round(score.f1, 3),
        "precision": round(score.precision, 3),
        "recall": round(score.recall, 3),
        "specificity": round(score.specificity, 3),
    }


def _print(
    scores: Sequence[LabelScore],
    mean: Interval,
    compared: Mapping[str, Interval],
    figures: Mapping[str, JsonValue],
) -> None:
    table = Table("label", "positives", "AUC [95 % CI]", "F1", "precision", "recall", title="by label")
    for score in scores:
        numbers = (f"{value:.3f}" for value in (score.f1, score.precision, score.recall))
        table.add_row(score.name, f"{score.positives}/{score.images}", _text(score.auc), *numbers)
    summary = Table("score", "value", title="summary")
    summary.add_row(f"mean AUC, labels with at least {MIN_POSITIVES} positives", _text(mean))
    for name, interval in compared.items():
        summary.add_row(name, _text(interval))
    for name in ("mean_f1", "hamming_loss", "calibration_error"):
        summary.add_row(name, str(figures[name]))
    console = Console()
    console.print(table)
    console.print(summary)


def _text(interval: Interval) -> str:
    if not np.isfinite(interval.mean):
        return "undefined"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] n={interval.count}"


def _pack(
    request: TrainRequest,
    config: ChestLabelsConfig,
    network: Classifier,
    training: Examples,
    validation: Examples,
) -> Path:
    """Make a model package: what is chosen on validation patients is chosen here."""
    folder = request.out / "package" / NAME / VERSION
    files = write_weights(network, folder)
    stored: dict[str, torch.Tensor] = {}
    for file in files:
        stored |= load_file(folder / file["file"])
    network.load_state_dict(stored)
    logits = predict_logits(network, validation.images, mirror=True)
    targets = validation.targets
    temperatures = fit_useful_temperatures(logits, validation)
    probabilities = calibrate(logits, temperatures)
    answered = choose_answered(probabilities, validation)
    abnormal = fit_abnormal(probabilities[:, list(answered)], has_finding(validation))
    studies, is_abnormal = _by_patient(
        [abnormal_score(row[list(answered)], **abnormal) for row in probabilities], validation
    )
    layer = "body.layer4" if config.network == "resnet50_classifier" else "encoder.bn2"
    card = read_card_template(NAME, VERSION)
    card["input"] |= {"matrix": config.matrix}
    for index, label in enumerate(card["labels"]):
        label["threshold"] = round(choose_threshold(probabilities[:, index], targets[:, index]), 4)
    card["options"] |= {
        "unanswered": [name for index, name in enumerate(NIH_LABELS) if index not in answered],
        "abnormal": {name: round(value, 4) for name, value in abnormal.items()},
    }
    spread = _spread(network, validation, temperatures)[:, list(answered)]
    triage = fit_triage(
        studies, is_abnormal, negative_target=NEGATIVE_TARGET, positive_target=POSITIVE_TARGET
    )
    card |= {
        "network": {"builtin": config.network, "arguments": config.arguments},
        "explanation_layer": layer,
        "doubt": {
            "temperatures": list(temperatures),
            "dropout_passes": DROPOUT_PASSES,
            "largest_uncertainty": round(float(np.quantile(spread, LARGEST_SPREAD)), 4),
            "triage": triage.model_dump(),
            "familiarity": familiarity_card(folder, network, layer, training, validation),
        },
        "weights": {"files": files, "dtype": "float16"},
    }
    card["training_data"] |= {
        "images_used": {"training": len(training.targets), "validation": len(validation.targets)},
        "patients": {
            "training": len(set(training.patients)),
            "validation": len(set(validation.patients)),
        },
        "positives": {
            name: int(count) for name, count in zip(NIH_LABELS, training.targets.sum(axis=0), strict=True)
        },
    }
    write_card(folder, card)
    figures = evaluate_model(EvaluateRequest(data=request.data, package=folder))
    crossed = calibration_error(cross_fitted(logits, validation), targets.astype(np.float32))
    weighed = logits + positive_weights(training.targets).log().numpy()
    as_trained = calibration_error(calibrate(weighed, ()), targets.astype(np.float32))
    card["metrics"] |= dict(figures) | {
        "calibration_error_as_trained": round(as_trained, 4),
        "calibration_error_cross_fitted": round(crossed, 4),
        "undetermined_share": round(_undetermined(card, probabilities, spread, answered), 3),
    }
    write_card(folder, card)
    return folder


def choose_answered(probabilities: npt.NDArray[np.float32], validation: Examples) -> tuple[int, ...]:
    """Return the labels that the node answers: those that validation patients show to be worth it.

    All of them where none is, so that a smoke test on a few images still has an answer.
    """
    frequent = frequent_labels(validation.targets, FEWEST_POSITIVES)
    bounds = {
        label: patient_interval(
            lambda drawn, label=label: area_under_curve(  # type: ignore[misc]  # the default binds the loop's label
                probabilities[drawn, label], validation.targets[drawn, label]
            ),
            validation.patients,
        ).low
        for label in frequent
    }
    worth = tuple(label for label, bound in bounds.items() if bound >= LOWEST_BOUND)
    return worth or tuple(range(len(NIH_LABELS)))


def fit_useful_temperatures(logits: npt.NDArray[np.float32], validation: Examples) -> tuple[float, ...]:
    """Fit temperatures, and keep a label's only if it helps patients on whom it was not fitted.

    The head states the frequencies of its data set already, so that a temperature often has nothing to mend.
    """
    truth = validation.targets.astype(np.float32)
    crossed = cross_fitted(logits, validation)
    better = _log_loss(crossed, truth) < _log_loss(calibrate(logits, ()), truth)
    fitted = fit_temperatures(logits, truth)
    return tuple(value if is_better else 1.0 for value, is_better in zip(fitted, better, strict=True))


def _log_loss(
    probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the (L,) mean negative log likelihood of (N, L) probabilities."""
    safe = np.clip(probabilities.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(-(truth * np.log(safe) + (1 - truth) * np.log1p(-safe)).mean(axis=0))


def fit_abnormal(
    probabilities: npt.NDArray[np.float32], is_abnormal: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """Fit how the largest label's logit becomes that of an abnormal image (Platt's method).

    Parameters
    ----------
    probabilities : ndarray
        (N, L) calibrated probabilities of the labels that are answered.
    is_abnormal : ndarray
        (N,) bool.

    Returns
    -------
    dict
        ``scale`` (not negative) and ``offset``.
    """
    largest = logits_of(probabilities).max(axis=1).astype(np.float64)
    sign = np.where(is_abnormal, 1.0, -1.0)

    def loss(weights: npt.NDArray[np.float64]) -> float:
        return float(np.logaddexp(0.0, -sign * (weights[0] * largest + weights[1])).mean())

    found = optimize.minimize(loss, (1.0, 0.0), bounds=((0.0, 20.0), (-20.0, 20.0)))
    return {"scale": float(found.x[0]), "offset": float(found.x[1])}


def has_finding(examples: Examples) -> npt.NDArray[np.bool_]:
    """Return (N,) whether an image has any label."""
    return np.asarray(examples.targets.any(axis=1), dtype=np.bool_)


def _by_patient(
    scores: Sequence[float], examples: Examples
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return each patient's largest score and whether any of their images is abnormal."""
    patients = sorted(set(examples.patients))
    owner = np.array(examples.patients)
    values = np.asarray(scores, dtype=np.float32)
    abnormal = has_finding(examples)
    return (
        np.array([values[owner == patient].max() for patient in patients], dtype=np.float32),
        np.array([abnormal[owner == patient].any() for patient in patients], dtype=np.bool_),
    )


def _spread(
    network: Classifier, examples: Examples, temperatures: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Return the (N, L) deviation of the probabilities over dropout passes, as the node computes it."""
    with torch.inference_mode():
        maps = [network.features(torch.from_numpy(image[None]).float()) for image in examples.images]
    divisors = torch.tensor(temperatures)

    def forward() -> torch.Tensor:
        return torch.cat([torch.sigmoid(network.classify(part) / divisors) for part in maps])

    return dropout_deviation(network, forward, DROPOUT_PASSES, seed=0)[1]


def cross_fitted(logits: npt.NDArray[np.float32], examples: Examples) -> npt.NDArray[np.float32]:
    """Return probabilities with temperatures that were fitted on the other half of the patients."""
    patients = sorted(set(examples.patients))
    is_first = np.isin(np.array(examples.patients), patients[::2])
    truth = examples.targets.astype(np.float32)
    probabilities = np.zeros_like(logits)
    for half in (is_first, ~is_first):
        probabilities[half] = calibrate(logits[half], fit_temperatures(logits[~half], truth[~half]))
    return probabilities


def _undetermined(
    card: Mapping[str, Any],
    probabilities: npt.NDArray[np.float32],
    spread: npt.NDArray[np.float32],
    answered: Sequence[int],
) -> float:
    """Return the share of the answered labels of all images that are called undetermined."""
    margin, largest = card["options"]["undetermined_margin"], card["doubt"]["largest_uncertainty"]
    undetermined = [spread[:, column] > largest for column in range(len(answered))]
    for column, index in enumerate(answered):
        threshold = card["labels"][index]["threshold"]
        near = [
            presence_of(float(value), threshold, margin) is Presence.UNDETERMINED
            for value in probabilities[:, index]
        ]
        undetermined[column] |= np.array(near)
    return float(np.mean(undetermined))


def labelled_films(data: Path) -> tuple[Film, ...]:
    """Return the films of a data set whose labels are known.

    Raises
    ------
    ChestXrayDataError
        If the folder holds no known data set, or one without labels.
    """
    films = tuple(film for film in read_films(data) if film.labels is not None)
    if not films:
        raise ChestXrayDataError(f"{data.name} has boxes but no labels: give the NIH or VinDr-CXR set.")
    return films


def chest_examples(films: Sequence[Film], matrix: int, cache: Path) -> Examples:
    """Prepare films, or find them prepared.

    Parameters
    ----------
    films : sequence of Film
        Films with labels.
    matrix : int
        Side of the network's input, pixels.
    cache : Path
        Folder where prepared images are kept, as one ``.npy`` file a set of films.
    """
    key = hashlib.sha256("\n".join(str(film.path) for film in films).encode()).hexdigest()[:12]
    path = cache / f"films-{matrix}-{key}.npz"
    if not path.exists():
        images = np.zeros((len(films), 1, matrix, matrix), dtype=np.float16)
        places = np.zeros((len(films), len(NIH_LABELS), _PLACES, _PLACES), dtype=np.bool_)
        for index, film in enumerate(track(films, "preparing")):
            pixels = read_film(film)
            images[index] = prepare_grey(pixels.grey, matrix)
            places[index] = draw_places(film, pixels)
        partial = path.with_suffix(".part.npz")
        np.savez(partial, images=images, places=places)
        partial.replace(path)
    with np.load(path) as stored:
        images, places = stored["images"], stored["places"]
    targets = label_matrix(films) > 0.0
    return Examples(
        images=images,
        targets=targets,
        patients=tuple(film.patient_id for film in films),
        places=places,
        is_placed=~targets | places.any(axis=(2, 3)),
    )


def draw_places(film: Film, pixels: FilmPixels) -> npt.NDArray[np.bool_]:
    """Return the (14, s, s) parts of the network's square that a film's boxes touch, by label."""
    height, width = pixels.grey.shape
    placed = Placement(height=height, width=width, matrix=_PLACES)
    places = np.zeros((len(NIH_LABELS), _PLACES, _PLACES), dtype=np.bool_)
    for box, (left, top, right, bottom) in zip(film.boxes, placed.to_matrix(pixels.corners), strict=True):
        if box.name in NIH_LABELS:
            rows = slice(max(int(top), 0), max(int(np.ceil(bottom)), int(top) + 1))
            columns = slice(max(int(left), 0), max(int(np.ceil(right)), int(left) + 1))
            places[NIH_LABELS.index(box.name), rows, columns] = True
    return places


def _score(logits: npt.NDArray[np.float32], validation: Examples) -> dict[str, float]:
    """Mean area under the curve of the labels that are frequent enough, or of all where none is."""
    targets = validation.targets
    labels = frequent_labels(targets) or tuple(range(targets.shape[1]))
    areas = {f"auc_{NIH_LABELS[label]}": mean_area(logits, targets, [label]) for label in labels}
    return {"score": mean_area(logits, targets, labels), **areas}


if __name__ == "__main__":
    command_line(RECIPE)()
