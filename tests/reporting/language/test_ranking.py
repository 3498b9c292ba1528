"""Reciprocal rank fusion."""

from __future__ import annotations

import pytest

from reporting.language.ranking import fuse_rankings


def test_what_both_rankings_hold_comes_first() -> None:
    assert fuse_rankings([["a", "b", "c"], ["d", "b"]])[0][0] == "b"


def test_scores_are_sums_of_reciprocal_ranks() -> None:
    assert dict(fuse_rankings([["a", "b"], ["b"]])) == {
        "a": pytest.approx(1 / 61),
        "b": pytest.approx(1 / 62 + 1 / 61),
    }


def test_ties_have_a_fixed_order() -> None:
    assert fuse_rankings([["b"], ["a"]]) == fuse_rankings([["a"], ["b"]])


def test_weights_count() -> None:
    assert fuse_rankings([["a"], ["b"]], weights=[1.0, 2.0])[0][0] == "b"
