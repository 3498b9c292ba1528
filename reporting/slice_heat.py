"""Pure. Where a network looked in a CT or MR, as a picture: the slices it rests on, plain and with heat.

A Parametric Map holds the values for viewers that show it; this picture is for people without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from inference.findings import Analysis, Heatmap
from reporting.canvas import Drawing, compose
from reporting.context import Reading
from reporting.geometry import PlaneGeometry, read_plane
from reporting.heat_paint import heat_legend, paint_heat
from reporting.radiograph_picture import title_of
from reporting.safety import HEATMAP_SENTENCE
from reporting.slice_tiles import frame_slice, true_size, window_slice

_DESCRIPTION: Final = "Source images, plain and with a heat map of an algorithm laid over them."
_MOST_SLICES: Final = 3


def draw_slice_heat(reading: Reading, heatmap: Heatmap, sources: Sequence[Dataset]) -> Drawing | None:
    """Return the key slice and the hottest slices of a heat map, each beside the plain image.

    Parameters
    ----------
    reading : Reading
        With the pixels that the heat map lies on.
    heatmap : Heatmap
        (D, H, W) float32, 0 to 1.
    sources : sequence of Dataset
        Headers of the series under the heat map.

    Returns
    -------
    Drawing or None
        None if the map is empty, or the reading has the pixels of another series or none.

    Raises
    ------
    UnencodableResultError
        If images and headers do not belong together.
    """
    background = reading.background
    if background is None or background.shape != heatmap.values.shape or not (heatmap.values > 0).any():
        return None
    if heatmap.series_uid != _series_of_background(reading):
        return None
    chosen = _choose_slices(reading.analysis, heatmap)
    plane = read_plane(sources, heatmap.frames[0])
    peak = float(heatmap.values.max())
    tiles: list[Image.Image] = []
    for index in chosen:
        grey = Image.fromarray(window_slice(background, index))
        size = true_size(background.shape[1:], plane)
        plain = np.asarray(grey.resize(size, Image.Resampling.BICUBIC), np.float32)
        heat = np.asarray(
            Image.fromarray(heatmap.values[index].astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        )
        tiles += [
            _frame(np.repeat(plain[:, :, np.newaxis], 3, axis=2), index, plane),
            _frame(paint_heat(plain, heat, peak), index, plane),
        ]
    title = title_of(reading.analysis, heatmap.answer)
    picture = compose(tiles, reading.analysis.model, f"Heat map: {title}", heat_legend(), columns=2)
    return Drawing(
        picture=picture,
        frames=tuple(heatmap.frames[index] for index in chosen),
        description=f"{_DESCRIPTION} {HEATMAP_SENTENCE}",
    )


def _frame(pixels: np.ndarray, index: int, plane: PlaneGeometry) -> Image.Image:
    return frame_slice(np.clip(pixels, 0, 255).astype(np.uint8), index, plane)


def _series_of_background(reading: Reading) -> str | None:
    """Return the series whose pixels a reading has: that of the mask, else that of a heat map."""
    if reading.mask is not None:
        return reading.mask.series_uid
    inputs = reading.analysis.inputs
    if not reading.heatmaps or not inputs:
        return None
    reference = inputs[0].series_uid
    return min(reading.heatmaps, key=lambda heatmap: heatmap.series_uid != reference).series_uid


def _choose_slices(analysis: Analysis, heatmap: Heatmap) -> list[int]:
    """Return the key slice of the finding that the map explains, then the hottest; ascending."""
    keys = {f.key_frame for f in analysis.findings if f.finding_id == heatmap.answer}
    chosen = [index for index, frame in enumerate(heatmap.frames) if frame in keys][:1]
    peaks = heatmap.values.max(axis=(1, 2))
    hottest = sorted(np.flatnonzero(peaks > 0).tolist(), key=lambda index: -peaks[index])
    chosen += [index for index in hottest if index not in chosen][: _MOST_SLICES - len(chosen)]
    return sorted(chosen)
