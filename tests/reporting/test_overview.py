from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from reporting_cases import (
    by_kind,
    make_case,
    make_detection_case,
    make_enhanced_case,
    make_label_case,
    make_outlined_detection_case,
    mr_series,
    results_of,
)

from inference.findings import FrameReference
from inference.radiograph import Turn
from reporting.codes import code_finding
from reporting.context import ResultKind
from reporting.errors import UnencodableResultError
from reporting.geometry import read_plane
from reporting.overview import choose_slices, draw_overview, preview_png


@pytest.mark.parametrize("make", [make_case, make_enhanced_case])
def test_preview_and_object_are_the_same_picture(make):
    case = make()
    png = preview_png(case.reading, case.series)
    assert png is not None
    picture = np.asarray(Image.open(io.BytesIO(png)))
    stored = by_kind(results_of(case))[ResultKind.OVERVIEW]
    assert np.array_equal(stored.pixel_array, picture)
    assert np.array_equal(draw_overview(case.reading, case.series), picture)


def test_contours_are_drawn(case):
    picture = draw_overview(case.reading, case.series)
    assert (picture == (255, 90, 70)).all(axis=-1).sum() > 500
    assert (picture == (255, 200, 60)).all(axis=-1).sum() > 200


def test_the_object_says_what_it_is_and_from_which_images(case):
    stored = by_kind(results_of(case))[ResultKind.OVERVIEW]
    assert stored.BurnedInAnnotation == "NO"
    assert stored.RecognizableVisualFeatures == "NO"
    assert "NOT REVIEWED" in stored.DerivationDescription
    shown = [item.ReferencedSOPInstanceUID for item in stored.SourceImageSequence]
    assert shown == [case.series[i].SOPInstanceUID for i in choose_slices(case.mask, case.analysis.findings)]


def test_what_a_source_says_of_itself_is_believed(case):
    case.series[2].BurnedInAnnotation = "YES"
    assert by_kind(results_of(case))[ResultKind.OVERVIEW].BurnedInAnnotation == "YES"


def test_at_most_nine_slices_and_every_key_slice():
    labels = np.zeros((40, 16, 16), np.uint8)
    labels[3:38, 4:8, 4:8] = 1
    labels[20, 12, 12] = 2
    case = make_case(mr_series(40, 16, 16), labels)
    chosen = choose_slices(case.mask, case.analysis.findings)
    assert len(chosen) == 9
    assert chosen == sorted(chosen)
    assert {2, 4} <= set(chosen)


def test_edges_are_labelled_by_the_patients_sides(case):
    plane = read_plane(case.series, case.mask.frames[0])
    assert (plane.left_letter, plane.right_letter, plane.bottom_letter) == ("R", "L", "P")
    for header in case.series:
        header.ImageOrientationPatient = [-1, 0, 0, 0, 0, -1]
    plane = read_plane(case.series, case.mask.frames[0])
    assert (plane.left_letter, plane.right_letter, plane.bottom_letter) == ("L", "R", "F")


def test_nothing_to_show_is_no_picture(case):
    assert preview_png(case.without_findings().reading, case.series) is None
    assert preview_png(replace(case.reading, background=None), case.series) is None


def test_a_background_of_another_shape_is_refused(case):
    reading = replace(case.reading, background=np.zeros((1, 2, 3), np.float32))
    with pytest.raises(UnencodableResultError, match="shape"):
        draw_overview(reading, case.series)


def test_an_image_without_a_position_is_refused(case):
    del case.series[0].ImagePositionPatient
    with pytest.raises(UnencodableResultError, match="position"):
        read_plane(case.series, case.mask.frames[0])
    with pytest.raises(UnencodableResultError, match="headers"):
        read_plane(case.series, FrameReference(sop_instance_uid="1.2"))


def test_a_radiograph_is_shown_with_its_boxes():
    case = make_detection_case()
    stored = by_kind(results_of(case))[ResultKind.OVERVIEW]
    (image,) = stored.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == case.series[0].SOPInstanceUID
    assert "NOT REVIEWED" in stored.DerivationDescription
    for finding in case.analysis.findings:
        colour = code_finding(finding.concept).rgb
        assert (stored.pixel_array == colour).all(axis=-1).sum() > 200


def test_a_mask_on_a_radiograph_is_tinted_and_has_no_segmentation():
    case = make_outlined_detection_case()
    assert ResultKind.SEGMENTATION not in by_kind(results_of(case))
    plain = replace(case, reading=replace(case.reading, mask=None))
    tinted, untinted = (draw_overview(c.reading, c.series).astype(int) for c in (case, plain))
    assert (abs(tinted - untinted).sum(axis=-1) > 30).sum() > 5000


def test_boxes_are_drawn_on_the_upright_image():
    case = make_detection_case()
    turn = Turn(flips_columns=True)
    mirrored = tuple(replace(radiograph, turn=turn) for radiograph in case.reading.radiographs)
    there = replace(case.reading, radiographs=mirrored)
    colour = code_finding("nodule").rgb
    boxes = [(draw_overview(r, case.series)[:900] == colour).all(axis=-1) for r in (case.reading, there)]
    assert np.nonzero(boxes[0])[1].mean() < np.nonzero(boxes[1])[1].mean()


def test_labels_alone_have_no_picture():
    assert ResultKind.OVERVIEW not in by_kind(results_of(make_label_case()))
