from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from dicom_node.chest_phantom import Nodule, chest_study


def pixels(dataset: pydicom.Dataset) -> np.ndarray:
    return dataset.pixel_array.astype(float) / 4095


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_film() -> None:
    first, again, other = chest_study(1, matrix=96), chest_study(1, matrix=96), chest_study(2, matrix=96)
    assert first.datasets[0] == again.datasets[0]
    assert first.study_uid != other.study_uid
    assert (pixels(first.datasets[0]) != pixels(other.datasets[0])).any()


def test_a_nodule_is_bright_where_its_box_says() -> None:
    nodule = Nodule(x_mm=75.0, y_mm=-60.0, diameter_mm=30.0)
    study = chest_study(3, nodule=nodule, matrix=256)
    clean = chest_study(3, nodule=None, matrix=256)
    difference = pixels(study.datasets[0]) - pixels(clean.datasets[0])
    rows, columns = np.nonzero(difference > 0.1)
    assert study.nodule_box == pytest.approx(
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=2
    )
    assert clean.nodule_box is None


@pytest.mark.parametrize(("side", "is_left"), [("left", True), ("right", False)])
def test_an_effusion_lies_low_on_the_patients_side(side: str, is_left: bool) -> None:
    study = chest_study(4, nodule=None, effusion=side, matrix=128)
    left, top, right, bottom = study.effusion_box
    assert ((left + right) / 2 > 64) == is_left
    assert 64 < top < bottom <= 128


def test_inverted_pixels_show_the_same_film() -> None:
    plain, inverted = chest_study(5, matrix=64), chest_study(5, matrix=64, is_inverted=True)
    assert inverted.datasets[0].PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_allclose(pixels(plain.datasets[0]), 1 - pixels(inverted.datasets[0]), atol=1e-3)


@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_films_are_written_and_read_back_as_radiographs(modality: str) -> None:
    study = chest_study(6, modality=modality, views=("PA", "LL"), matrix=64)
    for dataset, view in zip(study.datasets, ("PA", "LL"), strict=True):
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        header = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
        assert (header.Modality, header.ViewPosition) == (modality, view)
        assert header.StudyInstanceUID == study.study_uid
