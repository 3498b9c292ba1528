"""Pure. Grade and survival heads on frozen patient features: losses, ridge fits, cross-validation.

So few patients are graded that a network trained through would learn them by heart. The encoder therefore
never sees grade or death; one linear head each is fitted on the patients' features, and judged on patients
that were left out of its fit.

References
----------
Cox, doi:10.1111/j.2517-6161.1972.tb00899.x (partial likelihood); Harrell et al., doi:10.1001/jama.247.18.2543
(concordance); Shi, Cao, Raschka, CORN, arXiv:2111.08851. The survival loss and index are torchsurv's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional
from torchsurv.loss.cox import neg_partial_log_likelihood
from torchsurv.metrics.cindex import ConcordanceIndex

RIDGES: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Ridge penalties among which cross-validation chooses."""

_STEPS: Final = 50
"""Iterations of L-BFGS: a convex problem of a few hundred weights is solved well before."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(N, outputs) head outputs and (N,) indices of the patients to a loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearHead:
    """A fitted head: ``features @ weight.T + bias``.

    Attributes
    ----------
    weight : torch.Tensor
        (outputs, features).
    bias : torch.Tensor
        (outputs,).
    ridge : float
        Penalty with which it was fitted.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    ridge: float

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs) of (N, features)."""
        return features @ self.weight.T + self.bias


def ordinal_loss(logits: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """CORN: the k-th logit is judged on the patients that passed grade k - 1.

    Parameters
    ----------
    logits : torch.Tensor
        (N, grades - 1).
    grades : torch.Tensor
        (N,) int, from 0.
    """
    losses = [
        functional.binary_cross_entropy_with_logits(
            logits[grades >= step, step], (grades[grades >= step] > step).to(logits.dtype)
        )
        for step in range(logits.shape[1])
        if bool((grades >= step).any())
    ]
    return torch.stack(losses).sum()


def survival_loss(log_hazard: torch.Tensor, is_dead: torch.Tensor, time_days: torch.Tensor) -> torch.Tensor:
    """Cox partial likelihood a death; with one and the same time for all it ranks the dead above the living.

    Parameters
    ----------
    log_hazard, is_dead, time_days : torch.Tensor
        (N,) float, bool, float.
    """
    if len(is_dead) == 1 or not bool(is_dead.any()):  # nobody to be ranked against
        return log_hazard.sum() * 0.0
    with _ties_expected():
        loss = neg_partial_log_likelihood(
            log_hazard, is_dead, time_days, ties_method="breslow", reduction="sum"
        )
    return torch.as_tensor(loss / is_dead.sum())


def concordance(log_hazard: torch.Tensor, is_dead: torch.Tensor, time_days: torch.Tensor) -> float:
    """Harrell's index; with one time for all it is the area under the curve of the death label."""
    with _ties_expected():
        return float(ConcordanceIndex()(log_hazard, is_dead, time_days))


def fit_head(features: torch.Tensor, loss: Loss, outputs: int, ridge: float) -> LinearHead:
    """Fit a linear head with a ridge penalty on its weights.

    Parameters
    ----------
    features : torch.Tensor
        (N, features) of the patients.
    loss : callable
        See `Loss`; indices run over these N patients.
    outputs : int
        Outputs of the head.
    ridge : float
        Penalty on half the squared weights.
    """
    features = features.double()
    centre = features.mean(dim=0)
    centred = features - centre
    everyone = torch.arange(len(features))
    weight = torch.zeros(outputs, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        total = loss(centred @ weight.T + bias, everyone) + 0.5 * ridge * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]  # missing from torch's stub
        return total

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # missing from torch's stub
    fitted = weight.detach()
    return LinearHead(weight=fitted.float(), bias=(bias.detach() - fitted @ centre).float(), ridge=ridge)


def choose_ridge(
    features: torch.Tensor, loss: Loss, outputs: int, folds: Sequence[torch.Tensor], ridges: Sequence[float]
) -> float:
    """Return the ridge whose loss on left-out patients is least."""
    totals = []
    for ridge in ridges:
        total = 0.0
        for left_out, kept in _each_fold(folds, len(features)):
            head = fit_head(features[kept], _restricted(loss, kept), outputs, ridge)
            total += float(loss(head(features[left_out]).double(), left_out)) * len(left_out)
        totals.append(total)
    return ridges[int(np.argmin(totals))]


def cross_validate(  # noqa: PLR0917 - the data, the loss and the folds
    features: torch.Tensor,
    asked: torch.Tensor,
    loss: Loss,
    outputs: int,
    folds: Sequence[torch.Tensor],
    seed: int,
) -> torch.Tensor:
    """Return predictions of every patient by a head that was fitted without that patient.

    The ridge of each fold is chosen by a cross-validation among the fold's own training patients.

    Parameters
    ----------
    features, asked : torch.Tensor
        (N, features) from which heads are fitted, and of the same patients, about which they are asked.
    loss, outputs
        As for `fit_head`.
    folds : sequence of torch.Tensor
        Indices of the patients of each fold.
    seed : int
        Seed of the inner folds.

    Returns
    -------
    torch.Tensor
        (N, outputs).
    """
    predictions = torch.zeros(len(features), outputs)
    for number, (left_out, kept) in enumerate(_each_fold(folds, len(features))):
        inner_loss = _restricted(loss, kept)
        inner = draw_folds(len(kept), len(folds), seed + number + 1)
        ridge = choose_ridge(features[kept], inner_loss, outputs, inner, RIDGES)
        predictions[left_out] = fit_head(features[kept], inner_loss, outputs, ridge)(asked[left_out])
    return predictions


def draw_folds(count: int, folds: int, seed: int, labels: Sequence[int] | None = None) -> list[torch.Tensor]:
    """Deal patients into folds at random, each label evenly if labels are given."""
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    return [torch.from_numpy(np.sort(order[start::folds])) for start in range(folds)]


@contextmanager
def _ties_expected() -> Iterator[None]:
    """Silence torchsurv's warning of ties in time: with one time for everybody all are tied."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Tt]ies.*")
        yield


def _each_fold(folds: Sequence[torch.Tensor], count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    everyone = torch.arange(count)
    return [(fold, everyone[~torch.isin(everyone, fold)]) for fold in folds]


def _restricted(loss: Loss, kept: torch.Tensor) -> Loss:
    """Return the loss over some of the patients, whose indices then count from 0."""
    return lambda outputs, indices: loss(outputs, kept[indices])
