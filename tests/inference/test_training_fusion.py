from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fusion_folder import write_fusion_folder
from pydantic import JsonValue

from inference.packages import load_package
from inference.training.fusion import (
    RECIPE,
    FusionConfig,
    FusionData,
    agreement_loss,
    partial_label_loss,
    read_data,
    train,
    warn_of_chance,
)
from inference.training.fusion_augmentation import augment
from inference.training.fusion_data import split_groups
from inference.training.recipe import EvaluateRequest, TrainRequest

CONFIG = FusionConfig(
    encoder="test_resnet", matrix=32, features=8, epochs=2, batch_size=8, glioma_slices=1, pairs=1
)
OVERRIDES = {
    "encoder": "test_resnet", "matrix": "32", "features": "8", "epochs": "1", "batch_size": "8", "pairs": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fusion_folder(tmp_path_factory.mktemp("fusion"))


@pytest.fixture(scope="module")
def data(folder: Path) -> FusionData:
    return read_data(folder, 32)


def test_the_recipe_leaves_a_package_with_its_figures(tmp_path: Path, folder: Path) -> None:
    packed = RECIPE.train(TrainRequest(data=folder, out=tmp_path / "run", overrides=OVERRIDES))
    for name in ("config.json", "split.json", "history.jsonl", "curves.png", "checkpoint.pt"):
        assert (tmp_path / "run" / name).is_file()
    card = load_package(packed).card
    assert (card.name, card.task) == (RECIPE.name, "fusion")
    assert isinstance(card.metrics, dict)
    for figure in ("mr_alone", "mr_alone_within_lgg", "ct_alone", "both_of_unrelated_people"):
        assert figure in card.metrics
    assert card.metrics["survival"]["cross_validation"]["c_index"]["n"] > 0  # type: ignore[index, call-overload]
    bounds = card.options["risk_tertiles"]
    assert isinstance(bounds, list)
    assert bounds[0] <= bounds[1]
    network = load_package(packed).build()
    features = card.network.arguments["features"]
    assert isinstance(features, int)
    for head in ("stage_head", "risk_head"):
        weight = network.get_submodule(head).weight
        assert not weight[:, :features].any(), "a CT moves a head that no CT was trained on"
        assert not weight[:, 2 * features :].any()
    again = RECIPE.evaluate(EvaluateRequest(data=folder, package=packed))
    assert again["ct_alone"] == card.metrics["ct_alone"]


def test_a_run_that_was_interrupted_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, data: FusionData
) -> None:
    whole = train(CONFIG, data, tmp_path / "whole")

    broken = tmp_path / "broken"
    with pytest.MonkeyPatch.context() as patch:
        saves = iter((True, False))
        import inference.training.fusion as module

        original = module.plot_curves
        patch.setattr(module, "plot_curves", lambda *a, **k: original(*a, **k) if not next(saves) else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(CONFIG, data, broken)
    resumed = train(CONFIG, data, broken, resume=True)
    for ours, theirs in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert len((broken / "history.jsonl").read_text().splitlines()) == CONFIG.epochs


def test_no_group_and_no_patient_is_on_two_sides(tmp_path: Path, data: FusionData) -> None:
    train(replace(CONFIG, epochs=0), data, tmp_path)
    split = json.loads((tmp_path / "split.json").read_text())
    for parts in split.values():
        names = [name for part in parts.values() for name in part]
        assert len(names) == len(set(names))
    assert split["lgg"]["validation"]


def test_a_copy_of_flair_is_not_taken_for_contrast(data: FusionData) -> None:
    patients = {patient.patient_id: patient for patient in (*data.gliomas, *data.glioma_validation)}
    assert set(patients["TCGA_CS_0000_20000101"].sequences) == {"flair"}
    assert set(patients["TCGA_DU_0003_20000101"].sequences) == {"flair", "post"}


def test_what_is_not_known_of_a_patient_stays_unknown(data: FusionData) -> None:
    patients = {patient.patient_id: patient for patient in (*data.gliomas, *data.glioma_validation)}
    unknown, known = patients["TCGA_DU_0001_20000101"], patients["TCGA_CS_0008_20000101"]
    assert (unknown.grade, unknown.is_dead) == (None, None)
    assert (known.grade, known.is_dead, known.time_days) == (1, True, 1.0)


def test_a_partial_label_asks_only_what_it_knows() -> None:
    logits = torch.tensor([[0.0, 3.0, -1.0]])
    lesion = partial_label_loss(logits, torch.tensor([[False, True, True]]))
    probabilities = logits.softmax(dim=1)[0]
    assert float(lesion) == pytest.approx(-math.log(float(probabilities[1:].sum())), rel=1e-5)
    exchanged = partial_label_loss(logits[:, [0, 2, 1]], torch.tensor([[False, True, True]]))
    assert float(lesion) == pytest.approx(float(exchanged))
    one = partial_label_loss(logits, torch.tensor([[False, True, False]]))
    assert float(one) == pytest.approx(-math.log(float(probabilities[1])), rel=1e-5)


def test_a_card_warns_of_what_is_not_proven() -> None:
    def figures(low: float) -> dict[str, JsonValue]:
        value: JsonValue = {"mean": 0.7, "ci95": [low, 0.9], "n": 60}
        return {
            "grade": {"cross_validation": {"auc_grade_3": value}},
            "survival": {"cross_validation": {"c_index": value}},
        }

    assert warn_of_chance(figures(0.55)) == ""
    assert "grade: area 0.70, 95 % interval 0.45 to 0.90" in warn_of_chance(figures(0.45))


def test_answers_that_agree_cost_nothing() -> None:
    logits = torch.randn(4, 3)
    assert float(agreement_loss(logits, logits + 5.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(agreement_loss(logits, -logits)) > 0


def test_augmentation_keeps_shape_and_range_and_repeats_by_seed() -> None:
    images = torch.randn(3, 1, 32, 32)
    first, second = (augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    torch.testing.assert_close(first, second)
    assert first.shape == images.shape
    assert torch.isfinite(first).all()
    assert first.abs().max() <= 4.0
    assert not torch.equal(first, images)


def test_groups_are_shared_out_label_by_label() -> None:
    groups = [f"{label}-{number // 3}" for label in range(2) for number in range(60)]
    labels = [label for label in range(2) for _ in range(60)]
    split = split_groups(groups, labels, calibration=0.1, validation=0.25, seed=1)
    parts = (split.training, split.calibration, split.validation)
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == 40
    for label in range(2):
        share = np.mean([group in split.validation for group in groups if group.startswith(f"{label}-")])
        assert share == pytest.approx(0.25, abs=0.06)
