import json

import pytest
from tiny_language_models import write_llama
from typer.testing import CliRunner

from dicom_node.errors import PrereadError
from integration import language_cli
from integration.cli import app
from integration.training_cli import TrainingRequestError

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
runner = CliRunner()


def _call(*arguments):
    return runner.invoke(app, ["language", *map(str, arguments)], catch_exceptions=True)


def test_recipes_are_listed_with_what_they_are():
    said = _call("train", "--list").output
    assert "smollm2-135m" in said
    assert "distil-llama-8b-3b" in said


def test_train_resume_and_evaluate_go_through_the_command_line(tmp_path):
    base = write_llama(tmp_path / "base")
    run = tmp_path / "run"
    settings = [f"base={base}", "drawn=3", "validation=2", "kinds=[brain_volumes]", "has_samples=false"]
    options = [part for setting in settings for part in ("--set", setting)]
    trained = _call("train", "--out", run, *options)
    assert trained.exit_code == 0, trained.output
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    again = _call("train", "--out", run, *options)
    assert isinstance(again.exception, TrainingRequestError)
    assert "--resume" in str(again.exception)
    resumed = _call("train", "--out", run, "--resume", *options)
    assert resumed.exit_code == 0, resumed.output
    figures = tmp_path / "figures.json"
    scored = _call(
        "evaluate", "--out", tmp_path / "scored", "--json", figures, "--set", f"base={base}",
        "--set", f"adapter={run / 'adapter'}", "--set", "reports=2", "--set", "has_answers=false",
        "--set", "kinds=[brain_volumes]",
    )  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert json.loads(figures.read_text())["perplexity"]["n"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--set", "rank"], "key=value"),
        (["train", "--set", "ranks=3"], "ranks"),
        (["train", "--recipe", "unknown"], "no recipe"),
        (["train", "--resume"], "no checkpoint"),
        (["distill", "--set", "teacher=nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    error = _call(*arguments).exception
    assert isinstance(error, PrereadError)
    assert says in str(error)


def test_a_missing_extra_is_named_with_its_install(monkeypatch):
    found = language_cli.importlib.util.find_spec
    monkeypatch.setattr(
        language_cli.importlib.util, "find_spec", lambda name: None if name == "peft" else found(name)
    )
    error = _call("train").exception
    assert isinstance(error, TrainingRequestError)
    assert "pip install" in str(error)
