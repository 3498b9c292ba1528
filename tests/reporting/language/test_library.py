"""The library on disk: idempotent, atomic, true to its encoder, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import WordEncoder

from reporting.language.library import (
    Addition,
    Library,
    LibraryEncoderError,
    LibraryError,
    open_library,
    reembed_library,
)
from reporting.language.passages import Document

pytest.importorskip("lancedb")


def document(key: str, text: str, **changes: str) -> Document:
    values = {"title": f"Title {key}", "source": f"Source {key}", "licence": "CC BY 4.0", **changes}
    return Document(document_id=key, text=text, **values)


DOCUMENTS = (
    document("effusion", "Blunting of the angle.\n\n# Size\n\nAn effusion of 200 mL shows."),
    document("nodule", "A nodule below 6 mm."),
    document("heart", "The heart is enlarged."),
)


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def library(tmp_path: Path, encoder: WordEncoder) -> Library:
    library = open_library(tmp_path / "library", encoder)
    library.add(DOCUMENTS)
    return library


def test_a_text_added_again_is_not_embedded_again(library: Library, encoder: WordEncoder) -> None:
    before, version = encoder.encoded, library.version
    assert library.add(DOCUMENTS) == Addition(added=0, replaced=0, unchanged=3, passages=0)
    assert (encoder.encoded, library.version) == (before, version)


def test_a_changed_text_replaces_its_passages(library: Library) -> None:
    done = library.add([document("effusion", "Ultrasound shows septations."), *DOCUMENTS[1:]])
    assert done == Addition(added=0, replaced=1, unchanged=2, passages=1)
    assert [p.text for p in library.passages() if p.document_id == "effusion"] == [
        "Ultrasound shows septations."
    ]


@pytest.mark.parametrize("kind", ["hybrid", "vector", "keyword"])
def test_a_hit_carries_what_an_answer_cites(library: Library, kind: str) -> None:
    hit = library.search("effusion of 200 mL", 2, kind)[0]
    assert (hit.passage_id, hit.document_id) == ("effusion#2", "effusion")
    assert (hit.title, hit.source, hit.licence) == ("Title effusion: Size", "Source effusion", "CC BY 4.0")
    assert hit.text == "An effusion of 200 mL shows."
    assert hit.score > 0


@pytest.mark.parametrize("kind", ["hybrid", "vector", "keyword"])
def test_scores_fall_and_the_limit_holds(library: Library, kind: str) -> None:
    hits = library.search("the heart and the nodule", 2, kind)
    assert len(hits) <= 2
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_an_empty_query_an_empty_library_and_no_limit_find_nothing(
    library: Library, tmp_path: Path, encoder: WordEncoder
) -> None:
    assert library.search(" ") == library.search("heart", 0) == ()
    empty = open_library(tmp_path / "empty", encoder)
    assert empty.search("heart") == empty.passages() == empty.documents() == ()


def test_an_unknown_kind_is_named(library: Library) -> None:
    with pytest.raises(LibraryError, match="telepathy"):
        library.search("heart", kind="telepathy")


def test_a_removed_text_is_found_no_more(library: Library) -> None:
    assert library.remove(["heart", "not there"]) == 1
    assert "heart" not in {hit.document_id for hit in library.search("the heart is enlarged", 9)}
    assert [entry.document_id for entry in library.documents()] == ["effusion", "nodule"]


def test_the_list_says_title_source_licence_and_size(library: Library) -> None:
    entry = library.documents()[0]
    assert (entry.title, entry.source, entry.licence) == ("Title effusion", "Source effusion", "CC BY 4.0")
    assert entry.passages == 2


def test_another_process_sees_what_is_added(library: Library, tmp_path: Path, encoder: WordEncoder) -> None:
    assert library.search("pneumothorax", kind="keyword") == ()
    open_library(tmp_path / "library", encoder).add([document("air", "A pneumothorax.")])
    assert library.search("pneumothorax", kind="keyword")[0].document_id == "air"


def test_a_library_of_another_encoder_is_refused_until_it_is_embedded_again(
    library: Library, tmp_path: Path
) -> None:
    other = WordEncoder(dimension=32, name="other")
    with pytest.raises(LibraryEncoderError, match="words 64"):
        open_library(tmp_path / "library", other)
    assert reembed_library(tmp_path / "library", other) == 4
    assert reembed_library(tmp_path / "library", other) == 0
    again = open_library(tmp_path / "library", other)
    assert again.add(DOCUMENTS).unchanged == 3
    assert again.search("nodule", kind="vector")[0].document_id == "nodule"
    with pytest.raises(LibraryEncoderError):
        library.search("nodule")


def test_bad_texts_are_refused_before_anything_is_added(library: Library) -> None:
    version = library.version
    for documents, words in (
        ([document("fine", "text"), document("it's", "text")], "unusable"),
        ([document("twice", "a"), document("twice", "b")], "Two documents"),
        ([document("empty", " \n")], "no text"),
        ([document("headings", "# Only\n")], "no text"),
    ):
        with pytest.raises(LibraryError, match=words):
            library.add(documents)
    assert library.version == version


def test_many_texts_go_in_by_several_commits_and_progress_ends_at_all(
    tmp_path: Path, encoder: WordEncoder
) -> None:
    library = open_library(tmp_path / "many", encoder)
    seen: list[tuple[str, int, int]] = []
    library.add([document(f"d{n}", f"word{n}") for n in range(600)], lambda *now: seen.append(now))
    assert seen[-1] == ("embedding", 600, 600)
    assert [now for _, now, _ in seen] == sorted(now for _, now, _ in seen)
    assert len(library.passages()) == 600


def test_a_folder_of_other_files_is_no_library(tmp_path: Path, encoder: WordEncoder) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(LibraryError, match="its own folder"):
        open_library(tmp_path, encoder)


def test_there_is_nothing_to_embed_again_without_a_library(tmp_path: Path, encoder: WordEncoder) -> None:
    with pytest.raises(LibraryError, match="no library"):
        reembed_library(tmp_path / "none", encoder)
