"""Adapter: measures whether a package's heat maps lie where radiologists drew boxes or masks.

Validation patients only. On radiographs the label that a box names is explained, whether or not the network
found it; on MR the region that the network outlined is. Every figure is a mean of patients' means with its
bootstrap interval, because images of one patient are not independent.

``python -m inference.training.localisation --package models/<name>/<version> --data <folder>``
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from dicom_node.errors import PermanentError
from inference.detection import explain_presence
from inference.explain import grad_cam, overlap_of_hottest, points_at, similarity_after_randomisation
from inference.networks.faster_rcnn import RadiographDetector
from inference.packages import ModelPackage, load_package
from inference.preparation import prepare_slices, stack_context
from inference.radiograph_preparation import Placement, prepare_grey
from inference.segmentation_doubt import explain_masks
from inference.training.chest_xray import Film, read_film, read_films
from inference.training.evaluation import predict_probabilities
from inference.training.lgg import read_cases, read_institutions, split_patients
from inference.training.metrics import Interval, bootstrap_interval

_T = TypeVar("_T")

TOLERANCE_SHARE: Final = 0.03
"""Tolerance of the pointing game as a share of the image's side: 15 pixels of 512."""

MAX_SLICES: Final = 8
"""Slices of one patient whose maps are measured, the largest lesions of the reference."""

RANDOMISED_IMAGES: Final = 8
"""Images of the randomisation check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One heat map against one reference.

    Attributes
    ----------
    patient_id, label : str
        Whose, and of what.
    points : bool
        Whether the hottest pixel lies in the reference, or within the tolerance of it.
    overlap : float
        IoU of the hottest area, as large as the reference, with the reference.
    chance : float
        Share of the image that the reference covers: what pointing at random would score.
    """

    patient_id: str
    label: str
    points: bool
    overlap: float
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """How well heat maps lie on the references.

    Attributes
    ----------
    pointing, overlap, chance : Interval
        Means over patients: pointing game, IoU, and what pointing at random would score.
    maps : int
        Heat maps measured.
    """

    pointing: Interval
    overlap: Interval
    chance: Interval
    maps: int


def measure(
    heatmap: npt.NDArray[np.float32], reference: npt.NDArray[np.bool_], patient_id: str, label: str
) -> Hit:
    """Compare an (S, S) heat map with an (S, S) reference."""
    return Hit(
        patient_id=patient_id,
        label=label,
        points=points_at(heatmap, reference, round(TOLERANCE_SHARE * heatmap.shape[0])),
        overlap=overlap_of_hottest(heatmap, reference),
        chance=float(reference.mean()),
    )


def summarise(hits: Sequence[Hit]) -> Localisation:
    """Return the means over patients with their intervals.

    Raises
    ------
    ValueError
        If there is no hit.
    """
    by_patient: dict[str, list[Hit]] = defaultdict(list)
    for hit in hits:
        by_patient[hit.patient_id].append(hit)

    def over(name: str) -> Interval:
        means = [float(np.mean([getattr(hit, name) for hit in each])) for each in by_patient.values()]
        return bootstrap_interval(means)

    return Localisation(
        pointing=over("points"), overlap=over("overlap"), chance=over("chance"), maps=len(hits)
    )


def localise(package: ModelPackage, data: Path, *, limit: int | None = None) -> tuple[list[Hit], float]:
    """Measure a package on the validation patients of its data set.

    Parameters
    ----------
    package : ModelPackage
        Segmentation of MR slices, classification or detection of chest radiographs, with an
        ``explanation_layer``.
    data : Path
        Folder of the data set.
    limit : int or None
        Most patients.

    Returns
    -------
    tuple of list of Hit and float
        The hits, and the similarity of maps with those of shuffled weights (near 1 is bad).

    Raises
    ------
    PermanentError
        If the package names no layer, or its task has no reference to compare with.
    """
    layer = package.card.explanation_layer
    if layer is None:
        raise PermanentError(f"{package.card.name}: name explanation_layer on the card to have heat maps.")
    network = package.build().eval()
    if package.card.task == "segmentation" and package.card.input.dimensions == 2:  # noqa: PLR2004
        return _on_lgg(package, network, layer, data, limit)
    if (
        package.card.task in {"classification", "detection"}
        and package.card.input.preparation == "radiograph"
    ):
        return _on_films(package, network, layer, data, limit)
    raise PermanentError(f"{package.card.name}: no data set here has boxes or masks for this task.")


def _on_lgg(
    package: ModelPackage, network: nn.Module, layer: str, data: Path, limit: int | None
) -> tuple[list[Hit], float]:
    label = package.card.labels[0]
    hits: list[Hit] = []
    shown: list[npt.NDArray[np.float32]] = []
    outlined: list[npt.NDArray[np.bool_]] = []
    patients = split_patients(read_institutions(data)).validation[:limit]
    for case in _counted(read_cases(data, patients)):
        channels = np.moveaxis(case.images, -1, 0).astype(np.float32)
        slices = stack_context(prepare_slices(channels), package.card.input.context)
        areas = case.masks.sum(axis=(1, 2))
        chosen = np.sort(np.argsort(-areas, kind="stable")[:MAX_SLICES])
        chosen = chosen[areas[chosen] > 0]
        masks = predict_probabilities(network, slices[chosen]) >= package.card.threshold_of(label)
        held = np.asarray(masks.any(axis=(1, 2)))
        maps = explain_masks(network, slices[chosen[held]], masks[held], layer, label) if held.any() else ()
        found = iter(maps)
        for index, is_held in zip(chosen, held, strict=True):
            heatmap = next(found) if is_held else np.zeros(masks.shape[1:], dtype=np.float32)
            hits.append(measure(heatmap, case.masks[index], case.patient_id, label.name))
        if held.any() and len(shown) < RANDOMISED_IMAGES:
            middle = int(np.flatnonzero(held)[held.sum() // 2])
            shown.append(slices[chosen[middle]])
            outlined.append(masks[middle])
    similarity = similarity_after_randomisation(
        network, lambda each: explain_masks(each, np.stack(shown), np.stack(outlined), layer, label)
    )
    return hits, similarity


def _on_films(
    package: ModelPackage, network: nn.Module, layer: str, data: Path, limit: int | None
) -> tuple[list[Hit], float]:
    matrix = package.card.input.matrix
    values = {_plain(label.name): label.value for label in package.card.labels}
    films = [film for film in read_films(data) if film.fold == "validation" and film.boxes]
    patients = sorted({film.patient_id for film in films})[:limit]
    wanted = [film for film in films if film.patient_id in set(patients)]
    hits: list[Hit] = []
    shown: list[tuple[npt.NDArray[np.float32], int]] = []

    def explain(each: nn.Module, image: npt.NDArray[np.float32], value: int) -> npt.NDArray[np.float32]:
        if package.card.task == "detection":
            return explain_presence(cast("RadiographDetector", each), image, layer, value)
        maps = grad_cam(each, image[None], layer, lambda logits: logits[:, value - 1])
        return np.asarray(maps[0])

    for film in _counted(wanted):
        image, references = _boxes_on_square(film, matrix)
        for name, reference in references.items():
            value = values.get(_plain(name))
            if value is None:
                continue
            hits.append(measure(explain(network, image, value), reference, film.patient_id, name))
            if len(shown) < RANDOMISED_IMAGES:
                shown.append((image, value))
    similarity = similarity_after_randomisation(
        network, lambda each: np.stack([explain(each, image, value) for image, value in shown])
    )
    return hits, similarity


def _boxes_on_square(
    film: Film, matrix: int
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.bool_]]]:
    """Return a prepared film, and of each class the (S, S) union of its boxes."""
    pixels = read_film(film)
    height, width = pixels.grey.shape
    corners = Placement(height=height, width=width, matrix=matrix).to_matrix(pixels.corners)
    references: dict[str, npt.NDArray[np.bool_]] = {}
    for box, (left, top, right, bottom) in zip(film.boxes, corners, strict=True):
        reference = references.setdefault(box.name, np.zeros((matrix, matrix), dtype=np.bool_))
        rows = slice(max(round(float(top)), 0), max(round(float(bottom)), round(float(top)) + 1))
        columns = slice(max(round(float(left)), 0), max(round(float(right)), round(float(left)) + 1))
        reference[rows, columns] = True
    return prepare_grey(pixels.grey, matrix), references


def _plain(name: str) -> str:
    """Return a label's name in small letters without spaces, so that spellings meet."""
    return "".join(character for character in name.lower() if character.isalnum())


def _counted(items: Sequence[_T]) -> Iterable[_T]:
    return track(items, "explaining", console=Console(stderr=True))


def _table(hits: Sequence[Hit]) -> Table:
    """Lay out the figures, all labels first."""
    table = Table("label", "maps", "patients", "pointing game", "IoU of the hottest area", "chance")
    labels = sorted({hit.label for hit in hits})
    for name in ["all", *labels] if len(labels) > 1 else labels:
        figures = summarise([hit for hit in hits if name in {"all", hit.label}])
        cells = [_text(each) for each in (figures.pointing, figures.overlap, figures.chance)]
        table.add_row(name, str(figures.maps), str(figures.pointing.count), *cells)
    return table


def _text(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


app = typer.Typer(add_completion=False, help="Measure a package's heat maps against boxes and masks.")


@app.command()
def run(
    package: Annotated[Path, typer.Option(help="Folder of the model package.")],
    data: Annotated[Path, typer.Option(help="Folder of its data set.")],
    *,
    layer: Annotated[str | None, typer.Option(help="Another layer than the card's.")] = None,
    limit: Annotated[int | None, typer.Option(help="Most patients.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Print pointing game and IoU with intervals over validation patients."""
    torch.set_num_threads(threads)
    loaded = load_package(package)
    if layer is not None:
        card = loaded.card.model_copy(update={"explanation_layer": layer})
        loaded = ModelPackage(card=card, folder=loaded.folder)
    hits, similarity = localise(loaded, data, limit=limit)
    console = Console()
    console.print(_table(hits))
    console.print(f"similarity of maps with those of shuffled weights: {similarity:.2f} (near 1 is bad)")
    if report is not None:
        figures = asdict(summarise(hits)) | {"similarity_after_randomisation": similarity}
        report.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    app()
