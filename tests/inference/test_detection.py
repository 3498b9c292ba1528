from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save

from dicom_node.chest_phantom import chest_study
from inference import frontal_films
from inference.detection import (
    DetectionOptions,
    FoundBoxes,
    calibrated,
    detect,
    find_boxes,
    fuse_boxes,
    gate_boxes,
    side_of,
)
from inference.findings import Caveat, Doubt, FrameReference, Laterality, Presence, RiskClass
from inference.networks.faster_rcnn import RadiographDetector
from inference.packages import ModelPackageError, load_package
from inference.radiograph import Radiograph, Turn, read_radiographs
from inference.reading import read_study
from inference.runner import Runner
from inference.segmentation import MissingInputError

SIDE = 128
ARGUMENTS = {"classes": 2, "arch": "lite0_fpn", "channels": 16, "head_features": 16}


def network(cls=RadiographDetector):
    torch.manual_seed(0)
    return cls(**ARGUMENTS).eval()


class Scripted(RadiographDetector):
    """A detector that finds what it is told to, on every image."""

    told: tuple = ()
    logits = (1.0, 2.0, -2.0)

    def forward(self, images):
        boxes = [box for box, _, _ in self.told]
        return [
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "scores": torch.tensor([score for _, score, _ in self.told]),
                "labels": torch.tensor([label for _, _, label in self.told], dtype=torch.int64),
                "presence": torch.tensor(self.logits),
            }
        ] * len(images)


class Lender:
    def __init__(self, lent):
        self.lent = lent

    @contextmanager
    def borrow(self, package):
        yield self.lent, torch.device("cpu")


def write_package(root: Path, **changes) -> Path:
    weights = save({k: v.half() if v.is_floating_point() else v for k, v in network().state_dict().items()})
    card = {
        "name": "boxes",
        "version": "0.1.0",
        "title": "Boxes",
        "task": "detection",
        "network": {"builtin": "faster_rcnn", "arguments": ARGUMENTS},
        "input": {
            "modality": ["DX", "CR"],
            "matrix": SIDE,
            "preparation": "radiograph",
            "roles": [{"name": "chest", "required": True}],
        },
        "labels": [
            {"value": 1, "name": "Mass", "concept": "mass", "site": "lung", "threshold": 0.3},
            {"value": 2, "name": "Cardiomegaly", "concept": "cardiomegaly", "site": "heart"},
        ],
        "intended_use": "Tests.",
        "limits": [],
        "training_data": "None.",
        "metrics": {},
        "licence": "Apache-2.0",
        "weights": {
            "files": [{"file": "model.safetensors", "sha256": hashlib.sha256(weights).hexdigest()}],
            "dtype": "float16",
        },
    }
    folder = root / "boxes" / "0.1.0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.yaml").write_text(yaml.safe_dump(card | changes), encoding="utf-8")
    return folder


@pytest.fixture
def package_of(tmp_path, monkeypatch):
    monkeypatch.setattr(frontal_films, "admit_radiograph", lambda film, is_chest: ())
    return lambda **changes: load_package(write_package(tmp_path, **changes))


def film(number=1, view="PA", shape=(256, 128), turn=None):
    draws = np.random.default_rng(number)
    return Radiograph(
        array=draws.random(shape).astype(np.float32),
        frame=FrameReference(sop_instance_uid=f"1.2.{number}"),
        series_uid="1.2",
        modality="DX",
        view=view,
        turn=turn or Turn(),
    )


def scripted(*told):
    lent = network(Scripted)
    lent.told = told
    return Lender(lent)


#: On the network's square: the film of 256 x 128 lies in columns 32 to 96 and is seen at half its size.
RIGHT = (36.0, 20.0, 56.0, 40.0)
LEFT = (70.0, 20.0, 90.0, 40.0)
HEART = (50.0, 60.0, 84.0, 90.0)


def test_boxes_lie_on_the_film_most_confident_first_with_their_side(package_of) -> None:
    outcome = detect(
        package_of(), {"chest": [film()]}, scripted((LEFT, 0.6, 1), (HEART, 0.9, 2), (RIGHT, 0.31, 1)), "1"
    )
    heart, left, right = outcome.analysis.findings
    assert [f.finding_id for f in outcome.analysis.findings] == ["F1", "F2", "F3"]
    assert (heart.concept, heart.laterality, heart.presence) == ("cardiomegaly", None, Presence.PRESENT)
    assert (left.laterality, right.laterality) == (Laterality.LEFT, Laterality.RIGHT)
    assert (right.box.left, right.box.top, right.box.right, right.box.bottom) == pytest.approx(
        (8, 40, 48, 80)
    )
    assert left.confidence == pytest.approx(0.6)
    assert left.key_frame == film().frame


def test_a_turned_film_has_its_boxes_where_its_pixels_are_stored(package_of) -> None:
    turned = film(turn=Turn(flips_columns=True))
    (finding,) = detect(package_of(), {"chest": [turned]}, scripted((RIGHT, 0.8, 1)), "1").analysis.findings
    assert finding.laterality is Laterality.RIGHT
    assert (finding.box.left, finding.box.right) == pytest.approx((80, 120))


def test_each_label_has_its_own_threshold_and_only_the_best_are_reported(package_of) -> None:
    package = package_of(options={"max_findings": 2})
    told = [((5.0 + i, 5.0, 20.0 + i, 30.0), 0.32 + i / 100, 1) for i in range(5)]
    findings = detect(
        package, {"chest": [film()]}, scripted(*told, (HEART, 0.49, 2), (LEFT, 0.29, 1)), "1"
    ).analysis.findings
    assert [round(finding.confidence, 2) for finding in findings] == [0.36, 0.35]


def test_nothing_found_is_said_and_excludes_nothing(package_of) -> None:
    analysis = detect(package_of(), {"chest": [film()]}, scripted(), "1").analysis
    assert analysis.findings == ()
    assert "does not exclude" in analysis.notes[-1]


def test_lateral_films_are_not_read_and_a_study_of_them_gets_no_answer(package_of) -> None:
    package = package_of()
    both = detect(package, {"chest": [film(1), film(2, "LL")]}, scripted((LEFT, 0.6, 1)), "1").analysis
    assert len(both.findings) == 1
    assert both.notes[0].startswith("1 image from the side")
    lateral = detect(package, {"chest": [film(2, "LL")]}, scripted((LEFT, 0.6, 1)), "1").analysis
    assert lateral.is_refused
    assert lateral.findings == ()
    assert lateral.doubts[0].caveat is Caveat.WRONG_BODY_PART


def test_findings_of_several_films_stand_on_their_own_film(package_of) -> None:
    progress = []
    findings = detect(
        package_of(),
        {"chest": [film(1), film(2, "AP")]},
        scripted((LEFT, 0.6, 1)),
        "1",
        lambda done, total: progress.append((done, total)),
    ).analysis.findings
    assert [finding.box.frame.sop_instance_uid for finding in findings] == ["1.2.1", "1.2.2"]
    assert progress == [(1, 2), (2, 2)]


def test_confidence_is_calibrated_before_the_threshold(package_of) -> None:
    package = package_of(doubt={"temperatures": [2.0, 1.0]})
    findings = detect(
        package, {"chest": [film()]}, scripted((LEFT, 0.9, 1), (HEART, 0.9, 2)), "1"
    ).analysis.findings
    assert [finding.confidence for finding in findings] == pytest.approx([0.9, 0.75], abs=1e-3)


def test_the_spread_over_dropout_is_given_and_repeats(package_of) -> None:
    package = package_of(doubt={"dropout_passes": 4, "largest_uncertainty": 1e-6})
    first = detect(package, {"chest": [film()]}, scripted((LEFT, 0.9, 1)), "1").analysis
    again = detect(package, {"chest": [film()]}, scripted((LEFT, 0.9, 1)), "1").analysis
    assert first == again
    assert 0 < first.findings[0].uncertainty < 0.5
    assert first.doubts[0].caveat is Caveat.LOW_CONFIDENCE


def test_the_worklist_is_told_unless_the_image_is_doubtful(package_of, monkeypatch) -> None:
    triage = {"low": 0.1, "high": 0.7, "calibration_patients": 100}
    values = {"negative_predictive_value": 0.9, "positive_predictive_value": 0.9}
    package = package_of(doubt={"triage": triage | values})
    found = detect(package, {"chest": [film()]}, scripted(), "1").analysis.triage
    assert (found.risk, found.predictive_value) == (RiskClass.HIGH, 0.9)
    assert found.score == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-4)
    doubt = Doubt(caveat=Caveat.WRONG_WINDOW, sentence="Odd.")
    monkeypatch.setattr(frontal_films, "admit_radiograph", lambda film, is_chest: (doubt,))
    doubted = detect(package, {"chest": [film()]}, scripted(), "1").analysis.triage
    assert (doubted.risk, doubted.predictive_value) == (RiskClass.UNCERTAIN, None)


def test_a_heat_map_lies_on_the_stored_film(package_of) -> None:
    package = package_of(explanation_layer="backbone.body.blocks.6", options={"heatmaps": True})
    outcome = detect(
        package,
        {"chest": [film(turn=Turn(is_transposed=True))]},
        scripted((LEFT, 0.9, 1), (RIGHT, 0.8, 1)),
        "1",
    )
    (heatmap,) = outcome.heatmaps
    assert heatmap.answer == "F1"
    assert heatmap.values.shape == (1, 128, 256)
    assert 0 <= heatmap.values.min() <= heatmap.values.max() <= 1


def test_a_missing_role_another_network_and_wrong_options_are_errors(package_of) -> None:
    package = package_of(options={"gait": "class"})
    with pytest.raises(ModelPackageError, match="options"):
        detect(package, {"chest": [film()]}, scripted(), "1")
    plain = load_package(package.folder)
    card = plain.card.model_copy(update={"options": {}})
    good = type(plain)(card=card, folder=plain.folder)
    with pytest.raises(MissingInputError):
        detect(good, {}, scripted(), "1")
    with pytest.raises(ModelPackageError, match="finds boxes"):
        detect(good, {"chest": [film()]}, Lender(torch.nn.Identity()), "1")


def found(*boxes, presence=(0.0, 2.0, -2.0)) -> FoundBoxes:
    return FoundBoxes(
        boxes=np.array([box for box, _, _ in boxes], dtype=np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in boxes], dtype=np.float32),
        classes=np.array([label for _, _, label in boxes], dtype=np.int64),
        presence=np.array(presence, dtype=np.float32),
    )


def test_fusion_averages_what_both_readings_found_and_halves_what_one_did() -> None:
    one = found((LEFT, 0.8, 0), (HEART, 0.6, 1))
    other = found(((72.0, 20.0, 92.0, 40.0), 0.8, 0), presence=(2.0, 0.0, 0.0))
    both = fuse_boxes([one, other], SIDE, 0.4)
    assert both.boxes[0] == pytest.approx((71, 20, 91, 40), abs=1e-3)
    assert both.scores.tolist() == pytest.approx([0.8, 0.3], abs=1e-3)
    assert both.presence.tolist() == [1.0, 1.0, -1.0]
    assert len(fuse_boxes([found(), found()], SIDE, 0.4).boxes) == 0


def test_a_gate_weighs_scores_by_the_whole_image_and_sorts_again() -> None:
    boxes = found((LEFT, 0.8, 1), (HEART, 0.7, 0))
    assert gate_boxes(boxes, DetectionOptions()) is boxes
    halved = gate_boxes(boxes, DetectionOptions(gate="abnormal"))
    assert halved.scores.tolist() == pytest.approx([0.4, 0.35])
    by_class = gate_boxes(boxes, DetectionOptions(gate="class", gate_power=0.5))
    assert by_class.classes.tolist() == [0, 1]
    assert by_class.scores[1] == pytest.approx(0.8 * (1 / (1 + np.exp(2))) ** 0.5, abs=1e-4)


def test_a_mirrored_reading_of_a_symmetric_image_changes_no_place() -> None:
    lent = network()
    image = torch.rand(1, SIDE, SIDE // 2, generator=torch.Generator().manual_seed(1)).numpy()
    image = np.concatenate((image, image[..., ::-1]), axis=2)
    once = find_boxes(lent, image, DetectionOptions())
    twice = find_boxes(lent, image, DetectionOptions(mirror=True))
    np.testing.assert_allclose(once.presence, twice.presence, atol=1e-4)


@pytest.mark.parametrize(
    ("left", "right", "site", "view", "side"),
    [
        (10, 40, "lung", "PA", Laterality.RIGHT),
        (60, 90, "lung", "", Laterality.LEFT),
        (46, 56, "lung", "AP", None),
        (20, 80, "lung", "PA", Laterality.BILATERAL),
        (60, 90, "heart", "PA", None),
        (60, 90, "lung", "LL", None),
    ],
)
def test_sides_follow_from_the_middle_of_a_frontal_film(left, right, site, view, side) -> None:
    assert side_of(left, right, 100.0, site, view) is side


def test_no_temperature_changes_nothing_and_no_box_is_no_error() -> None:
    scores, classes = np.array([0.4], np.float32), np.array([0], np.int64)
    assert calibrated(scores, classes, ()) is scores
    assert len(calibrated(scores[:0], classes[:0], (2.0,))) == 0


def test_a_generated_study_is_read_through_the_one_door(tmp_path: Path) -> None:
    package = load_package(write_package(tmp_path, threshold=0.001))
    study = chest_study(0, matrix=256)
    outcome = read_study(package, {"chest": read_radiographs(study.datasets)}, Runner("cpu"), study.study_uid)
    assert outcome.analysis.inputs[0].frames[0].sop_instance_uid == study.datasets[0].SOPInstanceUID
    assert not outcome.analysis.is_refused
