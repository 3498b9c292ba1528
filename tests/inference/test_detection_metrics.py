from __future__ import annotations

import numpy as np
import pytest

from inference.training.detection_metrics import (
    ScoredImage,
    average_precision,
    bootstrap,
    choose_thresholds,
    dice_of,
    match,
    overlaps,
    recall_at,
    share_of_resamples,
    torchmetrics_map,
)


def image(found=(), drawn=(), patient: str = "1", classes: int = 2) -> ScoredImage:
    """Found: (box, score, class); drawn: (box, class)."""
    found = sorted(found, key=lambda each: -each[1])
    return ScoredImage(
        patient_id=patient,
        view="PA",
        boxes=np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in found], dtype=np.float32),
        classes=np.array([label for _, _, label in found], dtype=np.int64),
        true_boxes=np.array([box for box, _ in drawn], dtype=np.float32).reshape(-1, 4),
        true_classes=np.array([label for _, label in drawn], dtype=np.int64),
        is_abnormal=bool(drawn),
        presence=np.zeros(1 + classes, dtype=np.float32),
        true_presence=np.zeros(1 + classes, dtype=np.float32),
    )


def random_images(seed: int, count: int = 25) -> list[ScoredImage]:
    rng = np.random.default_rng(seed)
    images = []
    for index in range(count):
        corners = rng.uniform(0, 60, (3, 2))
        drawn = [
            ((*c, *(c + rng.uniform(10, 30, 2))), int(rng.integers(2))) for c in corners[: rng.integers(3)]
        ]
        found = [
            (
                (*(np.array(box[:2]) + rng.normal(0, 4, 2)), *(np.array(box[2:]) + rng.normal(0, 4, 2))),
                rng.uniform(),
                k,
            )
            for box, k in drawn
        ]
        found += [((*c, *(c + 15)), rng.uniform(), int(rng.integers(2))) for c in rng.uniform(0, 80, (4, 2))]
        images.append(image(found, drawn, patient=str(index // 2)))
    return images


A, B = (0, 0, 10, 10), (50, 50, 60, 70)


def test_overlap_over_the_union_and_over_the_found_box() -> None:
    found, drawn = np.array([[0, 0, 10, 10]], np.float32), np.array([[0, 0, 20, 20]], np.float32)
    assert overlaps(found, drawn)[0, 0] == pytest.approx(0.25)
    assert overlaps(found, drawn, "iobb")[0, 0] == pytest.approx(1.0)
    assert dice_of(np.array([0.25], np.float32))[0] == pytest.approx(0.4)


def test_a_drawn_box_is_hit_once_by_the_best_score() -> None:
    matches = match([image([(A, 0.9, 0), (A, 0.8, 0), (A, 0.95, 1)], [(A, 0)])], 0, 0.5)
    assert matches.is_hit.tolist() == [True, False]
    assert matches.drawn.tolist() == [1]


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_torchmetrics(seed: int) -> None:
    images = random_images(seed)
    mean, each = torchmetrics_map(images, 0.4, 2)
    mine = [average_precision(match(images, label, 0.4)) for label in range(2)]
    np.testing.assert_allclose(mine, each, atol=2e-3)
    assert mean == pytest.approx(np.mean(mine), abs=2e-3)


def test_recall_counts_hits_until_the_false_positives_are_used_up() -> None:
    images = [
        image([(A, 0.9, 0), (B, 0.8, 0)], [(A, 0)]),
        image([(B, 0.95, 0), (A, 0.3, 0)], [(A, 0)]),
    ]
    matches = match(images, 0, 0.5)
    assert recall_at(matches, 0.0) == 0.0
    assert recall_at(matches, 0.5) == 0.5
    assert recall_at(matches, 1.0) == 1.0
    assert np.isnan(recall_at(match(images, 1, 0.5), 1.0))


def test_weights_are_the_same_as_repeating_images() -> None:
    images = random_images(5)
    weights = np.random.default_rng(0).integers(0, 3, len(images))
    repeated = [one for one, count in zip(images, weights, strict=True) for _ in range(count)]
    weighed = match(images, 0, 0.4)
    again = match(repeated, 0, 0.4)
    assert average_precision(weighed, weights) == pytest.approx(average_precision(again))
    assert recall_at(weighed, 1.0, weights) == pytest.approx(recall_at(again, 1.0))


def test_intervals_resample_patients_not_images() -> None:
    images = [image([(A, 0.9, 0)], [(A, 0)], patient="1") for _ in range(9)]
    images.append(image([], [(A, 0)], patient="2"))
    matches = match(images, 0, 0.5)
    interval = bootstrap(images, lambda weights: recall_at(matches, 1.0, weights), resamples=200)
    assert interval.count == 2
    assert interval.mean == pytest.approx(0.9)
    assert (interval.low, interval.high) == (0.0, 1.0)
    share = share_of_resamples(images, lambda w: recall_at(matches, 1.0, w) > 0.5, resamples=200)
    assert 0.6 < share < 0.9


def test_thresholds_keep_the_hits_and_leave_the_misses_within_the_rate() -> None:
    images = [image([(A, 0.8, 0), (B, 0.3, 0)], [(A, 0)], patient=str(i)) for i in range(10)]
    first, second = choose_thresholds(images, 2, least=0.5, most_false_positives=0.2, least_precision=0.3)
    assert 0.3 < first <= 0.8
    assert second is None
    (strict,) = choose_thresholds(images[:0], 1, least=0.5, most_false_positives=1.0, least_precision=0.3)
    assert strict is None


def test_a_class_that_is_seldom_right_is_not_reported() -> None:
    wrong = [image([(B, 0.9 - i / 100, 0)], [(A, 0)], patient=str(i)) for i in range(9)]
    right = [image([(A, 0.1, 0)], [(A, 0)], patient="right")]
    (threshold,) = choose_thresholds(
        wrong + right, 1, least=0.5, most_false_positives=2.0, least_precision=0.2
    )
    assert threshold is None
