"""Adapter: reads radiographs with their reports, in each layout that they come in, and prepares their images.

=================  ==================================================================================
Layout             Files in the folder
=================  ==================================================================================
R2Gen              ``annotation.json`` (IU X-ray, MIMIC-CXR: train, val, test), images in ``images/``
Own reports        ``reports.csv`` (image, report; patient_id, view), images as it names them
Labels and boxes   any layout of `inference.training.chest_xray`; reports by `film_reports`
=================  ==================================================================================
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from inference.radiograph_preparation import prepare_grey
from inference.training.chest_labels import labelled_films
from inference.training.chest_xray import (
    ChestXrayDataError,
    Film,
    Fold,
    read_film,
    split_patients,
)
from reporting.language.film_reports import (
    CONCEPTS,
    film_facts,
    present_concepts,
    stated_present,
    write_film_report,
)

ANNOTATION: Final = "annotation.json"
REPORTS: Final = "reports.csv"

_FOLDS: Final[Mapping[str, Fold]] = {"train": "training", "val": "validation"}
_LABEL_OF: Final = {concept: label for label, (concept, _) in CONCEPTS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportExample:
    """One report and the images that it is about.

    Attributes
    ----------
    paths : tuple of Path
        DICOM, PNG or JPEG; the frontal one first.
    patient_id : str
        Patient, unique within the data set.
    report : str
        The text.
    concepts : frozenset of str
        Which of the fourteen findings are there: by the labels, or as the report's words are read.
    view : str
        ``PA`` or ``AP``; empty when it is not known.
    fold : str
        ``training`` or ``validation``, by patient.
    """

    paths: tuple[Path, ...]
    patient_id: str
    report: str
    concepts: frozenset[str]
    view: str = ""
    fold: Fold = "training"


def read_examples(root: Path) -> tuple[ReportExample, ...]:
    """Read a folder of radiographs with reports.

    Parameters
    ----------
    root : Path
        Folder in one of the layouts above.

    Raises
    ------
    ChestXrayDataError
        If the layout is unknown, or a file is missing or damaged.
    """
    if (root / ANNOTATION).is_file():
        examples = _read_annotation(root)
    elif (root / REPORTS).is_file():
        examples = _read_table(root)
    else:
        examples = tuple(_from_film(film) for film in track(labelled_films(root), "reading boxes"))
    if not any(example.fold == "training" for example in examples):
        raise ChestXrayDataError(f"{root.name} holds no report to learn from: docs/crude-report.md.")
    return examples


def prepare_images(
    examples: Sequence[ReportExample], matrix: int, views: int, cache: Path
) -> npt.NDArray[np.float16]:
    """Return (N, views, matrix, matrix) prepared images, or find them prepared in ``cache``.

    A report with fewer images than ``views`` has its last one twice.
    """
    names = "\n".join(str(path) for example in examples for path in example.paths)
    key = hashlib.sha256(names.encode()).hexdigest()[:12]
    path = cache / f"reports-{matrix}-{views}-{key}.npy"
    if not path.exists():
        images = np.zeros((len(examples), views, matrix, matrix), dtype=np.float16)
        for index, example in enumerate(track(examples, "preparing")):
            for view in range(views):
                source = example.paths[min(view, len(example.paths) - 1)]
                images[index, view] = prepare_grey(_read_grey(source), matrix)[0]
        partial = path.with_suffix(".part.npy")
        np.save(partial, images)
        partial.replace(path)
    prepared: npt.NDArray[np.float16] = np.load(path, mmap_mode="r")
    return prepared


def _from_film(film: Film) -> ReportExample:
    """Write the report of a film with labels."""
    shape = (1, 1)
    if film.boxes and film.path.suffix.lower() not in {".dcm", ".dicom"}:
        try:
            with Image.open(film.path) as image:
                shape = (image.height, image.width)
        except OSError as exc:
            raise ChestXrayDataError(f"{film.path.name} is missing or no image.") from exc
    elif film.boxes:
        pixels = read_film(film)
        shape = (pixels.grey.shape[0], pixels.grey.shape[1])
        boxes = tuple(
            replace(box, left=float(left), top=float(top), right=float(right), bottom=float(bottom))
            for box, (left, top, right, bottom) in zip(film.boxes, pixels.corners, strict=True)
        )
        film = replace(film, boxes=boxes)
    labels = (film.labels or frozenset()) | {box.name for box in film.boxes}
    return ReportExample(
        paths=(film.path,),
        patient_id=film.patient_id,
        report=write_film_report(film_facts(film, shape)),
        concepts=present_concepts(labels),
        view=film.view,
        fold=film.fold,
    )


def _read_annotation(root: Path) -> tuple[ReportExample, ...]:
    """Read R2Gen's annotation; the test part is left alone, as its authors do in training."""
    try:
        parts: Mapping[str, Sequence[Mapping[str, Any]]] = json.loads(
            (root / ANNOTATION).read_text(encoding="utf-8")
        )
        return tuple(
            ReportExample(
                paths=tuple(root / "images" / str(path) for path in entry["image_path"]),
                patient_id=str(entry.get("subject_id", entry["id"])),
                report=str(entry["report"]),
                concepts=stated_present(str(entry["report"])),
                fold=fold,
            )
            for part, fold in _FOLDS.items()
            for entry in parts[part]
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ChestXrayDataError(
            f"{ANNOTATION} is not R2Gen's: it has train and val, lists of id, report and image_path."
        ) from exc


def _read_table(root: Path) -> tuple[ReportExample, ...]:
    """Read a table of reports; patients are split as in every chest X-ray set."""
    try:
        with (root / REPORTS).open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["report"].strip()]
        examples = [
            ReportExample(
                paths=tuple(root / part.strip() for part in row["image"].split("|")),
                patient_id=row.get("patient_id") or row["image"],
                report=" ".join(row["report"].split()),
                concepts=stated_present(row["report"]),
                view=row.get("view") or "",
            )
            for row in rows
        ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as exc:
        raise ChestXrayDataError(
            f"{REPORTS} is missing or damaged: its columns are image, report and, better, patient_id."
        ) from exc
    films = [
        Film(
            path=example.paths[0],
            patient_id=example.patient_id,
            view=example.view,
            source="own",
            labels=frozenset(_LABEL_OF[concept] for concept in example.concepts),
        )
        for example in examples
    ]
    validation = frozenset(split_patients(films).validation)
    return tuple(
        replace(example, fold="validation" if example.patient_id in validation else "training")
        for example in examples
    )


def _read_grey(path: Path) -> npt.NDArray[np.float32]:
    return read_film(Film(path=path, patient_id="", view="", source="own")).grey
