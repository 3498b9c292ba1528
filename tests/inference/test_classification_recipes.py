from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml
from PIL import Image

from inference.packages import load_package
from inference.training.chest_labels import (
    VERSION,
    ChestLabelsConfig,
    chest_examples,
    evaluate_model,
    fit_abnormal,
    labelled_films,
    train_model,
)
from inference.training.chest_xray import NIH_LABELS, ChestXrayDataError
from inference.training.classification import Examples
from inference.training.head_ct import HeadCtDataError, deal_folds, read_examples
from inference.training.head_ct import evaluate_model as evaluate_head_ct
from inference.training.head_ct import train_model as train_head_ct
from inference.training.recipe import EvaluateRequest, TrainRequest
from inference.training.run_files import override

SMALL = "{in_channels: 1, out_channels: %d, dropout: 0.3}"


@pytest.fixture(scope="module")
def chest_folder(tmp_path_factory):
    """Write a data set in the layout of the NIH subset: effusions are bright squares."""
    root = tmp_path_factory.mktemp("chest")
    (root / "images").mkdir()
    draws = np.random.default_rng(0)
    labels, boxes = [], []
    for index in range(60):
        pixels = draws.integers(60, 140, (64, 64)).astype(np.uint8)
        has_effusion = index % 2 == 0
        if has_effusion:
            pixels[40:60, 8:24] = 250
            boxes.append(
                {"image": f"images/{index}.png", "label": "Effusion", "x": 8, "y": 40, "w": 16, "h": 20}
            )
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        row = {"image": f"images/{index}.png", "patient_id": index // 2, "age": 50, "sex": "F"}
        row |= {"view": "AP" if has_effusion else "PA"} | dict.fromkeys(NIH_LABELS, 0)
        labels.append(row | {"Effusion": int(has_effusion)})
    for name, rows in (("labels.csv", labels), ("boxes.csv", boxes)):
        with (root / name).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def head_folder(tmp_path_factory):
    """Write discs of brain in skull; a haemorrhage is a bright disc inside."""
    root = tmp_path_factory.mktemp("head")
    rows_of, columns_of = np.mgrid[:80, :64] - np.array([40, 32])[:, None, None]
    rows = []
    for index in range(30):
        pixels = np.where(np.hypot(rows_of, columns_of) < 28, 110, 0)
        pixels[(np.hypot(rows_of, columns_of) >= 25) & (np.hypot(rows_of, columns_of) < 28)] = 255
        if index % 2:
            pixels[np.hypot(rows_of - 5, columns_of + 8) < 6] = 230
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{index}.png")
        label = "haemorrhage" if index % 2 else "normal"
        rows.append({"image": f"{index}.png", "label": label, "group": str(index // 4 * 2 + index % 2)})
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_boxes_are_drawn_where_they_lie_and_missing_ones_are_unknown(chest_folder, tmp_path):
    films = labelled_films(chest_folder)
    examples = chest_examples(films, 32, tmp_path)
    effusion = NIH_LABELS.index("Effusion")
    assert examples.images.shape == (60, 1, 32, 32)
    assert examples.places.shape[2:] == (32, 32)
    rows, columns = np.nonzero(examples.places[0, effusion])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (20, 30, 4, 12)
    assert examples.is_placed.all()
    again = chest_examples(films, 32, tmp_path)
    np.testing.assert_array_equal(again.images, examples.images)
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_the_chest_recipe_makes_a_package_that_loads_and_can_be_scored(chest_folder, tmp_path):
    request = TrainRequest(
        data=chest_folder,
        out=tmp_path / "run",
        overrides={
            "network": "encoder_classifier",
            "arguments": SMALL % 14,
            "matrix": "32",
            "schedule": "{epochs: 1, batch_size: 8}",
        },
    )
    package = load_package(train_model(request))
    card = package.card
    assert (card.name, card.version, card.task) == ("chest-xray-labels", VERSION, "classification")
    assert [label.name for label in card.labels] == list(NIH_LABELS)
    assert len(card.doubt.temperatures) == 14
    assert card.doubt.familiarity is not None
    assert card.options["unanswered"] == [], "too few images to leave out any"
    assert package.build() is not None
    figures = evaluate_model(EvaluateRequest(data=chest_folder, package=package.folder))
    assert figures["images"] == card.metrics["images"] == 12
    assert figures["view_alone"] is not None
    assert yaml.safe_load((package.folder / "model.yaml").read_text())["metrics"]["labels"]["Effusion"]


def test_a_set_without_labels_is_refused(tmp_path):
    (tmp_path / "stage_2_train_labels.csv").write_text("patientId,x,y,width,height,Target\na,,,,,0\n")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ChestXrayDataError):
        labelled_films(tmp_path)


def test_an_abnormal_image_is_likelier_the_larger_its_largest_label_is():
    probabilities = np.array(
        [[0.1, 0.2], [0.2, 0.3], [0.8, 0.1], [0.3, 0.9], [0.6, 0.6], [0.4, 0.5]], np.float32
    )
    fitted = fit_abnormal(probabilities, np.array([False, False, True, True, False, True]))
    assert fitted["scale"] > 0


def test_groups_are_dealt_whole_and_classes_evenly(head_folder):
    examples = read_examples(head_folder, 32)
    folds = deal_folds(examples)
    assert set(folds) == {0, 1, 2, 3, 4}
    for group in set(examples.patients):
        members = [index for index, other in enumerate(examples.patients) if other == group]
        assert len(set(folds[members])) == 1
    for fold in range(5):
        assert 0 < examples.targets[folds == fold].mean() < 1
    shuffled = examples.take(np.arange(len(folds))[::-1])
    np.testing.assert_array_equal(deal_folds(shuffled), folds[::-1])


def test_the_head_ct_recipe_cross_validates_and_makes_a_package(head_folder, tmp_path):
    request = TrainRequest(
        data=head_folder,
        out=tmp_path / "run",
        overrides={"matrix": "32", "schedule": "{epochs: 1, batch_size: 8}", "arguments": SMALL % 1},
    )
    package = load_package(train_head_ct(request))
    card = package.card
    assert card.input.channels == 1
    assert card.input.windows[0].centre_hu == 40
    assert set(card.metrics["cross_validation"]) >= {"auc", "sensitivity", "specificity", "mcc", "kappa"}
    assert "research only" in card.licence
    figures = evaluate_head_ct(EvaluateRequest(data=head_folder, package=package.folder))
    assert figures == card.metrics["packed_network_on_its_held_out_fold"]


def test_a_folder_without_slices_is_refused(tmp_path):
    with pytest.raises(HeadCtDataError, match=r"index\.csv"):
        read_examples(tmp_path, 32)


def test_settings_reach_the_configuration():
    config = override(ChestLabelsConfig(), {"matrix": "320", "schedule": "{epochs: 3, box_weight: 0.5}"})
    assert (config.matrix, config.schedule.epochs, config.schedule.box_weight) == (320, 3, 0.5)


def test_examples_are_taken_in_the_order_asked_for():
    examples = Examples(
        images=np.zeros((3, 1, 2, 2), np.float16), targets=np.eye(3, dtype=bool), patients=("a", "b", "c")
    )
    taken = examples.take(np.array([2, 0]))
    assert taken.patients == ("c", "a")
    np.testing.assert_array_equal(taken.targets, np.eye(3, dtype=bool)[[2, 0]])
