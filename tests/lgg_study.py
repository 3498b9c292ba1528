"""Packs a patient of the LGG data set as a DICOM MR study: real pixels in a made-up, valid wrapping."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from dicom_node.synthetic_series import SyntheticSeries, SyntheticStudy, image_datasets
from inference.training.lgg import read_cases

PIXEL_MM = 0.9375
SPACING_MM = 5.0

SERIES = {
    "pre": (2, "AX T1", {"EchoTime": 12.0, "RepetitionTime": 550.0}),
    "flair": (
        3,
        "AX FLAIR",
        {
            "ScanningSequence": ["SE", "IR"],
            "EchoTime": 120.0,
            "RepetitionTime": 9000.0,
            "InversionTime": 2400.0,
            "EchoTrainLength": 16,
        },
    ),
    "post": (
        4,
        "AX T1 POST GAD",
        {"EchoTime": 12.0, "RepetitionTime": 550.0, "ContrastBolusAgent": "Gadolinium"},
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class LggStudy:
    """A packed patient.

    Attributes
    ----------
    series : dict of str to tuple of Dataset
        Images by role, foot to head; a sequence that is a copy of FLAIR is left out.
    channels : ndarray
        (3, D, H, W) float32: pre, FLAIR, post as acquired; a sequence that was not acquired is FLAIR itself,
        where the data set's re-encoded copy differs from it by some grey levels.
    reference_mask : ndarray
        (D, H, W) bool, the human reader's.
    """

    series: dict[str, tuple[Dataset, ...]]
    channels: npt.NDArray[np.float32]
    reference_mask: npt.NDArray[np.bool_]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        return tuple(dataset for images in self.series.values() for dataset in images)


def copies_of_flair(root: Path, patient_id: str) -> frozenset[str]:
    """Return the roles that the data set fills with a copy of FLAIR because they were not acquired."""
    with (root / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["patient_id"] == patient_id]
    return frozenset(role for role in ("pre", "post") if all(row[f"{role}_eq_flair"] == "1" for row in rows))


def pack_lgg_patient(root: Path, patient_id: str, *, seed: int = 0, shuffle: bool = False) -> LggStudy:
    """Pack one patient; UIDs follow from the patient and the seed.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    patient_id : str
        Name of the patient's folder.
    seed : int
        Another seed gives another study of the same patient.
    shuffle : bool
        Whether Instance Number follows a random order, as some archives deliver it.
    """
    (case,) = read_cases(root, [patient_id])
    absent = copies_of_flair(root, patient_id)
    channels = np.moveaxis(case.images, -1, 0)
    short_id = patient_id.split("_")[2]
    study = SyntheticStudy(
        seed=f"lgg/{patient_id}/{seed}",
        patient_name=f"TEST^LGG {short_id}",
        patient_id=f"LGG-{short_id}",
        description="MR BRAIN WITH AND WITHOUT CONTRAST",
    )
    depth, height, width = channels.shape[1:]
    order = np.random.default_rng(seed).permutation(depth) if shuffle else np.arange(depth)
    corner = (-(width - 1) * PIXEL_MM / 2, -(height - 1) * PIXEL_MM / 2)
    positions = np.array([(*corner, -60.0 + SPACING_MM * index) for index in range(depth)])
    series = {}
    for role, stack in zip(SERIES, channels, strict=True):
        if role in absent:
            continue
        number, description, technique = SERIES[role]
        wrapping = SyntheticSeries(
            number=number,
            description=description,
            pixel_spacing_mm=(PIXEL_MM, PIXEL_MM),
            thickness_mm=SPACING_MM,
            spacing_mm=SPACING_MM,
            positions=positions[order],
            orientations=np.tile((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (depth, 1)),
            technique=technique,
        )
        images = image_datasets(study, wrapping, stack[order].astype(np.int16))
        series[role] = tuple(sorted(images, key=lambda image: float(image.ImagePositionPatient[2])))
    acquired = np.stack([channels[1] if role in absent else channels[i] for i, role in enumerate(SERIES)])
    return LggStudy(series=series, channels=acquired.astype(np.float32), reference_mask=case.masks)
