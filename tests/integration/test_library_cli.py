"""The commands for the library, as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from fakes import WordEncoder
from typer.testing import CliRunner, Result

from integration import library_cli
from integration.library_cli import library_app
from reporting.language import embedding

pytest.importorskip("lancedb")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "preread.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(tmp_path / "data")}))
    monkeypatch.setenv("PREREAD_CONFIG", "")
    encoder = WordEncoder()
    monkeypatch.setattr(embedding, "open_encoder", lambda *_, **__: encoder)

    def call(*arguments: object) -> Result:
        for console in ("out_console", "err_console"):
            fresh = type(library_cli.out_console)(width=200, stderr=console == "err_console")
            monkeypatch.setattr(library_cli, console, fresh)
        return CliRunner().invoke(library_app, [*map(str, arguments), "--config", str(config)])

    return call


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "effusion.md").write_text("---\nlicence: CC0\n---\n# Effusion\n\nFluid is tapped.")
    (folder / "heart.txt").write_text("The heart is enlarged.")
    return folder


def test_texts_are_added_listed_found_and_removed(run, texts: Path) -> None:
    added = run("add", texts, "--source", "Ward", "--licence", "own")
    assert "2 added, 0 replaced, 0 unchanged; 2 passages" in added.stdout
    assert "2 unchanged; 0 passages" in run("add", texts, "--source", "Ward", "--licence", "own").stdout
    listed = json.loads(run("list", "--json").stdout)
    assert [(item["document_id"], item["licence"]) for item in listed] == [
        ("effusion", "CC0"),
        ("heart", "own"),
    ]
    hits = json.loads(run("search", "fluid", "--kind", "keyword", "--json").stdout)
    assert [hit["passage_id"] for hit in hits] == ["effusion#1"]
    assert "Fluid is tapped." in run("search", "fluid").stdout
    assert run("remove", "heart").exit_code == 0
    assert run("remove", "heart").exit_code == 1


def test_a_missing_licence_is_said(run, texts: Path) -> None:
    assert "1 of the texts state no licence" in run("add", texts).stderr


def test_the_sample_texts_can_be_added(run) -> None:
    assert "0 unchanged" in run("add", "--sample").stdout
    assert "not clinical guidance" in run("search", "nodule").stdout


def test_nothing_to_add_is_an_error(run) -> None:
    assert "--sample" in str(run("add").exception)


def test_searches_are_measured_side_by_side(run, texts: Path, tmp_path: Path) -> None:
    run("add", texts)
    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps({"question": "heart enlarged", "document_ids": ["heart"]}))
    measured = json.loads(run("evaluate", questions, "--json").stdout)
    assert measured["questions"] == 1
    assert {kind: figures["recall@1"]["mean"] for kind, figures in measured["search"].items()} == {
        "keyword": 1.0,
        "vector": 1.0,
        "hybrid": 1.0,
    }
    questions.write_text(json.dumps({"question": "x", "document_ids": ["unknown"]}))
    assert "does not hold" in str(run("evaluate", questions).exception)
