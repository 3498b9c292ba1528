from __future__ import annotations

import numpy as np
import pytest
from fakes import WordEncoder

from reporting.language.library_intake import Cut, cut_documents, embed_cuts, require_usable
from reporting.language.passage_table import LibraryError
from reporting.language.passages import CutPolicy, Document


def document(key: str, text: str) -> Document:
    return Document(document_id=key, title=f"Title {key}", source="S", licence="L", text=text)


@pytest.fixture
def cuts() -> tuple[Cut, ...]:
    """Three documents of 200 passages each."""
    text = " ".join(f"Word{n} is here." for n in range(200))
    return cut_documents([document(key, text) for key in "abc"], CutPolicy(maximum_words=3, overlap_words=0))


def test_a_document_is_never_parted_between_two_commits(cuts):
    batches = list(embed_cuts(cuts, dict.fromkeys("abc", "digest"), WordEncoder(), None))
    assert [batch.document_ids for batch in batches] == [("a", "b"), ("c",)]
    assert [len(batch.rows) for batch in batches] == [400, 200]


def test_each_vector_is_that_of_its_passage_under_its_title(cuts):
    encoder = WordEncoder()
    (*_, last) = embed_cuts(cuts, dict.fromkeys("abc", "digest"), encoder, None)
    for row, vector in zip(last.rows[:20], last.vectors, strict=False):
        np.testing.assert_array_equal(vector, encoder.encode([f"{row['title']}\n{row['text']}"])[0])


def test_progress_goes_on_from_one_batch_to_the_next(cuts):
    seen: list[tuple[str, int, int]] = []
    list(embed_cuts(cuts, dict.fromkeys("abc", "digest"), WordEncoder(), lambda *now: seen.append(now)))
    assert [now for _, now, _ in seen] == sorted({now for _, now, _ in seen})
    assert seen[-1] == ("embedding", 600, 600)


@pytest.mark.parametrize("key", ["", "it's", "a b", "-first", "x" * 201])
def test_an_id_that_a_condition_cannot_carry_is_refused(key):
    with pytest.raises(LibraryError, match="unusable"):
        require_usable([document(key, "text")])
