"""Adapter: ``preread models``: what is installed, what it is for, whether it works, and how fast it can be.

`list` and `verify` end with status 1 when a package is unusable, so that a script can ask them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_node.clock import utc_now
from dicom_node.errors import PrereadError
from integration.settings import Settings, load_settings

if TYPE_CHECKING:
    from inference.packages import Catalogue, ModelPackage
    from inference.runner import Runner
    from inference.tuning import TunedEngine

ENGINES_FOLDER: Final = "engines"
"""Folder below ``data_dir`` that holds what tuning chose."""

models_app = typer.Typer(help="Model packages.", no_args_is_help=True)
out_console = Console()
err_console = Console(stderr=True)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of settings.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json/--no-json", help="Print JSON.", show_default=False)]


@models_app.command("list")
def list_models(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List the model packages, and those that are broken, with the reason."""
    catalogue = _catalogue(load_settings(config))
    rows = [_row(package) for package in catalogue.packages]
    rows += [
        {"model": broken.name, "version": broken.version, "state": "broken", "reason": broken.reason}
        for broken in catalogue.broken
    ]
    if as_json:
        out_console.print_json(json.dumps(rows))
    else:
        columns = ("model", "version", "task", "modality", "licence", "state")
        table = Table(*columns)
        for row in rows:
            table.add_row(*(escape(row.get(column, "")) for column in columns))
        out_console.print(table)
        for broken in catalogue.broken:
            err_console.print(f"broken: {broken.reason}", highlight=False, markup=False, soft_wrap=True)
    if catalogue.broken:
        raise typer.Exit(1)


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="Name, or name@version; the newest version if absent.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print the card of a model package."""
    package = _named(_catalogue(load_settings(config)), model)
    card = package.card.model_dump(mode="json", exclude_defaults=not as_json)
    if as_json:
        out_console.print_json(json.dumps(card))
        return
    out_console.print(f"[bold]{escape(package.card.title)}[/] {package.card.name}@{package.card.version}")
    for key in ("task", "intended_use", "limits", "licence", "input", "labels", "threshold", "training_data",
                "metrics", "network", "weights"):  # fmt: skip
        if key in card:
            out_console.print(f"\n[bold]{key.replace('_', ' ')}[/]")
            for line in _lines(card[key]):
                out_console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


@models_app.command("add")
def add_model(
    source: Annotated[Path, typer.Argument(help="Folder or zip file of a package.", exists=True)],
    config: ConfigOption = None,
    *,
    tune: Annotated[bool, typer.Option("--tune", help="Choose the fastest engine too.")] = False,
) -> None:
    """Verify a package and install it in the models folder; nothing is installed if a check fails."""
    from inference.installation import install_package
    from inference.rehearsal import rehearse

    _quiet()
    settings = load_settings(config)
    runner = _runner()

    def check(package: ModelPackage) -> None:
        rehearse(package, runner)

    package = install_package(source, settings.models_dir, check)
    out_console.print(f"installed {package.card.name}@{package.card.version}", highlight=False)
    if tune:
        _show_tuning(_tune(settings, package, runner))


@models_app.command("verify")
def verify_models(
    model: Annotated[
        str | None, typer.Argument(help="Name or name@version; all if absent.", show_default=False)
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check cards, digests, networks and a dry run again; end with status 1 if anything is wrong."""
    from inference.rehearsal import rehearse

    _quiet()
    catalogue = _catalogue(load_settings(config))
    name, _, version = (model or "").partition("@")
    chosen = [p for p in catalogue.packages if _is_meant(p.card.name, p.card.version, name, version)]
    broken = [b for b in catalogue.broken if _is_meant(b.name, b.version, name, version)]
    if model and not chosen and not broken:
        _named(catalogue, model)
    reasons = [b.reason for b in broken]
    for package in chosen:
        named = f"{package.card.name}@{package.card.version}"
        try:
            rehearse(package, _runner())
        except PrereadError as error:
            reasons.append(str(error))
        else:
            out_console.print(f"ok   {named}", highlight=False)
    for reason in reasons:
        out_console.print(f"FAIL {reason}", highlight=False, markup=False, soft_wrap=True)
    if reasons:
        raise typer.Exit(1)


@models_app.command("import-r2gen")
def import_r2gen(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the published R2GenCMN.", exists=True)],
    annotation: Annotated[
        Path, typer.Argument(help="annotation.json that it was trained with.", exists=True)
    ],
    dataset: Annotated[str, typer.Option(help="iu_xray or mimic_cxr.")] = "iu_xray",
    out: Annotated[Path, typer.Option(help="Folder for the package.")] = Path("imported"),
    threshold: Annotated[
        int | None, typer.Option(help="How often a word must come; the authors' if absent.", min=1)
    ] = None,
) -> None:
    """Make a package of an R2GenCMN checkpoint; `preread models add` then installs it."""
    from inference.training.r2gen_import import CheckpointError, import_checkpoint

    if dataset not in {"iu_xray", "mimic_cxr"}:
        raise CheckpointError(f"--dataset {dataset}: choose iu_xray or mimic_cxr.")
    folder = import_checkpoint(
        checkpoint,
        annotation,
        out,
        dataset="iu_xray" if dataset == "iu_xray" else "mimic_cxr",
        threshold=threshold,
    )
    out_console.print(
        f"imported: {folder}\ninstall it with `preread models add {folder}`", highlight=False, soft_wrap=True
    )


@models_app.command("tune")
def tune_model(
    model: Annotated[str, typer.Argument(help="Name, or name@version.")],
    config: ConfigOption = None,
    budget_s: Annotated[float, typer.Option(help="Seconds of timing, without building engines.")] = 120.0,
    *,
    as_json: JsonOption = False,
) -> None:
    """Time the engines that can run a model here, and keep the fastest that agrees with plain PyTorch."""
    _quiet()
    settings = load_settings(config)
    tuned = _tune(settings, _named(_catalogue(settings), model), _runner(), budget_s=budget_s)
    _show_tuning(tuned, as_json=as_json)


def _tune(
    settings: Settings, package: ModelPackage, runner: Runner, *, budget_s: float = 120.0
) -> TunedEngine:
    from inference.engines import EngineName
    from inference.tuning import Tolerance, TunedEngines, tune

    with _progress() as report:
        tuned = tune(
            package,
            runner,
            now=utc_now(),
            allowed=[EngineName(name) for name in settings.engines.allowed],
            tolerance=Tolerance(
                max_probability_difference=settings.engines.max_probability_difference,
                min_dice=settings.engines.min_dice,
            ),
            budget_s=budget_s,
            report=report,
        )
    TunedEngines(settings.data_dir / ENGINES_FOLDER).save(tuned)
    return tuned


def _show_tuning(tuned: TunedEngine, *, as_json: bool = False) -> None:
    from dataclasses import asdict

    if as_json:
        out_console.print_json(json.dumps(asdict(tuned)))
        return
    eager = next((t.seconds for t in tuned.trials if t.engine == "eager" and t.seconds), None)
    table = Table("engine", "ms a batch", "times eager", "max |dp|", "Dice", "")
    for trial in tuned.trials:
        ratio = eager / trial.seconds if eager and trial.seconds else None
        verdict = "chosen" if trial.engine == tuned.engine else trial.reason
        table.add_row(
            trial.engine,
            f"{1000 * trial.seconds:.0f}" if trial.seconds is not None else "",
            f"{ratio:.2f}" if ratio is not None else "",
            f"{trial.difference:.4f}" if trial.difference is not None else "",
            f"{trial.dice:.4f}" if trial.dice is not None else "",
            escape(verdict),
        )
    out_console.print(table)
    shape = " x ".join(map(str, tuned.batch)) or "none"
    out_console.print(
        f"{tuned.name}@{tuned.version} runs in {tuned.engine} on {tuned.device}; batch {shape}",
        highlight=False,
        soft_wrap=True,
    )


def _catalogue(settings: Settings) -> Catalogue:
    from inference.packages import discover

    return discover(settings.models_dir)


def _named(catalogue: Catalogue, model: str) -> ModelPackage:
    name, _, version = model.partition("@")
    return catalogue.package(name, version or None)


def _is_meant(name: str, version: str, wanted_name: str, wanted_version: str) -> bool:
    return wanted_name in {"", name} and wanted_version in {"", version}


def _runner() -> Runner:
    from inference.runner import Runner

    return Runner()


def _row(package: ModelPackage) -> Mapping[str, str]:
    card = package.card
    modalities = dict.fromkeys(
        (*card.input.modality, *(m for role in card.input.roles for m in role.modality))
    )
    return {
        "model": card.name,
        "version": card.version,
        "task": card.task,
        "modality": ", ".join(modalities),
        "licence": card.licence,
        "state": "usable",
        "title": card.title,
    }


def _lines(value: JsonValue, indent: str = "") -> Iterator[str]:
    """Yield a card's value as lines for people."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                yield f"{indent}{key}:"
                yield from _lines(item, indent + "  ")
            else:
                yield f"{indent}{key}: {item}"
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                first, *rest = list(_lines(item, ""))
                yield f"{indent}- {first}"
                yield from (f"{indent}  {line}" for line in rest)
            else:
                yield f"{indent}- {item}"
    else:
        yield f"{indent}{value}"


def _quiet() -> None:
    from integration.observability import configure_logging

    configure_logging(level=logging.WARNING)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err_console) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report
