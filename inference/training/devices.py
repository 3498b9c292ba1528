"""Adapter: asks torch where a training runs. The command is the same with and without a GPU."""

from __future__ import annotations

import torch
from torch import nn


def training_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's weights are."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))
