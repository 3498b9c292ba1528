"""Pure. CT and MR of one patient through an encoder each, into one representation that three heads read.

Either modality may be missing: a learned vector stands in for its features, and a presence mask tells the
heads so. A study is a bag of slices: the slices that look most like a lesion speak for it. No weights and no
I/O here.

References
----------
Shi, Cao, Raschka, CORN, arXiv:2111.08851 (ordinal logits); Neverova et al., ModDrop, arXiv:1501.00102;
Ilse et al., multiple-instance learning, arXiv:1802.04712; Tan, Le, EfficientNet, arXiv:1905.11946.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

import timm
import torch
from torch import nn
from torch.nn import functional

DEFAULT_FEATURES: Final = 512
"""Features of each modality."""

MODALITIES: Final = ("ct", "mr")
"""Order of the modalities in the representation and in the presence mask."""

HEALTHY: Final = 0
"""Index of the class without a lesion."""

_FEATURE_SCALE: Final = 16.0
"""Length of the representation as the heads see it: unit length would need weights too large to decay."""


class FusionLogits(NamedTuple):
    """What the heads say.

    Attributes
    ----------
    tumour_class : torch.Tensor
        (N, classes) logits: healthy, benign, malignant.
    stage : torch.Tensor
        (N, grades - 1) logits, each of passing one more grade given that the one before was passed.
    risk : torch.Tensor
        (N,) logarithm of the relative hazard.
    """

    tumour_class: torch.Tensor
    stage: torch.Tensor
    risk: torch.Tensor


class SliceEncoder(nn.Module):
    """One modality's slices to feature vectors.

    Parameters
    ----------
    encoder : str
        Name of a timm network.
    features : int
        Length of a feature vector.
    drop_path : float
        Probability with which a residual branch is left out in training.
    """

    def __init__(self, encoder: str, features: int, drop_path: float) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            encoder, pretrained=False, features_only=True, in_chans=1, drop_path_rate=drop_path
        )
        width = list(cast("Any", self.backbone.feature_info).channels())[-1]
        self.neck = nn.Sequential(
            nn.Conv2d(width, features, kernel_size=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, features) of (N, 1, H, W) slices, each of length 1."""
        pooled = self.neck(self.backbone(x)[-1]).mean(dim=(2, 3))
        return functional.normalize(pooled, dim=1)


class DualEncoder(nn.Module):
    """Fusion network for CT and MR slices.

    Parameters
    ----------
    encoder : str
        Name of a timm network, the same for both modalities: ``tf_efficientnet_lite0``, ``resnet50``, ...
    features : int
        Features of each modality.
    classes : int
        Classes of the first head; class 0 is healthy.
    grades : int
        Grades of the ordinal head, at least two.
    dropout : float
        Probability with which a feature is zeroed before the heads, in training and in Monte-Carlo dropout.
    drop_path : float
        Stochastic depth of the encoders in training.
    bag : int
        Slices of a study that speak for it.

    Raises
    ------
    ValueError
        If there are fewer than two classes or grades, or the bag is empty.
    """

    def __init__(  # noqa: PLR0917 - the arguments of the card
        self,
        encoder: str = "tf_efficientnet_lite0",
        features: int = DEFAULT_FEATURES,
        classes: int = 3,
        grades: int = 2,
        dropout: float = 0.3,
        drop_path: float = 0.0,
        bag: int = 4,
    ) -> None:
        super().__init__()
        if classes < 2 or grades < 2 or bag < 1:  # noqa: PLR2004 - two is what a choice needs
            message = "classes and grades: name at least two; bag: at least one slice"
            raise ValueError(message)
        self.bag = bag
        self.ct_encoder = SliceEncoder(encoder, features, drop_path)
        self.mr_encoder = SliceEncoder(encoder, features, drop_path)
        self.placeholders = nn.Parameter(torch.randn(len(MODALITIES), features) / features**0.5)
        width = len(MODALITIES) * (features + 1)
        self.drop = nn.Dropout(dropout)
        self.class_head = nn.Linear(width, classes)
        self.stage_head = nn.Linear(width, grades - 1)
        self.risk_head = nn.Linear(width, 1)

    def represent(
        self,
        ct: torch.Tensor | None,
        mr: torch.Tensor | None,
        presence: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Join the features of both modalities.

        Parameters
        ----------
        ct, mr : torch.Tensor or None
            (N, features) of each modality; None when no row has it.
        presence : torch.Tensor or None
            (N, 2) bool: which rows have CT, which have MR; None means every row has what is given.

        Returns
        -------
        torch.Tensor
            (N, 2 * features + 2): the features, the whole of them of one length, and the presence mask.

        Raises
        ------
        ValueError
            If both are missing.
        """
        given = next((features for features in (ct, mr) if features is not None), None)
        if given is None:
            message = "ct, mr: a study needs at least one of them"
            raise ValueError(message)
        if presence is None:
            there = torch.tensor([ct is not None, mr is not None], device=given.device)
            presence = there.expand(len(given), -1)
        stand_ins = functional.normalize(self.placeholders, dim=1).to(given.dtype)
        parts = [
            stand_in.expand(len(given), -1)
            if features is None
            else torch.where(presence[:, column : column + 1], features, stand_in)
            for column, (features, stand_in) in enumerate(zip((ct, mr), stand_ins, strict=True))
        ]
        joint = functional.normalize(torch.cat(parts, dim=1), dim=1) * _FEATURE_SCALE
        return torch.cat([joint, presence.to(joint.dtype)], dim=1)

    def read(self, representation: torch.Tensor) -> FusionLogits:
        """Return what the heads say of (N, 2 * features + 2) representations."""
        kept = self.drop(representation)
        return FusionLogits(
            tumour_class=self.class_head(kept),
            stage=self.stage_head(kept),
            risk=self.risk_head(kept)[:, 0],
        )

    def forward(
        self,
        ct: torch.Tensor | None = None,
        mr: torch.Tensor | None = None,
        presence: torch.Tensor | None = None,
    ) -> FusionLogits:
        """Read slices one by one, or CT and MR slices in pairs.

        Parameters
        ----------
        ct, mr : torch.Tensor or None
            (N, 1, H, W) prepared slices; at least one is given.
        presence : torch.Tensor or None
            (N, 2) bool: rows whose CT or MR does not count though a slice is given; None counts all given.

        Returns
        -------
        FusionLogits
            One row a pair.

        Raises
        ------
        ValueError
            If both are missing.
        """
        return self.read(self.represent(self._encode("ct", ct), self._encode("mr", mr), presence))

    def represent_study(self, ct: torch.Tensor | None = None, mr: torch.Tensor | None = None) -> torch.Tensor:
        """Represent one study by the slices of each modality that look most like a lesion.

        Parameters
        ----------
        ct, mr : torch.Tensor or None
            (n, 1, H, W) slices of each modality, as many as there are; at least one modality is given.

        Returns
        -------
        torch.Tensor
            (1, 2 * features + 2) representation.

        Raises
        ------
        ValueError
            If both are missing.
        """
        bags = {
            name: None if slices is None else self.summarise(name, slices)
            for name, slices in (("ct", ct), ("mr", mr))
        }
        return self.represent(bags["ct"], bags["mr"])

    def forward_study(self, ct: torch.Tensor | None = None, mr: torch.Tensor | None = None) -> FusionLogits:
        """Read one study: `represent_study`, then the heads; one row."""
        return self.read(self.represent_study(ct, mr))

    def lesion_scores(self, name: str, features: torch.Tensor) -> torch.Tensor:
        """Return (n,): the probability of a lesion that each slice's (n, features) show by themselves."""
        alone = {"ct": None, "mr": None} | {name: features}
        logits = self.class_head(self.represent(alone["ct"], alone["mr"]))
        return cast("torch.Tensor", 1.0 - logits.softmax(dim=1)[:, HEALTHY])

    def summarise(self, name: str, slices: torch.Tensor) -> torch.Tensor:
        """Summarise one modality of a study.

        Parameters
        ----------
        name : str
            ``ct`` or ``mr``.
        slices : torch.Tensor
            (n, 1, H, W) prepared slices.

        Returns
        -------
        torch.Tensor
            (1, features): the mean of the slices that look most like a lesion, of length 1.
        """
        features = cast("torch.Tensor", self.get_submodule(f"{name}_encoder")(slices))
        scores = self.lesion_scores(name, features.detach())
        chosen = scores.topk(min(self.bag, len(features))).indices
        return functional.normalize(features[chosen].mean(dim=0, keepdim=True), dim=1)

    def _encode(self, name: str, slices: torch.Tensor | None) -> torch.Tensor | None:
        if slices is None:
            return None
        return cast("torch.Tensor", self.get_submodule(f"{name}_encoder")(slices))


def grade_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Turn ordinal logits into probabilities of the grades.

    Parameters
    ----------
    logits : torch.Tensor
        (N, grades - 1): passing grade k given that grade k - 1 was passed.

    Returns
    -------
    torch.Tensor
        (N, grades), adding up to 1.
    """
    passed = torch.sigmoid(logits).cumprod(dim=1)
    ends = torch.ones_like(passed[:, :1])
    return torch.cat([ends, passed], dim=1) - torch.cat([passed, torch.zeros_like(ends)], dim=1)
