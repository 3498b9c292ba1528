"""Adapter: tells whether an image looks like those that a network was trained on.

An image is known by the pooled output of one layer. Its distance from the training images is that of
Mahalanobis in the directions in which they vary most, and plain in the others (probabilistic principal
components), divided by the number of features: training images lie near 1. The file is safetensors and is
read only when it has the digest that the card names.

References
----------
Lee et al., A simple unified framework for detecting out-of-distribution samples, arXiv:1807.03888; Tipping,
Bishop, Probabilistic principal component analysis, doi:10.1111/1467-9868.00196.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn

from inference.cards import FamiliarityCard, FileCard
from inference.explain import DEFAULT_BATCH_SIZE, ExplanationError, Images
from inference.findings import Caveat, Doubt
from inference.packages import ModelPackageError, read_verified

FAMILIARITY_FILE: Final = "familiarity.safetensors"

MAX_DIRECTIONS: Final = 64
"""Directions of largest variation that are kept."""

IMAGES_A_DIRECTION: Final = 10
"""Training images that each direction needs at least."""

THRESHOLD_QUANTILE: Final = 0.99
"""Share of the validation images that count as familiar."""

REFUSAL_FACTOR: Final = 2.0
"""An image this many times farther away than the farthest validation image gets no answer."""

_MIN_IMAGES: Final = 20
_FEATURE_MAP_NDIM: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Familiarity:
    """Where the training images lie.

    Attributes
    ----------
    mean : ndarray
        (F,) float32 mean feature.
    directions : ndarray
        (K, F) float32 orthonormal directions of largest variation.
    variances : ndarray
        (K,) float32 variance along each.
    residual : float
        Mean variance along every other direction.
    """

    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]
    variances: npt.NDArray[np.float32]
    residual: float

    @classmethod
    def fit(cls, features: npt.NDArray[np.float32]) -> Familiarity:
        """Fit to training images.

        Parameters
        ----------
        features : ndarray
            (N, F) float32 pooled features of training images, N at least 20.

        Raises
        ------
        ValueError
            If there are fewer images.
        """
        count, width = features.shape
        if count < _MIN_IMAGES:
            raise ValueError(f"features: familiarity needs at least {_MIN_IMAGES} images, got {count}")
        mean = features.mean(axis=0, dtype=np.float64)
        _, singular, directions = np.linalg.svd(features.astype(np.float64) - mean, full_matrices=False)
        variances = singular**2 / (count - 1)
        kept = max(min(MAX_DIRECTIONS, count // IMAGES_A_DIRECTION, width - 1), 1)
        floor = max(float(variances.sum()) * 1e-6 / width, 1e-12)
        residual = max(float(variances[kept:].sum()) / max(width - kept, 1), floor)
        return cls(
            mean=mean.astype(np.float32),
            directions=directions[:kept].astype(np.float32),
            variances=np.maximum(variances[:kept], residual).astype(np.float32),
            residual=float(np.float32(residual)),
        )

    def distance(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the (N,) float32 distances of (N, F) features; about 1 for training images."""
        centred = features.astype(np.float64) - self.mean
        along = centred @ self.directions.T.astype(np.float64)
        rest = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        squared = (along**2 / self.variances).sum(axis=1) + rest / self.residual
        return np.asarray(np.sqrt(squared / features.shape[1]), dtype=np.float32)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return save(
            {
                "mean": self.mean,
                "directions": np.ascontiguousarray(self.directions),
                "variances": self.variances,
                "residual": np.array([self.residual], dtype=np.float32),
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Familiarity:
        """Read what `to_bytes` returned; raises `SafetensorError` or `KeyError` for anything else."""
        arrays = load(content)
        return cls(
            mean=arrays["mean"],
            directions=arrays["directions"],
            variances=arrays["variances"],
            residual=float(arrays["residual"].item()),
        )

    def save(self, folder: Path, name: str = FAMILIARITY_FILE) -> FileCard:
        """Write the file beside a card and return its name and digest."""
        content = self.to_bytes()
        (folder / name).write_bytes(content)
        return FileCard(file=name, sha256=hashlib.sha256(content).hexdigest())

    @classmethod
    def load(cls, folder: Path, card: FamiliarityCard) -> Familiarity:
        """Read what `save` wrote.

        Raises
        ------
        ModelPackageError
            If the file is missing, is not the one that the card names, or is damaged.
        """
        content = read_verified(folder, FileCard(file=card.file, sha256=card.sha256))
        try:
            return cls.from_bytes(content)
        except (SafetensorError, KeyError, ValueError) as exc:
            raise ModelPackageError(
                f"{folder.parent.name}/{folder.name}: {card.file} holds no familiarity: fit it again."
            ) from exc


def pooled_features(
    network: nn.Module,
    inputs: Images,
    layer: str,
    *,
    device: torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> npt.NDArray[np.float32]:
    """Return what a layer makes of images, averaged over the image.

    Parameters
    ----------
    network : nn.Module
        The network, in evaluation mode.
    inputs : ndarray or Tensor
        (N, C, H, W) float32 prepared images.
    layer : str
        Dotted name of a module; its output is (N, F, h, w), (N, tokens, F) or (N, F).
    device : torch.device or None
        Where the network is; None asks its weights.
    batch_size : int
        Images at a time.

    Returns
    -------
    ndarray
        (N, F) float32.

    Raises
    ------
    ExplanationError
        If the network has no such layer.
    """
    try:
        module = network.get_submodule(layer)
    except AttributeError as exc:
        raise ExplanationError(f"The network has no layer {layer!r}: correct the model's card.") from exc
    place = device or next((p.device for p in network.parameters()), torch.device("cpu"))
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: seen.append(_pool(output)))
    parts = []
    try:
        with torch.inference_mode():
            for start in range(0, len(inputs), batch_size):
                images = torch.as_tensor(inputs[start : start + batch_size])
                network(images.to(place, memory_format=torch.channels_last))
                parts.append(seen.pop().float().cpu().numpy())
    finally:
        handle.remove()
    return np.concatenate(parts)


def _pool(output: torch.Tensor) -> torch.Tensor:
    if output.ndim == _FEATURE_MAP_NDIM:
        return output.mean(dim=1)
    return output.flatten(2).mean(dim=2) if output.ndim > _FEATURE_MAP_NDIM else output


def thresholds_of(distances: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return threshold and refusal from the distances of validation studies, none of them trained on."""
    threshold = float(np.quantile(distances, THRESHOLD_QUANTILE))
    return round(threshold, 4), round(max(REFUSAL_FACTOR * float(distances.max()), threshold), 4)


def judge(distance: float, card: FamiliarityCard) -> Doubt | None:
    """Say what follows from a study's distance.

    Parameters
    ----------
    distance : float
        Distance of the study: of a radiograph, or the median of a volume's slices.
    card : FamiliarityCard
        The limits.

    Returns
    -------
    Doubt or None
        None for a familiar study; blocking beyond the refusal.
    """
    if distance > card.refusal:
        return Doubt(
            caveat=Caveat.OUT_OF_DISTRIBUTION,
            sentence="The images are unlike those that the model was trained on; it gives no answer.",
            is_blocking=True,
        )
    if distance > card.threshold:
        return Doubt(
            caveat=Caveat.OUT_OF_DISTRIBUTION,
            sentence="The images differ from those that the model was trained on; read its answer with care.",
        )
    return None
