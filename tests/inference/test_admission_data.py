"""What admission says of real images: no validation patient is refused, and what is wrong is noticed.

The table of docs/uncertainty.md comes from these checks.
"""

from __future__ import annotations

import csv
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut

from inference.admission import HEADER_KEYWORDS, admit_header, admit_radiograph, admit_volume, is_blocked
from inference.findings import FrameReference
from inference.radiograph import Radiograph, read_radiograph
from inference.training.chest_xray import read_film, read_films
from inference.training.lgg import read_cases, read_institutions, split_patients
from inference.volume import Volume, read_volume

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),  # real headers hold invalid values
    pytest.mark.skipif(not (DATA / "lgg" / "index.csv").is_file(), reason="../shared/data is not there"),
]


def volume(array, spacing=(0.9375, 0.9375, 5.0), modality="MR"):
    return Volume(
        array=np.ascontiguousarray(array, dtype=np.float32),
        affine=np.diag((*spacing, 1.0)),
        frames=tuple(FrameReference(sop_instance_uid=f"1.{index}") for index in range(len(array))),
        series_uid="1",
        frame_of_reference_uid="1",
        modality=modality,
    )


def radiograph(grey, view=""):
    grey = np.asarray(grey, dtype=np.float32)
    scaled = (grey - grey.min()) / max(np.ptp(grey), 1e-6)
    return Radiograph(
        array=np.ascontiguousarray(scaled),
        frame=FrameReference(sop_instance_uid="1"),
        series_uid="1",
        modality="DX",
        view=view,
    )


def count(all_doubts):
    kinds = Counter()
    for doubts in all_doubts:
        kinds["blocked" if is_blocked(doubts) else "doubted" if doubts else "passed"] += 1
    print(dict(kinds))
    return kinds


@cache
def brains():
    patients = split_patients(read_institutions(DATA / "lgg")).validation
    return [np.moveaxis(case.images, -1, 0).astype(np.float32) for case in read_cases(DATA / "lgg", patients)]


@cache
def films():
    return [read_film(film).grey for film in read_films(DATA / "cxr") if film.fold == "validation"]


def test_no_validation_brain_is_refused_and_few_are_doubted():
    kinds = count(admit_volume(volume(stack), "mr_tissue") for brain in brains() for stack in brain)
    assert kinds["blocked"] == 0
    assert kinds["doubted"] <= 1


@pytest.mark.parametrize(
    ("spoil", "blocked", "noticed"),
    [
        (lambda flair: 255 - flair, 16, 16),
        (lambda flair: np.random.default_rng(0).normal(100, 30, flair.shape), 16, 16),
        (lambda flair: np.where(np.arange(256)[:, None] < 128, flair, 0), 16, 16),
        (lambda flair: np.rot90(flair, axes=(1, 2)), 0, 14),
    ],
    ids=["inverted", "noise", "lower half missing", "turned"],
)
def test_spoilt_brains_are_noticed(spoil, blocked, noticed):
    kinds = count(admit_volume(volume(spoil(brain[1])), "mr_tissue") for brain in brains())
    assert kinds["blocked"] >= blocked
    assert kinds["blocked"] + kinds["doubted"] >= noticed


def test_no_validation_film_is_refused_or_doubted():
    kinds = count(admit_radiograph(radiograph(grey)) for grey in films())
    assert kinds["passed"] == len(films())


@pytest.mark.parametrize(
    "spoil",
    [lambda grey: 255 - grey, *(lambda grey, k=k: np.rot90(grey, k) for k in (1, 2, 3))],
    ids=["inverted", "90", "180", "270"],
)
def test_films_shown_wrongly_are_refused(spoil):
    kinds = count(admit_radiograph(radiograph(spoil(grey))) for grey in films()[::3])
    assert kinds["passed"] == 0
    assert kinds["blocked"] >= 0.96 * kinds.total()


def test_chests_are_no_brains_and_brains_are_no_chests():
    as_brains = count(admit_volume(volume(np.stack([grey] * 3)), "mr_tissue") for grey in films()[::5])
    assert as_brains["passed"] == 0
    as_chests = count(
        admit_radiograph(radiograph(brain[1][index]))
        for brain in brains()
        for index in (len(brain[1]) // 2 - 1, len(brain[1]) // 2)
    )
    assert as_chests["blocked"] + as_chests["doubted"] >= 0.9 * as_chests.total()


def test_films_of_another_source_pass_and_laterals_are_refused_by_their_label():
    with (DATA / "cxr_notes" / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    pictures = {
        row["image"]: (np.asarray(Image.open(DATA / "cxr_notes" / row["image"]).convert("L")), row)
        for row in rows
    }
    frontal = count(
        admit_radiograph(radiograph(grey)) for grey, row in pictures.values() if row["view"] != "L"
    )
    assert frontal["blocked"] == 0
    assert frontal["doubted"] <= 4
    sides = [grey for grey, row in pictures.values() if row["view"] == "L"]
    assert count(admit_radiograph(radiograph(grey, "LL")) for grey in sides)["blocked"] == len(sides)


def ct_slices(name):
    datasets = [pydicom.dcmread(path) for path in sorted((DATA / "dicom" / "series" / name).iterdir())]
    datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    array = np.stack([apply_modality_lut(dataset.pixel_array, dataset) for dataset in datasets])
    side = float(datasets[0].PixelSpacing[0])
    return array, (side, side, 5.0)


def test_a_head_passes_in_ct_and_mr_and_a_phantom_and_a_windowed_ct_do_not():
    head, spacing = ct_slices("ct_head_ge_gantry_tilt")
    phantom, phantom_spacing = ct_slices("ct_head_philips_phantom")
    windowed = np.clip((head + 20) / 100 * 255, 0, 255)
    assert admit_volume(volume(head, spacing, "CT"), "ct_windows") == ()
    assert is_blocked(admit_volume(volume(phantom, phantom_spacing, "CT"), "ct_windows"))
    assert is_blocked(admit_volume(volume(windowed, spacing, "CT"), "ct_windows"))
    series = sorted((DATA / "dicom" / "series" / "mr_t1_7t_structural").iterdir())
    assert admit_volume(read_volume([pydicom.dcmread(path) for path in series]), "mr_tissue") == ()


@pytest.mark.parametrize(
    ("name", "blocks", "notices"),
    [
        ("chest_cr_dx/dwv__gdcm-CR-MONO1-10-chest.dcm", False, False),
        ("chest_cr_dx/pydicom-data__RG1_J2KI.dcm", False, False),
        ("chest_cr_dx/fo-dicom__CR-ModalitySequenceLUT.dcm", True, True),
        ("chest_cr_dx/pydicom-data__RG3_J2KI.dcm", False, True),
    ],
    ids=["chest", "chest with masses", "teeth", "leg"],
)
def test_real_radiographs(name, blocks, notices):
    doubts = admit_radiograph(read_radiograph(pydicom.dcmread(DATA / "dicom" / name)))
    assert is_blocked(doubts) == blocks
    assert bool(doubts) == notices


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("odd/orthanc-tests__2022-03-08-RicSmi.dcm", True),
        ("pydicom_test_files/pydicom__examples_overlay.dcm", True),
        ("odd/dcm4che__MR2_UNC", False),
        ("odd/orthanc-tests__2019-06-17-VedranZdesic.dcm", False),
    ],
    ids=["lumbar spine", "abdomen", "shoulder", "knee"],
)
def test_headers_of_other_parts_of_the_body_are_noticed(name, blocks):
    dataset = pydicom.dcmread(DATA / "dicom" / name, stop_before_pixels=True)
    doubts = admit_header({key: str(dataset.get(key, "") or "") for key in HEADER_KEYWORDS}, ("brain",))
    assert doubts
    assert is_blocked(doubts) == blocks
