"""Builds a network from a TensorFlow.js layers model: a chain of 3-D convolutions such as MeshNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from inference.training.tfjs import read_tfjs_weights

ACTIVATIONS = {"relu": torch.nn.ReLU, "elu": torch.nn.ELU, "gelu": torch.nn.GELU}


def convert_meshnet(folder: Path) -> torch.nn.Sequential:
    """Return the network of ``model.json`` with its weights: (N, 1, X, Y, Z) to (N, classes, X, Y, Z) logits.

    TensorFlow stores kernels as (X, Y, Z, in, out), PyTorch as (out, in, X, Y, Z).
    """
    topology = json.loads((folder / "model.json").read_text(encoding="utf-8"))["modelTopology"]
    weights = read_tfjs_weights(folder / "model.json")
    layers: list[torch.nn.Module] = []
    for layer in topology["model_config"]["config"]["layers"]:
        config = layer["config"]
        match layer["class_name"]:
            case "InputLayer":
                assert config["batch_input_shape"][-1] == 1
            case "Conv3D":
                layers.append(_convolution(config, weights))
            case "Activation":
                layers.append(ACTIVATIONS[config["activation"]]())
            case other:
                raise AssertionError(f"{other} is no layer of MeshNet")
    return torch.nn.Sequential(*layers).eval()


def _convolution(config: dict, weights: dict) -> torch.nn.Conv3d:
    assert (config["padding"], config["strides"]) == ("same", [1, 1, 1])
    kernel = np.transpose(weights[f"{config['name']}/kernel"], (4, 3, 0, 1, 2))
    convolution = torch.nn.Conv3d(
        kernel.shape[1],
        kernel.shape[0],
        kernel.shape[2:],
        padding="same",
        dilation=tuple(config["dilation_rate"]),
        bias=config["use_bias"],
    )
    with torch.no_grad():
        convolution.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
        if config["use_bias"]:
            convolution.bias.copy_(torch.from_numpy(weights[f"{config['name']}/bias"]))
    return convolution.requires_grad_(requires_grad=False)
