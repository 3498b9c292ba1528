"""Texts read from files, with what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reporting.language.documents import (
    UNKNOWN_LICENCE,
    DocumentError,
    Provenance,
    read_documents,
    read_medquad,
    read_sample_library,
)
from reporting.language.passages import cut_document

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "text" / "medquad"


def test_front_matter_says_what_a_text_is(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\nid: g/1\ntitle: T\nsource: S\nlicence: L\n---\n# Part\n\nBody.")
    (only,) = read_documents(tmp_path / "a.md")
    assert (only.document_id, only.title, only.source, only.licence) == ("g/1", "T", "S", "L")
    assert only.text == "# Part\n\nBody."


def test_a_bare_text_is_named_by_its_path_and_takes_the_given_provenance(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "my text.txt").write_text("Words.")
    (only,) = read_documents(tmp_path, Provenance(source="Ward", licence="own"))
    assert (only.document_id, only.title, only.source, only.licence) == (
        "deep/my-text", "my text", "Ward", "own",
    )  # fmt: skip
    (tmp_path / "deep" / "my text.txt").unlink()
    (tmp_path / "b.md").write_text("# Heading\n\nWords.")
    (only,) = read_documents(tmp_path / "b.md")
    assert (only.title, only.source, only.licence) == ("Heading", "b.md", UNKNOWN_LICENCE)


def test_json_lines_are_one_text_each(tmp_path: Path) -> None:
    lines = [{"id": "a", "title": "A", "text": "x", "licence": "L"}, {"id": 2, "title": "B", "text": "y"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = read_documents(tmp_path / "t.jsonl")
    assert [(d.document_id, d.licence) for d in found] == [("a", "L"), ("2", UNKNOWN_LICENCE)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pdf", b"%PDF-1.7", "save its text"),
        ("a.docx", b"PK", "give text"),
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
        ("a.md", b"---\n: [\n---\nx", "no YAML"),
        ("a.md", b"---\nauthor: x\n---\nx", "may only give"),
        ("a.jsonl", b"{", "no JSON"),
        ("a.jsonl", b'{"id": "1"}', "needs the keys"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError, match=words):
        read_documents(tmp_path / name)


def test_a_folder_without_texts_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="check the path"):
        read_documents(tmp_path)
    with pytest.raises(DocumentError, match="cannot be read"):
        read_documents(tmp_path / "none.txt")


def test_a_pair_of_medquad_is_a_text_about_its_disease(tmp_path: Path) -> None:
    row = {
        "id": "1-2",
        "qtype": "causes",
        "focus": "X",
        "source": "NIH",
        "question": "?",
        "answer": "Because.",
    }
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    (only,) = read_medquad(tmp_path / "m.jsonl")
    assert (only.document_id, only.title, only.source, only.text) == (
        "medquad/NIH/1-2", "X (causes)", "NIH", "Because.",
    )  # fmt: skip


def test_the_sample_texts_say_that_they_are_samples() -> None:
    documents = read_sample_library()
    assert 12 <= len(documents) <= 20
    assert len({d.document_id for d in documents}) == len(documents)
    for document in documents:
        assert "sample, not clinical guidance" in document.title
        assert "sample, not clinical guidance" in document.licence
        assert cut_document(document)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_medquad_has_an_id_for_every_text() -> None:
    documents = [*read_medquad(DATA / "train.jsonl"), *read_medquad(DATA / "test.jsonl")]
    assert len({d.document_id for d in documents}) == len(documents) == 4890
