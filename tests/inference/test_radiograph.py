from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from dicom_node.errors import PermanentError
from inference.radiograph import (
    Turn,
    UnreadableRadiographError,
    read_radiograph,
    read_radiographs,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom" / "chest_cr_dx"

STORED = np.arange(24, dtype=np.uint16).reshape(4, 6) * 40


def radiograph(stored: np.ndarray = STORED, **attributes: object) -> Dataset:
    """A small DX image; attributes set to None are removed."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "2.25.1"
    dataset.SeriesInstanceUID = "2.25.2"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def lut(values: list[int], first: int = 0) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, 16])
    item.add_new("LUTData", "US", values)
    return item


def test_the_first_of_several_windows_is_applied() -> None:
    grey = read_radiograph(radiograph(WindowCenter=[460.5, 9000], WindowWidth=[921, 1])).array
    np.testing.assert_allclose(grey, STORED / 920, atol=1e-6)


def test_linear_exact_and_sigmoid_follow_their_formulas() -> None:
    exact = read_radiograph(
        radiograph(WindowCenter=500, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")
    ).array
    np.testing.assert_allclose(exact, np.clip((STORED - 500.0) / 400 + 0.5, 0, 1), atol=1e-6)
    curve = read_radiograph(radiograph(WindowCenter=500, WindowWidth=400, VOILUTFunction="SIGMOID")).array
    np.testing.assert_allclose(curve, 1 / (1 + np.exp(-4 * (STORED - 500.0) / 400)), atol=1e-6)


def test_a_voi_table_goes_before_a_window_and_its_range_is_black_to_white() -> None:
    table = lut([max(1000, min(i * 2, 1800)) for i in range(1024)])
    grey = read_radiograph(radiograph(VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)).array
    np.testing.assert_allclose(grey, (np.clip(STORED * 2.0, 1000, 1800) - 1000) / 800, atol=1e-6)


def test_a_modality_table_comes_first() -> None:
    table = lut([4095 - 4 * i for i in range(1024)])
    table.ModalityLUTType = "US"
    grey = read_radiograph(radiograph(ModalityLUTSequence=[table])).array
    assert grey[0, 0] == pytest.approx(1.0)
    assert grey[-1, -1] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("attributes", "is_inverted"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, True),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, True),
        ({"PresentationLUTShape": "INVERSE"}, True),
        ({"PresentationLUTShape": "IDENTITY"}, False),
    ],
)
def test_polarity_is_inverted_once(attributes: dict[str, str], is_inverted: bool) -> None:
    grey = read_radiograph(radiograph(**attributes)).array
    assert (grey[0, 0] > grey[-1, -1]) == is_inverted


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": 500, "WindowWidth": 0},
        {"WindowCenter": 90000, "WindowWidth": 10},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
)
def test_without_a_usable_window_the_central_values_span_the_grey_scale(window: dict[str, object]) -> None:
    grey = read_radiograph(radiograph(**window)).array
    assert grey.min() == 0.0
    assert grey.max() == 1.0
    assert 0.4 < np.median(grey) < 0.6


def test_padding_is_black_in_either_polarity() -> None:
    stored = STORED.copy()
    stored[:, 0] = 4000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey = read_radiograph(
            radiograph(stored, PixelPaddingValue=4000, PhotometricInterpretation=photometric)
        ).array
        assert not grey[:, 0].any()
        assert grey[:, 1:].max() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (["L", "F"], STORED),
        (["R", "F"], STORED[:, ::-1]),
        (["L", "H"], STORED[::-1]),
        (["F", "L"], STORED.T),
        (["H", "R"], STORED.T[::-1, ::-1]),
        (["A", "F"], STORED),
        (["P", "H"], STORED[::-1]),
        (["LA", "FL"], STORED),
        ("", STORED),
        (["L", "P"], STORED),
    ],
)
def test_the_head_is_up_and_the_right_side_on_the_left(orientation: object, expected: np.ndarray) -> None:
    grey = read_radiograph(
        radiograph(PatientOrientation=orientation, WindowCenter=460.5, WindowWidth=921)
    ).array
    np.testing.assert_allclose(grey, expected / 920, atol=1e-6)


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 5))
def test_a_box_on_the_turned_image_lies_on_the_same_pixels_as_stored(
    is_transposed: bool, flips_rows: bool, flips_columns: bool, row: int, column: int
) -> None:
    turn = Turn(is_transposed=is_transposed, flips_rows=flips_rows, flips_columns=flips_columns)
    marked = np.zeros((4, 6), dtype=np.float32)
    marked[row, column] = 1
    turned = turn.apply(marked)
    top, left = (int(i[0]) for i in np.nonzero(turned))
    corners = turn.undo_corners(left, top, left + 1, top + 1, turned.shape)
    assert corners == (column, row, column + 1, row + 1)
    assert turn.apply_corners(*corners, turned.shape) == (left, top, left + 1, top + 1)
    np.testing.assert_array_equal(turn.undo(turned), marked)


@pytest.mark.parametrize(
    ("attributes", "view"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "LL"}, "LL"),
        ({"ViewPosition": "LATERAL"}, "LAT"),
        ({"PatientOrientation": ["A", "F"]}, "LAT"),
        ({"SeriesDescription": "CHEST LAT"}, "LAT"),
        ({"SeriesDescription": "CHEST PORTABLE, ALL LATE"}, ""),
        ({}, ""),
    ],
)
def test_the_view_is_named_from_the_most_exact_statement(attributes: dict[str, object], view: str) -> None:
    read = read_radiograph(radiograph(**attributes))
    assert read.view == view
    assert read.is_lateral == (view in {"LL", "RL", "LAT"})


def test_the_view_code_is_understood() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399348003", "SCT", "antero-posterior"
    assert read_radiograph(radiograph(ViewCodeSequence=[code])).view == "AP"


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, None),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, None),
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.2, 0.1]}, None),
        ({"PixelSpacing": [0.2, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.2, 0.1)),
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.22, 0.11]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.22, 0.11], "EstimatedRadiographicMagnificationFactor": 1.1}, (0.2, 0.1)),
        (
            {
                "ImagerPixelSpacing": [0.22, 0.11],
                "DistanceSourceToDetector": 1980,
                "DistanceSourceToPatient": 1800,
            },
            (0.2, 0.1),
        ),
        ({"ImagerPixelSpacing": [0.22, 0.11], "EstimatedRadiographicMagnificationFactor": 0}, None),
        ({"PixelSpacing": [0, 0], "PixelSpacingCalibrationType": "FIDUCIAL"}, None),
    ],
)
def test_a_pixel_has_a_size_only_where_it_is_that_in_the_patient(
    attributes: dict[str, object], spacing: tuple[float, float] | None
) -> None:
    read = read_radiograph(radiograph(**attributes)).pixel_spacing_mm
    assert read == (None if spacing is None else pytest.approx(spacing))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, "For Processing"),
        ({"SOPClassUID": CTImageStorage}, "no CR or DX"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, "no CR or DX"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"Rows": 0}, "no matrix"),
    ],
)
def test_what_is_no_radiograph_is_refused_with_the_reason(attributes: dict[str, object], words: str) -> None:
    with pytest.raises(UnreadableRadiographError, match=words):
        read_radiograph(radiograph(**attributes))


def test_truncated_pixels_and_malformed_tables_are_permanent_errors() -> None:
    with pytest.raises(PermanentError, match="truncated"):
        read_radiograph(radiograph(PixelData=b"\0\0"))
    empty = Dataset()
    empty.add_new("LUTDescriptor", "US", [4, 0, 16])
    with pytest.raises(PermanentError, match="malformed"):
        read_radiograph(radiograph(VOILUTSequence=[empty]))


def test_a_secondary_capture_of_a_film_is_read_as_its_modality() -> None:
    read = read_radiograph(radiograph(SOPClassUID=SecondaryCaptureImageStorage, Modality="CR"))
    assert read.modality == "CR"


def test_a_series_is_read_in_order_without_unprocessed_copies() -> None:
    first = radiograph(InstanceNumber=1, SOPInstanceUID="2.25.11", ViewPosition="PA")
    second = radiograph(InstanceNumber=2, SOPInstanceUID="2.25.12", ViewPosition="LL")
    raw = radiograph(InstanceNumber=3, SOPClassUID=DigitalXRayImageStorageForProcessing)
    assert [r.view for r in read_radiographs([raw, second, first])] == ["PA", "LL"]
    with pytest.raises(UnreadableRadiographError, match="For Processing"):
        read_radiographs([raw])
    with pytest.raises(UnreadableRadiographError, match="no image"):
        read_radiographs([])


def test_computed_radiography_is_read() -> None:
    assert read_radiograph(radiograph(SOPClassUID=ComputedRadiographyImageStorage, Modality="CR")).view == ""


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/dicom is not there")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", sorted(DATA.glob("*.dcm")), ids=lambda path: path.stem)
def test_real_radiographs_have_white_bone_and_black_air(path: Path) -> None:
    read = read_radiograph(pydicom.dcmread(path))
    assert read.array.dtype == np.float32
    assert (read.array.min(), read.array.max()) == pytest.approx((0.0, 1.0), abs=0.2)
    height, width = read.array.shape
    if "Fake" in path.name or "RG3" in path.name or "ModalitySequenceLUT" in path.name:
        return  # an image whose header lies about its polarity; a leg; teeth
    spine = read.array[height // 4 : height // 2, int(width * 0.46) : int(width * 0.54)]
    lung = read.array[height // 4 : height // 2, int(width * 0.25) : int(width * 0.33)]
    assert spine.mean() > lung.mean() + 0.1
