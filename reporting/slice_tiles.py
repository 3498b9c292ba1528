"""Pure. Slices of a volume as square tiles for pictures: windowed, in true proportions, with letters."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from reporting.canvas import TEXT_FONT_PX, WHITE, Picture
from reporting.geometry import PlaneGeometry

TILE_PX: Final = 336
_WINDOW_PERCENTILES: Final = (1.0, 99.5)


def window_slice(background: npt.NDArray[np.float32], index: int) -> Picture:
    """Return one slice of a (D, H, W) volume as (H, W) uint8, windowed as the whole volume is."""
    low, high = np.percentile(background, _WINDOW_PERCENTILES)
    span = max(float(high - low), 1e-6)
    grey: Picture = (np.clip((background[index] - low) / span, 0, 1) * 255).astype(np.uint8)
    return grey


def true_size(shape: tuple[int, ...], plane: PlaneGeometry) -> tuple[int, int]:
    """Return the width and height in pixels at which a (H, W) slice fills a tile in its true proportions."""
    height_mm, width_mm = shape[0] * plane.row_spacing_mm, shape[1] * plane.column_spacing_mm
    scale = TILE_PX / max(height_mm, width_mm)
    return max(1, round(width_mm * scale)), max(1, round(height_mm * scale))


def frame_slice(pixels: Picture, index: int, plane: PlaneGeometry) -> Image.Image:
    """Return an (H, W, 3) picture in the middle of a tile, with slice number and the patient's sides."""
    picture = Image.fromarray(pixels)
    tile = Image.new("RGB", (TILE_PX, TILE_PX), (0, 0, 0))
    tile.paste(picture, ((TILE_PX - picture.width) // 2, (TILE_PX - picture.height) // 2))
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(TEXT_FONT_PX)
    middle, far = TILE_PX // 2, TILE_PX - 8
    write = partial(draw.text, fill=WHITE, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    write((8, 6), f"Slice {index + 1}")
    write((8, middle), plane.left_letter, anchor="lm")
    write((far, middle), plane.right_letter, anchor="rm")
    write((middle, far), plane.bottom_letter, anchor="mb")
    return tile
