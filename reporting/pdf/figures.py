"""Pure. The pictures of the PDF report: those of the DICOM results again, and heat on slices.

Overviews and heat maps of radiographs are taken from the objects that were just encoded, so
that both show the same pixels and nothing is drawn twice.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image as Pixels
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from reportlab.platypus import Flowable, Image, Paragraph, Table

from reporting.canvas import Picture
from reporting.context import Reading, ResultKind, ResultObject, SourceSeries
from reporting.pdf.fonts import markup
from reporting.pdf.page import CAPTION, PageFrame
from reporting.safety import PICTURE_BANNER
from reporting.slice_heat import draw_slice_heat

_JPEG_QUALITY: Final = 85
#: Share of a page's height that one row of pictures may take.
_TALLEST: Final = 0.8
_GAP: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figure:
    """One picture.

    Attributes
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB.
    is_wide : bool
        Whether it needs the whole width: it shows several images side by side.
    """

    picture: Picture
    caption: str
    is_wide: bool


def collect_figures(
    readings: Sequence[Reading], objects: Sequence[ResultObject], sources: SourceSeries
) -> list[Figure]:
    """Return the pictures of a run, model by model: what was outlined or marked, then heat maps."""
    figures = []
    for reading in readings:
        name = reading.analysis.model.name
        own = [
            o
            for o in objects
            if o.model_name == name and o.dataset.SOPClassUID == SecondaryCaptureImageStorage
        ]
        own.sort(key=lambda o: o.kind is not ResultKind.OVERVIEW)
        figures += [_from_object(o, name) for o in own]
        if reading.analysis.is_refused or reading.radiographs:
            continue  # a radiograph's heat map is among the objects already, and lies in no plane
        for heatmap in reading.heatmaps:
            drawn = draw_slice_heat(reading, heatmap, sources.get(heatmap.series_uid, ()))
            if drawn is not None:
                caption = f"{name}. {drawn.description}"
                figures.append(Figure(picture=drawn.picture, caption=caption, is_wide=False))
    return figures


def lay_out(figures: Sequence[Figure], frame: PageFrame) -> list[Flowable]:
    """Return the pictures with their captions: wide ones alone, others in pairs."""
    rows: list[Flowable] = []
    waiting: list[Figure] = []
    for figure in figures:
        if figure.is_wide:
            rows += [_row(waiting, frame)] if waiting else []
            waiting = []
            rows.append(_row([figure], frame))
            continue
        waiting.append(figure)
        if len(waiting) == 2:  # noqa: PLR2004 - a pair
            rows.append(_row(waiting, frame))
            waiting = []
    return rows + ([_row(waiting, frame)] if waiting else [])


def _from_object(result: ResultObject, model: str) -> Figure:
    """Return the picture of a Secondary Capture image that this run made (RGB, by pixel)."""
    dataset: Dataset = result.dataset
    shape = (int(dataset.Rows), int(dataset.Columns), 3)
    pixels = np.frombuffer(dataset.PixelData, np.uint8, count=shape[0] * shape[1] * 3).reshape(shape)
    caption = str(dataset.DerivationDescription).removesuffix(PICTURE_BANNER).strip()
    return Figure(picture=pixels, caption=f"{model}. {caption}", is_wide=len(dataset.SourceImageSequence) > 1)


def _row(figures: Sequence[Figure], frame: PageFrame) -> Flowable:
    """Return one row: a wide picture, or up to two half as wide."""
    if figures[0].is_wide:
        cells, widths = [_draw(figures[0], frame.width, _TALLEST * frame.height)], [frame.width]
        return _tabulate(cells, widths)
    half = frame.width * (1 - _GAP) / 2
    cells = [_draw(figure, half, _TALLEST * frame.height) for figure in figures]
    cells += [[] for _ in range(2 - len(cells))]
    return _tabulate(cells, [frame.width / 2] * 2)


def _tabulate(cells: Sequence[Sequence[Flowable]], widths: Sequence[float]) -> Table:
    """Return one row that no page break divides."""
    table = Table([list(cells)], colWidths=list(widths))
    bare = [(f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP", "BOTTOM")]
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *bare])
    return table


def _draw(figure: Figure, width: float, height: float) -> list[Flowable]:
    rows, columns, _ = figure.picture.shape
    scale = min(width / columns, height / rows)
    picture = Image(_as_jpeg(figure.picture), width=columns * scale, height=rows * scale)
    picture.hAlign = "LEFT"
    return [picture, Paragraph(markup(figure.caption), CAPTION)]


def _as_jpeg(picture: Picture) -> io.BytesIO:
    buffer = io.BytesIO()
    Pixels.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    buffer.seek(0)
    return buffer
