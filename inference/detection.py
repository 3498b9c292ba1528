"""Pure. One detection task: radiographs in, boxes with their class, confidence and side out.

The runner is passed in; everything else here is arithmetic on boxes. The training scores its networks through
`find_boxes` too, so that what is reported is what the node does. ``test_time_mirror`` of the card reads the
mirrored image too and fuses the boxes; the keys of its ``options`` are those of `DetectionOptions`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from inference.admission import is_blocked
from inference.box_masks import load_segmenter, outline_findings
from inference.cards import LabelCard
from inference.explain import grad_cam
from inference.familiarity import Familiarity, judge, pooled_features
from inference.findings import (
    Analysis,
    Caveat,
    Doubt,
    Finding,
    Heatmap,
    Laterality,
    Outcome,
    Presence,
    RiskClass,
    Triage,
)
from inference.frontal_films import FrontalFilms, choose_frontal
from inference.networks.faster_rcnn import RadiographDetector
from inference.packages import ModelPackage, ModelPackageError
from inference.radiograph import Radiograph
from inference.radiograph_preparation import placement, prepare_radiograph, restore_map
from inference.runner import Progress
from inference.uncertainty import calibrate, dropout_deviation, logits_of, triage_of
from inference.volume import Volume

Gate = Literal["none", "abnormal", "class"]

UNPAIRED_SITES: Final = frozenset({"heart", "mediastinum", "aorta", "thorax"})
"""Sites without a left and a right one: their boxes have no side."""

_WBF_SKIP: Final = 0.01
"""Boxes below this score are left out of the fusion."""

_MIDLINE: Final = 0.03
"""A box whose centre lies nearer to the middle of the image than this share of its width has no side."""

_BOTH_SIDES: Final = 0.15
"""A box that reaches this share of the image's width beyond the middle on both sides is on both."""

_SEED_BYTES: Final = 4
_MAX_HEATMAPS: Final = 3
"""Findings of different labels that get a heat map: each costs a pass forward and back."""


class Lender(Protocol):
    """What a detection needs of a runner."""

    def borrow(self, package: ModelPackage) -> AbstractContextManager[tuple[nn.Module, torch.device]]:
        """Lend the package's network and its device."""
        ...


class DetectionOptions(BaseModel):
    """How the boxes of a network become answers: ``options`` of a detection model's card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mirror: bool = Field(default=False, description="Set from test_time_mirror of the card.")
    fusion_overlap: float = Field(
        default=0.4,
        gt=0,
        lt=1,
        description="Intersection over union from which boxes of both readings show one place.",
    )
    gate: Gate = Field(
        default="none",
        description="What a box's score is multiplied with: nothing, the probability that the image is "
        "abnormal, or that it shows the box's class.",
    )
    gate_power: float = Field(default=1.0, ge=0, description="Exponent of that probability.")
    max_findings: int = Field(default=10, ge=1, description="Most boxes that are reported of one image.")
    presence_temperature: float = Field(
        default=1.0, gt=0, description="Divisor of the logit of an abnormal image, for triage."
    )
    heatmaps: bool = Field(
        default=False,
        description="Whether Grad-CAM of the whole-image answer is drawn; for a model where it points at the "
        "boxes.",
    )
    masks: bool = Field(
        default=False,
        description="Whether LiteMedSAM outlines what lies in the boxes (inference/box_masks.py).",
    )
    notes: tuple[str, ...] = Field(default=(), description="Sentences that every result carries.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundBoxes:
    """What a network found on one prepared radiograph.

    Attributes
    ----------
    boxes : ndarray
        (N, 4) float32 left, top, right, bottom, pixels of the network's input.
    scores : ndarray
        (N,) float32, 0 to 1, best first.
    classes : ndarray
        (N,) int64 from 0.
    presence : ndarray
        (1 + classes,) float32 logits of the whole image: abnormal; shows each class.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    presence: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Borrowed:
    """A package with its network while the runner lends it."""

    package: ModelPackage
    detector: RadiographDetector
    device: torch.device
    options: DetectionOptions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    """A box that is reported: on which film, what, where (pixels of the film), how sure."""

    film: Radiograph
    label: LabelCard
    corners: tuple[float, float, float, float]
    confidence: float
    deviation: float | None


def detect(
    package: ModelPackage,
    images: Mapping[str, Volume | Sequence[Radiograph]],
    runner: Lender,
    study_uid: str,
    progress: Progress | None = None,
) -> Outcome:
    """Find boxes on the frontal radiographs of one study.

    Parameters
    ----------
    package : ModelPackage
        A detection model.
    images : mapping
        What fills each role: radiographs.
    runner : Lender
        Where the network is.
    study_uid : str
        Study Instance UID.
    progress : callable or None
        Called with (images done, images).

    Returns
    -------
    Outcome
        One finding a box, most confident first, on the images as stored; heat maps of the first ones where
        the card asks for them. A study without any frontal radiograph has a blocking doubt and no finding.

    Raises
    ------
    MissingInputError
        If no role is filled.
    ModelPackageError
        If the card's network is no detector, or its options are not those of a detection.
    SegmenterMissingError
        If the card asks for outlines and LiteMedSAM is not installed.
    DeviceMemoryError, DeviceFailureError
        As the runner raises them.
    """
    options = read_options(package)
    chosen = choose_frontal(package, images)
    doubts = chosen.doubts
    matrix = package.card.input.matrix
    prepared = [prepare_radiograph(film, matrix) for film in chosen.films] if not is_blocked(doubts) else []
    candidates: list[_Candidate] = []
    abnormal: list[float] = []
    heatmaps: tuple[Heatmap, ...] = ()
    if prepared:
        with runner.borrow(package) as (network, device):
            borrowed = _Borrowed(
                package=package, detector=_detector(package, network), device=device, options=options
            )
            doubts += _unfamiliar(borrowed, prepared)
            if not is_blocked(doubts):
                for done, (film, image) in enumerate(zip(chosen.films, prepared, strict=True), start=1):
                    found = find_boxes(borrowed.detector, image, options, device)
                    candidates += _candidates(borrowed, film, image, found)
                    abnormal.append(_abnormal_probability(found, options))
                    if progress is not None:
                        progress(done, len(prepared))
                candidates.sort(key=lambda candidate: -candidate.confidence)
                heatmaps = _explain(borrowed, candidates, chosen, prepared)
    findings = tuple(_finding(number, candidate) for number, candidate in enumerate(candidates, start=1))
    outcome = Outcome(
        analysis=Analysis(
            model=package.identity,
            study_uid=study_uid,
            inputs=chosen.inputs,
            findings=findings,
            notes=chosen.notes + _result_notes(package, findings, options, is_refused=is_blocked(doubts)),
            triage=_triage(package, abnormal, is_doubted=bool(doubts)),
            doubts=doubts + _wavering(package, findings),
        ),
        heatmaps=heatmaps,
    )
    return outline_findings(outcome, chosen.films, load_segmenter()) if options.masks else outcome


def read_options(package: ModelPackage) -> DetectionOptions:
    """Return the options of a detection model's card.

    Raises
    ------
    ModelPackageError
        If they are not those of a detection.
    """
    try:
        return DetectionOptions.model_validate(
            {**package.card.options, "mirror": package.card.test_time_mirror}
        )
    except ValidationError as exc:
        raise ModelPackageError(
            f"{package.card.name}: options do not fit a detection: see inference/detection.py."
        ) from exc


def side_of(left: float, right: float, width: float, site: str, view: str) -> Laterality | None:
    """Return the patient's side of a box on a frontal radiograph, from the middle of the image.

    Parameters
    ----------
    left, right : float
        Columns of the box, pixels; the patient's right is on the left.
    width : float
        Columns of the image.
    site : str
        Key of the anatomic site; `UNPAIRED_SITES` have no side.
    view : str
        View; only frontal ones have sides.
    """
    if site in UNPAIRED_SITES or view not in {"PA", "AP", ""}:
        return None
    middle = width / 2
    if middle - left > _BOTH_SIDES * width and right - middle > _BOTH_SIDES * width:
        return Laterality.BILATERAL
    offset = (left + right) / 2 - middle
    if abs(offset) < _MIDLINE * width:
        return None
    return Laterality.RIGHT if offset < 0 else Laterality.LEFT


def calibrated(
    scores: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], temperatures: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Return (N,) scores of boxes with the temperature of each box's class applied to its logit."""
    if not temperatures or not len(scores):
        return scores
    each = np.broadcast_to(
        np.asarray(temperatures, dtype=np.float32), (max(len(temperatures), int(classes.max()) + 1),)
    )
    logits = logits_of(scores) / each[classes]
    return calibrate(logits, ())


def _detector(package: ModelPackage, network: nn.Module) -> RadiographDetector:
    if not isinstance(network, RadiographDetector):
        raise ModelPackageError(
            f"{package.card.name}: a detection needs a network that finds boxes: correct network.builtin."
        )
    return network


def _candidates(
    borrowed: _Borrowed, film: Radiograph, image: npt.NDArray[np.float32], found: FoundBoxes
) -> list[_Candidate]:
    """Return the boxes of one film that reach their label's threshold, with their uncertainty."""
    card = borrowed.package.card
    scores = calibrated(found.scores, found.classes, card.doubt.temperatures)
    thresholds = np.array([card.threshold_of(label) for label in card.labels])
    kept = np.flatnonzero(scores >= thresholds[found.classes])
    kept = kept[np.argsort(-scores[kept], kind="stable")][: borrowed.options.max_findings]
    deviations = _spread(borrowed, film, image, found.boxes[kept], found.classes[kept])
    corners = placement(film, card.input.matrix).to_image(found.boxes[kept])
    return [
        _Candidate(
            film=film,
            label=card.labels[int(found.classes[index])],
            corners=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            confidence=float(scores[index]),
            deviation=deviation,
        )
        for index, box, deviation in zip(kept, corners, deviations, strict=True)
    ]


def spread_of_boxes(
    detector: RadiographDetector,
    image: npt.NDArray[np.float32],
    boxes: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    *,
    passes: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> list[float]:
    """Return how much each box's class probability varies when dropout is on in the box head.

    Parameters
    ----------
    detector : RadiographDetector
        In evaluation mode.
    image : ndarray
        (1, S, S) float32 prepared radiograph.
    boxes, classes : ndarray
        (N, 4) float32 on it, N at least 1, and (N,) int64 from 0.
    passes, seed : int
        Monte-Carlo passes, and the seed of what they drop.
    device : torch.device or str
        Where the network is.

    Returns
    -------
    list of float
        N standard deviations, 0 to 0.5.
    """
    places, columns = torch.from_numpy(boxes).to(device), torch.from_numpy(classes).to(device)
    rows = torch.arange(len(classes), device=device)
    shape = (image.shape[-2], image.shape[-1])
    with torch.inference_mode():
        features = detector.features(_tensor(image, device))
    _, deviations = dropout_deviation(
        detector, lambda: detector.region_scores(features, places, shape)[rows, columns], passes, seed
    )
    return [float(deviation) for deviation in deviations]


def _spread(
    borrowed: _Borrowed,
    film: Radiograph,
    image: npt.NDArray[np.float32],
    boxes: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
) -> list[float | None]:
    """Return the spread of a film's boxes; the seed follows from the image, so a re-run says the same."""
    passes = borrowed.package.card.doubt.dropout_passes
    if passes < 2 or not len(classes):  # noqa: PLR2004 - one pass has no deviation
        return [None] * len(classes)
    digest = hashlib.sha256(film.frame.sop_instance_uid.encode()).digest()
    seed = int.from_bytes(digest[:_SEED_BYTES], "big")
    return list(
        spread_of_boxes(
            borrowed.detector, image, boxes, classes, passes=passes, seed=seed, device=borrowed.device
        )
    )


def _unfamiliar(borrowed: _Borrowed, prepared: Sequence[npt.NDArray[np.float32]]) -> tuple[Doubt, ...]:
    """Say whether the images are unlike those of the training; the median decides for several."""
    package = borrowed.package
    card, layer = package.card.doubt.familiarity, package.card.explanation_layer
    if card is None or layer is None:
        return ()
    features = pooled_features(borrowed.detector, np.stack(prepared), layer, device=borrowed.device)
    distance = float(np.median(Familiarity.load(package.folder, card).distance(features)))
    doubt = judge(distance, card)
    return () if doubt is None else (doubt,)


def _abnormal_probability(found: FoundBoxes, options: DetectionOptions) -> float:
    """Return the calibrated probability that an image is abnormal."""
    return float(calibrate(found.presence[:1], (options.presence_temperature,))[0])


def _triage(package: ModelPackage, abnormal: Sequence[float], *, is_doubted: bool) -> Triage | None:
    """Say how urgent the study looks: as its most abnormal image; a doubted one has no predictive value."""
    card = package.card.doubt.triage
    if card is None or not abnormal:
        return None
    score = max(abnormal)
    if is_doubted:
        return Triage(risk=RiskClass.UNCERTAIN, score=score, calibration_patients=card.calibration_patients)
    return triage_of(score, card)


def _finding(number: int, candidate: _Candidate) -> Finding:
    left, top, right, bottom = candidate.corners
    film = candidate.film
    return Finding(
        finding_id=f"F{number}",
        concept=candidate.label.concept,
        site=candidate.label.site,
        presence=Presence.PRESENT,
        laterality=side_of(left, right, film.array.shape[1], candidate.label.site, film.view),
        confidence=candidate.confidence,
        uncertainty=candidate.deviation,
        box=film.box(left, top, right, bottom),
        key_frame=film.frame,
    )


def _wavering(package: ModelPackage, findings: Sequence[Finding]) -> tuple[Doubt, ...]:
    """Say which boxes the network is not sure of."""
    largest = package.card.doubt.largest_uncertainty
    if largest is None:
        return ()
    names = [finding.finding_id for finding in findings if (finding.uncertainty or 0.0) > largest]
    if not names:
        return ()
    sentence = f"The confidence of {', '.join(names)} varies from pass to pass; read it with care."
    return (Doubt(caveat=Caveat.LOW_CONFIDENCE, sentence=sentence),)


def _explain(
    borrowed: _Borrowed,
    candidates: Sequence[_Candidate],
    chosen: FrontalFilms,
    prepared: Sequence[npt.NDArray[np.float32]],
) -> tuple[Heatmap, ...]:
    """Draw where the network looked for the labels of the most confident boxes, one map a label and film."""
    layer = borrowed.package.card.explanation_layer
    if layer is None or not borrowed.options.heatmaps:
        return ()
    position = {film.frame: index for index, film in enumerate(chosen.films)}
    heatmaps: list[Heatmap] = []
    seen: set[tuple[int, int]] = set()
    for number, candidate in enumerate(candidates, start=1):
        key = (position[candidate.film.frame], candidate.label.value)
        if key in seen or len(heatmaps) == _MAX_HEATMAPS:
            continue
        seen.add(key)
        values = explain_presence(
            borrowed.detector, prepared[key[0]], layer, candidate.label.value, borrowed.device
        )
        film = candidate.film
        on_film = np.clip(film.stored(restore_map(values, film)), 0.0, 1.0)
        heatmaps.append(
            Heatmap(
                values=np.asarray(on_film, dtype=np.float32)[None],
                series_uid=film.series_uid,
                frames=(film.frame,),
                answer=f"F{number}",
            )
        )
    return tuple(heatmaps)


def explain_presence(
    detector: RadiographDetector,
    image: npt.NDArray[np.float32],
    layer: str,
    value: int,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.float32]:
    """Return the (S, S) Grad-CAM of the presence of one label, ``value`` from 1, on a prepared radiograph."""
    (heatmap,) = grad_cam(
        detector,
        image[None],
        layer,
        lambda logits: logits[:, value],
        device=device,
        forward=lambda images: detector.presence(detector.features(images)),
    )
    return np.asarray(heatmap, dtype=np.float32)


def _result_notes(
    package: ModelPackage, findings: Sequence[Finding], options: DetectionOptions, *, is_refused: bool
) -> tuple[str, ...]:
    """Return what a reader must know about the findings as a whole."""
    if is_refused:
        return ()
    empty = f"{package.card.title} marked nothing. This does not exclude disease."
    return (*(() if findings else (empty,)), *options.notes)


def find_boxes(
    network: RadiographDetector,
    image: npt.NDArray[np.float32],
    options: DetectionOptions,
    device: torch.device | str = "cpu",
) -> FoundBoxes:
    """Find boxes on one prepared radiograph, read mirrored too where asked, and gated.

    Parameters
    ----------
    network : RadiographDetector
        In evaluation mode.
    image : ndarray
        (1, S, S) float32 prepared radiograph.
    options : DetectionOptions
        Mirror, fusion and gate.
    device : torch.device or str
        Where the network is.

    Returns
    -------
    FoundBoxes
        Boxes on the input, best first.
    """
    readings = read_image(network, image, device, mirror=options.mirror)
    return combine_readings(readings, image.shape[-1], options)


def read_image(
    network: RadiographDetector,
    image: npt.NDArray[np.float32],
    device: torch.device | str = "cpu",
    *,
    mirror: bool = False,
) -> list[FoundBoxes]:
    """Read a (1, S, S) prepared radiograph, and its mirror image where asked; boxes lie on the image."""
    readings = [_read(network, image, device)]
    if mirror:
        readings.append(_mirrored(_read(network, image[..., ::-1], device), image.shape[-1]))
    return readings


def combine_readings(readings: list[FoundBoxes], side: int, options: DetectionOptions) -> FoundBoxes:
    """Fuse several readings of one image of ``side`` pixels, and gate the result."""
    fused = readings[0] if len(readings) == 1 else fuse_boxes(readings, side, options.fusion_overlap)
    return gate_boxes(fused, options)


def fuse_boxes(readings: list[FoundBoxes], side: int, overlap: float) -> FoundBoxes:
    """Fuse readings of one image by weighted box fusion; presence is averaged.

    Parameters
    ----------
    readings : list of FoundBoxes
        At least one.
    side : int
        Side of the image, pixels.
    overlap : float
        Intersection over union from which boxes of one class show one place.

    References
    ----------
    Solovyev et al., Weighted boxes fusion, doi:10.1016/j.imavis.2021.104117.
    """
    from ensemble_boxes import weighted_boxes_fusion

    presence = np.asarray(
        np.mean([reading.presence for reading in readings], axis=0, dtype=np.float32), dtype=np.float32
    )
    if not any(len(reading.boxes) for reading in readings):
        return FoundBoxes(
            boxes=readings[0].boxes,
            scores=readings[0].scores,
            classes=readings[0].classes,
            presence=presence,
        )
    boxes, scores, classes = weighted_boxes_fusion(
        [np.clip(reading.boxes / side, 0, 1) for reading in readings],
        [reading.scores for reading in readings],
        [reading.classes for reading in readings],
        iou_thr=overlap,
        skip_box_thr=_WBF_SKIP,
    )
    order = np.argsort(-scores, kind="stable")
    return FoundBoxes(
        boxes=np.asarray(boxes[order] * side, dtype=np.float32).reshape(-1, 4),
        scores=np.asarray(scores[order], dtype=np.float32),
        classes=np.asarray(classes[order], dtype=np.int64),
        presence=presence,
    )


def gate_boxes(found: FoundBoxes, options: DetectionOptions) -> FoundBoxes:
    """Weigh scores by what the whole image shows."""
    if options.gate == "none" or not len(found.scores):
        return found
    probability = 1.0 / (1.0 + np.exp(-found.presence.astype(np.float64)))
    factor = probability[0] if options.gate == "abnormal" else probability[1 + found.classes]
    scores = np.asarray(found.scores * factor**options.gate_power, dtype=np.float32)
    order = np.argsort(-scores, kind="stable")
    return FoundBoxes(
        boxes=found.boxes[order],
        scores=scores[order],
        classes=found.classes[order],
        presence=found.presence,
    )


def _read(
    network: RadiographDetector, image: npt.NDArray[np.float32], device: torch.device | str
) -> FoundBoxes:
    """Let the network read one image."""
    with torch.inference_mode():
        (found,) = network(_tensor(image, device))
    return FoundBoxes(
        boxes=found["boxes"].float().cpu().numpy(),
        scores=found["scores"].float().cpu().numpy(),
        classes=found["labels"].cpu().numpy() - 1,
        presence=found["presence"].float().cpu().numpy(),
    )


def _tensor(image: npt.NDArray[np.float32], device: torch.device | str) -> torch.Tensor:
    """Return a (1, 1, S, S) batch of one image."""
    return torch.from_numpy(np.ascontiguousarray(image))[None].to(device, memory_format=torch.channels_last)


def _mirrored(found: FoundBoxes, side: int) -> FoundBoxes:
    """Mirror boxes back."""
    left, top, right, bottom = found.boxes.T
    return FoundBoxes(
        boxes=np.stack((side - right, top, side - left, bottom), axis=1),
        scores=found.scores,
        classes=found.classes,
        presence=found.presence,
    )
