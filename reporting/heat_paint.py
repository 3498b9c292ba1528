"""Pure. Heat laid over a grey picture: one set of colours for radiographs and slices."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reporting.canvas import Colour, LegendLine

#: Heat below this share of its peak is not painted, above it ever more, up to ``_HEAT_SHARE``.
_COLD: Final = 0.15
_HEAT_SHARE: Final = 0.6
#: Colours of heat from cold to hot: blue, green, yellow, red.
_HEAT: Final = np.array([[40, 60, 220], [40, 200, 120], [250, 220, 40], [230, 30, 20]], np.float32)


def paint_heat(
    grey: npt.NDArray[np.float32], heat: npt.NDArray[np.float32], peak: float
) -> npt.NDArray[np.float32]:
    """Return a grey picture with heat laid over it.

    Parameters
    ----------
    grey : ndarray
        (H, W) float32, 0 to 255.
    heat : ndarray
        (H, W) float32, 0 or more.
    peak : float
        The heat that is painted red.

    Returns
    -------
    ndarray
        (H, W, 3) float32 RGB, 0 to 255.
    """
    strength = np.clip((heat / max(peak, 1e-6) - _COLD) / (1 - _COLD), 0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(strength, steps, _HEAT[:, channel]) for channel in range(3)], axis=2)
    share = (_HEAT_SHARE * np.sqrt(strength))[:, :, np.newaxis]
    painted: npt.NDArray[np.float32] = (grey[:, :, np.newaxis] * (1 - share) + colour * share).astype(
        np.float32
    )
    return painted


def heat_legend() -> list[LegendLine]:
    """Return what the hottest and the coldest colour mean."""
    return [
        ("the answer rests most on this", _as_colour(_HEAT[-1])),
        ("the answer rests less on this", _as_colour(_HEAT[0])),
    ]


def _as_colour(values: npt.NDArray[np.float32]) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
