"""Adapter: ``preread ask``: a question to the assistant of a running node, its answer as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from dicom_node.errors import PrereadError
from integration.settings import Settings, load_settings

_WITHIN_S: Final = 600.0

out_console = Console()
err_console = Console(stderr=True)


def ask(
    run_id: Annotated[str, typer.Argument(help="Run to ask about; `preread studies` lists them.")],
    question: Annotated[str, typer.Argument(help="The question, in English.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of settings.", show_default=False)
    ] = None,
    conversation: Annotated[
        str, typer.Option(help="Conversation of the run; follow-ups refer to it.")
    ] = "default",
    *,
    as_json: Annotated[
        bool, typer.Option("--json/--no-json", help="Print JSON.", show_default=False)
    ] = False,
) -> None:
    """Ask the assistant about a run; the node must be running."""
    settings = load_settings(config)
    body = {"question": question, "conversation": conversation, "stream": True}
    for kind, data in _events(settings, f"/api/runs/{run_id}/assistant", body):
        if kind == "error":
            raise PrereadError(str(data["detail"]))
        if kind == "tool_started":
            err_console.print(f"asking {data['tool']}", style="dim", highlight=False)
        if kind == "final":
            _show(data, as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        out_console.print_json(json.dumps(answer))
        return
    out_console.print(answer["banner"], style="bold", highlight=False)
    for sentence in answer["sentences"]:
        cited = ", ".join(sentence["citations"])
        out_console.print(f"{sentence['text']} [{cited}]", markup=False, highlight=False)
    out_console.print(answer["closing"], highlight=False)


def _events(settings: Settings, path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    import httpx

    token = settings.http.token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    url = f"http://{settings.http.host}:{settings.http.port}{path}"
    try:
        with (
            httpx.Client(headers=headers, timeout=_WITHIN_S, trust_env=False) as client,
            client.stream("POST", url, json=body) as response,
        ):
            if response.is_error:
                response.read()
                raise PrereadError(str(response.json().get("detail", f"HTTP {response.status_code}")))
            yield from read_events(response.iter_lines())
    except httpx.HTTPError as exc:
        raise PrereadError(
            f"The node does not answer on {settings.http.host}:{settings.http.port}: "
            "start it with `preread serve`."
        ) from exc


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the server-sent events of a stream: kind and data."""
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
