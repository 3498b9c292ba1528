"""Pure. Random changes of head slices in training: those that scanners, patients and windows make."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch.nn import functional

_TURN_DEGREES: Final = 15.0
_SHIFT: Final = 0.06
"""Largest shift, as a share of the image's side."""

_SCALE: Final = (0.85, 1.15)
_GAMMA: Final = (0.75, 1.35)
_GAIN: Final = (0.85, 1.15)
_OFFSET: Final = 0.2
"""Largest offset, standard deviations of the head."""

_NOISE: Final = 0.08
_LOW, _HIGH = -4.0, 4.0
_BLUR_SHARE: Final = 0.3


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror, turn, shift, scale, re-window, blur and spoil slices, each in its own way.

    Parameters
    ----------
    images : torch.Tensor
        (N, 1, H, W) float32 prepared slices.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    torch.Tensor
        (N, 1, H, W) float32.
    """
    count = len(images)

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle = draw(-_TURN_DEGREES, _TURN_DEGREES) * math.pi / 180.0
    scale = draw(*_SCALE)
    mirror = torch.where(draw(0.0, 1.0) < 0.5, -1.0, 1.0)  # noqa: PLR2004 - a coin
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cosine * mirror, -sine, draw(-2 * _SHIFT, 2 * _SHIFT)], dim=1)
    columns = torch.stack([sine * mirror, cosine, draw(-2 * _SHIFT, 2 * _SHIFT)], dim=1)
    grid = functional.affine_grid(
        torch.stack([rows, columns], dim=1), list(images.shape), align_corners=False
    )
    lowest = images.amin(dim=(1, 2, 3), keepdim=True)
    moved = functional.grid_sample(images - lowest, grid, align_corners=False) + lowest
    span = (moved.amax(dim=(1, 2, 3), keepdim=True) - lowest).clamp(min=1e-3)
    unit = ((moved - lowest) / span).clamp(1e-4, 1.0)
    curved = unit ** draw(*_GAMMA)[:, None, None, None] * span + lowest
    shaded = curved * draw(*_GAIN)[:, None, None, None] + draw(-_OFFSET, _OFFSET)[:, None, None, None]
    blurred = functional.avg_pool2d(shaded, 3, stride=1, padding=1, count_include_pad=False)
    softened = torch.where((draw(0.0, 1.0) < _BLUR_SHARE)[:, None, None, None], blurred, shaded)
    noise = torch.randn(softened.shape, generator=generator) * draw(0.0, _NOISE)[:, None, None, None]
    return (softened + noise).clamp(_LOW, _HIGH)
