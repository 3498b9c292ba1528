"""Pure. Faster R-CNN for radiographs: torchvision's detector on three backbones, with a whole-image gate.

========== ============================== ================= ==========================================
``arch``   Backbone                       Feature strides   Anchors (pixels)
========== ============================== ================= ==========================================
r50_fpn_v2 ResNet-50, FPN v2 heads        4, 8, 16, 32, 64  32, 64, 128, 256, 512: one size a level
c5         ResNet-50, last stage alone    32                all five sizes on the one level
lite0_fpn  EfficientNet-lite0, FPN        8, 16, ..., 128   32, 64, 128, 256, 512: one size a level
========== ============================== ================= ==========================================

Every size comes in the ratios 0.5, 1 and 2, and regions are pooled to 7 x 7. No weights and no I/O here.

References
----------
Ren et al., Faster R-CNN, arXiv:1506.01497; Lin et al., Feature pyramid networks, arXiv:1612.03144; Li et al.,
Benchmarking detection transfer learning (FPN v2), arXiv:2111.11429.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import timm
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

ANCHOR_SIZES: Final = (32, 64, 128, 256, 512)
"""Sides of the square anchors, pixels of the network's input."""

ASPECT_RATIOS: Final = (0.5, 1.0, 2.0)
"""Height over width of the anchors."""

POOLED: Final = 7
"""Side of a pooled region."""

ARCHITECTURES: Final = ("r50_fpn_v2", "c5", "lite0_fpn")

_RESNET_CHANNELS: Final = 256
_LITE0_STAGES: Final = (2, 3, 4)
"""timm's feature indices of strides 8, 16 and 32."""

Detections = list[dict[str, torch.Tensor]]
"""For each image: ``boxes`` (N, 4), ``scores`` (N,), ``labels`` (N,) from 1, ``presence`` (1 + classes,)."""


class RadiographDetector(nn.Module):
    """Finds boxes of several classes on a radiograph, and says what the whole image shows.

    Parameters
    ----------
    classes : int
        Classes of boxes, without the background.
    arch : str
        One of `ARCHITECTURES`.
    channels : int
        Channels of the feature pyramid of ``lite0_fpn``.
    head_features : int
        Width of the box head of ``lite0_fpn``.
    dropout : float
        Probability with which a feature of a region, and of the whole image before the gate, is zeroed in
        training and in Monte-Carlo dropout.
    score_threshold, overlap, boxes_per_image : float, float, int
        Boxes below the score are dropped, of boxes of one class that overlap more the best is kept, and at
        most so many are returned.

    Raises
    ------
    ValueError
        If the architecture is unknown or there is no class.
    """

    def __init__(
        self,
        classes: int,
        arch: str = "r50_fpn_v2",
        *,
        channels: int = 128,
        head_features: int = 256,
        dropout: float = 0.2,
        score_threshold: float = 0.02,
        overlap: float = 0.4,
        boxes_per_image: int = 50,
    ) -> None:
        super().__init__()
        if arch not in ARCHITECTURES or classes < 1:
            message = f"arch: expected one of {', '.join(ARCHITECTURES)} and a class, got {arch!r}, {classes}"
            raise ValueError(message)
        self.classes = classes
        common: dict[str, Any] = {
            "box_score_thresh": score_threshold,
            "box_nms_thresh": overlap,
            "box_detections_per_img": boxes_per_image,
            "box_batch_size_per_image": 64,
            "rpn_pre_nms_top_n_train": 1000,
            "rpn_pre_nms_top_n_test": 500,
            "rpn_post_nms_top_n_train": 500,
            "rpn_post_nms_top_n_test": 300,
        }
        build = {"r50_fpn_v2": _r50_fpn_v2, "c5": _c5}.get(arch)
        detector = (
            build(classes + 1, common)
            if build is not None
            else _lite0_fpn(classes + 1, common, channels=channels, head_features=head_features)
        )
        self.backbone = detector.backbone
        self.rpn = detector.rpn
        self.roi_heads = detector.roi_heads
        self.roi_heads.box_head = nn.Sequential(self.roi_heads.box_head, nn.Dropout(dropout))
        levels = {"c5": 1}.get(arch, len(ANCHOR_SIZES))
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Linear(levels * int(detector.backbone.out_channels), 1 + classes)

    @property
    def encoder(self) -> nn.Module:
        """The part of the backbone that ImageNet weights begin."""
        return cast("nn.Module", getattr(self.backbone, "body", self.backbone))

    def features(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Return the feature maps of (N, 1, H, W) prepared radiographs, finest first."""
        maps = self.backbone((images * 0.5).expand(-1, 3, -1, -1))
        named = maps if isinstance(maps, Mapping) else {"0": maps}
        return OrderedDict((name, value.float()) for name, value in named.items())

    def presence(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return (N, 1 + classes) logits: the image is abnormal; it shows each class."""
        pooled = torch.cat([value.mean(dim=(2, 3)) for value in features.values()], dim=1)
        return cast("torch.Tensor", self.gate(self.dropout(pooled)))

    def region_scores(
        self, features: Mapping[str, torch.Tensor], boxes: torch.Tensor, shape: tuple[int, int]
    ) -> torch.Tensor:
        """Return (N, classes) probabilities of given (N, 4) boxes on one image of ``shape`` (H, W)."""
        pooled = self.roi_heads.box_roi_pool(features, [boxes], [shape])
        logits, _ = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return torch.softmax(logits, dim=1)[:, 1:]

    def losses(
        self,
        images: torch.Tensor,
        targets: Sequence[Mapping[str, torch.Tensor]],
        *,
        is_bfloat16: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of a batch, in training mode.

        Parameters
        ----------
        images : torch.Tensor
            (N, 1, H, W) float32 prepared radiographs.
        targets : sequence of mappings
            ``boxes`` (N, 4) float32 left, top, right, bottom, ``labels`` (N,) int64 from 1, and ``presence``
            (1 + classes,) float32 ones and zeros; an undefined value there is left out of the loss.
        is_bfloat16 : bool
            Whether the backbone computes in bfloat16; box coordinates need float32 and keep it.

        Returns
        -------
        dict of str to torch.Tensor
            Objectness and box regression of proposals and of regions, class of regions, and presence.
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_bfloat16):
            features = self.features(images)
        listed = [{"boxes": t["boxes"], "labels": t["labels"]} for t in targets]
        shapes = [(int(images.shape[-2]), int(images.shape[-1]))] * len(images)
        proposals, losses = self.rpn(ImageList(images, shapes), features, listed)
        _, region_losses = self.roi_heads(features, proposals, shapes, listed)
        wanted = torch.stack([t["presence"] for t in targets])
        known = ~wanted.isnan()
        logits = self.presence(features)
        presence = nn.functional.binary_cross_entropy_with_logits(logits[known], wanted[known])
        return {**losses, **region_losses, "loss_presence": presence}

    def forward(self, images: torch.Tensor) -> Detections:
        """Find boxes, in evaluation mode.

        Parameters
        ----------
        images : torch.Tensor
            (N, 1, H, W) float32 prepared radiographs (`inference.radiograph_preparation`).

        Returns
        -------
        list of dict
            For each image ``boxes`` (N, 4) in pixels of the input, ``scores`` (N,) 0 to 1, best first,
            ``labels`` (N,) int64 from 1, and ``presence`` (1 + classes,) logits.
        """
        features = self.features(images)
        shapes = [(int(images.shape[-2]), int(images.shape[-1]))] * len(images)
        proposals, _ = self.rpn(ImageList(images, shapes), features)
        detections, _ = self.roi_heads(features, proposals, shapes)
        presence = self.presence(features)
        return [
            {**detection, "presence": logits} for detection, logits in zip(detections, presence, strict=True)
        ]


def _one_size_a_level() -> AnchorGenerator:
    return AnchorGenerator(tuple((size,) for size in ANCHOR_SIZES), (ASPECT_RATIOS,) * len(ANCHOR_SIZES))


def _detector(backbone: nn.Module, classes: int, common: Mapping[str, Any], **parts: Any) -> FasterRCNN:
    """Assemble torchvision's parts; its own resizing and normalisation are not used."""
    return FasterRCNN(backbone, num_classes=None if "box_predictor" in parts else classes, **common, **parts)


def _r50_fpn_v2(classes: int, common: Mapping[str, Any]) -> FasterRCNN:
    """Build the detector of torchvision's ``fasterrcnn_resnet50_fpn_v2``."""
    body = resnet50(weights=None)
    backbone = BackboneWithFPN(
        body,
        return_layers={"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"},
        in_channels_list=[256, 512, 1024, 2048],
        out_channels=_RESNET_CHANNELS,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=nn.BatchNorm2d,
    )
    anchors = _one_size_a_level()
    head = RPNHead(_RESNET_CHANNELS, anchors.num_anchors_per_location()[0], conv_depth=2)
    box_head = FastRCNNConvFCHead(
        (_RESNET_CHANNELS, POOLED, POOLED), [256, 256, 256, 256], [1024], norm_layer=nn.BatchNorm2d
    )
    return _detector(
        backbone, classes, common, rpn_anchor_generator=anchors, rpn_head=head, box_head=box_head
    )


def _c5(classes: int, common: Mapping[str, Any]) -> FasterRCNN:
    """Build the single-level detector on the 2048 channels of ResNet-50's last stage."""
    backbone = _LastStage()
    return _detector(
        backbone,
        classes,
        common,
        rpn_anchor_generator=AnchorGenerator((ANCHOR_SIZES,), (ASPECT_RATIOS,)),
        box_roi_pool=MultiScaleRoIAlign(["0"], POOLED, 2),
    )


def _lite0_fpn(classes: int, common: Mapping[str, Any], *, channels: int, head_features: int) -> FasterRCNN:
    """Build the small detector whose weights can be shipped."""
    backbone = _Lite0Pyramid(channels)
    names = ["0", "1", "2", "p6", "p7"]
    return _detector(
        backbone,
        classes,
        common,
        rpn_anchor_generator=_one_size_a_level(),
        box_roi_pool=MultiScaleRoIAlign(names[:3], POOLED, 2),
        box_head=TwoMLPHead(channels * POOLED**2, head_features),
        box_predictor=_predictor(head_features, classes),
    )


def _predictor(features: int, classes: int) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    predictor: nn.Module = FastRCNNPredictor(features, classes)
    return predictor


class _LastStage(nn.Module):
    """ResNet-50 up to its last stage."""

    out_channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.body = IntermediateLayerGetter(resnet50(weights=None), {"layer4": "0"})

    def forward(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the one map, stride 32."""
        return cast("Mapping[str, torch.Tensor]", self.body(images))


class _Lite0Pyramid(nn.Module):
    """EfficientNet-lite0 with a feature pyramid of five levels, strides 8 to 128."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.body = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=_LITE0_STAGES
        )
        widths: list[int] = cast("Any", self.body).feature_info.channels()
        self.fpn = FeaturePyramidNetwork(
            widths, channels, extra_blocks=LastLevelP6P7(channels, channels), norm_layer=nn.BatchNorm2d
        )

    def forward(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return five maps, finest first."""
        maps = self.body(images)
        named = OrderedDict((str(index), value) for index, value in enumerate(maps))
        return cast("Mapping[str, torch.Tensor]", self.fpn(named))


def freeze_beginning(network: RadiographDetector) -> None:
    """Keep the encoder's first layers, up to stride 4, and all its running statistics as ImageNet made them.

    Edges and textures are the same on radiographs; batches of a few images would spoil the statistics. To be
    called again after every ``network.train()``.
    """
    for name, module in network.encoder.named_children():
        if name in _BEGINNING:
            module.requires_grad_(requires_grad=False)
    blocks = getattr(network.encoder, "blocks", None)
    if blocks is not None:
        for block in list(blocks)[:_FROZEN_BLOCKS]:
            block.requires_grad_(requires_grad=False)
    for module in network.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


_BEGINNING: Final = frozenset({"conv1", "bn1", "layer1", "conv_stem"})
"""Names of the first layers of torchvision's and timm's encoders."""

_FROZEN_BLOCKS: Final = 2
"""Stages of EfficientNet up to stride 4."""
