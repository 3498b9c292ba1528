"""Pure. A volume as a 3-D network takes it, and the network's answer back on the volume's own grid.

Turning is exact: axes are permuted and reversed, nothing is interpolated. Resampling keeps the extent of the
volume to the last fraction of a voxel, so that the way back ends on exactly the source's grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from dicom_node.errors import PermanentError
from inference.cards import InputCard, WindowCard
from inference.preparation import normalise_tissue

MAX_VOXELS: Final = 512 * 512 * 1024
"""Voxels of the largest grid that is made for a network: a finer one has a wrong spacing on its card."""

_TOWARDS: Final[Mapping[str, tuple[float, float, float]]] = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}
"""Directions in the patient, LPS (PS3.3 C.7.6.2.1.1)."""

_DEFAULT_OVERLAP: Final = 0.25
"""Share of a window that its neighbour sees too; MONAI's own default."""


class VolumeGridError(PermanentError):
    """A volume cannot be brought onto a network's grid; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueNormalisation:
    """Standard deviations of the tissue, as the 2-D networks take MR (inference/preparation.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRange:
    """The volume's smallest value becomes 0, its largest 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """CT windows, one channel each, clipped and scaled to 0 to 1."""

    windows: tuple[WindowCard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeIntensity:
    """MONAI's transform of that name: mean 0 and deviation 1.

    Attributes
    ----------
    nonzero : bool
        Whether only voxels other than 0 count and change.
    channel_wise : bool
        Whether every channel has its own mean and deviation.
    """

    nonzero: bool = False
    channel_wise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleIntensityRange:
    """MONAI's transform of that name: a range of intensities, mapped linearly to another."""

    a_min: float
    a_max: float
    b_min: float | None = None
    b_max: float | None = None
    clip: bool = False


Blend: TypeAlias = Literal["constant", "gaussian"]
"""How overlapping windows are averaged; the names are MONAI's."""

IntensityStep: TypeAlias = (
    TissueNormalisation | UnitRange | Windows | NormalizeIntensity | ScaleIntensityRange
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecipe:
    """How volumes become the input of a 3-D network.

    Attributes
    ----------
    orientation : str
        Where its three axes point, for example ``RAS``.
    spacing_mm : tuple of float or None
        Voxel along these axes; None leaves the volume's own.
    steps : tuple of IntensityStep
        What happens to intensities, in order, after the grid.
    window : tuple of int
        Voxels that the network sees at once, along these axes.
    overlap : float
        Share of a window that the next one sees too, 0 to below 1.
    blend : str
        Whether voxels near the middle of a window count more (``gaussian``) or all alike (``constant``).
    """

    orientation: str
    spacing_mm: tuple[float, float, float] | None
    steps: tuple[IntensityStep, ...]
    window: tuple[int, int, int]
    overlap: float = _DEFAULT_OVERLAP
    blend: Blend = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class GridChange:
    """The way from a volume's grid to the network's, and back.

    Attributes
    ----------
    order : tuple of int
        For each axis of the network, the axis of the (D, H, W) array that lies nearest to it.
    flips : tuple of bool
        For each axis of the network, whether it runs against that axis of the array.
    source : tuple of int
        D, H, W.
    target : tuple of int
        Voxels along the network's axes.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    source: tuple[int, int, int]
    target: tuple[int, int, int]

    def apply(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (D, H, W) values on the network's grid, interpolated linearly where grids differ."""
        return _resize(self._turn(array), self.target)

    def restore(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (labels, *target) maps on the volume's own grid, (labels, D, H, W)."""
        restored = np.empty((len(maps), *self.source), dtype=np.float32)
        turned = tuple(self.source[axis] for axis in self.order)
        flipped = tuple(axis for axis, flips in enumerate(self.flips) if flips)
        inverse = tuple(int(axis) for axis in np.argsort(self.order))
        for index, values in enumerate(maps):
            restored[index] = np.flip(_resize(values, turned), flipped).transpose(inverse)
        return restored

    def _turn(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        flipped = tuple(axis for axis, flips in enumerate(self.flips) if flips)
        return np.ascontiguousarray(np.flip(array.transpose(self.order), flipped))


def recipe_of(card: InputCard, options: Mapping[str, object]) -> VolumeRecipe:
    """Return the recipe that a card states.

    Parameters
    ----------
    card : InputCard
        The input of a 3-D network.
    options : mapping
        The card's options; ``overlap`` (0.25) and ``blend`` (``constant`` or ``gaussian``) are read here.
    """
    overlap = options.get("overlap", _DEFAULT_OVERLAP)
    if not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        raise VolumeGridError("options.overlap: give a share from 0 to below 1.")
    blend = options.get("blend", "constant")
    if blend not in {"constant", "gaussian"}:
        raise VolumeGridError("options.blend: choose constant or gaussian.")
    step: Mapping[Literal["mr_tissue", "ct_windows", "radiograph", "unit_range"], IntensityStep] = {
        "mr_tissue": TissueNormalisation(),
        "unit_range": UnitRange(),
        "ct_windows": Windows(windows=card.windows),
    }
    if card.preparation not in step:
        raise VolumeGridError(f"input.preparation: {card.preparation} is not for volumes.")
    return VolumeRecipe(
        orientation=card.orientation,
        spacing_mm=card.spacing_mm,
        steps=(step[card.preparation],),
        window=(card.matrix,) * 3,
        overlap=float(overlap),
        blend="gaussian" if blend == "gaussian" else "constant",
    )


def plan_grid(
    shape: tuple[int, int, int],
    affine: npt.NDArray[np.float64],
    recipe: VolumeRecipe,
) -> GridChange:
    """Return how a volume is turned and resampled.

    Parameters
    ----------
    shape : tuple of int
        D, H, W of the volume.
    affine : ndarray
        (4, 4), (column, row, slice, 1) to LPS mm.
    recipe : VolumeRecipe
        The network's orientation and spacing.

    Returns
    -------
    GridChange
        The way there and back.

    Raises
    ------
    VolumeGridError
        If the network's grid would be too large.
    """
    wanted = np.array([_TOWARDS[letter] for letter in recipe.orientation])
    steps = affine[:3, :3].T[::-1]  # of slices, rows, columns: the axes of the array
    lengths = np.linalg.norm(steps, axis=1)
    cosines = wanted @ (steps / lengths[:, None]).T
    _, order = linear_sum_assignment(-np.abs(cosines))
    target = []
    for axis, source_axis in enumerate(order):
        count, step_mm = shape[source_axis], float(lengths[source_axis])
        wanted_mm = step_mm if recipe.spacing_mm is None else recipe.spacing_mm[axis]
        target.append(max(round(count * step_mm / wanted_mm), 1))
    if np.prod(target) > MAX_VOXELS:
        raise VolumeGridError(
            f"The volume has {target[0]} x {target[1]} x {target[2]} voxels at the network's spacing, "
            "too many: correct input.spacing_mm on the model's card, or route a smaller series."
        )
    return GridChange(
        order=(int(order[0]), int(order[1]), int(order[2])),
        flips=tuple(bool(cosines[axis, order[axis]] < 0) for axis in range(3)),  # type: ignore[arg-type]
        source=shape,
        target=(target[0], target[1], target[2]),
    )


def prepare_volume(
    channels: npt.NDArray[np.float32], grid: GridChange, recipe: VolumeRecipe
) -> npt.NDArray[np.float32]:
    """Prepare the volumes of a study as one input.

    Parameters
    ----------
    channels : ndarray
        (C, D, H, W) float32 raw intensities on one grid.
    grid : GridChange
        From `plan_grid`.
    recipe : VolumeRecipe
        Its steps are done in order.

    Returns
    -------
    ndarray
        (channels, X, Y, Z) float32 along the network's axes.
    """
    values = np.stack([grid.apply(channel) for channel in channels])
    for step in recipe.steps:
        values = _apply_step(values, step)
    return np.ascontiguousarray(values, dtype=np.float32)


def _apply_step(values: npt.NDArray[np.float32], step: IntensityStep) -> npt.NDArray[np.float32]:
    match step:
        case TissueNormalisation():
            return np.stack([normalise_tissue(channel) for channel in values])
        case UnitRange():
            low = values.min(axis=(1, 2, 3), keepdims=True)
            extent = values.max(axis=(1, 2, 3), keepdims=True) - low
            return _as_array((values - low) / np.where(extent > 0, extent, 1.0))
        case Windows():
            shown = [
                np.clip((channel - window.centre_hu) / window.width_hu + 0.5, 0.0, 1.0)
                for channel in values
                for window in step.windows
            ]
            return np.stack(shown)
        case NormalizeIntensity():
            from monai.transforms.intensity import array as monai

            normalise = monai.NormalizeIntensity(nonzero=step.nonzero, channel_wise=step.channel_wise)
            return _as_array(normalise(values))
        case ScaleIntensityRange():
            from monai.transforms.intensity import array as monai

            scale = monai.ScaleIntensityRange(step.a_min, step.a_max, step.b_min, step.b_max, clip=step.clip)
            return _as_array(scale(values))


def _as_array(values: object) -> npt.NDArray[np.float32]:
    """Return what a MONAI transform gave as a plain array."""
    return np.asarray(values, dtype=np.float32)


def _resize(values: npt.NDArray[np.float32], size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Resize a 3-D array linearly, outer edges kept in place; identity when equal."""
    if values.shape == size:
        return values
    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(values))[None, None],
        size=size,
        mode="trilinear",
        align_corners=False,
    )
    return resized[0, 0].numpy()
