"""Which language model the settings lead to, and what its start costs."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from gguf_models import write_adapter, write_gguf

from integration import language
from integration.settings import LanguageSection, Settings
from reporting.language import digests
from reporting.language.adapters import pack_adapter
from reporting.language.digests import digest_file
from reporting.language.weights import MissingLanguageModelError

pytest.importorskip("gguf", reason="needs the extra language")

CARD = {
    "name": "wording",
    "version": "1.0.0",
    "title": "Wording of reports",
    "base_model": "tiny",
    "licence": "Apache-2.0",
    "intended_use": "Tests.",
    "limits": (),
    "trained_on": (),
}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the default model, with an adapter that was trained on it in the folder ``models``."""
    base = tmp_path / "tiny.gguf"
    write_gguf(base)
    trained = write_adapter(tmp_path / "trained")
    pack_adapter(
        trained, tmp_path / "models" / "wording" / "1.0.0", CARD | {"base_sha256": digest_file(base)}
    )
    monkeypatch.setattr(language, "find_default_model", lambda: base)
    return base


def test_a_start_reads_each_file_once_to_know_which_it_is(tmp_path, base, monkeypatch):
    read: Counter[str] = Counter()
    real = digests._read

    def count(path: Path) -> str:
        read[path.name] += 1
        return real(path)

    loaded: list[Path] = []
    runtime = SimpleNamespace(LLMPipeline=lambda path, *_: loaded.append(path))
    monkeypatch.setitem(sys.modules, "openvino_genai", runtime)
    monkeypatch.setattr(digests, "_SETTLING_S", 0.0)
    monkeypatch.setattr(digests, "_read", count)
    model = language.build_model(
        LanguageSection(backend="embedded"), tmp_path / "merged", tmp_path / "models"
    )
    assert model.identity.startswith("tiny (")
    assert "adapter wording 1.0.0" in model.identity
    model.load()
    assert [path.parent for path in loaded] == [tmp_path / "merged"]
    assert read == {"tiny.gguf": 1, "adapter_model.safetensors": 1, "adapter_config.json": 1}


def test_by_itself_the_embedded_model_is_taken_where_it_is_whole(tmp_path, base, monkeypatch):
    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: object())
    section = LanguageSection()
    assert section.backend == "auto"
    assert language.build_model(section, tmp_path / "merged", tmp_path / "models") is not None
    for models_dir in (None, tmp_path / "empty"):
        assert language.build_model(section, tmp_path / "merged", models_dir) is None
        assert "adapter" in language.explain_absence(models_dir)
    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: None)
    assert language.build_model(section, tmp_path / "merged", tmp_path / "models") is None
    assert "pip install" in language.explain_absence(tmp_path / "models")


def test_a_default_model_that_is_not_installed_leaves_the_drafts(tmp_path, monkeypatch):
    def miss() -> Path:
        raise MissingLanguageModelError("It is not installed.")

    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(language, "find_default_model", miss)
    assert language.explain_absence(tmp_path) == "It is not installed"
    settings = Settings(data_dir=tmp_path, language=LanguageSection())
    assert language.look_at_language(settings) == "none: drafts go out (It is not installed)"


def test_a_model_of_the_sites_own_says_what_runs_it():
    with pytest.raises(ValueError, match=r"language\.backend"):
        LanguageSection(model="llama")
