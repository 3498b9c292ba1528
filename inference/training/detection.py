r"""Adapter: the recipe of the ``chest-xray-boxes`` package: trains, compares variants, calibrates, packs.

The data set is any layout that `chest_xray` reads; its boxes are learned by a Faster R-CNN, ResNet-50 with a
feature pyramid on a GPU, EfficientNet-lite0 without. How it is trained is in `detection_loop`, what the
scores mean in `detection_metrics`, what the card quotes in `detection_figures`::

    python -m inference.training.detection train --data ../shared/data/cxr --out runs/boxes
    python -m inference.training.detection evaluate --data ../shared/data/cxr \
        --package models/chest-xray-boxes/1.0.0
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import torch
import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file

from inference.detection import (
    calibrated,
    explain_presence,
    read_image,
    read_options,
    spread_of_boxes,
)
from inference.explain import overlap_of_hottest, points_at
from inference.familiarity import Familiarity, pooled_features, thresholds_of
from inference.networks.faster_rcnn import RadiographDetector
from inference.packages import ModelPackageError, load_package
from inference.training.chest_xray import Film, read_films
from inference.training.classification_cards import read_card_template
from inference.training.detection_figures import (
    LEAST_IOU,
    VARIANTS,
    ReadFilm,
    compare_variants,
    detection_figures,
    figures_table,
    score,
)
from inference.training.detection_loop import (
    DetectionConfig,
    DetectionFilms,
    build_detector,
    choose_films,
    prepare_film,
    train_detector,
)
from inference.training.detection_metrics import ScoredImage, choose_thresholds, match
from inference.training.recipe import EvaluateRequest, Metrics, Recipe, TrainRequest
from inference.training.run_files import BEST, override, write_card, write_weights
from inference.uncertainty import calibrate, fit_temperatures, fit_triage, logits_of

NAME: Final = "chest-xray-boxes"
VERSION: Final = "1.0.0"

CONCEPTS: Final = {
    "Atelectasis": ("atelectasis", "lung"),
    "Cardiomegaly": ("cardiomegaly", "heart"),
    "Consolidation": ("consolidation", "lung"),
    "Effusion": ("effusion", "pleura"),
    "Infiltration": ("infiltration", "lung"),
    "Mass": ("mass", "lung"),
    "Nodule": ("nodule", "lung"),
    "Pneumonia": ("pneumonia", "lung"),
    "Pneumothorax": ("pneumothorax", "pleura"),
    "Aortic_enlargement": ("aortic_enlargement", "aorta"),
    "Calcification": ("calcification", "lung"),
    "ILD": ("ild", "lung"),
    "Lung_Opacity": ("lung_opacity", "lung"),
    "Nodule_Mass": ("nodule_mass", "lung"),
    "Other_lesion": ("other_lesion", "lung"),
    "Pleural_Thickening": ("pleural_thickening", "pleura"),
    "Fibrosis": ("pulmonary_fibrosis", "lung"),
}
"""Finding and site of each class, keys of reporting/codes.py."""

MOST_FALSE_POSITIVES: Final = 0.15
"""Most false positives of one class an image at its threshold: about one an image over eight classes."""

LEAST_PRECISION: Final = 0.1
"""Share of a class's reported boxes that must hit a drawn one; NIH's readers drew a part of what is there."""

UNREPORTED: Final = 0.9999
"""Threshold of a class that no score makes good enough."""

PREDICTIVE_VALUES: Final = 0.9
"""Predictive value wanted of low and of high risk."""

DROPOUT_PASSES: Final = 8
_UNSURE_QUANTILE: Final = 0.95
"""Share of the reported validation boxes whose deviation counts as usual."""

_FAMILIAR_FILMS: Final = 400
_LAYERS: Final = {
    "lite0_fpn": "backbone.body.blocks.6",
    "r50_fpn_v2": "backbone.body.layer4",
    "c5": "backbone.body.layer4",
}
"""Layer of each architecture on which Grad-CAM and familiarity look."""

_TIMES_CHANCE: Final = 2.0
"""How much better than chance heat maps must point at the boxes to be drawn."""


def train_model(request: TrainRequest) -> Path:
    """Train the network and pack its best weights.

    Raises
    ------
    ChestXrayDataError
        If the folder holds no known data set.
    NoBoxesError
        If no film has a box of the classes.
    OverrideError
        If a setting does not fit the configuration.
    """
    config = override(DetectionConfig(seed=request.seed), request.overrides)
    if config.arch == "auto":
        config = replace(config, arch="r50_fpn_v2" if torch.cuda.is_available() else "lite0_fpn")
    train_detector(config, request.data, request.out, resume=request.resume, encoder=request.pretrained)
    return pack(request.data, request.out)


def pack(data: Path, run: Path) -> Path:
    """Make a model package of a run's best weights; choose variant, thresholds and calibration on validation.

    Parameters
    ----------
    data : Path
        Folder of the data set.
    run : Path
        Run folder.

    Returns
    -------
    Path
        ``<run>/package/chest-xray-boxes/<version>``; its card holds the measured figures.
    """
    console = Console()
    folder = run / "package" / NAME / VERSION
    config = TypeAdapter(DetectionConfig).validate_python(
        json.loads((run / "config.json").read_text(encoding="utf-8"))
    )
    network = build_detector(config)
    network.load_state_dict(load_file(run / BEST))
    files = write_weights(network, folder)
    stored: dict[str, torch.Tensor] = {}
    for file in files:
        stored |= load_file(folder / file["file"])
    network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
    )
    network = _ready(network)
    films = choose_films(read_films(data, readers=config.readers), config)
    layer = _LAYERS[config.arch]
    reads = read_validation(network, films.validation, config, console, layer=layer)
    variant, variants = compare_variants(reads, len(config.classes))
    options = VARIANTS[variant]
    console.print(_variants_table(variants, variant))
    scored = score(reads, options)
    temperatures = fit_box_temperatures(scored, len(config.classes))
    thresholds = _calibrated_thresholds(scored, config, temperatures)
    presence_temperature = _presence_temperature(scored)
    explanation = localisation(network, reads, layer, console)
    card = read_card_template(NAME, VERSION) | {
        "network": {"builtin": "faster_rcnn", "arguments": config.network_arguments()},
        "labels": [
            {
                "value": index + 1,
                "name": name.replace("_", " "),
                "concept": CONCEPTS[name][0],
                "site": CONCEPTS[name][1],
                "threshold": thresholds[index],
            }
            for index, name in enumerate(config.classes)
        ],
        "test_time_mirror": options.mirror,
        "options": {
            "gate": options.gate,
            "gate_power": options.gate_power,
            "fusion_overlap": options.fusion_overlap,
            "max_findings": options.max_findings,
            "presence_temperature": presence_temperature,
            "notes": _notes(config, thresholds),
            "heatmaps": explanation["pointing_game"] > _TIMES_CHANCE * explanation["pointing_by_chance"],
        },
        "explanation_layer": layer,
        "weights": {"files": files, "dtype": "float16"},
    }
    card["input"] |= {"matrix": config.matrix}
    card["doubt"] = {
        "temperatures": list(temperatures),
        "dropout_passes": DROPOUT_PASSES,
        "largest_uncertainty": usual_spread(network, reads, scored, thresholds, temperatures),
        "triage": _triage_card(scored, presence_temperature),
        "familiarity": _familiarity(folder, network, films, config, reads),
    }
    card["training_data"] |= {
        "films": {
            "training_with_boxes": len(films.boxed),
            "training_without_finding": len(films.negative),
            "validation": len(films.validation),
        },
        "validation_patients": sorted({film.patient_id for film in films.validation}),
    }
    card["metrics"] |= {"variants": variants}
    write_card(folder, card)
    figures = detection_figures(scored, config.classes, thresholds, temperatures)
    figures["explanation"] = explanation
    _print_figures(figures, console)
    card["metrics"] |= figures
    write_card(folder, card)
    return folder


def evaluate_model(request: EvaluateRequest) -> Metrics:
    """Score a package on the validation films of a data set, and print its table.

    Raises
    ------
    ChestXrayDataError
        If the folder holds no known data set.
    ModelPackageError
        If the package is not usable.
    """
    console = Console()
    package = load_package(request.package)
    network = package.build()
    if not isinstance(network, RadiographDetector):
        raise ModelPackageError(f"{package.card.name}: the network finds no boxes: give a detection package.")
    network = _ready(network)
    classes = tuple(_class_of(label.concept) for label in package.card.labels)
    config = DetectionConfig(arch="", classes=classes, matrix=package.card.input.matrix)
    films = read_films(request.data, readers=config.readers)
    if request.is_every_patient:
        films = tuple(replace(film, fold="validation") for film in films)
        chosen = [film for film in films if film.is_normal or any(b.name in classes for b in film.boxes)]
    else:
        chosen = list(choose_films(films, config).validation)
    reads = read_validation(network, chosen, config, console)
    thresholds = [package.card.threshold_of(label) for label in package.card.labels]
    figures = detection_figures(
        score(reads, read_options(package)), classes, thresholds, package.card.doubt.temperatures
    )
    if package.card.explanation_layer is not None:
        figures["explanation"] = localisation(network, reads, package.card.explanation_layer, console)
    _print_figures(figures, console)
    return figures


def read_validation(
    network: RadiographDetector,
    films: Sequence[Film],
    config: DetectionConfig,
    console: Console,
    *,
    layer: str | None = None,
) -> list[ReadFilm]:
    """Let the network read films and their mirror images; keep the pooled features of a layer if asked."""
    device = next(network.parameters()).device
    seen: list[torch.Tensor] = []
    module = network if layer is None else network.get_submodule(layer)
    handle = module.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.mean(dim=(2, 3))) if layer else None
    )
    reads = []
    try:
        for film in track(films, "reading", console=console):
            prepared = prepare_film(film, config)
            readings = read_image(network, prepared.image.float().numpy(), device, mirror=True)
            features = seen[0][0].float().cpu().numpy() if seen else None
            seen.clear()
            reads.append(ReadFilm(film=film, prepared=prepared, readings=tuple(readings), features=features))
    finally:
        handle.remove()
    return reads


def _print_figures(figures: dict[str, Any], console: Console) -> None:
    console.print(figures_table(figures))
    console.print({key: value for key, value in figures.items() if key != "classes"})


def fit_box_temperatures(scored: Sequence[ScoredImage], classes: int) -> tuple[float, ...]:
    """Fit one temperature a class, so that a box's score is the share of such boxes that are right."""
    every = [match(scored, label, LEAST_IOU) for label in range(classes)]
    count = sum(len(one.scores) for one in every)
    logits = np.zeros((count, classes), dtype=np.float32)
    targets = np.full((count, classes), np.nan, dtype=np.float32)
    start = 0
    for label, one in enumerate(every):
        rows = slice(start, start + len(one.scores))
        logits[rows, label] = logits_of(one.scores)
        targets[rows, label] = one.is_hit
        start += len(one.scores)
    return fit_temperatures(logits, targets)


def usual_spread(
    network: RadiographDetector,
    reads: Sequence[ReadFilm],
    scored: Sequence[ScoredImage],
    thresholds: Sequence[float],
    temperatures: Sequence[float],
) -> float:
    """Return the deviation over dropout passes that few of the reported validation boxes exceed."""
    deviations: list[float] = []
    for index, (read, image) in enumerate(zip(reads, scored, strict=True)):
        scores = calibrated(image.scores, image.classes, temperatures)
        kept = scores >= np.asarray(thresholds)[image.classes]
        if kept.any():
            deviations += spread_of_boxes(
                network,
                read.prepared.image.float().numpy(),
                image.boxes[kept],
                image.classes[kept],
                passes=DROPOUT_PASSES,
                seed=index,
                device=next(network.parameters()).device,
            )
    usual = float(np.quantile(deviations, _UNSURE_QUANTILE)) if deviations else 0.5
    return round(max(usual, 1e-3), 4)


def localisation(
    network: RadiographDetector, reads: Sequence[ReadFilm], layer: str, console: Console
) -> dict[str, Any]:
    """Measure Grad-CAM against the drawn boxes: pointing game, and overlap of the hottest area.

    Returns
    -------
    dict
        Share of (film, class) whose hottest pixel lies in a box of the class, share of the film that these
        boxes cover (what a random pixel would reach), mean IoU of the hottest pixels, as many as the boxes
        cover, with the boxes, and the number of cases.
    """
    device = next(network.parameters()).device
    hits, areas, shares = [], [], []
    for read in track([read for read in reads if len(read.prepared.boxes)], "explaining", console=console):
        image = read.prepared.image.float().numpy()
        for value in sorted(set(read.prepared.labels.tolist())):
            drawn = _drawn(read, value)
            heat = explain_presence(network, image, layer, value, device)
            hits.append(points_at(heat, drawn))
            areas.append(float(drawn.mean()))
            shares.append(overlap_of_hottest(heat, drawn, float(drawn.mean())))
    return {
        "layer": layer,
        "cases": len(hits),
        "pointing_game": round(float(np.mean(hits)), 3),
        "pointing_by_chance": round(float(np.mean(areas)), 3),
        "iou_of_hottest": round(float(np.mean(shares)), 3),
    }


def _drawn(read: ReadFilm, value: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of a film inside the boxes of one class."""
    side = int(read.prepared.image.shape[-1])
    drawn = np.zeros((side, side), dtype=np.bool_)
    for box, label in zip(read.prepared.boxes.tolist(), read.prepared.labels.tolist(), strict=True):
        if label == value:
            left, top, right, bottom = (round(edge) for edge in box)
            drawn[top:bottom, left:right] = True
    return drawn


def _ready(network: RadiographDetector) -> RadiographDetector:
    """Return a network in evaluation mode on the best device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.eval().requires_grad_(requires_grad=False)
    moved: RadiographDetector = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def _class_of(concept: str) -> str:
    """Return the class of a finding, the inverse of `CONCEPTS`."""
    for name, (key, _) in CONCEPTS.items():
        if key == concept:
            return name
    raise ModelPackageError(f"No data set here has boxes of {concept!r}: correct the labels of the card.")


def _calibrated_thresholds(
    scored: Sequence[ScoredImage], config: DetectionConfig, temperatures: Sequence[float]
) -> list[float]:
    """Choose the thresholds on raw scores and calibrate them; `UNREPORTED` where none is good."""
    raw = choose_thresholds(
        scored,
        len(config.classes),
        least=LEAST_IOU,
        most_false_positives=MOST_FALSE_POSITIVES,
        least_precision=LEAST_PRECISION,
    )
    labels = np.arange(len(raw), dtype=np.int64)
    filled = np.array([UNREPORTED if value is None else value for value in raw], dtype=np.float32)
    values = calibrated(filled, labels, temperatures)
    return [
        UNREPORTED if chosen is None else round(float(np.clip(value, 0.001, 0.99)), 4)
        for chosen, value in zip(raw, values, strict=True)
    ]


def _notes(config: DetectionConfig, thresholds: Sequence[float]) -> list[str]:
    """Say which classes are looked for and not reported."""
    names = [
        name.replace("_", " ").lower()
        for name, threshold in zip(config.classes, thresholds, strict=True)
        if threshold == UNREPORTED
    ]
    if not names:
        return []
    return [f"Not reported, because too few of its boxes were right on validation films: {', '.join(names)}."]


def _presence_temperature(scored: Sequence[ScoredImage]) -> float:
    logits = np.array([[image.presence[0]] for image in scored], dtype=np.float32)
    truth = np.array([[float(image.is_abnormal)] for image in scored], dtype=np.float32)
    return fit_temperatures(logits, truth)[0]


def _triage_card(scored: Sequence[ScoredImage], temperature: float) -> dict[str, Any] | None:
    """Choose the triage thresholds on one score a patient: that of the most abnormal film.

    None when neither side reaches the predictive value that is wanted: such a triage would say nothing.
    """
    patients: dict[str, tuple[float, bool]] = {}
    for image in scored:
        probability = float(calibrate(image.presence[:1], (temperature,))[0])
        before, was_abnormal = patients.get(image.patient_id, (0.0, False))
        patients[image.patient_id] = max(before, probability), was_abnormal or image.is_abnormal
    card = fit_triage(
        np.array([value for value, _ in patients.values()], dtype=np.float32),
        np.array([is_abnormal for _, is_abnormal in patients.values()]),
        negative_target=PREDICTIVE_VALUES,
        positive_target=PREDICTIVE_VALUES,
    )
    if not card.negative_predictive_value and not card.positive_predictive_value:
        return None
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in card.model_dump().items()
    }


def _familiarity(
    folder: Path,
    network: RadiographDetector,
    films: DetectionFilms,
    config: DetectionConfig,
    reads: Sequence[ReadFilm],
) -> dict[str, Any]:
    """Fit how training films look to the network, with limits from the validation films."""
    training = [*films.boxed, *films.negative]
    chosen = np.random.default_rng(config.seed).permutation(len(training))[:_FAMILIAR_FILMS]
    device = next(network.parameters()).device
    features = [
        pooled_features(
            network,
            prepare_film(training[int(index)], config).image.float().numpy()[None],
            _LAYERS[config.arch],
            device=device,
        )
        for index in track(chosen, "familiar films")
    ]
    known = Familiarity.fit(np.concatenate(features))
    validation = np.stack([read.features for read in reads if read.features is not None])
    threshold, refusal = thresholds_of(known.distance(validation))
    file = known.save(folder)
    (folder / file.file).chmod(0o644)
    return {"file": file.file, "sha256": file.sha256, "threshold": threshold, "refusal": refusal}


def _variants_table(variants: dict[str, dict[str, Any]], chosen: str) -> Table:
    table = Table("variant", "mAP at IoU 0.4", "better than plain in", "kept")
    for name, entry in variants.items():
        low, high = entry["map40"]["ci95"]
        mean = entry["map40"]["mean"]
        table.add_row(
            name,
            f"{mean:.3f} [{low:.3f}, {high:.3f}]",
            f"{100 * entry['better_in']:.0f} %",
            "yes" if name == chosen else "",
        )
    return table


RECIPE: Final = Recipe(
    name=NAME,
    summary="boxes of eight findings on frontal chest X-rays: Faster R-CNN with a whole-image gate",
    train=train_model,
    evaluate=evaluate_model,
)
"""The recipe as the command line runs it."""

app = typer.Typer(help="Train and score the chest X-ray detector.", no_args_is_help=True)

_DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the data set.")]


@app.command("train")
def _train(
    data: _DataFolder,
    out: Annotated[Path, typer.Option("--out", help="Run folder.")],
    pretrained: Annotated[Path | None, typer.Option(help="ImageNet weights of the encoder.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="field=value.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and draws.")] = 20261122,
    *,
    resume: Annotated[bool, typer.Option(help="Continue from the run folder's checkpoint.")] = False,
) -> None:
    """Train, then pack a model package in the run folder."""
    overrides = dict(text.split("=", 1) for text in setting or [])
    request = TrainRequest(
        data=data, out=out, resume=resume, seed=seed, pretrained=pretrained, overrides=overrides
    )
    typer.echo(train_model(request))


@app.command("pack")
def _pack(data: _DataFolder, run: Annotated[Path, typer.Option("--run", help="Run folder.")]) -> None:
    """Pack the best weights of a run again."""
    typer.echo(pack(data, run))


@app.command("evaluate")
def _evaluate(
    data: _DataFolder,
    package: Annotated[Path, typer.Option("--package", help="Model package.")],
    *,
    every_patient: Annotated[bool, typer.Option(help="Score every patient of the folder.")] = False,
) -> None:
    """Score a package."""
    evaluate_model(EvaluateRequest(data=data, package=package, is_every_patient=every_patient))


if __name__ == "__main__":
    app()
