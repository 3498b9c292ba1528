"""Adapter: reads chest X-ray data sets, each in the layout it is published in, into one table of films.

Boxes and labels are trained from the same table and the same split by patient, so that no patient is a
training patient of one model and a validation patient of the other. Reading pixels is left to `read_film`.

==============  =====================================================================================
Layout          Files in the folder
==============  =====================================================================================
NIH subset      ``labels.csv``, ``boxes.csv``, ``rsna_pneumonia.csv``, ``images/``
NIH             ``Data_Entry_2017*.csv``, ``BBox_List_2017.csv``, images anywhere below
VinDr-CXR       ``train.csv`` (image_id, class_name, rad_id, x_min, y_min, x_max, y_max), images below
RSNA pneumonia  ``stage_2_train_labels.csv`` (patientId, x, y, width, height, Target), DICOM below
==============  =====================================================================================
"""

from __future__ import annotations

import csv
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError

from dicom_node.errors import PermanentError
from inference.radiograph import read_radiograph

SPLIT_SEED: Final = 20261122
"""Seed of the split by patient, the same for every chest X-ray model."""

VALIDATION_SHARE: Final = 0.2
"""Share of the patients that validate."""

NIH_LABELS: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""Labels of NIH ChestX-ray14, in the order of the label columns."""

NIH_BOX_CLASSES: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
"""Classes that NIH's radiologists boxed."""

_SAME_CLASS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Infiltrate": "Infiltration",
        "Pleural effusion": "Effusion",
        "Pulmonary fibrosis": "Fibrosis",
        "Pleural thickening": "Pleural_Thickening",
    }
)
"""One name a class across the sets; others keep theirs, spaces and slashes as underscores."""

_NO_FINDING: Final = frozenset({"no finding", "no_finding"})

_IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom"})

Fold = Literal["training", "validation"]
Layout = Literal["nih_subset", "nih", "vindr", "rsna"]
Readers = Literal["hull", "wbf"]


class ChestXrayDataError(PermanentError):
    """A folder of chest X-rays is not in a known layout, or a file of it is not what the layout says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedBox:
    """A rectangle that a reader drew.

    Attributes
    ----------
    name : str
        Class.
    left, top, right, bottom : float
        Pixels of the image as stored, 0,0 the outer corner.
    source : str
        Who drew it: ``nih``, ``rsna``, ``vindr``.
    reader : str
        Which of several readers; empty after their boxes were merged.
    """

    name: str
    left: float
    top: float
    right: float
    bottom: float
    source: str
    reader: str = ""

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One radiograph of a data set and what is known about it.

    Attributes
    ----------
    path : Path
        The image: DICOM, PNG or JPEG.
    patient_id : str
        Patient, unique within the data set.
    view : str
        ``PA`` or ``AP``; empty when it is not known.
    source : str
        ``nih``, ``vindr`` or ``rsna``.
    labels : frozenset of str or None
        What the image shows; empty for "No Finding", None when nobody said.
    boxes : tuple of MarkedBox
        Where it shows it.
    is_fully_boxed : bool
        Whether everything that is there was boxed: true for VinDr-CXR and RSNA, not for NIH.
    fold : str
        ``training`` or ``validation``, by patient.
    age_years : int or None
        Age of the patient.
    sex : str
        ``F``, ``M``, or empty.
    """

    path: Path
    patient_id: str
    view: str
    source: str
    labels: frozenset[str] | None = None
    boxes: tuple[MarkedBox, ...] = ()
    is_fully_boxed: bool = False
    fold: Fold = "training"
    age_years: int | None = None
    sex: str = ""

    @property
    def is_normal(self) -> bool:
        """Whether it was read as without any finding."""
        return self.labels is not None and not self.labels and not self.boxes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilmPixels:
    """A film in memory.

    Attributes
    ----------
    grey : ndarray
        (H, W) float32, black low, white high, upright; the scale is that of the file.
    corners : ndarray
        (N, 4) float32: left, top, right, bottom of the film's N boxes on ``grey``.
    """

    grey: npt.NDArray[np.float32]
    corners: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientSplit:
    """Patients by fold, sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def read_films(root: Path, *, readers: Readers = "hull") -> tuple[Film, ...]:
    """Read the table of a data set, whichever of the known layouts it is in, with its split.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    readers : str
        How the boxes of several readers become one: ``hull`` (`merge_readers`) or ``wbf`` (`fuse_readers`).

    Returns
    -------
    tuple of Film
        In the order of the table.

    Raises
    ------
    ChestXrayDataError
        If the layout is unknown or a file is missing.
    """
    layout = find_layout(root)
    if layout == "vindr":
        films = _read_vindr(root, readers)
    else:
        films = {"nih_subset": _read_nih_subset, "nih": _read_nih, "rsna": _read_rsna}[layout](root)
    if not films:
        raise ChestXrayDataError(
            f"{root.name} lists no image that is there: put the images beside the tables."
        )
    split = split_patients(films)
    validation = frozenset(split.validation)
    return tuple(
        replace(film, fold="validation" if film.patient_id in validation else "training") for film in films
    )


def find_layout(root: Path) -> Layout:
    """Return the layout of a data set by the tables that are there.

    Raises
    ------
    ChestXrayDataError
        If there are none.
    """
    if (root / "labels.csv").is_file():
        return "nih_subset"
    if any(root.glob("Data_Entry_2017*.csv")):
        return "nih"
    if (root / "train.csv").is_file():
        return "vindr"
    if (root / "stage_2_train_labels.csv").is_file():
        return "rsna"
    raise ChestXrayDataError(
        f"{root.name} is no known chest X-ray data set: put labels.csv (NIH subset), Data_Entry_2017.csv "
        "(NIH), train.csv (VinDr-CXR) or stage_2_train_labels.csv (RSNA) in the folder."
    )


def split_patients(
    films: Sequence[Film], *, share: float = VALIDATION_SHARE, seed: int = SPLIT_SEED
) -> PatientSplit:
    """Split the patients so that each class and view has its share on both sides.

    A patient's stratum is the rarest class that is boxed, else the rarest label, and whether most films are
    AP. Strata lie in a row, patients within one in random order, and every n-th patient validates. The order
    of the films does not matter.

    Parameters
    ----------
    films : sequence of Film
        All films of the data set.
    share : float
        Share of the patients that validate.
    seed : int
        Seed of the order within a stratum.

    Returns
    -------
    PatientSplit
        Every patient in one fold.
    """
    by_patient: dict[str, list[Film]] = defaultdict(list)
    for film in films:
        by_patient[film.patient_id].append(film)
    boxed = Counter(name for group in by_patient.values() for name in _boxed(group))
    labelled = Counter(name for group in by_patient.values() for name in _labelled(group))

    def stratum(group: Sequence[Film]) -> tuple[int, str, bool]:
        is_ap = 2 * sum(film.view == "AP" for film in group) > len(group)
        for rank, (names, counts) in enumerate(((_boxed(group), boxed), (_labelled(group), labelled))):
            if names:
                return rank, min(names, key=lambda name: (counts[name], name)), is_ap
        return 2, "", is_ap

    order = sorted(by_patient)
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, no secret
    order.sort(key=lambda patient_id: stratum(by_patient[patient_id]))
    validation = [
        patient_id
        for index, patient_id in enumerate(order)
        if int((index + 1) * share + 0.5) > int(index * share + 0.5)
    ]
    return PatientSplit(
        training=tuple(sorted(set(order) - set(validation))), validation=tuple(sorted(validation))
    )


def label_matrix(films: Sequence[Film], names: Sequence[str] = NIH_LABELS) -> npt.NDArray[np.float32]:
    """Return (N, labels) float32 of ones and zeros; a film without labels is a row of undefined values."""
    rows = [
        [float("nan")] * len(names) if film.labels is None else [float(name in film.labels) for name in names]
        for film in films
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, len(names))


def read_film(film: Film) -> FilmPixels:
    """Read the pixels of a film and its boxes on them.

    Raises
    ------
    ChestXrayDataError
        If the image is missing or no image.
    PermanentError
        If a DICOM image is no radiograph.
    """
    corners = np.array([box.corners for box in film.boxes], dtype=np.float32).reshape(-1, 4)
    try:
        if film.path.suffix.lower() not in {".dcm", ".dicom"}:
            with Image.open(film.path) as image:
                grey = image if image.mode.startswith("I") else image.convert("L")
                return FilmPixels(grey=np.asarray(grey, dtype=np.float32), corners=corners)
        dataset = pydicom.dcmread(film.path)
    except (OSError, InvalidDicomError) as exc:
        raise ChestXrayDataError(
            f"{film.path.name} is missing or no image: put the data set's images beside its tables."
        ) from exc
    if "SOPClassUID" not in dataset:  # VinDr-CXR removed it with the patient
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    if "Modality" not in dataset:
        dataset.Modality = "DX"
    radiograph = read_radiograph(dataset)
    shape = (radiograph.array.shape[0], radiograph.array.shape[1])
    turned = [radiograph.turn.apply_corners(*box.corners, shape) for box in film.boxes]
    return FilmPixels(grey=radiograph.array, corners=np.array(turned, dtype=np.float32).reshape(-1, 4))


def merge_readers(
    boxes: Sequence[MarkedBox], *, iou_above: float = 0.5, aspect_factor: float = 1.6
) -> tuple[MarkedBox, ...]:
    """Merge the boxes of several readers: overlapping ones of similar shape become their hull.

    The most overlapping pair is merged first, until none is left. Readers who drew one place but named it
    differently are joined: the hull comes once for each name. Duplicates disappear.

    Parameters
    ----------
    boxes : sequence of MarkedBox
        All boxes of one image.
    iou_above : float
        Intersection over union above which two boxes show one place.
    aspect_factor : float
        Largest ratio of their aspect ratios.

    Returns
    -------
    tuple of MarkedBox
        Sorted by name and place, without a reader.
    """
    clusters = [(box.corners, frozenset({box.name}), box.source) for box in boxes]
    while True:
        best: tuple[float, int, int] | None = None
        for i, (first, _, _) in enumerate(clusters):
            for j in range(i + 1, len(clusters)):
                overlap = _iou(first, clusters[j][0])
                is_alike = max(_aspect(first), _aspect(clusters[j][0])) <= aspect_factor * min(
                    _aspect(first), _aspect(clusters[j][0])
                )
                if overlap > iou_above and is_alike and (best is None or overlap > best[0]):
                    best = (overlap, i, j)
        if best is None:
            break
        _, i, j = best
        (one, names, source), (other, more, _) = clusters[i], clusters[j]
        hull = (min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3]))
        clusters = [c for k, c in enumerate(clusters) if k not in {i, j}] + [(hull, names | more, source)]
    merged = {_marked(name, corners, source) for corners, names, source in clusters for name in names}
    return tuple(sorted(merged, key=lambda box: (box.name, box.corners)))


def fuse_readers(boxes: Sequence[MarkedBox], *, iou_above: float = 0.5) -> tuple[MarkedBox, ...]:
    """Fuse the boxes of several readers by weighted box fusion, class by class: means instead of hulls.

    Parameters
    ----------
    boxes : sequence of MarkedBox
        All boxes of one image.
    iou_above : float
        Intersection over union above which two boxes of one class show one place.

    Returns
    -------
    tuple of MarkedBox
        Sorted by name and place, without a reader.

    References
    ----------
    Solovyev et al., Weighted boxes fusion, doi:10.1016/j.imavis.2021.104117.
    """
    from ensemble_boxes import weighted_boxes_fusion

    if not boxes:
        return ()
    names = sorted({box.name for box in boxes})
    extent = max(max(box.right, box.bottom) for box in boxes)
    by_reader = [
        [box for box in boxes if box.reader == reader] for reader in sorted({b.reader for b in boxes})
    ]
    fused, _, classes = weighted_boxes_fusion(
        [[[side / extent for side in box.corners] for box in group] for group in by_reader],
        [[1.0] * len(group) for group in by_reader],
        [[names.index(box.name) for box in group] for group in by_reader],
        iou_thr=iou_above,
    )
    result = [
        _marked(names[int(index)], tuple(float(side) * extent for side in corners), boxes[0].source)
        for corners, index in zip(fused, classes, strict=True)
    ]
    return tuple(sorted(result, key=lambda box: (box.name, box.corners)))


def class_name(name: str) -> str:
    """Return the one name of a class: ``Infiltrate`` is Infiltration, ``Nodule/Mass`` is Nodule_Mass."""
    plain = name.strip()
    return _SAME_CLASS.get(plain, plain.replace("/", "_").replace(" ", "_"))


def _marked(name: str, corners: Sequence[float], source: str) -> MarkedBox:
    left, top, right, bottom = corners
    return MarkedBox(name=name, left=left, top=top, right=right, bottom=bottom, source=source)


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(one) + _area(other) - both)


def _area(corners: Sequence[float]) -> float:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])


def _aspect(corners: Sequence[float]) -> float:
    return max(corners[2] - corners[0], 1e-6) / max(corners[3] - corners[1], 1e-6)


def _boxed(films: Iterable[Film]) -> set[str]:
    return {box.name for film in films for box in film.boxes if box.source == film.source}


def _labelled(films: Iterable[Film]) -> set[str]:
    return {name for film in films for name in film.labels or ()}


def _rows(path: Path) -> list[dict[str, str]]:
    """Read a table; its columns by name."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ChestXrayDataError(
            f"{path.name} is missing or no CSV file: put the data set's table there."
        ) from exc


def _read_rows(path: Path, read: Callable[[Mapping[str, str]], None]) -> None:
    """Call ``read`` with every row; a column that is not there, or no number, is an error with its name."""
    for number, row in enumerate(_rows(path), start=2):
        try:
            read(row)
        except (KeyError, ValueError, TypeError) as exc:
            raise ChestXrayDataError(
                f"{path.name}, line {number}: {exc}: the table lacks a column or holds no number there."
            ) from exc


def _sized(row: Mapping[str, str], columns: Sequence[str], name: str, source: str) -> MarkedBox:
    """Return a box from its left, top, width and height columns."""
    left, top, width, height = (float(row[column]) for column in columns)
    return _marked(name, (left, top, left + width, top + height), source)


def _years(text: str) -> int | None:
    """Return an age in years; NIH writes 411 and the like for a few, which no one is."""
    digits = text.strip().rstrip("Yy")
    return int(digits) if digits.isdigit() and int(digits) <= 120 else None  # noqa: PLR2004 - years


def _positive(text: str) -> frozenset[str]:
    """Return the labels of ``A|B``; "No Finding" is none."""
    return frozenset(class_name(part) for part in text.split("|") if part.strip().lower() not in _NO_FINDING)


def _read_nih_subset(root: Path) -> tuple[Film, ...]:
    """Read the subset whose images and boxes were resized to 512 pixels."""
    boxes: dict[str, list[MarkedBox]] = defaultdict(list)
    films: list[Film] = []

    def read_box(row: Mapping[str, str]) -> None:
        boxes[row["image"]].append(_sized(row, ("x", "y", "w", "h"), class_name(row["label"]), "nih"))

    def read_opacity(row: Mapping[str, str]) -> None:
        if row["target"] == "1":
            boxes[row["image"]].append(_sized(row, ("x", "y", "w", "h"), "Lung_Opacity", "rsna"))

    def read_label(row: Mapping[str, str]) -> None:
        films.append(
            Film(
                path=root / row["image"],
                patient_id=row["patient_id"],
                view=row["view"],
                source="nih",
                labels=frozenset(name for name in NIH_LABELS if row[name] == "1"),
                boxes=tuple(boxes[row["image"]]),
                age_years=_years(row["age"]),
                sex=row["sex"],
            )
        )

    _read_rows(root / "boxes.csv", read_box)
    if (root / "rsna_pneumonia.csv").is_file():
        _read_rows(root / "rsna_pneumonia.csv", read_opacity)
    _read_rows(root / "labels.csv", read_label)
    return tuple(films)


def _read_nih(root: Path) -> tuple[Film, ...]:
    """Read the original NIH layout; images that were not downloaded are left out."""
    found = _images(root)
    boxes: dict[str, list[MarkedBox]] = defaultdict(list)
    films: list[Film] = []

    def read_label(row: Mapping[str, str]) -> None:
        name = row["Image Index"]
        path = found.get(Path(name).stem)
        if path is None:
            return
        films.append(
            Film(
                path=path,
                patient_id=row["Patient ID"],
                view=row["View Position"],
                source="nih",
                labels=_positive(row["Finding Labels"]),
                boxes=tuple(boxes[name]),
                age_years=_years(row["Patient Age"]),
                sex=row.get("Patient Gender") or row.get("Patient Sex") or "",
            )
        )

    for row in _box_list(root / "BBox_List_2017.csv"):
        boxes[row[0]].append(_marked(class_name(row[1]), row[2], "nih"))
    _read_rows(min(root.glob("Data_Entry_2017*.csv")), read_label)
    return tuple(films)


def _box_list(path: Path) -> list[tuple[str, str, tuple[float, ...]]]:
    """Read NIH's list of boxes by position: its heading ``Bbox [x,y,w,h]`` is split by its own commas."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))[1:]
        sized = [(line[0], line[1], [float(value) for value in line[2:6]]) for line in lines if line]
        return [(name, label, (x, y, x + w, y + h)) for name, label, (x, y, w, h) in sized]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, IndexError) as exc:
        raise ChestXrayDataError(
            f"{path.name} is missing or not NIH's list: its columns are image, label, x, y, width, height."
        ) from exc


def _read_vindr(root: Path, readers: Readers) -> tuple[Film, ...]:
    """Read VinDr-CXR: three radiologists read every image; each counts as a patient of its own."""
    found = _images(root)
    boxes: dict[str, list[MarkedBox]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)

    def read_row(row: Mapping[str, str]) -> None:
        image = row["image_id"]
        names = labels[image]
        if row["class_name"].strip().lower() in _NO_FINDING:
            return
        name = class_name(row["class_name"])
        names.add(name)
        if row["x_min"]:
            corners = [float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")]
            boxes[image].append(replace(_marked(name, corners, "vindr"), reader=row["rad_id"]))

    _read_rows(root / "train.csv", read_row)
    combine = merge_readers if readers == "hull" else fuse_readers
    return tuple(
        Film(
            path=found[image],
            patient_id=image,
            view="PA",
            source="vindr",
            labels=frozenset(names),
            boxes=combine(boxes[image]),
            is_fully_boxed=True,
        )
        for image, names in labels.items()
        if image in found
    )


def _read_rsna(root: Path) -> tuple[Film, ...]:
    """Read the RSNA pneumonia challenge: opacities only, so other labels are not known."""
    found = _images(root)
    boxes: dict[str, list[MarkedBox]] = defaultdict(list)

    def read_row(row: Mapping[str, str]) -> None:
        marks = boxes[row["patientId"]]
        if row["Target"] == "1":
            marks.append(_sized(row, ("x", "y", "width", "height"), "Lung_Opacity", "rsna"))

    _read_rows(root / "stage_2_train_labels.csv", read_row)
    return tuple(
        Film(
            path=found[image],
            patient_id=image,
            view=_view_of(found[image]),
            source="rsna",
            boxes=tuple(marks),
            is_fully_boxed=True,
        )
        for image, marks in boxes.items()
        if image in found
    )


def _view_of(path: Path) -> str:
    """Return View Position of a DICOM image without reading its pixels."""
    if path.suffix.lower() not in {".dcm", ".dicom"}:
        return ""
    try:
        dataset = pydicom.dcmread(path, specific_tags=["ViewPosition"], stop_before_pixels=True)
    except (OSError, InvalidDicomError) as exc:
        raise ChestXrayDataError(f"{path.name} is no DICOM image: download it again.") from exc
    return str(dataset.get("ViewPosition", ""))


def _images(root: Path) -> Mapping[str, Path]:
    """Return every image below a folder by its name without suffix."""
    return {path.stem: path for path in sorted(root.rglob("*")) if path.suffix.lower() in _IMAGE_SUFFIXES}
