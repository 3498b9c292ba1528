"""Pure. A synthetic head: which tissue lies at any point, how bright each sequence shows it, how dense it is.

The head is analytic: ellipsoids for its layers, random waves for gyri and sulci, tubes for the ventricles.
Any plane can be sampled from it, so axial series and localizers agree. Every shape follows from the seed.
"""


# ruff: noqa: PLR2004 - anatomy is a table of lengths in mm, each beside the structure it shapes

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float32]
"""(..., 3) LPS mm; the origin lies in the middle of the brain, +x left, +y back, +z head."""
Field = npt.NDArray[np.float32]
"""(...) one value a point."""


class Tissue(IntEnum):
    """What a point is made of; rows of `BRIGHTNESS`."""

    AIR = 0
    CSF = 1
    GREY = 2
    WHITE = 3
    DEEP_GREY = 4
    BONE = 5
    MARROW = 6
    FAT = 7
    SKIN = 8
    VITREOUS = 9
    VENOUS_BLOOD = 10
    CHOROID = 11


class Brightness(NamedTuple):
    """Signal of one tissue in the three sequences, arbitrary units as 8-bit images show them."""

    t1: float
    flair: float
    t1_post: float


BRIGHTNESS: Final[dict[Tissue, Brightness]] = {
    Tissue.AIR: Brightness(0, 0, 0),
    Tissue.CSF: Brightness(22, 13, 22),
    Tissue.GREY: Brightness(54, 66, 57),
    Tissue.WHITE: Brightness(72, 54, 74),
    Tissue.DEEP_GREY: Brightness(60, 58, 63),
    Tissue.BONE: Brightness(9, 7, 9),
    Tissue.MARROW: Brightness(62, 38, 66),
    Tissue.FAT: Brightness(150, 118, 150),
    Tissue.SKIN: Brightness(62, 55, 70),
    Tissue.VITREOUS: Brightness(20, 12, 20),
    Tissue.VENOUS_BLOOD: Brightness(30, 18, 135),
    Tissue.CHOROID: Brightness(50, 60, 125),
}
"""Contrasts of conventional 1.5 T spin-echo brain protocols, set against clinical low-grade glioma series."""

LESION_CORE: Final = Brightness(40, 128, 42)
"""Oedematous, cellular tissue: long T1, long T2."""

HOUNSFIELD: Final[dict[Tissue, float]] = {
    Tissue.AIR: -1000,
    Tissue.CSF: 8,
    Tissue.GREY: 38,
    Tissue.WHITE: 29,
    Tissue.DEEP_GREY: 37,
    Tissue.BONE: 1150,
    Tissue.MARROW: 500,
    Tissue.FAT: -90,
    Tissue.SKIN: 45,
    Tissue.VITREOUS: 10,
    Tissue.VENOUS_BLOOD: 52,
    Tissue.CHOROID: 42,
}
"""CT numbers of a head without contrast, HU, as textbooks give them."""

FRESH_BLOOD_HU: Final = 68.0
"""Clotted blood of the first days."""

_RIM_ENHANCEMENT: Final = 38.0
_RIM_POSITION: Final = 0.6
_RIM_WIDTH: Final = 0.07

_BRAIN_HALF_MM: Final = (66.0, 84.0)
_BRAIN_TOP_MM: Final = 70.0
_BRAIN_BOTTOM_MM: Final = 62.0
_BASE_TOP_MM: Final = -6.0
"""No structure of the base reaches higher."""

_WAVES: Final = 20

_LAYERS_MM: Final = (
    (1.6, Tissue.CSF),
    (3.4, Tissue.BONE),
    (5.8, Tissue.MARROW),
    (7.4, Tissue.BONE),
    (11.8, Tissue.FAT),
    (13.4, Tissue.SKIN),
)
"""Layers around the brain: outer limit as distance from its surface, and tissue."""

_VENTRICLE_PATH: Final = np.array(
    [(5.5, -33, 3), (7, -18, 12), (11, 4, 18), (18, 22, 13), (24, 33, 5), (22, 47, 3)], dtype=np.float32
)
_VENTRICLE_RADII_MM: Final = (4.2, 4.8, 4.6, 5.0, 5.6, 2.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """A lesion of the brain.

    Attributes
    ----------
    center_mm : tuple of float
        LPS mm in the head's frame: +x is the patient's left.
    diameter_mm : float
        Mean diameter.
    """

    center_mm: tuple[float, float, float]
    diameter_mm: float


class RandomWaves:
    """A smooth random field of one wavelength that can be sampled anywhere, mean 0, deviation 1.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws directions and phases.
    wavelength_mm : float
        Distance after which the field repeats itself, roughly.
    """

    def __init__(self, rng: np.random.Generator, wavelength_mm: float) -> None:
        directions = rng.normal(size=(_WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        spread = rng.uniform(0.8, 1.25, size=(_WAVES, 1))
        self._vectors = (directions * spread * 2 * np.pi / wavelength_mm).astype(np.float32)
        self._phases = rng.uniform(0, 2 * np.pi, size=_WAVES).astype(np.float32)

    def at(self, points: Points) -> Field:
        """Return the field at points."""
        total = np.zeros(points.shape[:-1], dtype=np.float32)
        for vector, phase in zip(self._vectors, self._phases, strict=True):
            total += np.cos(points @ vector + phase)
        return total * np.float32(np.sqrt(2 / _WAVES))


class Head:
    """A head with one optional lesion.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the shapes; the same generator state gives the same head.
    lesion : Lesion or None
        The lesion.
    """

    def __init__(self, rng: np.random.Generator, lesion: Lesion | None) -> None:
        self._lesion = lesion
        self._gyri = RandomWaves(rng, 27.0)
        self._fine = RandomWaves(rng, 12.0)
        self._folia = RandomWaves(rng, 7.0)
        self._warp = [RandomWaves(rng, 45.0) for _ in range(3)]
        self._texture = RandomWaves(rng, 9.0)
        size_mm = 30.0 if lesion is None else lesion.diameter_mm
        self._border = RandomWaves(rng, size_mm * 0.8)
        self._border_fine = RandomWaves(rng, size_mm * 0.3)

    def sample(self, points: Points) -> tuple[npt.NDArray[np.float32], Field]:
        """Return what the sequences show at points, and how much of each point is lesion.

        Parameters
        ----------
        points : ndarray
            (..., 3) float32, LPS mm.

        Returns
        -------
        tuple of ndarray
            (3, ...) float32 brightness in T1, FLAIR and T1 after contrast; (...) float32 lesion share, 0 to
            1.
        """
        signal = np.zeros((len(Brightness._fields), *points.shape[:-1]), dtype=np.float32)
        share = np.zeros(points.shape[:-1], dtype=np.float32)
        _, depth_mm = _brain_surface(points)
        is_head = depth_mm > -_LAYERS_MM[-1][0]
        if is_head.any():
            signal[:, is_head], share[is_head] = self._sample_inside(points[is_head])
        return signal, share

    def attenuate(self, points: Points) -> tuple[Field, Field]:
        """Return what a CT shows at points; the lesion is a haemorrhage.

        Parameters
        ----------
        points : ndarray
            (..., 3) float32, LPS mm.

        Returns
        -------
        tuple of ndarray
            (...) float32 HU; (...) float32 share of blood, 0 to 1.
        """
        hounsfield = np.full(points.shape[:-1], HOUNSFIELD[Tissue.AIR], dtype=np.float32)
        share = np.zeros(points.shape[:-1], dtype=np.float32)
        _, depth_mm = _brain_surface(points)
        is_head = depth_mm > -_LAYERS_MM[-1][0]
        if is_head.any():
            inside = points[is_head]
            tissue, is_parenchyma = self._tissue(inside, self._warped(inside))
            table = np.array([HOUNSFIELD[kind] for kind in Tissue], dtype=np.float32)
            blood = self._lesion_share(inside, is_parenchyma)
            hounsfield[is_head] = table[tissue] * (1 - blood) + FRESH_BLOOD_HU * blood
            share[is_head] = blood
        return hounsfield, share

    def _warped(self, points: Points) -> Points:
        return np.asarray(
            points + 1.6 * np.stack([wave.at(points) for wave in self._warp], axis=-1), dtype=np.float32
        )

    def _sample_inside(self, points: Points) -> tuple[npt.NDArray[np.float32], Field]:
        """Return what `sample` returns, for (N, 3) points within the skin."""
        tissue, is_parenchyma = self._tissue(points, self._warped(points))
        table = np.array([BRIGHTNESS[kind] for kind in Tissue], dtype=np.float32)
        texture = 1 + 0.025 * self._texture.at(points)
        signal = table[tissue].T * texture
        share = self._lesion_share(points, is_parenchyma)
        if share.any():
            signal = self._with_lesion(signal, share, points)
        return signal, share

    def _tissue(self, points: Points, warped: Points) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Return the tissue of every point, and where lesions can grow."""
        radius, depth_mm = _brain_surface(points)
        tissue = np.full(points.shape[:-1], int(Tissue.AIR), dtype=np.intp)
        inner = -np.inf
        for outer, kind in _LAYERS_MM:
            tissue[(-depth_mm > inner) & (-depth_mm <= outer)] = kind
            inner = outer
        is_brain = depth_mm > 0
        self._fill_cerebrum(tissue, is_brain, warped, radius, depth_mm)
        self._fill_depths(tissue, is_brain, points, warped)
        self._fill_base(tissue, is_brain, points, warped)
        is_parenchyma = is_brain & np.isin(tissue, (Tissue.GREY, Tissue.WHITE, Tissue.DEEP_GREY))
        return tissue, is_parenchyma

    def _fill_cerebrum(
        self,
        tissue: npt.NDArray[np.intp],
        is_brain: npt.NDArray[np.bool_],
        warped: Points,
        radius: Field,
        depth_mm: Field,
    ) -> None:
        """Fill in white matter, the cortical ribbon, and sulci as walls at right angles to the surface."""
        outward = warped / np.maximum(np.linalg.norm(warped, axis=-1, keepdims=True), 1.0)
        folded = outward * 66 + 0.25 * warped
        fold = np.abs(self._gyri.at(folded) + 0.3 * self._fine.at(folded))
        reach_mm = 21 + 5 * self._fine.at(outward * 40)
        taper = np.clip(1 - depth_mm / reach_mm, 0, 1)
        tissue[is_brain] = Tissue.WHITE
        tissue[is_brain & ((fold < 0.72 * np.sqrt(taper)) | (depth_mm < 3.0))] = Tissue.GREY
        tissue[is_brain & (fold < 0.19 * taper) & (radius > 0.5)] = Tissue.CSF
        x, y, z = (warped[..., axis] for axis in range(3))
        wobble = self._fine.at(warped)
        is_fissure = (np.abs(x) < 1.0 + 0.25 * wobble) & ((np.abs(y) > 42) | (z > 30))
        tissue[is_brain & (np.abs(x) < 4.0) & ((np.abs(y) > 42) | (z > 30))] = Tissue.GREY
        tissue[is_brain & is_fissure] = Tissue.CSF
        sylvian = np.abs(y + 10 - 0.35 * z + 3 * wobble)
        is_lateral = is_brain & (np.abs(x) > 36) & (np.abs(z) < 15)
        tissue[is_lateral & (sylvian < 4.2)] = Tissue.GREY
        tissue[is_lateral & (sylvian < 1.4)] = Tissue.CSF

    def _fill_depths(
        self, tissue: npt.NDArray[np.intp], is_brain: npt.NDArray[np.bool_], points: Points, warped: Points
    ) -> None:
        """Fill in basal ganglia, thalami, ventricles, choroid plexus and the sagittal sinus."""
        mirrored = warped.copy()
        mirrored[..., 0] = np.abs(mirrored[..., 0])
        for center, half in (
            ((11, 9, 4), (8, 14, 9)),
            ((25, -3, 3), (5.5, 16, 10)),
            ((13, -20, 9), (4.5, 9, 9)),
        ):
            tissue[_in_ellipsoid(mirrored, center, half)] = Tissue.DEEP_GREY
        for start, radius in enumerate(_VENTRICLE_RADII_MM[:-1]):
            path, radii = _VENTRICLE_PATH[start : start + 2], (radius, _VENTRICLE_RADII_MM[start + 1])
            tissue[_in_tube(mirrored, path, radii)] = Tissue.CSF
        tissue[_in_tube(mirrored, _VENTRICLE_PATH[3:5], (1.8, 2.2))] = Tissue.CHOROID
        tissue[_in_ellipsoid(warped, (0, 4, 0), (1.8, 14, 9))] = Tissue.CSF
        _, depth_mm = _brain_surface(points)
        is_behind = (points[..., 1] > 0) & (points[..., 2] > -20)
        is_sinus = (np.abs(points[..., 0]) < 4.5 + 0.8 * depth_mm) & (np.abs(depth_mm + 1) < 2.5)
        tissue[is_behind & is_sinus] = Tissue.VENOUS_BLOOD
        tissue[is_brain & (tissue == Tissue.AIR)] = Tissue.WHITE

    def _fill_base(
        self, tissue: npt.NDArray[np.intp], is_brain: npt.NDArray[np.bool_], points: Points, warped: Points
    ) -> None:
        """Fill in what lies below the cerebrum: temporal lobes, cerebellum, brain stem, base, orbits."""
        y, z = points[..., 1], points[..., 2]
        if z.min() > _BASE_TOP_MM:
            return
        floor_mm = -20 + 0.05 * y + 2.5 * self._fine.at(points)
        is_below = is_brain & (z < floor_mm)
        mirrored = warped.copy()
        mirrored[..., 0] = np.abs(mirrored[..., 0])
        is_temporal = _in_ellipsoid(mirrored, (38, -12, -24), (23, 36, 22))
        is_cerebellum = _in_ellipsoid(mirrored, (20, 44, -36), (31, 29, 24))
        is_stem = _in_ellipsoid(warped, (0, 14, -30), (14, 13, 40))
        is_kept = is_temporal | is_cerebellum | is_stem
        is_bone = is_below & ~is_kept
        tissue[is_bone] = Tissue.MARROW
        tissue[is_bone & (np.abs(self._gyri.at(points)) < 0.45)] = Tissue.BONE
        tissue[is_bone & (y < 10) & (self._fine.at(points * 0.8) > 0.9)] = Tissue.AIR
        folia = np.abs(self._folia.at(warped * np.array((0.35, 1.0, 1.3), dtype=np.float32)))
        is_leaf = is_below & is_cerebellum & ~is_stem
        tissue[is_leaf] = np.where(folia < 0.8, int(Tissue.GREY), int(Tissue.WHITE))[is_leaf]
        tissue[is_leaf & (folia < 0.07)] = Tissue.CSF
        tissue[is_below & is_stem] = Tissue.WHITE
        tissue[is_below & _in_ellipsoid(warped, (0, 30, -32), (6, 5, 10))] = Tissue.CSF
        flat = np.abs(points)
        eye = np.stack((flat[..., 0], y, z), axis=-1)
        is_orbit = _in_ellipsoid(eye, (31, -50, -36), (12, 19, 12))
        tissue[is_orbit & is_brain] = Tissue.MARROW
        tissue[_in_ellipsoid(eye, (31, -61, -36), (12, 12, 12))] = Tissue.VITREOUS

    def _lesion_share(self, points: Points, is_parenchyma: npt.NDArray[np.bool_]) -> Field:
        """Return how much of each point is lesion: an irregular, soft ball, in parenchyma only."""
        share = np.zeros(points.shape[:-1], dtype=np.float32)
        if self._lesion is None:
            return share
        rho = self._rho(points, self._lesion)
        near = rho < 2.0
        if near.any():
            share[near] = np.clip((1.08 - rho[near]) / 0.16, 0, 1)
            share *= np.where(is_parenchyma, np.float32(1), np.float32(0))
        return share

    def _rho(self, points: Points, lesion: Lesion) -> Field:
        """Return the distance from the lesion's middle in units of its irregular radius."""
        offset = points - np.array(lesion.center_mm, dtype=np.float32)
        distance = np.linalg.norm(offset * np.array((1.0, 0.85, 1.05), dtype=np.float32), axis=-1)
        rho = np.asarray(distance / (lesion.diameter_mm / 2), dtype=np.float32)
        near = rho < 2.0
        if near.any():
            rho[near] += 0.13 * self._border.at(points[near]) + 0.06 * self._border_fine.at(points[near])
        return rho

    def _with_lesion(
        self, signal: npt.NDArray[np.float32], share: Field, points: Points
    ) -> npt.NDArray[np.float32]:
        """Blend the lesion into the signal; a faint patchy rim takes up contrast."""
        assert self._lesion is not None
        rho = self._rho(points, self._lesion)
        variation = 1 + 0.10 * self._border_fine.at(points) + 0.10 * (0.6 - rho)
        core = np.array(LESION_CORE, dtype=np.float32).reshape(3, *([1] * share.ndim)) * variation
        patch = np.clip(self._border.at(points) + 0.4, 0, 1)
        core[2] += _RIM_ENHANCEMENT * patch * np.exp(-(((rho - _RIM_POSITION) / _RIM_WIDTH) ** 2) / 2)
        return np.asarray(signal * (1 - share) + core * share, dtype=np.float32)


def _brain_surface(points: Points) -> tuple[Field, Field]:
    """Return the radius relative to the brain's surface, and the depth below it in mm (negative outside)."""
    x, y, z = (points[..., axis] for axis in range(3))
    # The forehead is narrower than the back of the head; the base is flatter than the vertex.
    half_x = _BRAIN_HALF_MM[0] * (1 + 0.0014 * np.clip(y, -80, 40))
    half_z = np.where(z > 0, _BRAIN_TOP_MM, _BRAIN_BOTTOM_MM)
    vertical = np.where(z > 0, np.abs(z / half_z) ** 2.2, np.abs(z / half_z) ** 4)
    in_plane = np.abs(x / half_x) ** 2.15 + np.abs(y / _BRAIN_HALF_MM[1]) ** 2.15
    radius = np.maximum((in_plane + vertical) ** (1 / 2.15), 1e-3)
    distance = np.linalg.norm(points, axis=-1)
    return radius.astype(np.float32), (distance * (1 / radius - 1)).astype(np.float32)


def _in_ellipsoid(
    points: Points, center: tuple[float, float, float], half: tuple[float, float, float]
) -> npt.NDArray[np.bool_]:
    scaled = (points - np.array(center, dtype=np.float32)) / np.array(half, dtype=np.float32)
    return np.asarray((scaled**2).sum(axis=-1) < 1, dtype=np.bool_)


def _in_tube(
    points: Points, path: npt.NDArray[np.float32], radii: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Return which points lie within a straight tube whose radius changes from end to end."""
    direction = path[1] - path[0]
    along = np.clip((points - path[0]) @ direction / (direction @ direction), 0, 1)
    distance = np.linalg.norm(points - path[0] - along[..., None] * direction, axis=-1)
    return np.asarray(distance < radii[0] + along * (radii[1] - radii[0]), dtype=np.bool_)
