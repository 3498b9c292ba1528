"""Pure. What every picture that Preread makes shares: the banner, the model's name, tiles and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from inference.findings import FrameReference, ModelIdentity
from reporting.safety import PICTURE_BANNER

Picture: TypeAlias = npt.NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]
LegendLine: TypeAlias = tuple[str, Colour]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """A picture, the images that it shows, and how it was made.

    Attributes
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB.
    """

    picture: Picture
    frames: tuple[FrameReference, ...]
    description: str


WHITE: Final[Colour] = (255, 255, 255)
TEXT_FONT_PX: Final = 20
_GAP_PX: Final = 6
_MARGIN_PX: Final = 20
_BANNER_FONT_PX: Final = 26
_TITLE_FONT_PX: Final = 22
_LINE_PX: Final = 28
_BACKGROUND: Final[Colour] = (12, 14, 18)
_BANNER_FILL: Final[Colour] = (150, 20, 20)
_GREY: Final[Colour] = (190, 195, 205)


def compose(
    tiles: Sequence[Image.Image],
    model: ModelIdentity,
    subtitle: str,
    lines: Sequence[LegendLine],
    *,
    columns: int = 3,
) -> Picture:
    """Return tiles under the banner, with a legend below.

    Parameters
    ----------
    tiles : sequence of Image
        RGB pictures of equal size; at least one.
    subtitle : str
        What the tiles are.
    lines : sequence of (str, colour)
        The legend.
    columns : int
        Most tiles in a row.

    Returns
    -------
    ndarray
        (H, W, 3) uint8 RGB.
    """
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    wide, high = tiles[0].width + _GAP_PX, tiles[0].height + _GAP_PX
    width = max(columns * wide - _GAP_PX, _text_width(PICTURE_BANNER, _BANNER_FONT_PX))
    width = max([width, *(_text_width(text, TEXT_FONT_PX) + _LINE_PX for text, _ in lines)]) + 2 * _MARGIN_PX
    top = 2 * _LINE_PX + 2 * _LINE_PX
    bottom = (len(lines) + 1) * _LINE_PX
    canvas = Image.new("RGB", (width, top + rows * high + bottom), _BACKGROUND)
    _draw_head(canvas, model, subtitle)
    for number, tile in enumerate(tiles):
        place = (_MARGIN_PX + (number % columns) * wide, top + (number // columns) * high)
        canvas.paste(tile, place)
    _draw_legend(canvas, lines, top + rows * high + _LINE_PX // 3)
    return np.asarray(canvas).copy()


def _draw_head(canvas: Image.Image, model: ModelIdentity, subtitle: str) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, canvas.width, 2 * _LINE_PX - 8), fill=_BANNER_FILL)
    draw.text(
        (canvas.width // 2, _LINE_PX - 4),
        PICTURE_BANNER,
        anchor="mm",
        fill=WHITE,
        font=ImageFont.load_default(_BANNER_FONT_PX),
    )
    title = f"{model.name} {model.version}"
    draw.text((_MARGIN_PX, 2 * _LINE_PX), title, fill=WHITE, font=ImageFont.load_default(_TITLE_FONT_PX))
    draw.text((_MARGIN_PX, 3 * _LINE_PX), subtitle, fill=_GREY, font=ImageFont.load_default(TEXT_FONT_PX - 4))


def _draw_legend(canvas: Image.Image, lines: Sequence[LegendLine], top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(TEXT_FONT_PX)
    for number, (text, colour) in enumerate(lines):
        y = top + number * _LINE_PX
        draw.rectangle((_MARGIN_PX, y + 4, _MARGIN_PX + 16, y + 20), fill=colour)
        draw.text((_MARGIN_PX + _LINE_PX, y), text, fill=WHITE, font=font)


def _text_width(text: str, size_px: int) -> int:
    return int(ImageFont.load_default(size_px).getlength(text)) + 1
