"""Retrieval figures against hand-made rankings."""

from __future__ import annotations

from math import log2

import pytest

from reporting.language.retrieval_metrics import (
    METRICS,
    Answered,
    first_of_each,
    score_question,
    score_search,
)


def answered(ranking: str, relevant: str, group: str = "g") -> Answered:
    return Answered(ranking=tuple(ranking), relevant=frozenset(relevant), group=group)


def test_figures_of_one_question() -> None:
    figures = dict(zip(METRICS, score_question(answered("xaybz", "ab")), strict=True))
    best = 1 + 1 / log2(3)
    assert figures == {
        "recall@1": 0.0,
        "recall@5": 1.0,
        "recall@10": 1.0,
        "MRR": 0.5,
        "nDCG@10": pytest.approx((1 / log2(3) + 1 / log2(5)) / best),
    }


def test_nothing_found_scores_nothing_and_all_first_scores_one() -> None:
    assert set(score_question(answered("", "a"))) == {0.0}
    assert set(score_question(answered("a", "a"))) == {1.0}


def test_means_are_over_questions_and_intervals_over_groups() -> None:
    answers = [answered("a", "a", "1"), answered("b", "a", "2"), answered("b", "a", "2")]
    recall = score_search(answers)["recall@1"]
    assert recall.mean == pytest.approx(1 / 3)
    assert recall.count == 2
    assert recall.low <= recall.mean <= recall.high


def test_a_document_stands_where_its_best_passage_stands() -> None:
    assert first_of_each(["a", "b", "a", "c"]) == ("a", "b", "c")
