"""Pure. Random views of prepared slices: geometry, intensity and missing sequences.

Every draw comes from the generator that is passed in, so that an epoch repeats exactly when it is resumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from inference.preparation import MATRIX

_ROTATION_RAD: Final = math.pi / 9
_LOG_SCALE: Final = 0.2
_LOG_STRETCH: Final = 0.1
_SHIFT: Final = 0.15
"""Largest shift, as a share of half the slice."""

_LOG_GAMMA: Final = 0.35
_SHADING: Final = 0.45
"""Largest change of brightness towards an edge: surface coils shade some training patients as much."""

_GAIN: Final = 0.15
_OFFSET_DEVIATIONS: Final = 0.2
_NOISE_DEVIATIONS: Final = 0.15

_TURN_CHANCE: Final = 0.7
_GAMMA_CHANCE: Final = 0.4
_SHADING_CHANCE: Final = 0.5
_NOISE_CHANCE: Final = 0.3
_BLUR_CHANCE: Final = 0.2
_UPSIDE_DOWN_CHANCE: Final = 0.1
"""Slices are stored nose up; a few turned ones keep the network from relying on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """What part of a slice is drawn and how finely.

    Attributes
    ----------
    matrix : int
        Side of the drawn view, pixels as the network sees them.
    span_px : int
        Side of the drawn view in pixels of the prepared slice: 256 is the whole slice.
    """

    matrix: int
    span_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingSequences:
    """How often sequences are taken away in training, so that FLAIR alone is enough.

    Attributes
    ----------
    flair : int
        Index of the channel that stands in for a missing one.
    all_others, each : float
        Probability that every other channel is replaced by FLAIR, and else, that one channel is.
    """

    flair: int
    all_others: float
    each: float


class SliceAugmenter:
    """Draws random views of prepared slices.

    Parameters
    ----------
    missing : MissingSequences
        How often sequences are taken away.
    generator : torch.Generator
        Source of every draw.
    slices : int
        Neighbouring slices that make up one view's channels; their sequences vary together.
    """

    def __init__(self, missing: MissingSequences, generator: torch.Generator, slices: int = 1) -> None:
        self._missing = missing
        self._generator = generator
        self._slices = slices

    def __call__(
        self, images: torch.Tensor, masks: torch.Tensor, crop: Crop
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch.

        Parameters
        ----------
        images : torch.Tensor
            (N, slices * C, 256, 256) float32 prepared slices.
        masks : torch.Tensor
            (N, 1, 256, 256) float32 zeros and ones.
        crop : Crop
            Part of the slice and resolution.

        Returns
        -------
        tuple[torch.Tensor, torch.Tensor]
            (N, slices * C, S, S) slices and (N, 1, S, S) masks of zeros and ones, S the crop's matrix.
        """
        grid = self._grid(len(images), crop)
        images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        masks = functional.grid_sample(masks, grid, padding_mode="zeros", align_corners=False)
        return self._take_sequences_away(self._vary_intensity(images)), masks.round()

    def _uniform(self, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return torch.empty(shape).uniform_(low, high, generator=self._generator)

    def _chance(self, shape: tuple[int, ...], probability: float) -> torch.Tensor:
        return torch.rand(shape, generator=self._generator) < probability

    def _grid(self, count: int, crop: Crop) -> torch.Tensor:
        """Draw flips, rotation, scale and shift as one sampling grid, (N, S, S, 2)."""
        span = crop.span_px / MATRIX
        angle = self._uniform((count,), -_ROTATION_RAD, _ROTATION_RAD) * self._chance((count,), _TURN_CHANCE)
        log_scale = self._uniform((count,), -_LOG_SCALE, _LOG_SCALE) * self._chance((count,), _TURN_CHANCE)
        scale = span * torch.exp(log_scale)
        stretch = torch.exp(self._uniform((count,), -_LOG_STRETCH, _LOG_STRETCH))
        mirrored = 1.0 - 2.0 * self._chance((count,), 0.5)
        upturned = 1.0 - 2.0 * self._chance((count,), _UPSIDE_DOWN_CHANCE)
        theta = torch.zeros((count, 2, 3))
        theta[:, 0, 0] = mirrored * scale * stretch * torch.cos(angle)
        theta[:, 0, 1] = -scale * torch.sin(angle)
        theta[:, 1, 0] = scale * torch.sin(angle)
        theta[:, 1, 1] = upturned * scale * torch.cos(angle)
        theta[:, :, 2] = self._uniform((count, 2), -_SHIFT, _SHIFT)
        return functional.affine_grid(theta, [count, 1, crop.matrix, crop.matrix], align_corners=False)

    def _vary_intensity(self, images: torch.Tensor) -> torch.Tensor:
        """Vary gamma, coil shading, contrast, brightness, sharpness and noise, per view and sequence."""
        count, channels, *matrix = images.shape
        sequences = channels // self._slices
        each = (count, 1, sequences, 1, 1)
        whole = (count, 1, 1, 1)
        views = images.view(count, self._slices, sequences, *matrix)
        low, high = views.amin((1, 3, 4), keepdim=True), views.amax((1, 3, 4), keepdim=True)
        extent = (high - low).clamp_min(1e-3)
        log_gamma = self._uniform(each, -_LOG_GAMMA, _LOG_GAMMA) * self._chance(each, _GAMMA_CHANCE)
        views = low + extent * ((views - low) / extent).clamp(0.0, 1.0) ** torch.exp(log_gamma)
        shading = self._uniform((count, sequences, 3, 3), -_SHADING, _SHADING)
        shading = shading * self._chance((count, sequences, 1, 1), _SHADING_CHANCE)
        field = functional.interpolate(shading, matrix, mode="bicubic", align_corners=True)
        views = low + (views - low) * (1.0 + field[:, None])
        gain = self._uniform(each, 1.0 - _GAIN, 1.0 + _GAIN)
        views = views * gain + self._uniform(each, -_OFFSET_DEVIATIONS, _OFFSET_DEVIATIONS)
        images = views.reshape(count, channels, *matrix)
        blurred = functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        images = torch.where(self._chance(whole, _BLUR_CHANCE), blurred, images)
        level = self._uniform(whole, 0.0, _NOISE_DEVIATIONS) * self._chance(whole, _NOISE_CHANCE)
        return images + level * torch.randn(images.shape, generator=self._generator)

    def _take_sequences_away(self, images: torch.Tensor) -> torch.Tensor:
        """Replace sequences by FLAIR, the data set's own convention for a sequence that is missing."""
        count, channels, *matrix = images.shape
        views = images.view(count, self._slices, channels // self._slices, *matrix)
        is_missing = self._chance((count, 1, views.shape[2], 1, 1), self._missing.each)
        is_missing |= self._chance((count, 1, 1, 1, 1), self._missing.all_others)
        flair = views[:, :, self._missing.flair : self._missing.flair + 1]
        return torch.where(is_missing, flair, views).reshape(count, channels, *matrix)
