"""Adapter: asks a network where it looked (Grad-CAM), and asks the answer whether it can be believed.

Maps are computed with captum on the output of one named layer. The network keeps its mode, its hooks and its
frozen weights. What is explained is the caller's choice of a score; nothing here knows a task.

References
----------
Selvaraju et al., Grad-CAM, doi:10.1109/ICCV.2017.74; Zhang et al., Top-down neural attention by excitation
backprop (pointing game), doi:10.1007/s11263-017-1059-x; Adebayo et al., Sanity checks for saliency maps,
arXiv:1810.03292.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerGradCam
from scipy import ndimage, stats
from torch import nn
from torch.nn import functional

from dicom_node.errors import PermanentError

Score: TypeAlias = Callable[[Any], torch.Tensor]
"""From the network's output for a batch of N images to (N,): what is explained of each image."""

Images: TypeAlias = npt.NDArray[np.float32] | torch.Tensor
"""(N, C, H, W) float32 prepared images."""

DEFAULT_BATCH_SIZE: Final = 4
"""Images whose gradients are held at a time."""

_MAP_NDIM: Final = 4


class ExplanationError(PermanentError):
    """A network cannot be explained as its card says; the message says what to correct."""


def grad_cam(
    network: nn.Module,
    inputs: Images,
    layer: str,
    score: Score,
    *,
    device: torch.device | str | None = None,
    forward: Callable[[torch.Tensor], Any] | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> npt.NDArray[np.float32]:
    """Compute Grad-CAM heat maps.

    Parameters
    ----------
    network : nn.Module
        The network, in evaluation mode; its weights may be frozen. It is not changed.
    inputs : ndarray or Tensor
        (N, C, H, W) float32 prepared images.
    layer : str
        Dotted name of a module of the network; its output is (N, F, h, w).
    score : callable
        From the network's output for n images to (n,): the logit, or sum of logits, that is explained.
    device : torch.device or str or None
        Where the network is; None asks its weights.
    forward : callable or None
        How the network is called on (n, C, H, W), where that is not ``network(images)``: a detector takes a
        list.
    batch_size : int
        Images at a time.

    Returns
    -------
    ndarray
        (N, H, W) float32, 0 to 1, at the inputs' resolution: 1 where the score rests most. A map is zero when
        nothing speaks for the score.

    Raises
    ------
    ExplanationError
        If the network has no such layer, or its output is no map.
    """
    (maps,) = grad_cam_inputs(
        network,
        (inputs,),
        (layer,),
        score,
        device=device,
        forward=None if forward is None else lambda *images: forward(images[0]),
        batch_size=batch_size,
    )
    if maps is None:  # the one input is there
        raise ExplanationError("There is nothing to explain: give the network an image.")
    return maps


def grad_cam_inputs(
    network: nn.Module,
    inputs: Sequence[Images | None],
    layers: Sequence[str],
    score: Score,
    *,
    device: torch.device | str | None = None,
    forward: Callable[..., Any] | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> tuple[npt.NDArray[np.float32] | None, ...]:
    """Compute Grad-CAM heat maps of a network with several inputs, each on a layer of its own encoder.

    Parameters
    ----------
    network : nn.Module
        Called as ``network(*inputs)``.
    inputs : sequence of ndarray, Tensor or None
        One (N, C, H, W) an input, all of one N; None where the input is missing, and the network is given
        None.
    layers : sequence of str
        The layer that belongs to each input.
    score, device, batch_size
        As for `grad_cam`.
    forward : callable or None
        How the network is called on its inputs, where that is not ``network(*inputs)``.

    Returns
    -------
    tuple of ndarray or None
        (N, H, W) float32, 0 to 1, for each input at its own resolution; None for a missing one.

    Raises
    ------
    ExplanationError
        If the network has no such layer, or its output is no map.
    """
    if len(inputs) != len(layers):
        raise ExplanationError(f"{len(inputs)} inputs have {len(layers)} layers: name one layer an input.")
    place = _device_of(network) if device is None else torch.device(device)
    call = network if forward is None else forward
    tensors = [None if images is None else _to_tensor(images, place) for images in inputs]
    counts = {len(tensor) for tensor in tensors if tensor is not None}
    if len(counts) != 1:
        raise ExplanationError("The inputs differ in their number of images: give one set of images.")
    (count,) = counts
    maps: list[npt.NDArray[np.float32] | None] = []
    for tensor, name in zip(tensors, layers, strict=True):
        if tensor is None:
            maps.append(None)
            continue
        module = _layer_of(network, name)
        parts = []
        for start in range(0, count, batch_size):
            part = slice(start, start + batch_size)
            images = tuple(None if other is None else other[part] for other in tensors)
            parts.append(_cam(call, module, images, tensor.shape[-2:], score))
        maps.append(np.concatenate(parts))
    return tuple(maps)


def points_at(
    heatmap: npt.NDArray[np.float32], reference: npt.NDArray[np.bool_], tolerance_px: int = 0
) -> bool:
    """Play the pointing game: return whether the hottest pixel lies in the reference.

    Parameters
    ----------
    heatmap : ndarray
        (H, W) float32.
    reference : ndarray
        (H, W) bool, for example a box or a mask.
    tolerance_px : int
        How far outside still counts, pixels (the game's authors take 15 on photographs).

    Returns
    -------
    bool
        False also for a map that is zero everywhere.
    """
    if not heatmap.any() or not reference.any():
        return False
    row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    return bool(ndimage.distance_transform_edt(~reference)[row, column] <= tolerance_px)


def hottest_area(heatmap: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.bool_]:
    """Return the (H, W) bool mask of the hottest ``share`` (0 to 1) of a map's pixels, without its zeros."""
    count = max(round(share * heatmap.size), 1)
    threshold = np.partition(heatmap.ravel(), heatmap.size - count)[heatmap.size - count]
    return np.asarray((heatmap >= threshold) & (heatmap > 0), dtype=np.bool_)


def overlap_of_hottest(
    heatmap: npt.NDArray[np.float32], reference: npt.NDArray[np.bool_], share: float | None = None
) -> float:
    """Return the intersection over union of a map's hottest area with a reference.

    Parameters
    ----------
    heatmap : ndarray
        (H, W) float32.
    reference : ndarray
        (H, W) bool, not empty.
    share : float or None
        Which part of the pixels counts as hottest; None takes as many as the reference has, so that neither
        a wide nor a narrow map is favoured.

    Returns
    -------
    float
        0 to 1.
    """
    hottest = hottest_area(heatmap, float(reference.mean()) if share is None else share)
    union = int((hottest | reference).sum())
    return int((hottest & reference).sum()) / union if union else 0.0


def similarity_after_randomisation(
    network: nn.Module, explain: Callable[[nn.Module], npt.NDArray[np.float32]], *, seed: int = 0
) -> float:
    """Check that maps depend on what the network learned: compare them with those of shuffled weights.

    Parameters
    ----------
    network : nn.Module
        The trained network; a copy of it is shuffled.
    explain : callable
        From a network to (N, H, W) maps of the same images and the same question.
    seed : int
        Seed of the shuffling.

    Returns
    -------
    float
        Mean Spearman rank correlation of the maps, -1 to 1. Near 1, the maps show the images rather than
        the network, and must not be shown to anybody.
    """
    shuffled = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in shuffled.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    pairs = zip(explain(network), explain(shuffled), strict=True)
    return float(np.mean([_rank_correlation(ours, theirs) for ours, theirs in pairs]))


def _cam(
    call: Callable[..., Any],
    module: nn.Module,
    images: tuple[torch.Tensor | None, ...],
    size: torch.Size,
    score: Score,
) -> npt.NDArray[np.float32]:
    """Return the (n, H, W) maps of one batch."""
    present = tuple(tensor for tensor in images if tensor is not None)

    def scored(*tensors: torch.Tensor) -> torch.Tensor:
        given = iter(tensors)
        return score(call(*(None if image is None else next(given) for image in images)))

    with torch.inference_mode(mode=False), torch.enable_grad():
        maps = LayerGradCam(scored, module).attribute(present, relu_attributions=True)
        if not isinstance(maps, torch.Tensor) or maps.ndim != _MAP_NDIM:
            raise ExplanationError(
                "The layer's output is no (N, F, h, w) map: name a convolutional layer as explanation_layer."
            )
        raised = functional.interpolate(
            maps.detach().float(), size=tuple(size), mode="bilinear", align_corners=False
        )[:, 0]
    values = np.nan_to_num(raised.cpu().numpy())
    peaks = values.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(values, peaks, out=np.zeros_like(values), where=peaks > 0), dtype=np.float32)


def _to_tensor(images: Images, device: torch.device) -> torch.Tensor:
    """Copy images to the device as a tensor that gradients may pass."""
    tensor = torch.as_tensor(images)
    with torch.inference_mode(mode=False):
        return tensor.detach().clone().to(device, memory_format=torch.channels_last)


def _device_of(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _layer_of(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as exc:
        raise ExplanationError(
            f"The network has no layer {name!r}: correct explanation_layer on the model's card."
        ) from exc


def _rank_correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Return Spearman's correlation of two maps; 0 when one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(stats.spearmanr(first.ravel(), second.ravel()).statistic)
