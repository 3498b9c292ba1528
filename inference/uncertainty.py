"""Pure. How sure an answer is: Monte-Carlo dropout, calibrated probabilities, triage with stated values.

Fitting is here too, because what is fitted and how it is applied must not drift apart; the data come from
`inference.training.calibration`. Every calibration value is one a patient: images of one patient are not
independent.

References
----------
Gal, Ghahramani, Dropout as a Bayesian approximation, arXiv:1506.02142; Guo et al., On calibration of modern
neural networks, arXiv:1706.04599; Angelopoulos et al., Conformal triage for medical imaging AI deployment,
doi:10.1101/2024.02.09.24302543; Clopper, Pearson, doi:10.1093/biomet/26.4.404.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize, special, stats
from torch import nn

from dicom_node.errors import PermanentError
from inference.cards import TriageCard
from inference.findings import RiskClass, Triage

TEMPERATURE_RANGE: Final = (0.05, 20.0)
"""Between these a temperature is sought; a fit that wants more is not a matter of calibration."""

MIN_CASES: Final = 10
"""A label with fewer positive or negative cases keeps its logits as they are."""

TRIAGE_CANDIDATES: Final = 8
"""Thresholds that are tried on each side; each is tested at a confidence that pays for all of them."""

_LOGIT_LIMIT: Final = 1e-6
"""Probabilities are kept this far from 0 and 1 before a logit is taken of them."""


class NoDropoutError(PermanentError):
    """Monte-Carlo dropout was asked of a network without dropout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Cases of similar predicted probability.

    Attributes
    ----------
    low, high : float
        Range of the predicted probability.
    count : int
        Cases.
    predicted, observed : float
        Mean predicted probability and share of positive cases; NaN in an empty bin.
    """

    low: float
    high: float
    count: int
    predicted: float
    observed: float


def dropout_deviation(
    network: nn.Module, forward: Callable[[], torch.Tensor], passes: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Predict several times with dropout switched on.

    Only dropout modules (``nn.Dropout`` and its kin; no stochastic depth) leave evaluation mode; batch
    normalisation stays in it, so that an image's answer does not depend on its neighbours. Modes and the
    state of random numbers are put back.

    Parameters
    ----------
    network : nn.Module
        The network, in evaluation mode.
    forward : callable
        Without arguments, one prediction: a tensor of probabilities of any shape.
    passes : int
        How many predictions, at least 2.
    seed : int
        Seed of the dropped activations.

    Returns
    -------
    tuple of ndarray
        Mean and standard deviation over the passes, float32, of the prediction's shape. The deviation of a
        probability is at most 0.5.

    Raises
    ------
    NoDropoutError
        If the network has no dropout that does anything.
    ValueError
        If fewer than two passes are asked for.
    """
    if passes < 2:  # noqa: PLR2004 - one pass has no deviation
        raise ValueError(f"passes: a deviation needs at least 2, got {passes}")
    devices = sorted({p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"})
    total = squares = np.zeros(0)
    with _only_dropout_training(network), torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        for index in range(passes):
            probabilities = forward().detach().float().cpu().numpy().astype(np.float64)
            if index == 0:
                total, squares = np.zeros_like(probabilities), np.zeros_like(probabilities)
            total += probabilities
            squares += probabilities**2
    mean = total / passes
    deviation = np.sqrt(np.maximum(squares / passes - mean**2, 0.0))
    return mean.astype(np.float32), deviation.astype(np.float32)


@contextmanager
def _only_dropout_training(network: nn.Module) -> Iterator[None]:
    """Switch dropout on for a while and put every module's mode back."""
    dropouts = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0  # noqa: SLF001 - the base class
    ]
    if not dropouts:
        raise NoDropoutError(
            "The network has no dropout, so its uncertainty cannot be sampled: set doubt.dropout_passes on "
            "the model's card to 0, or train the network with dropout."
        )
    modes = [(module, module.training) for module in dropouts]
    try:
        for module in dropouts:
            module.train()
        yield
    finally:
        for module, was_training in modes:
            module.train(was_training)


def logits_of(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Invert the sigmoid; probabilities of 0 and 1 become finite logits."""
    clipped = np.clip(probabilities.astype(np.float64), _LOGIT_LIMIT, 1 - _LOGIT_LIMIT)
    return np.asarray(special.logit(clipped), dtype=np.float32)


def calibrate(
    logits: npt.NDArray[np.float32],
    temperatures: Sequence[float],
    *,
    axis: int = -1,
    is_softmax: bool = False,
) -> npt.NDArray[np.float32]:
    """Turn logits into calibrated probabilities.

    Parameters
    ----------
    logits : ndarray
        (N, L), or any shape whose ``axis`` runs over the labels.
    temperatures : sequence of float
        Divisors of the logits as ``doubt.temperatures`` of a card: none, one for all labels, or one a label.
    axis : int
        The axis of the labels.
    is_softmax : bool
        Whether the labels exclude each other, so that probabilities add up to 1 over the axis.

    Returns
    -------
    ndarray
        Probabilities of the same shape, float32.
    """
    divisors = np.asarray(temperatures or (1.0,), dtype=np.float64)
    shape = [1] * logits.ndim
    shape[axis] = len(divisors)
    scaled = logits / divisors.reshape(shape)
    probabilities = special.softmax(scaled, axis=axis) if is_softmax else special.expit(scaled)
    return np.asarray(probabilities, dtype=np.float32)


def fit_temperatures(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], *, min_cases: int = MIN_CASES
) -> tuple[float, ...]:
    """Fit one temperature a label by the likelihood of validation cases.

    Parameters
    ----------
    logits : ndarray
        (N, L) float32 of validation cases.
    targets : ndarray
        (N, L) 0 or 1; NaN where a label is unknown.
    min_cases : int
        Labels with fewer positive or negative cases keep temperature 1.

    Returns
    -------
    tuple of float
        L temperatures within `TEMPERATURE_RANGE`.
    """
    return tuple(
        _fit_temperature(logits[:, label].astype(np.float64), targets[:, label], min_cases)
        for label in range(logits.shape[1])
    )


def _fit_temperature(
    logits: npt.NDArray[np.float64], targets: npt.NDArray[np.float32], min_cases: int
) -> float:
    is_known = np.isfinite(targets)
    logits, is_positive = logits[is_known], targets[is_known] > 0.5  # noqa: PLR2004 - 0 or 1
    if min(int(is_positive.sum()), int((~is_positive).sum())) < min_cases:
        return 1.0
    signed = np.where(is_positive, logits, -logits)
    return _minimise(lambda temperature: float(np.logaddexp(0.0, -signed / temperature).mean()))


def fit_softmax_temperature(
    logits: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], *, min_cases: int = MIN_CASES
) -> float:
    """Fit the one temperature of labels that exclude each other.

    Parameters
    ----------
    logits : ndarray
        (N, L) float32 of validation cases.
    classes : ndarray
        (N,) index of the true label.
    min_cases : int
        Below this number of cases the temperature stays 1.
    """
    if len(classes) < min_cases:
        return 1.0
    rows = np.arange(len(classes))

    def loss(temperature: float) -> float:
        scaled = special.log_softmax(logits.astype(np.float64) / temperature, axis=1)
        return float(-scaled[rows, classes].mean())

    return _minimise(loss)


def _minimise(loss: Callable[[float], float]) -> float:
    """Return the temperature of the smallest loss, which has one minimum along 1 / temperature."""
    found = optimize.minimize_scalar(
        lambda x: loss(math.exp(x)), bounds=np.log(TEMPERATURE_RANGE), method="bounded"
    )
    return round(float(np.clip(math.exp(found.x), *TEMPERATURE_RANGE)), 4)


def reliability(
    probabilities: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], bins: int = 15
) -> tuple[ReliabilityBin, ...]:
    """Compare predicted with observed frequencies in bins of equal width.

    Parameters
    ----------
    probabilities, targets : ndarray
        Any shape, the same; cases with an unknown (NaN) target do not count.
    bins : int
        Number of bins between 0 and 1.
    """
    is_known = np.isfinite(targets)
    predicted, observed = probabilities[is_known].astype(np.float64), targets[is_known].astype(np.float64)
    index = np.clip((predicted * bins).astype(np.int64), 0, bins - 1)
    table = []
    for number in range(bins):
        here = index == number
        count = int(here.sum())
        table.append(
            ReliabilityBin(
                low=number / bins,
                high=(number + 1) / bins,
                count=count,
                predicted=float(predicted[here].mean()) if count else math.nan,
                observed=float(observed[here].mean()) if count else math.nan,
            )
        )
    return tuple(table)


def calibration_error(
    probabilities: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], bins: int = 15
) -> float:
    """Return the expected calibration error: the mean gap of predicted and observed, weighted by cases.

    Parameters
    ----------
    probabilities, targets, bins
        As for `reliability`.

    Returns
    -------
    float
        0 to 1; NaN without any case.
    """
    table = [row for row in reliability(probabilities, targets, bins) if row.count]
    total = sum(row.count for row in table)
    if not total:
        return math.nan
    return sum(row.count * abs(row.predicted - row.observed) for row in table) / total


def fit_triage(
    scores: npt.NDArray[np.float32],
    is_abnormal: npt.NDArray[np.bool_],
    *,
    negative_target: float,
    positive_target: float,
    confidence: float = 0.95,
) -> TriageCard:
    """Choose the thresholds of low and high risk so that their predictive values hold with confidence.

    On each side `TRIAGE_CANDIDATES` thresholds are tried. A threshold is good when the exact lower bound
    (Clopper-Pearson) of its predictive value reaches the target at a confidence that is shared out among the
    candidates (Bonferroni), so that the statement holds for the one that is chosen. The good threshold that
    calls most patients is taken. Where none is good, nobody is called low (high) risk: the threshold is 0 (1)
    and its predictive value 0.

    Parameters
    ----------
    scores : ndarray
        (N,) calibrated probabilities of an abnormal study, one a calibration patient.
    is_abnormal : ndarray
        (N,) bool.
    negative_target, positive_target : float
        Predictive values wanted of low and of high risk, 0 to 1.
    confidence : float
        Confidence of each side's statement.

    Returns
    -------
    TriageCard
        Thresholds with the lower bounds of their predictive values.

    Raises
    ------
    ValueError
        If there is no patient.
    """
    if len(scores) == 0:
        raise ValueError("scores: triage needs calibration patients")
    values = np.asarray(scores, dtype=np.float64)
    error = (1 - confidence) / TRIAGE_CANDIDATES
    high, positive_value = 1.0, 0.0
    for count in _candidate_counts(len(values), positive_target, error):
        threshold = float(np.sort(values)[-count])
        bound = _lower_bound(is_abnormal[values >= threshold], error)
        if bound >= positive_target:
            high, positive_value = threshold, bound
    low, negative_value = 0.0, 0.0
    for count in _candidate_counts(len(values), negative_target, error):
        threshold = float(np.nextafter(np.sort(values)[count - 1], 2.0))
        bound = _lower_bound(~is_abnormal[values < threshold], error)
        if bound >= negative_target and threshold <= high:
            low, negative_value = threshold, bound
    return TriageCard(
        low=min(low, 1.0),
        high=high,
        negative_predictive_value=negative_value,
        positive_predictive_value=positive_value,
        calibration_patients=len(values),
    )


def _candidate_counts(total: int, target: float, error: float) -> list[int]:
    """Return how many patients each candidate calls: from the fewest that could show the target, to all."""
    fewest = math.ceil(math.log(error) / math.log(target)) if 0 < target < 1 else 1
    if fewest > total:
        return []
    return sorted({round(count) for count in np.geomspace(fewest, total, TRIAGE_CANDIDATES)})


def _lower_bound(is_right: npt.NDArray[np.bool_], error: float) -> float:
    """Return the exact lower confidence bound of a proportion."""
    right, total = int(is_right.sum()), len(is_right)
    return float(stats.beta.ppf(error, right, total - right + 1)) if right else 0.0


def triage_of(score: float, card: TriageCard) -> Triage:
    """Say how urgent a study looks.

    Parameters
    ----------
    score : float
        Calibrated probability of an abnormal study.
    card : TriageCard
        Thresholds and what they are worth. A side whose predictive value is 0 calls nobody.
    """
    risk, value = RiskClass.UNCERTAIN, None
    if score >= card.high and card.positive_predictive_value > 0:
        risk, value = RiskClass.HIGH, card.positive_predictive_value
    elif score < card.low and card.negative_predictive_value > 0:
        risk, value = RiskClass.LOW, card.negative_predictive_value
    return Triage(
        risk=risk, score=score, predictive_value=value, calibration_patients=card.calibration_patients
    )
