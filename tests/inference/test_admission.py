from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from inference import admission
from inference.admission import admit_header, admit_radiograph, admit_volume, is_blocked
from inference.chest_reference import ChestPose, chest_pose
from inference.findings import Caveat, FrameReference
from inference.radiograph import Radiograph
from inference.volume import Volume

SHAPE = (256, 256)
ROWS, COLUMNS = np.indices(SHAPE)


def ellipse(row, column, half_rows, half_columns):
    return ((ROWS - row) / half_rows) ** 2 + ((COLUMNS - column) / half_columns) ** 2 <= 1


def chest():
    """A chest from afar: dark lungs in a bright body, heart and spine between, abdomen below."""
    image = np.full(SHAPE, 0.75)
    image[ellipse(110, 70, 90, 42) | ellipse(110, 186, 90, 42)] = 0.25
    image[ellipse(150, 140, 55, 45)] = 0.85
    image[:, 118:138] = 0.85
    image[205:] = 0.85
    image[:40, :45] = image[:40, -45:] = 0.1
    noise = np.random.default_rng(0).normal(0, 0.02, SHAPE)
    return np.clip(ndimage.gaussian_filter(image, 6) + noise, 0, 1).astype(np.float32)


def radiograph(array, view="PA"):
    return Radiograph(
        array=np.ascontiguousarray(array, dtype=np.float32),
        frame=FrameReference(sop_instance_uid="1.1"),
        series_uid="1",
        modality="DX",
        view=view,
    )


def volume(plane, modality="MR", spacing=0.9, depth=6, noise=3.0):
    array = np.repeat(plane[None], depth, axis=0) + np.random.default_rng(0).normal(
        0, noise, (depth, *plane.shape)
    )
    return Volume(
        array=array.astype(np.float32),
        affine=np.diag((spacing, spacing, 5.0, 1.0)),
        frames=tuple(FrameReference(sop_instance_uid=f"1.{i}") for i in range(depth)),
        series_uid="1",
        frame_of_reference_uid="1",
        modality=modality,
    )


def mr_head():
    plane = np.where(ellipse(128, 128, 105, 82), 60.0, 2.0)
    plane[ellipse(128, 128, 60, 45)] = 110.0
    plane[ellipse(128, 115, 25, 8) | ellipse(128, 141, 25, 8)] = 20.0
    return plane


def ct_head(brain=35.0):
    plane = np.where(ellipse(128, 128, 105, 82), 40.0, -1000.0)
    plane[ellipse(128, 128, 98, 75)] = 1000.0
    plane[ellipse(128, 128, 90, 67)] = brain
    return plane


def caveats(doubts):
    return [(doubt.caveat, doubt.is_blocking) for doubt in doubts]


def test_a_chest_a_head_in_mr_and_a_head_in_ct_are_admitted():
    assert chest_pose(chest()).ratio < 1
    assert not is_blocked(admit_radiograph(radiograph(chest())))
    assert admit_volume(volume(mr_head()), "mr_tissue") == ()
    assert admit_volume(volume(ct_head(), "CT"), "ct_windows") == ()


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("inverted", [False, True])
def test_the_way_a_radiograph_is_shown_is_found(turns, inverted):
    if turns == 0 and not inverted:
        return
    array = np.rot90(chest(), -turns)
    pose = chest_pose(1 - array if inverted else array)
    assert (pose.quarter_turns, pose.is_inverted) == (turns, inverted)
    assert pose.ratio > 1


@pytest.mark.parametrize(
    ("pose", "expected"),
    [
        (ChestPose(distance=1.0, best_distance=2.0, quarter_turns=1, is_inverted=False), []),
        (
            ChestPose(distance=1.8, best_distance=1.0, quarter_turns=0, is_inverted=True),
            [(Caveat.WRONG_WINDOW, True)],
        ),
        (
            ChestPose(distance=2.2, best_distance=1.1, quarter_turns=1, is_inverted=False),
            [(Caveat.OUT_OF_DISTRIBUTION, True)],
        ),
        (
            ChestPose(distance=1.65, best_distance=1.6, quarter_turns=2, is_inverted=False),
            [(Caveat.OUT_OF_DISTRIBUTION, False)],
        ),
        (
            ChestPose(distance=2.3, best_distance=2.4, quarter_turns=1, is_inverted=False),
            [(Caveat.WRONG_BODY_PART, False)],
        ),
        (
            ChestPose(distance=3.3, best_distance=3.1, quarter_turns=1, is_inverted=False),
            [(Caveat.WRONG_BODY_PART, True)],
        ),
    ],
)
def test_what_follows_from_the_way_a_radiograph_is_shown(monkeypatch, pose, expected):
    monkeypatch.setattr(admission, "chest_pose", lambda _: pose)
    assert caveats(admit_radiograph(radiograph(chest()))) == expected


def test_a_view_from_the_side_is_refused_by_its_label():
    assert caveats(admit_radiograph(radiograph(chest(), "LL"))) == [(Caveat.WRONG_BODY_PART, True)]
    assert admit_radiograph(radiograph(chest(), "LL"), is_chest=False) == ()


def test_collimated_borders_do_not_matter():
    framed = np.zeros((330, 300), dtype=np.float32)
    framed[40:296, 22:278] = chest()
    framed_pose, pose = chest_pose(framed), chest_pose(chest())
    assert framed_pose.distance == pytest.approx(pose.distance, abs=0.4)
    assert framed_pose.ratio < 1


def half_empty(array):
    cut = array.copy()
    cut[..., array.shape[-2] // 2 :, :] = 0
    return cut


@pytest.mark.parametrize(
    "array",
    [
        np.full(SHAPE, np.nan),
        np.zeros(SHAPE),
        chest()[::5, ::5],
        half_empty(chest()),
        np.random.default_rng(0).random(SHAPE),
    ],
    ids=["undefined", "constant", "tiny", "cut off", "noise"],
)
def test_broken_radiographs_are_refused(array):
    assert caveats(admit_radiograph(radiograph(array))) == [(Caveat.CORRUPTED, True)]


def test_a_picture_of_two_greys_is_a_wrong_window():
    two = np.where(chest() > 0.5, 1.0, 0.0)
    assert caveats(admit_radiograph(radiograph(two))) == [(Caveat.WRONG_WINDOW, True)]


def test_broken_volumes_are_refused():
    head = volume(mr_head(), noise=0.0)
    empty_slices = head.array.copy()
    empty_slices[1:] = 0
    for array in (
        np.full_like(head.array, np.nan),
        np.zeros_like(head.array),
        half_empty(head.array),
        np.random.default_rng(0).normal(size=head.array.shape).astype(np.float32),
        empty_slices,
    ):
        broken = Volume(
            array=array,
            affine=head.affine,
            frames=head.frames,
            series_uid="1",
            frame_of_reference_uid="1",
            modality="MR",
        )
        assert caveats(admit_volume(broken, "mr_tissue")) == [(Caveat.CORRUPTED, True)]


def test_a_windowed_ct_is_no_ct_in_hounsfield_units():
    windowed = np.clip((ct_head() + 20) / 100, 0, 1) * 255
    assert caveats(admit_volume(volume(windowed, "CT", noise=0.0), "ct_windows")) == [
        (Caveat.WRONG_WINDOW, True)
    ]
    assert admit_volume(volume(windowed, "CT", noise=0.0), "unit_range", ()) == ()


@pytest.mark.parametrize(
    ("plane", "caveat"),
    [
        (ct_head(brain=-990.0), Caveat.NOT_A_PATIENT),
        (np.where(ellipse(128, 128, 90, 90), 0.0, -1000.0), Caveat.NOT_A_PATIENT),
    ],
    ids=["skull without brain", "water"],
)
def test_a_ct_of_a_phantom_is_refused(plane, caveat):
    assert caveats(admit_volume(volume(plane, "CT"), "ct_windows")) == [(caveat, True)]


def test_an_mr_of_a_phantom_an_inverted_one_and_a_trunk_are_refused():
    cylinder = np.where(ellipse(128, 128, 95, 95), 100.0, 1.0)
    assert caveats(admit_volume(volume(cylinder, noise=1.0), "mr_tissue")) == [(Caveat.NOT_A_PATIENT, True)]
    inverted = admit_volume(volume(120 - mr_head()), "mr_tissue")
    assert caveats(inverted) == [(Caveat.WRONG_WINDOW, True)]
    trunk = admit_volume(volume(mr_head(), spacing=1.8), "mr_tissue")
    assert caveats(trunk) == [(Caveat.WRONG_BODY_PART, True)]
    assert admit_volume(volume(mr_head(), spacing=1.8), "mr_tissue", ("liver",)) == ()


@pytest.mark.parametrize(
    ("header", "sites", "expected"),
    [
        ({"BodyPartExamined": "HEAD", "StudyDescription": "MR Hirn"}, ("brain",), []),
        ({"BodyPartExamined": "WHOLEBODY"}, ("brain",), []),
        ({"BodyPartExamined": "HEADNECK"}, ("brain",), []),
        ({"BodyPartExamined": "KNEE"}, ("brain",), [(Caveat.WRONG_BODY_PART, False)]),
        ({"StudyDescription": "SHOULDER"}, ("brain",), [(Caveat.WRONG_BODY_PART, False)]),
        ({"BodyPartExamined": "CHEST", "StudyDescription": "Hand"}, ("chest",), []),
        (
            {"BodyPartExamined": "L_SPINE", "SeriesDescription": "MRI LUMBAR SPINE"},
            ("brain",),
            [(Caveat.WRONG_BODY_PART, True)],
        ),
        ({"BodyPartExamined": "KNEE"}, ("unheard_of",), []),
        ({"SeriesDescription": "ACR Phantom T1"}, ("brain",), [(Caveat.NOT_A_PATIENT, True)]),
        ({"ProtocolName": "Daily QA"}, ("brain",), [(Caveat.NOT_A_PATIENT, False)]),
        (
            {"BodyPartExamined": "Bäcken", "StudyDescription": "BÄCKEN FRONTAL"},
            ("chest",),
            [],
        ),
        ({"ViewPosition": "LL", "Modality": "DX"}, ("lung",), [(Caveat.WRONG_BODY_PART, True)]),
    ],
)
def test_what_a_header_says_of_itself(header, sites, expected):
    assert caveats(admit_header(header, sites)) == expected


def test_a_head_that_is_wider_than_long_is_doubted():
    turned = admit_volume(volume(np.rot90(mr_head())), "mr_tissue")
    assert caveats(turned) == [(Caveat.OUT_OF_DISTRIBUTION, False)]


def test_grey_air_and_padding_far_below_zero_do_not_block():
    assert not is_blocked(admit_volume(volume(mr_head() + 40), "mr_tissue"))
    padded = volume(mr_head())
    padded.array[..., :20] = -19595.0
    assert not is_blocked(admit_volume(padded, "mr_tissue"))


def test_no_sentence_quotes_the_header():
    doubts = admit_header({"StudyDescription": "KNEE of Mr Smith"}, ("brain",))
    assert "Smith" not in doubts[0].sentence
