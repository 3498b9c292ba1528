"""The commands for model packages, as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from foreign_packages import write_bundle_package, write_torchscript_package
from random_model_package import NAME, write_random_package
from typer.testing import CliRunner, Result

from integration import models_cli
from integration.models_cli import models_app


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "preread.yaml"
    path.write_text(
        yaml.safe_dump({"models_dir": str(tmp_path / "models"), "data_dir": str(tmp_path / "data")})
    )
    return path


@pytest.fixture
def run(config: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREREAD_CONFIG", "")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(models_cli, "_quiet", lambda: None)  # logging would keep the runner's own stream

    def call(*arguments: object) -> Result:
        for console in ("out_console", "err_console"):
            monkeypatch.setattr(
                models_cli, console, type(models_cli.out_console)(width=200, stderr=console == "err_console")
            )
        return CliRunner().invoke(models_app, [*map(str, arguments), "--config", str(config)])

    return call


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"other")


def test_a_list_says_what_is_usable_and_what_is_broken_and_why(run, tmp_path):
    write_random_package(tmp_path / "models")
    assert run("list").exit_code == 0
    break_weights(write_random_package(tmp_path / "models", version="0.2.0"))
    answer = run("list")
    assert answer.exit_code == 1
    rows = {
        line.split("│")[2].strip(): line
        for line in answer.stdout.splitlines()
        if NAME in line and "│" in line
    }
    assert "usable" in rows["0.1.0"]
    assert "MR" in rows["0.1.0"]
    assert "broken" in rows["0.2.0"]
    assert "SHA-256 differs" in answer.stderr
    assert len(json.loads(run("list", "--json").stdout)) == 2


def test_a_card_is_shown_for_people_and_for_programs(run, tmp_path):
    for version in ("0.1.0", "0.2.0"):
        write_random_package(tmp_path / "models", version=version)
    shown = run("show", NAME).stdout
    assert "0.2.0" in shown
    assert "Random weights." in shown
    assert json.loads(run("show", f"{NAME}@0.1.0", "--json").stdout)["version"] == "0.1.0"
    assert run("show", "nobody").exit_code == 1


def test_a_bundle_is_added_verified_and_tuned(run, tmp_path):
    given = write_bundle_package(tmp_path / "given")
    added = run("add", given)
    assert added.exit_code == 0, added.output
    assert "bundled@0.1.0" in added.stdout
    assert (tmp_path / "models/bundled/0.1.0/bundle/docs/README.md").is_file()
    verified = run("verify", "bundled")
    assert verified.exit_code == 0
    assert "ok   bundled@0.1.0" in verified.stdout


def test_tuning_is_stored_beside_the_data_and_not_in_the_package(run, tmp_path, monkeypatch):
    from inference import tuning
    from inference.engines import EngineName

    monkeypatch.setattr(tuning, "available_engines", lambda _: (EngineName.EAGER, EngineName.ONNXRUNTIME))
    folder = write_torchscript_package(tmp_path / "models")
    before = sorted(folder.rglob("*"))
    tuned = run("tune", "script", "--budget-s", "0.1")
    assert tuned.exit_code == 0, tuned.output
    assert "chosen" in tuned.stdout
    (stored,) = (tmp_path / "data" / "engines").glob("*.json")
    assert {trial["engine"] for trial in json.loads(stored.read_text())["trials"]} == {"eager", "onnxruntime"}
    assert sorted(folder.rglob("*")) == before


def test_verification_finds_what_a_digest_cannot(run, tmp_path):
    write_random_package(tmp_path / "models")
    folder = write_torchscript_package(tmp_path / "models")
    card = yaml.safe_load((folder / "model.yaml").read_text())
    card["labels"] = card["labels"][:1]
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    assert run("list").exit_code == 0
    answer = run("verify")
    assert answer.exit_code == 1
    assert f"ok   {NAME}@0.1.0" in answer.stdout
    assert "FAIL" in answer.stdout
    assert "3 channels for the 1 labels" in answer.stdout


def test_a_package_that_fails_its_dry_run_is_not_added(run, tmp_path):
    folder = write_torchscript_package(tmp_path / "given")
    card = yaml.safe_load((folder / "model.yaml").read_text())
    card["network"]["activation"] = "none"
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    answer = run("add", folder)
    assert answer.exit_code == 1
    assert "probability" in str(answer.exception)
    assert not list((tmp_path / "models").iterdir())
