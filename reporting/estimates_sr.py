"""Pure. Estimates about a whole study as a Comprehensive 3D SR document with title (126001,DCM).

They have no place in an image, so they may not stand in a report that OHIF 3.13 looks for
coordinates in; under this title it shows the document as text. One TID 1501 group per
estimate: the value as a code, its probabilities or its number, the inputs in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from highdicom import sr
from pydicom.dataset import Dataset

from inference.findings import Analysis, Estimate
from reporting import codes
from reporting.context import name_tracking
from reporting.draft.findings import describe_estimate
from reporting.draft.words import join, name_series
from reporting.envelope import Envelope
from reporting.items import coded
from reporting.safety import describe_doubt
from reporting.sr import Group, describe_algorithm, encode_report

_DECIMALS: Final = 4


def encode_estimates(
    analysis: Analysis,
    sources: Sequence[Dataset],
    heatmaps: Mapping[str, Sequence[Dataset]],
    envelope: Envelope,
) -> Dataset | None:
    """Return the report of what a model estimates of the whole study.

    Parameters
    ----------
    analysis : Analysis
        Estimates; without them there is no report.
    sources : sequence of Dataset
        Headers of every image that was read, of all its studies.
    heatmaps : mapping of str to sequence of Dataset
        The heat maps of each answer, by ``scale`` of the estimate; they are evidence.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset or None
        None if there is no estimate.

    References
    ----------
    PS3.16 TID 1500, TID 1501.
    """
    if not analysis.estimates:
        return None
    groups = [_estimate_group(estimate, analysis, envelope) for estimate in analysis.estimates]
    evidence = [
        *sources,
        *(heatmap for estimate in analysis.estimates for heatmap in heatmaps.get(estimate.scale.value, ())),
    ]
    return encode_report(codes.ONCOLOGY_MEASUREMENT_REPORT, groups, evidence, envelope)


def _estimate_group(estimate: Estimate, analysis: Analysis, envelope: Envelope) -> Group:
    scale = codes.code_scale(estimate.scale)
    value, _ = codes.code_category(estimate.scale, estimate.value)
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=name_tracking(envelope.context, analysis, estimate.scale.value),
            identifier=scale.name.meaning,
        ),
        algorithm_id=describe_algorithm(analysis.model),
        measurements=_numbers(estimate),
        qualitative_evaluations=[sr.QualitativeEvaluation(name=coded(scale.name), value=coded(value))],
    )
    for text in (*describe_estimate(estimate), *_circumstances(analysis)):
        comment = sr.TextContentItem(name=coded(codes.COMMENT), value=text, relationship_type="CONTAINS")
        group[0].ContentSequence.append(comment)
    return group


def _numbers(estimate: Estimate) -> list[sr.Measurement]:
    """Return the probability of each value in percent, and the number of a scale that has one."""
    numbers = [
        sr.Measurement(
            name=coded(codes.code_probability(estimate.scale, value)),
            value=round(100 * probability, _DECIMALS - 2),
            unit=coded(codes.PERCENT),
        )
        for value, probability in estimate.probabilities
    ]
    number = codes.code_scale(estimate.scale).number
    if number is not None and estimate.number is not None:
        numbers.append(
            sr.Measurement(
                name=coded(number), value=round(estimate.number, _DECIMALS), unit=coded(codes.RATIO)
            )
        )
    return numbers


def _circumstances(analysis: Analysis) -> list[str]:
    """Return which inputs an estimate rests on, and what must be known about it."""
    inputs = f"It rests on {join([name_series(item.role) for item in analysis.inputs])}."
    doubts = [describe_doubt(doubt) for doubt in analysis.doubts]
    return [inputs, *analysis.notes, *doubts]
