"""Pure. Looks at an image before a model does, and says what makes an answer doubtful or impossible.

Every check is conservative: it blocks only what no patient's image of the kind looks like, and otherwise
raises a doubt that goes into the report. How the limits were chosen and what they were measured to do is in
docs/uncertainty.md. Nothing here knows a network; `inference.familiarity` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inference.body_regions import (
    PHANTOM_WORDS,
    QUALITY_WORDS,
    REGION_OF_SITE,
    regions_named_by,
    words_of,
)
from inference.chest_reference import chest_pose
from inference.findings import Caveat, Doubt
from inference.radiograph import LATERAL_VIEWS, Radiograph
from inference.volume import Volume

MIN_SIDE_PX: Final = 64
"""Smaller images hold too little to read."""

SMALL_SIDE_PX: Final = 200
"""A radiograph below this cannot show small findings."""

HEAD_SIDES_MM: Final = (90.0, 260.0)
"""Between these lie the two sides of the box around an adult or child's head on its largest axial slice.

Head length reaches 220 mm and breadth 180 mm (NASA-STD-3000, 99th percentile men), with margin for scalp,
ears, a head rest and rotation; a shoulder girdle or trunk is wider than 300 mm.
"""

_IMPOSSIBLE_HEAD_MM: Final = (60.0, 300.0)
"""Outside of these the body is no head."""

_EMPTY_SIDE: Final = (0.3, 0.45)
"""Share of constant rows or columns from one edge that is doubted, and that blocks: a cut-off transfer."""

_EMPTY_SLICES: Final = (0.3, 0.6)
"""Share of slices without content that is doubted, and that blocks."""

_NOISE: Final = (-0.5, -0.3)
"""Negative correlation of neighbouring pixels above which an image is doubted, and blocked, as noise."""

_SATURATED: Final = (0.6, 0.85)
"""Share of pixels at the ends of the range that is doubted, and that blocks."""

_CHEST_DISTANCE: Final = (2.0, 2.6)
"""Distance from frontal chest radiographs that is doubted, and that blocks."""

_SURE_OF_POSE: Final = 1.9
"""Distance, shown the other way, below which a picture certainly is a chest radiograph shown wrongly."""

_POSE_RATIO: Final = (1.02, 1.15)
"""How many times nearer a turned or inverted picture must be to a chest to be doubted, and to block."""

_AIR_HU: Final = (-1100.0, -850.0)
_SOFT_TISSUE_HU: Final = (-20.0, 100.0)
_BODY_HU: Final = -300.0
_BONE_HU: Final = 300.0
_WIDEST_PICTURE: Final = 255.0
"""Grey values of a picture end here."""

_AIR_IN_HEAD: Final = (0.2, 0.35)
"""Share of air within the skin that is doubted, and that blocks; sinuses and airways stay below a tenth."""

_LARGE_SLICE: Final = 0.5
"""Slices with at least this share of the largest body outline are looked into."""

_WIDE_HEAD: Final = 0.9
"""Length over breadth below which an axial head seems to be turned; heads are longer than broad."""

_ALL_WATER: Final = 0.95
_NO_BONE: Final = 0.005

_RANGE_PERCENTILES: Final = (1.0, 99.5)
_TISSUE_FRACTION: Final = 0.1
"""An MR voxel is tissue above this fraction of the volume's range, as in preparation."""

_EDGE_PX: Final = 4
_BRIGHT_AIR: Final = (0.8, 0.95)
"""Share of the picture's middle darker than its edge that is doubted, and that blocks: an inverted one."""

_TISSUE_AT_BORDER: Final = (0.6, 1.0)
"""Share of the picture's border that is tissue; a head lies in air. It never blocks: some scanners leave air
grey."""

_UNIFORM: Final = (-0.4, -0.2)
"""Negative contrast (5th to 95th percentile over the median) above which a body is doubted, and blocked."""

_RIM_SHARE: Final = 1 / 32
"""Rim of the body, as a share of the matrix, that is left out: its partial volumes are no contrast."""

_OPENING_PX: Final = 2
_AXIAL_COSINE: Final = 0.8
"""Slices whose normal lies nearer to the body's axis than this cosine count as axial."""

_DESCRIPTIONS: Final = ("StudyDescription", "SeriesDescription", "ProtocolName")
_BODY_PART: Final = "BodyPartExamined"

HEADER_KEYWORDS: Final = (_BODY_PART, *_DESCRIPTIONS, "ViewPosition", "Modality")
"""What `admit_header` reads; no attribute that names a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outline:
    """The imaged body on one slice: the slice, the body's mask without holes, the sides of its box."""

    index: int
    mask: npt.NDArray[np.bool_]
    length_mm: float
    breadth_mm: float


def admit_header(header: Mapping[str, str], expected_sites: Collection[str]) -> tuple[Doubt, ...]:
    """Check what an image's header says about itself.

    Body Part Examined alone is too often wrong to block; with a description that agrees it does.

    Parameters
    ----------
    header : mapping
        Values by DICOM keyword; only `HEADER_KEYWORDS` are looked at.
    expected_sites : collection of str
        Keys of the sites that the model reads (``brain``, ``chest``); unknown ones check nothing.

    Returns
    -------
    tuple of Doubt
        Empty when nothing contradicts.
    """
    words = {keyword: words_of(header.get(keyword, "")) for keyword in (_BODY_PART, *_DESCRIPTIONS)}
    every = frozenset().union(*words.values())
    if every & PHANTOM_WORDS:
        return (_doubt(Caveat.NOT_A_PATIENT, "The header calls the images those of a phantom", blocks=True),)
    doubts = []
    if every & QUALITY_WORDS:
        doubts.append(_doubt(Caveat.NOT_A_PATIENT, "The header speaks of a quality check"))
    expected = {REGION_OF_SITE[site] for site in expected_sites if site in REGION_OF_SITE}
    named = regions_named_by(words[_BODY_PART])
    described = regions_named_by(frozenset().union(*(words[keyword] for keyword in _DESCRIPTIONS)))
    is_elsewhere = bool(named) and not named & expected
    is_described_elsewhere = bool(described) and not described & expected
    if expected and (is_elsewhere or (is_described_elsewhere and not named)):
        region = min(named or described)
        doubts.append(
            _doubt(
                Caveat.WRONG_BODY_PART,
                f"The header names another part of the body ({region})",
                blocks=is_elsewhere and bool(named & described),
            )
        )
    is_lateral = header.get("ViewPosition", "").strip().upper() in LATERAL_VIEWS
    if "chest" in expected and is_lateral and header.get("Modality") in {"CR", "DX"}:
        doubts.append(_lateral())
    return tuple(doubts)


def admit_radiograph(radiograph: Radiograph, *, is_chest: bool = True) -> tuple[Doubt, ...]:
    """Check a radiograph.

    Parameters
    ----------
    radiograph : Radiograph
        The image as a person would see it.
    is_chest : bool
        Whether the model reads frontal chest radiographs, so that the picture must be one.

    Returns
    -------
    tuple of Doubt
        The first blocking one ends the list.
    """
    array = radiograph.array
    doubts = _broken(array[None])
    if is_blocked(doubts):
        return doubts
    if min(array.shape) < SMALL_SIDE_PX:
        doubts += (
            _doubt(Caveat.CORRUPTED, f"The image is small ({array.shape[1]} x {array.shape[0]} pixels)"),
        )
    low, high = float(array.min()), float(array.max())
    at_ends = float(((array <= low + 1e-3) | (array >= high - 1e-3)).mean())
    doubts += _graded(
        Caveat.WRONG_WINDOW, "Most of the image is black or white without detail", at_ends, _SATURATED
    )
    if is_chest and not is_blocked(doubts):
        doubts += (_lateral(),) if radiograph.view.upper() in LATERAL_VIEWS else _chest(array)
    return _until_blocked(doubts)


def admit_volume(volume: Volume, preparation: str, sites: Collection[str] = ("brain",)) -> tuple[Doubt, ...]:
    """Check a CT or MR volume.

    Parameters
    ----------
    volume : Volume
        The series.
    preparation : str
        ``input.preparation`` of the card: ``ct_windows`` needs Hounsfield units.
    sites : collection of str
        Keys of the sites that the model reads; ``brain`` asks for a head.

    Returns
    -------
    tuple of Doubt
        The first blocking one ends the list.
    """
    doubts = _broken(volume.array)
    if is_blocked(doubts):
        return _until_blocked(doubts)
    if volume.modality == "CT" and preparation == "ct_windows":
        doubts += _hounsfield(volume.array)
    if not is_blocked(doubts) and any(REGION_OF_SITE.get(site) == "head" for site in sites):
        doubts += _head_ct(volume) if volume.modality == "CT" else _head_mr(volume)
    return _until_blocked(doubts)


def is_blocked(doubts: Iterable[Doubt]) -> bool:
    """Return whether the doubts forbid an answer."""
    return any(doubt.is_blocking for doubt in doubts)


def _broken(array: npt.NDArray[np.float32]) -> tuple[Doubt, ...]:
    """Check (D, H, W) for what no image of anything looks like."""
    if not np.isfinite(array).all():
        return (_doubt(Caveat.CORRUPTED, "The image holds undefined values", blocks=True),)
    if min(array.shape[1:]) < MIN_SIDE_PX:
        return (_doubt(Caveat.CORRUPTED, "The image is too small to be read", blocks=True),)
    ranges = np.ptp(array.reshape(len(array), -1), axis=1)
    if not ranges.any():
        return (_doubt(Caveat.CORRUPTED, "The image is empty: every pixel has one value", blocks=True),)
    doubts: tuple[Doubt, ...] = ()
    empty = float((ranges == 0).mean())
    doubts += _graded(Caveat.CORRUPTED, "Many slices are empty", empty, _EMPTY_SLICES)
    doubts += _graded(Caveat.CORRUPTED, "A part of the image is empty", _empty_side(array), _EMPTY_SIDE)
    doubts += _graded(Caveat.CORRUPTED, "The image looks like noise", -_smoothness(array), _NOISE)
    return doubts


def _empty_side(array: npt.NDArray[np.float32]) -> float:
    """Return the largest share of rows or columns, from one edge, that have one value and one only."""
    shares = []
    for axis in (1, 2):
        across = (0, 3 - axis)
        is_constant = array.max(axis=across) == array.min(axis=across)
        filled = np.flatnonzero(~is_constant)
        shares += [filled[0] / len(is_constant), (len(is_constant) - 1 - filled[-1]) / len(is_constant)]
    return float(max(shares))


def _smoothness(array: npt.NDArray[np.float32]) -> float:
    """Return the correlation of neighbouring pixels on the slice that varies most: near 1 for anatomy."""
    slice_ = array[int(array.reshape(len(array), -1).std(axis=1).argmax())].astype(np.float64)
    correlations = []
    for ours, theirs in ((slice_[:, 1:], slice_[:, :-1]), (slice_[1:], slice_[:-1])):
        first, second = ours - ours.mean(), theirs - theirs.mean()
        spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
        correlations.append(float((first * second).sum()) / spread if spread > 0 else 1.0)
    return min(correlations)


def _chest(array: npt.NDArray[np.float32]) -> tuple[Doubt, ...]:
    """Check that a radiograph shows a chest from the front, upright, not inverted."""
    pose = chest_pose(array)
    if pose.ratio > _POSE_RATIO[0] and pose.best_distance < _CHEST_DISTANCE[0]:
        blocks = pose.ratio > _POSE_RATIO[1] and pose.best_distance < _SURE_OF_POSE
        turned = f"turned by {90 * pose.quarter_turns} degrees" if pose.quarter_turns else ""
        inverted = "shown with black and white exchanged" if pose.is_inverted else ""
        how = " and ".join(filter(None, (turned, inverted)))
        caveat = Caveat.WRONG_WINDOW if pose.is_inverted else Caveat.OUT_OF_DISTRIBUTION
        return (_doubt(caveat, f"The radiograph seems to be {how}", blocks=blocks),)
    sentence = "The image does not look like a chest radiograph from the front"
    return _graded(Caveat.WRONG_BODY_PART, sentence, pose.distance, _CHEST_DISTANCE)


def _lateral() -> Doubt:
    return _doubt(
        Caveat.WRONG_BODY_PART,
        "The radiograph is a view from the side; the model reads views from the front",
        blocks=True,
    )


def _hounsfield(array: npt.NDArray[np.float32]) -> tuple[Doubt, ...]:
    """Check that a CT holds Hounsfield units: air near -1000, tissue near 0."""
    if float(array.min()) >= _BODY_HU and float(array.max()) <= _WIDEST_PICTURE:
        return (
            _doubt(
                Caveat.WRONG_WINDOW,
                "The CT holds windowed grey values instead of Hounsfield units",
                blocks=True,
            ),
        )
    if float(array.min()) > _BODY_HU:
        return (
            _doubt(Caveat.WRONG_WINDOW, "The CT shows no air, so its scale cannot be trusted", blocks=True),
        )
    if not ((array > _AIR_HU[0]) & (array < _AIR_HU[1])).any():
        return (_doubt(Caveat.WRONG_WINDOW, "The CT shows no air at -1000 HU; its scale cannot be trusted"),)
    tissue = array[array > _BODY_HU]
    soft = (
        float(((tissue > _SOFT_TISSUE_HU[0]) & (tissue < _SOFT_TISSUE_HU[1])).mean()) if tissue.size else 0.0
    )
    if not soft:
        return (
            _doubt(
                Caveat.WRONG_WINDOW,
                "The CT shows no soft tissue, so its scale cannot be trusted",
                blocks=True,
            ),
        )
    return ()


def _head_ct(volume: Volume) -> tuple[Doubt, ...]:
    """Check that a CT in Hounsfield units shows a patient's head."""
    outline = _largest_outline(volume, volume.array > _BODY_HU)
    if outline is None:
        return (_doubt(Caveat.NOT_A_PATIENT, "The CT shows no body", blocks=True),)
    doubts = _head_size(volume, outline)
    if is_blocked(doubts):
        return doubts
    filled = np.stack([_filled(slice_ > _BODY_HU) for slice_ in volume.array])
    areas = filled.sum(axis=(1, 2))
    large = np.flatnonzero(areas >= _LARGE_SLICE * areas.max())
    air = float(np.median([(volume.array[i][filled[i]] < _BODY_HU).mean() for i in large]))
    doubts += _graded(Caveat.NOT_A_PATIENT, "The head holds air where a patient has brain", air, _AIR_IN_HEAD)
    inside = volume.array[filled]
    soft = float(((inside > _SOFT_TISSUE_HU[0]) & (inside < _SOFT_TISSUE_HU[1])).mean())
    bone = float((inside > _BONE_HU).mean())
    if soft > _ALL_WATER and bone < _NO_BONE:
        doubts += (_doubt(Caveat.NOT_A_PATIENT, "The CT shows a uniform body without bone", blocks=True),)
    return doubts


def _head_mr(volume: Volume) -> tuple[Doubt, ...]:
    """Check that an MR volume shows a patient's head in dark air."""
    array = volume.array
    low, high = np.percentile(array, _RANGE_PERCENTILES)
    is_tissue = array > low + _TISSUE_FRACTION * (high - low)
    edges = (
        np.concatenate([array[:, :_EDGE_PX], array[:, -_EDGE_PX:]], axis=1).ravel(),
        np.concatenate([array[..., :_EDGE_PX], array[..., -_EDGE_PX:]], axis=2).ravel(),
    )
    edge = float(np.median(np.concatenate(edges)))
    doubts = _graded(
        Caveat.WRONG_WINDOW,
        "Air is brighter than tissue in the MR images",
        float((_centre_of(array) < edge).mean()),
        _BRIGHT_AIR,
    )
    if is_blocked(doubts):
        return doubts
    border = np.concatenate(
        [
            is_tissue[:, 0].ravel(),
            is_tissue[:, -1].ravel(),
            is_tissue[..., 0].ravel(),
            is_tissue[..., -1].ravel(),
        ]
    )
    doubts += _graded(
        Caveat.WRONG_BODY_PART,
        "The images show no head with air around it",
        float(border.mean()),
        _TISSUE_AT_BORDER,
    )
    outline = _largest_outline(volume, is_tissue)
    if outline is None:
        return (*doubts, _doubt(Caveat.NOT_A_PATIENT, "The MR images show no body", blocks=True))
    doubts += _head_size(volume, outline)
    rim = max(round(min(array.shape[1:]) * _RIM_SHARE), 1)
    values = array[outline.index][ndimage.binary_erosion(outline.mask, iterations=rim)]
    if values.size and not is_blocked(doubts):
        fifth, median, last = np.percentile(values, (5, 50, 95))
        contrast = float((last - fifth) / max(abs(median - max(low, 0.0)), 1e-6))
        doubts += _graded(
            Caveat.NOT_A_PATIENT, "The body in the images is uniform, as a phantom is", -contrast, _UNIFORM
        )
    return doubts


def _centre_of(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the middle half of rows and columns."""
    _, height, width = array.shape
    return array[:, height // 4 : -(height // 4), width // 4 : -(width // 4)]


def _head_size(volume: Volume, outline: _Outline) -> tuple[Doubt, ...]:
    """Check the size and the proportions of a head on an axial slice."""
    normal = volume.affine[:3, 2] / np.linalg.norm(volume.affine[:3, 2])
    if abs(float(normal[2])) < _AXIAL_COSINE:
        return ()
    sides = (outline.length_mm, outline.breadth_mm)
    for limits, blocks in ((_IMPOSSIBLE_HEAD_MM, True), (HEAD_SIDES_MM, False)):
        if min(sides) < limits[0] or max(sides) > limits[1]:
            sentence = f"The body on the images is {max(sides):.0f} x {min(sides):.0f} mm wide, unlike a head"
            return (_doubt(Caveat.WRONG_BODY_PART, sentence, blocks=blocks),)
    if outline.length_mm < _WIDE_HEAD * outline.breadth_mm:
        return (_doubt(Caveat.OUT_OF_DISTRIBUTION, "The head seems to be turned by 90 degrees"),)
    return ()


def _largest_outline(volume: Volume, mask: npt.NDArray[np.bool_]) -> _Outline | None:
    """Return the body on the slice where it is largest, without thin things beside it, or None."""
    index = int(mask.sum(axis=(1, 2)).argmax())
    filled = _filled(mask[index])
    if not filled.any():
        return None
    rows, columns = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
    column_mm, row_mm, _ = volume.spacing_mm
    return _Outline(
        index=index,
        mask=filled,
        length_mm=float(rows[-1] - rows[0] + 1) * row_mm,
        breadth_mm=float(columns[-1] - columns[0] + 1) * column_mm,
    )


def _filled(plane: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest part of a (H, W) mask after opening, its holes filled."""
    opened = ndimage.binary_opening(plane, iterations=_OPENING_PX)
    labels, count = ndimage.label(opened)
    if not count:
        return np.zeros(plane.shape, dtype=np.bool_)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_fill_holes(largest), dtype=np.bool_)


def _doubt(caveat: Caveat, sentence: str, *, blocks: bool = False) -> Doubt:
    ending = "; the model gives no answer." if blocks else "; read its answer with care."
    return Doubt(caveat=caveat, sentence=sentence + ending, is_blocking=blocks)


def _graded(caveat: Caveat, sentence: str, value: float, limits: tuple[float, float]) -> tuple[Doubt, ...]:
    """Return no doubt, one, or a blocking one, as a value passes the first or the second limit."""
    if value <= limits[0]:
        return ()
    return (_doubt(caveat, sentence, blocks=value > limits[1]),)


def _until_blocked(doubts: tuple[Doubt, ...]) -> tuple[Doubt, ...]:
    """Return doubts, or the first blocking one alone: what else is odd about it does not matter then."""
    return next(((doubt,) for doubt in doubts if doubt.is_blocking), doubts)
