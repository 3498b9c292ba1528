"""Pure. How the learning rate and the averaged weights move in every training here."""

from __future__ import annotations

import math

import torch
from torch import nn


def one_cycle(progress: float, warm_up: float) -> float:
    """Return the share of the peak learning rate: a linear warm-up, then a half cosine to zero.

    Parameters
    ----------
    progress : float
        Share of the run that is done, 0 to 1.
    warm_up : float
        Share of the run in which the rate rises, between 0 and 1.
    """
    if progress < warm_up:
        return 0.04 + 0.96 * progress / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up))) + 1e-3


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's weights and running statistics towards the network's."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1.0 - decay)
        else:
            kept.copy_(new)


def contiguous(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a network's weights for safetensors, which takes contiguous tensors only."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
