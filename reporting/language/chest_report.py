"""Adapter: the recipe of the ``chest-xray-report`` package: crude chest reports by R2GenCMN.

Data sets with labels and boxes are given reports by the project's own grammar (`film_reports`); folders with
real reports are taken as they are (`report_examples`). ``pretrained`` is a file of weights for the extractor:
ImageNet's (``.pth``), or those of a ``chest-xray-boxes`` package (``.safetensors``), whose convolutions know
radiographs already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from dicom_node.errors import PermanentError
from inference.networks.r2gen_cmn import R2GenCMN
from inference.packages import BUILTIN_NETWORKS, ModelPackageError, discover, load_package
from inference.report_vocabulary import Cleaning, Vocabulary
from inference.report_writing import WritingOptions, read_options, require_writer, write_from_patches
from inference.training.chest_xray import NIH_LABELS
from inference.training.classification import predict_logits
from inference.training.classification_cards import read_card_template
from inference.training.command_line import command_line
from inference.training.devices import device_of, training_device
from inference.training.metrics import Interval
from inference.training.pretrained import load_encoder
from inference.training.recipe import EvaluateRequest, Metrics, Recipe, TrainRequest
from inference.training.run_files import override, write_card, write_json, write_weights
from inference.uncertainty import calibrate
from reporting.language.film_reports import CONCEPTS, stated_present
from reporting.language.report_examples import ReportExample, prepare_images, read_examples
from reporting.language.report_training import WriterData, WriterSchedule, extract, extract_once, fit_writer
from reporting.language.text_metrics import bleu, figure, label_scores, score_texts

NAME: Final = "chest-xray-report"
VERSION: Final = "1.1.0"

CONCEPT_NAMES: Final = tuple(concept for concept, _ in CONCEPTS.values())
"""The fourteen findings that a text may state."""

_LABEL_MODEL: Final = "chest-xray-labels"
BOX_ENCODER: Final = "backbone.body."
"""Where a chest-xray-boxes package keeps its convolutions."""

_WRITTEN_AT_ONCE: Final = 32
_EXAMPLES_SHOWN: Final = 3
_SCHEDULE: Final = WriterSchedule()


class ExtractorWeightsError(PermanentError):
    """A file of weights does not fit the report writer's extractor: choose another, or set extractor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Everything that a run depends on besides the data.

    Attributes
    ----------
    extractor : str
        The convolutions (`inference.networks.r2gen_cmn.VisualExtractor`).
    arguments : mapping
        Sizes of the encoder-decoder, as the card will name them; the published ones are 512 wide, with 3
        layers, a memory of 2,048 vectors and 32 answers. A thousand films need less.
    matrix, views : int, int
        Side of the network's input, pixels; images of a report (2 for IU X-ray).
    cleaning, threshold : str, int
        Rules of the vocabulary, and how often a word must come.
    beams, longest, blocked_ngram : int, int, int
        How reports are written (`inference.report_writing`).
    contrasts : tuple of float
        How much of the writing without an image may be taken off; the first while training, the best on
        validation patients in the package.
    schedule : WriterSchedule
        How it is trained.
    seed : int
        Seed of the weights, the draws and the mirrors.
    """

    extractor: str = "tf_efficientnet_lite0"
    arguments: dict[str, JsonValue] = field(
        default_factory=lambda: {
            "pool": 2,
            "d_model": 192,
            "d_ff": 384,
            "heads": 8,
            "layers": 2,
            "memory_size": 512,
            "top_k": 16,
            "dropout": 0.1,
            "feature_dropout": 0.3,
            "positions": 256,
            "normalise_features": True,
        }
    )
    matrix: int = 384
    views: int = 1
    cleaning: Cleaning = "iu_xray"
    threshold: int = 3
    beams: int = 3
    longest: int = 100
    blocked_ngram: int = 0
    contrasts: tuple[float, ...] = (0.5, 0.0, 0.75, 1.0)
    schedule: WriterSchedule = _SCHEDULE
    seed: int = 20261122


def train_model(request: TrainRequest) -> Path:
    """Train the writer and pack its best weights.

    Raises
    ------
    ChestXrayDataError
        If the folder holds no known data set.
    ExtractorWeightsError
        If the file of pretrained weights does not fit.
    OverrideError
        If a setting does not fit the configuration.
    """
    config = override(ReportConfig(seed=request.seed), request.overrides)
    request.out.mkdir(parents=True, exist_ok=True)
    examples = read_examples(request.data)
    folds = {
        name: [example for example in examples if example.fold == name] for name in ("training", "validation")
    }
    write_json(request.out / "config.json", config)
    write_json(
        request.out / "split.json",
        {name: sorted({example.patient_id for example in fold}) for name, fold in folds.items()},
    )
    training, validation = (_data(folds[name], config, request.out) for name in ("training", "validation"))
    vocabulary = Vocabulary.of_reports(training.texts, threshold=config.threshold, cleaning=config.cleaning)
    Console().print(
        f"{len(training.texts)} training reports, {len(vocabulary)} words; "
        f"{len(validation.texts)} validation reports"
    )
    torch.manual_seed(config.seed)
    arguments = {**config.arguments, "words": len(vocabulary), "extractor": config.extractor}
    arguments["views"] = config.views
    network = BUILTIN_NETWORKS["r2gen_cmn"](arguments)
    assert isinstance(network, R2GenCMN)
    if request.pretrained is not None:
        load_extractor(network, request.pretrained)
    options = WritingOptions(
        vocabulary=vocabulary.words,
        cleaning=config.cleaning,
        beams=config.beams,
        longest=config.longest,
        blocked_ngram=config.blocked_ngram,
    )
    greedy = options.model_copy(update={"beams": 1, "contrast": config.contrasts[0]})
    best = fit_writer(
        network.to(training_device()),
        vocabulary,
        training,
        validation,
        write=lambda writer, patches: _write(writer, patches, greedy),
        score=lambda texts: _score(texts, folds["validation"]),
        out=request.out,
        schedule=config.schedule,
        seed=config.seed,
        resume=request.resume,
    )
    network.load_state_dict(load_file(best))
    options = _choose_contrast(
        network.eval(),
        validation,
        folds["validation"],
        options=options,
        contrasts=config.contrasts,
        out=request.out,
    )
    return _pack(request, config, options, network, folds)


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
    everyone = read_examples(request.data)
    examples = [one for one in everyone if request.is_every_patient or one.fold == "validation"]
    options = read_options(package)
    network = require_writer(package, package.build()).to(training_device())
    with TemporaryDirectory() as cache:
        images = prepare_images(examples, package.card.input.matrix, network.views, Path(cache))
        texts = _write(network, extract(network, images), options)
    training = [one for one in everyone if one.fold == "training"]
    figures = score_written(texts, examples, most_frequent=_most_frequent(training or examples))
    labels = _label_model(request, examples)
    if labels is not None:
        figures["label_model"] = {"of": labels[0], **_stated(labels[1], examples)}
    _print(texts, examples, figures)
    return figures


RECIPE: Final = Recipe(
    name=NAME,
    summary="crude chest reports: R2GenCMN (labels and boxes, IU X-ray, MIMIC-CXR or own reports)",
    train=train_model,
    evaluate=evaluate_model,
)


def score_written(
    texts: Sequence[str], examples: Sequence[ReportExample], *, most_frequent: str
) -> dict[str, Any]:
    """Score written texts, beside a writer that gives everyone the most frequent report.

    Parameters
    ----------
    texts : sequence of str
        What was written for each example.
    examples : sequence of ReportExample
        The truth.
    most_frequent : str
        The most frequent report of the training patients.

    Returns
    -------
    dict
        Figures as the card's ``metrics`` hold them.
    """
    patients = [example.patient_id for example in examples]

    def scores(candidates: Sequence[str]) -> dict[str, Any]:
        pairs = [(said, one.report) for said, one in zip(candidates, examples, strict=True)]
        figures = score_texts(pairs, patients).figures()
        return figures | {"stated": _stated([stated_present(said) for said in candidates], examples)}

    constant = scores([most_frequent] * len(texts))
    by_view = {
        view: _stated(
            [stated_present(said) for said, one in zip(texts, examples, strict=True) if one.view == view],
            [one for one in examples if one.view == view],
        )["micro_f1"]
        for view in sorted({one.view for one in examples} - {""})
    }
    return {
        "reports": len(texts),
        "patients": len(set(patients)),
        "distinct_texts": len(set(texts)),
        **scores(texts),
        "micro_f1_by_view": by_view,
        "always_normal": constant,
    }


def load_extractor(network: R2GenCMN, path: Path) -> None:
    """Load the weights that the convolutions begin with.

    Raises
    ------
    ExtractorWeightsError
        If they are those of another architecture.
    """
    encoder = network.visual_extractor.model
    if path.suffix != ".safetensors":
        load_encoder(encoder, path)
        return
    stored = load_file(path)
    chosen = {
        name.removeprefix(BOX_ENCODER): value.float() if value.is_floating_point() else value
        for name, value in stored.items()
        if name.startswith(BOX_ENCODER)
    }
    try:
        encoder.load_state_dict(chosen)
    except RuntimeError as exc:
        raise ExtractorWeightsError(
            f"{path.name} does not hold the convolutions of this extractor: give the weights of a "
            "chest-xray-boxes package of arch lite0_fpn, or ImageNet's."
        ) from exc


def _data(examples: Sequence[ReportExample], config: ReportConfig, out: Path) -> WriterData:
    return WriterData(
        images=prepare_images(examples, config.matrix, config.views, out),
        texts=tuple(example.report for example in examples),
        targets=np.array(
            [[concept in example.concepts for concept in CONCEPT_NAMES] for example in examples],
            dtype=np.float32,
        ).reshape(-1, len(CONCEPT_NAMES)),
    )


def _write(network: R2GenCMN, patches: torch.Tensor, options: WritingOptions) -> list[str]:
    """Return the texts of (N, patches, channels) features, some at a time."""
    device = device_of(network)
    parts = (patches[i : i + _WRITTEN_AT_ONCE] for i in range(0, len(patches), _WRITTEN_AT_ONCE))
    return [text for part in parts for text in write_from_patches(network, part.to(device).float(), options)]


def _score(texts: Sequence[str], examples: Sequence[ReportExample]) -> dict[str, float]:
    """Return what decides between epochs: the mean of BLEU-4 and the pooled F1 of what is stated."""
    four = bleu([(said, one.report) for said, one in zip(texts, examples, strict=True)])[3].mean
    stated = label_scores(
        [(stated_present(said), one.concepts) for said, one in zip(texts, examples, strict=True)],
        CONCEPT_NAMES,
    )["micro_f1"].mean
    return {"score": (four + stated) / 2, "bleu_4": four, "micro_f1": stated}


def _stated(said: Sequence[frozenset[str]], examples: Sequence[ReportExample]) -> dict[str, JsonValue]:
    """Return precision, recall and F1 of findings that are stated as there."""
    pairs = [(mine, one.concepts) for mine, one in zip(said, examples, strict=True)]
    scores: dict[str, Interval] = label_scores(
        pairs, CONCEPT_NAMES, [example.patient_id for example in examples]
    )
    return {name: figure(score) for name, score in scores.items()}


def _choose_contrast(
    network: R2GenCMN,
    validation: WriterData,
    examples: Sequence[ReportExample],
    *,
    options: WritingOptions,
    contrasts: Sequence[float],
    out: Path,
) -> WritingOptions:
    """Return the options with the contrast whose greedy texts score best on validation patients."""
    if not examples:
        return options
    patches = extract_once(network, validation.images, out)
    tried = [options.model_copy(update={"contrast": contrast}) for contrast in contrasts]
    greedy = [one.model_copy(update={"beams": 1}) for one in tried]
    scores = [_score(_write(network, patches, one), examples) for one in greedy]
    for one, score in zip(tried, scores, strict=True):
        figures = " ".join(f"{name} {value:.3f}" for name, value in score.items())
        Console().print(f"contrast {one.contrast}: {figures}", highlight=False)
    return tried[int(np.argmax([score["score"] for score in scores]))]


def _most_frequent(examples: Sequence[ReportExample]) -> str:
    return Counter(example.report for example in examples).most_common(1)[0][0]


def _label_model(
    request: EvaluateRequest, examples: Sequence[ReportExample]
) -> tuple[str, list[frozenset[str]]] | None:
    """Return what the installed model of labels calls present at its own thresholds; None without one."""
    try:
        package = discover(request.package.parents[1]).package(_LABEL_MODEL)
    except ModelPackageError:
        return None
    card = package.card
    if [label.name for label in card.labels] != list(NIH_LABELS):
        return None
    with TemporaryDirectory() as cache:
        images = prepare_images(examples, card.input.matrix, 1, Path(cache))
        logits = predict_logits(package.build(), np.asarray(images), mirror=card.test_time_mirror)
    probabilities: npt.NDArray[np.float32] = calibrate(logits, card.doubt.temperatures)
    silent = card.options.get("unanswered")
    unanswered = set(silent) if isinstance(silent, list) else set()
    answered = [(i, label) for i, label in enumerate(card.labels) if label.name not in unanswered]
    said = [
        frozenset(label.concept for i, label in answered if row[i] >= card.threshold_of(label))
        for row in probabilities
    ]
    return f"{card.name}@{card.version}", said


def _pack(
    request: TrainRequest,
    config: ReportConfig,
    options: WritingOptions,
    network: R2GenCMN,
    folds: dict[str, list[ReportExample]],
) -> Path:
    """Make a model package."""
    folder = request.out / "package" / NAME / VERSION
    card = read_card_template(NAME, VERSION)
    card["input"] |= {"matrix": config.matrix}
    card |= {
        "network": {
            "builtin": "r2gen_cmn",
            "arguments": {
                "words": len(options.vocabulary),
                "extractor": config.extractor,
                "views": config.views,
                **config.arguments,
            },
        },
        "options": options.model_dump(mode="json"),
        "weights": {"files": write_weights(network, folder), "dtype": "float16"},
    }
    card["training_data"] |= {
        "extractor_begun_from": "random weights" if request.pretrained is None else request.pretrained.name,
        "schedule": asdict(config.schedule),
        "reports_used": {name: len(fold) for name, fold in folds.items()},
        "patients": {name: len({one.patient_id for one in fold}) for name, fold in folds.items()},
        "stated": dict(
            sorted(Counter(concept for one in folds["training"] for concept in one.concepts).items())
        ),
    }
    write_card(folder, card)
    card["metrics"] |= dict(evaluate_model(EvaluateRequest(data=request.data, package=folder)))
    write_card(folder, card)
    return folder


def _print(texts: Sequence[str], examples: Sequence[ReportExample], figures: dict[str, Any]) -> None:
    console = Console()
    table = Table("score", "written", "always normal", title=f"{len(texts)} reports")
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l"):
        table.add_row(name, _text(figures[name]), _text(figures["always_normal"][name]))
    for name in figures["stated"]:
        table.add_row(name, _text(figures["stated"][name]), _text(figures["always_normal"]["stated"][name]))
    console.print(table)
    if "label_model" in figures:
        labels = Table("score", figures["label_model"]["of"], title="the model of labels")
        for name in figures["stated"]:
            labels.add_row(name, _text(figures["label_model"][name]))
        console.print(labels)
    console.print(f"METEOR: {figures['meteor_matching']}; {figures['distinct_texts']} distinct texts")
    for said, one in list(zip(texts, examples, strict=True))[:_EXAMPLES_SHOWN]:
        console.print(f"written: {said}\nwanted:  {one.report}", highlight=False, soft_wrap=True)


def _text(score: dict[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{score['mean']:.3f} [{low:.3f}, {high:.3f}] n={score['n']}"


if __name__ == "__main__":
    command_line(RECIPE)()
