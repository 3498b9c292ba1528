"""Pure. One classification task: radiographs or a CT in, labels that are present, absent or undetermined out.

The runner is passed in. A radiograph study is as positive as its most positive frontal image; a CT as
the mean of its most suspicious slices. What was not read and why, and what the answer rests on, goes into the
notes.

Keys of the card's ``options``:

======================  ============================================================================
Key                     Meaning
======================  ============================================================================
undetermined_margin     Distance of the logit from the threshold's within which a label is undetermined
unanswered              Names of labels that the network has and that are not answered: too few cases
top_slices              Slices of a CT whose mean probability is the study's (3)
abnormal                ``scale`` and ``offset`` of the logit of an abnormal study, from the largest label's
notes                   Sentences that every result carries
======================  ============================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy import special

from dicom_node.errors import PermanentError
from inference.admission import admit_volume, is_blocked
from inference.ct_preparation import HeadCtSlices, prepare_head_ct, slices_with_brain, window_slices
from inference.explain import grad_cam
from inference.familiarity import Familiarity, judge, pooled_features
from inference.findings import (
    Analysis,
    Caveat,
    Doubt,
    Finding,
    FrameReference,
    Heatmap,
    Outcome,
    Presence,
    RiskClass,
    SeriesInput,
    Triage,
)
from inference.frontal_films import choose_frontal
from inference.networks.classifiers import Classifier
from inference.orientation import AxialTurn, axial_turn
from inference.packages import ModelPackage, ModelPackageError
from inference.radiograph import Radiograph
from inference.radiograph_preparation import placement, prepare_radiograph
from inference.runner import Prediction, Progress
from inference.segmentation import MissingInputError
from inference.uncertainty import calibrate, dropout_deviation, logits_of, triage_of
from inference.volume import Volume

_AS_STORED: Final = AxialTurn(flips_rows=False, flips_columns=False)

_SEED_BYTES: Final = 4

_RANK: Final = {Presence.PRESENT: 0, Presence.UNDETERMINED: 1, Presence.ABSENT: 2}
"""Order of the findings: what is there first."""


class Reader(Protocol):
    """What a classification needs of a runner."""

    def predict(
        self, package: ModelPackage, batch: npt.NDArray[np.float32], progress: Progress | None = None
    ) -> Prediction:
        """Return the probabilities of (N, C, H, W) prepared images."""
        ...

    def borrow(self, package: ModelPackage) -> AbstractContextManager[tuple[torch.nn.Module, torch.device]]:
        """Lend the package's network and its device."""
        ...


class _Abnormal(BaseModel):
    """From the largest label's logit to that of an abnormal study."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float = 1.0
    offset: float = 0.0


class _Options(BaseModel):
    """The card's options, as this task reads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    undetermined_margin: float = Field(default=0.0, ge=0.0)
    unanswered: tuple[str, ...] = ()
    top_slices: int = Field(default=3, ge=1)
    abnormal: _Abnormal = _Abnormal()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sight:
    """What the network is shown of a study, and what came before.

    ``images`` is (N, C, S, S), ``frames`` the image of each, ``count`` how many of the largest probabilities
    make the study's. ``films`` or ``slices`` lead heat maps back.
    """

    images: npt.NDArray[np.float32]
    frames: tuple[FrameReference, ...]
    inputs: tuple[SeriesInput, ...]
    count: int = 1
    doubts: tuple[Doubt, ...] = ()
    notes: tuple[str, ...] = ()
    films: tuple[Radiograph, ...] = ()
    slices: HeadCtSlices | None = None
    turn: AxialTurn = _AS_STORED
    shape: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    """What the network says: (L,) study probabilities, and of each label the deciding image and deviation."""

    probabilities: npt.NDArray[np.float32]
    deciding: npt.NDArray[np.int64]
    deviations: npt.NDArray[np.float32] | None
    ranked: npt.NDArray[np.int64]


def classify(
    package: ModelPackage,
    images: Mapping[str, Volume | Sequence[Radiograph]],
    runner: Reader,
    study_uid: str,
    progress: Progress | None = None,
) -> Outcome:
    """Classify one study.

    Parameters
    ----------
    package : ModelPackage
        A classification model.
    images : mapping
        What fills each role: radiographs, or a CT.
    runner : Reader
        Where the network runs.
    study_uid : str
        Study Instance UID.
    progress : callable or None
        Called with (images done, images).

    Returns
    -------
    Outcome
        One finding a label that is answered, present ones first, and the heat map of the first present one.
        A study that is not what the model reads has a blocking doubt and no finding.

    Raises
    ------
    MissingInputError
        If no role is filled.
    ModelPackageError
        If the card asks for a preparation or options that no classification has.
    UnsuitablePlaneError
        If a CT's slices are not axial.
    DeviceMemoryError, DeviceFailureError
        As the runner raises them.
    """
    options = _read_options(package)
    if package.card.input.preparation == "radiograph":
        sight = _see_radiographs(package, images)
    elif package.card.input.preparation == "ct_windows":
        sight = _see_ct(package, images, options)
    else:
        raise ModelPackageError(
            f"{package.card.name}: classification reads radiograph and ct_windows: correct input.preparation."
        )
    doubts = sight.doubts
    if not is_blocked(doubts):
        doubts += _unfamiliar(package, sight, runner)
    if is_blocked(doubts):
        return Outcome(
            analysis=Analysis(
                model=package.identity,
                study_uid=study_uid,
                inputs=sight.inputs,
                findings=(),
                notes=sight.notes,
                doubts=doubts,
            )
        )
    answer = _ask(package, sight, runner, progress)
    findings, heated = _findings(package, sight, answer, options)
    triage = _triage(package, answer, options, is_unlike_training=bool(doubts))
    doubts += _wavering(findings)
    heatmaps = () if heated is None else _explain(package, sight, answer, runner, heated)
    return Outcome(
        analysis=Analysis(
            model=package.identity,
            study_uid=study_uid,
            inputs=sight.inputs,
            findings=findings,
            notes=sight.notes + _result_notes(findings, options),
            triage=triage,
            doubts=doubts,
        ),
        heatmaps=heatmaps,
    )


def study_probabilities(
    probabilities: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Turn (N, L) probabilities of images into those of their study.

    Parameters
    ----------
    probabilities : ndarray
        (N, L) float32.
    count : int
        How many of the largest are averaged: 1 for radiographs, the card's ``top_slices`` for a CT.

    Returns
    -------
    tuple of ndarray
        (L,) probabilities, and (min(count, N), L) the images that they rest on, the most suspicious first.
    """
    ranked = np.argsort(-probabilities, axis=0, kind="stable")[:count]
    return np.take_along_axis(probabilities, ranked, axis=0).mean(axis=0).astype(np.float32), ranked


def presence_of(probability: float, threshold: float, margin: float) -> Presence:
    """Call a label present or absent, or neither within ``margin`` of the threshold on the logit scale."""
    distance = float(special.logit(np.clip(probability, 1e-6, 1 - 1e-6)) - special.logit(threshold))
    if abs(distance) < margin:
        return Presence.UNDETERMINED
    return Presence.PRESENT if distance >= 0 else Presence.ABSENT


def _read_options(package: ModelPackage) -> _Options:
    try:
        return _Options.model_validate(package.card.options)
    except ValidationError as exc:
        raise ModelPackageError(
            f"{package.card.name}: options do not fit a classification: see inference/classification.py."
        ) from exc


def _see_radiographs(package: ModelPackage, images: Mapping[str, Volume | Sequence[Radiograph]]) -> _Sight:
    """Prepare the frontal radiographs that may be read."""
    chosen = choose_frontal(package, images)
    matrix = package.card.input.matrix
    empty = np.zeros((0, 1, matrix, matrix), dtype=np.float32)
    films = chosen.films
    return _Sight(
        images=np.stack([prepare_radiograph(film, matrix) for film in films]) if films else empty,
        frames=tuple(film.frame for film in films),
        inputs=chosen.inputs,
        doubts=chosen.doubts,
        notes=chosen.notes,
        films=films,
    )


def _see_ct(
    package: ModelPackage, images: Mapping[str, Volume | Sequence[Radiograph]], options: _Options
) -> _Sight:
    """Prepare the slices of a head CT that show enough of it."""
    role = package.card.input.reference.name
    volume = images.get(role)
    if volume is None:
        raise MissingInputError(
            f"The study has no usable series for the role {role} of {package.card.name}: acquire it, or name "
            "its series description in the model's card or the routing rules."
        )
    if not isinstance(volume, Volume):
        raise PermanentError(f"{package.card.name} reads a CT: send it a series of axial slices.")
    inputs = (SeriesInput(role=role, series_uid=volume.series_uid, frames=volume.frames),)
    turn = axial_turn(volume) if package.card.input.plane == "axial" else _AS_STORED
    sites = {label.site for label in package.card.labels}
    doubts = admit_volume(volume, package.card.input.preparation, sites)
    turned = turn.apply(volume.array)
    windowed = window_slices(turned, package.card.input.windows)
    indices = slices_with_brain(turned, windowed)
    if not indices and not is_blocked(doubts):
        sentence = "No slice shows brain; the model gives no answer."
        doubts += (Doubt(caveat=Caveat.WRONG_BODY_PART, sentence=sentence, is_blocking=True),)
    slices = prepare_head_ct(windowed, () if is_blocked(doubts) else indices, package.card.input.matrix)
    skipped = len(volume.frames) - len(indices)
    notes = (
        (f"{len(indices)} of {len(volume.frames)} slices were read; the others show too little brain.",)
        if skipped
        else ()
    )
    count = min(options.top_slices, max(len(slices.indices), 1))
    rule = f"The study's probability is the mean of its {_count(count, 'most suspicious slice')}."
    return _Sight(
        images=slices.images,
        frames=tuple(volume.frames[index] for index in slices.indices),
        inputs=inputs,
        count=options.top_slices,
        doubts=doubts,
        notes=() if is_blocked(doubts) else (*notes, rule),
        slices=slices,
        turn=turn,
        shape=(volume.array.shape[1], volume.array.shape[2]),
    )


def _unfamiliar(package: ModelPackage, sight: _Sight, runner: Reader) -> tuple[Doubt, ...]:
    """Say whether the images are unlike those of the training; the median decides for several."""
    card, layer = package.card.doubt.familiarity, package.card.explanation_layer
    if card is None or layer is None:
        return ()
    known = Familiarity.load(package.folder, card)
    with runner.borrow(package) as (network, device):
        features = pooled_features(network, sight.images, layer, device=device)
    doubt = judge(float(np.median(known.distance(features))), card)
    return () if doubt is None else (doubt,)


def _ask(package: ModelPackage, sight: _Sight, runner: Reader, progress: Progress | None) -> _Answer:
    """Predict, with mirrored images where the card says so, and calibrate."""
    card = package.card
    logits = logits_of(runner.predict(package, sight.images, progress).probabilities)
    if card.test_time_mirror:
        mirrored = np.ascontiguousarray(sight.images[..., ::-1])
        other = logits_of(runner.predict(package, mirrored).probabilities)
        logits = np.asarray((logits + other) / 2, dtype=np.float32)
    probabilities = calibrate(logits, card.doubt.temperatures)
    study, ranked = study_probabilities(probabilities, sight.count)
    deviations = None
    if card.doubt.dropout_passes >= 2:  # noqa: PLR2004 - one pass has no deviation
        spread = _spread(package, sight, runner)
        deviations = np.take_along_axis(spread, ranked[:1], axis=0)[0]
    return _Answer(probabilities=study, deciding=ranked[0], deviations=deviations, ranked=ranked)


def _spread(package: ModelPackage, sight: _Sight, runner: Reader) -> npt.NDArray[np.float32]:
    """Return the (N, L) standard deviation of calibrated probabilities over Monte-Carlo dropout passes.

    Our classifiers drop features before their head only, so that the maps are computed once. The seed follows
    from the images: reading a study again gives the same.
    """
    seed = int.from_bytes(hashlib.sha256(sight.images.tobytes()).digest()[:_SEED_BYTES], "big")
    divisors = torch.tensor(package.card.doubt.temperatures or (1.0,))
    with runner.borrow(package) as (network, device):
        images = [
            torch.from_numpy(image[None]).to(device, memory_format=torch.channels_last)
            for image in sight.images
        ]
        with torch.inference_mode():
            maps = (
                [network.features(image) for image in images] if isinstance(network, Classifier) else images
            )
        answer = network.classify if isinstance(network, Classifier) else network

        def forward() -> torch.Tensor:
            return torch.cat([torch.sigmoid(answer(part).float().cpu() / divisors) for part in maps])

        return dropout_deviation(network, forward, package.card.doubt.dropout_passes, seed)[1]


def _findings(
    package: ModelPackage, sight: _Sight, answer: _Answer, options: _Options
) -> tuple[tuple[Finding, ...], int | None]:
    """Return the findings, present ones first, and the label whose heat map is drawn."""
    largest = package.card.doubt.largest_uncertainty
    called: list[tuple[Presence, int]] = []
    for index, label in enumerate(package.card.labels):
        if label.name in options.unanswered:
            continue
        presence = presence_of(
            float(answer.probabilities[index]), package.card.threshold_of(label), options.undetermined_margin
        )
        if largest is not None and answer.deviations is not None and answer.deviations[index] > largest:
            presence = Presence.UNDETERMINED
        called.append((presence, index))
    called.sort(key=lambda each: (_RANK[each[0]], -float(answer.probabilities[each[1]])))
    findings = tuple(
        Finding(
            finding_id=f"F{number}",
            concept=package.card.labels[index].concept,
            site=package.card.labels[index].site,
            presence=presence,
            confidence=float(answer.probabilities[index]),
            uncertainty=None if answer.deviations is None else float(answer.deviations[index]),
            key_frame=sight.frames[int(answer.deciding[index])],
        )
        for number, (presence, index) in enumerate(called, start=1)
    )
    heated = called[0][1] if called and called[0][0] is Presence.PRESENT else None
    return findings, heated


def _wavering(findings: Sequence[Finding]) -> tuple[Doubt, ...]:
    """Say how many labels could not be decided."""
    undecided = sum(finding.presence is Presence.UNDETERMINED for finding in findings)
    if not undecided:
        return ()
    sentence = (
        f"{undecided} of {len(findings)} labels could not be decided: too near to the threshold or too "
        "uncertain."
    )
    return (Doubt(caveat=Caveat.LOW_CONFIDENCE, sentence=sentence),)


def _triage(
    package: ModelPackage, answer: _Answer, options: _Options, *, is_unlike_training: bool
) -> Triage | None:
    """Say how urgent the study looks, where the card has thresholds for it.

    Predictive values hold for images like those of the calibration: any doubt about the input makes the
    study uncertain.
    """
    card = package.card.doubt.triage
    if card is None:
        return None
    answered = [
        index for index, label in enumerate(package.card.labels) if label.name not in options.unanswered
    ]
    score = abnormal_score(answer.probabilities[answered], options.abnormal.scale, options.abnormal.offset)
    if is_unlike_training:
        return Triage(risk=RiskClass.UNCERTAIN, score=score, calibration_patients=card.calibration_patients)
    return triage_of(score, card)


def abnormal_score(probabilities: npt.NDArray[np.float32], scale: float, offset: float) -> float:
    """Return the probability of an abnormal study from (L,) probabilities of its answered labels."""
    return float(special.expit(scale * float(logits_of(probabilities).max()) + offset))


def _explain(
    package: ModelPackage, sight: _Sight, answer: _Answer, runner: Reader, label: int
) -> tuple[Heatmap, ...]:
    """Draw where the network looked for a label: on the deciding film, or the slices that decided."""
    layer = package.card.explanation_layer
    if layer is None:
        return ()
    chosen = np.sort(answer.ranked[:, label])
    with runner.borrow(package) as (network, device):
        maps = grad_cam(network, sight.images[chosen], layer, lambda logits: logits[:, label], device=device)
    if sight.slices is None:
        film = sight.films[int(chosen[0])]
        values = film.stored(_onto_film(maps[0], film))[None]
        series_uid = film.series_uid
    else:
        slices = HeadCtSlices(
            images=sight.images[chosen],
            indices=tuple(sight.slices.indices[index] for index in chosen),
            crops=tuple(sight.slices.crops[index] for index in chosen),
        )
        values = sight.turn.apply(slices.restore(maps, sight.shape))
        series_uid = sight.inputs[0].series_uid
    return (
        Heatmap(
            values=np.clip(values, 0.0, 1.0).astype(np.float32),
            series_uid=series_uid,
            frames=tuple(sight.frames[int(index)] for index in chosen),
            answer="F1",
        ),
    )


def _onto_film(values: npt.NDArray[np.float32], film: Radiograph) -> npt.NDArray[np.float32]:
    """Map an (S, S) map of the network's square onto the (H, W) film."""
    placed = placement(film, values.shape[0])
    side = max(placed.height, placed.width)
    left, top = placed.margins
    square = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(values))[None, None],
        size=(side, side),
        mode="bilinear",
        align_corners=False,
    )
    return cast(
        "npt.NDArray[np.float32]",
        square[0, 0].numpy()[top : top + placed.height, left : left + placed.width],
    )


def _result_notes(findings: Sequence[Finding], options: _Options) -> tuple[str, ...]:
    """Return what a reader must know about the findings as a whole."""
    notes = []
    if not any(finding.presence is Presence.PRESENT for finding in findings):
        notes.append("No label reached its threshold. This does not exclude disease.")
    if options.unanswered:
        names = ", ".join(options.unanswered)
        notes.append(f"Not assessed, because there were too few examples to measure it: {names}.")
    return (*notes, *options.notes)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
