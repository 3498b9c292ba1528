from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from inference.networks.classifiers import KERAS_EPSILON, EncoderClassifier, ResNet50Classifier
from inference.radiograph_preparation import GREY_DEVIATION, GREY_MEAN
from inference.training.keras_resnet import load_keras_resnet50
from inference.training.pretrained import PretrainedWeightsError

MEANS_BGR = (103.939, 116.779, 123.68)
BLOCKS = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}


@pytest.fixture(scope="module")
def keras():
    """Random weights with the names, shapes and axes of Keras' ResNet-50."""
    draws = np.random.default_rng(0)
    weights = {}

    def layer(convolution, normalisation, side, inputs, outputs):
        scale = (2 / (side * side * inputs)) ** 0.5
        weights[f"{convolution}/kernel"] = draws.normal(0, scale, (side, side, inputs, outputs))
        weights[f"{convolution}/bias"] = draws.normal(0, 0.1, outputs)
        weights[f"{normalisation}/gamma"] = draws.uniform(0.5, 1.0, outputs)
        weights[f"{normalisation}/beta"] = draws.normal(0, 0.1, outputs)
        weights[f"{normalisation}/moving_mean"] = draws.normal(0, 0.1, outputs)
        weights[f"{normalisation}/moving_variance"] = draws.uniform(0.5, 2.0, outputs)

    layer("conv1", "bn_conv1", 7, 3, 64)
    weights["bn_conv1/moving_variance"] *= 1e5
    width = 64
    for stage, names in BLOCKS.items():
        inner = 64 * 2 ** (stage - 2)
        for name in names:
            for branch, side, inputs, outputs in (
                ("2a", 1, width, inner),
                ("2b", 3, inner, inner),
                ("2c", 1, inner, 4 * inner),
            ):
                layer(
                    f"res{stage}{name}_branch{branch}",
                    f"bn{stage}{name}_branch{branch}",
                    side,
                    inputs,
                    outputs,
                )
            if name == "a":
                layer(f"res{stage}a_branch1", f"bn{stage}a_branch1", 1, width, 4 * inner)
            width = 4 * inner
    weights["fc1000/kernel"] = draws.normal(0, 0.02, (2048, 1000))
    weights["fc1000/bias"] = draws.normal(0, 0.1, 1000)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def keras_forward(weights, colour):
    """Run Keras' ResNet-50 v1 layer by layer on (N, 3, H, W) blue, green and red minus their means."""

    def unit(x, convolution, normalisation, stride=1, padding=0):
        kernel = torch.from_numpy(
            np.ascontiguousarray(weights[f"{convolution}/kernel"].transpose(3, 2, 0, 1))
        )
        x = functional.conv2d(x, kernel, torch.from_numpy(weights[f"{convolution}/bias"]), stride, padding)
        mean, variance, gamma, beta = (
            torch.from_numpy(weights[f"{normalisation}/{name}"])
            for name in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=KERAS_EPSILON)

    x = unit(colour, "conv1", "bn_conv1", 2, 3).relu()
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, names in BLOCKS.items():
        for name in names:
            stride = 2 if name == "a" and stage > 2 else 1
            block = f"{stage}{name}_branch"
            y = unit(x, f"res{block}2a", f"bn{block}2a", stride).relu()
            y = unit(y, f"res{block}2b", f"bn{block}2b", padding=1).relu()
            y = unit(y, f"res{block}2c", f"bn{block}2c")
            x = (y + (unit(x, f"res{block}1", f"bn{block}1", stride) if name == "a" else x)).relu()
    pooled = x.mean(dim=(2, 3))
    return pooled @ torch.from_numpy(weights["fc1000/kernel"]) + torch.from_numpy(weights["fc1000/bias"])


@pytest.mark.parametrize("squeeze", [False, True])
def test_a_classifier_begins_exactly_as_keras_network_with_gates_and_without(keras, squeeze):
    network = ResNet50Classifier(1, 1000, squeeze=squeeze, dropout=0.0)
    load_keras_resnet50(network, keras)
    grey = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    grey = functional.pad(grey, (64, 64, 64, 64), value=GREY_MEAN)
    means = torch.tensor(MEANS_BGR)[None, :, None, None]
    with torch.inference_mode():
        ours = network.eval()((grey - GREY_MEAN) / GREY_DEVIATION)
        theirs = keras_forward(keras, grey.expand(-1, 3, -1, -1) * 255 - means)
    assert ours.shape == (1, 1000)
    assert (ours - theirs).abs().max() / theirs.std() < 0.1, "only the outermost border is padded otherwise"
    assert np.corrcoef(ours[0].numpy(), theirs[0].numpy())[0, 1] > 0.999


def test_gates_change_nothing_at_the_start(keras):
    images = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 4 - 2
    answers = []
    for squeeze in (False, True):
        network = ResNet50Classifier(1, 1000, squeeze=squeeze)
        load_keras_resnet50(network, keras)
        with torch.inference_mode():
            answers.append(network.eval()(images))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-4)


def test_begun_weights_fit_sixteen_bits(keras):
    network = ResNet50Classifier(1, 14)
    load_keras_resnet50(network, keras)
    assert all(torch.isfinite(value.half()).all() for value in network.state_dict().values())


def test_blocks_stride_in_their_first_convolution_as_keras_does():
    network = ResNet50Classifier()
    first = network.blocks()[3]
    assert first.conv1.conv.stride == (2, 2)
    assert first.conv2.conv.stride == (1, 1)
    assert len(network.blocks()) == 16


def test_missing_and_foreign_weights_are_refused(keras):
    incomplete = {name: value for name, value in keras.items() if name != "res4c_branch2b/kernel"}
    with pytest.raises(PretrainedWeightsError, match="res4c_branch2b/kernel is missing"):
        load_keras_resnet50(ResNet50Classifier(), incomplete)
    wrong = keras | {"res2a_branch2a/kernel": np.zeros((1, 1, 64, 32), dtype=np.float32)}
    with pytest.raises(PretrainedWeightsError, match="shape"):
        load_keras_resnet50(ResNet50Classifier(), wrong)


def test_the_small_alternative_gives_a_logit_a_label_and_has_maps_to_explain():
    network = EncoderClassifier(1, 3).eval()
    with torch.inference_mode():
        images = torch.zeros(2, 1, 64, 64)
        maps = network.features(images)
        assert maps.shape == (2, network.feature_channels, 2, 2)
        torch.testing.assert_close(network.classify(maps), network(images))
    assert network(images).shape == (2, 3)
    assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
