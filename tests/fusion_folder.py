"""The four folders that the fusion recipe reads, made up: a few small pictures that are easily told apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE = 48
_INSTITUTIONS = ("CS", "DU")


def write_fusion_folder(root: Path, *, patients: int = 12) -> Path:
    """Write ``brain_mri_cls``, ``head_ct``, ``ct_mri_pairs`` and ``lgg`` below ``root``."""
    rng = np.random.default_rng(7)
    _write_mr(root / "brain_mri_cls", rng)
    _write_ct(root / "head_ct", rng)
    _write_pairs(root / "ct_mri_pairs", rng)
    _write_lgg(root / "lgg", rng, patients)
    return root


def _head(rng: np.random.Generator, spot: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    inside = (x / 0.7) ** 2 + (y / 0.85) ** 2 < 1
    image = np.where(inside, 100 + 12 * rng.normal(size=x.shape), 3)
    column, row = rng.uniform(-0.3, 0.3, 2)
    lesion = (x - column) ** 2 + (y - row) ** 2 < 0.05
    return np.clip(np.where(lesion & inside, image + spot, image), 0, 255).astype(np.uint8)


def _write_rows(folder: Path, rows: list[dict[str, object]], name: str = "index.csv") -> None:
    with (folder / name).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _write_mr(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for label, spot in (("healthy", 0), ("benign", 140), ("malignant", -80)):
        for number in range(12):
            name = f"{label}{number}.png"
            Image.fromarray(_head(rng, spot)).save(folder / name)
            rows.append({"image": name, "class3": label, "block": f"{label}-{number // 2}"})
    _write_rows(folder, rows)


def _write_ct(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for label, spot in (("normal", 0), ("haemorrhage", 120)):
        for number in range(8):
            name = f"{label}{number}.png"
            Image.fromarray(_head(rng, spot)).save(folder / name)
            rows.append({"image": name, "label": label, "group": f"{label}{number}"})
    _write_rows(folder, rows)


def _write_pairs(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for number in range(4):
        for kind in ("ct", "mri"):
            Image.fromarray(_head(rng, 60)).save(folder / f"{kind}{number}.png")
        rows.append(
            {"case": number // 2, "slice": number, "ct": f"ct{number}.png", "mri": f"mri{number}.png"}
        )
    _write_rows(folder, rows)


def _write_lgg(folder: Path, rng: np.random.Generator, patients: int) -> None:
    rows, clinical = [], []
    for patient in range(patients):
        institution = _INSTITUTIONS[patient % 2]
        name = f"TCGA_{institution}_{patient:04d}_20000101"
        (folder / name).mkdir(parents=True)
        for number in range(4):
            has_tumour = number % 2 == 0
            channels = [_head(rng, 90.0 * has_tumour) for _ in range(3)]
            mask = np.zeros((_SIDE, _SIDE), dtype=bool)
            mask[20:26, 20:26] = has_tumour
            Image.fromarray(np.stack(channels, axis=-1)).save(folder / name / f"{number}.png")
            Image.fromarray(mask).save(folder / name / f"{number}_mask.png")
            rows.append(
                {
                    "patient_id": name, "institution": institution, "slice": number,
                    "image": f"{name}/{number}.png", "mask": f"{name}/{number}_mask.png",
                    "post_eq_flair": int(patient == 0),
                }
            )  # fmt: skip
        clinical.append(
            {
                "Patient": name.rpartition("_")[0],
                "neoplasm_histologic_grade": "" if patient == 1 else 1 + patient % 3 // 2,
                "death01": "" if patient == 1 else int(patient % 4 == 0),
            }
        )
    _write_rows(folder, rows)
    _write_rows(folder, clinical, "clinical.csv")
