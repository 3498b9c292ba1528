"""Pure. A dry run of a package on made-up images, so that what cannot run is refused before a study comes.

The images are a smooth body with texture on an empty background: they have the shape, the range and the
sharpness of prepared images, and no meaning. What a model says about them is not looked at, its form is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicom_node.errors import PermanentError
from inference.cards import RoleCard
from inference.findings import FrameReference, Outcome
from inference.packages import ModelPackage, ModelPackageError
from inference.radiograph import Radiograph
from inference.reading import VOLUMETRIC, StudyImages, read_study
from inference.runner import Prediction, Runner
from inference.volume import Volume

_SEED: Final = 20261125
_SLICES: Final = 4
_RADIOGRAPH_SIDE: Final = 512
_STUDY_UID: Final = "2.25.1"
_RANGES: Final = {
    "mr_tissue": (-2.0, 2.0),
    "ct_windows": (0.0, 1.0),
    "radiograph": (0.0, 1.0),
    "unit_range": (0.0, 1.0),
}
"""Where prepared intensities lie, background to brightest."""

_CT_RANGE_HU: Final = (-1000.0, 80.0)
_MR_RANGE: Final = (0.0, 1000.0)


def example_batch(package: ModelPackage, count: int = 1) -> npt.NDArray[np.float32]:
    """Return made-up prepared images for a package's network.

    Parameters
    ----------
    package : ModelPackage
        Its card says channels, shape and preparation.
    count : int
        Images, or windows of a volume.

    Returns
    -------
    ndarray
        (count, C, H, W), or (count, C, X, Y, Z) for a 3-D network: float32.
    """
    contract = package.card.input
    is_volume = contract.dimensions == VOLUMETRIC
    shape = package.volume_recipe.window if is_volume else (contract.matrix, contract.matrix)
    low, high = _RANGES[contract.preparation]
    rng = np.random.default_rng(_SEED)
    images = [[_body(shape, rng) for _ in range(contract.channels)] for _ in range(count)]
    return np.asarray(low + (high - low) * np.array(images), dtype=np.float32)


def rehearse(package: ModelPackage, runner: Runner) -> Outcome:
    """Let a package read a made-up study.

    Parameters
    ----------
    package : ModelPackage
        The package; its network is built if need be.
    runner : Runner
        Where it runs.

    Returns
    -------
    Outcome
        Of no meaning.

    Raises
    ------
    ModelPackageError
        If the network does not run, or its output is not what the card says.
    """
    card = package.card
    where = f"{card.name}/{card.version}"
    try:
        if card.task == "segmentation":
            _check_output(package, runner)
        return read_study(package, example_study(package), runner, _STUDY_UID)
    except ModelPackageError:
        raise
    except PermanentError as exc:
        raise ModelPackageError(f"{where} does not read a made-up study: {exc}") from exc


def _check_output(package: ModelPackage, runner: Runner) -> None:
    """Refuse a segmentation network whose output does not lie on its input, or is undefined."""
    batch = example_batch(package)
    is_volume = package.card.input.dimensions == VOLUMETRIC
    prediction: Prediction = (
        runner.predict_volume(package, batch[0]) if is_volume else runner.predict(package, batch)
    )
    wanted = (len(package.card.labels), *batch.shape[2:])
    given = prediction.probabilities.shape if is_volume else prediction.probabilities.shape[1:]
    where = f"{package.card.name}/{package.card.version}"
    if given != wanted:
        raise ModelPackageError(
            f"{where}: the network gives {given} for an input of {batch.shape[1:]}, the card says {wanted}."
        )
    values = prediction.probabilities
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1 + 1e-4:
        raise ModelPackageError(
            f"{where}: the network's answer is no probability: correct network.activation on the card."
        )


def example_study(package: ModelPackage) -> StudyImages:
    """Return made-up images for every role of a package."""
    return {role.name: _role_images(package, role, number) for number, role in enumerate(_roles(package))}


def _roles(package: ModelPackage) -> tuple[RoleCard, ...]:
    return package.card.input.roles


def _role_images(package: ModelPackage, role: RoleCard, number: int) -> Volume | tuple[Radiograph, ...]:
    modality = (role.modality or package.card.input.modality)[0]
    rng = np.random.default_rng(_SEED + number)
    series_uid = f"2.25.{number + 2}"
    if modality in {"CR", "DX"}:
        pixels = _body((_RADIOGRAPH_SIDE, _RADIOGRAPH_SIDE), rng)
        frame = FrameReference(sop_instance_uid=f"{series_uid}.1")
        return (Radiograph(array=pixels, frame=frame, series_uid=series_uid, modality=modality, view="PA"),)
    side, depth, spacing = package.card.input.matrix, _SLICES, (1.0, 1.0, 5.0)
    if package.card.input.dimensions == VOLUMETRIC:
        side = depth = min(package.card.input.matrix, 96)
        spacing = (1.0, 1.0, 1.0)
    low, high = _CT_RANGE_HU if modality == "CT" else _MR_RANGE
    count = max(depth, *(each.min_images for each in _roles(package)))
    array = low + (high - low) * _body((count, side, side), rng)
    return Volume(
        array=np.asarray(array, dtype=np.float32),
        affine=np.diag([*spacing, 1.0]),
        frames=tuple(FrameReference(sop_instance_uid=f"{series_uid}.{i + 1}") for i in range(count)),
        series_uid=series_uid,
        frame_of_reference_uid="2.25.1.1",
        modality=modality,
    )


def _body(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return an ellipsoid with smooth texture, 0 outside, up to 1 inside."""
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, side) for side in shape), indexing="ij", sparse=True)
    inside = 1.0 / (1.0 + np.exp(40.0 * (np.sqrt(sum(axis**2 for axis in axes)) - 0.9)))
    noise = rng.standard_normal(shape).astype(np.float32)
    texture = ndimage.gaussian_filter(noise, [max(side / 32, 0.5) for side in shape])
    texture = 0.6 + 0.15 * texture / max(float(texture.std()), 1e-6)
    return np.asarray(np.clip(inside * texture, 0.0, 1.0), dtype=np.float32)
