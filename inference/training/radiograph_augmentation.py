"""Pure. Random views of a prepared radiograph and its boxes: mirrored, scaled, shifted, otherwise exposed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from inference.radiograph_preparation import BLACK

_WHITE: Final = -BLACK
_LEAST_VISIBLE: Final = 0.3
"""A box of which less than this share stays in view is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a radiograph is seen.

    Attributes
    ----------
    is_mirrored : bool
        Left and right exchanged.
    scale : float
        Above 1 enlarges.
    shift : tuple of float
        Columns and rows by which the centre of the view lies off the centre of the image, in half images.
    gain, offset, gamma : float
        Change of the grey values 0 to 1.
    """

    is_mirrored: bool = False
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0


UNCHANGED: Final = View()


def draw_view(draws: np.random.Generator) -> View:
    """Draw a view: mirrored in half of the cases, a fifth larger or smaller, a tenth aside."""
    return View(
        is_mirrored=bool(draws.random() < 0.5),  # noqa: PLR2004 - half
        scale=float(np.exp(draws.uniform(-0.2, 0.25))),
        shift=(float(draws.uniform(-0.12, 0.12)), float(draws.uniform(-0.12, 0.12))),
        gain=float(draws.uniform(0.85, 1.15)),
        offset=float(draws.uniform(-0.08, 0.08)),
        gamma=float(np.exp(draws.uniform(-0.25, 0.25))),
    )


def see(image: torch.Tensor, view: View, matrix: int) -> torch.Tensor:
    """Return the (1, matrix, matrix) view of a (1, S, S) float32 prepared radiograph; outside it is black."""
    shift_x, shift_y = view.shift
    mirror = -1.0 if view.is_mirrored else 1.0
    theta = torch.tensor([[[mirror / view.scale, 0.0, shift_x], [0.0, 1.0 / view.scale, shift_y]]])
    grid = functional.affine_grid(theta, [1, 1, matrix, matrix], align_corners=False)
    seen = functional.grid_sample(image[None] - BLACK, grid, align_corners=False)[0] / (_WHITE - BLACK)
    if view.gamma != 1.0:
        seen = seen.clamp(0.0, 1.0) ** view.gamma
    return (seen * view.gain + view.offset * (seen > 0)).clamp(0.0, 1.0) * (_WHITE - BLACK) + BLACK


def see_boxes(
    boxes: torch.Tensor, labels: torch.Tensor, view: View, side: int, matrix: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the boxes, and their labels, that stay in view.

    Parameters
    ----------
    boxes, labels : torch.Tensor
        (N, 4) float32 left, top, right, bottom on the image of ``side`` pixels; (N,).
    view : View
        What `see` was given.
    side, matrix : int
        Sides of the image and of the view, pixels.

    Returns
    -------
    tuple of torch.Tensor
        (M, 4) on the view, clipped to it, and (M,).
    """
    mirror = -1.0 if view.is_mirrored else 1.0
    factor = torch.tensor((mirror * view.scale, view.scale) * 2)
    centred = boxes / side * 2.0 - 1.0
    moved = ((centred - torch.tensor(view.shift * 2)) * factor + 1.0) / 2.0 * matrix
    left, right = torch.minimum(moved[:, 0], moved[:, 2]), torch.maximum(moved[:, 0], moved[:, 2])
    whole = torch.stack((left, moved[:, 1], right, moved[:, 3]), dim=1)
    clipped = whole.clamp(0.0, float(matrix))
    is_seen = (_areas(clipped) >= _LEAST_VISIBLE * _areas(whole)) & (_areas(clipped) > 1.0)
    return clipped[is_seen], labels[is_seen]


def _areas(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
