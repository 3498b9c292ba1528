from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dicom_node.chest_phantom import Nodule, chest_study
from inference.detection import DetectionOptions, FoundBoxes
from inference.packages import load_package
from inference.training import detection, detection_loop
from inference.training.chest_xray import NIH_LABELS, Film, MarkedBox, read_films
from inference.training.detection import RECIPE, fit_box_temperatures
from inference.training.detection_figures import ReadFilm, compare_variants, detection_figures, score
from inference.training.detection_loop import (
    DetectionConfig,
    FilmViews,
    NoBoxesError,
    PreparedFilm,
    Stage,
    choose_films,
    draw_epoch,
    prepare_film,
)
from inference.training.recipe import EvaluateRequest, TrainRequest
from inference.training.recipes import find_recipe

CLASSES = ("Nodule", "Mass")


def write_films(root: Path, count: int, side: int = 96) -> Path:
    """Synthetic films in the layout of the NIH subset: every other one with a nodule and its box."""
    (root / "images").mkdir(parents=True)
    labels = [f"image,patient_id,view,age,sex,{','.join((*NIH_LABELS, 'No_Finding'))}"]
    boxes = ["image,label,x,y,w,h"]
    for index in range(count):
        nodule = Nodule(x_mm=-70.0 + 3 * index, y_mm=-50.0, diameter_mm=50.0) if index % 2 == 0 else None
        study = chest_study(index, nodule=nodule, matrix=side)
        Image.fromarray((study.datasets[0].pixel_array >> 4).astype(np.uint8)).save(
            root / f"images/{index}.png"
        )
        ones = [str(int(name == "Nodule" and nodule is not None)) for name in NIH_LABELS]
        labels.append(f"images/{index}.png,{index},PA,50,F,{','.join(ones)},{int(nodule is None)}")
        if study.nodule_box is not None:
            left, top, right, bottom = study.nodule_box
            boxes.append(f"images/{index}.png,Nodule,{left},{top},{right - left},{bottom - top}")
    (root / "labels.csv").write_text("\n".join(labels), encoding="utf-8")
    (root / "boxes.csv").write_text("\n".join(boxes), encoding="utf-8")
    return root


def film(name: str, *boxes: str, labels=(), source: str = "nih", **more) -> Film:
    marked = tuple(MarkedBox(name=each, left=1, top=1, right=9, bottom=9, source=source) for each in boxes)
    return Film(
        path=Path(f"{name}.png"),
        patient_id=name,
        view="PA",
        source=source,
        labels=frozenset(labels),
        boxes=marked,
        **more,
    )


def test_films_with_findings_that_nobody_boxed_are_left_out() -> None:
    films = [
        film("boxed", "Mass", labels=("Mass",)),
        film("normal"),
        film("unboxed", labels=("Effusion",)),
        film("other", "Lung_Opacity", labels=("Pneumonia",), source="rsna"),
        film("later", "Nodule", labels=("Nodule",), fold="validation"),
    ]
    chosen = choose_films(films, DetectionConfig(classes=CLASSES))
    assert [f.patient_id for f in chosen.boxed] == ["boxed"]
    assert [f.patient_id for f in chosen.negative] == ["normal"]
    assert [f.patient_id for f in chosen.validation] == ["later"]
    with pytest.raises(NoBoxesError):
        choose_films(films[1:], DetectionConfig(classes=("Mass",)))


def test_an_epoch_has_every_boxed_film_and_a_share_of_the_others_in_a_repeatable_order() -> None:
    films = choose_films(
        [film(f"b{i}", "Mass") for i in range(10)] + [film(f"n{i}") for i in range(20)], DetectionConfig()
    )
    config = DetectionConfig(negative_share=0.3)
    first, again, next_epoch = (draw_epoch(films, config, epoch) for epoch in (0, 0, 1))
    assert first == again != next_epoch
    assert sum(f.patient_id.startswith("b") for f in first) == 10
    assert len(first) == 13


def test_a_view_depends_on_its_place_and_epoch_only(tmp_path: Path) -> None:
    films = read_films(write_films(tmp_path, 4))
    config = DetectionConfig(classes=CLASSES, matrix=64)
    views = [FilmViews(films, config, epoch, 48, {}) for epoch in (0, 0, 1)]
    (image, target), (same, _), (other, _) = (each[0] for each in views)
    assert image.shape == (1, 48, 48)
    torch.testing.assert_close(image, same)
    assert not torch.equal(image, other)
    assert target["labels"].tolist() == [1]
    assert target["presence"].tolist() == [1.0, 1.0, 0.0]


def test_boxes_are_prepared_where_the_nodule_is(tmp_path: Path) -> None:
    prepared = prepare_film(
        read_films(write_films(tmp_path, 1))[0], DetectionConfig(classes=CLASSES, matrix=192)
    )
    left, top, right, bottom = (round(edge) for edge in prepared.boxes[0].tolist())
    inside = prepared.image[0, top:bottom, left:right].float().mean()
    beside = prepared.image[0, top:bottom, left - 12 : left].float().mean()
    assert inside > beside + 0.2


def read(name: str, *found, drawn=(), abnormal: float = 0.0) -> ReadFilm:
    boxes = FoundBoxes(
        boxes=np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4),
        scores=np.array([value for _, value, _ in found], dtype=np.float32),
        classes=np.array([label for _, _, label in found], dtype=np.int64),
        presence=np.array([abnormal, abnormal, -3.0], dtype=np.float32),
    )
    prepared = PreparedFilm(
        image=torch.zeros(1, 64, 64, dtype=torch.float16),
        boxes=torch.tensor([box for box, _ in drawn], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([label + 1 for _, label in drawn], dtype=torch.int64),
        presence=torch.tensor([float(bool(drawn)), float(bool(drawn)), 0.0]),
    )
    whole = film(name, *(CLASSES[label] for _, label in drawn), labels=("Nodule",) if drawn else ())
    return ReadFilm(film=whole, prepared=prepared, readings=(boxes, boxes))


BOX, ELSEWHERE = (10.0, 10.0, 30.0, 30.0), (40.0, 40.0, 60.0, 60.0)


def test_a_gate_that_helps_is_kept_and_every_figure_has_its_interval() -> None:
    reads = [read(f"a{i}", (BOX, 0.5, 0), drawn=[(BOX, 0)], abnormal=3.0) for i in range(12)]
    reads += [read(f"n{i}", (ELSEWHERE, 0.9, 0), abnormal=-3.0) for i in range(12)]
    variant, table = compare_variants(reads, 2)
    assert "gate" in variant
    assert table["plain"]["better_in"] == 0.0
    assert table[variant]["map40"]["mean"] > table["plain"]["map40"]["mean"]
    scored = score(reads, DetectionOptions(gate="abnormal"))
    figures = detection_figures(scored, CLASSES, [0.3, 0.3], ())
    assert figures["map40"] == {"mean": 1.0, "ci95": [1.0, 1.0], "n": 24}
    assert figures["map40"]["mean"] == pytest.approx(figures["map40_torchmetrics"], abs=1e-3)
    assert figures["classes"]["Nodule"]["recall_at_0.5_fp"]["mean"] == 1.0
    assert figures["classes"]["Nodule"]["reported"]["false_positives_an_image"] == 0.0
    assert figures["matched_iou"]["mean"] == 1.0
    assert figures["abnormal_auc"]["all"]["mean"] == 1.0
    json.dumps(figures["classes"]["Nodule"])


def test_scores_that_promise_too_much_get_a_temperature() -> None:
    rows = [
        read(f"r{i}", (BOX, 0.95, 0), (ELSEWHERE, 0.9, 0), drawn=[(BOX, 0)] if i % 2 else [])
        for i in range(30)
    ]
    first, second = fit_box_temperatures(score(rows, DetectionOptions()), 2)
    assert first > 2.0
    assert second == 1.0


@pytest.mark.slow
def test_the_recipe_trains_resumes_packs_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "DROPOUT_PASSES", 2)
    data = write_films(tmp_path / "films", 44, side=64)
    settings = {
        "arch": "lite0_fpn",
        "channels": "16",
        "head_features": "16",
        "classes": "[Nodule]",
        "matrix": "64",
        "stages": "[{epochs: 1, matrix: 64}]",
        "validation_epochs": "1",
    }
    run = tmp_path / "run"
    folder = RECIPE.train(TrainRequest(data=data, out=run, overrides=settings))
    package = load_package(folder)
    assert package.card.labels[0].concept == "nodule"
    assert package.card.doubt.familiarity is not None
    assert package.card.metrics["map40"]["n"] == 9
    assert (run / "curves.png").is_file()
    settings["stages"] = "[{epochs: 2, matrix: 64}]"
    config = detection.override(DetectionConfig(), settings)
    detection_loop.train_detector(config, data, run, resume=True)
    assert len((run / "history.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    figures = RECIPE.evaluate(EvaluateRequest(data=data, package=folder))
    assert figures["map40"] == package.card.metrics["map40"]
    assert find_recipe("chest-xray-boxes") is RECIPE
    assert Stage(epochs=2, matrix=64) in config.stages
