from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_classifier_package import write_classifier_package

from inference import classification, frontal_films
from inference.analysis_files import load_outcome, save_outcome
from inference.classification import abnormal_score, classify, presence_of, study_probabilities
from inference.findings import Caveat, Doubt, FrameReference, Presence, RiskClass
from inference.packages import ModelPackageError, load_package
from inference.radiograph import Radiograph, Turn
from inference.reading import read_study
from inference.runner import Prediction, Runner, RunStatistics
from inference.segmentation import MissingInputError
from inference.volume import Volume

STATISTICS = RunStatistics(images=1, seconds=0.1, batch_size=1, device="cpu")


class Scripted:
    """A runner whose network gives the probabilities it is told to, in turn."""

    def __init__(self, package, *rows):
        self.answers = [np.asarray(row, dtype=np.float32) for row in rows]
        self.network = package.build()

    def predict(self, package, batch, progress=None):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        assert len(answer) == len(batch)
        return Prediction(probabilities=answer, statistics=STATISTICS)

    @contextmanager
    def borrow(self, package):
        yield self.network, torch.device("cpu")


@pytest.fixture(autouse=True)
def _admit_everything(monkeypatch):
    """Let any picture pass; what is refused is tested with the checks themselves."""
    monkeypatch.setattr(frontal_films, "admit_radiograph", lambda film, is_chest: ())
    monkeypatch.setattr(classification, "admit_volume", lambda volume, preparation, sites: ())


@pytest.fixture
def package_of(tmp_path):
    return lambda **changes: load_package(write_classifier_package(tmp_path, **changes))


def film(number=1, view="PA", shape=(80, 60), turn=None):
    draws = np.random.default_rng(number)
    return Radiograph(
        array=draws.random(shape).astype(np.float32),
        frame=FrameReference(sop_instance_uid=f"1.2.{number}"),
        series_uid="1.2",
        modality="DX",
        view=view,
        turn=turn or Turn(),
    )


def head_ct(depth=12, side=96):
    rows, columns = np.mgrid[:side, :side] - side / 2 + 0.5
    array = np.full((depth, side, side), -1000.0, dtype=np.float32)
    for index in range(2, depth):
        array[index][np.hypot(rows, columns) < 40] = 1000.0
        array[index][np.hypot(rows, columns) < 36] = 35.0 + index
    return Volume(
        array=array,
        affine=np.diag((2.0, 2.0, 5.0, 1.0)),
        frames=tuple(FrameReference(sop_instance_uid=f"1.3.{index}") for index in range(depth)),
        series_uid="1.3",
        frame_of_reference_uid="1.4",
        modality="CT",
    )


def test_every_label_is_answered_present_ones_first_with_probability_and_key_image(package_of):
    package = package_of()
    outcome = classify(package, {"image": [film()]}, Scripted(package, [[0.2, 0.9, 0.6]]), "1")
    analysis = outcome.analysis
    assert [(f.finding_id, f.concept, f.presence) for f in analysis.findings] == [
        ("F1", "mass", Presence.PRESENT),
        ("F2", "nodule", Presence.PRESENT),
        ("F3", "effusion", Presence.ABSENT),
    ]
    assert analysis.findings[0].confidence == pytest.approx(0.9, abs=1e-4)
    assert analysis.findings[0].key_frame == film().frame
    assert analysis.inputs[0].frames == (film().frame,)
    assert (analysis.triage, analysis.doubts) == (None, ())


def test_a_study_is_as_positive_as_its_most_positive_frontal_film_and_lateral_ones_are_not_read(package_of):
    package = package_of()
    films = [film(1, "PA"), film(2, "AP"), film(3, "LL")]
    runner = Scripted(package, [[0.2, 0.9, 0.1], [0.7, 0.1, 0.1]])
    analysis = classify(package, {"image": films}, runner, "1").analysis
    found = {f.concept: f for f in analysis.findings}
    assert found["effusion"].key_frame == films[1].frame
    assert found["mass"].key_frame == films[0].frame
    assert found["effusion"].confidence == pytest.approx(0.7, abs=1e-4)
    assert any("not read" in note for note in analysis.notes)
    assert [f.sop_instance_uid for f in analysis.inputs[0].frames] == ["1.2.1", "1.2.2"]


def test_a_series_of_lateral_films_gets_no_answer(package_of):
    package = package_of()
    outcome = classify(package, {"image": [film(view="LL")]}, Scripted(package, [[0.5] * 3]), "1")
    assert outcome.analysis.is_refused
    assert outcome.analysis.findings == ()
    assert outcome.heatmaps == ()


def test_a_blocked_image_is_not_answered(package_of, monkeypatch):
    doubt = Doubt(caveat=Caveat.NOT_A_PATIENT, sentence="A phantom.", is_blocking=True)
    monkeypatch.setattr(frontal_films, "admit_radiograph", lambda film, is_chest: (doubt,))
    package = package_of()
    analysis = classify(package, {"image": [film()]}, Scripted(package, [[0.5] * 3]), "1").analysis
    assert analysis.doubts == (doubt,)
    assert analysis.findings == ()


def test_near_the_threshold_a_label_is_undetermined_and_that_is_said(package_of):
    package = package_of(options={"undetermined_margin": 0.3})
    runner = Scripted(package, [[0.55, 0.9, 0.1]])
    analysis = classify(package, {"image": [film()]}, runner, "1").analysis
    assert [f.presence for f in analysis.findings] == [
        Presence.PRESENT,
        Presence.UNDETERMINED,
        Presence.ABSENT,
    ]
    assert analysis.doubts[0].caveat is Caveat.LOW_CONFIDENCE
    assert not analysis.is_refused


def test_an_uncertain_label_is_undetermined(package_of):
    package = package_of(doubt={"dropout_passes": 4, "largest_uncertainty": 1e-6})
    runner = Scripted(package, [[0.9, 0.9, 0.1]])
    analysis = classify(package, {"image": [film()]}, runner, "1").analysis
    assert {f.presence for f in analysis.findings} == {Presence.UNDETERMINED}
    assert all(f.uncertainty > 0 for f in analysis.findings)


def test_labels_with_too_few_examples_are_not_answered_and_that_is_said(package_of):
    package = package_of(options={"unanswered": ["Mass"], "notes": ["Mind the view."]})
    runner = Scripted(package, [[0.1, 0.9, 0.1]])
    analysis = classify(package, {"image": [film()]}, runner, "1").analysis
    assert {f.concept for f in analysis.findings} == {"effusion", "nodule"}
    assert "Mass" in " ".join(analysis.notes)
    assert "does not exclude disease" in analysis.notes[0]
    assert analysis.notes[-1] == "Mind the view."


def test_each_label_has_its_own_threshold_and_temperature(package_of):
    package = package_of(doubt={"temperatures": [1.0, 2.0, 1.0]})
    labels = [label.model_copy(update={"threshold": 0.85}) for label in package.card.labels]
    package = replace(package, card=package.card.model_copy(update={"labels": tuple(labels)}))
    runner = Scripted(package, [[0.9, 0.9, 0.8]])
    found = {f.concept: f for f in classify(package, {"image": [film()]}, runner, "1").analysis.findings}
    assert found["mass"].confidence == pytest.approx(0.75, abs=1e-3), "the square root of odds 9 is 3"
    assert [found[name].presence for name in ("effusion", "mass", "nodule")] == [
        Presence.PRESENT,
        Presence.ABSENT,
        Presence.ABSENT,
    ]


def test_the_mirrored_film_counts_as_much_where_the_card_says_so(package_of):
    package = package_of(test_time_mirror=True)
    runner = Scripted(package, [[0.9, 0.5, 0.1]], [[0.1, 0.5, 0.1]])
    found = classify(package, {"image": [film()]}, runner, "1").analysis.findings
    assert found[0].confidence == pytest.approx(0.5, abs=1e-5)


def test_the_worklist_is_told_how_urgent_the_study_looks(package_of):
    triage = {
        "low": 0.2,
        "high": 0.7,
        "negative_predictive_value": 0.8,
        "positive_predictive_value": 0.75,
        "calibration_patients": 100,
    }
    package = package_of(doubt={"triage": triage}, options={"abnormal": {"scale": 2.0, "offset": -0.5}})
    runner = Scripted(package, [[0.9, 0.2, 0.1]])
    found = classify(package, {"image": [film()]}, runner, "1").analysis.triage
    assert found.risk is RiskClass.HIGH
    assert found.score == pytest.approx(1 / (1 + np.exp(0.5 - 2 * np.log(9))), abs=1e-3)
    assert found.score == pytest.approx(abnormal_score(np.float32([0.9, 0.2, 0.1]), 2.0, -0.5), abs=1e-3)


def test_predictive_values_are_not_claimed_for_doubtful_images(package_of, monkeypatch):
    doubt = Doubt(caveat=Caveat.OUT_OF_DISTRIBUTION, sentence="Unusual.")
    monkeypatch.setattr(frontal_films, "admit_radiograph", lambda film, is_chest: (doubt,))
    values = {"negative_predictive_value": 0.8, "positive_predictive_value": 0.75}
    triage = {"low": 0.2, "high": 0.7, "calibration_patients": 100} | values
    package = package_of(doubt={"triage": triage})
    found = classify(package, {"image": [film()]}, Scripted(package, [[0.9, 0.2, 0.1]]), "1").analysis.triage
    assert (found.risk, found.predictive_value) == (RiskClass.UNCERTAIN, None)
    assert found.score == pytest.approx(0.9, abs=1e-4)


def test_the_heat_map_lies_on_the_film_as_it_is_stored(package_of):
    package = package_of()
    turned = film(shape=(80, 60), turn=Turn(is_transposed=True))
    outcome = classify(package, {"image": [turned]}, Scripted(package, [[0.9, 0.2, 0.1]]), "1")
    (heatmap,) = outcome.heatmaps
    assert heatmap.values.shape == (1, 60, 80)
    assert heatmap.frames == (turned.frame,)
    assert heatmap.answer == "F1"
    assert heatmap.values.min() >= 0
    assert heatmap.values.max() <= 1


def test_a_ct_is_the_mean_of_its_most_suspicious_slices(package_of):
    package = package_of(modality="CT")
    rows = np.linspace(0.05, 0.95, 10)[:, None]
    outcome = classify(package, {"image": head_ct()}, Scripted(package, rows), "1")
    (finding,) = outcome.analysis.findings
    assert finding.confidence == pytest.approx(rows[-3:].mean(), abs=1e-4)
    assert finding.key_frame.sop_instance_uid == "1.3.11"
    assert (finding.concept, finding.site) == ("intracranial_haemorrhage", "brain")
    assert "10 of 12 slices were read" in outcome.analysis.notes[0]
    assert "3 most suspicious slices" in outcome.analysis.notes[1]
    (heatmap,) = outcome.heatmaps
    assert heatmap.values.shape == (3, 96, 96)
    assert [f.sop_instance_uid for f in heatmap.frames] == ["1.3.9", "1.3.10", "1.3.11"]


def test_a_ct_without_a_head_gets_no_answer(package_of):
    package = package_of(modality="CT")
    air = replace(head_ct(), array=np.full((12, 96, 96), -1000.0, dtype=np.float32))
    analysis = classify(package, {"image": air}, Scripted(package, [[0.5]]), "1").analysis
    assert analysis.doubts[0].caveat is Caveat.WRONG_BODY_PART
    assert analysis.is_refused


def test_a_real_network_runs_the_whole_way_twice_alike_and_its_outcome_keeps(package_of, tmp_path):
    package = package_of(doubt={"dropout_passes": 3}, threshold=0.01)
    first, second = (read_study(package, {"image": [film(1), film(2)]}, Runner("cpu"), "1") for _ in range(2))
    assert first.analysis == second.analysis
    loaded = load_outcome(save_outcome(tmp_path / "run", first))
    assert loaded.analysis == first.analysis
    assert len(loaded.heatmaps) == 1


def test_a_missing_role_and_a_wrong_card_are_refused(package_of):
    package = package_of()
    with pytest.raises(MissingInputError):
        classify(package, {}, Scripted(package, [[0.5] * 3]), "1")
    wrong = replace(package, card=package.card.model_copy(update={"options": {"threshold": 3}}))
    with pytest.raises(ModelPackageError, match="options"):
        classify(wrong, {"image": [film()]}, Scripted(package, [[0.5] * 3]), "1")


@pytest.mark.parametrize(
    ("probability", "presence"),
    [(0.5, Presence.PRESENT), (0.45, Presence.UNDETERMINED), (0.3, Presence.ABSENT)],
)
def test_the_band_lies_around_the_threshold_on_the_logit_scale(probability, presence):
    assert presence_of(probability, 0.42, 0.2) is presence


def test_study_probabilities_average_the_largest_of_each_label():
    rows = np.array([[0.1, 0.9], [0.5, 0.2], [0.3, 0.4]], dtype=np.float32)
    study, ranked = study_probabilities(rows, 2)
    np.testing.assert_allclose(study, [0.4, 0.65])
    np.testing.assert_array_equal(ranked, [[1, 0], [2, 2]])
