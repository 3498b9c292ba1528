"""Pure. The figures of a detection model: what its card quotes, and the tables that a person reads.

Everything is computed from readings of films that are already there; the network is not needed any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torchmetrics.functional.classification import binary_auroc

from inference.detection import DetectionOptions, FoundBoxes, calibrated, combine_readings
from inference.training.chest_xray import Film
from inference.training.detection_loop import PreparedFilm, lay_beside
from inference.training.detection_metrics import (
    FALSE_POSITIVE_RATES,
    Matches,
    ScoredImage,
    average_precision,
    bootstrap,
    dice_of,
    match,
    recall_at,
    share_of_resamples,
    torchmetrics_map,
)
from inference.training.metrics import Interval
from inference.uncertainty import calibration_error

LEAST_IOU: Final = 0.4
"""Intersection over union from which a box is right: that of the VinDr-CXR challenge."""

LEAST_IOBB: Final = 0.5
"""Share of a found box inside a drawn one from which it is right by IoBB."""

CERTAINTY: Final = 0.9
"""Share of resamples in which a variant must be better to be kept."""

VARIANTS: Final[Mapping[str, DetectionOptions]] = {
    "plain": DetectionOptions(),
    "mirror_wbf": DetectionOptions(mirror=True),
    "gate_abnormal": DetectionOptions(gate="abnormal"),
    "gate_class": DetectionOptions(gate="class", gate_power=0.5),
    "mirror_wbf_gate_abnormal": DetectionOptions(mirror=True, gate="abnormal"),
    "mirror_wbf_gate_class": DetectionOptions(mirror=True, gate="class", gate_power=0.5),
}
"""What is compared: weighted box fusion of the mirrored reading, whole-image gates, and both."""

Weights = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadFilm:
    """A film with the network's reading of it and of its mirror image, and the pooled features of a layer."""

    film: Film
    prepared: PreparedFilm
    readings: tuple[FoundBoxes, ...]
    features: npt.NDArray[np.float32] | None = None


def score(reads: Sequence[ReadFilm], options: DetectionOptions) -> list[ScoredImage]:
    """Return what each film's readings amount to under some options."""
    scored = []
    for read in reads:
        side = int(read.prepared.image.shape[-1])
        used = list(read.readings if options.mirror else read.readings[:1])
        scored.append(lay_beside(read.film, read.prepared, combine_readings(used, side, options), side))
    return scored


def mean_precision(matches: Sequence[Matches], weights: Weights | None = None) -> float:
    """Return the mean average precision of the classes that were drawn."""
    each = np.array([average_precision(one, weights) for one in matches])
    known = each[np.isfinite(each)]
    return float(known.mean()) if len(known) else float("nan")


def compare_variants(reads: Sequence[ReadFilm], classes: int) -> tuple[str, dict[str, dict[str, Any]]]:
    """Compare the variants on the same films and choose one.

    A variant is kept only where it is better than the plain reading in `CERTAINTY` of the resamples of
    patients; of those the best mean average precision is taken.

    Returns
    -------
    tuple of str and dict
        Name of the choice, and of each variant its mean average precision with interval, and in which share
        of the resamples it is better than the plain one.
    """
    matches = {
        name: [match(score(reads, options), label, LEAST_IOU) for label in range(classes)]
        for name, options in VARIANTS.items()
    }
    scored = score(reads, VARIANTS["plain"])
    table: dict[str, dict[str, Any]] = {}
    plain = matches["plain"]
    for name, mine in matches.items():
        table[name] = {
            "map40": figure(bootstrap(scored, partial(mean_precision, mine), resamples=500)),
            "better_in": round(
                share_of_resamples(scored, partial(_is_better, mine, plain), resamples=500), 3
            ),
        }
    good = [name for name in VARIANTS if table[name]["better_in"] >= CERTAINTY]
    best = max(good, key=lambda name: float(table[name]["map40"]["mean"]), default="plain")
    return best, table


def _is_better(mine: Sequence[Matches], other: Sequence[Matches], weights: Weights) -> bool:
    return mean_precision(mine, weights) > mean_precision(other, weights)


def figure(interval: Interval) -> dict[str, Any]:
    """Return a score as the card's ``metrics`` hold it."""
    return {
        "mean": round(interval.mean, 3),
        "ci95": [round(interval.low, 3), round(interval.high, 3)],
        "n": interval.count,
    }


def detection_figures(
    images: Sequence[ScoredImage],
    names: Sequence[str],
    thresholds: Sequence[float],
    temperatures: Sequence[float],
) -> dict[str, Any]:
    """Compute every figure of a model on scored films.

    Parameters
    ----------
    images : sequence of ScoredImage
        Readings with the raw scores.
    names : sequence of str
        Class names in order.
    thresholds, temperatures : sequence of float
        Of each class, from the card; a threshold applies to the calibrated score.

    Returns
    -------
    dict
        As the card's ``metrics`` hold it.
    """
    classes = len(names)
    by_iou = [match(images, label, LEAST_IOU) for label in range(classes)]
    by_half = [match(images, label, 0.5) for label in range(classes)]
    by_iobb = [match(images, label, LEAST_IOBB, "iobb") for label in range(classes)]
    reference, _ = torchmetrics_map(images, LEAST_IOU, classes)
    reported = [report_only(one, thresholds[k], temperatures, k) for k, one in enumerate(by_iou)]
    figures: dict[str, Any] = {
        "films": len(images),
        "abnormal_films": sum(image.is_abnormal for image in images),
        "boxes": int(sum(len(image.true_boxes) for image in images)),
        "map40": figure(bootstrap(images, partial(mean_precision, by_iou))),
        "map40_torchmetrics": round(reference, 3),
        "map50": figure(bootstrap(images, partial(mean_precision, by_half))),
    }
    figures["map40_by_view"] = {
        view: figure(_of_view(images, view, classes)) for view in sorted({i.view for i in images}) if view
    }
    per_class: dict[str, Any] = {}
    for k, name in enumerate(names):
        entry: dict[str, Any] = {
            "boxes": int(by_iou[k].drawn.sum()),
            "ap40": figure(bootstrap(images, partial(average_precision, by_iou[k]))),
        }
        for rate in FALSE_POSITIVE_RATES:
            entry[f"recall_at_{rate:g}_fp"] = figure(bootstrap(images, partial(recall_at, by_iou[k], rate)))
            entry[f"recall_iobb_at_{rate:g}_fp"] = figure(
                bootstrap(images, partial(recall_at, by_iobb[k], rate))
            )
        hits = reported[k].is_hit
        entry["reported"] = {
            "threshold": round(float(thresholds[k]), 3),
            "recall": round(float(hits.sum() / max(reported[k].drawn.sum(), 1)), 3),
            "false_positives_an_image": round(float((~hits).sum() / len(images)), 3),
        }
        per_class[name] = entry
    figures["classes"] = per_class
    for rate in FALSE_POSITIVE_RATES:
        figures[f"mean_recall_at_{rate:g}_fp"] = figure(
            bootstrap(images, partial(_mean_recall, by_iou, rate))
        )
    figures["matched_iou"], figures["matched_dice"] = _overlap_figures(images, reported)
    figures["false_positives_an_image"] = round(
        float(sum((~one.is_hit).sum() for one in reported) / len(images)), 3
    )
    figures["abnormal_auc"] = {
        "all": figure(_area(images)),
        **{
            view: figure(_area([image for image in images if image.view == view]))
            for view in sorted({image.view for image in images if image.view})
        },
    }
    figures["calibration_error"] = calibration_figures(by_iou, temperatures)
    return figures


def report_only(matches: Matches, threshold: float, temperatures: Sequence[float], label: int) -> Matches:
    """Keep the matches whose calibrated score reaches the threshold."""
    labels = np.full(len(matches.scores), label, dtype=np.int64)
    is_kept = calibrated(matches.scores, labels, temperatures) >= threshold
    return Matches(
        scores=matches.scores[is_kept],
        is_hit=matches.is_hit[is_kept],
        image=matches.image[is_kept],
        overlaps=matches.overlaps[is_kept],
        drawn=matches.drawn,
    )


def calibration_figures(matches: Sequence[Matches], temperatures: Sequence[float]) -> dict[str, float]:
    """Return the expected calibration error of all boxes before and after the temperatures."""
    scores = np.concatenate([one.scores for one in matches])
    hits = np.concatenate([one.is_hit for one in matches]).astype(np.float32)
    labels = np.concatenate([np.full(len(one.scores), k, dtype=np.int64) for k, one in enumerate(matches)])
    return {
        "before": round(calibration_error(scores, hits), 4),
        "after": round(calibration_error(calibrated(scores, labels, temperatures), hits), 4),
    }


def figures_table(figures: Mapping[str, Any]) -> Table:
    """Return one line a class: average precision and recall, by IoU and by IoBB, with intervals."""
    recalls = [f"recall at {rate:g} FP" for rate in FALSE_POSITIVE_RATES]
    table = Table("class", "boxes", "AP at IoU 0.4", *recalls, "IoBB, 1 FP")
    for name, entry in figures["classes"].items():
        table.add_row(
            name,
            str(entry["boxes"]),
            _words(entry["ap40"]),
            *(_words(entry[f"recall_at_{rate:g}_fp"]) for rate in FALSE_POSITIVE_RATES),
            _words(entry["recall_iobb_at_1_fp"]),
        )
    table.add_section()
    table.add_row(
        "all",
        str(figures["boxes"]),
        _words(figures["map40"]),
        *(_words(figures[f"mean_recall_at_{rate:g}_fp"]) for rate in FALSE_POSITIVE_RATES),
        "",
    )
    return table


def _words(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['mean']:.2f} [{low:.2f}, {high:.2f}]"


def _mean_recall(matches: Sequence[Matches], rate: float, weights: Weights) -> float:
    each = np.array([recall_at(one, rate, weights) for one in matches])
    known = each[np.isfinite(each)]
    return float(known.mean()) if len(known) else float("nan")


def _of_view(images: Sequence[ScoredImage], view: str, classes: int) -> Interval:
    mine = [image for image in images if image.view == view]
    matches = [match(mine, label, LEAST_IOU) for label in range(classes)]
    return bootstrap(mine, partial(mean_precision, matches))


def _area(images: Sequence[ScoredImage]) -> Interval:
    """Return the area under the curve of the abnormal image, with its interval."""
    logits = torch.tensor([float(image.presence[0]) for image in images])
    truth = torch.tensor([int(image.is_abnormal) for image in images])

    def area(weights: Weights) -> float:
        repeats = torch.from_numpy(weights)
        drawn = truth.repeat_interleave(repeats)
        if not 0 < int(drawn.sum()) < len(drawn):
            return float("nan")
        return float(binary_auroc(torch.sigmoid(logits).repeat_interleave(repeats), drawn))

    return bootstrap(images, area, resamples=300)


def _overlap_figures(
    images: Sequence[ScoredImage], reported: Sequence[Matches]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the mean IoU and Dice of the reported boxes that are right."""
    image = np.concatenate([one.image[one.is_hit] for one in reported])
    iou = np.concatenate([one.overlaps[one.is_hit] for one in reported])

    def mean_of(values: npt.NDArray[np.float32]) -> Callable[[Weights], float]:
        def mean(weights: Weights) -> float:
            each = weights[image]
            return float((values * each).sum() / each.sum()) if each.sum() else float("nan")

        return mean

    return figure(bootstrap(images, mean_of(iou))), figure(bootstrap(images, mean_of(dice_of(iou))))
