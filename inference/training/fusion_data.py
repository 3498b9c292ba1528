"""Adapter: reads what the fusion network learns from: four public sets that each know a part of the answer.

The data folder holds ``brain_mri_cls`` (MR slices with a class), ``head_ct`` (CT slices, normal or
haemorrhage), ``ct_mri_pairs`` (both of one patient, no diagnosis) and ``lgg`` (MR of gliomas with masks,
grade and death). No set has a CT with a tumour class, and none has both modalities with a diagnosis.
Nothing here trains or scores.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.head_slices import choose_slices, mr_unit, prepare_slices, window_unit
from inference.training.lgg import CHANNELS, LggCase, read_cases, read_institutions, split_patients

CLASSES: Final = ("healthy", "benign", "malignant")
"""Order of the class head's logits."""

GRADES: Final = ("grade_2", "grade_3")
"""Order of the grades; ``clinical.csv`` calls them 1 and 2."""

BRAIN_WINDOW_HU: Final = (40.0, 80.0)
"""Centre and width of the window in which the CT pictures are taken to be stored."""

LGG_SEQUENCES: Final = ("flair", "post")
"""Sequences of an LGG patient that may stand for the MR; the second is missing for some."""

_TIME_COLUMN: Final = "follow_up_days"
"""Optional column of ``clinical.csv``; the public file has none."""

_ALL_SLICES: Final = 1_000
_OVERSHOOT: Final = 1.2
"""A group that would bring a part above this many times its share is left to the training."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceSet:
    """Single slices that are labelled.

    Attributes
    ----------
    images : ndarray
        (N, 1, matrix, matrix) float16 prepared slices.
    classes : ndarray
        (N,) index in `CLASSES`; for CT, 0 is normal and 1 is a lesion of either class.
    groups : tuple of str
        What must not be torn apart by a split, one a slice: block, or cluster of near-duplicates.
    """

    images: npt.NDArray[np.float16]
    classes: npt.NDArray[np.int64]
    groups: tuple[str, ...]

    def take(self, groups: frozenset[str]) -> SliceSet:
        """Return the slices of some groups."""
        chosen = np.array([group in groups for group in self.groups], dtype=np.bool_)
        return SliceSet(
            images=self.images[chosen],
            classes=self.classes[chosen],
            groups=tuple(group for group in self.groups if group in groups),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairSet:
    """CT and MR slices of the same place in the same patient, without a diagnosis.

    Attributes
    ----------
    ct, mr : ndarray
        (N, 1, matrix, matrix) float16.
    cases : tuple of str
        Case of each pair.
    """

    ct: npt.NDArray[np.float16]
    mr: npt.NDArray[np.float16]
    cases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GliomaPatient:
    """One LGG patient.

    Attributes
    ----------
    patient_id : str
        Name of the patient's folder.
    sequences : mapping
        `LGG_SEQUENCES` to (D, 1, matrix, matrix) float16 slices with enough head; a sequence that was not
        acquired is left out.
    has_tumour : ndarray
        (D,) bool: which slices hold tumour.
    grade : int or None
        Index in `GRADES`.
    is_dead : bool or None
        Whether the patient is recorded as dead.
    time_days : float
        Time to death or to the last contact; 1 for everybody when the file does not tell.
    """

    patient_id: str
    sequences: Mapping[str, npt.NDArray[np.float16]]
    has_tumour: npt.NDArray[np.bool_]
    grade: int | None
    is_dead: bool | None
    time_days: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSplit:
    """Groups by what they are used for; no group is in two.

    Attributes
    ----------
    training, calibration, validation : frozenset of str
        Names of groups.
    """

    training: frozenset[str]
    calibration: frozenset[str]
    validation: frozenset[str]


def read_mr_slices(root: Path, matrix: int) -> SliceSet:
    """Read ``brain_mri_cls``: MR slices with one of three classes."""
    rows = _read_rows(root / "index.csv")
    images = [_mr_picture(root / row["image"], matrix) for row in rows]
    return SliceSet(
        images=np.stack(images),
        classes=np.array([CLASSES.index(row["class3"]) for row in rows], dtype=np.int64),
        groups=tuple(row["block"] for row in rows),
    )


def read_ct_slices(root: Path, matrix: int) -> SliceSet:
    """Read ``head_ct``: CT slices, normal or with a haemorrhage."""
    rows = _read_rows(root / "index.csv")
    return SliceSet(
        images=np.stack([_ct_picture(root / row["image"], matrix) for row in rows]),
        classes=np.array([int(row["label"] != "normal") for row in rows], dtype=np.int64),
        groups=tuple(row["group"] for row in rows),
    )


def read_pairs(root: Path, matrix: int) -> PairSet:
    """Read ``ct_mri_pairs``: registered slices of both modalities."""
    rows = _read_rows(root / "index.csv")
    return PairSet(
        ct=np.stack([_ct_picture(root / row["ct"], matrix) for row in rows]),
        mr=np.stack([_mr_picture(root / row["mri"], matrix) for row in rows]),
        cases=tuple(row["case"] for row in rows),
    )


def read_gliomas(root: Path, matrix: int, patient_ids: Sequence[str] | None = None) -> list[GliomaPatient]:
    """Read ``lgg`` patients with their grade and outcome, sorted by patient id.

    A patient whose row of ``clinical.csv`` has no grade or no outcome is kept with None. The optional column
    ``follow_up_days`` gives the time of the outcome.
    """
    clinical = {row["Patient"]: row for row in _read_rows(root / "clinical.csv")}
    copied = _copied_post(root)
    patients = []
    for case in read_cases(root, patient_ids):
        row = clinical.get("_".join(case.patient_id.split("_")[:3]), {})
        patients.append(_glioma(case, row, matrix, has_post=case.patient_id not in copied))
    return patients


def split_lgg(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return training and validation patients of ``lgg``: the same split as the segmentation network's."""
    split = split_patients(read_institutions(root))
    return split.training, split.validation


def split_groups(
    groups: Sequence[str],
    labels: Sequence[int],
    *,
    calibration: float,
    validation: float,
    seed: int,
) -> GroupSplit:
    """Split groups so that each label's slices are shared out as asked.

    Parameters
    ----------
    groups, labels : sequence
        Group and label of each slice; a group has one label.
    calibration, validation : float
        Shares of each label's slices, reached group by group.
    seed : int
        Seed of the draw.
    """
    sizes: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for group, label in zip(groups, labels, strict=True):
        sizes[label][group] += 1
    chooser = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    chosen: dict[str, set[str]] = {"calibration": set(), "validation": set()}
    for label in sorted(sizes):
        names = sorted(sizes[label])
        chooser.shuffle(names)
        total = sum(sizes[label].values())
        for part, share in (("validation", validation), ("calibration", calibration)):
            taken = 0
            for name in tuple(names):
                if taken >= share * total:
                    break
                if taken + sizes[label][name] <= _OVERSHOOT * share * total:
                    names.remove(name)
                    taken += sizes[label][name]
                    chosen[part].add(name)
    held_out = chosen["calibration"] | chosen["validation"]
    return GroupSplit(
        training=frozenset(set(groups) - held_out),
        calibration=frozenset(chosen["calibration"]),
        validation=frozenset(chosen["validation"]),
    )


def _glioma(case: LggCase, row: Mapping[str, str], matrix: int, *, has_post: bool) -> GliomaPatient:
    volumes = {
        name: np.stack(
            [mr_unit(image) for image in case.images[..., CHANNELS.index(name)].astype(np.float32)]
        )
        for name in LGG_SEQUENCES
        if name != "post" or has_post
    }
    indices = choose_slices(volumes["flair"], _ALL_SLICES, is_ct=False)
    return GliomaPatient(
        patient_id=case.patient_id,
        sequences={
            name: prepare_slices(unit, indices, matrix, is_ct=False).images.astype(np.float16)
            for name, unit in volumes.items()
        },
        has_tumour=np.asarray(case.masks[list(indices)].any(axis=(1, 2)), dtype=np.bool_),
        grade=int(row["neoplasm_histologic_grade"]) - 1 if row.get("neoplasm_histologic_grade") else None,
        is_dead=row["death01"] == "1" if row.get("death01") else None,
        time_days=float(row.get(_TIME_COLUMN) or 1.0),
    )


def _copied_post(root: Path) -> frozenset[str]:
    """Return the patients whose post-contrast channel is a copy of FLAIR."""
    rows = _read_rows(root / "index.csv")
    real = {row["patient_id"] for row in rows if row.get("post_eq_flair") != "1"}
    return frozenset({row["patient_id"] for row in rows} - real)


def _mr_picture(path: Path, matrix: int) -> npt.NDArray[np.float16]:
    unit = mr_unit(_grey(path))[None]
    return np.asarray(prepare_slices(unit, (0,), matrix, is_ct=False).images[0], dtype=np.float16)


def _ct_picture(path: Path, matrix: int) -> npt.NDArray[np.float16]:
    """Read a windowed CT picture as if it were Hounsfield units within the window."""
    centre, width = BRAIN_WINDOW_HU
    hu = _grey(path) / 255.0 * width + (centre - width / 2)
    unit = window_unit(hu.astype(np.float32), centre, width)[None]
    return np.asarray(prepare_slices(unit, (0,), matrix, is_ct=True).images[0], dtype=np.float16)


def _grey(path: Path) -> npt.NDArray[np.float32]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), dtype=np.float32)


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
