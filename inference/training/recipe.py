"""Pure. What a training recipe is to the command line: one value a model, with its two verbs.

Each recipe module ends in a ``RECIPE``; `recipes.py` lists them. A recipe prints its progress, leaves
checkpoints in its run folder and writes the tables that the model's card quotes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What a person asks of a training.

    Attributes
    ----------
    data : Path
        Folder of the data set, in the layout that the recipe's docstring names.
    out : Path
        Run folder: ``config.json``, ``split.json``, ``history.jsonl``, ``curves.png``, ``checkpoint.pt``,
        ``best.safetensors``; and ``package/``, a model package ready to be moved to ``models/``.
    resume : bool
        Whether to continue from the run folder's checkpoint.
    seed : int
        Seed of weights, draws and augmentation; the patient split has its own.
    pretrained : Path or None
        ImageNet weights of the encoder; None begins from random weights.
    overrides : mapping
        Fields of the recipe's configuration, as text: ``epochs=3``.
    """

    data: Path
    out: Path
    resume: bool = False
    seed: int = 20261122
    pretrained: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """What a person asks of an evaluation.

    Attributes
    ----------
    data : Path
        Folder of the data set.
    package : Path
        Folder of the model package, ``models/<name>/<version>``.
    is_every_patient : bool
        Score every patient of the folder instead of the validation split alone (for a folder of patients
        that were never trained on).
    """

    data: Path
    package: Path
    is_every_patient: bool = False


Metrics = Mapping[str, JsonValue]
"""Figures by name as the card's ``metrics`` holds them: means with ``ci95`` and ``n``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One trainable model.

    Attributes
    ----------
    name : str
        Name of the model package that it makes.
    summary : str
        One line for the list.
    train : callable
        Trains and packs; returns the package's folder.
    evaluate : callable
        Scores a package, prints its tables, returns the figures.
    """

    name: str
    summary: str
    train: Callable[[TrainRequest], Path]
    evaluate: Callable[[EvaluateRequest], Metrics]
