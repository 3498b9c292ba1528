from __future__ import annotations

from pathlib import Path

import pytest
from fakes import WordEncoder

from reporting.language.library_intake import embed_rows
from reporting.language.passage_table import (
    LibraryError,
    PassageTable,
    create_table,
    describe_passage,
    open_table,
    replace_table,
)
from reporting.language.passages import Document, Passage, cut_document

lancedb = pytest.importorskip("lancedb")

ENCODER = WordEncoder()


def write(table: PassageTable, key: str, text: str) -> tuple[Passage, ...]:
    document = Document(document_id=key, title=f"Title {key}", source="S", licence="L", text=text)
    passages = cut_document(document)
    rows = [describe_passage(document, passage, "digest") for passage in passages]
    table.write(rows, embed_rows(rows, ENCODER, None), ENCODER, [key])
    return passages


def test_passages_come_back_as_they_went_in(tmp_path):
    passages = write(create_table(tmp_path / "library", ENCODER), "a", "One.\n\n# Two\n\nThree.")
    table = open_table(tmp_path / "library")
    assert table is not None
    assert sorted(table.passages(), key=lambda passage: passage.passage_id) == list(passages)
    assert table.digests() == {"a": "digest"}
    assert table.encoder == ENCODER.identity


def test_a_document_written_again_keeps_no_passage_of_before_and_others_keep_theirs(tmp_path):
    table = create_table(tmp_path / "library", ENCODER)
    write(table, "a", "One.\n\n# Two\n\nThree.")
    write(table, "b", "Four.")
    write(table, "a", "Five.")
    assert sorted(passage.text for passage in table.passages()) == ["Five.", "Four."]
    table.remove(["a"])
    assert [passage.text for passage in table.passages()] == ["Four."]


def test_there_is_no_table_in_a_new_or_empty_folder(tmp_path):
    assert open_table(tmp_path / "none") is None
    assert open_table(tmp_path) is None


def test_a_table_of_another_format_is_refused(tmp_path):
    import pyarrow as pa

    schema = pa.schema([pa.field("passage_id", pa.string())], metadata={"format": "0"})
    lancedb.connect(str(tmp_path)).create_table("passages", schema=schema)
    with pytest.raises(LibraryError, match="another format"):
        open_table(tmp_path)


def test_a_damaged_table_is_an_error_of_ours(tmp_path: Path):
    (tmp_path / "passages.lance").mkdir()
    with pytest.raises(LibraryError, match="LanceDB cannot use"):
        open_table(tmp_path)


def test_a_table_written_over_another_is_the_new_encoders(tmp_path):
    write(create_table(tmp_path / "library", ENCODER), "a", "One.")
    other = WordEncoder(dimension=32, name="other")
    replace_table(tmp_path / "library", [], embed_rows([], other, None), other)
    table = open_table(tmp_path / "library")
    assert table is not None
    assert table.encoder == other.identity
    assert table.passages() == ()
