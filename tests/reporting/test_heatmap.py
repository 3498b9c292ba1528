from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage
from reporting_cases import (
    OTHER_STUDY_UID,
    STUDY_UID,
    ct_series,
    frames_of,
    heat_of,
    make_case,
    make_detection_case,
    make_enhanced_case,
    make_fusion_case,
    make_head_ct_case,
    results_of,
    violations_of,
)

from inference.findings import Heatmap
from reporting.context import ResultKind
from reporting.errors import UnencodableResultError
from reporting.heatmap import MOST_FRAMES, decode_heatmap


def maps_of(case):
    return [o.dataset for o in results_of(case) if o.kind is ResultKind.HEATMAP]


def with_heatmap(case, heatmap):
    return replace(case, reading=replace(case.reading, heatmaps=(heatmap,)))


def test_a_parametric_map_holds_the_values_on_their_slices_and_no_empty_one():
    case = make_head_ct_case()
    (stored,) = maps_of(case)
    values, frames = decode_heatmap(stored)
    (heatmap,) = case.reading.heatmaps
    assert stored.SOPClassUID == ParametricMapStorage
    assert set(frames) == set(heatmap.frames[2:4])
    for plane, frame in zip(values, frames, strict=True):
        assert np.array_equal(plane, heatmap.values[heatmap.frames.index(frame)])


def test_a_parametric_map_says_what_its_values_are():
    (stored,) = maps_of(make_head_ct_case())
    (mapping,) = stored.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "130403"
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "{ratio}"


def test_a_parametric_map_of_a_multiframe_image_lies_on_its_frames():
    case = make_enhanced_case()
    values = np.zeros((6, 32, 32), np.float32)
    values[1, 4:8, 4:8] = 0.5
    heatmap = Heatmap(values=values, series_uid=case.mask.series_uid, frames=case.mask.frames, answer="F1")
    case = with_heatmap(case, heatmap)
    (stored,) = maps_of(case)
    decoded, frames = decode_heatmap(stored)
    assert decoded[frames.index(case.mask.frames[1])].max() == 0.5
    assert violations_of(case) == ()


def test_only_the_hottest_frames_of_a_large_map_are_kept():
    series = ct_series(MOST_FRAMES + 4)
    values = np.full((len(series), 32, 32), 0.5, np.float32)
    values[:4] = 0.1
    case = make_head_ct_case()
    heatmap = replace(heat_of(series, "F1"), values=values, frames=frames_of(series))
    case = with_heatmap(replace(case, series=series), heatmap)
    (stored,) = maps_of(case)
    assert int(stored.NumberOfFrames) == MOST_FRAMES
    assert violations_of(case) == ()


def test_a_radiographs_heat_map_is_painted_over_it():
    (stored,) = maps_of(make_detection_case())
    assert stored.SOPClassUID == SecondaryCaptureImageStorage
    assert "NOT REVIEWED" in stored.DerivationDescription
    pixels = stored.pixel_array.astype(int)
    assert ((pixels[..., 0] - pixels[..., 2]) > 60).sum() > 1000


def test_a_map_is_filed_in_the_study_of_its_images():
    studies = [stored.StudyInstanceUID for stored in maps_of(make_fusion_case())]
    assert studies == [STUDY_UID, OTHER_STUDY_UID]
    assert violations_of(make_fusion_case()) == ()


def test_an_empty_map_has_no_object():
    case = make_head_ct_case()
    (heatmap,) = case.reading.heatmaps
    assert maps_of(with_heatmap(case, replace(heatmap, values=np.zeros_like(heatmap.values)))) == []


def test_a_map_of_another_shape_or_of_nothing_said_is_refused():
    case = make_head_ct_case()
    (heatmap,) = case.reading.heatmaps
    with pytest.raises(UnencodableResultError, match="shape"):
        maps_of(with_heatmap(case, replace(heatmap, values=heatmap.values[:, :16])))
    with pytest.raises(UnencodableResultError, match="answer"):
        maps_of(with_heatmap(case, replace(heatmap, answer="F9")))


def test_a_segmented_lesion_names_its_map_in_the_volumes():
    case = make_case()
    case = with_heatmap(case, heat_of(case.series, "F1"))
    assert violations_of(case) == ()
    kinds = {o.kind: o.dataset for o in results_of(case)}
    uid = kinds[ResultKind.HEATMAP].SOPInstanceUID
    assert str(uid) in str(kinds[ResultKind.VOLUMES])
