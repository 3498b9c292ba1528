"""Champion and challenger, side by side and over studies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.findings import (
    Analysis,
    Box,
    Caveat,
    Doubt,
    Estimate,
    Finding,
    FrameReference,
    Mask,
    ModelIdentity,
    Outcome,
    Presence,
    RiskClass,
    Scale,
    Triage,
)
from integration.comparison import Contestant, cohen_kappa, compare_outcomes, summarise

FRAME = FrameReference(sop_instance_uid="1.2.3")
OTHER_FRAME = FrameReference(sop_instance_uid="1.2.4")


def box(left: float, top: float, right: float, bottom: float, frame: FrameReference = FRAME) -> Box:
    return Box(frame=frame, left=left, top=top, right=right, bottom=bottom)


def finding(
    concept: str,
    presence: Presence = Presence.PRESENT,
    confidence: float | None = None,
    segment_number: int | None = None,
    at: Box | None = None,
) -> Finding:
    return Finding(
        finding_id="F1",
        concept=concept,
        site="lung",
        presence=presence,
        confidence=confidence,
        segment_number=segment_number,
        box=at,
    )


def outcome(*findings: Finding, mask: np.ndarray | None = None, **changes: object) -> Outcome:
    model = ModelIdentity(name="m", version="1.0.0", weights_sha256="", task="detection", title="")
    analysis = Analysis(model=model, study_uid="1.2", inputs=(), findings=findings, **changes)  # type: ignore[arg-type]
    return Outcome(
        analysis=analysis, mask=None if mask is None else Mask(labels=mask, series_uid="1", frames=(FRAME,))
    )


def contestants(first: Outcome | None, second: Outcome | None, *concepts: str) -> list[Contestant]:
    names = concepts or ("mass", "nodule")
    return [
        Contestant(reference=f"m@{version}.0.0", concepts=names, outcome=said)
        for version, said in ((1, first), (2, second))
    ]


def test_answers_probabilities_and_counts_are_put_side_by_side() -> None:
    first = outcome(finding("mass", confidence=0.6), finding("mass", confidence=0.8))
    second = outcome(finding("mass", Presence.ABSENT, confidence=0.3))
    mass, nodule = compare_outcomes(*contestants(first, second))
    assert (mass.champion_answer, mass.challenger_answer) == ("present", "absent")
    assert (mass.champion_probability, mass.challenger_probability) == (0.8, 0.3)
    assert (mass.champion_count, mass.challenger_count) == (2, 0)
    assert (nodule.champion_answer, nodule.challenger_answer) == ("absent", "absent")


def test_only_what_both_cards_name_is_compared() -> None:
    champion, challenger = contestants(outcome(), outcome(), "mass")
    other = Contestant(reference="x@1.0.0", concepts=("nodule", "mass"), outcome=outcome())
    assert [row.label for row in compare_outcomes(champion, other)] == ["mass"]
    assert compare_outcomes(challenger, Contestant(reference="y@1.0.0", concepts=(), outcome=outcome())) == ()


def test_estimates_and_triage_are_compared_where_both_gave_one() -> None:
    estimate = Estimate(scale=Scale.TUMOUR_CLASS, value="malignant", probabilities=(("malignant", 0.7),))
    high = outcome(estimates=(estimate,), triage=Triage(risk=RiskClass.HIGH, score=0.9))
    low = outcome(triage=Triage(risk=RiskClass.LOW, score=0.1))
    (triage,) = compare_outcomes(*contestants(high, low, "mass"))[1:]
    assert (triage.label, triage.champion_answer, triage.challenger_answer) == (
        "triage", "high_risk", "low_risk",
    )  # fmt: skip
    labels = {row.label: row for row in compare_outcomes(*contestants(high, high, "mass"))}
    assert labels["tumour_class"].champion_probability == 0.7


def test_a_failure_and_a_refusal_are_told_from_a_negative_answer() -> None:
    doubt = Doubt(caveat=Caveat.CORRUPTED, sentence="Corrupted.", is_blocking=True)
    (row,) = compare_outcomes(*contestants(None, outcome(doubts=(doubt,)), "mass"))
    assert (row.champion_answer, row.challenger_answer) == ("failed", "refused")
    (label,) = summarise("a", "b", {"1": [row]}).labels
    assert (label.studies, label.silent, label.agreement, label.kappa) == (0, (1, 1), None, None)


def test_masks_of_a_label_are_compared_by_dice() -> None:
    labels = np.zeros((1, 4, 4), dtype=np.uint8)
    labels[0, :2] = 1  # 8 pixels
    other = np.zeros_like(labels)
    other[0, 1:3] = 3  # 8 pixels, 4 shared, under another number
    first = outcome(finding("mass", segment_number=1), mask=labels)
    second = outcome(finding("mass", segment_number=3), mask=other)
    mass, nodule = compare_outcomes(*contestants(first, second))
    assert mass.overlap == pytest.approx(0.5)
    assert nodule.overlap is None, "neither outlined one"


def test_boxes_are_compared_by_the_area_that_they_cover_image_by_image() -> None:
    first = outcome(finding("mass", at=box(0, 0, 10, 10)), finding("mass", at=box(0, 0, 5, 10)))
    half = outcome(finding("mass", at=box(5, 0, 15, 10)))
    assert compare_outcomes(*contestants(first, half, "mass"))[0].overlap == pytest.approx(0.5)
    elsewhere = outcome(finding("mass", at=box(0, 0, 10, 10, OTHER_FRAME)))
    assert compare_outcomes(*contestants(first, elsewhere, "mass"))[0].overlap == 0
    assert compare_outcomes(*contestants(first, outcome(), "mass"))[0].overlap == 0
    assert compare_outcomes(*contestants(outcome(), outcome(), "mass"))[0].overlap is None


CORNERS = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 10)] * 2)
BOXES = st.lists(CORNERS.map(lambda c: box(c[0], c[1], c[0] + c[2], c[1] + c[3])), max_size=4)


@given(BOXES, BOXES)
def test_the_dice_of_boxes_is_that_of_their_pixels(first: list[Box], second: list[Box]) -> None:
    painted = []
    for boxes in (first, second):
        canvas = np.zeros((40, 40), dtype=bool)
        for item in boxes:
            canvas[int(item.top) : int(item.bottom), int(item.left) : int(item.right)] = True
        painted.append(canvas)
    total = painted[0].sum() + painted[1].sum()
    expected = 2 * (painted[0] & painted[1]).sum() / total if total else None
    sides = [outcome(*(finding("mass", at=item) for item in boxes)) for boxes in (first, second)]
    assert compare_outcomes(*contestants(*sides, "mass"))[0].overlap == (
        None if expected is None else pytest.approx(expected)
    )


def test_over_studies_agreement_kappa_and_who_found_more_are_counted() -> None:
    there, gone = finding("mass", confidence=0.9), finding("mass", Presence.ABSENT, confidence=0.2)
    pairs = [(there, there)] * 4 + [(there, gone)] + [(gone, there)] * 2 + [(gone, gone)] * 3
    cases = {
        str(number): compare_outcomes(*contestants(outcome(first), outcome(second), "mass"))
        for number, (first, second) in enumerate(pairs)
    }
    (row,) = summarise("m@1.0.0", "m@2.0.0", cases).labels
    assert (row.both, row.champion_alone, row.challenger_alone, row.neither) == (4, 1, 2, 3)
    assert row.agreement == pytest.approx(0.7)
    assert row.kappa == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert (row.findings, row.found_more) == ((5, 6), (1, 2))
    assert row.probability_difference == pytest.approx(0.07)
    assert (row.dice, row.outlined) == (None, 0)


def test_kappa_is_one_for_full_agreement_and_none_where_there_is_nothing_to_agree_on() -> None:
    assert cohen_kappa([("a", "a"), ("b", "b"), ("c", "c")]) == pytest.approx(1)
    assert cohen_kappa([("a", "a")] * 5) is None
    assert cohen_kappa([]) is None
