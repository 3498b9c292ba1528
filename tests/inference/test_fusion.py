from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_fusion_package import head_volume, write_fusion_package

from inference.analysis_files import load_outcome, save_outcome
from inference.findings import Caveat, Presence, Scale
from inference.fusion import fuse, risk_group
from inference.orientation import UnsuitablePlaneError
from inference.packages import ModelPackageError
from inference.reading import read_study
from inference.runner import Runner
from inference.segmentation import MissingInputError
from inference.volume import Volume

STUDY = "2.25.7"
MALIGNANT = (-20.0, 0.0, 20.0)
HEALTHY = (30.0, 0.0, 0.0)
CT, MR = head_volume("CT"), head_volume("MR")


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner("cpu")


@pytest.mark.parametrize(
    "images", [{"mr": MR}, {"ct": CT, "mr": MR}, {"mr": MR, "ct": CT}], ids=["mr", "ct-first", "mr-first"]
)
def test_a_malignant_tumour_gets_class_grade_risk_and_a_heat_map_a_series(
    tmp_path: Path, runner: Runner, images: dict[str, Volume]
) -> None:
    outcome = fuse(write_fusion_package(tmp_path, class_bias=MALIGNANT), images, runner, STUDY)
    analysis = outcome.analysis
    assert [said.scale for said in analysis.estimates] == [
        Scale.TUMOUR_CLASS, Scale.TUMOUR_STAGE, Scale.SURVIVAL_RISK,
    ]  # fmt: skip
    said, grade, risk = analysis.estimates
    assert said.value == "malignant"
    assert sum(share for _, share in said.probabilities) == pytest.approx(1.0, abs=1e-5)
    assert sum(share for _, share in grade.probabilities) == pytest.approx(1.0, abs=1e-5)
    assert risk.number is not None
    assert risk.number > 0
    assert [one.role for one in analysis.inputs] == list(images)
    assert [heat.series_uid for heat in outcome.heatmaps] == [volume.series_uid for volume in images.values()]
    for heat, volume in zip(outcome.heatmaps, images.values(), strict=True):
        assert heat.values.shape == volume.array.shape
        assert 0.0 <= heat.values.min() <= heat.values.max() <= 1.0
        assert heat.answer == "tumour_class"
    assert not analysis.is_refused


def test_it_says_what_was_read_and_what_was_missing(tmp_path: Path, runner: Runner) -> None:
    package = write_fusion_package(tmp_path, class_bias=MALIGNANT)
    both = " ".join(fuse(package, {"ct": CT, "mr": MR}, runner, STUDY).analysis.notes)
    assert "rests on the CT and the MR" in both
    assert "No CT" not in both
    alone = " ".join(fuse(package, {"mr": MR}, runner, STUDY).analysis.notes)
    assert "rests on the MR." in alone
    assert "No CT of the patient was read with it." in alone
    assert "5 of 8 slices" in alone


def test_an_abnormal_ct_alone_is_a_finding_and_no_tumour_class(tmp_path: Path, runner: Runner) -> None:
    outcome = fuse(write_fusion_package(tmp_path, class_bias=MALIGNANT), {"ct": CT}, runner, STUDY)
    assert outcome.analysis.estimates == ()
    (finding,) = outcome.analysis.findings
    assert (finding.concept, finding.presence) == ("intracranial_haemorrhage", Presence.PRESENT)
    assert finding.confidence == pytest.approx(1.0, abs=1e-3)
    assert finding.uncertainty is not None
    assert finding.key_frame in CT.frames
    assert [heat.answer for heat in outcome.heatmaps] == ["F1"]
    assert "does not say what the abnormality is" in " ".join(outcome.analysis.notes)


@pytest.mark.parametrize("images", [{"ct": CT}, {"mr": MR}, {"ct": CT, "mr": MR}])
def test_a_healthy_study_has_a_class_and_nothing_else(
    tmp_path: Path, runner: Runner, images: dict[str, Volume]
) -> None:
    outcome = fuse(write_fusion_package(tmp_path, class_bias=HEALTHY), images, runner, STUDY)
    (said,) = outcome.analysis.estimates
    assert (said.scale, said.value) == (Scale.TUMOUR_CLASS, "healthy")
    assert outcome.analysis.findings == ()
    assert outcome.heatmaps == ()


def test_reading_twice_gives_the_same(tmp_path: Path, runner: Runner) -> None:
    package = write_fusion_package(tmp_path, class_bias=MALIGNANT)
    first, second = (fuse(package, {"ct": CT, "mr": MR}, runner, STUDY) for _ in range(2))
    assert first.analysis == second.analysis
    np.testing.assert_array_equal(first.heatmaps[1].values, second.heatmaps[1].values)


def test_an_answer_that_wavers_is_doubted(tmp_path: Path, runner: Runner) -> None:
    package = write_fusion_package(tmp_path, doubt={"dropout_passes": 4, "largest_uncertainty": 1e-6})
    doubts = fuse(package, {"mr": MR}, runner, STUDY).analysis.doubts
    assert Caveat.LOW_CONFIDENCE in {doubt.caveat for doubt in doubts if not doubt.is_blocking}


def test_grade_and_risk_that_are_not_proven_say_so(tmp_path: Path, runner: Runner) -> None:
    options = {"slices": 5, "warning": "It was not shown to be better than chance."}
    package = write_fusion_package(tmp_path / "ill", class_bias=MALIGNANT, options=options)
    sentences = [doubt.sentence for doubt in fuse(package, {"mr": MR}, runner, STUDY).analysis.doubts]
    assert any("better than chance" in sentence for sentence in sentences)
    well = write_fusion_package(tmp_path / "well", class_bias=HEALTHY, options=options)
    assert not any(
        "chance" in doubt.sentence for doubt in fuse(well, {"mr": MR}, runner, STUDY).analysis.doubts
    )


def test_a_series_that_cannot_be_read_is_left_out_and_said(tmp_path: Path, runner: Runner) -> None:
    package = write_fusion_package(tmp_path, class_bias=MALIGNANT)
    empty = replace(CT, array=np.zeros_like(CT.array))
    outcome = fuse(package, {"ct": empty, "mr": MR}, runner, STUDY)
    assert [one.role for one in outcome.analysis.inputs] == ["mr"]
    assert "The CT was left out" in " ".join(outcome.analysis.notes)
    assert not outcome.analysis.is_refused


def test_a_study_of_which_nothing_can_be_read_has_no_answer(tmp_path: Path, runner: Runner) -> None:
    package = write_fusion_package(tmp_path, class_bias=MALIGNANT)
    empty = replace(CT, array=np.zeros_like(CT.array))
    outcome = fuse(package, {"ct": empty}, runner, STUDY)
    assert outcome.analysis.is_refused
    assert outcome.analysis.estimates == outcome.analysis.findings == ()
    assert [one.series_uid for one in outcome.analysis.inputs] == [CT.series_uid]


def test_another_plane_alone_is_refused(tmp_path: Path, runner: Runner) -> None:
    coronal = replace(MR, affine=MR.affine[:, [0, 2, 1, 3]])
    package = write_fusion_package(tmp_path)
    with pytest.raises(UnsuitablePlaneError):
        fuse(package, {"mr": coronal}, runner, STUDY)
    assert "left out" in " ".join(fuse(package, {"ct": CT, "mr": coronal}, runner, STUDY).analysis.notes)


def test_a_study_of_neither_is_refused(tmp_path: Path, runner: Runner) -> None:
    with pytest.raises(MissingInputError, match="CT or MR"):
        fuse(write_fusion_package(tmp_path), {}, runner, STUDY)


def test_options_of_another_task_are_refused(tmp_path: Path, runner: Runner) -> None:
    with pytest.raises(ModelPackageError, match="options"):
        fuse(write_fusion_package(tmp_path, options={"top_slices": 3}), {"mr": MR}, runner, STUDY)


def test_the_task_on_the_card_leads_here_and_both_maps_are_kept(tmp_path: Path, runner: Runner) -> None:
    package = write_fusion_package(tmp_path, class_bias=MALIGNANT)
    outcome = read_study(package, {"ct": CT, "mr": MR}, runner, STUDY)
    kept = load_outcome(save_outcome(tmp_path / "run", outcome))
    assert kept.analysis == outcome.analysis
    for ours, theirs in zip(kept.heatmaps, outcome.heatmaps, strict=True):
        assert ours.series_uid == theirs.series_uid
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-3)


@pytest.mark.parametrize(
    ("log_hazard", "group"), [(-1.0, "lower"), (-0.1, "lower"), (0.0, "middle"), (0.5, "higher")]
)
def test_a_risk_lies_in_a_third_of_the_training_patients(log_hazard: float, group: str) -> None:
    assert risk_group(log_hazard, (-0.1, 0.2)) == group
