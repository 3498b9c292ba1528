"""Keyword search: stems, spelling, and ranking by BM25."""

from __future__ import annotations

import pytest

from reporting.language.keywords import KeywordIndex, split_words

pytest.importorskip("bm25s")
TEXTS = ("A pleural effusion on the left.", "Haemorrhage in the brain.", "The heart is enlarged.")


def test_british_and_american_words_are_one() -> None:
    assert split_words("haemorrhages, oedema and tumours") == split_words("hemorrhage, edema, tumor")


def test_stop_words_go_and_numbers_stay() -> None:
    assert split_words("What is it at 12.5 mm?") == ["12.5", "mm"]


def test_the_text_that_shares_words_is_found() -> None:
    index = KeywordIndex(TEXTS)
    assert [position for position, _ in index.search("hemorrhages of brains", 3)] == [1]


@pytest.mark.parametrize("query", ["", "the of", "zebra"])
def test_a_query_without_known_words_finds_nothing(query: str) -> None:
    assert KeywordIndex(TEXTS).search(query, 3) == ()


def test_an_empty_index_finds_nothing() -> None:
    assert KeywordIndex([]).search("heart", 3) == ()
    assert KeywordIndex(["the"]).search("the", 3) == ()
