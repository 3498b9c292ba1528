"""Pure. Attention Res-UNet on a pretrained residual encoder, with multi-scale skip fusion.

The encoder is one of timm's feature networks (inverted residual or residual blocks), so that training can
begin from ImageNet weights; the decoder is that of `attention_res_unet`: attention-gated skips merged by
residual units. Each skip is first fused with its finer and coarser neighbours. No weights and no I/O here.

References
----------
Oktay et al., Attention U-Net, arXiv:1804.03999; Huang et al., UNet 3+ (full-scale skips), arXiv:2004.08790;
Tan, Le, EfficientNet, arXiv:1905.11946.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import timm
import torch
from torch import nn
from torch.nn import functional

from inference.networks.attention_res_unet import DecoderStage

DEFAULT_DECODER_CHANNELS: Final = (16, 32, 48, 64, 128)
"""Channels of the decoder's levels, finest (full resolution) first."""

_SUPERVISED_STAGES: Final = 2
"""How many decoder stages below the finest have a head of their own in training."""


class SkipFusion(nn.Module):
    """One skip connection seen together with its finer and coarser neighbours.

    Parameters
    ----------
    channels : sequence of int
        Channels of the encoder's maps, finest first.
    level : int
        Which map is the skip.
    out_channels : int
        Channels of the fused skip.
    """

    def __init__(self, channels: Sequence[int], level: int, out_channels: int) -> None:
        super().__init__()
        self.level = level
        self.neighbours = [near for near in (level - 1, level + 1) if 0 <= near < len(channels)]
        width = channels[level] + sum(channels[near] for near in self.neighbours)
        self.mix = nn.Sequential(
            nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (N, out_channels, H, W) at the skip's own resolution."""
        own = maps[self.level]
        parts = [own]
        for near in self.neighbours:
            if near < self.level:
                parts.append(functional.avg_pool2d(maps[near], 2))
            else:
                parts.append(
                    functional.interpolate(maps[near], own.shape[-2:], mode="bilinear", align_corners=False)
                )
        return cast("torch.Tensor", self.mix(torch.cat(parts, dim=1)))


class EncoderAttentionUNet(nn.Module):
    """Attention Res-UNet for slices, on a pretrained encoder.

    Parameters
    ----------
    in_channels : int
        Input channels: sequences times slices of context.
    out_channels : int
        Output logit channels, one per label.
    encoder : str
        Name of a timm network that gives feature maps at strides 2, 4, 8, 16 and 32.
    decoder_channels : sequence of int
        Channels of the decoder's levels, full resolution first: one more than the strides in use.
    dropout : float
        Probability with which a feature channel is zeroed before each decoder stage of the coarser half, in
        training and in Monte-Carlo dropout.

    Raises
    ------
    ValueError
        If the encoder does not have as many maps as the decoder has levels.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        encoder: str = "tf_efficientnet_lite0",
        decoder_channels: Sequence[int] = DEFAULT_DECODER_CHANNELS,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = timm.create_model(encoder, pretrained=False, features_only=True, in_chans=in_channels)
        info = cast("Any", self.encoder.feature_info)
        widths = list(info.channels())
        if len(widths) != len(decoder_channels):
            message = f"decoder_channels: {encoder} has {len(widths)} maps, name as many levels"
            raise ValueError(message)
        self.divisor = int(info.reduction()[-1])
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, decoder_channels[0], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(decoder_channels[0]),
            nn.ReLU(inplace=True),
        )
        coarsest = len(widths) - 1
        self.fusions = nn.ModuleList(
            SkipFusion(widths, level, decoder_channels[level + 1]) for level in range(coarsest)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], decoder_channels[-1], kernel_size=1, bias=False),
            nn.BatchNorm2d(decoder_channels[-1]),
            nn.ReLU(inplace=True),
        )
        below = decoder_channels[-1]
        stages, heads = [], []
        for level in reversed(range(coarsest)):
            here = decoder_channels[level + 1]
            stages.append(DecoderStage(below, here, 0.0))
            heads.append(nn.Conv2d(here, out_channels, kernel_size=1))
            below = here
        self.stages = nn.ModuleList(stages)
        self.finest = DecoderStage(below, decoder_channels[0], 0.0)
        self.head = nn.Conv2d(decoder_channels[0], out_channels, kernel_size=1)
        self.coarse_heads = nn.ModuleList(heads[-_SUPERVISED_STAGES:])
        self.drops = nn.ModuleList(
            nn.Dropout2d(dropout if depth < (coarsest + 1) // 2 else 0.0) for depth in range(coarsest)
        )

    def decode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the decoder's stages, coarsest first, the full-resolution one last."""
        matrix = x.shape[-2:]
        if matrix[0] % self.divisor or matrix[1] % self.divisor:
            message = f"matrix {tuple(matrix)}: pad height and width to multiples of {self.divisor}"
            raise ValueError(message)
        maps = self.encoder(x)
        coarse = self.neck(maps[-1])
        decoded = []
        for stage, fusion, drop in zip(self.stages, reversed(self.fusions), self.drops, strict=True):
            coarse = stage(drop(coarse), fusion(maps))
            decoded.append(coarse)
        decoded.append(self.finest(coarse, self.stem(x)))
        return decoded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment a batch of slices.

        Parameters
        ----------
        x : torch.Tensor
            (N, in_channels, H, W) prepared slices; H and W are multiples of `divisor`.

        Returns
        -------
        torch.Tensor
            (N, out_channels, H, W) logits.

        Raises
        ------
        ValueError
            If H or W is not a multiple of `divisor`.
        """
        return cast("torch.Tensor", self.head(self.decode(x)[-1]))

    def forward_scales(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits at full, half and quarter resolution, for deep supervision in training."""
        decoded = self.decode(x)
        coarse = decoded[-1 - len(self.coarse_heads) : -1]
        scales = [head(features) for head, features in zip(self.coarse_heads, coarse, strict=True)]
        return [self.head(decoded[-1]), *reversed(scales)]
