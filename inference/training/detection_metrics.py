"""Pure. How well boxes are found: average precision, recall at fixed false positives, overlap.

The boxes of the NIH set are not exhaustive: a box that hits nothing may be right. So recall at a number of
false positives stands beside average precision, and the overlap with the found box (IoBB) beside the
intersection over union. Intervals are bootstrapped over patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from inference.training.metrics import Interval

FALSE_POSITIVE_RATES: Final = (0.5, 1.0, 2.0)
"""False positives an image at which recall is reported."""

RESAMPLES: Final = 1000
_RECALL_POINTS: Final = np.linspace(0.0, 1.0, 101)
"""COCO's recall points."""

Overlap = Literal["iou", "iobb"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredImage:
    """What was found on one image and what is there.

    Attributes
    ----------
    patient_id : str
        Patient; images of one patient are resampled together.
    view : str
        ``PA`` or ``AP``.
    boxes, scores, classes : ndarray
        (N, 4) float32, (N,) float32 best first, (N,) int64 from 0: found.
    true_boxes, true_classes : ndarray
        (M, 4) float32, (M,) int64: drawn by readers.
    is_abnormal : bool
        Whether the image was read as abnormal.
    presence, true_presence : ndarray
        (1 + classes,) float32: logits that the image is abnormal, and shows each class; and ones and zeros,
        undefined where nobody said.
    """

    patient_id: str
    view: str
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    true_boxes: npt.NDArray[np.float32]
    true_classes: npt.NDArray[np.int64]
    is_abnormal: bool
    presence: npt.NDArray[np.float32]
    true_presence: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Found boxes of one class over all images, each a hit or not.

    Attributes
    ----------
    scores, is_hit, image, overlaps : ndarray
        (N,) score, whether it is the best match of a drawn box, index of its image, and its overlap with it.
    drawn : ndarray
        (images,) number of drawn boxes of the class.
    """

    scores: npt.NDArray[np.float32]
    is_hit: npt.NDArray[np.bool_]
    image: npt.NDArray[np.int64]
    overlaps: npt.NDArray[np.float32]
    drawn: npt.NDArray[np.int64]


def overlaps(
    boxes: npt.NDArray[np.float32], others: npt.NDArray[np.float32], kind: Overlap = "iou"
) -> npt.NDArray[np.float32]:
    """Return (N, M): intersection over the union, or over the first boxes' own area (IoBB)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    own = _areas(boxes)[:, None]
    base = own if kind == "iobb" else own + _areas(others)[None] - both
    return np.asarray(both / np.maximum(base, 1e-9), dtype=np.float32)


def match(images: Sequence[ScoredImage], label: int, least: float, kind: Overlap = "iou") -> Matches:
    """Match the found boxes of one class with the drawn ones: best score first, each drawn box once."""
    scores, hits, index, shares = [], [], [], []
    drawn = np.zeros(len(images), dtype=np.int64)
    for number, image in enumerate(images):
        is_mine = image.classes == label
        truth = image.true_boxes[image.true_classes == label]
        drawn[number] = len(truth)
        table = overlaps(image.boxes[is_mine], truth, kind)
        is_free = np.ones(len(truth), dtype=np.bool_)
        for row, score in zip(table, image.scores[is_mine], strict=True):
            candidates = np.where(is_free, row, -1.0)
            best = int(candidates.argmax()) if len(truth) else -1
            is_hit = best >= 0 and candidates[best] >= least
            if is_hit:
                is_free[best] = False
            scores.append(score)
            hits.append(is_hit)
            index.append(number)
            shares.append(candidates[best] if is_hit else 0.0)
    return Matches(
        scores=np.array(scores, dtype=np.float32),
        is_hit=np.array(hits, dtype=np.bool_),
        image=np.array(index, dtype=np.int64),
        overlaps=np.array(shares, dtype=np.float32),
        drawn=drawn,
    )


def average_precision(matches: Matches, weights: npt.NDArray[np.int64] | None = None) -> float:
    """Return COCO's average precision of one class; undefined when nothing was drawn.

    Parameters
    ----------
    matches : Matches
        Of one class.
    weights : ndarray or None
        (images,) how often each image counts, for the bootstrap.
    """
    weights = np.ones(len(matches.drawn), dtype=np.int64) if weights is None else weights
    total = int((matches.drawn * weights).sum())
    if total == 0:
        return float("nan")
    order = np.argsort(-matches.scores, kind="stable")
    each = weights[matches.image[order]]
    hits = np.cumsum(matches.is_hit[order] * each)
    found = np.cumsum(each)
    recall = hits / total
    precision = np.divide(hits, found, out=np.zeros(len(hits)), where=found > 0)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALL_POINTS, side="left")
    return float(np.where(places < len(envelope), np.append(envelope, 0.0)[places], 0.0).mean())


def recall_at(
    matches: Matches, false_positives: float, weights: npt.NDArray[np.int64] | None = None
) -> float:
    """Return the recall of one class at so many false positives of it an image; undefined when none drawn."""
    weights = np.ones(len(matches.drawn), dtype=np.int64) if weights is None else weights
    total = int((matches.drawn * weights).sum())
    if total == 0:
        return float("nan")
    order = np.argsort(-matches.scores, kind="stable")
    each = weights[matches.image[order]]
    is_hit = matches.is_hit[order]
    allowed = np.cumsum(~is_hit * each) <= false_positives * weights.sum()
    return float((is_hit * each)[allowed].sum() / total)


def torchmetrics_map(images: Sequence[ScoredImage], least: float, classes: int) -> tuple[float, list[float]]:
    """Return mean average precision, and that of each class, as torchmetrics computes it."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(
        iou_thresholds=[least], class_metrics=True, max_detection_thresholds=[1, 10, 100]
    )
    metric.warn_on_many_detections = False
    metric.update(
        [
            {
                "boxes": torch.from_numpy(image.boxes),
                "scores": torch.from_numpy(image.scores),
                "labels": torch.from_numpy(image.classes),
            }
            for image in images
        ],
        [
            {"boxes": torch.from_numpy(image.true_boxes), "labels": torch.from_numpy(image.true_classes)}
            for image in images
        ],
    )
    result = metric.compute()
    each = [float("nan")] * classes
    observed = result["classes"].reshape(-1).tolist()
    for label, value in zip(observed, result["map_per_class"].reshape(-1).tolist(), strict=True):
        each[int(label)] = float("nan") if value < 0 else float(value)
    return float(result["map"]), each


def bootstrap(
    images: Sequence[ScoredImage],
    statistic: Callable[[npt.NDArray[np.int64]], float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return a figure with its 95 % interval over resampled patients.

    Parameters
    ----------
    images : sequence of ScoredImage
        Of all patients.
    statistic : callable
        From (images,) int64 counts, how often each image was drawn, to the figure.
    seed, resamples : int
        Of the bootstrap.
    """
    point = statistic(np.ones(len(images), dtype=np.int64))
    values = [statistic(counts) for counts in _resample(images, seed, resamples)]
    known = np.array(values)[np.isfinite(values)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (float("nan"), float("nan"))
    patients = len({image.patient_id for image in images})
    return Interval(mean=point, low=float(low), high=float(high), count=patients)


def share_of_resamples(
    images: Sequence[ScoredImage],
    is_so: Callable[[npt.NDArray[np.int64]], bool],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> float:
    """Return in which share of the resamples of patients something holds, for paired comparisons."""
    return float(np.mean([is_so(counts) for counts in _resample(images, seed, resamples)]))


def _resample(images: Sequence[ScoredImage], seed: int, resamples: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each image counts when patients are drawn with replacement."""
    patients = sorted({image.patient_id for image in images})
    position = {patient: index for index, patient in enumerate(patients)}
    owner = np.array([position[image.patient_id] for image in images])
    draws = np.random.default_rng(seed)
    for _ in range(resamples):
        counts = np.bincount(draws.integers(0, len(patients), len(patients)), minlength=len(patients))
        yield counts[owner]


def choose_thresholds(
    images: Sequence[ScoredImage],
    classes: int,
    *,
    least: float,
    most_false_positives: float,
    least_precision: float,
) -> list[float | None]:
    """Choose the score from which each class is reported: best F1 within a rate of false positives.

    Parameters
    ----------
    images : sequence of ScoredImage
        Of the validation patients.
    classes : int
        Number of classes.
    least : float
        Intersection over union from which a box is right.
    most_false_positives : float
        Most false positives of one class an image.
    least_precision : float
        Share of the reported boxes that must be right.

    Returns
    -------
    list of float or None
        One a class, strictly between 0 and 1; None where no score is good enough, or nothing is found.
    """
    chosen: list[float | None] = []
    for label in range(classes):
        matches = match(images, label, least)
        order = np.argsort(-matches.scores, kind="stable")
        hits = np.cumsum(matches.is_hit[order])
        misses = np.cumsum(~matches.is_hit[order])
        score = 2 * hits / np.maximum(hits + misses + matches.drawn.sum(), 1)
        is_good = (misses <= most_false_positives * len(images)) & (hits >= least_precision * (hits + misses))
        score[~is_good] = 0.0
        best = int(score.argmax()) if len(score) else -1
        if best < 0 or score[best] == 0.0:
            chosen.append(None)
            continue
        value = np.floor(float(matches.scores[order][best]) * 1000) / 1000
        chosen.append(float(np.clip(value, 0.01, 0.99)))
    return chosen


def dice_of(iou: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the Dice coefficient of two boxes from their intersection over union."""
    return np.asarray(2 * iou / (1 + iou), dtype=np.float32)


def _areas(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), dtype=np.float32)
