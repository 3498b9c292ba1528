from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from head_volumes import all_roles, head_volume
from lgg_study import pack_lgg_patient
from random_model_package import random_card, write_random_package

from dicom_node.phantom import brain_mr_study
from inference.analysis_files import load_outcome, save_outcome
from inference.cards import ModelCard
from inference.findings import Laterality, Presence, Quantity
from inference.measurement import volume_ml
from inference.orientation import UnsuitablePlaneError
from inference.packages import ModelPackage, discover, load_package
from inference.preparation import prepare_slices, stack_context
from inference.resampling import RegistrationError
from inference.runner import Prediction, Runner, RunStatistics
from inference.segmentation import (
    MAX_FINDINGS,
    MissingInputError,
    assemble_input,
    find_regions,
    predict_slices,
    restore_probabilities,
    segment,
)
from inference.volume import read_volume

REPOSITORY = Path(__file__).resolve().parents[2]
LGG = REPOSITORY.parent / "shared" / "data" / "lgg"

needs_lgg = pytest.mark.skipif(not (LGG / "index.csv").is_file(), reason="../shared/data/lgg is not there")


class BrightFlair:
    """A predictor that marks what is bright in the prepared FLAIR channel."""

    def __init__(self, deviations: float = 2.0) -> None:
        self.deviations = deviations

    def predict(self, package, batch, progress=None) -> Prediction:
        probabilities = 1 / (1 + np.exp(-4 * (batch[:, 1:2] - self.deviations)))
        if progress is not None:
            progress(len(batch), len(batch))
        statistics = RunStatistics(images=len(batch), seconds=0.1, batch_size=4, device="cpu")
        return Prediction(probabilities=probabilities.astype(np.float32), statistics=statistics)


@pytest.fixture
def package(tmp_path) -> ModelPackage:
    return load_package(write_random_package(tmp_path))


def test_findings_are_numbered_from_the_largest_and_measured(package):
    volumes = all_roles(head_volume([(2, 100, 170, 12), (5, 120, 80, 20)]))
    outcome = segment(package, volumes, BrightFlair(), "1.2")
    analysis, mask = outcome.analysis, outcome.mask
    assert [f.finding_id for f in analysis.findings] == ["F1", "F2"]
    first, second = analysis.findings
    assert (first.laterality, second.laterality) == (Laterality.RIGHT, Laterality.LEFT)
    assert first.presence is Presence.PRESENT
    assert (first.concept, first.site) == ("neoplasm", "brain")
    assert first.measured(Quantity.VOLUME).value == pytest.approx(20 * 20 * 2 * 5 / 1000)
    assert first.measured(Quantity.VOLUME).unit == "mL"
    assert first.measured(Quantity.LONG_AXIS).value == pytest.approx(20 * 2**0.5, abs=1.5)
    assert first.long_axis.frame == first.key_frame == volumes["flair"].frames[5]
    assert 0.9 < first.confidence <= 1
    assert mask.frames == volumes["flair"].frames
    for finding in analysis.findings:
        region = mask.labels == finding.segment_number
        assert volume_ml(region, volumes["flair"].affine) == finding.measured(Quantity.VOLUME).value
    assert [i.role for i in analysis.inputs] == ["flair", "pre", "post"]
    assert (analysis.substitutions, analysis.notes) == ((), ())


def test_nothing_marked_is_no_finding_and_says_what_that_means(package):
    outcome = segment(package, all_roles(head_volume()), BrightFlair(9.0), "1.2")
    analysis, mask = outcome.analysis, outcome.mask
    assert analysis.findings == ()
    assert not mask.labels.any()
    assert "does not exclude disease" in analysis.notes[0]


def test_small_regions_are_dropped_and_corners_connect(package):
    flair = head_volume([(1, 90, 110, 2), (4, 100, 150, 10), (6, 110, 160, 10)])
    analysis = segment(package, all_roles(flair), BrightFlair(), "1.2").analysis
    assert len(analysis.findings) == 1
    assert analysis.findings[0].measured(Quantity.VOLUME).value == pytest.approx(2 * 200 * 5 / 1000)


def test_beyond_ten_findings_the_rest_is_united(package):
    flair = head_volume([(3, 60 + 12 * (i // 4), 90 + 16 * (i % 4), 5 + i % 3) for i in range(12)])
    outcome = segment(package, all_roles(flair), BrightFlair(), "1.2")
    analysis, mask = outcome.analysis, outcome.mask
    assert len(analysis.findings) == MAX_FINDINGS == mask.labels.max()
    last = analysis.findings[-1]
    assert last.long_axis is None
    assert last.measured(Quantity.VOLUME).value == pytest.approx(3 * 25 * 2 * 5 / 1000)
    assert "3 smaller regions are united in finding F10" in analysis.notes[0]


@pytest.mark.parametrize("route", ["missing", "stand-in"])
def test_a_missing_series_is_replaced_and_said(package, route):
    volumes = all_roles(head_volume([(2, 100, 170, 12)]))
    del volumes["pre"]
    if route == "stand-in":
        volumes["pre"] = volumes["flair"]
    model_input = assemble_input(package, volumes)
    assert model_input.substitutions == (("pre", "flair"),)
    assert "flair series stood in for the pre series" in model_input.notes[0]
    np.testing.assert_array_equal(model_input.channels[0], volumes["flair"].array)
    assert [i.role for i in model_input.inputs] == ["flair", "post"]


def test_a_series_of_another_frame_of_reference_counts_as_missing(package):
    volumes = all_roles(head_volume())
    volumes["post"] = replace(volumes["post"], frame_of_reference_uid="1.10")
    model_input = assemble_input(package, volumes)
    assert model_input.substitutions == (("post", "flair"),)
    assert "frames of reference" in model_input.notes[0]
    assert [i.role for i in model_input.inputs] == ["flair", "pre"]


def test_a_required_series_is_required(package):
    volumes = all_roles(head_volume())
    del volumes["flair"]
    with pytest.raises(MissingInputError, match="flair"):
        segment(package, volumes, BrightFlair(), "1.2")


def test_a_required_series_on_another_frame_of_reference_is_an_error(tmp_path):
    card = random_card("0" * 64)
    card["input"]["roles"][2] = {"name": "post", "required": True}
    package = ModelPackage(card=ModelCard.model_validate(card), folder=tmp_path)
    volumes = all_roles(head_volume())
    volumes["post"] = replace(volumes["post"], frame_of_reference_uid="1.10")
    with pytest.raises(RegistrationError):
        assemble_input(package, volumes)


def test_a_larger_matrix_gives_the_same_finding(package):
    small = segment(package, all_roles(head_volume([(2, 100, 170, 12)])), BrightFlair(), "1.2").analysis
    flair = head_volume([(2, 200, 340, 24)], shape=(8, 512, 512))
    affine = flair.affine @ np.diag((0.5, 0.5, 1.0, 1.0))
    outcome = segment(package, {"flair": replace(flair, affine=affine)}, BrightFlair(), "1.2")
    large, mask = outcome.analysis, outcome.mask
    assert mask.labels.shape == (8, 512, 512)
    volumes_ml = [a.findings[0].measured(Quantity.VOLUME).value for a in (small, large)]
    assert volumes_ml[1] == pytest.approx(volumes_ml[0], rel=0.1)


def test_a_real_network_runs_the_whole_way_and_its_analysis_keeps(package, tmp_path):
    study = brain_mr_study(1, matrix=64, slices=4)
    names = {"pre": "AX T1", "flair": "AX FLAIR", "post": "AX T1 POST GAD"}
    volumes = {role: read_volume(study.series(name)) for role, name in names.items()}
    calls = []
    saved = segment(package, volumes, Runner("cpu"), study.study_uid, lambda *done: calls.append(done))
    assert calls[-1] == (4, 4)
    loaded = load_outcome(save_outcome(tmp_path / "run", saved))
    assert loaded.analysis == saved.analysis
    np.testing.assert_array_equal(loaded.mask.labels, saved.mask.labels)


def _shipped_or_random(tmp_path: Path) -> ModelPackage:
    shipped = discover(REPOSITORY / "models").newest.get("brain-tumour-lgg")
    return shipped or load_package(write_random_package(tmp_path))


@pytest.mark.data
@needs_lgg
@pytest.mark.slow
@pytest.mark.parametrize("patient_id", ["TCGA_CS_4941_19960909", "TCGA_FG_7634_20000128"])
def test_the_node_marks_exactly_what_the_network_marks_on_the_raw_slices(tmp_path, patient_id):
    package = _shipped_or_random(tmp_path)
    study = pack_lgg_patient(LGG, patient_id, shuffle=True)
    volumes = {role: read_volume(images[::-1]) for role, images in study.series.items()}
    mask = segment(package, volumes, Runner("cpu"), "1.2").mask
    slices = stack_context(prepare_slices(study.channels), package.card.input.context)
    direct = np.zeros(study.channels.shape[1:], dtype=np.uint8)
    probabilities = restore_probabilities(predict_slices(package, slices, Runner("cpu")), volumes["flair"])
    for number, region in enumerate(find_regions(package, probabilities), start=1):
        direct[region.mask] = number
    np.testing.assert_array_equal(mask.labels, direct)
    if package.card.name == "brain-tumour-lgg":
        overlap = (mask.labels > 0) & study.reference_mask
        assert 2 * overlap.sum() / ((mask.labels > 0).sum() + study.reference_mask.sum()) > 0.5


@pytest.mark.slow
def test_the_shipped_network_finds_the_lesion_of_the_phantom():
    package = discover(REPOSITORY / "models").newest.get("brain-tumour-lgg")
    if package is None:
        pytest.skip("the package brain-tumour-lgg is not installed")
    study = brain_mr_study(0)
    names = {"pre": "AX T1", "flair": "AX FLAIR", "post": "AX T1 POST GAD"}
    volumes = {role: read_volume(study.series(name)) for role, name in names.items()}
    outcome = segment(package, volumes, Runner("cpu"), study.study_uid)
    analysis, mask = outcome.analysis, outcome.mask
    marked = mask.labels == 1
    dice = 2 * (marked & study.lesion_mask).sum() / (marked.sum() + study.lesion_mask.sum())
    assert dice > 0.6
    assert analysis.findings[0].laterality is Laterality.LEFT


class BrightOnTheRightOfThePicture(BrightFlair):
    """A predictor that knows which way up it was trained."""

    def predict(self, package, batch, progress=None) -> Prediction:
        prediction = super().predict(package, batch, progress)
        prediction.probabilities[..., : batch.shape[-1] // 2] = 0
        return prediction


def test_slices_that_are_stored_mirrored_give_the_same_finding(tmp_path):
    package = load_package(write_random_package(tmp_path, input=axial_input()))
    shown = head_volume([(2, 100, 170, 12)])
    affine = shown.affine.copy()
    affine[0, 3] += (shown.array.shape[2] - 1) * affine[0, 0]
    affine[0, 0] *= -1
    mirrored = replace(shown, array=np.ascontiguousarray(shown.array[..., ::-1]), affine=affine)
    first, second = (
        segment(package, {"flair": volume}, BrightOnTheRightOfThePicture(), "1.2")
        for volume in (shown, mirrored)
    )
    analysis, mask, mirrored_analysis, mirrored_mask = (
        first.analysis,
        first.mask,
        second.analysis,
        second.mask,
    )
    assert len(analysis.findings) == len(mirrored_analysis.findings) == 1
    np.testing.assert_array_equal(mirrored_mask.labels, mask.labels[..., ::-1])
    assert mirrored_analysis.findings[0].laterality is analysis.findings[0].laterality is Laterality.LEFT


def test_a_sagittal_series_is_refused(tmp_path):
    package = load_package(write_random_package(tmp_path, input=axial_input()))
    affine = np.array([[0, 0, 5, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float)
    with pytest.raises(UnsuitablePlaneError, match="sagittal"):
        segment(package, {"flair": replace(head_volume(), affine=affine)}, BrightFlair(), "1.2")


def axial_input() -> dict:
    return random_card("0" * 64)["input"] | {"plane": "axial"}
