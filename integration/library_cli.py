"""Adapter: ``preread library``: the texts that answers may cite: add, list, search, remove, measure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_node.errors import PermanentError
from integration.library import build_site_graph, open_site_library
from integration.settings import load_settings

_EXCERPT: Final = 300
"""Characters of a passage that a list of hits shows."""
_DEPTH: Final = 20
"""Passages searched for each question of an evaluation."""
_KINDS: Final = ("keyword", "vector", "hybrid")

library_app = typer.Typer(help="Guideline and case texts that answers may cite.", no_args_is_help=True)
out_console = Console()
err_console = Console(stderr=True)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of settings.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json/--no-json", help="Print JSON.", show_default=False)]


class LibraryRequestError(PermanentError):
    """What was asked of the library cannot be done; the message says what to give."""


@library_app.command("add")
def add_texts(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders: .txt, .md, .jsonl.", exists=True, show_default=False),
    ] = None,
    config: ConfigOption = None,
    source: Annotated[str, typer.Option(help="Source of texts that name none; their file if absent.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of texts that name none.")] = "licence not stated",
    *,
    sample: Annotated[
        bool, typer.Option("--sample", help="Add the texts that come with Preread: no clinical guidance.")
    ] = False,
    medquad: Annotated[bool, typer.Option("--medquad", help="The files are MedQuAD's.")] = False,
) -> None:
    """Add texts, or replace those of the same id; what has not changed is left as it is."""
    from reporting.language.documents import Provenance, read_documents, read_medquad, read_sample_library

    provenance = Provenance(source=source, licence=licence)
    documents = [*read_sample_library()] if sample else []
    for path in paths or ():
        documents += read_medquad(path) if medquad else read_documents(path, provenance)
    if not documents:
        raise LibraryRequestError("Name files or folders to add, or --sample for the texts of Preread.")
    library = open_site_library(load_settings(config))
    with _progress() as report:
        done = library.add(documents, report)
    out_console.print(
        f"{done.added} added, {done.replaced} replaced, {done.unchanged} unchanged; "
        f"{done.passages} passages embedded",
        highlight=False,
    )
    unlicensed = sum(document.licence == Provenance().licence for document in documents)
    if unlicensed:
        err_console.print(
            f"{unlicensed} of the texts state no licence: give --licence, or `licence:` in the file",
            highlight=False,
        )


@library_app.command("list")
def list_texts(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List the texts with source, licence and number of passages."""
    entries = open_site_library(load_settings(config)).documents()
    if as_json:
        out_console.print_json(json.dumps([asdict(entry) for entry in entries]))
        return
    table = Table()
    table.add_column("id", no_wrap=True)
    for heading in ("title", "source", "licence", "passages"):
        table.add_column(heading)
    for entry in entries:
        cells = (entry.document_id, entry.title, entry.source, entry.licence, str(entry.passages))
        table.add_row(*map(escape, cells))
    out_console.print(table)
    passages = sum(entry.passages for entry in entries)
    out_console.print(f"{len(entries)} texts, {passages} passages", highlight=False)


@library_app.command("search")
def search_texts(
    query: Annotated[str, typer.Argument(help="A question, or words.")],
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(help="Most passages.", min=1)] = 5,
    kind: Annotated[str, typer.Option(help="hybrid, vector (meaning) or keyword (words).")] = "hybrid",
    *,
    as_json: JsonOption = False,
) -> None:
    """Find passages."""
    library = open_site_library(load_settings(config))
    hits = library.search(query, limit, kind)  # type: ignore[arg-type]  # the library says what kinds there are
    if as_json:
        out_console.print_json(json.dumps([asdict(hit) for hit in hits]))
        return
    for hit in hits:
        out_console.print(f"[bold]{escape(hit.title)}[/] {escape(f'[{hit.passage_id}]')} {hit.score:.3f}")
        out_console.print(f"{hit.source}; {hit.licence}", highlight=False, markup=False, style="dim")
        text = hit.text if len(hit.text) <= _EXCERPT else f"{hit.text[:_EXCERPT]}..."
        out_console.print(f"{text}\n", highlight=False, markup=False)
    if not hits:
        out_console.print("nothing found")


@library_app.command("remove")
def remove_texts(
    documents: Annotated[list[str], typer.Argument(help="Ids of texts, as `list` shows them.")],
    config: ConfigOption = None,
) -> None:
    """Remove texts; end with status 1 if one was not there."""
    removed = open_site_library(load_settings(config)).remove(documents)
    out_console.print(f"{removed} of {len(set(documents))} removed", highlight=False)
    if removed < len(set(documents)):
        raise typer.Exit(1)


@library_app.command("reembed")
def reembed_texts(config: ConfigOption = None) -> None:
    """Make all vectors again after the setting library.encoder has changed."""
    from reporting.language.embedding import open_encoder
    from reporting.language.library import reembed_library

    settings = load_settings(config)
    encoder = open_encoder(settings.library.encoder, threads=settings.library.threads)
    with _progress() as report:
        passages = reembed_library(settings.library_folder, encoder, report)
    out_console.print(f"{passages} passages embedded by {encoder.identity}", highlight=False)


@library_app.command("related")
def show_related(
    findings: Annotated[list[str], typer.Argument(help="Keys of findings, for example effusion.")],
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(help="Most answers of each kind.", min=1)] = 5,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what the knowledge graph relates to findings, and by which way."""
    from reporting.language.knowledge_graph import ASSOCIATION_NOTICE

    settings = load_settings(config)
    graph = build_site_graph(settings, open_site_library(settings))
    relations = graph.related(findings, limit)
    if as_json:
        value = {
            "notice": ASSOCIATION_NOTICE,
            "hpo": graph.release,
            "relations": [asdict(r) for r in relations],
        }
        out_console.print_json(json.dumps(value))
        return
    out_console.print(f"{ASSOCIATION_NOTICE} HPO {graph.release}.", highlight=False)
    for relation in relations:
        named = escape(f"{relation.name} [{relation.key}]")
        out_console.print(f"[bold]{relation.kind}[/] {named} {relation.score:.5f}", soft_wrap=True)
        for step in relation.path:
            out_console.print(f"    {step}", highlight=False, markup=False, soft_wrap=True)


@library_app.command("evaluate")
def evaluate_search(
    questions: Annotated[
        Path, typer.Argument(help="JSON lines: question, and document_ids that answer it.", exists=True)
    ],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Measure keyword, vector and hybrid search side by side on a site's own questions."""
    from reporting.language.documents import read_lines
    from reporting.language.retrieval_metrics import METRICS, Answered, first_of_each, score_search

    library = open_site_library(load_settings(config))
    known = {entry.document_id for entry in library.documents()}
    asked = []
    for item in read_lines(questions, frozenset({"question", "document_ids"})):
        relevant = frozenset(map(str, item["document_ids"]))
        if not relevant or not relevant <= known:
            raise LibraryRequestError(
                f"{questions.name} names documents that the library does not hold, or none: "
                "`preread library list` shows their ids."
            )
        asked.append((str(item["question"]), relevant))
    if not asked:
        raise LibraryRequestError(f"{questions.name} has no question.")
    figures: dict[str, dict[str, Any]] = {}
    library.search("what loads at the first search is not timed", 1)
    with _progress() as report:
        for kind in _KINDS:
            began = time.monotonic()
            answers = []
            for number, (text, relevant) in enumerate(asked, start=1):
                hits = library.search(text, _DEPTH, kind)
                ranking = first_of_each([hit.document_id for hit in hits])
                answers.append(Answered(ranking=ranking, relevant=relevant, group=str(number)))
                report(kind, number, len(asked))
            seconds = (time.monotonic() - began) / len(asked)
            figures[kind] = {name: asdict(figure) for name, figure in score_search(answers).items()}
            figures[kind]["seconds_per_query"] = round(seconds, 4)
    if as_json:
        out_console.print_json(json.dumps({"questions": len(asked), "search": figures}))
        return
    table = Table("search", *METRICS, "ms a query", title=f"{len(asked)} questions; mean (95 % interval)")
    for kind, values in figures.items():
        cells = (f"{v['mean']:.3f} ({v['low']:.3f}-{v['high']:.3f})" for v in (values[m] for m in METRICS))
        table.add_row(kind, *cells, f"{1000 * values['seconds_per_query']:.0f}")
    out_console.print(table)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err_console) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report
