"""Pure. The page of the PDF report: size, banner above and below, numbers, styles, and a build that repeats.

The banner is drawn as one string of plain characters, so that the gate can read it back from
every page without a PDF library.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from reportlab.lib.colors import Color, HexColor, white
from reportlab.lib.pagesizes import A4, LETTER
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import TimeStamp
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, PageTemplate

from reporting.pdf.fonts import BOLD, REGULAR, register_fonts
from reporting.safety import PICTURE_BANNER, REQUIRED_PHRASE

ALARM: Final = HexColor("#961414")
ALARM_PALE: Final = HexColor("#fbeaea")
INK: Final = HexColor("#222222")
GREY: Final = HexColor("#667080")
LINE: Final = HexColor("#c8ccd4")
SHADE: Final = HexColor("#eef0f4")

MARGIN: Final = 16 * mm
_BAND: Final = 9 * mm
_TOP: Final = 21 * mm
_BOTTOM: Final = 18 * mm
_LANGUAGE: Final = "en"


class PageSize(StrEnum):
    """Paper of the PDF report."""

    A4 = "A4"
    LETTER = "LETTER"


_SIZES: Final = {PageSize.A4: A4, PageSize.LETTER: LETTER}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFrame:
    """What every page says, and what the file says of itself; no patient in either.

    Attributes
    ----------
    created_at : datetime
        The only time in the file; aware.
    """

    title: str
    author: str
    run_id: str
    created_at: datetime
    size: PageSize = PageSize.A4

    @property
    def width(self) -> float:
        """Width between the margins, points."""
        return float(_SIZES[self.size][0] - 2 * MARGIN)

    @property
    def height(self) -> float:
        """Height between banner and footer, points."""
        return float(_SIZES[self.size][1] - _TOP - _BOTTOM)


def _style(
    name: str, size: float, colour: Color = INK, *, is_bold: bool = False, **further: Any
) -> ParagraphStyle:
    font = BOLD if is_bold else REGULAR
    return ParagraphStyle(
        name, fontName=font, fontSize=size, leading=1.38 * size, textColor=colour, **further
    )


TITLE: Final = _style("title", 17, is_bold=True, spaceAfter=1 * mm)
SUBTITLE: Final = _style("subtitle", 10, GREY, spaceAfter=3 * mm)
HEADING: Final = _style(
    "heading", 11.5, is_bold=True, spaceBefore=4 * mm, spaceAfter=1.2 * mm, keepWithNext=1
)
SUBHEADING: Final = _style(
    "subheading", 9, is_bold=True, spaceBefore=2.4 * mm, spaceAfter=1 * mm, keepWithNext=1
)
BODY: Final = _style("body", 9.5, spaceAfter=1.4 * mm)
POINT: Final = _style("point", 9, leftIndent=4 * mm, bulletIndent=1 * mm, spaceAfter=0.6 * mm)
NOTICE: Final = _style("notice", 9, ALARM, is_bold=True)
CELL: Final = _style("cell", 7.8)
CELL_HEAD: Final = _style("cell head", 7.8, is_bold=True)
LABEL: Final = _style("label", 7.8, GREY)
CAPTION: Final = _style("caption", 8, GREY, spaceBefore=0.8 * mm, spaceAfter=3 * mm)


def build_pdf(flowables: Sequence[Flowable], frame: PageFrame) -> bytes:
    """Return the file: equal arguments give equal bytes."""
    register_fonts()
    buffer = io.BytesIO()
    page = _SIZES[frame.size]
    document = BaseDocTemplate(
        buffer,
        pagesize=page,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=_TOP,
        bottomMargin=_BOTTOM,
        title=frame.title,
        author=frame.author,
        subject=PICTURE_BANNER,
        creator=frame.author,
        lang=_LANGUAGE,
        invariant=1,
        initialFontName=REGULAR,
    )
    body = Frame(
        MARGIN,
        _BOTTOM,
        frame.width,
        frame.height,
        leftPadding=0,
        rightPadding=0,
        topPadding=0,
        bottomPadding=0,
    )
    head = PageTemplate("page", [body], onPage=lambda canvas, _: _draw_head(canvas, frame))
    document.addPageTemplates([head])

    class Numbered(_NumberedCanvas):
        """The canvas of this document."""

        page_frame = frame

    document.build(list(flowables), canvasmaker=Numbered)
    return buffer.getvalue()


class _NumberedCanvas(Canvas):  # type: ignore[misc]
    """A canvas that knows the number of pages when it draws the foot of each.

    The foot comes last in a page's content, as it is read.
    """

    page_frame: PageFrame

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        frame = self.page_frame
        # The library takes both from the clock or the environment, and offers no argument for them.
        self._doc._timeStamp = _stamp(frame.created_at)  # noqa: SLF001
        name = f"{frame.run_id} {frame.created_at.isoformat()}"
        self._doc.signature = hashlib.md5(name.encode(), usedforsecurity=False)
        self._pages: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 - reportlab's name
        """Keep the page until the number of pages is known."""
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        """Write all pages, each with its foot."""
        for number, page in enumerate(self._pages, start=1):
            self.__dict__.update(page)
            _draw_foot(self, self.page_frame, number, len(self._pages))
            super().showPage()
        super().save()


def _stamp(moment: datetime) -> TimeStamp:
    stamp = TimeStamp(invariant=1)
    utc = moment.astimezone(UTC)
    stamp.t, stamp.lt, stamp.YMDhms = utc.timestamp(), utc.timetuple(), tuple(utc.timetuple())[:6]
    stamp.dhh = stamp.dmm = 0
    stamp.tzname = "UTC"
    return stamp


def _draw_head(canvas: Canvas, frame: PageFrame) -> None:
    width, height = _SIZES[frame.size]
    canvas.saveState()
    canvas.setFillColor(ALARM)
    canvas.rect(0, height - _BAND, width, _BAND, stroke=0, fill=1)
    canvas.setFillColor(white)
    canvas.setFont(BOLD, 10.5)
    canvas.drawCentredString(width / 2, height - _BAND / 2 - 3.6, PICTURE_BANNER)
    canvas.setFillColor(GREY)
    canvas.setFont(REGULAR, 7)
    y = height - _BAND - 5 * mm
    canvas.drawString(MARGIN, y, frame.author)
    canvas.drawRightString(width - MARGIN, y, f"Run {frame.run_id}")
    canvas.restoreState()


def _draw_foot(canvas: Canvas, frame: PageFrame, number: int, pages: int) -> None:
    width, _ = _SIZES[frame.size]
    y = 9 * mm
    canvas.saveState()
    canvas.setStrokeColor(LINE)
    canvas.setLineWidth(0.5)
    canvas.line(MARGIN, y + 4 * mm, width - MARGIN, y + 4 * mm)
    canvas.setFillColor(ALARM)
    canvas.setFont(BOLD, 7.5)
    canvas.drawString(MARGIN, y, REQUIRED_PHRASE)
    canvas.setFillColor(GREY)
    canvas.setFont(REGULAR, 7.5)
    canvas.drawCentredString(width / 2, y, f"Run {frame.run_id}")
    canvas.drawRightString(width - MARGIN, y, f"Page {number} of {pages}")
    canvas.restoreState()
