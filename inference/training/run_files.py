"""Adapter: the files that every training leaves behind: configuration, history, curves, and a model package.

One place writes them, so that any run folder can be read without knowing which recipe made it.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import nn

from dicom_node.errors import PermanentError
from inference.cards import CARD_NAME, ModelCard

BEST: Final = "best.safetensors"
CHECKPOINT: Final = "checkpoint.pt"
HISTORY: Final = "history.jsonl"
CURVES: Final = "curves.png"

_MAX_SHARD_BYTES: Final = 29_000_000
"""Largest file of weights that is written: repositories and proxies balk at larger ones."""

Config = TypeVar("Config")


class OverrideError(PermanentError):
    """A configuration was overridden with a field that it does not have, or a value that does not fit."""


def override(config: Config, overrides: Mapping[str, str]) -> Config:
    """Return a configuration with fields replaced by text values.

    Parameters
    ----------
    config : dataclass
        The recipe's configuration.
    overrides : mapping
        Field to value, as YAML reads it: ``epochs=3``, ``channels=[8, 16]``.

    Raises
    ------
    OverrideError
        If there is no such field, or the value does not fit its type.
    """
    if not is_dataclass(config) or isinstance(config, type):
        raise OverrideError("This recipe has no configuration that could be changed.")
    hints = typing.get_type_hints(type(config))
    changed: dict[str, Any] = {}
    for name, text in overrides.items():
        if name not in hints:
            known = ", ".join(field.name for field in fields(config))
            raise OverrideError(f"There is no field {name!r} to set: use one of {known}.")
        try:
            changed[name] = TypeAdapter(hints[name]).validate_python(yaml.safe_load(text))
        except (ValidationError, yaml.YAMLError) as exc:
            raise OverrideError(f"{name}={text}: the value does not fit {hints[name]}.") from exc
    return replace(config, **changed)


def write_json(path: Path, value: Any) -> None:
    """Write a configuration, a split or figures as readable JSON."""
    value = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def append_history(out: Path, record: Mapping[str, float]) -> None:
    """Append one epoch's figures to the run's history."""
    with (out / HISTORY).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def read_history(out: Path) -> list[dict[str, float]]:
    """Return the figures of every epoch so far."""
    path = out / HISTORY
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line]


def plot_curves(out: Path, *, losses: Sequence[str] = ("loss",), scores: Sequence[str] = ()) -> Path:
    """Draw the run's history as a picture: losses above, validation scores below.

    Parameters
    ----------
    out : Path
        Run folder with its history.
    losses, scores : sequence of str
        Keys of the history's records.

    Returns
    -------
    Path
        ``curves.png`` in the run folder.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    history = read_history(out)
    figure = Figure(figsize=(8, 6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for panel, keys in zip(panels, (losses, scores), strict=True):
        for key in keys:
            points = [(record["epoch"], record[key]) for record in history if key in record]
            if points:
                panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=key)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    panels[1].set_xlabel("epoch")
    FigureCanvasAgg(figure).print_png(out / CURVES)  # type: ignore[no-untyped-call]
    return out / CURVES


def write_weights(network: nn.Module, folder: Path, stem: str = "model") -> list[dict[str, str]]:
    """Write a network's weights as float16 safetensors, in shards that stay small.

    Parameters
    ----------
    network : nn.Module
        The trained network.
    folder : Path
        Model package.
    stem : str
        File name without suffix; shards are numbered.

    Returns
    -------
    list of dict
        ``file`` and ``sha256`` of each file, as the card's ``weights.files`` has them.

    Raises
    ------
    ValueError
        If a weight does not fit float16.
    """
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, value in network.state_dict().items():
        half = value.detach().to(torch.float16) if value.is_floating_point() else value.detach()
        if not torch.isfinite(half).all():
            raise ValueError(f"{name}: a weight is too large for float16")
        if size + half.nbytes > _MAX_SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = half.clone().contiguous()
        size += half.nbytes
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        [f"{stem}.safetensors"]
        if len(shards) == 1
        else [f"{stem}-{number}-of-{len(shards)}.safetensors" for number in range(1, len(shards) + 1)]
    )
    files = []
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name)
        (folder / name).chmod(0o644)  # safetensors writes for the owner alone; a package is for every reader
        files.append({"file": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()})
    return files


def save_checkpoint(
    path: Path, parts: Mapping[str, nn.Module | torch.optim.Optimizer], values: Mapping[str, float]
) -> None:
    """Write what a resumed run continues from, complete or not at all.

    Parameters
    ----------
    path : Path
        The checkpoint.
    parts : mapping
        Networks and optimiser by name.
    values : mapping
        Counters and best scores by name.
    """
    partial = path.with_suffix(".part")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save(states | {"values": dict(values)}, partial)
    partial.replace(path)


def load_checkpoint(
    path: Path, parts: Mapping[str, nn.Module | torch.optim.Optimizer], device: torch.device
) -> dict[str, Any]:
    """Put the parts back as a checkpoint has them, and return its values."""
    stored = torch.load(path, weights_only=True, map_location=device)
    for name, part in parts.items():
        part.load_state_dict(stored[name])
    values: dict[str, Any] = stored["values"]
    return values


def write_card(folder: Path, card: Mapping[str, Any]) -> Path:
    """Write a package's card after checking it.

    Raises
    ------
    pydantic.ValidationError
        If the card is not valid: the recipe is wrong, not the user.
    """
    ModelCard.model_validate(card)
    path = folder / CARD_NAME
    text = yaml.safe_dump(dict(card), sort_keys=False, allow_unicode=True, width=110)
    path.write_text(
        "# Card of a model package, written by its recipe; README.md says the same for people.\n" + text,
        encoding="utf-8",
    )
    return path
