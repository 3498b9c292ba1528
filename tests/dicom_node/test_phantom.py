from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from dicom_node.headers import read_header
from dicom_node.phantom import DEFAULT_LESION, Lesion, brain_mr_study, ct_series, head_ct_study
from dicom_node.synthetic_series import synthetic_uid

SMALL = {"matrix": 64, "slices": 24}


@pytest.fixture(scope="module")
def study():
    return brain_mr_study(0, **SMALL)


def stack(images) -> np.ndarray:
    return np.stack([image.pixel_array for image in images]).astype(float)


def encoded(datasets) -> list[bytes]:
    files = []
    for dataset in datasets:
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        files.append(stream.getvalue())
    return files


def test_a_study_is_a_localizer_and_three_axial_series(study):
    counts = {d.SeriesDescription: len(study.series(d.SeriesDescription)) for d in study.datasets}
    assert counts == {"3-PLANE LOC": 3, "AX T1": 24, "AX FLAIR": 24, "AX T1 POST GAD": 24}
    assert {str(d.StudyInstanceUID) for d in study.datasets} == {study.study_uid}
    assert len({str(d.SOPInstanceUID) for d in study.datasets}) == len(study.datasets) == 75
    assert len({str(d.FrameOfReferenceUID) for d in study.datasets}) == 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_study():
    first, again, other = (encoded(brain_mr_study(seed, matrix=32, slices=2).datasets) for seed in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)


def test_the_default_size_is_that_of_a_clinical_series():
    study = brain_mr_study(0, slices=1)
    (image,) = study.series("AX FLAIR")
    assert (image.Rows, image.Columns) == (256, 256)
    assert image.PixelSpacing == [0.9375, 0.9375]


def test_the_lesion_lies_where_it_was_put(study):
    slices, rows, columns = np.nonzero(study.lesion_mask)
    indices = np.stack((columns, rows, slices, np.ones_like(rows)))
    center_mm = (study.affine @ indices)[:3].mean(axis=1)
    np.testing.assert_allclose(center_mm, DEFAULT_LESION.center_mm, atol=6)
    volume_ml = len(rows) * abs(np.linalg.det(study.affine[:3, :3])) / 1000
    assert volume_ml == pytest.approx(4 / 3 * np.pi * (DEFAULT_LESION.diameter_mm / 2) ** 3 / 1000, rel=0.4)


def test_the_affine_is_that_of_the_headers(study):
    for series in ("AX T1", "AX FLAIR", "AX T1 POST GAD"):
        for index, image in enumerate(study.series(series)):
            corner = (study.affine @ (0, 0, index, 1))[:3]
            np.testing.assert_allclose(np.array(image.ImagePositionPatient, dtype=float), corner, atol=1e-5)


def test_the_lesion_is_bright_in_flair_and_dark_in_t1(study):
    mask = study.lesion_mask
    healthy = stack(brain_mr_study(0, lesion=None, **SMALL).series("AX FLAIR"))
    assert np.median(stack(study.series("AX FLAIR"))[mask]) > 1.5 * np.median(healthy[mask])
    assert np.median(stack(study.series("AX T1"))[mask]) < 0.8 * np.median(
        stack(brain_mr_study(0, lesion=None, **SMALL).series("AX T1"))[mask]
    )


def test_a_head_without_lesion_has_an_empty_mask():
    assert not brain_mr_study(0, lesion=None, matrix=32, slices=4).lesion_mask.any()


def test_a_lesion_on_the_right_is_on_the_right():
    study = brain_mr_study(1, lesion=Lesion(center_mm=(-32.0, 20.0, 25.0), diameter_mm=40.0), **SMALL)
    _, _, columns = np.nonzero(study.lesion_mask)
    assert columns.max() < 32


def test_the_brain_is_surrounded_by_skull_scalp_and_air(study):
    middle = stack(study.series("AX T1"))[13]
    profile = middle[32]
    scalp = profile.argmax()
    assert profile[:4].mean() < 0.1 * profile[scalp]
    brain = np.median(middle[24:40, 24:40])
    assert profile[scalp] > 1.3 * brain


def test_the_localizer_has_three_orientations(study):
    assert len({tuple(image.ImageOrientationPatient) for image in study.series("3-PLANE LOC")}) == 3


def test_synthetic_studies_are_not_taken_for_results(study, tmp_path):
    for name, dataset in (("mr", study.datasets[0]), ("ct", ct_series()[0])):
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        header = read_header(tmp_path / name)
        assert not header.is_own_result
        assert header.modality == name.upper()


def test_a_ct_has_hounsfield_units():
    images = ct_series(matrix=32, slices=3)
    hounsfield = stack(images) * images[0].RescaleSlope + images[0].RescaleIntercept
    assert np.median(hounsfield[:, 14:18, 14:18]) == pytest.approx(0, abs=5)
    assert hounsfield[:, 0, 0].max() < -900
    assert {image.Modality for image in images} == {"CT"}


def test_a_head_ct_shows_brain_skull_and_fresh_blood_where_its_mask_says():
    phantom = head_ct_study(3, matrix=64, slices=12)
    hounsfield = stack(phantom.datasets) + phantom.datasets[0].RescaleIntercept
    assert np.median(hounsfield[phantom.lesion_mask]) == pytest.approx(68, abs=4)
    assert 20 < np.median(hounsfield[(hounsfield > 0) & (hounsfield < 60)]) < 45
    assert hounsfield.max() > 800
    assert hounsfield[:, 0, 0].max() < -900
    assert not head_ct_study(3, bleeding=None, matrix=32, slices=2).lesion_mask.any()


def test_a_head_ct_and_a_brain_mr_of_one_patient_show_the_same_head():
    ct = head_ct_study(3, bleeding=None, matrix=64, slices=8)
    mr = brain_mr_study(3, lesion=None, matrix=64, slices=8)
    assert ct.datasets[0].PatientID == mr.datasets[0].PatientID
    assert ct.study_uid != mr.study_uid
    assert np.array_equal(ct.affine, mr.affine)
    is_head_ct = stack(ct.datasets) > 700
    is_head_mr = stack(mr.series("AX T1 POST GAD")) > 100
    assert (is_head_ct & is_head_mr).sum() / is_head_mr.sum() > 0.95


def test_uids_are_valid_and_follow_from_their_parts():
    uid = pydicom.uid.UID(synthetic_uid("a", 1))
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert synthetic_uid("a", 1) == uid != synthetic_uid("a", 2)


@pytest.mark.validators
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_and_no_warning(study, tmp_path):
    samples = [study.series(n)[0] for n in ("3-PLANE LOC", "AX T1", "AX FLAIR", "AX T1 POST GAD")]
    for number, dataset in enumerate([*samples, ct_series()[0], head_ct_study(slices=1).datasets[0]]):
        path = tmp_path / f"{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        checked = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert checked.stderr.strip() in {"MRImage", "CTImage"}
