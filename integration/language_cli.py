"""Adapter: ``preread language``: fine-tune, distil and score the language models that word reports.

What a recipe does is its own; here a person's words become its configuration, and what can be wrong
about them is said before minutes are spent.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from integration.training_cli import TrainingRequestError, guard_run, parse_overrides

_INTERRUPTED: Final = 130

out_console = Console()
err_console = Console(stderr=True)

language_app = typer.Typer(
    help="Train and score the language models that word reports.", no_args_is_help=True
)

RecipeOption = Annotated[
    str, typer.Option(help="Name of a recipe (--list names them) or a YAML file; the defaults if absent.")
]
OutOption = Annotated[Path | None, typer.Option(help="Run folder; runs/language/RECIPE if absent.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of the recipe, key=value; repeatable.", show_default=False),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue from the run folder.")]
ListOption = Annotated[bool, typer.Option("--list", help="List the recipes.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """What one command trains: by which configuration, by what, and what is said of the folder it writes."""

    config: type[Any]
    train: Callable[..., Path]
    said: str


def _open_lora() -> _Training:
    from reporting.language.lora import LoraConfig, train_lora

    said = "adapter: {folder}\nuse it with PREREAD_LANGUAGE__ADAPTER={folder}"
    return _Training(config=LoraConfig, train=train_lora, said=said)


def _open_distillation() -> _Training:
    from reporting.language.distillation import DistillConfig, distil

    return _Training(config=DistillConfig, train=distil, said="student: {folder}")


def _add_training(command: str, words: str, run_name: str, open_training: Callable[[], _Training]) -> None:
    """Add a command that trains; all that do take the same options.

    Parameters
    ----------
    command, words : str
        Its name and its help.
    run_name : str
        Name of the run folder where no recipe names it.
    open_training : callable
        Imports what trains, when the command runs.
    """

    def train(
        recipe: RecipeOption = "",
        out: OutOption = None,
        *,
        settings: SettingsOption = None,
        resume: ResumeOption = False,
        listing: ListOption = False,
    ) -> None:
        _require_extra()
        from reporting.language.lora import read_recipe

        training = open_training()
        if listing:
            _list_recipes()
            return
        config = read_recipe(recipe, training.config, parse_overrides(settings or ()))
        run = _open_run(out or Path("runs/language") / (Path(recipe).stem or run_name), is_resuming=resume)
        folder = _run(lambda: training.train(config, run, resume=resume), run)
        out_console.print(training.said.format(folder=folder), highlight=False, soft_wrap=True)

    language_app.command(command, help=words)(train)


_add_training(
    "train", "Fine-tune a language model by LoRA; Ctrl-C stops, --resume goes on.", "lora", _open_lora
)
_add_training(
    "distill",
    "Teach a smaller language model by a larger one; Ctrl-C stops, --resume goes on.",
    "distill",
    _open_distillation,
)


@language_app.command()
def evaluate(
    out: OutOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the figures.", show_default=False)
    ] = None,
    *,
    settings: SettingsOption = None,
) -> None:
    """Score a language model on held-back studies: perplexity, likeness, and what the checker says."""
    _require_extra()
    from inference.training.run_files import override
    from reporting.language import evaluation

    config = override(evaluation.EvaluateConfig(), parse_overrides(settings or ()))
    run = out or Path("runs/language/evaluation")
    figures = _run(lambda: evaluation.evaluate(config, run), run)
    _print_figures(figures)
    out_console.print(f"answers: {run / evaluation.ANSWERS}", highlight=False, soft_wrap=True)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@language_app.command()
def unpack(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    base: Annotated[str, typer.Option(help="`embedded`, or a folder.")] = "embedded",
) -> None:
    """Write the embedded model as a folder of transformers, which loads in seconds: --set base=FOLDER."""
    _require_extra()
    from reporting.language.base_models import unpack as write

    out_console.print(f"model: {write(base, out)}", highlight=False, soft_wrap=True)


def _require_extra() -> None:
    """Refuse before anything is loaded where the libraries of the extra are missing.

    Raises
    ------
    TrainingRequestError
        If one is.
    """
    missing = [name for name in ("transformers", "peft", "nltk") if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingRequestError(
            f"{missing[0]} is not installed: pip install 'preread[language]', then "
            "pip install --no-deps --requirement no-deps.txt"
        )


def _list_recipes() -> None:
    from reporting.language.lora import RECIPES, list_recipes

    table = Table("recipe", "what it is")
    for name in list_recipes():
        first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(name, first.lstrip("# "))
    out_console.print(table)


def _open_run(run: Path, *, is_resuming: bool) -> Path:
    """Return the run folder; see `integration.training_cli.guard_run`."""
    guard_run(run, is_resuming=is_resuming)
    run.mkdir(parents=True, exist_ok=True)
    return run


def _run(work: Any, run: Path) -> Any:
    """Do the work; Ctrl-C ends it without a traceback."""
    try:
        return work()
    except KeyboardInterrupt:
        err_console.print(f"stopped; go on with --resume --out {run}", highlight=False)
        raise typer.Exit(_INTERRUPTED) from None


def _print_figures(figures: dict[str, Any]) -> None:
    table = Table("measure", "value", "95 % interval", "n")
    for name, value in figures.items():
        if isinstance(value, dict) and "mean" in value:
            low, high = value["ci95"]
            table.add_row(name.replace("_", " "), f"{value['mean']}", f"{low} to {high}", f"{value['n']}")
        else:
            table.add_row(name.replace("_", " "), f"{value}", "", "")
    out_console.print(table)
