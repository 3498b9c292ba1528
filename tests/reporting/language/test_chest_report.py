from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from inference.networks.r2gen_cmn import R2GenCMN
from inference.packages import load_package
from inference.reading import read_study
from inference.rehearsal import example_study
from inference.runner import Runner
from inference.training.chest_xray import NIH_LABELS, ChestXrayDataError
from inference.training.recipe import EvaluateRequest, TrainRequest
from reporting.language.chest_report import (
    BOX_ENCODER,
    CONCEPT_NAMES,
    VERSION,
    ExtractorWeightsError,
    evaluate_model,
    load_extractor,
    train_model,
)
from reporting.language.report_examples import prepare_images, read_examples
from reporting.language.report_training import mirror_patches, pad_tokens, word_loss

SMALL = (
    "{d_model: 16, d_ff: 16, heads: 2, layers: 1, memory_size: 16, top_k: 4, dropout: 0.0, "
    "feature_dropout: 0.0, positions: 64}"
)
SETTINGS = {
    "extractor": "test_efficientnet",
    "arguments": SMALL,
    "matrix": "64",
    "longest": "30",
    "schedule": "{epochs: 2, batch_size: 8, validation_epochs: 1, is_bfloat16: false}",
}


def _pixels(draws, *, has_finding):
    pixels = draws.integers(60, 140, (64, 64)).astype(np.uint8)
    if has_finding:
        pixels[40:60, 8:24] = 250
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def label_folder(tmp_path_factory):
    """Write a data set in the layout of the NIH subset: effusions are bright squares on the right."""
    root = tmp_path_factory.mktemp("labels")
    (root / "images").mkdir()
    draws = np.random.default_rng(0)
    labels, boxes = [], []
    for index in range(40):
        has_effusion = index % 2 == 0
        _pixels(draws, has_finding=has_effusion).save(root / "images" / f"{index}.png")
        row = {"image": f"images/{index}.png", "patient_id": index // 2, "age": 50, "sex": "F", "view": "PA"}
        labels.append(row | dict.fromkeys(NIH_LABELS, 0) | {"Effusion": int(has_effusion)})
        if has_effusion:
            boxes.append(
                {"image": f"images/{index}.png", "label": "Effusion", "x": 8, "y": 40, "w": 16, "h": 20}
            )
    for name, rows in (("labels.csv", labels), ("boxes.csv", boxes)):
        with (root / name).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def package(label_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return load_package(train_model(TrainRequest(data=label_folder, out=out, overrides=SETTINGS)))


def test_reports_are_written_from_labels_and_boxes(label_folder):
    examples = read_examples(label_folder)
    assert len(examples) == 40
    assert "There is a pleural effusion on the right side." in examples[0].report
    assert examples[0].concepts == {"effusion"}
    assert "There is no pleural effusion." in examples[1].report
    folds = {fold: {e.patient_id for e in examples if e.fold == fold} for fold in ("training", "validation")}
    assert all(folds.values())
    assert not folds["training"] & folds["validation"]


def test_the_recipe_makes_a_package_with_its_figures(package, label_folder):
    card = package.card
    assert (card.name, card.version, card.task) == ("chest-xray-report", VERSION, "report")
    assert {label.concept for label in card.labels} == set(CONCEPT_NAMES)
    assert {"effusion", "no", "."} <= set(card.options["vocabulary"])
    assert {"bleu_4", "meteor", "rouge_l", "stated", "always_normal"} <= set(card.metrics)
    run = package.folder.parents[2]
    assert {"checkpoint.pt", "curves.png", "history.jsonl", "config.json"} <= {p.name for p in run.iterdir()}
    figures = evaluate_model(EvaluateRequest(data=label_folder, package=package.folder))
    assert figures["bleu_4"] == card.metrics["bleu_4"]
    assert figures["stated"] == card.metrics["stated"]


def test_a_run_resumes_where_it_stopped(package, label_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(package.folder.parents[2], run)
    more = SETTINGS | {"schedule": SETTINGS["schedule"].replace("epochs: 2", "epochs: 3", 1)}
    train_model(TrainRequest(data=label_folder, out=run, resume=True, overrides=more))
    epochs = [json.loads(line)["epoch"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]
    assert len(list(run.glob("patches-*.npy"))) == 2, "features are computed once"


def test_the_first_layers_stay_and_the_last_learn_where_half_of_the_extractor_does(
    package, label_folder, tmp_path
):
    weights = load_file(package.folder / "model.safetensors")
    own = {n.removeprefix("visual_extractor.model."): v for n, v in weights.items() if "extractor.model" in n}
    begun = tmp_path / "begun.safetensors"
    save_file({f"{BOX_ENCODER}{name}": value for name, value in own.items()}, begun)
    schedule = "{epochs: 1, batch_size: 8, is_bfloat16: false, is_extractor_frozen: false, frozen_share: 0.5}"
    overrides = SETTINGS | {"schedule": schedule}
    folder = train_model(TrainRequest(data=label_folder, out=tmp_path, overrides=overrides, pretrained=begun))
    learned = load_file(folder / "model.safetensors")
    same = {name for name in own if torch.equal(own[name], learned[f"visual_extractor.model.{name}"])}
    assert {"conv_stem.weight", "bn1.weight", "bn1.running_mean"} <= same
    assert len(same) < len(own)


def test_a_package_words_a_crude_report_of_a_study_and_finds_nothing(package):
    outcome = read_study(package, example_study(package), Runner("cpu"), "2.25.1")
    assert outcome.analysis.findings == ()
    assert outcome.analysis.model.task == "report"
    assert all(sentence.endswith(".") for sentence in outcome.crude_report)
    again = read_study(package, example_study(package), Runner("cpu"), "2.25.1")
    assert again.crude_report == outcome.crude_report


def test_real_reports_are_read_in_r2gens_layout(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    draws = np.random.default_rng(0)
    for name in ("0.png", "1.png"):
        _pixels(draws, has_finding=False).save(tmp_path / "images" / "a" / name)
    entry = {"id": "a", "report": "Heart is enlarged. No effusion.", "image_path": ["a/0.png", "a/1.png"]}
    (tmp_path / "annotation.json").write_text(json.dumps({"train": [entry], "val": [], "test": []}))
    (example,) = read_examples(tmp_path)
    assert example.concepts == {"cardiomegaly"}
    assert prepare_images([example], 32, 2, tmp_path).shape == (1, 2, 32, 32)


def test_own_reports_are_read_from_a_table_and_split_by_patient(tmp_path):
    rows = [f"{n}.png,Patchy atelectasis.,p{n // 2},PA" for n in range(20)]
    (tmp_path / "reports.csv").write_text("image,report,patient_id,view\n" + "\n".join(rows))
    examples = read_examples(tmp_path)
    assert examples[0].concepts == {"atelectasis"}
    by_patient = {e.patient_id: {x.fold for x in examples if x.patient_id == e.patient_id} for e in examples}
    assert all(len(folds) == 1 for folds in by_patient.values())


@pytest.mark.parametrize(
    ("name", "content"), [("annotation.json", "[]"), ("reports.csv", "picture,text\na,b\n")]
)
def test_a_damaged_layout_is_an_error_that_names_the_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ChestXrayDataError, match=name):
        read_examples(tmp_path)


def test_tokens_are_given_one_place_after_they_are_asked_for():
    given, wanted = pad_tokens([[5, 6], [7]], longest=10)
    assert given.tolist() == [[0, 5, 6], [0, 7, 0]]
    assert wanted.tolist() == [[5, 6, 0], [7, 0, -100]]
    even = torch.full((2, 3, 4), 0.25).log()
    assert word_loss(even, wanted.clamp(max=3), 0.0).item() == pytest.approx(np.log(4))


def test_mirrored_patches_are_those_of_the_mirrored_image():
    patches = torch.arange(8.0).view(1, 8, 1)
    assert mirror_patches(patches, 2).flatten().tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


def test_weights_of_another_architecture_are_refused(package):
    network = R2GenCMN(5, "test_efficientnet", d_model=16, heads=2, positions=16)
    with pytest.raises(ExtractorWeightsError, match="lite0_fpn"):
        load_extractor(network, package.folder / "model.safetensors")
