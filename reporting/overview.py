"""Pure. One picture that shows what a model outlined or marked: for PACS viewers, the demo and the console.

A montage of up to nine slices through the findings with their contours, sides and sizes, or
the radiographs with their boxes; with the model's name and version, and the banner. It is a
picture to look at, not to measure in.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from inference.findings import Analysis, Finding, Laterality, Mask, Quantity
from reporting import codes
from reporting.canvas import Drawing, LegendLine, Picture, compose
from reporting.context import Reading
from reporting.draft import format_length, format_volume
from reporting.envelope import Envelope
from reporting.errors import UnencodableResultError
from reporting.geometry import PlaneGeometry, read_plane
from reporting.radiograph_picture import draw_marks
from reporting.secondary_capture import body_part_of, encode_picture
from reporting.slice_tiles import frame_slice, true_size, window_slice

_DESCRIPTION: Final = "Montage of source images with the contours that an algorithm drew."
_MAX_TILES: Final = 9
_CONTOUR_PX: Final = 2
#: Contour colours, by finding; the first is the colour of the segment.
_COLOURS: Final = ((255, 90, 70), (255, 200, 60), (80, 200, 255), (140, 230, 120), (230, 130, 255))


def draw_overview(reading: Reading, sources: Sequence[Dataset]) -> Picture | None:
    """Return the overview of one reading.

    Parameters
    ----------
    reading : Reading
        With mask and background on the same frames, or with radiographs.
    sources : sequence of Dataset
        Headers of the images under the mask.

    Returns
    -------
    ndarray or None
        (H, W, 3) uint8 RGB; None if there are no pixels or nothing was outlined or marked.

    Raises
    ------
    UnencodableResultError
        If mask, background and headers do not belong together.
    """
    drawn = _draw(reading, sources)
    return None if drawn is None else drawn.picture


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
    """
    drawn = _draw(reading, sources)
    if drawn is None:
        return None
    derivation = None if reading.radiographs else codes.SEGMENTATION_DERIVATION
    body_part = body_part_of(reading.analysis)
    return encode_picture(drawn, sources, envelope, derivation=derivation, body_part=body_part)


def _draw(reading: Reading, sources: Sequence[Dataset]) -> Drawing | None:
    if reading.radiographs:
        return draw_marks(reading)
    mask, background = reading.mask, reading.background
    if mask is None or background is None or not mask.labels.any():
        return None
    if background.shape != mask.labels.shape:
        raise UnencodableResultError("The background of the overview has another shape than the mask.")
    plane = read_plane(sources, mask.frames[0])
    chosen = choose_slices(mask, reading.analysis.findings)
    tiles = [_draw_tile(mask, background, index, plane) for index in chosen]
    subtitle = f"Showing {len(tiles)} of {len(mask.frames)} slices"
    picture = compose(tiles, reading.analysis.model, subtitle, _legend(reading.analysis))
    return Drawing(
        picture=picture, frames=tuple(mask.frames[index] for index in chosen), description=_DESCRIPTION
    )


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
    grey = window_slice(background, index)
    size = true_size(grey.shape, plane)
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    pixels = np.asarray(picture).copy()
    for number in np.unique(mask.labels[index]).tolist():
        if number:
            outline = _outline(mask.labels[index] == number, size)
            pixels[outline] = _COLOURS[(number - 1) % len(_COLOURS)]
    return frame_slice(pixels, index, plane)


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


def _legend(analysis: Analysis) -> list[LegendLine]:
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
