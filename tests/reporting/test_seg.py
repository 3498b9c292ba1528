from __future__ import annotations

from dataclasses import replace

import highdicom
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from reporting_cases import CONTEXT, MODEL, make_case, make_enhanced_case, mr_series, two_lesions

from inference.findings import FrameReference
from reporting.context import ResultKind, ResultProfile, SegmentationForm
from reporting.envelope import Envelope
from reporting.errors import UnencodableResultError
from reporting.seg import decode_segmentation, encode_segmentation

PROFILES = [
    ResultProfile(),
    ResultProfile(segmentation=SegmentationForm.LABELMAP),
    ResultProfile(segmentation=SegmentationForm.LABELMAP, is_compressed=True),
]


def encode(case, profile=PROFILES[0]):
    envelope = Envelope(
        kind=ResultKind.SEGMENTATION,
        source=case.series[0],
        models=(MODEL,),
        context=replace(CONTEXT, profile=profile),
    )
    return encode_segmentation(case.analysis, case.mask, case.series, envelope)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.key)
@pytest.mark.parametrize("make", [make_case, make_enhanced_case])
def test_mask_comes_back_voxel_for_voxel(make, profile):
    case = make()
    segmentation = encode(case, profile)
    assert np.array_equal(decode_segmentation(segmentation, case.mask.frames), case.mask.labels)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    labels=st.tuples(st.integers(1, 5), st.integers(3, 18), st.integers(3, 18)).flatmap(
        lambda shape: arrays.arrays(np.uint8, shape, elements=st.integers(0, 2))
    ),
    profile=st.sampled_from(PROFILES),
)
def test_any_mask_comes_back_voxel_for_voxel(labels, profile):
    case = make_case(mr_series(*labels.shape), labels, with_points=False)
    segmentation = encode(case, profile)
    if not labels.any():
        assert segmentation is None
        return
    assert np.array_equal(decode_segmentation(segmentation, case.mask.frames), labels)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.key)
def test_the_nth_item_of_the_segment_sequence_is_segment_n(case, profile):
    segmentation = encode(case, profile)
    numbers = [int(item.SegmentNumber) for item in segmentation.SegmentSequence]
    assert numbers == ([1, 2, 0] if profile.segmentation is SegmentationForm.LABELMAP else [1, 2])


def test_highdicom_reads_the_same_volume(case):
    segmentation = highdicom.seg.Segmentation.from_dataset(encode(case))
    volume = segmentation.get_volume(combine_segments=True)
    occupied = case.mask.labels.any(axis=(1, 2))
    first = int(np.flatnonzero(occupied)[0])
    frames = case.mask.labels[first : first + volume.array.shape[0]]
    assert np.array_equal(np.sort(volume.array.ravel()), np.sort(frames.ravel()))


@pytest.mark.parametrize("shape", [(8, 25, 12), (20, 9, 9), (7, 30, 30)])
def test_one_bit_pixels_fill_whole_words_where_the_series_allows_it(shape):
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 3:7, 3:7] = 1
    labels[4, 0:2, 0:2] = 2
    case = make_case(mr_series(*shape), labels, with_points=False)
    segmentation = encode(case)
    assert shape[1] * shape[2] * int(segmentation.NumberOfFrames) % 16 == 0
    assert np.array_equal(decode_segmentation(segmentation, case.mask.frames), labels)


def test_an_odd_series_that_is_too_short_is_still_encoded():
    labels = np.zeros((2, 5, 5), np.uint8)
    labels[1, 2, 2] = 1
    labels[0, 1, 1] = 2
    case = make_case(mr_series(2, 5, 5), labels, with_points=False)
    assert np.array_equal(decode_segmentation(encode(case), case.mask.frames), labels)


def test_segments_say_what_where_and_by_whom(case):
    segments = encode(case).SegmentSequence
    assert [s.SegmentLabel for s in segments] == ["FLAIR abnormality 1", "FLAIR abnormality 2"]
    first = segments[0]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert first.AnatomicRegionSequence[0].CodeValue == "12738006"
    assert first.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning == "Right"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.name, MODEL.version)
    assert MODEL.weights_sha256 in str(algorithm.AlgorithmParameters)
    assert segments[0].TrackingUID != segments[1].TrackingUID
    assert "RecommendedDisplayCIELabValue" in first


def test_profiles_have_names_of_their_own(case):
    uids = {encode(case, profile).SOPInstanceUID for profile in PROFILES}
    assert len(uids) == len(PROFILES)


def test_an_empty_mask_has_no_segmentation(case):
    assert encode(case.without_findings()) is None


def test_a_label_without_a_finding_is_refused(case):
    labels = two_lesions()
    labels[0, 0, 0] = 3
    reading = replace(case.reading, mask=replace(case.mask, labels=labels))
    with pytest.raises(UnencodableResultError, match="labels"):
        encode(replace(case, reading=reading))


def test_a_mask_on_unknown_images_is_refused(case):
    with pytest.raises(UnencodableResultError, match="headers"):
        encode(replace(case, series=case.series[1:]))


def test_a_mask_of_another_shape_is_refused(case):
    for header in case.series:
        header.Rows = 31
    with pytest.raises(UnencodableResultError, match="shape"):
        encode(case)


def test_images_without_a_frame_of_reference_are_refused(case):
    for header in case.series:
        del header.FrameOfReferenceUID
    with pytest.raises(UnencodableResultError, match="Frame of Reference"):
        encode(case)


def test_decoding_refuses_frames_that_the_mask_lacks(case):
    frames = (FrameReference(sop_instance_uid="1.2.3"),) * len(case.mask.frames)
    with pytest.raises(UnencodableResultError, match="no source image"):
        decode_segmentation(encode(case), frames)


def test_compression_is_for_label_maps_only():
    with pytest.raises(ValueError, match="label maps"):
        ResultProfile(is_compressed=True)
