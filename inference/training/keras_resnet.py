"""Pure. From Keras' ResNet-50 (ImageNet) to our residual classifiers: layer names, axes, biases, input scale.

Keras was trained on blue, green and red of 0 to 255 minus their means; our networks take standardised grey.
Both meet in the first layer: its filters are summed over colour and scaled; what is left of the means goes
into the running mean of its batch normalisation, as biases of convolutions do. Only along the border the two
differ a little: Keras pads with the mean colour, our networks with middle grey.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from inference.networks.classifiers import ResNet50Classifier
from inference.radiograph_preparation import GREY_DEVIATION, GREY_MEAN
from inference.training.pretrained import PretrainedWeightsError

Weights = Mapping[str, npt.NDArray[np.float32]]

_KERAS_MEANS_BGR: Final = (103.939, 116.779, 123.68)
"""What ``keras.applications.imagenet_utils.preprocess_input(mode='caffe')`` subtracts, 0 to 255."""

_WHITE: Final = 255.0

_STEM_GAIN: Final = 1.0 / 16.0
"""By this the first filters are made smaller, so that the variances after them fit 16-bit floats."""

_OPEN_GATE: Final = 2.0
"""Bias of a gate at the start: sigmoid 0.88, where its slope is still large enough to learn."""

_IMAGENET_CLASSES: Final = 1000


def load_keras_resnet50(network: ResNet50Classifier, weights: Weights) -> None:
    """Begin a classifier from Keras' ImageNet weights.

    With squeeze and excitation, every gate begins at one constant; the batch normalisation before it makes up
    for that: the network begins exactly as the ResNet-50 without gates. A head of 1,000 logits is taken too,
    any other keeps its random weights.

    Parameters
    ----------
    network : ResNet50Classifier
        Changed in place.
    weights : mapping
        ``<layer>/<weight>`` to values, as `inference.training.tfjs.read_tfjs_weights` returns them.

    Raises
    ------
    PretrainedWeightsError
        If a weight is missing or has another shape.
    """
    body = network.body
    with torch.no_grad():
        _load_stem(network, weights)
        for name, block in _named_blocks(network):
            branches = [(block.conv1, "2a"), (block.conv2, "2b"), (block.conv3, "2c")]
            if f"res{name}_branch1/kernel" in weights:
                branches.append((block.project, "1"))
            for target, branch in branches:
                convolution = cast("nn.Conv2d", target.conv)
                _copy(convolution.weight, _to_oihw(_take(weights, f"res{name}_branch{branch}/kernel")))
                _load_normalisation(
                    cast("nn.BatchNorm2d", target.adn.N),
                    weights,
                    f"bn{name}_branch{branch}",
                    _take(weights, f"res{name}_branch{branch}/bias"),
                )
            if not isinstance(block.se_layer, nn.Identity):
                _open_gate(block)
        if body.last_linear.out_features == _IMAGENET_CLASSES:
            _copy(body.last_linear.weight, _take(weights, "fc1000/kernel").T)
            _copy(body.last_linear.bias, _take(weights, "fc1000/bias"))


def _named_blocks(network: ResNet50Classifier) -> Iterator[tuple[str, Any]]:
    """Yield Keras' name of each residual block (``2a`` to ``5c``) and the block."""
    body = network.body
    for stage, layer in enumerate((body.layer1, body.layer2, body.layer3, body.layer4), start=2):
        for index, block in enumerate(layer):
            yield f"{stage}{'abcdef'[index]}", block


def _load_stem(network: ResNet50Classifier, weights: Weights) -> None:
    """Load the first convolution for grey input that repeats in every channel."""
    stem = cast("Any", network.body.layer0)
    kernel = _to_oihw(_take(weights, "conv1/kernel"))
    channels = stem.conv1.weight.shape[1]
    grey = kernel.sum(axis=1, keepdims=True) * (_WHITE * GREY_DEVIATION / channels)
    _copy(stem.conv1.weight, np.repeat(grey, channels, axis=1))
    offsets = _WHITE * GREY_MEAN - np.asarray(_KERAS_MEANS_BGR, dtype=np.float32)
    shift = np.einsum("ocyx,c->o", kernel, offsets)
    _load_normalisation(stem.bn1, weights, "bn_conv1", _take(weights, "conv1/bias") + shift)
    stem.conv1.weight.mul_(_STEM_GAIN)
    stem.bn1.running_mean.mul_(_STEM_GAIN)
    stem.bn1.running_var.add_(stem.bn1.eps).mul_(_STEM_GAIN**2).sub_(stem.bn1.eps)


def _load_normalisation(
    target: nn.BatchNorm2d, weights: Weights, name: str, bias: npt.NDArray[np.float32]
) -> None:
    """Load a batch normalisation; the bias of the convolution before it is taken off its running mean."""
    _copy(target.weight, _take(weights, f"{name}/gamma"))
    _copy(target.bias, _take(weights, f"{name}/beta"))
    _copy(cast("torch.Tensor", target.running_mean), _take(weights, f"{name}/moving_mean") - bias)
    _copy(cast("torch.Tensor", target.running_var), _take(weights, f"{name}/moving_variance"))


def _open_gate(block: Any) -> None:
    """Begin a gate at one constant and scale what it gates up by as much."""
    last = block.se_layer.fc[2]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, _OPEN_GATE)
    gain = 1.0 / torch.sigmoid(torch.tensor(_OPEN_GATE))
    block.conv3.adn.N.weight.mul_(gain)
    block.conv3.adn.N.bias.mul_(gain)


def _to_oihw(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn (H, W, in, out) into (out, in, H, W)."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def _take(weights: Weights, name: str) -> npt.NDArray[np.float32]:
    try:
        return weights[name]
    except KeyError as exc:
        raise PretrainedWeightsError(f"{name} is missing: choose Keras' ResNet-50.") from exc


def _copy(target: torch.Tensor, values: npt.NDArray[np.float32]) -> None:
    if tuple(target.shape) != values.shape:
        raise PretrainedWeightsError(
            f"A weight has shape {values.shape}, the network's has {tuple(target.shape)}: choose Keras' "
            "ResNet-50."
        )
    target.copy_(torch.from_numpy(np.ascontiguousarray(values)))
