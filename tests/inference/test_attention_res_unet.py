"""The network: shapes, determinism, gates, and the package that ships with it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from inference.networks.attention_res_unet import AttentionResUNet
from inference.training.evaluation import (
    DecisionRule,
    channels_last,
    choose_rule,
    evaluate,
    predict_probabilities,
    read_package,
)
from inference.training.lgg import read_cases, read_institutions, split_patients
from inference.training.run_files import write_weights

PACKAGE = Path(__file__).parents[2] / "models" / "brain-tumour-lgg" / "2.0.0"
DATA = Path(__file__).parents[3] / "shared" / "data" / "lgg"


def small(dropout: float = 0.0) -> AttentionResUNet:
    torch.manual_seed(0)
    return AttentionResUNet(channels=(4, 8, 16), dropout=dropout)


def noise(count: int, side: int) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48)])
def test_logits_have_the_inputs_matrix(height: int, width: int) -> None:
    logits = small()(torch.zeros(2, 3, height, width))
    assert logits.shape == (2, 1, height, width)


def test_default_network_has_between_two_and_six_million_parameters() -> None:
    assert 2e6 < sum(weight.numel() for weight in AttentionResUNet().parameters()) < 6e6


def test_a_matrix_that_does_not_halve_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        small()(torch.zeros(1, 3, 30, 32))


def test_one_level_is_no_u_net() -> None:
    with pytest.raises(ValueError, match="two levels"):
        AttentionResUNet(channels=(8,))


def test_a_slice_does_not_depend_on_its_batch() -> None:
    network = small(dropout=0.2).eval()
    channels_last(network)
    slices = noise(9, 64).numpy()
    together = predict_probabilities(network, slices, batch_size=4)
    np.testing.assert_array_equal(predict_probabilities(network, slices[3:8], batch_size=4), together[3:8])
    np.testing.assert_array_equal(predict_probabilities(network, slices[::-1], batch_size=4), together[::-1])
    alone = predict_probabilities(network, slices, batch_size=1)
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_a_reducing_network_averages_its_input_and_keeps_the_matrix() -> None:
    plain, reducing = small().eval(), small().eval()
    reducing.reduction = 2
    slices = noise(2, 64)
    halved = torch.nn.functional.avg_pool2d(slices, 2)
    expected = torch.nn.functional.interpolate(plain(halved), (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(reducing(slices), expected)
    assert AttentionResUNet(channels=(4, 8), reduction=2).divisor == 4


def test_dropout_acts_in_training_mode_only() -> None:
    network = small(dropout=0.5)
    network.eval()
    assert torch.equal(network(noise(1, 32)), network(noise(1, 32)))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    assert not torch.equal(network(noise(1, 32)), network(noise(1, 32)))


def test_every_weight_learns() -> None:
    network = small()
    network(noise(4, 32)).square().mean().backward()
    # A convolution's bias before batch normalisation has no effect, so only weights are asked for.
    idle = [
        name
        for name, weight in network.named_parameters()
        if weight.ndim > 1 and (weight.grad is None or not weight.grad.abs().sum() > 0)
    ]
    assert idle == []


def test_a_closed_gate_shuts_its_skip_connection_off() -> None:
    network = small().eval()
    gate = network.decoder[-1].gate
    normalisation = gate.psi[1]
    with torch.no_grad():
        normalisation.weight.zero_()
        normalisation.bias.fill_(-math.inf)
    skip = torch.ones(1, 4, 8, 8)
    assert not gate(g=torch.ones(1, 4, 8, 8), x=skip).any()


def test_weights_survive_the_package(tmp_path: Path) -> None:
    network = small().eval()
    folder = tmp_path / "small" / "1.0.0"
    files = write_weights(network, folder)
    card = {
        "name": "small",
        "version": "1.0.0",
        "title": "Small",
        "task": "segmentation",
        "network": {"builtin": "attention_res_unet", "arguments": {"channels": [4, 8, 16]}},
        "input": {"modality": "MR", "matrix": 256, "roles": [{"name": "flair", "required": True}]},
        "labels": [{"value": 1, "name": "lesion", "concept": "neoplasm", "site": "brain"}],
        "threshold": 0.4,
        "min_component_voxels": 7,
        "intended_use": "test",
        "limits": "test",
        "training_data": "test",
        "metrics": "test",
        "licence": "CC0-1.0",
        "weights": {"files": files, "dtype": "float16"},
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    packaged = read_package(folder)
    assert packaged.rule == DecisionRule(threshold=0.4, min_component_voxels=7)
    slices = noise(2, 32).numpy()
    ours, theirs = predict_probabilities(network, slices), predict_probabilities(packaged.network, slices)
    np.testing.assert_allclose(theirs, ours, atol=5e-3)


def test_weights_that_overflow_float16_are_refused(tmp_path: Path) -> None:
    network = small()
    with torch.no_grad():
        network.head.weight.fill_(1e6)
    with pytest.raises(ValueError, match=r"head\.weight"):
        write_weights(network, tmp_path)


def test_the_rule_with_the_best_dice_is_chosen() -> None:
    mask = np.zeros((1, 32, 32), dtype=np.bool_)
    mask[0, 2:18, 2:18] = True
    maps = np.where(mask, 0.6, 0.1).astype(np.float32)
    maps[0, 28, 28] = 0.9
    best, table = choose_rule([maps], [mask])
    assert table[best] == 1.0
    assert best.min_component_voxels > 1
    assert 0.1 < best.threshold <= 0.6


needs_package = pytest.mark.skipif(
    not (PACKAGE / "model.yaml").exists(), reason="the model package is not in this checkout"
)


@needs_package
def test_the_shipped_package_marks_nothing_in_air() -> None:
    packaged = read_package(PACKAGE)
    probabilities = predict_probabilities(packaged.network, np.full((1, 9, 256, 256), -2.0, dtype=np.float32))
    assert not packaged.rule.decide(probabilities).any()


@needs_package
def test_the_shipped_weights_are_small_enough_for_a_repository() -> None:
    assert (PACKAGE / "model.safetensors").stat().st_size < 20e6


@needs_package
@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="needs the LGG data set in ../shared/data/lgg")
@pytest.mark.parametrize("flair_alone", [False, True])
def test_the_shipped_package_outlines_a_patient_it_was_not_trained_on(flair_alone: bool) -> None:
    patient_id = "TCGA_HT_8114_19981030"
    card = yaml.safe_load((PACKAGE / "model.yaml").read_text(encoding="utf-8"))
    assert patient_id in card["training_data"]["validation_patients"]
    cases = read_cases(DATA, [patient_id])
    assert evaluate(read_package(PACKAGE), cases, flair_alone=flair_alone).scores[0].dice > 0.75


@needs_package
@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="needs the LGG data set in ../shared/data/lgg")
def test_the_card_names_the_validation_patients_of_the_split() -> None:
    card = yaml.safe_load((PACKAGE / "model.yaml").read_text(encoding="utf-8"))
    validation = split_patients(read_institutions(DATA)).validation
    assert tuple(card["training_data"]["validation_patients"]) == validation
