"""Pure. A dry run of a package on made-up images, so that what cannot run is refused before a study comes.

Studies are the phantoms of the demonstration. A batch is a smooth body with texture on an empty background:
it has the shape, the range and the sharpness of prepared images. Of an answer only the form is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Final, Literal, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicom_node.chest_phantom import chest_study
from dicom_node.errors import PermanentError
from dicom_node.phantom import brain_mr_study, head_ct_study
from inference.findings import FrameReference, Outcome
from inference.packages import ModelPackage, ModelPackageError
from inference.radiograph import Radiograph, read_radiographs
from inference.reading import VOLUMETRIC, StudyImages, read_study
from inference.runner import Prediction, Progress, Runner
from inference.volume import Volume, read_volume

_SEED: Final = 20261125
_FEWEST_SLICES: Final = 12
_MATRIX: Final = 128
_LARGEST_SIDE: Final = 96
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
_ROUNDING: Final = 1e-4
"""By which a probability may exceed 1."""


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
    checked = _CheckedRunner(package, runner)
    try:
        outcome = read_study(package, example_study(package), cast("Runner", checked), _STUDY_UID)
        if outcome.analysis.is_refused and card.task == "classification":
            checked.predict(package, example_batch(package))  # the made-up image did not reach the network
    except ModelPackageError:
        raise
    except PermanentError as exc:
        raise ModelPackageError(f"{where} does not read a made-up study: {exc}") from exc
    except (RuntimeError, ValueError, TypeError, LookupError) as exc:  # what any network may raise
        raise ModelPackageError(f"{where} fails on a made-up study: {type(exc).__name__}: {exc}") from exc
    return outcome


class _CheckedRunner:
    """A runner that refuses an answer which has not the form that the card says, or is undefined."""

    def __init__(self, package: ModelPackage, runner: Runner) -> None:
        self._where = f"{package.card.name}/{package.card.version}"
        self._labels = len(package.card.labels)
        self._is_map = package.card.task == "segmentation"
        self._runner = runner
        self.borrow = runner.borrow

    def predict(
        self, package: ModelPackage, batch: npt.NDArray[np.float32], progress: Progress | None = None
    ) -> Prediction:
        prediction = self._runner.predict(package, batch, progress)
        extent = batch.shape[2:] if self._is_map else ()
        self._check(prediction.probabilities, (len(batch), self._labels, *extent))
        return prediction

    def predict_volume(
        self, package: ModelPackage, volume: npt.NDArray[np.float32], progress: Progress | None = None
    ) -> Prediction:
        prediction = self._runner.predict_volume(package, volume, progress)
        self._check(prediction.probabilities, (self._labels, *volume.shape[1:]))
        return prediction

    def _check(self, given: npt.NDArray[np.float32], wanted: tuple[int, ...]) -> None:
        if given.shape != wanted:
            raise ModelPackageError(
                f"{self._where}: the network's answer has the shape {given.shape}, but input and card "
                f"want {wanted}."
            )
        if not np.isfinite(given).all() or given.min() < 0 or given.max() > 1 + _ROUNDING:
            raise ModelPackageError(
                f"{self._where}: the network's answer is no probability: correct network.activation on "
                "the card."
            )


def example_study(package: ModelPackage) -> StudyImages:
    """Return made-up images for every role of a package: the phantoms of the demonstration.

    Axial slices are those of a drawn head, radiographs those of a drawn chest, so that a model which refuses
    anything else lets them pass. A 3-D network is given a volume of the size of its window.
    """
    contract = package.card.input
    slices = max(_FEWEST_SLICES, *(role.min_images for role in contract.roles))
    images: dict[str, Volume | tuple[Radiograph, ...]] = {}
    for number, role in enumerate(contract.roles):
        modality = (role.modality or contract.modality)[0]
        if modality in {"CR", "DX"}:
            images[role.name] = _radiographs("CR" if modality == "CR" else "DX")
        elif contract.dimensions == VOLUMETRIC:
            images[role.name] = _small_volume(package, modality, number)
        else:
            images[role.name] = replace(_head(modality, slices), series_uid=f"2.25.{number + 2}")
    return images


@cache
def _radiographs(modality: Literal["CR", "DX"]) -> tuple[Radiograph, ...]:
    return read_radiographs(chest_study(nodule=None, modality=modality).datasets)


@cache
def _head(modality: str, slices: int) -> Volume:
    """Return the drawn head; CT and MR lie in one frame of reference, as a registered pair does."""
    if modality == "CT":
        volume = read_volume(head_ct_study(matrix=_MATRIX, slices=slices).datasets)
    else:
        volume = read_volume(brain_mr_study(matrix=_MATRIX, slices=slices).series("AX FLAIR"))
    return replace(volume, frame_of_reference_uid="2.25.1.1")


def _small_volume(package: ModelPackage, modality: str, number: int) -> Volume:
    side = min(package.card.input.matrix, _LARGEST_SIDE)
    low, high = _CT_RANGE_HU if modality == "CT" else _MR_RANGE
    array = low + (high - low) * _body((side, side, side), np.random.default_rng(_SEED + number))
    series_uid = f"2.25.{number + 2}"
    return Volume(
        array=np.asarray(array, dtype=np.float32),
        affine=np.eye(4),
        frames=tuple(FrameReference(sop_instance_uid=f"{series_uid}.{i + 1}") for i in range(side)),
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
