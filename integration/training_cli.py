"""Adapter: ``preread train`` and ``preread evaluate``: a recipe by name, a folder of data, a run folder.

What a recipe does is its own; here a person's words become a request, and what can be wrong about them is
said before minutes are spent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from dicom_node.errors import PermanentError

CHECKPOINT: Final = "checkpoint.pt"
_DEFAULT_SEED: Final = 20261122
_INTERRUPTED: Final = 130

out_console = Console()
err_console = Console(stderr=True)

ModelArgument = Annotated[
    str | None, typer.Argument(help="Model to train; --list names them.", show_default=False)
]
DataOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the data set (layouts: docs/training.md).", show_default=False),
]


class TrainingRequestError(PermanentError):
    """What was asked of a training or an evaluation cannot be done; the message says what to give."""


def train(
    model: ModelArgument = None,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/MODEL if absent.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, draws and augmentation.")] = _DEFAULT_SEED,
    pretrained: Annotated[
        Path | None,
        typer.Option(help="File of pretrained weights; random ones if absent.", show_default=False),
    ] = None,
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the recipe, key=value; repeatable.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run folder.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List what can be trained.")] = False,
) -> None:
    """Train a model on a folder of data and pack it; Ctrl-C stops, --resume goes on."""
    from inference.training.recipe import TrainRequest
    from reporting.language.recipes import find_recipe, list_recipes

    if listing:
        table = Table("model", "what it is")
        for entry in list_recipes():
            table.add_row(entry.name, entry.summary)
        out_console.print(table)
        return
    if model is None:
        raise TrainingRequestError("Name the model to train: `preread train --list` lists them.")
    recipe = find_recipe(model)
    run = out or Path("runs") / model
    request = TrainRequest(
        data=require_folder(data),
        out=run,
        resume=resume,
        seed=seed,
        pretrained=_require_file(pretrained),
        overrides=parse_overrides(settings or ()),
    )
    guard_run(run, is_resuming=resume)
    try:
        package = recipe.train(request)
    except KeyboardInterrupt:
        err_console.print(f"stopped; go on with --resume --out {run}", highlight=False)
        raise typer.Exit(_INTERRUPTED) from None
    out_console.print(
        f"trained: {package}\ninstall it with `preread models add {package}`", highlight=False, soft_wrap=True
    )


def evaluate(
    model: Annotated[str, typer.Argument(help="Model to score, by the name of its recipe.")],
    data: DataOption = None,
    package: Annotated[
        Path | None,
        typer.Option(help="Folder of the package; the newest installed one if absent.", show_default=False),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the figures.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of settings.", show_default=False)
    ] = None,
    *,
    every_patient: Annotated[
        bool,
        typer.Option(
            "--every-patient", help="Score all patients: for data that the model was never trained on."
        ),
    ] = False,
) -> None:
    """Score a model package on a folder of data: the tables that its card quotes."""
    from inference.training.recipe import EvaluateRequest
    from reporting.language.recipes import find_recipe

    recipe = find_recipe(model)
    request = EvaluateRequest(
        data=require_folder(data),
        package=package or _installed(model, config),
        is_every_patient=every_patient,
    )
    figures = recipe.evaluate(request)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        out_console.print(f"figures: {json_file}", highlight=False, soft_wrap=True)


def parse_overrides(settings: Sequence[str]) -> dict[str, str]:
    """Read ``key=value`` settings.

    Raises
    ------
    TrainingRequestError
        If one has no ``=``, or a key is given twice.
    """
    overrides: dict[str, str] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key.strip():
            raise TrainingRequestError(f"--set {setting}: write key=value, for example --set epochs=3.")
        if key.strip() in overrides:
            raise TrainingRequestError(f"--set {key.strip()} is given twice: keep one.")
        overrides[key.strip()] = value.strip()
    return overrides


def require_folder(data: Path | None) -> Path:
    """Return the data folder.

    Raises
    ------
    TrainingRequestError
        If none is given, or it is no folder, or it is empty.
    """
    if data is None:
        raise TrainingRequestError("Name the folder of the data set with --data (docs/training.md).")
    if not data.is_dir():
        raise TrainingRequestError(f"{data} is no folder: give the folder of the data set to --data.")
    if not any(data.iterdir()):
        raise TrainingRequestError(f"{data} is empty: docs/training.md says what it must hold.")
    return data


def _require_file(file: Path | None) -> Path | None:
    if file is not None and not file.is_file():
        raise TrainingRequestError(f"There is no file {file}: check --pretrained.")
    return file


def guard_run(run: Path, *, is_resuming: bool) -> None:
    """Refuse to write over an earlier training, and to continue one that is not there.

    Raises
    ------
    TrainingRequestError
        If it is or is not there.
    """
    has_checkpoint = next(run.rglob(CHECKPOINT), None) is not None  # a recipe may train several networks
    if has_checkpoint and not is_resuming:
        raise TrainingRequestError(
            f"{run} holds a training already: continue it with --resume, or choose another --out."
        )
    if is_resuming and not has_checkpoint:
        raise TrainingRequestError(f"{run} holds no {CHECKPOINT} to continue from: leave --resume out.")


def _installed(model: str, config: Path | None) -> Path:
    from inference.packages import discover
    from integration.settings import load_settings

    return discover(load_settings(config).models_dir).package(model).folder
