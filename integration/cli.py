"""Adapter: the command line. Each command loads the settings, calls one room, and prints what people need.

Results go to standard output, progress and logs to standard error; a
``PrereadError`` ends a command with its message and status 1, never with a
traceback.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from dicom_node.errors import PrereadError
from dicom_node.rules import Priority
from integration.assistant_cli import ask
from integration.demo_studies import DemoStudy
from integration.language_cli import language_app
from integration.library_cli import library_app
from integration.models_cli import models_app
from integration.settings import Settings, load_settings
from integration.training_cli import evaluate, train

app = typer.Typer(
    name="preread",
    help="The AI node of a radiology department.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
rules_app = typer.Typer(help="Routing rules.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(language_app, name="language")
app.add_typer(library_app, name="library")
app.add_typer(rules_app, name="rules")
app.command()(train)
app.command()(evaluate)
app.command()(ask)

out_console = Console()
err_console = Console(stderr=True)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of settings.", show_default=False)
]
WordedOption = Annotated[
    bool | None,
    typer.Option(
        "--worded/--drafted",
        help="Let the embedded language model word the report, or the draft stand; if nothing is said, it "
        "is worded where the extra language is installed.",
        show_default=False,
    ),
]
QueuesOption = Annotated[
    str, typer.Option(help="Queues that this process works on, separated by commas: runs, read, deliver.")
]
JsonOption = Annotated[bool, typer.Option("--json/--no-json", help="Print JSON.", show_default=False)]

DEFAULT_RUN_TIMEOUT_S = 1800.0


def main() -> None:
    """Run the command line; turn domain errors into one clear line."""
    # Idle OpenMP threads that spin cost a busy machine several times the work; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except PrereadError as error:
        err_console.print(f"[bold red]error[/] {error}", highlight=False)
        sys.exit(1)


# -- running ----------------------------------------------------------------------------------


@app.command()
def serve(config: ConfigOption = None, queues: QueuesOption = "runs,read,deliver") -> None:
    """Receive, read and deliver, until Ctrl-C."""
    _run_node(_settings(config), is_receiving=True, queues=_queue_names(queues))


@app.command()
def worker(
    config: ConfigOption = None,
    queues: QueuesOption = "read",
    name: Annotated[
        str, typer.Option(help="Name of this worker; unique on its machine, the same after a restart.")
    ] = "worker-1",
) -> None:
    """Work on queues without receiving; for further processes, machines or GPUs."""
    settings = _settings(config)
    engine = settings.engine.model_copy(update={"executor_id": f"{settings.engine.executor_id}.{name}"})
    _run_node(settings.model_copy(update={"engine": engine}), is_receiving=False, queues=_queue_names(queues))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the study, the results and the previews.")] = Path(
        "demo-output"
    ),
    study: Annotated[DemoStudy, typer.Option(help="Which synthetic study.")] = DemoStudy.BRAIN_MR,
    *,
    is_worded: WordedOption = None,
) -> None:
    """Send a synthetic study through the whole node and show what comes out."""
    from integration.app import Node
    from integration.demo import (
        clear_folder,
        embedded_settings,
        require_demo_model,
        send_to_node,
        write_demo_study,
    )

    _quiet_logging()
    began = time.monotonic()
    clear_folder(out)
    settings = embedded_settings(out, is_worded=is_worded)
    with _progress() as report, Node(settings, observer=_per_model(report)) as node:
        require_demo_model(node, study)
        report("making the study", 0, 1)
        files = write_demo_study(out / "study", study)
        report("making the study", 1, 1)
        node.start()
        send_to_node(node, files, report)
        reports = _finish(node, out, began, report)
    _show_reports(reports)


@app.command()
def analyze(
    paths: Annotated[
        list[Path], typer.Argument(help="DICOM files or folders of one or more studies.", exists=True)
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for results and previews; must be new or an earlier one.")
    ] = Path("analysis-output"),
    notes: Annotated[
        Path | None,
        typer.Option(
            help="Text file with the order or the history of the one study.", exists=True, dir_okay=False
        ),
    ] = None,
    *,
    is_worded: WordedOption = None,
) -> None:
    """Read studies from files, without network, and write the results to a folder."""
    from integration.app import Node
    from integration.demo import NothingToReadError, clear_folder, embedded_settings, keep_notes, take_in
    from integration.sending import find_dicom_files

    _quiet_logging()
    began = time.monotonic()
    files = find_dicom_files(paths)
    if not files:
        raise NothingToReadError("There is no DICOM Part 10 file in what was given: check the paths.")
    clear_folder(out)
    with (
        _progress() as report,
        Node(
            embedded_settings(out, quiet_period_s=0.0, is_clinical=notes is not None, is_worded=is_worded),
            observer=_per_model(report),
        ) as node,
    ):
        node.start(is_receiving=False)
        take_in(node, files, report)
        if notes is not None:
            keep_notes(node, files, notes)
        node.start_assembling()
        reports = _finish(node, out, began, report)
    _show_reports(reports)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.", exists=True)],
    host: Annotated[str, typer.Option(help="Address of the receiver.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port of the receiver.")] = 11112,
    called: Annotated[str, typer.Option(help="AE title of the receiver.")] = "PREREAD",
    calling: Annotated[str, typer.Option(help="AE title of the sender.")] = "PREREAD_SEND",
) -> None:
    """Send DICOM files by C-STORE, as they are."""
    from integration.connections import DimsePeer
    from integration.sending import Sent, find_dicom_files, send_files

    files = find_dicom_files(paths)
    refused: list[Sent] = []
    done = 0
    with _progress() as report:

        def count(sent: Sent) -> None:
            nonlocal done
            done += 1
            if not sent.is_stored:
                refused.append(sent)
            report("sending", done, len(files))

        send_files(DimsePeer(host=host, port=port, ae_title=called, calling_ae_title=calling), files, count)
    for sent in refused:
        err_console.print(f"refused {sent.path}: {sent.detail}", highlight=False)
    out_console.print(f"{len(files) - len(refused)} of {len(files)} files stored")
    if refused or not files:
        raise typer.Exit(1)


# -- looking ----------------------------------------------------------------------------------


@app.command()
def doctor(config: ConfigOption = None) -> None:
    """Look at everything a node needs; say what is wrong and what to do."""
    from integration.doctor import examine

    _quiet_logging()
    is_well = True
    for diagnosis in examine(_settings(config)):
        is_well = is_well and diagnosis.is_well
        mark = "[green]ok  [/]" if diagnosis.is_well else "[bold red]FAIL[/]"
        out_console.print(f"{mark} {diagnosis.subject}: {diagnosis.detail}", highlight=False, soft_wrap=True)
    if not is_well:
        raise typer.Exit(1)


@app.command()
def studies(config: ConfigOption = None, limit: int = 50, *, as_json: JsonOption = False) -> None:
    """List the studies last received, and where each stands."""
    with _ledger(_settings(config)) as ledger:
        rows = ledger.study_overview(limit)
        if as_json:
            _print_json([asdict(row) for row in rows])
            return
        table = Table("received", "source", "images", "state", "priority")
        table.add_column("last run, or study", no_wrap=True)
        for row in rows:
            state = "arriving" if row.is_collecting else str(row.last_run_state or "")
            priority = "[bold red]stat[/]" if row.priority is Priority.STAT else str(row.priority)
            table.add_row(
                f"{row.last_received_at:%m-%d %H:%M:%S}", row.source_ae, str(row.instance_count), state,
                priority, row.last_run_id or row.study_key,
            )  # fmt: skip
        out_console.print(table)
        for row in rows:
            if row.priority_reason:
                out_console.print(
                    f"{row.priority} {row.last_run_id}: {row.priority_reason}",
                    highlight=False,
                    soft_wrap=True,
                )
        for instance in ledger.quarantined(limit):
            out_console.print(
                f"quarantined instance {instance.instance_id}: {instance.reason}", highlight=False
            )
        for instance in ledger.conflicts(limit):
            out_console.print(
                f"conflicting instance {instance.instance_id} from {instance.source_ae}: "
                "its UID was known with other content; the first stays current",
                highlight=False,
            )


@models_app.command("compare")
def compare_models(
    champion: Annotated[str, typer.Argument(help="Active model: name, or name@version.")],
    challenger: Annotated[str, typer.Argument(help="Its shadow: name, or name@version.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Compare what a shadow said with what the active model said, over the stored studies."""
    from integration.comparison import NothingComparedError, summarise

    with _ledger(_settings(config)) as ledger:
        cases = ledger.comparisons_of(champion, challenger)
        if not cases:
            raise NothingComparedError(champion, challenger, ledger.compared_models())
    report = summarise(champion, challenger, cases)
    if as_json:
        _print_json(asdict(report))
    else:
        _show_comparison(report)


@rules_app.command("check")
def check_rules(file: Annotated[Path, typer.Argument(help="YAML file of rules.", exists=True)]) -> None:
    """Check a rule file; name what is wrong in it."""
    from integration.site import read_rules

    rules = read_rules(file)
    out_console.print(f"{len(rules.rules)} rules are valid")


@rules_app.command("explain")
def explain_rules(
    study: Annotated[str, typer.Argument(help="Study key, Study Instance UID, or run id.")],
    config: ConfigOption = None,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="What the present rules would decide, instead of what was decided.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say for every rule why it did or did not match a study."""
    from integration.app import Node

    _quiet_logging()
    node = Node(_settings(config))
    try:
        study_key = node.find_study(study)
        runs = node.ledger.runs_of(study_key)
        recorded = next((row.decision for row in reversed(runs) if row.decision), None)
        if now or recorded is None:
            decision = node.pipeline.explain(node.ledger.study(study_key)).to_json()
        else:
            decision = dict(recorded)
    finally:
        node.stop()
    if as_json:
        _print_json(decision)
    else:
        _show_decision(decision)


# -- repairing --------------------------------------------------------------------------------


@app.command()
def requeue(
    run_id: Annotated[str, typer.Argument(help="Run to deliver again, or to read again.")],
    config: ConfigOption = None,
) -> None:
    """Deliver again what was refused, or read a quarantined study again; the node must be running."""
    import httpx

    settings = _settings(config)
    headers = (
        {"Authorization": f"Bearer {settings.http.token.get_secret_value()}"} if settings.http.token else {}
    )
    url = f"http://{settings.http.host}:{settings.http.port}/api/runs/{run_id}/requeue"
    try:
        response = httpx.post(url, headers=headers, timeout=30, trust_env=False)
    except httpx.HTTPError as exc:
        raise PrereadError(
            f"The node does not answer on {settings.http.host}:{settings.http.port}: "
            "start it with `preread serve`."
        ) from exc
    if response.is_error:
        raise PrereadError(str(response.json().get("detail", f"HTTP {response.status_code}")))
    out_console.print(response.json()["action"])


@app.command()
def prune(
    config: ConfigOption = None,
    keep_days: Annotated[
        float | None, typer.Option(help="Days to keep; the setting retention.keep_days if absent.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove finished studies that are older than the retention period, with their files."""
    from integration.retention import prune_studies

    _quiet_logging()
    settings = _settings(config)
    days = settings.retention.keep_days if keep_days is None else keep_days
    with _progress() as report:
        pruned = prune_studies(settings, keep_days=days, is_dry_run=dry_run, progress=report)
    verb = "would remove" if dry_run else "removed"
    out_console.print(
        f"{verb} {pruned.studies} studies, {pruned.instances} instances, {pruned.megabytes:.0f} MB"
    )


# -- what commands share ----------------------------------------------------------------------


def _settings(config: Path | None) -> Settings:
    return load_settings(config)


def _quiet_logging() -> None:
    from integration.observability import configure_logging

    configure_logging(level=logging.WARNING)


def _queue_names(text: str) -> tuple[str, ...]:
    from integration.app import ALL_QUEUES

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = sorted(set(names) - set(ALL_QUEUES))
    if unknown or not names:
        raise typer.BadParameter(
            f"no such queue: {', '.join(unknown) or '(none)'}; choose among {', '.join(ALL_QUEUES)}"
        )
    return names


def _run_node(settings: Settings, *, is_receiving: bool, queues: tuple[str, ...]) -> None:
    from integration.app import Node
    from integration.observability import configure_logging

    configure_logging(json=settings.log_json)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Node(settings) as node:
        node.start(queues=queues, is_receiving=is_receiving)
        if is_receiving:
            err_console.print(
                f"receiving as {settings.dicom.ae_title} on {settings.dicom.host}:{node.dicom_port}, "
                f"HTTP on {settings.http.host}:{node.http_port}; Ctrl-C stops",
                highlight=False,
            )
        stop.wait()


@contextmanager
def _ledger(settings: Settings) -> Iterator[Any]:
    from dicom_node.ledger import Ledger

    ledger = Ledger.connect(settings.ledger_url)
    try:
        ledger.migrate()
        yield ledger
    finally:
        ledger.close()


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a reporter (stage, done, total) that draws one bar per stage."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err_console) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def _per_model(report: Callable[[str, int, int], None]) -> Callable[[str, str, int, int], None]:
    return lambda _run_id, model, done, total: report(model, done, total)


def _finish(node: Any, out: Path, began: float, report: Callable[[str, int, int], None]) -> list[Any]:
    from integration.demo import report_run, wait_for_runs

    report("reading and delivering", 0, 1)
    runs = wait_for_runs(node, DEFAULT_RUN_TIMEOUT_S)
    report("reading and delivering", 1, 1)
    return [report_run(node, run, out, began) for run in runs]


def _show_reports(reports: list[Any]) -> None:
    is_well = True
    for item in reports:
        state = str(item.run.state)
        is_well = is_well and state == "done"
        out_console.print(
            f"\n[bold]Run {item.run.run.run_id}[/]: {state} after {item.seconds:.1f} s", highlight=False
        )
        if item.run.reason:
            out_console.print(item.run.reason, highlight=False)
        for analysis in item.analyses:
            _show_analysis(analysis)
        if item.text:
            out_console.print(f"\n{item.text}", highlight=False)
        for kind, paths in (("Results", item.results), ("Previews", item.pictures)):
            if paths:
                out_console.print(f"\n[bold]{kind}[/]")
            for path in paths:
                out_console.print(f"  {path}", highlight=False, soft_wrap=True)
        if not item.analyses and item.run.decision:
            _show_decision(dict(item.run.decision))
    if not is_well:
        raise typer.Exit(1)


def _show_analysis(analysis: Any) -> None:
    headings = ("finding", "presence", "side", "volume", "long axis", "perpendicular", "confidence")
    rows = []
    for finding in analysis.findings:
        values = {m.quantity: f"{m.value:.1f} {m.unit}" for m in finding.measurements}
        rows.append(
            (
                f"{finding.finding_id} {finding.concept}",
                str(finding.presence),
                str(finding.laterality or ""),
                *(values.get(quantity, "") for quantity in ("volume", "long_axis", "perpendicular_axis")),
                f"{finding.confidence:.2f}" if finding.confidence is not None else "",
            )
        )
    shown = [index for index, _ in enumerate(headings) if index == 0 or any(row[index] for row in rows)]
    table = Table(*(headings[i] for i in shown), title=f"{analysis.model.title} {analysis.model.version}")
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    out_console.print(table)
    for estimate in analysis.estimates:
        chances = ", ".join(f"{name} {chance:.0%}" for name, chance in estimate.probabilities)
        out_console.print(
            f"{estimate.scale}: {estimate.value}" + (f" ({chances})" if chances else ""), highlight=False
        )
    if analysis.triage is not None:
        out_console.print(f"triage: {analysis.triage.risk} ({analysis.triage.score:.2f})", highlight=False)
    for doubt in analysis.doubts:
        out_console.print(f"[yellow]doubt[/] {doubt.sentence}", highlight=False)
    for note in analysis.notes:
        out_console.print(f"note: {note}", highlight=False)


def _show_comparison(report: Any) -> None:
    """Print how often both agree, and how much each found; pairs are champion / challenger."""
    out_console.print(
        f"champion {report.champion}, challenger {report.challenger}: {report.studies} studies",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    agreement = Table("label", "studies", "agree", "kappa", "both", "champion", "challenger", "neither")
    amounts = Table("label", "findings", "found more", "probability", "Dice", "no answer")
    for row in report.labels:
        agreement.add_row(
            row.label, str(row.studies), _share(row.agreement), _number(row.kappa), str(row.both),
            str(row.champion_alone), str(row.challenger_alone), str(row.neither),
        )  # fmt: skip
        amounts.add_row(
            row.label, _pair(row.findings), _pair(row.found_more),
            _number(row.probability_difference, signed=True),
            f"{_number(row.dice)} (n={row.outlined})" if row.outlined else "", _pair(row.silent),
        )  # fmt: skip
    out_console.print("\nstudies in which both, the champion alone, ... found it", highlight=False)
    out_console.print(agreement)
    out_console.print("champion / challenger; probability: challenger minus champion", highlight=False)
    out_console.print(amounts)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None, *, signed: bool = False) -> str:
    return "" if value is None else f"{value:+.2f}" if signed else f"{value:.2f}"


def _pair(counts: tuple[int, int]) -> str:
    return f"{counts[0]} / {counts[1]}"


def _show_decision(decision: dict[str, Any]) -> None:
    for entry in decision["explanations"]:
        mark = "[green]matched[/]" if entry["matched"] else "[yellow]no match[/]"
        out_console.print(f"{mark} {entry['rule']}", highlight=False)
        for reason in entry["reasons"]:
            out_console.print(f"         {reason}", highlight=False)
    for entry in decision["models"]:
        mark = "[green]runs[/]" if entry["runs"] else "[yellow]does not run[/]"
        shadow = " as a shadow" if entry.get("is_shadow") else ""
        out_console.print(f"{mark}{shadow} {entry['model']}", highlight=False)
        for reason in entry["reasons"]:
            out_console.print(f"         {reason}", highlight=False)
    out_console.print(
        f"destinations: {', '.join(decision['destinations']) or 'all that are configured'}", highlight=False
    )


def _print_json(value: Any) -> None:
    out_console.print_json(json.dumps(value, default=str))


if __name__ == "__main__":
    main()
