"""Adapter: reads the LGG brain-tumour data set from a folder and splits it by patient.

The data set is a folder with an `index.csv` (one row a slice), RGB images whose channels are pre-contrast
T1, FLAIR and post-contrast T1, and one-bit masks. Nothing here trains or scores.

References
----------
Buda, Saha, Mazurowski, doi:10.1016/j.compbiomed.2019.05.002; images from TCIA TCGA-LGG.
"""

from __future__ import annotations

import csv
import hashlib
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicom_node.errors import PermanentError
from inference.preparation import prepare_slices

CHANNELS: Final = ("pre", "flair", "post")
"""Order of the network's input channels."""

FLAIR: Final = CHANNELS.index("flair")
"""Index of the channel that must be there; it stands in for a missing one."""

SPLIT_SEED: Final = 20261122
"""Seed of the patient split."""

VALIDATION_FRACTION: Final = 0.195
"""Share of every institution's patients kept for validation: 16 of the 82 development patients."""


_COLUMNS: Final = frozenset({"patient_id", "institution", "slice", "image", "mask"})


class DataFolderError(PermanentError):
    """A folder does not hold the data set that was asked for; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LggCase:
    """One patient of the data set.

    Attributes
    ----------
    patient_id : str
        Name of the patient's folder.
    institution : str
        Two-letter code of the institution that contributed the patient.
    images : npt.NDArray[np.uint8]
        (D, H, W, 3) slices, foot to head, channels as in `CHANNELS`.
    masks : npt.NDArray[np.bool_]
        (D, H, W), true inside the FLAIR abnormality.
    """

    patient_id: str
    institution: str
    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientSplit:
    """Patients by what they are used for; no patient is in both.

    Attributes
    ----------
    training, validation : tuple[str, ...]
        Sorted patient ids.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]


def read_institutions(root: Path) -> dict[str, str]:
    """Read which institution each patient comes from.

    Parameters
    ----------
    root : Path
        Folder of the data set.

    Returns
    -------
    dict[str, str]
        Institution code by patient id.
    """
    return {row["patient_id"]: row["institution"] for row in _read_index(root)}


def split_patients(
    institutions: Mapping[str, str], fraction: float = VALIDATION_FRACTION, seed: int = SPLIT_SEED
) -> PatientSplit:
    """Split patients into training and validation, stratified by institution.

    Parameters
    ----------
    institutions : Mapping[str, str]
        Institution code by patient id; its order does not matter.
    fraction : float
        Share of each institution's patients that goes to validation, rounded to whole patients.
    seed : int
        Seed of the draw.

    Returns
    -------
    PatientSplit
        Disjoint sets of patients that together are all of them.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1.
    """
    if not 0.0 < fraction < 1.0:
        message = f"fraction: expected a share between 0 and 1, got {fraction}"
        raise ValueError(message)
    chooser = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    by_institution: dict[str, list[str]] = defaultdict(list)
    for patient_id, institution in institutions.items():
        by_institution[institution].append(patient_id)
    validation: set[str] = set()
    for institution in sorted(by_institution):
        patients = sorted(by_institution[institution])
        validation.update(chooser.sample(patients, round(len(patients) * fraction)))
    return PatientSplit(
        training=tuple(sorted(set(institutions) - validation)), validation=tuple(sorted(validation))
    )


def read_cases(
    root: Path, patient_ids: Sequence[str] | None = None, cache: Path | None = None
) -> list[LggCase]:
    """Read patients with their slices in order.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    patient_ids : Sequence[str] | None
        Patients to read; None reads all of them.
    cache : Path | None
        An .npz file with the decoded slices, written when it is not there; None decodes the images.

    Returns
    -------
    list[LggCase]
        One case a patient, sorted by patient id.

    Raises
    ------
    ValueError
        If a patient is not in the data set.
    """
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _read_index(root):
        rows[row["patient_id"]].append(row)
    wanted = sorted(rows if patient_ids is None else patient_ids)
    if unknown := sorted(set(wanted) - set(rows)):
        message = f"{len(unknown)} patients are not in the data set, the first is {unknown[0]}"
        raise ValueError(message)
    if cache is not None and not cache.exists():
        _write_cache(cache, root, rows)
    stored = None if cache is None else np.load(cache)
    cases = []
    for patient_id in wanted:
        slices = rows[patient_id]
        if stored is None:
            images, masks = _decode(root, slices)
        else:
            images, masks = stored[f"{patient_id}/images"], stored[f"{patient_id}/masks"]
        cases.append(
            LggCase(patient_id=patient_id, institution=slices[0]["institution"], images=images, masks=masks)
        )
    return cases


def cache_path(root: Path, folder: Path) -> Path:
    """Name the cache of a data set in a folder by the digest of its index, so that no two sets share one."""
    digest = hashlib.sha256((root / "index.csv").read_bytes()).hexdigest()
    return folder / f"slices-{digest[:12]}.npz"


def prepare_case(case: LggCase, *, flair_alone: bool = False) -> npt.NDArray[np.float32]:
    """Prepare a case as the node would.

    Parameters
    ----------
    case : LggCase
        The patient.
    flair_alone : bool
        Whether to replace every other sequence by a copy of FLAIR, as when only FLAIR was acquired.

    Returns
    -------
    npt.NDArray[np.float32]
        (D, 3, 256, 256) network input.
    """
    channels = np.moveaxis(case.images, -1, 0).astype(np.float32)
    if flair_alone:
        channels = np.repeat(channels[FLAIR : FLAIR + 1], len(CHANNELS), axis=0)
    return prepare_slices(channels)


def _read_index(root: Path) -> list[dict[str, str]]:
    """Read index.csv, sorted by patient and slice number."""
    try:
        with (root / "index.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as exc:
        raise DataFolderError(
            f"{root.name} holds no index.csv: name a folder in the LGG layout (docs/training.md)."
        ) from exc
    if not rows or not rows[0].keys() >= _COLUMNS:
        raise DataFolderError(f"{root.name}/index.csv: the columns {', '.join(sorted(_COLUMNS))} are needed.")
    return sorted(rows, key=lambda row: (row["patient_id"], int(row["slice"])))


def _decode(
    root: Path, rows: Sequence[Mapping[str, str]]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Decode one patient's slices to (D, H, W, 3) images and (D, H, W) masks."""
    images, masks = [], []
    for row in rows:
        with Image.open(root / row["image"]) as image:
            images.append(np.asarray(image.convert("RGB"), dtype=np.uint8))
        with Image.open(root / row["mask"]) as mask:
            masks.append(np.asarray(mask.convert("1"), dtype=np.bool_))
    return np.stack(images), np.stack(masks)


def _write_cache(cache: Path, root: Path, rows: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Decode every patient into one .npz file, complete or not there at all."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for patient_id in sorted(rows):
        images, masks = _decode(root, rows[patient_id])
        arrays[f"{patient_id}/images"] = images
        arrays[f"{patient_id}/masks"] = masks
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(cache.name + ".part.npz")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for allow_pickle
    partial.replace(cache)
