"""Pure. Attention Res-UNet: a residual U-Net whose skip connections pass through attention gates.

One architecture lives here and nothing else: no weights, no device choice, no I/O. The network is
fully convolutional in two dimensions and takes one slice per batch item.

References
----------
Ronneberger et al., U-Net, arXiv:1505.04597; Zhang et al., Deep Residual U-Net, arXiv:1711.10684;
Oktay et al., Attention U-Net, arXiv:1804.03999.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from monai.networks.blocks.convolutions import ResidualUnit
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn
from torch.nn import functional

DEFAULT_CHANNELS = (16, 32, 64, 128, 256)
"""Feature channels per level, finest first: 2.4 million parameters, about 50 ms a slice on two CPU cores."""


class DecoderStage(nn.Module):
    """One step up: upsample, gate the skip connection by attention, merge by a residual unit.

    Batch normalisation is used throughout: in evaluation mode it is a fixed affine map per channel, so a
    slice's result does not depend on the slices that share its batch, and unlike instance normalisation
    it keeps the absolute intensity that tells a bright lesion from a bright slice.

    Parameters
    ----------
    below : int
        Channels of the coarser feature map.
    skip : int
        Channels of the skip connection, which are also the channels of the output.
    dropout : float
        Probability with which an activation is zeroed in training.
    """

    def __init__(self, below: int, skip: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, skip, kernel_size=2, stride=2)
        self.gate = AttentionBlock(spatial_dims=2, f_int=max(skip // 2, 1), f_g=skip, f_l=skip)
        self.merge = ResidualUnit(
            spatial_dims=2, in_channels=2 * skip, out_channels=skip, norm="batch", act="relu", dropout=dropout
        )

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Merge a coarse map with a skip connection.

        Parameters
        ----------
        coarse : torch.Tensor
            (N, below, H / 2, W / 2) features of the level below.
        skip : torch.Tensor
            (N, skip, H, W) features of the encoder at this level.

        Returns
        -------
        torch.Tensor
            (N, skip, H, W) features.
        """
        raised = self.up(coarse)
        gated = self.gate(g=raised, x=skip)
        return cast("torch.Tensor", self.merge(torch.cat((gated, raised), dim=1)))


class AttentionResUNet(nn.Module):
    """Residual U-Net with attention gates on its skip connections, for two-dimensional slices.

    Parameters
    ----------
    in_channels : int
        Input channels (MR sequences of the slice).
    out_channels : int
        Output logit channels, one per label.
    channels : Sequence[int]
        Feature channels per level, finest first; each level halves the matrix.
    dropout : float
        Probability with which an activation is zeroed in the two coarsest encoder levels and the decoder
        stages above them. Monte-Carlo dropout switches these modules back on.
    reduction : int
        How many times coarser than its input the network works: the input is averaged over squares of this
        side and the logits are interpolated back, so that input and output keep one matrix.

    Raises
    ------
    ValueError
        If fewer than two levels are asked for.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        channels: Sequence[int] = DEFAULT_CHANNELS,
        dropout: float = 0.0,
        reduction: int = 1,
    ) -> None:
        super().__init__()
        if len(channels) < 2:  # noqa: PLR2004 - a U-Net needs one level to go down to
            message = "channels: name at least two levels, finest first"
            raise ValueError(message)
        self.reduction = reduction
        self.levels = len(channels)
        coarse_from = len(channels) - 2
        self.encoder = nn.ModuleList()
        for level, (above, here) in enumerate(pairwise((in_channels, *channels))):
            self.encoder.append(
                ResidualUnit(
                    spatial_dims=2,
                    in_channels=above,
                    out_channels=here,
                    strides=1 if level == 0 else 2,
                    norm="batch",
                    act="relu",
                    dropout=dropout if level >= coarse_from else 0.0,
                )
            )
        self.decoder = nn.ModuleList(
            DecoderStage(channels[level + 1], channels[level], dropout if level >= coarse_from - 1 else 0.0)
            for level in reversed(range(len(channels) - 1))
        )
        self.head = nn.Conv2d(channels[0], out_channels, kernel_size=1)

    @property
    def divisor(self) -> int:
        """What height and width must be multiples of."""
        return int(self.reduction * 2 ** (self.levels - 1))

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
        matrix = x.shape[-2:]
        if matrix[0] % self.divisor or matrix[1] % self.divisor:
            message = f"matrix {tuple(matrix)}: pad height and width to multiples of {self.divisor}"
            raise ValueError(message)
        if self.reduction > 1:
            x = functional.avg_pool2d(x, self.reduction)
        skips: list[torch.Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        x = skips.pop()
        for stage in self.decoder:
            x = stage(x, skips.pop())
        logits = cast("torch.Tensor", self.head(x))
        if self.reduction == 1:
            return logits
        return functional.interpolate(logits, matrix, mode="bilinear", align_corners=False)
