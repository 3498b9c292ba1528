"""Adapter: what the cards of classifiers have in common: their template, familiarity and figures."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import JsonValue
from torch import nn

from inference.familiarity import Familiarity, pooled_features, thresholds_of
from inference.training.classification import Examples
from inference.training.metrics import Interval


def read_card_template(name: str, version: str) -> dict[str, Any]:
    """Return what a card says whatever the run: purpose, inputs, labels, limits, licence."""
    path = resources.files("inference.training").joinpath(f"cards/{name}.yaml")
    card: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return card | {"name": name, "version": version}


def familiarity_card(
    folder: Path, network: nn.Module, layer: str, training: Examples, validation: Examples
) -> dict[str, JsonValue]:
    """Fit how training images look to the network; write it beside the card and return the card's part.

    The limits come from the validation images, none of which was trained on.
    """
    network.eval()
    known = Familiarity.fit(pooled_features(network, training.images.astype(np.float32), layer))
    distances = known.distance(pooled_features(network, validation.images.astype(np.float32), layer))
    threshold, refusal = thresholds_of(distances)
    file = known.save(folder)
    (folder / file.file).chmod(0o644)
    return {"file": file.file, "sha256": file.sha256, "threshold": threshold, "refusal": refusal}


def interval_figures(interval: Interval) -> dict[str, JsonValue]:
    """Return a score as the card's ``metrics`` hold it; nothing but the count where it is undefined."""
    if not np.isfinite(interval.mean):
        return {"n": interval.count}
    bounds: list[JsonValue] = [round(interval.low, 3), round(interval.high, 3)]
    return {"mean": round(interval.mean, 3), "ci95": bounds, "n": interval.count}
