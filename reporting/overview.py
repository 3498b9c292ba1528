"""Pure. One picture that shows what a model outlined: for PACS viewers, the demo and the console.

A montage of up to nine slices through the findings with their contours, sides, sizes,
the model's name and version, and the banner. It is a picture to look at, not to measure in.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from inference.findings import Analysis, Finding, FrameReference, Laterality, Mask, Quantity
from reporting import codes
from reporting.context import Reading
from reporting.draft import format_length, format_volume
from reporting.envelope import Envelope, reference_instances, seal
from reporting.errors import UnencodableResultError
from reporting.geometry import PlaneGeometry, read_plane
from reporting.items import code_item
from reporting.safety import PICTURE_BANNER

Picture = npt.NDArray[np.uint8]

_MAX_TILES: Final = 9
_TILE_PX: Final = 336
_GAP_PX: Final = 6
_MARGIN_PX: Final = 20
_BANNER_FONT_PX: Final = 26
_TITLE_FONT_PX: Final = 22
_TEXT_FONT_PX: Final = 20
_LINE_PX: Final = 28
_WINDOW_PERCENTILES: Final = (1.0, 99.5)
_CONTOUR_PX: Final = 2

_BACKGROUND: Final = (12, 14, 18)
_BANNER_FILL: Final = (150, 20, 20)
_WHITE: Final = (255, 255, 255)
_GREY: Final = (190, 195, 205)
#: Contour colours, by finding; the first is the colour of the segment.
_COLOURS: Final = ((255, 90, 70), (255, 200, 60), (80, 200, 255), (140, 230, 120), (230, 130, 255))


def draw_overview(reading: Reading, sources: Sequence[Dataset]) -> Picture | None:
    """Return the overview of one reading.

    Parameters
    ----------
    reading : Reading
        With mask and background on the same frames.
    sources : sequence of Dataset
        Headers of the images under the mask.

    Returns
    -------
    ndarray or None
        (H, W, 3) uint8 RGB; None if there is no mask, no background or nothing outlined.

    Raises
    ------
    UnencodableResultError
        If mask, background and headers do not belong together.
    """
    mask, background = reading.mask, reading.background
    if mask is None or background is None or not mask.labels.any():
        return None
    if background.shape != mask.labels.shape:
        raise UnencodableResultError("The background of the overview has another shape than the mask.")
    plane = read_plane(sources, mask.frames[0])
    chosen = choose_slices(mask, reading.analysis.findings)
    tiles = [_draw_tile(mask, background, index, plane) for index in chosen]
    return _compose(tiles, reading.analysis, f"Showing {len(tiles)} of {len(mask.frames)} slices")


def preview_png(reading: Reading, sources: Sequence[Dataset]) -> bytes | None:
    """Return the overview as a PNG file, the same picture as in the DICOM object.

    Returns
    -------
    bytes or None
        None where `draw_overview` gives none.
    """
    picture = draw_overview(reading, sources)
    if picture is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def encode_overview(reading: Reading, sources: Sequence[Dataset], envelope: Envelope) -> Dataset | None:
    """Return the overview as a Secondary Capture image.

    Returns
    -------
    Dataset or None
        None where `draw_overview` gives none.

    References
    ----------
    PS3.3 A.8.1 (Secondary Capture), C.7.6.1 (General Image), C.8.6.1.
    """
    picture = draw_overview(reading, sources)
    if picture is None or reading.mask is None:
        return None
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = envelope.sop_instance_uid
    image.Modality = "OT"
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.PatientOrientation = None
    image.BodyPartExamined = _body_part(reading.analysis)
    _describe_privacy(image, sources)
    image.DerivationDescription = (
        "Montage of source images with the contours that an algorithm drew. " + PICTURE_BANNER
    )
    image.DerivationCodeSequence = [code_item(codes.SEGMENTATION_DERIVATION)]
    image.SourceImageSequence = _source_items(reading, sources)
    image.LossyImageCompression = "00"
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = picture.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    pixels = picture.tobytes()
    image.PixelData = pixels + b"\0" * (len(pixels) % 2)
    image["PixelData"].VR = "OB"
    return seal(image, envelope)


def choose_slices(mask: Mask, findings: Sequence[Finding]) -> list[int]:
    """Return the slices to show: the key slice of every finding, then an even spread, at most nine.

    Returns
    -------
    list of int
        Indices of axis 0, ascending.
    """
    occupied = np.flatnonzero(mask.labels.any(axis=(1, 2))).tolist()
    position = {frame: index for index, frame in enumerate(mask.frames)}
    keys = [position[f.key_frame] for f in findings if f.key_frame in position]
    chosen = list(dict.fromkeys(keys))[:_MAX_TILES]
    spread = np.linspace(0, len(occupied) - 1, min(_MAX_TILES, len(occupied))).round().astype(int)
    for index in (occupied[i] for i in spread):
        if len(chosen) < _MAX_TILES and index not in chosen:
            chosen.append(index)
    return sorted(chosen)


def _draw_tile(
    mask: Mask, background: npt.NDArray[np.float32], index: int, plane: PlaneGeometry
) -> Image.Image:
    """Return one slice with its contours, in its true proportions, on a square."""
    grey = _window(background, index)
    height_mm, width_mm = grey.shape[0] * plane.row_spacing_mm, grey.shape[1] * plane.column_spacing_mm
    scale = _TILE_PX / max(height_mm, width_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    pixels = np.asarray(picture).copy()
    for number in np.unique(mask.labels[index]).tolist():
        if number:
            outline = _outline(mask.labels[index] == number, size)
            pixels[outline] = _COLOURS[(number - 1) % len(_COLOURS)]
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX), (0, 0, 0))
    tile.paste(Image.fromarray(pixels), ((_TILE_PX - size[0]) // 2, (_TILE_PX - size[1]) // 2))
    _label_tile(tile, f"Slice {index + 1}", plane)
    return tile


def _window(background: npt.NDArray[np.float32], index: int) -> Picture:
    low, high = np.percentile(background, _WINDOW_PERCENTILES)
    span = max(float(high - low), 1e-6)
    grey: Picture = (np.clip((background[index] - low) / span, 0, 1) * 255).astype(np.uint8)
    return grey


def _outline(region: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the edge of a region, drawn just outside it at the size of the picture."""
    grown: npt.NDArray[np.bool_] = np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST))
    edge: npt.NDArray[np.bool_] = grown.copy()
    for _ in range(_CONTOUR_PX):
        padded = np.pad(edge, 1)
        edge = (
            padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        )
    return np.logical_and(edge, ~grown)


def _label_tile(tile: Image.Image, caption: str, plane: PlaneGeometry) -> None:
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(_TEXT_FONT_PX)
    middle, far = _TILE_PX // 2, _TILE_PX - 8
    write = partial(draw.text, fill=_WHITE, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    write((8, 6), caption)
    write((8, middle), plane.left_letter, anchor="lm")
    write((far, middle), plane.right_letter, anchor="rm")
    write((middle, far), plane.bottom_letter, anchor="mb")


def _compose(tiles: list[Image.Image], analysis: Analysis, subtitle: str) -> Picture:
    columns = min(3, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = _legend(analysis)
    width = max(columns * (_TILE_PX + _GAP_PX) - _GAP_PX, _text_width(PICTURE_BANNER, _BANNER_FONT_PX))
    width = max([width, *(_text_width(text, _TEXT_FONT_PX) + _LINE_PX for text, _ in lines)]) + 2 * _MARGIN_PX
    top = 2 * _LINE_PX + 2 * _LINE_PX
    bottom = (len(lines) + 1) * _LINE_PX
    canvas = Image.new("RGB", (width, top + rows * (_TILE_PX + _GAP_PX) + bottom), _BACKGROUND)
    _draw_head(canvas, analysis, subtitle)
    for number, tile in enumerate(tiles):
        left = _MARGIN_PX + (number % columns) * (_TILE_PX + _GAP_PX)
        canvas.paste(tile, (left, top + (number // columns) * (_TILE_PX + _GAP_PX)))
    _draw_legend(canvas, lines, top + rows * (_TILE_PX + _GAP_PX) + _LINE_PX // 3)
    return np.asarray(canvas).copy()


def _draw_head(canvas: Image.Image, analysis: Analysis, subtitle: str) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, canvas.width, 2 * _LINE_PX - 8), fill=_BANNER_FILL)
    draw.text(
        (canvas.width // 2, _LINE_PX - 4),
        PICTURE_BANNER,
        anchor="mm",
        fill=_WHITE,
        font=ImageFont.load_default(_BANNER_FONT_PX),
    )
    title = f"{analysis.model.name} {analysis.model.version}"
    draw.text((_MARGIN_PX, 2 * _LINE_PX), title, fill=_WHITE, font=ImageFont.load_default(_TITLE_FONT_PX))
    draw.text(
        (_MARGIN_PX, 3 * _LINE_PX),
        subtitle,
        fill=_GREY,
        font=ImageFont.load_default(_TEXT_FONT_PX - 4),
    )


def _draw_legend(canvas: Image.Image, lines: list[tuple[str, tuple[int, int, int]]], top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_TEXT_FONT_PX)
    for number, (text, colour) in enumerate(lines):
        y = top + number * _LINE_PX
        draw.rectangle((_MARGIN_PX, y + 4, _MARGIN_PX + 16, y + 20), fill=colour)
        draw.text((_MARGIN_PX + _LINE_PX, y), text, fill=_WHITE, font=font)


def _legend(analysis: Analysis) -> list[tuple[str, tuple[int, int, int]]]:
    return [
        (_describe(finding), _COLOURS[(finding.segment_number - 1) % len(_COLOURS)])
        for finding in analysis.findings
        if finding.segment_number is not None
    ]


def _describe(finding: Finding) -> str:
    parts = [f"{codes.code_finding(finding.concept).label} {finding.segment_number}"]
    if finding.laterality is not None:
        parts.append("both sides" if finding.laterality is Laterality.BILATERAL else finding.laterality.value)
    volume, long_axis = finding.measured(Quantity.VOLUME), finding.measured(Quantity.LONG_AXIS)
    if volume is not None:
        parts.append(format_volume(codes.value_in_ml(volume)))
    if long_axis is not None:
        parts.append(f"longest diameter {format_length(codes.value_in_mm(long_axis))}")
    return ", ".join(parts)


def _body_part(analysis: Analysis) -> str | None:
    parts = {codes.code_site(finding.site).body_part for finding in analysis.findings}
    return parts.pop() if len(parts) == 1 else None


def _text_width(text: str, size_px: int) -> int:
    return int(ImageFont.load_default(size_px).getlength(text)) + 1


def _describe_privacy(image: Dataset, sources: Sequence[Dataset]) -> None:
    """Say whether the picture names or shows the patient.

    Burned In Annotation asks for text that identifies the patient and the date (PS3.3
    C.7.6.1): our banner and numbers do not, so it is YES only if a source picture says so
    of itself. A handful of separate slices does not show a face; again a source that says
    otherwise is believed.
    """
    for keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        inherited = any(source.get(keyword) == "YES" for source in sources)
        setattr(image, keyword, "YES" if inherited else "NO")


def _source_items(reading: Reading, sources: Sequence[Dataset]) -> list[Dataset]:
    """Return the images shown, in the order of the tiles."""
    assert reading.mask is not None
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    items = []
    for index in choose_slices(reading.mask, reading.analysis.findings):
        frame: FrameReference = reading.mask.frames[index]
        (item,) = reference_instances([by_uid[frame.sop_instance_uid]])
        if frame.frame_number is not None:
            item.ReferencedFrameNumber = frame.frame_number
        item.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_IMAGE)]
        items.append(item)
    return items
