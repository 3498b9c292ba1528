"""Pure. Whole-image classifiers: ResNet-50 with and without squeeze and excitation, and timm's encoders.

The residual networks are MONAI's SE-ResNet50, whose blocks put the stride into the first 1 x 1 convolution as
the first ResNet did; that is also the layout of Keras' ImageNet weights (`inference.training.pretrained`).
Every classifier takes standardised grey (`inference.radiograph_preparation`): -2 is black, 0 middle grey, 2
white. No weights and no I/O here.

References
----------
He et al., Deep residual learning, arXiv:1512.03385; Hu et al., Squeeze-and-Excitation Networks,
arXiv:1709.01507; Tan, Le, EfficientNet, arXiv:1905.11946.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, cast

import timm
import torch
from monai.networks.nets.senet import SEResNet50
from torch import nn

from inference.radiograph_preparation import GREY_DEVIATION

KERAS_EPSILON: Final = 1e-3
"""What Keras' ResNet-50 adds to variances in batch normalisation."""

_UNIT_PER_DEVIATION: Final = 2.0 * GREY_DEVIATION
"""From standardised grey to -1 (black) to 1 (white)."""

RESNET50_FEATURES: Final = 2048
"""Channels of the last feature maps of a ResNet-50."""


class Classifier(nn.Module, ABC):
    """A network that answers about a whole image.

    `features` gives the last maps, `classify` turns them into logits; in between, training may look at maps.
    """

    feature_channels: int
    """Channels of the maps that `features` returns."""

    @abstractmethod
    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, feature_channels, h, w) maps of (N, C, H, W) standardised images."""

    @abstractmethod
    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        """Return (N, labels) logits of (N, feature_channels, h, w) maps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify images.

        Parameters
        ----------
        x : torch.Tensor
            (N, C, H, W) images of standardised grey.

        Returns
        -------
        torch.Tensor
            (N, labels) logits.
        """
        return self.classify(self.features(x))


class ResNet50Classifier(Classifier):
    """ResNet-50 in its first layout, with squeeze and excitation or without.

    Parameters
    ----------
    in_channels : int
        Input channels.
    out_channels : int
        Logits, one a label.
    squeeze : bool
        Whether blocks weigh their channels (SE-ResNet50) or not (ResNet-50).
    dropout : float
        Probability with which a pooled feature is dropped, in training and in Monte-Carlo dropout.
    """

    feature_channels = RESNET50_FEATURES

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, *, squeeze: bool = True, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.body = SEResNet50(
            spatial_dims=2, in_channels=in_channels, num_classes=out_channels, dropout_prob=dropout
        )
        self.body.layer0.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = KERAS_EPSILON
        if not squeeze:
            for block in self.blocks():
                block.se_layer = nn.Identity()

    def blocks(self) -> list[Any]:
        """Return the residual blocks (MONAI's ``SEBlock``) in order."""
        layers = (self.body.layer1, self.body.layer2, self.body.layer3, self.body.layer4)
        return [block for layer in layers for block in layer]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 2048, H / 32, W / 32) maps."""
        return cast("torch.Tensor", self.body.features(x))

    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool, drop out and weigh the maps."""
        return cast("torch.Tensor", self.body.logits(maps))


class EncoderClassifier(Classifier):
    """A timm network with a head of its own: the small alternative.

    Parameters
    ----------
    in_channels : int
        Input channels.
    out_channels : int
        Logits, one a label.
    encoder : str
        Name of a timm network.
    dropout : float
        Probability with which a pooled feature is dropped, in training and in Monte-Carlo dropout.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        encoder: str = "tf_efficientnet_lite0",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.encoder = timm.create_model(encoder, pretrained=False, in_chans=in_channels, num_classes=0)
        self.feature_channels = int(cast("Any", self.encoder).num_features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.feature_channels, out_channels)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, feature_channels, h, w) maps; the encoder sees -1 to 1, as it did on ImageNet."""
        return cast("torch.Tensor", cast("Any", self.encoder).forward_features(x * _UNIT_PER_DEVIATION))

    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool, drop out and weigh the maps."""
        return cast("torch.Tensor", self.head(self.dropout(self.pool(maps).flatten(1))))
