from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from head_volumes import all_roles, head_volume
from random_model_package import random_card, write_random_package

from inference.analysis_files import load_outcome, save_outcome
from inference.cards import ModelCard, TriageCard
from inference.familiarity import pooled_features
from inference.findings import Caveat, RiskClass
from inference.networks.attention_res_unet import AttentionResUNet
from inference.packages import ModelPackage, load_package
from inference.preparation import place_masks, prepare_slices, restore_slices
from inference.runner import Runner
from inference.segmentation import abnormal_score, predict_slices, segment
from inference.segmentation_doubt import familiar_indices
from inference.training.calibration import fit_familiarity

NETWORK = {
    "builtin": "attention_res_unet",
    "arguments": {"in_channels": 3, "out_channels": 1, "channels": [4, 8], "dropout": 0.3},
}


@pytest.fixture
def package(tmp_path) -> ModelPackage:
    return load_package(
        write_random_package(tmp_path, network=NETWORK, threshold=0.5, explanation_layer="decoder.0")
    )


def doubting(package: ModelPackage, **doubt) -> ModelPackage:
    content = package.card.model_dump() | {"doubt": doubt}
    return replace(package, card=ModelCard.model_validate(content))


def study():
    return all_roles(head_volume([(2, 100, 170, 24)]))


def test_each_finding_has_a_reproducible_uncertainty(package):
    asked = doubting(package, dropout_passes=4, largest_uncertainty=1e-6)
    first, again = (segment(asked, study(), Runner("cpu"), "1.2") for _ in range(2))
    assert first.analysis.findings
    for finding in first.analysis.findings:
        assert 0 < finding.uncertainty <= 0.5
    assert first.analysis == again.analysis
    (doubt,) = first.analysis.doubts
    assert (doubt.caveat, doubt.is_blocking) == (Caveat.LOW_CONFIDENCE, False)
    assert "F1" in doubt.sentence


def test_a_card_without_passes_asks_for_none(package):
    outcome = segment(package, study(), Runner("cpu"), "1.2")
    assert {finding.uncertainty for finding in outcome.analysis.findings} == {None}
    assert outcome.analysis.doubts == ()


def test_the_heat_map_lies_on_the_frames_of_the_largest_finding(package, tmp_path):
    outcome = segment(package, study(), Runner("cpu"), "1.2")
    (heatmap,) = outcome.heatmaps
    held = (outcome.mask.labels == 1).any(axis=(1, 2))
    assert heatmap.answer == "F1"
    assert heatmap.frames == tuple(f for f, has in zip(outcome.mask.frames, held, strict=True) if has)
    assert heatmap.values.shape == (held.sum(), 256, 256)
    assert 0 <= heatmap.values.min() <= heatmap.values.max() <= 1
    assert load_outcome(save_outcome(tmp_path / "run", outcome)).heatmaps[0].frames == heatmap.frames


def test_a_temperature_moves_probabilities_towards_one_half_and_keeps_their_order(package):
    slices = np.random.default_rng(0).normal(size=(2, 3, 256, 256)).astype(np.float32)
    plain = predict_slices(package, slices, Runner("cpu"))
    soft = predict_slices(doubting(package, temperatures=(3.0,)), slices, Runner("cpu"))
    assert (np.abs(soft - 0.5) <= np.abs(plain - 0.5) + 1e-6).all()
    np.testing.assert_array_equal(np.argmax(soft), np.argmax(plain))


@pytest.mark.parametrize(("flips", "spoils"), [(True, False), (False, True)])
def test_images_that_are_no_head_get_no_answer(package, flips, spoils):
    volumes = study()
    flair = volumes["flair"]
    spoiled = 160 - flair.array if flips else np.where(np.isfinite(flair.array), np.nan, 0)
    volumes["flair"] = replace(flair, array=spoiled.astype(np.float32))
    outcome = segment(package, volumes, Runner("cpu"), "1.2")
    assert outcome.analysis.is_refused
    assert outcome.analysis.findings == outcome.heatmaps == ()
    assert not outcome.mask.labels.any()
    assert outcome.analysis.doubts[0].caveat is (Caveat.CORRUPTED if spoils else Caveat.WRONG_WINDOW)
    assert not any("does not exclude" in note for note in outcome.analysis.notes)


def test_triage_follows_the_most_probable_voxels(package):
    card = TriageCard(
        low=0.0,
        high=0.1,
        negative_predictive_value=0.0,
        positive_predictive_value=0.8,
        calibration_patients=50,
    )
    triage = segment(
        doubting(package, triage=card.model_dump()), study(), Runner("cpu"), "1.2"
    ).analysis.triage
    assert triage.risk is RiskClass.HIGH
    probabilities = np.zeros((1, 2, 4, 4), dtype=np.float32)
    probabilities[0, 0, 0] = 0.8
    assert abnormal_score(probabilities, 4) == pytest.approx(0.8)
    assert abnormal_score(probabilities, 8) == pytest.approx(0.4)


def test_unfamiliar_images_are_doubted_and_strange_ones_refused(package):
    network = package.build()
    volumes = study()
    slices = prepare_slices(np.stack([volumes[role].array for role in ("pre", "flair", "post")]))
    rng = np.random.default_rng(0)
    features = pooled_features(network, slices, "decoder.0")
    training = np.repeat(features, 10, axis=0) + rng.normal(0, 0.05, (80, features.shape[1]))
    card = fit_familiarity(training.astype(np.float32), [features[familiar_indices(8)]], package.folder)
    known = doubting(package, familiarity=card.model_dump() | {"threshold": 50.0, "refusal": 60.0})
    doubted = doubting(package, familiarity=card.model_dump() | {"threshold": 1e-6, "refusal": 60.0})
    refused = doubting(package, familiarity=card.model_dump() | {"threshold": 1e-7, "refusal": 1e-6})
    outcomes = [segment(each, volumes, Runner("cpu"), "1.2").analysis for each in (known, doubted, refused)]
    assert [bool(each.doubts) for each in outcomes] == [False, True, True]
    assert [each.is_refused for each in outcomes] == [False, False, True]


def test_masks_are_placed_where_the_network_sees_them():
    masks = np.zeros((1, 300, 512), dtype=bool)
    masks[0, 100:140, 200:260] = True
    placed = place_masks(masks)
    assert placed.shape == (1, 256, 256)
    back = restore_slices(placed.astype(np.float32), 300, 512) > 0.5
    assert (back & masks).sum() / (back | masks).sum() > 0.93


def test_few_slices_from_the_middle_stand_for_a_volume():
    assert list(familiar_indices(1)) == [0]
    assert len(familiar_indices(100)) == 8
    assert (familiar_indices(100).min(), familiar_indices(100).max()) == (25, 74)


def test_a_mirrored_axial_series_has_its_heat_map_mirrored(tmp_path):
    package = load_package(
        write_random_package(
            tmp_path,
            network=NETWORK,
            explanation_layer="decoder.0",
            input=random_card("0" * 64)["input"] | {"plane": "axial"},
        )
    )
    shown = head_volume([(2, 100, 170, 24)])
    affine = shown.affine.copy()
    affine[0, 3] += (shown.array.shape[2] - 1) * affine[0, 0]
    affine[0, 0] *= -1
    mirrored = replace(shown, array=np.ascontiguousarray(shown.array[..., ::-1]), affine=affine)
    first, second = (segment(package, {"flair": each}, Runner("cpu"), "1.2") for each in (shown, mirrored))
    np.testing.assert_allclose(first.heatmaps[0].values, second.heatmaps[0].values[..., ::-1], atol=1e-5)


def test_the_network_of_the_fixture_has_dropout():
    assert any(isinstance(module, torch.nn.Dropout) for module in AttentionResUNet(dropout=0.3).modules())
    assert random_card("0" * 64)["network"]["arguments"]["dropout"] == 0.0
