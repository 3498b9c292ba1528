"""Pure. Synthetic studies for demonstration and tests: a brain MR and a head CT with a known lesion.

Everything follows from a seed, down to the UIDs. The images are drawn, not measured: they show what a study
looks like to the node, and prove nothing about how well a model reads patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from dicom_node.phantom_anatomy import Head, Lesion, Points, RandomWaves
from dicom_node.synthetic_series import (
    DEFAULT_ACQUIRED_AT,
    SyntheticSeries,
    SyntheticStudy,
    image_datasets,
)

__all__ = ["DEFAULT_LESION", "Lesion", "PhantomStudy", "brain_mr_study", "ct_series", "head_ct_study"]

DEFAULT_LESION: Final = Lesion(center_mm=(31.0, -22.0, 22.0), diameter_mm=38.0)
"""A left frontal lesion of moderate size."""

DEFAULT_BLEEDING: Final = Lesion(center_mm=(25.0, -2.0, 6.0), diameter_mm=34.0)
"""A haemorrhage of the left basal ganglia."""

FIELD_OF_VIEW_MM: Final = 240.0
SLICE_SPACING_MM: Final = 5.0
LOWEST_SLICE_MM: Final = -44.0
"""z of the lowest slice in the head's frame: the level of the cerebellum."""

_AXIAL: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_CORONAL: Final = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_SAGITTAL: Final = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

_SLICE_PROFILE_MM: Final = (-1.4, 1.4)
"""Offsets at which a slice is sampled: its thickness blurs what runs obliquely through it."""

_UNITS_PER_GREY: Final = 6.0
"""Stored values for one grey level of the anatomy's brightness."""

_NOISE: Final = 2.2
"""Standard deviation of the noise in each of the receiver's two channels, grey levels."""

_CT_NOISE_HU: Final = 4.0
"""Standard deviation of the noise of a head CT of 5 mm slices."""

_HU_RANGE: Final = (-1024, 3071)
"""What 12 bits hold."""

_BIAS: Final = 0.07
_BLUR_PIXELS: Final = 0.55

_T1: Final[Mapping[str, object]] = {"EchoTime": 12.0, "RepetitionTime": 550.0}
_FLAIR: Final[Mapping[str, object]] = {
    "ScanningSequence": ["SE", "IR"],
    "EchoTime": 120.0,
    "RepetitionTime": 9000.0,
    "InversionTime": 2400.0,
    "EchoTrainLength": 16,
}
_CONTRAST: Final[Mapping[str, object]] = {"ContrastBolusAgent": "Gadolinium", "ContrastBolusRoute": "IV"}

_SEQUENCES: Final[tuple[tuple[int, str, Mapping[str, object]], ...]] = (
    (2, "AX T1", _T1),
    (3, "AX FLAIR", _FLAIR),
    (4, "AX T1 POST GAD", {**_T1, **_CONTRAST}),
)
"""Series Number, Series Description and technique, in the order of the anatomy's brightness."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomStudy:
    """A synthetic study and the truth about it.

    Attributes
    ----------
    datasets : tuple of Dataset
        All images with file meta information, series by series: localizer, T1, FLAIR, T1 after contrast.
    lesion_mask : ndarray
        (D, H, W) bool on the axial slices, foot to head: true where at least half of the voxel is lesion.
    affine : ndarray
        (4, 4) float64 of the axial series: (column, row, slice, 1) to LPS mm.
    study_uid : str
        Study Instance UID.
    """

    datasets: tuple[Dataset, ...]
    lesion_mask: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    study_uid: str

    def series(self, description: str) -> tuple[Dataset, ...]:
        """Return the images of one series by Series Description, foot to head."""
        return tuple(d for d in self.datasets if d.SeriesDescription == description)


def brain_mr_study(
    seed: int = 0,
    *,
    lesion: Lesion | None = DEFAULT_LESION,
    matrix: int = 256,
    slices: int = 24,
    patient_name: str = "DEMO^PHANTOM",
    patient_id: str = "PHANTOM-1",
    acquired_at: datetime = DEFAULT_ACQUIRED_AT,
) -> PhantomStudy:
    """Draw a brain MR study.

    Parameters
    ----------
    seed : int
        Anatomy, noise and UIDs follow from it.
    lesion : Lesion or None
        The lesion, hyperintense in FLAIR; None draws a head without one.
    matrix : int
        Rows and columns of each image; the field of view stays 240 mm.
    slices : int
        Axial slices, 5 mm apart, from the cerebellum upwards.
    patient_name, patient_id : str
        Made-up identity.
    acquired_at : datetime
        Aware time of the study.

    Returns
    -------
    PhantomStudy
        A localizer of three planes and three axial series, MR Image Storage, and the lesion's mask.
    """
    rng = np.random.default_rng((seed, 0x5EED))
    head = Head(rng, lesion)
    study = SyntheticStudy(
        seed=f"phantom/{seed}/{lesion}/{matrix}/{slices}/{patient_id}",
        patient_name=patient_name,
        patient_id=patient_id,
        description="MR BRAIN",
        acquired_at=acquired_at,
    )
    pixel_mm = FIELD_OF_VIEW_MM / matrix
    corner_mm = -(FIELD_OF_VIEW_MM - pixel_mm) / 2
    heights_mm = LOWEST_SLICE_MM + SLICE_SPACING_MM * np.arange(slices)
    positions = np.array([(corner_mm, corner_mm, height_mm) for height_mm in heights_mm])
    signal, share = _acquire_stack(head, positions, matrix, pixel_mm)
    datasets = list(_localizer(study, head, rng, pixel_mm=FIELD_OF_VIEW_MM / matrix, matrix=matrix))
    for (number, description, technique), brightness in zip(_SEQUENCES, signal, strict=True):
        series = _axial_series(number, description, positions, pixel_mm, technique)
        stored = _receive(brightness, positions, pixel_mm, rng)
        datasets += image_datasets(study, series, stored)
    return PhantomStudy(
        datasets=tuple(datasets),
        lesion_mask=share >= 0.5,  # noqa: PLR2004 - half of the voxel
        affine=_affine(positions, pixel_mm),
        study_uid=study.study_uid,
    )


def head_ct_study(
    seed: int = 0,
    *,
    bleeding: Lesion | None = DEFAULT_BLEEDING,
    matrix: int = 256,
    slices: int = 24,
    patient_name: str = "DEMO^PHANTOM",
    patient_id: str = "PHANTOM-1",
    acquired_at: datetime = DEFAULT_ACQUIRED_AT,
) -> PhantomStudy:
    """Draw a head CT without contrast.

    Parameters
    ----------
    seed : int
        Anatomy, noise and UIDs follow from it; the anatomy is that of `brain_mr_study` with the same seed.
    bleeding : Lesion or None
        A haemorrhage, hyperdense; None draws a head without one.
    matrix, slices : int
        As for `brain_mr_study`.
    patient_name, patient_id : str
        Made-up identity.
    acquired_at : datetime
        Aware time of the study.

    Returns
    -------
    PhantomStudy
        One axial series, CT Image Storage, and the mask of the blood.
    """
    head = Head(np.random.default_rng((seed, 0x5EED)), bleeding)
    rng = np.random.default_rng((seed, 0xC7))
    pixel_mm = FIELD_OF_VIEW_MM / matrix
    corner_mm = -(FIELD_OF_VIEW_MM - pixel_mm) / 2
    heights_mm = LOWEST_SLICE_MM + SLICE_SPACING_MM * np.arange(slices)
    positions = np.array([(corner_mm, corner_mm, height_mm) for height_mm in heights_mm])
    planes = [head.attenuate(_plane_points(position, _AXIAL, matrix, pixel_mm)) for position in positions]
    hounsfield = _blur(np.stack([plane for plane, _ in planes]), _BLUR_PIXELS * matrix / 256)
    noisy = hounsfield + rng.normal(0, _CT_NOISE_HU, size=hounsfield.shape)
    stored = (np.clip(np.rint(noisy), *_HU_RANGE) - _HU_RANGE[0]).astype(np.int16)
    study = SyntheticStudy(
        seed=f"head-ct/{seed}/{bleeding}/{matrix}/{slices}/{patient_id}",
        patient_name=patient_name,
        patient_id=patient_id,
        description="CT HEAD",
        acquired_at=acquired_at,
    )
    return PhantomStudy(
        datasets=image_datasets(study, _ct_stack(positions, pixel_mm), stored),
        lesion_mask=np.stack([share for _, share in planes]) >= 0.5,  # noqa: PLR2004 - half of the voxel
        affine=_affine(positions, pixel_mm),
        study_uid=study.study_uid,
    )


def ct_series(
    seed: int = 0,
    *,
    matrix: int = 64,
    slices: int = 6,
    patient_name: str = "DEMO^CT PHANTOM",
    patient_id: str = "PHANTOM-2",
    acquired_at: datetime = DEFAULT_ACQUIRED_AT,
) -> tuple[Dataset, ...]:
    """Draw a small CT of a water cylinder with a bone ring: a study that no brain MR model reads.

    Parameters
    ----------
    seed : int
        Noise and UIDs follow from it.
    matrix, slices : int
        Size of the series; the field of view is 240 mm, the spacing 5 mm.
    patient_name, patient_id : str
        Made-up identity.
    acquired_at : datetime
        Aware time of the study.

    Returns
    -------
    tuple of Dataset
        CT Image Storage, one series, foot to head.
    """
    rng = np.random.default_rng((seed, 0xC7))
    pixel_mm = FIELD_OF_VIEW_MM / matrix
    corner_mm = -(FIELD_OF_VIEW_MM - pixel_mm) / 2
    axis = corner_mm + pixel_mm * np.arange(matrix)
    radius_mm = np.hypot(axis[None, :], axis[:, None])
    hounsfield = np.select([radius_mm < 80, radius_mm < 90], [0.0, 900.0], -1000.0)  # noqa: PLR2004 - mm
    noisy = hounsfield + rng.normal(0, 8, size=(slices, matrix, matrix))
    stored = np.clip(np.rint(noisy + 1024), 0, 4095).astype(np.int16)
    positions = np.array([(corner_mm, corner_mm, SLICE_SPACING_MM * i) for i in range(slices)])
    study = SyntheticStudy(
        seed=f"ct/{seed}/{matrix}/{slices}/{patient_id}",
        patient_name=patient_name,
        patient_id=patient_id,
        description="CT HEAD",
        acquired_at=acquired_at,
    )
    return image_datasets(study, _ct_stack(positions, pixel_mm), stored)


def _ct_stack(positions: npt.NDArray[np.float64], pixel_mm: float) -> SyntheticSeries:
    return SyntheticSeries(
        number=2,
        description="AX HEAD 5.0",
        modality="CT",
        pixel_spacing_mm=(pixel_mm, pixel_mm),
        thickness_mm=SLICE_SPACING_MM,
        spacing_mm=SLICE_SPACING_MM,
        positions=positions,
        orientations=np.tile(_AXIAL, (len(positions), 1)),
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    )


def _plane_points(
    position: npt.NDArray[np.float64], orientation: tuple[float, ...], matrix: int, pixel_mm: float
) -> Points:
    """Return the (matrix, matrix, 3) LPS mm of the pixel centres of a plane."""
    steps = np.arange(matrix) * pixel_mm
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    points = position + steps[None, :, None] * row + steps[:, None, None] * column
    sampled: Points = points.astype(np.float32)
    return sampled


def _acquire_stack(
    head: Head, positions: npt.NDArray[np.float64], matrix: int, pixel_mm: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return (3, D, H, W) brightness and (D, H, W) lesion share of axial slices of finite thickness."""
    signals, shares = [], []
    for position in positions:
        samples = [
            head.sample(_plane_points(position + np.array((0, 0, offset)), _AXIAL, matrix, pixel_mm))
            for offset in _SLICE_PROFILE_MM
        ]
        signals.append(np.mean([signal for signal, _ in samples], axis=0))
        shares.append(np.mean([share for _, share in samples], axis=0))
    return np.stack(signals, axis=1).astype(np.float32), np.stack(shares).astype(np.float32)


def _axial_series(
    number: int,
    description: str,
    positions: npt.NDArray[np.float64],
    pixel_mm: float,
    technique: Mapping[str, object],
) -> SyntheticSeries:
    return SyntheticSeries(
        number=number,
        description=description,
        pixel_spacing_mm=(pixel_mm, pixel_mm),
        thickness_mm=SLICE_SPACING_MM,
        spacing_mm=SLICE_SPACING_MM,
        positions=positions,
        orientations=np.tile(_AXIAL, (len(positions), 1)),
        technique=technique,
    )


def _localizer(
    study: SyntheticStudy, head: Head, rng: np.random.Generator, *, pixel_mm: float, matrix: int
) -> tuple[Dataset, ...]:
    """Draw one axial, one coronal and one sagittal plane through the middle of the head."""
    half_mm = (FIELD_OF_VIEW_MM - pixel_mm) / 2
    planes = (
        ((-half_mm, -half_mm, 8.0), _AXIAL),
        ((-half_mm, 5.0, half_mm), _CORONAL),
        ((13.0, -half_mm, half_mm), _SAGITTAL),
    )
    positions = np.array([position for position, _ in planes])
    sampled = [head.sample(_plane_points(np.array(p), o, matrix, pixel_mm))[0][0] for p, o in planes]
    series = SyntheticSeries(
        number=1,
        description="3-PLANE LOC",
        pixel_spacing_mm=(pixel_mm, pixel_mm),
        thickness_mm=SLICE_SPACING_MM,
        spacing_mm=SLICE_SPACING_MM,
        positions=positions,
        orientations=np.array([orientation for _, orientation in planes]),
    )
    return image_datasets(study, series, _receive(np.stack(sampled), positions, pixel_mm, rng))


def _receive(
    brightness: npt.NDArray[np.float32],
    positions: npt.NDArray[np.float64],
    pixel_mm: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Turn (D, H, W) brightness into stored values: point spread, coil sensitivity, Rician noise."""
    matrix = brightness.shape[-1]
    blurred = _blur(brightness, _BLUR_PIXELS * matrix / 256)
    waves = RandomWaves(rng, 320.0)
    sensitivity = np.stack(
        [
            np.exp(_BIAS * waves.at(_plane_points(position, _AXIAL, matrix, pixel_mm)))
            for position in positions
        ]
    )
    real = blurred * sensitivity + rng.normal(0, _NOISE, size=blurred.shape)
    imaginary = rng.normal(0, _NOISE, size=blurred.shape)
    stored: npt.NDArray[np.int16] = np.rint(np.hypot(real, imaginary) * _UNITS_PER_GREY).astype(np.int16)
    return stored


def _blur(stack: npt.NDArray[np.float32], sigma_pixels: float) -> npt.NDArray[np.float64]:
    """Blur (D, H, W) in plane by a Gaussian, in the frequency domain as a scanner does."""
    rows, columns = np.fft.fftfreq(stack.shape[1]), np.fft.rfftfreq(stack.shape[2])
    decay = np.exp(-2 * (np.pi * sigma_pixels) ** 2 * (rows[:, None] ** 2 + columns[None, :] ** 2))
    return np.fft.irfft2(np.fft.rfft2(stack) * decay, s=stack.shape[1:])


def _affine(positions: npt.NDArray[np.float64], pixel_mm: float) -> npt.NDArray[np.float64]:
    """Return the affine of the axial stack."""
    affine = np.diag((pixel_mm, pixel_mm, SLICE_SPACING_MM, 1.0))
    affine[:3, 3] = positions[0]
    return affine
