"""Texts cut into passages: what is kept, how long they are, and where they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reporting.language.passages import CutPolicy, Document, cut_document, digest_document

POLICY = CutPolicy(maximum_words=12, overlap_words=4)


def document(text: str, **changes: str) -> Document:
    values = {"document_id": "d", "title": "T", "source": "S", "licence": "L", **changes}
    return Document(**values, text=text)


words = st.sampled_from(["lung", "Heart.", "12 mm", "A", "effusion?", "\n\n", "\n- item", "\n# Part\n", "no"])


@settings(max_examples=200, deadline=None)
@given(st.lists(words, max_size=80).map(" ".join))
def test_no_passage_is_too_long_and_no_word_is_lost(text: str) -> None:
    passages = cut_document(document(text), POLICY)
    assert all(0 < len(p.text.split()) <= POLICY.maximum_words for p in passages)
    said = [word for p in passages for word in p.text.split()]
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert set(body.split()) <= set(said)
    assert [p.passage_id for p in passages] == [f"d#{n}" for n in range(1, len(passages) + 1)]


def test_a_passage_stays_within_its_section_and_carries_its_heading() -> None:
    passages = cut_document(document("Before.\n\n# Size\n\nIt is small.\n\n## Next\n\nLook again."))
    assert [(p.title, p.text) for p in passages] == [
        ("T", "Before."),
        ("T: Size", "It is small."),
        ("T: Next", "Look again."),
    ]


def test_a_heading_in_a_fence_is_text() -> None:
    assert [p.title for p in cut_document(document("```\n# no heading\n```\nMore."))] == ["T"]
    assert "kept" in cut_document(document("```\nkept"))[0].text


def test_sentences_are_repeated_across_a_cut() -> None:
    text = "One two three four. Five six seven. Eight nine ten eleven. Twelve thirteen."
    first, second = cut_document(document(text), POLICY)
    assert first.text.endswith("Eight nine ten eleven.")
    assert second.text == "Eight nine ten eleven. Twelve thirteen."


def test_paragraphs_are_not_cut_where_they_fit() -> None:
    text = "One two three four five six seven.\n\nEight nine ten eleven twelve thirteen."
    assert [len(p.text.split()) for p in cut_document(document(text), POLICY)] == [7, 6]


@pytest.mark.parametrize("changed", ["document_id", "title", "source", "licence"])
def test_the_digest_changes_with_all_that_a_passage_shows(changed: str) -> None:
    policy = CutPolicy()
    one = digest_document(document("text"), policy)
    assert one == digest_document(document("text"), policy)
    assert one != digest_document(document("text", **{changed: "other"}), policy)
    assert one != digest_document(document("text."), policy)
    assert one != digest_document(document("text"), POLICY)


def test_an_overlap_as_long_as_a_passage_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap_words"):
        CutPolicy(maximum_words=5, overlap_words=5)
