"""Pure. Radiographs with what a model marked on them: boxes, outlines, or where the network looked.

Pictures are upright, the patient's right on the left for AP and PA, whatever the stored
image is; findings and heat maps lie on the stored image and are turned with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from inference.findings import Analysis, Finding, Heatmap, Mask
from inference.radiograph import Radiograph
from reporting import codes
from reporting.canvas import TEXT_FONT_PX, WHITE, Drawing, LegendLine, compose
from reporting.context import Reading
from reporting.errors import UnencodableResultError
from reporting.findings_sr import boxed_findings, describe_mark
from reporting.heat_paint import heat_legend, paint_heat
from reporting.safety import HEATMAP_SENTENCE

_MARKS: Final = "Radiographs with the boxes that an algorithm drew."
_HEATS: Final = "Radiographs with a heat map of an algorithm laid over them."
_TILE_PX: Final = 900
_MOST_TILES: Final = 4
_BOX_PX: Final = 3
_MASK_SHARE: Final = 0.35


def draw_marks(reading: Reading) -> Drawing | None:
    """Return the radiographs that have a mark, with boxes, labels, confidences and outlines.

    Returns
    -------
    Drawing or None
        None if nothing was marked or there are no pixels.
    """
    analysis, mask = reading.analysis, reading.mask
    boxes = boxed_findings(analysis)
    marked = {finding.box.frame for finding in boxes if finding.box is not None}
    if mask is not None:
        marked |= {frame for frame, labels in zip(mask.frames, mask.labels, strict=True) if labels.any()}
    shown = [radiograph for radiograph in reading.radiographs if radiograph.frame in marked][:_MOST_TILES]
    if not shown:
        return None
    tiles = [_draw_marked(radiograph, boxes, mask) for radiograph in shown]
    subtitle = f"Showing {len(tiles)} of {len(reading.radiographs)} radiographs"
    picture = compose(tiles, analysis.model, subtitle, _legend(boxes), columns=2)
    frames = tuple(radiograph.frame for radiograph in shown)
    return Drawing(picture=picture, frames=frames, description=_MARKS)


def draw_heat(reading: Reading, heatmap: Heatmap, title: str) -> Drawing | None:
    """Return the radiographs with the heat map of one answer laid over them.

    Parameters
    ----------
    heatmap : Heatmap
        (D, H, W) on the stored radiographs.
    title : str
        What the heat map explains.

    Returns
    -------
    Drawing or None
        None if the heat map is empty or there are no pixels.

    Raises
    ------
    UnencodableResultError
        If the heat map has another shape than a radiograph it lies on.
    """
    by_frame = {radiograph.frame: radiograph for radiograph in reading.radiographs}
    pairs = [
        (by_frame[frame], values)
        for frame, values in zip(heatmap.frames, heatmap.values, strict=True)
        if frame in by_frame and (values > 0).any()
    ][:_MOST_TILES]
    if not pairs:
        return None
    tiles = [_draw_heated(radiograph, values) for radiograph, values in pairs]
    picture = compose(tiles, reading.analysis.model, f"Heat map: {title}", heat_legend(), columns=2)
    frames = tuple(radiograph.frame for radiograph, _ in pairs)
    return Drawing(picture=picture, frames=frames, description=f"{_HEATS} {HEATMAP_SENTENCE}")


def _draw_marked(radiograph: Radiograph, boxes: Sequence[Finding], mask: Mask | None) -> Image.Image:
    grey = _to_grey(radiograph.array)
    pixels = np.repeat(grey[:, :, np.newaxis], 3, axis=2).astype(np.float32)
    if mask is not None and radiograph.frame in mask.frames:
        _tint(pixels, radiograph, mask, boxes)
    tile, scale, offset = _fit(pixels)
    draw = ImageDraw.Draw(tile)
    for finding in boxes:
        if finding.box is not None and finding.box.frame == radiograph.frame:
            _draw_box(draw, radiograph, finding, scale, offset)
    return tile


def _draw_box(
    draw: ImageDraw.ImageDraw,
    radiograph: Radiograph,
    finding: Finding,
    scale: float,
    offset: tuple[int, int],
) -> None:
    assert finding.box is not None
    box, shape = finding.box, (radiograph.array.shape[0], radiograph.array.shape[1])
    corners = radiograph.turn.apply_corners(box.left, box.top, box.right, box.bottom, shape)
    left, top, right, bottom = (round(value * scale) + offset[axis % 2] for axis, value in enumerate(corners))
    colour = codes.code_finding(finding.concept).rgb
    draw.rectangle((left, top, right, bottom), outline=colour, width=_BOX_PX)
    write = partial(
        draw.text,
        fill=colour,
        font=ImageFont.load_default(TEXT_FONT_PX),
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )
    label = describe_mark(finding)
    width = int(ImageFont.load_default(TEXT_FONT_PX).getlength(label))
    x = min(left, _TILE_PX - width - 4)
    y = top - TEXT_FONT_PX - 8 if top > TEXT_FONT_PX + 8 else min(bottom + 4, _TILE_PX - TEXT_FONT_PX - 8)
    write((x, y), label)


def _tint(
    pixels: npt.NDArray[np.float32], radiograph: Radiograph, mask: Mask, boxes: Sequence[Finding]
) -> None:
    """Colour the outlined regions of one radiograph, in place."""
    labels = radiograph.turn.apply(mask.labels[mask.frames.index(radiograph.frame)].astype(np.float32))
    if labels.shape != pixels.shape[:2]:
        raise UnencodableResultError("The mask has another shape than the radiograph it lies on.")
    colours = {f.segment_number: codes.code_finding(f.concept).rgb for f in boxes}
    for number in np.unique(labels).astype(int).tolist():
        if number:
            colour = np.array(colours.get(number, WHITE), np.float32)
            region = labels == number
            pixels[region] = (1 - _MASK_SHARE) * pixels[region] + _MASK_SHARE * colour


def _draw_heated(radiograph: Radiograph, values: npt.NDArray[np.float32]) -> Image.Image:
    heat = radiograph.turn.apply(values.astype(np.float32))
    if heat.shape != radiograph.array.shape:
        raise UnencodableResultError("The heat map has another shape than the radiograph it lies on.")
    painted = paint_heat(_to_grey(radiograph.array), heat, float(heat.max()))
    tile, _, _ = _fit(painted)
    return tile


def _fit(pixels: npt.NDArray[np.float32]) -> tuple[Image.Image, float, tuple[int, int]]:
    """Return a picture on a black square, how much it was scaled, and where its corner lies."""
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    scale = _TILE_PX / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    offset = ((_TILE_PX - size[0]) // 2, (_TILE_PX - size[1]) // 2)
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX), (0, 0, 0))
    tile.paste(picture.resize(size, Image.Resampling.BICUBIC), offset)
    return tile, scale, offset


def _to_grey(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.clip(array, 0, 1) * 255, np.float32)


def _legend(boxes: Sequence[Finding]) -> list[LegendLine]:
    return [(describe_mark(f), codes.code_finding(f.concept).rgb) for f in boxes]


def title_of(analysis: Analysis, answer: str) -> str:
    """Return what a heat map explains in words: a finding's label, or what was estimated."""
    for finding in analysis.findings:
        if finding.finding_id == answer:
            return codes.code_finding(finding.concept).label
    for estimate in analysis.estimates:
        if estimate.scale.value == answer:
            return codes.code_scale(estimate.scale).name.meaning
    raise UnencodableResultError("A heat map explains an answer that the model did not give.")
