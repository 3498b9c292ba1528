from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign_packages import SIDE, small_network, write_bundle_package, write_torchscript_package

from inference.activation import UnexpectedOutputError, to_probabilities
from inference.findings import FrameReference, Quantity
from inference.packages import load_package
from inference.reading import read_study
from inference.runner import Prediction, Runner, RunStatistics, count_windows
from inference.segmentation import MissingInputError
from inference.volume import Volume
from inference.volume_segmentation import segment_volume


def make_volume(array, affine=None):
    return Volume(
        array=np.asarray(array, dtype=np.float32),
        affine=np.eye(4) if affine is None else affine,
        frames=tuple(FrameReference(sop_instance_uid=f"1.2.{i}") for i in range(len(array))),
        series_uid="1.2",
        frame_of_reference_uid="1.3",
        modality="MR",
    )


class Painter:
    """Says that bright voxels are white matter, less bright ones grey matter."""

    def predict_volume(self, package, volume, progress=None):
        white, grey = volume[0] > 0.8, (volume[0] > 0.3) & (volume[0] <= 0.8)
        return Prediction(
            probabilities=np.stack([white, grey]).astype(np.float32),
            statistics=RunStatistics(images=1, seconds=1.0, batch_size=1, device="cpu"),
        )


@pytest.fixture
def tissue():
    """Return (10, 12, 14) with a white block of 3 x 4 x 5 voxels, a grey one, and a grey crumb."""
    array = np.zeros((10, 12, 14), dtype=np.float32)
    array[2:5, 3:7, 4:9] = 1000
    array[6:9, 3:7, 4:9] = 500
    array[0, 0, 0] = 500
    return array


def test_each_label_is_measured_on_the_grid_of_its_images(tmp_path, tissue):
    package = load_package(write_torchscript_package(tmp_path))
    volume = make_volume(tissue, np.diag([1.0, 1.0, 1.0, 1.0]))
    outcome = segment_volume(package, {"t1": volume}, Painter(), "1.9")
    white, grey = outcome.analysis.findings
    assert [white.concept, grey.concept] == ["white_matter", "gray_matter"]
    assert white.measured(Quantity.VOLUME).value == pytest.approx(0.060)
    assert grey.measured(Quantity.VOLUME).value == pytest.approx(0.061)
    np.testing.assert_array_equal(outcome.mask.labels == 1, tissue == 1000)
    np.testing.assert_array_equal(outcome.mask.labels == 2, tissue == 500)
    assert white.key_frame in volume.frames[2:5]
    assert outcome.mask.frames == volume.frames


def test_a_volume_at_another_spacing_keeps_its_measure(tmp_path, tissue):
    package = load_package(write_torchscript_package(tmp_path))
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    affine[:3, 3] = (7.0, -3.0, 11.0)
    larger = tissue.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    outcome = segment_volume(package, {"t1": make_volume(larger, affine)}, Painter(), "1.9")
    assert outcome.mask.labels.shape == larger.shape
    measured = outcome.analysis.findings[0].measured(Quantity.VOLUME)
    assert measured.value == pytest.approx(60 * 64 * 0.0005, rel=0.1)
    assert any("network's spacing" in note for note in outcome.analysis.notes)


def test_crumbs_are_dropped_where_the_card_says_so(tmp_path, tissue):
    package = load_package(write_torchscript_package(tmp_path, options={"keep_largest": True}))
    outcome = segment_volume(package, {"t1": make_volume(tissue)}, Painter(), "1.9")
    assert outcome.mask.labels[0, 0, 0] == 0
    assert outcome.analysis.findings[1].measured(Quantity.VOLUME).value == pytest.approx(0.060)


def test_a_label_that_is_not_there_is_named_and_the_numbers_stay_without_gaps(tmp_path, tissue):
    package = load_package(write_torchscript_package(tmp_path))
    only_grey = np.where(tissue == 1000, 0, tissue)
    only_grey[9, 11, 13] = 0
    volume = make_volume(only_grey)
    volume.array[0, 0, 0] = 0

    class GreyOnly(Painter):
        def predict_volume(self, package, volume, progress=None):
            painted = super().predict_volume(package, volume)
            return Prediction(
                probabilities=np.roll(painted.probabilities, 1, axis=0)
                * np.array([0, 1])[:, None, None, None],
                statistics=painted.statistics,
            )

    outcome = segment_volume(package, {"t1": volume}, GreyOnly(), "1.9")
    assert [finding.segment_number for finding in outcome.analysis.findings] == [1]
    assert outcome.analysis.findings[0].concept == "gray_matter"
    assert any("White matter" in note for note in outcome.analysis.notes)


def test_a_missing_series_is_named(tmp_path):
    package = load_package(write_torchscript_package(tmp_path))
    with pytest.raises(MissingInputError, match="t1"):
        segment_volume(package, {}, Painter(), "1.9")


def test_the_one_door_sends_volumes_to_3d_networks_and_windows_blend_as_monai_does(tmp_path):
    package = load_package(write_bundle_package(tmp_path))
    rng = np.random.default_rng(0)
    volume = make_volume(rng.normal(10, 3, size=(20, 24, 18)), np.diag([-1.0, -1.0, 1.0, 1.0]))
    seen = []
    outcome = read_study(package, {"t1": volume}, Runner("cpu"), "1.9", lambda *done: seen.append(done))
    total = count_windows((18, 24, 20), (SIDE,) * 3, 0.5)
    assert seen[-1] == (total, total)

    from monai.inferers import SlidingWindowInferer

    array = volume.array.transpose(2, 1, 0)
    prepared = (array - array.mean()) / array.std()
    inferer = SlidingWindowInferer(roi_size=(SIDE,) * 3, sw_batch_size=1, overlap=0.5)
    with torch.inference_mode():
        output = inferer(torch.from_numpy(np.ascontiguousarray(prepared))[None, None], small_network())
    expected = output[0].argmax(dim=0).numpy().transpose(2, 1, 0)
    assert (outcome.mask.labels == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("shape", "overlap", "windows"), [((16, 16, 16), 0.5, 1), ((17, 16, 4), 0.5, 2), ((32, 24, 16), 0.5, 6)]
)
def test_windows_are_counted_as_monai_places_them(shape, overlap, windows):
    assert count_windows(shape, (SIDE,) * 3, overlap) == windows


def test_a_background_channel_is_no_label():
    logits = torch.tensor([[5.0, 1.0, 0.0]])
    probabilities = to_probabilities(logits, 2, "softmax")
    assert probabilities.shape == (1, 2)
    torch.testing.assert_close(probabilities, torch.softmax(logits, dim=1)[:, 1:])
    torch.testing.assert_close(to_probabilities(logits, 3, "sigmoid"), torch.sigmoid(logits))


@pytest.mark.parametrize(("labels", "activation"), [(2, "sigmoid"), (4, "softmax"), (1, "none")])
def test_channels_that_do_not_fit_the_labels_are_refused(labels, activation):
    with pytest.raises(UnexpectedOutputError, match="3 channels"):
        to_probabilities(torch.zeros(1, 3), labels, activation)
