from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedMRImageStorage,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dicom_node.errors import PermanentError
from dicom_node.synthetic_series import SyntheticSeries, SyntheticStudy, image_datasets
from inference.volume import Cause, UnstackableSeriesError, read_volume

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom"

STUDY = SyntheticStudy(seed="volume", patient_name="TEST^VOLUME", patient_id="V", description="MR")
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def make_series(
    *,
    orientation=AXIAL,
    depth=5,
    spacing_mm=5.0,
    origin=(-100.0, -90.0, 30.0),
    positions=None,
    modality="MR",
    seed=0,
    matrix=(6, 7),
) -> list[Dataset]:
    """A small regular stack along its normal, with random pixels."""
    axes = np.array(orientation).reshape(2, 3)
    normal = np.cross(*axes)
    if positions is None:
        positions = [np.array(origin) + spacing_mm * i * normal for i in range(depth)]
    series = SyntheticSeries(
        number=3,
        description="AX FLAIR",
        modality=modality,
        pixel_spacing_mm=(0.8, 0.5),
        thickness_mm=4.0,
        spacing_mm=spacing_mm,
        positions=np.array(positions),
        orientations=np.tile(orientation, (len(positions), 1)),
    )
    stored = np.random.default_rng(seed).integers(-200, 1000, size=(len(positions), *matrix)).astype(np.int16)
    return list(image_datasets(STUDY, series, stored))


def make_enhanced(images: list[Dataset]) -> Dataset:
    """The same stack as one enhanced multi-frame image."""
    enhanced = copy.deepcopy(images[0])
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for keyword in ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"):
        del enhanced[keyword]
    enhanced.NumberOfFrames = len(images)
    enhanced.PixelData = b"".join(image.PixelData for image in images)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = images[0].PixelSpacing, images[0].SliceThickness
    orientation.ImageOrientationPatient = images[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        Sequence([measures]),
        Sequence([orientation]),
    )
    enhanced.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number, image in enumerate(images, start=1):
        position, content, transformation, frame = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = image.ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = "1", number, 1
        transformation.RescaleSlope, transformation.RescaleIntercept = 2.0, -float(number)
        frame.PlanePositionSequence = Sequence([position])
        frame.FrameContentSequence = Sequence([content])
        frame.PixelValueTransformationSequence = Sequence([transformation])
        frames.append(frame)
    enhanced.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return enhanced


def refusal(datasets) -> UnstackableSeriesError:
    with pytest.raises(UnstackableSeriesError) as caught:
        read_volume(datasets)
    assert isinstance(caught.value, PermanentError)
    assert "2.25." not in str(caught.value)
    return caught.value


def rotations() -> st.SearchStrategy[tuple[float, ...]]:
    """Orientations: any rotation of the axial one."""

    def to_orientation(quaternion):
        w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
        row = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
        column = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
        return (*row, *column)

    component = st.floats(-1, 1).filter(lambda value: abs(value) > 1e-3)
    return st.tuples(*[component] * 4).map(to_orientation)


def test_geometry_of_a_plain_axial_series():
    volume = read_volume(make_series())
    assert volume.array.shape == (5, 6, 7)
    assert volume.array.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((0.5, 0.8, 5.0))
    assert volume.voxel_volume_mm3 == pytest.approx(2.0)
    np.testing.assert_allclose(volume.to_patient(np.array([2.0, 3.0, 4.0])), (-99.0, -87.6, 50.0))
    assert volume.modality == "MR"
    assert volume.frame_of_reference_uid
    assert [f.frame_number for f in volume.frames] == [None] * 5


@settings(max_examples=30, deadline=None)
@given(orientation=rotations(), order=st.permutations(range(5)))
def test_the_order_of_the_images_does_not_matter(orientation, order):
    images = make_series(orientation=orientation)
    expected = read_volume(images)
    permuted = read_volume([images[i] for i in order])
    np.testing.assert_array_equal(permuted.array, expected.array)
    np.testing.assert_array_equal(permuted.affine, expected.affine)
    assert permuted.frames == expected.frames


@settings(max_examples=30, deadline=None)
@given(orientation=rotations())
def test_the_affine_returns_every_header_position_and_inverts(orientation):
    images = make_series(orientation=orientation)
    volume = read_volume(images)
    by_uid = {image.SOPInstanceUID: np.array(image.ImagePositionPatient, dtype=float) for image in images}
    for index, frame in enumerate(volume.frames):
        corner = volume.to_patient(np.array([0.0, 0.0, index]))
        np.testing.assert_allclose(corner, by_uid[frame.sop_instance_uid], atol=1e-4)
    indices = np.array(list(itertools.product((0, 6), (0, 5), (0, 4))), dtype=float)
    np.testing.assert_allclose(volume.to_indices(volume.to_patient(indices)), indices, atol=1e-9)
    axis = np.abs(volume.affine[:3, 2]).round(6).argmax()
    assert volume.affine[axis, 2] > 0


def test_axial_slices_run_foot_to_head_even_when_the_normal_points_down():
    volume = read_volume(make_series(orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
    heights = [volume.to_patient(np.array([0.0, 0.0, i]))[2] for i in range(5)]
    assert heights == sorted(heights)


def test_a_single_image_is_as_thick_as_its_slice_thickness():
    assert read_volume(make_series(depth=1)).spacing_mm == pytest.approx((0.5, 0.8, 4.0))


def test_a_single_image_without_thickness_is_refused():
    (image,) = make_series(depth=1)
    image.SliceThickness = None
    assert refusal([image]).cause is Cause.GEOMETRY_MISSING


def test_an_enhanced_image_reads_like_the_single_frames_it_holds():
    images = make_series()
    single = read_volume(images)
    enhanced = read_volume([make_enhanced(images)])
    np.testing.assert_array_equal(enhanced.affine, single.affine)
    offsets = np.arange(1, 6, dtype=np.float32).reshape(-1, 1, 1)
    np.testing.assert_array_equal(enhanced.array, single.array * 2 - offsets)
    assert [frame.frame_number for frame in enhanced.frames] == [1, 2, 3, 4, 5]


def test_frames_of_an_enhanced_image_are_sorted_by_position():
    images = make_series()
    forward, backward = read_volume([make_enhanced(images)]), read_volume([make_enhanced(images[::-1])])
    assert [frame.frame_number for frame in backward.frames] == [5, 4, 3, 2, 1]
    np.testing.assert_array_equal(backward.affine, forward.affine)


def test_several_stacks_and_times_in_an_enhanced_image_are_refused():
    enhanced = make_enhanced(make_series())
    enhanced.PerFrameFunctionalGroupsSequence[4].FrameContentSequence[0].TemporalPositionIndex = 2
    assert refusal([enhanced]).cause is Cause.TEMPORAL
    enhanced.PerFrameFunctionalGroupsSequence[4].FrameContentSequence[0].StackID = "2"
    assert refusal([enhanced]).cause is Cause.SEVERAL_STACKS


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_compressed_images_read_like_uncompressed_ones(syntax):
    images = make_series(depth=2, matrix=(64, 48))
    expected = read_volume(images)
    for image in images:
        image.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_volume(images).array, expected.array)


def test_ct_is_rescaled_to_hounsfield_units_per_image():
    images = make_series(modality="CT")
    images[2].RescaleIntercept = -1000.0
    volume = read_volume(images)
    assert volume.modality == "CT"
    np.testing.assert_array_equal(volume.array[2], images[2].pixel_array.astype(np.float32) - 1000)
    np.testing.assert_array_equal(volume.array[3], images[3].pixel_array.astype(np.float32) - 1024)


def test_unsigned_pixels_keep_their_high_values():
    images = make_series()
    for image in images:
        image.PixelRepresentation = 0
        image.PixelData = np.full((6, 7), 65000, dtype="<u2").tobytes()
    assert read_volume(images).array.max() == 65000


def test_padding_is_no_measurement():
    images = make_series()
    for image in images:
        pixels = image.pixel_array.copy()
        pixels[0] = -32768
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "SS", -32768)
    volume = read_volume(images)
    assert (volume.array[:, 0] == volume.array[:, 1:].min()).all()


def test_monochrome1_concerns_display_only():
    images = make_series()
    plain = read_volume(images)
    for image in images:
        image.PhotometricInterpretation = "MONOCHROME1"
    inverted = read_volume(images)
    assert inverted.is_inverted_for_display
    assert not plain.is_inverted_for_display
    np.testing.assert_array_equal(inverted.array, plain.array)


def _with(images, index, **changes):
    for keyword, value in changes.items():
        setattr(images[index], keyword, value)
    return images


def _without(images, index, keyword):
    del images[index][keyword]
    return images


def _echoes():
    images = make_series() + make_series(seed=1)
    for number, image in enumerate(images):
        image.EchoTime = 20.0 if number < 5 else 80.0
    return images


TILTED = [(0.0, 1.5 * i, 5.0 * i) for i in range(5)]
REFUSED = {
    "empty": (list, Cause.EMPTY),
    "secondary capture": (
        lambda: _with(make_series(), 0, SOPClassUID=SecondaryCaptureImageStorage),
        Cause.SOP_CLASS,
    ),
    "two series": (lambda: _with(make_series(), 0, SeriesInstanceUID="1.2.3"), Cause.SEVERAL_SERIES),
    "two frames of reference": (
        lambda: _with(make_series(), 0, FrameOfReferenceUID="1.2.3"),
        Cause.SEVERAL_FRAMES_OF_REFERENCE,
    ),
    "no position": (lambda: _without(make_series(), 2, "ImagePositionPatient"), Cause.GEOMETRY_MISSING),
    "no orientation": (lambda: _without(make_series(), 2, "ImageOrientationPatient"), Cause.GEOMETRY_MISSING),
    "no pixel spacing": (lambda: _without(make_series(), 2, "PixelSpacing"), Cause.GEOMETRY_MISSING),
    "zero pixel spacing": (lambda: _with(make_series(), 2, PixelSpacing=[0.0, 1.0]), Cause.GEOMETRY_MISSING),
    "skewed orientation": (
        lambda: _with(make_series(), 2, ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0]),
        Cause.GEOMETRY_MISSING,
    ),
    "three planes": (
        lambda: _with(make_series(), 2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        Cause.MIXED_ORIENTATIONS,
    ),
    "localizer": (
        lambda: _with(make_series(), 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        Cause.LOCALIZER,
    ),
    "two pixel spacings": (lambda: _with(make_series(), 2, PixelSpacing=[0.8, 0.6]), Cause.MIXED_GRIDS),
    "mixed photometric": (
        lambda: _with(make_series(), 2, PhotometricInterpretation="MONOCHROME1"),
        Cause.MIXED_GRIDS,
    ),
    "two echoes": (_echoes, Cause.SAME_POSITION),
    "missing slice": (lambda: make_series()[:2] + make_series()[3:], Cause.IRREGULAR_SPACING),
    "variable gap": (
        lambda: make_series(positions=[(0, 0, z) for z in (0, 5, 10, 14, 19)]),
        Cause.IRREGULAR_SPACING,
    ),
    "creeping gap": (
        lambda: make_series(positions=[(0, 0, 5 * i + 0.02 * i * i) for i in range(20)]),
        Cause.IRREGULAR_SPACING,
    ),
    "tilted gantry": (lambda: make_series(positions=TILTED), Cause.TILTED),
    "no pixels": (lambda: _without(make_series(), 2, "PixelData"), Cause.PIXELS),
    "truncated pixels": (lambda: _with(make_series(), 2, PixelData=b"\0" * 10), Cause.PIXELS),
    "ct without rescale": (lambda: _without(make_series(modality="CT"), 1, "RescaleSlope"), Cause.RESCALE),
    "colour": (
        lambda: _with(make_series(), 1, SamplesPerPixel=3, PhotometricInterpretation="RGB"),
        Cause.COLOUR,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_regular_stack_is_refused_with_the_reason(name):
    make, cause = REFUSED[name]
    assert refusal(make()).cause is cause


def test_the_refusal_of_echoes_says_what_tells_them_apart():
    assert "EchoTime" in str(refusal(_echoes()))


def test_the_refusal_of_a_hole_counts_the_missing_slices():
    images = make_series(depth=8)
    assert "2 slices are missing" in str(refusal(images[:3] + images[5:]))


def test_rounded_positions_are_still_regular():
    positions = [(-100.0, -90.0, round(3.333 * i, 2)) for i in range(30)]
    assert read_volume(make_series(positions=positions)).spacing_mm[2] == pytest.approx(3.333, abs=1e-3)


def _real_series(folder: str) -> dict[str, list[Dataset]]:
    found = defaultdict(list)
    for path in sorted((DATA / folder).rglob("*")):
        if path.is_file() and path.suffix != ".txt":
            dataset = pydicom.dcmread(path, force=True)
            if "SeriesInstanceUID" in dataset:
                found[str(dataset.SeriesInstanceUID)].append(dataset)
    return found


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/dicom is not there")


@pytest.mark.data
@needs_data
@pytest.mark.filterwarnings("ignore")  # pydicom warns about what these files get wrong
@pytest.mark.parametrize(
    "folder",
    [
        "series/mr_t1_7t_structural",
        "series/ct_head_ge_gantry_tilt",
        "series/ct_head_philips_phantom",
        "series/pydicom_dicomdir_study",
        "enhanced_multiframe",
    ],
)
def test_every_real_series_reads_or_is_refused_with_a_reason(folder):
    outcomes = []
    for images in _real_series(folder).values():
        try:
            volume = read_volume(images)
        except UnstackableSeriesError as error:
            outcomes.append(error.cause)
        else:
            outcomes.append("read")
            assert len(volume.frames) == len(volume.array)
            assert np.isfinite(volume.array).all()
    assert outcomes
    expected = {
        "series/mr_t1_7t_structural": ["read"],
        "series/ct_head_ge_gantry_tilt": [Cause.TILTED],
        "series/ct_head_philips_phantom": [Cause.TILTED],
    }
    assert outcomes == expected.get(folder, outcomes)


@pytest.mark.data
@needs_data
@pytest.mark.filterwarnings("ignore")
def test_a_field_map_with_two_echoes_a_position_is_refused():
    image = pydicom.dcmread(DATA / "enhanced_multiframe" / "dcm_qa_enh__IM_0027_fMAP.dcm")
    error = refusal([image])
    assert error.cause is Cause.SAME_POSITION
    assert "EffectiveEchoTime" in str(error)


@pytest.mark.data
@needs_data
@pytest.mark.filterwarnings("ignore")
def test_one_image_reads_the_same_in_every_lossless_transfer_syntax():
    folder = DATA / "transfer_syntaxes"
    lossless = (
        "Implicit",
        "LittleEndianExplicit",
        "BigEndian",
        "Deflated",
        "RLE",
        "Process14",
        "JPEG2000Lossless",
    )
    paths = [p for p in folder.glob("cornerstone__CTImage.dcm_*") if any(word in p.name for word in lossless)]
    arrays = [read_volume([pydicom.dcmread(path)]).array for path in paths]
    assert len(arrays) >= 6
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])
