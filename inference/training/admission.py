"""Adapter: fits what admission knows of frontal chest radiographs, on the training patients of a data set.

The reference file beside `inference.chest_reference` is what this command wrote from the NIH subset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from inference.chest_reference import REFERENCE, shrink
from inference.familiarity import Familiarity
from inference.training.chest_xray import read_film, read_films

_QUANTILES: Final = (0.5, 0.95, 0.99, 1.0)

app = typer.Typer(add_completion=False, help="Fit the reference of frontal chest radiographs.")


@app.command()
def fit(
    data: Annotated[Path, typer.Option(help="Folder of a chest X-ray data set.")],
    out: Annotated[Path, typer.Option(help="File that is written.")] = REFERENCE,
) -> None:
    """Fit on the training patients and print the distances of the validation patients."""
    features = {
        fold: np.stack([shrink(read_film(film).grey).reshape(-1) for film in films if film.fold == fold])
        for films in (read_films(data),)
        for fold in ("training", "validation")
    }
    familiarity = Familiarity.fit(features["training"])
    out.write_bytes(familiarity.to_bytes())
    table = Table("fold", "images", *(f"quantile {each}" for each in _QUANTILES), title="distance")
    for fold, values in features.items():
        quantiles = np.quantile(familiarity.distance(values), _QUANTILES)
        table.add_row(fold, str(len(values)), *(f"{value:.2f}" for value in quantiles))
    Console().print(table)


if __name__ == "__main__":
    app()
