"""Adapter: reads one CR or DX image in memory as a radiograph: polarity, projection and pixel size settled.

A radiograph has no position in the patient, so it is no `Volume`. Nothing here decides what a model may read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.findings import FrameReference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Radiograph:
    """One projection image as a person would see it.

    Attributes
    ----------
    array : ndarray
        (H, W) float32, 0 (black, air) to 1 (white, bone): Modality LUT, VOI window or LUT and MONOCHROME1
        are applied, rows from the patient's head to the feet, the patient's right on the left for AP and PA.
    frame : FrameReference
        The image.
    series_uid : str
        Series Instance UID.
    modality : str
        ``CR`` or ``DX``.
    view : str
        ``PA``, ``AP``, ``LL``, ``RL``; empty when the header does not say.
    pixel_spacing_mm : tuple of float or None
        Distance between rows and between columns in the patient, where the header can be trusted for it
        (Pixel Spacing calibrated, or Imager Pixel Spacing with a magnification factor), else None.
    """

    array: npt.NDArray[np.float32]
    frame: FrameReference
    series_uid: str
    modality: str
    view: str
    pixel_spacing_mm: tuple[float, float] | None = None
