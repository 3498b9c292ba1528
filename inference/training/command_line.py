"""Adapter: lets a recipe's module be run by itself: ``python -m inference.training.<recipe> train|evaluate``.

`preread train` and `preread evaluate` do the same for every recipe; this is for who works on one of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from inference.training.recipe import EvaluateRequest, Recipe, TrainRequest
from inference.training.run_files import write_json

_SEED: Final = 20261122
"""The seed that a request has when nobody says another."""


def command_line(recipe: Recipe) -> typer.Typer:
    """Return the two verbs of a recipe as a command-line program."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, help=recipe.summary)

    @app.command("train")
    def train(
        data: Annotated[Path, typer.Option(help="Folder of the data set.")],
        out: Annotated[Path, typer.Option(help="Run folder.")],
        *,
        pretrained: Annotated[Path | None, typer.Option(help="ImageNet weights to begin with.")] = None,
        resume: Annotated[bool, typer.Option(help="Continue from the run folder's checkpoint.")] = False,
        seed: Annotated[int, typer.Option(help="Seed of weights and draws.")] = _SEED,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="Field of the configuration: matrix=320.")
        ] = None,
    ) -> None:
        """Train and pack the model."""
        overrides = dict(setting.partition("=")[::2] for setting in settings or ())
        package = recipe.train(
            TrainRequest(
                data=data, out=out, resume=resume, seed=seed, pretrained=pretrained, overrides=overrides
            )
        )
        Console().print(f"trained: {package}", highlight=False, soft_wrap=True)

    @app.command("evaluate")
    def evaluate(
        data: Annotated[Path, typer.Option(help="Folder of the data set.")],
        package: Annotated[Path, typer.Option(help="Folder of the model package.")],
        *,
        every_patient: Annotated[
            bool, typer.Option(help="Score all patients: for data that the model was never trained on.")
        ] = False,
        report: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    ) -> None:
        """Score a model package."""
        figures = recipe.evaluate(EvaluateRequest(data=data, package=package, is_every_patient=every_patient))
        if report is not None:
            write_json(report, dict(figures))

    return app
