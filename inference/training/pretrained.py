"""Adapter: reads ImageNet weights that registered packages carry into the encoders that are trained here.

Weights are matched by position, since timm and the packages name the same layers of one architecture
differently; a shape that does not match is an error, never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import nn

from dicom_node.errors import PermanentError

_NEIGHBOUR_SHARE: Final = 0.25
"""Share of the first layer's weights that each neighbouring slice gets; the slice itself gets the rest."""


_FILTERS_NDIM: Final = 4


class PretrainedWeightsError(PermanentError):
    """A file of pretrained weights does not fit the encoder: choose the file of that architecture."""


def load_encoder(encoder: nn.Module, path: Path, *, slices: int = 1) -> None:
    """Load ImageNet weights into a timm feature network, its first layer spread over the input channels.

    Parameters
    ----------
    encoder : nn.Module
        A feature network of the same architecture; heads of the file that it does not have are left out.
    path : Path
        A PyTorch state dict, read without running code.
    slices : int
        Slices of context among the input channels; the middle one is the slice itself.

    Raises
    ------
    PretrainedWeightsError
        If a layer's shape does not match.
    """
    stored: Mapping[str, torch.Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    names = list(encoder.state_dict())
    loaded: dict[str, torch.Tensor] = {}
    for name, (source, value) in zip(names, stored.items(), strict=False):
        wanted = encoder.state_dict()[name]
        is_first = not loaded and value.ndim == _FILTERS_NDIM
        weight = spread_over_channels(value, wanted.shape[1], slices) if is_first else value
        if weight.shape != wanted.shape:
            message = (
                f"{path.name}: {source} has shape {tuple(value.shape)}, the encoder's {name} has "
                f"{tuple(wanted.shape)}: choose the weights of the encoder's own architecture."
            )
            raise PretrainedWeightsError(message)
        loaded[name] = weight
    encoder.load_state_dict(loaded, strict=True)


def spread_over_channels(weight: torch.Tensor, channels: int, slices: int) -> torch.Tensor:
    """Return a first layer for other input channels than colour.

    Parameters
    ----------
    weight : torch.Tensor
        (K, 3, h, w) filters on red, green and blue.
    channels : int
        Input channels wanted; channel c of a slice takes the filter of colour c modulo 3.
    slices : int
        Slices of context; ``channels`` is a multiple of it.

    Returns
    -------
    torch.Tensor
        (K, channels, h, w): responses to an input that repeats in every channel keep their size.
    """
    each = channels // slices
    shares = torch.full((slices,), _NEIGHBOUR_SHARE if slices > 1 else 1.0)
    shares[slices // 2] = 1.0 - _NEIGHBOUR_SHARE * (slices - 1) if slices > 1 else 1.0
    colours = weight[:, torch.arange(each) % 3] * (3.0 / each)
    return torch.cat([colours * share for share in shares.tolist()], dim=1)
