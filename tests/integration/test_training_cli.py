"""``preread train`` and ``preread evaluate``, with a recipe that only notes what it was asked."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
from random_model_package import NAME, write_random_package
from typer.testing import CliRunner, Result

from dicom_node.errors import PrereadError
from inference.training.recipe import EvaluateRequest, Recipe, TrainRequest
from integration.cli import app
from reporting.language import recipes


class NotedRecipe:
    """What was asked of the recipe; ``train`` leaves a checkpoint and may be interrupted."""

    def __init__(self) -> None:
        self.requests: list[TrainRequest | EvaluateRequest] = []
        self.is_interrupted = False

    def train(self, request: TrainRequest) -> Path:
        self.requests.append(request)
        request.out.mkdir(parents=True, exist_ok=True)
        (request.out / "checkpoint.pt").touch()
        if self.is_interrupted:
            raise KeyboardInterrupt
        return request.out / "package" / NAME / "1.0.0"

    def evaluate(self, request: EvaluateRequest):
        self.requests.append(request)
        return {"dice": {"mean": 0.5, "ci95": [0.4, 0.6], "n": 3}}


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> NotedRecipe:
    noted = NotedRecipe()
    module = types.ModuleType("noted_recipe")
    module.RECIPE = Recipe(name=NAME, summary="A test", train=noted.train, evaluate=noted.evaluate)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(recipes, "RECIPE_MODULES", {NAME: module.__name__})
    return noted


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "index.csv").touch()
    return folder


def preread(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_what_can_be_trained_is_listed(noted: NotedRecipe) -> None:
    listed = preread("train", "--list")
    assert NAME in listed.stdout
    assert "A test" in listed.stdout
    assert noted.requests == []


def test_a_training_gets_what_was_asked_and_names_its_package(
    noted: NotedRecipe, data: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "encoder.safetensors"
    weights.touch()
    options = ("--seed", "7", "--pretrained", weights, "--set", "epochs=3", "--set", "rate = 1e-3")
    answer = preread("train", NAME, "--data", data, "--out", tmp_path / "run", *options)
    assert answer.exit_code == 0, answer.output
    assert f"models add {tmp_path / 'run' / 'package' / NAME / '1.0.0'}" in answer.stdout
    assert noted.requests == [
        TrainRequest(
            data=data,
            out=tmp_path / "run",
            seed=7,
            pretrained=weights,
            overrides={"epochs": "3", "rate": "1e-3"},
        )
    ]


def test_an_interrupted_training_says_how_to_go_on_and_is_not_written_over(
    noted: NotedRecipe, data: Path, tmp_path: Path
) -> None:
    noted.is_interrupted = True
    command = ("train", NAME, "--data", data, "--out", tmp_path / "run")
    stopped = preread(*command)
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    noted.is_interrupted = False
    assert "--resume" in _error_of(*command)
    assert preread(*command, "--resume").exit_code == 0
    assert noted.requests[-1].resume  # type: ignore[union-attr]


def test_what_is_wrong_is_said_before_the_recipe_begins(
    noted: NotedRecipe, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    begin = ("train", NAME, "--data", data, "--out", tmp_path / "run")
    assert NAME in _error_of("train", "no-such-model", "--data", data)
    assert "--list" in _error_of("train")
    assert "--data" in _error_of("train", NAME)
    assert "no folder" in _error_of("train", NAME, "--data", tmp_path / "nowhere")
    assert "is empty" in _error_of("train", NAME, "--data", tmp_path / "empty")
    assert "key=value" in _error_of(*begin, "--set", "epochs")
    assert "twice" in _error_of(*begin, "--set", "epochs=1", "--set", "epochs=2")
    assert "--pretrained" in _error_of(*begin, "--pretrained", tmp_path / "nowhere.safetensors")
    assert "continue" in _error_of(*begin, "--resume")
    assert noted.requests == []


def test_the_newest_installed_package_is_scored_unless_another_is_named(
    noted: NotedRecipe, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_package(tmp_path / "models", version="0.1.0")
    newest = write_random_package(tmp_path / "models", version="0.10.0")
    monkeypatch.setenv("PREREAD_MODELS_DIR", str(tmp_path / "models"))
    answer = preread("evaluate", NAME, "--data", data, "--json", tmp_path / "out" / "figures.json")
    assert answer.exit_code == 0, answer.output
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["dice"]["n"] == 3
    preread("evaluate", NAME, "--data", data, "--package", tmp_path, "--every-patient")
    assert noted.requests == [
        EvaluateRequest(data=data, package=newest),
        EvaluateRequest(data=data, package=tmp_path, is_every_patient=True),
    ]


def _error_of(*arguments: str | Path) -> str:
    answer = preread(*arguments)
    assert isinstance(answer.exception, PrereadError), answer.output
    return str(answer.exception)
