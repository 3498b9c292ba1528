"""Pure. Champion and challenger: what an active model and its shadow said of the same studies.

`compare_outcomes` puts two outcomes of one study side by side, label by label; `summarise` counts over
studies. Nothing here says who is right: that takes the radiologist's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from dicom_node.errors import PermanentError
from dicom_node.ledger import ComparedLabel
from inference.findings import Box, Finding, Mask, Outcome, Presence, RiskClass

TRIAGE_LABEL: Final = "triage"
REFUSED: Final = "refused"
FAILED: Final = "failed"
_SILENT: Final = frozenset({REFUSED, FAILED})
#: Answers that raise no concern; every other one counts as found.
_NEGATIVE: Final = frozenset(
    {
        str(Presence.ABSENT),
        str(Presence.UNDETERMINED),
        str(RiskClass.LOW),
        str(RiskClass.UNCERTAIN),
        "healthy",
    }
)


class NothingComparedError(PermanentError):
    """No stored study was read by both models; the message says which pairs there are.

    Parameters
    ----------
    champion, challenger : str
        As the person named them.
    known : sequence of tuple
        Champion, challenger and number of studies of every pair that was compared.
    """

    def __init__(self, champion: str, challenger: str, known: Sequence[tuple[str, str, int]]) -> None:
        pairs = "; ".join(f"{first} with {second} ({count} studies)" for first, second, count in known)
        super().__init__(
            f"No stored study compares {champion} with {challenger}: name {challenger} under `shadow` in a "
            f"rule whose models include {champion}. Compared so far: {pairs or 'nothing'}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One of two models and what it said of a study.

    Attributes
    ----------
    reference : str
        ``name@version``.
    concepts : tuple of str
        Concepts of its labels, by its card.
    outcome : Outcome or None
        None if it failed.
    """

    reference: str
    concepts: tuple[str, ...]
    outcome: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What one model said of one label."""

    value: str
    probability: float | None = None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """Two models on one label, over studies.

    Attributes
    ----------
    studies : int
        Studies that both answered.
    silent : tuple of int
        Studies that the champion, the challenger, refused or failed.
    agreement : float or None
        Fraction of ``studies`` with the same answer.
    kappa : float or None
        Cohen's kappa; None where both always gave the same single answer, and without a study.
    both, champion_alone, challenger_alone, neither : int
        Studies in which both, one or none found it: called it present, or gave a category of concern.
    findings : tuple of int
        Findings of the champion, of the challenger, in all.
    found_more : tuple of int
        Studies in which the champion, the challenger, had more findings than the other.
    probability_difference : float or None
        Mean of challenger minus champion.
    dice : float or None
        Mean Dice coefficient of what was outlined, over studies in which one of them outlined something.
    outlined : int
        How many those are.
    """

    label: str
    studies: int
    silent: tuple[int, int]
    agreement: float | None
    kappa: float | None
    both: int
    champion_alone: int
    challenger_alone: int
    neither: int
    findings: tuple[int, int]
    found_more: tuple[int, int]
    probability_difference: float | None
    dice: float | None
    outlined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """Champion and challenger over the stored studies, one report a label."""

    champion: str
    challenger: str
    studies: int
    labels: tuple[LabelReport, ...]


# -- one study ----------------------------------------------------------------------------------


def compare_outcomes(champion: Contestant, challenger: Contestant) -> tuple[ComparedLabel, ...]:
    """Put what two models said of one study side by side.

    Parameters
    ----------
    champion, challenger : Contestant
        The active model and its shadow.

    Returns
    -------
    tuple of ComparedLabel
        One for each concept that both cards name, each scale that both estimated, and the triage if both
        have one; empty for models that say nothing of the same thing.
    """
    shared = [concept for concept in dict.fromkeys(champion.concepts) if concept in challenger.concepts]
    rows = [_compare_label(champion, challenger, concept) for concept in shared]
    statements = [_statements(side.outcome) for side in (champion, challenger)]
    rows += [
        _row(champion, challenger, name, said, statements[1][name], overlap=None)
        for name, said in statements[0].items()
        if name in statements[1]
    ]
    return tuple(rows)


def _compare_label(champion: Contestant, challenger: Contestant, concept: str) -> ComparedLabel:
    overlap = None
    if champion.outcome is not None and challenger.outcome is not None:
        overlap = _overlap(champion.outcome, challenger.outcome, concept)
    answers = (_answer(side.outcome, concept) for side in (champion, challenger))
    return _row(champion, challenger, concept, *answers, overlap=overlap)


def _row(
    champion: Contestant,
    challenger: Contestant,
    label: str,
    first: _Answer,
    second: _Answer,
    *,
    overlap: float | None,
) -> ComparedLabel:
    return ComparedLabel(
        label=label,
        champion=champion.reference,
        challenger=challenger.reference,
        champion_answer=first.value,
        challenger_answer=second.value,
        champion_probability=first.probability,
        challenger_probability=second.probability,
        champion_count=first.count,
        challenger_count=second.count,
        overlap=overlap,
    )


def _answer(outcome: Outcome | None, concept: str) -> _Answer:
    if outcome is None:
        return _Answer(value=FAILED)
    if outcome.analysis.is_refused:
        return _Answer(value=REFUSED)
    findings = _findings(outcome, concept)
    present = [finding for finding in findings if finding.presence is Presence.PRESENT]
    doubtful = any(finding.presence is Presence.UNDETERMINED for finding in findings)
    value = Presence.PRESENT if present else Presence.UNDETERMINED if doubtful else Presence.ABSENT
    probabilities = [f.confidence for f in present or findings if f.confidence is not None]
    return _Answer(value=str(value), probability=max(probabilities, default=None), count=len(present))


def _statements(outcome: Outcome | None) -> dict[str, _Answer]:
    """Return what was said of the whole study: estimates, and the triage."""
    if outcome is None:
        return {}
    analysis = outcome.analysis
    said = {
        str(estimate.scale): _Answer(
            value=estimate.value, probability=dict(estimate.probabilities).get(estimate.value)
        )
        for estimate in analysis.estimates
    }
    if analysis.triage is not None:
        said[TRIAGE_LABEL] = _Answer(value=str(analysis.triage.risk), probability=analysis.triage.score)
    return said


def _findings(outcome: Outcome, concept: str) -> list[Finding]:
    return [finding for finding in outcome.analysis.findings if finding.concept == concept]


def _overlap(first: Outcome, second: Outcome, concept: str) -> float | None:
    if first.mask is not None and second.mask is not None:
        return _mask_dice(first, first.mask, second, second.mask, concept)
    return _box_dice(*(_boxes(outcome, concept) for outcome in (first, second)))


def _mask_dice(
    first: Outcome, first_mask: Mask, second: Outcome, second_mask: Mask, concept: str
) -> float | None:
    """Return the Dice coefficient of a label in two masks; None if empty in both, or on other frames."""
    if first_mask.frames != second_mask.frames:
        return None
    marked = [
        np.isin(mask.labels, [f.segment_number for f in _findings(outcome, concept) if f.segment_number])
        for outcome, mask in ((first, first_mask), (second, second_mask))
    ]
    return _dice(float(marked[0].sum()), float(marked[1].sum()), float((marked[0] & marked[1]).sum()))


def _boxes(outcome: Outcome, concept: str) -> list[Box]:
    findings = _findings(outcome, concept)
    return [f.box for f in findings if f.box is not None and f.presence is Presence.PRESENT]


def _box_dice(first: Sequence[Box], second: Sequence[Box]) -> float | None:
    """Return the Dice coefficient of the areas that two sets of boxes cover, frame by frame."""
    areas = np.zeros(3)
    for frame in dict.fromkeys(box.frame for box in chain(first, second)):
        areas += _covered(*([box for box in boxes if box.frame == frame] for boxes in (first, second)))
    covered_first, covered_second, covered_both = areas.tolist()
    return _dice(covered_first, covered_second, covered_both)


def _covered(first: Sequence[Box], second: Sequence[Box]) -> npt.NDArray[np.float64]:
    """Return the areas covered by the first boxes, the second, and both: on the grid of all edges."""
    columns = np.unique([edge for box in chain(first, second) for edge in (box.left, box.right)])
    rows = np.unique([edge for box in chain(first, second) for edge in (box.top, box.bottom)])
    cells = np.outer(np.diff(rows), np.diff(columns))
    is_first, is_second = (_mark(boxes, rows, columns) for boxes in (first, second))
    return np.array([cells[marked].sum() for marked in (is_first, is_second, is_first & is_second)])


def _mark(
    boxes: Sequence[Box], rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Return which cells between these edges lie in one of the boxes."""
    marked = np.zeros((len(rows) - 1, len(columns) - 1), dtype=bool)
    for box in boxes:
        is_row = (rows[:-1] >= box.top) & (rows[1:] <= box.bottom)
        is_column = (columns[:-1] >= box.left) & (columns[1:] <= box.right)
        marked |= np.outer(is_row, is_column)
    return marked


def _dice(first: float, second: float, both: float) -> float | None:
    return 2 * both / (first + second) if first + second > 0 else None


# -- many studies -------------------------------------------------------------------------------


def summarise(
    champion: str, challenger: str, cases: Mapping[str, Sequence[ComparedLabel]]
) -> ComparisonReport:
    """Count over studies what two models said.

    Parameters
    ----------
    champion, challenger : str
        As the person named them.
    cases : mapping of str to sequence of ComparedLabel
        Case to what was compared in it.

    References
    ----------
    Cohen J. A coefficient of agreement for nominal scales. doi:10.1177/001316446002000104
    """
    by_label: dict[str, list[ComparedLabel]] = {}
    for row in chain.from_iterable(cases.values()):
        by_label.setdefault(row.label, []).append(row)
    return ComparisonReport(
        champion=champion,
        challenger=challenger,
        studies=len(cases),
        labels=tuple(_summarise_label(label, by_label[label]) for label in sorted(by_label)),
    )


def _summarise_label(label: str, rows: Sequence[ComparedLabel]) -> LabelReport:
    answered = [r for r in rows if not _SILENT & {r.champion_answer, r.challenger_answer}]
    pairs = [(row.champion_answer, row.challenger_answer) for row in answered]
    found = [(first not in _NEGATIVE, second not in _NEGATIVE) for first, second in pairs]
    overlaps = [row.overlap for row in answered if row.overlap is not None]
    differences = [
        row.challenger_probability - row.champion_probability
        for row in answered
        if row.challenger_probability is not None and row.champion_probability is not None
    ]
    return LabelReport(
        label=label,
        studies=len(answered),
        silent=(
            sum(row.champion_answer in _SILENT for row in rows),
            sum(row.challenger_answer in _SILENT for row in rows),
        ),
        agreement=_mean(first == second for first, second in pairs),
        kappa=cohen_kappa(pairs),
        both=found.count((True, True)),
        champion_alone=found.count((True, False)),
        challenger_alone=found.count((False, True)),
        neither=found.count((False, False)),
        findings=(sum(r.champion_count for r in answered), sum(r.challenger_count for r in answered)),
        found_more=(
            sum(row.champion_count > row.challenger_count for row in answered),
            sum(row.challenger_count > row.champion_count for row in answered),
        ),
        probability_difference=_mean(differences),
        dice=_mean(overlaps),
        outlined=len(overlaps),
    )


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa of two raters; None where chance alone gives full agreement."""
    if not pairs:
        return None
    observed = sum(first == second for first, second in pairs) / len(pairs)
    shares = [
        {value: sum(pair[rater] == value for pair in pairs) / len(pairs) for value in set(chain(*pairs))}
        for rater in (0, 1)
    ]
    expected = sum(share * shares[1][value] for value, share in shares[0].items())
    return None if np.isclose(expected, 1) else (observed - expected) / (1 - expected)


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return float(np.mean(numbers)) if numbers else None
