"""Pure. Findings and measurements as Observations.

One Observation per outlined or marked finding, which gathers one per measurement: category
measurement group, code the finding's category, value the finding (the mapping of the HL7
DICOM SR guide, in R4). A label is an Observation whose code is the finding and whose value
says whether it is there. Estimates, triage, and that no answer was given have one each.
Lengths are in mm, areas in mm2, volumes in mL, probabilities in percent, units in UCUM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from inference.findings import (
    Analysis,
    Estimate,
    Finding,
    Laterality,
    Measurement,
    Presence,
    Quantity,
    Triage,
)
from reporting import codes
from reporting.draft.findings import describe_estimate
from reporting.draft.kinds import is_outlined
from reporting.fhir.elements import Json, ai_asserted, codeable, hl7_concept, quantity
from reporting.fhir.names import ResourceName, name_resource
from reporting.fhir.policy import ReportStatus
from reporting.fhir.study import name_model
from reporting.safety import describe_doubt, describe_triage

_STATUSES: Final = {
    ReportStatus.PRELIMINARY: "preliminary",
    ReportStatus.FINAL: "final",
    ReportStatus.AMENDED: "amended",
    ReportStatus.ENTERED_IN_ERROR: "entered-in-error",
}
_SIDES: Final = {
    Laterality.LEFT: "left side",
    Laterality.RIGHT: "right side",
    Laterality.BILATERAL: "both sides",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationFrame:
    """What all Observations of a report share.

    Attributes
    ----------
    shared : Json
        subject, effective[x], issued, derivedFrom.
    """

    study_uid: str
    status: ReportStatus
    shared: Json


def observe(analysis: Analysis, frame: ObservationFrame) -> Iterator[tuple[ResourceName, Json]]:
    """Yield the name and resource of every Observation of an analysis, each group before its members."""
    if analysis.is_refused:
        yield _name_answer(analysis), _describe_refusal(analysis, frame)
        return
    for finding in analysis.findings:
        yield name_group(analysis, finding), _describe_group(analysis, finding, frame)
        for measurement in finding.measurements:
            name = _name_measurement(analysis, finding, measurement.quantity)
            yield name, _describe_measurement(analysis, finding, measurement, frame)
    for estimate in analysis.estimates:
        yield _name_estimate(analysis, estimate), _describe_estimate(analysis, estimate, frame)
    if analysis.triage is not None:
        yield _name_triage(analysis), _describe_triage(analysis, analysis.triage, frame)


def name_results(analysis: Analysis) -> tuple[ResourceName, ...]:
    """Return the names of the Observations that a report lists: all but the members of groups."""
    if analysis.is_refused:
        return (_name_answer(analysis),)
    triage = () if analysis.triage is None else (_name_triage(analysis),)
    return (
        *(name_group(analysis, finding) for finding in analysis.findings),
        *(_name_estimate(analysis, estimate) for estimate in analysis.estimates),
        *triage,
    )


def name_group(analysis: Analysis, finding: Finding) -> ResourceName:
    """Return the name of the Observation of a finding."""
    return name_resource("Observation", analysis.study_uid, analysis.model.name, finding.finding_id)


def retract(
    previous: Sequence[Analysis], current: frozenset[ResourceName], frame: ObservationFrame
) -> Iterator[tuple[ResourceName, Json]]:
    """Yield what an earlier run observed and this one does not, as entered in error.

    A report updated after late images must not leave findings behind that it no longer has.
    """
    withdrawn = ObservationFrame(
        study_uid=frame.study_uid, status=ReportStatus.ENTERED_IN_ERROR, shared=frame.shared
    )
    for analysis in previous:
        for name, resource in observe(analysis, withdrawn):
            if name not in current:
                resource.pop("hasMember", None)
                yield name, resource


def _name_measurement(analysis: Analysis, finding: Finding, quantity_: Quantity) -> ResourceName:
    return name_resource(
        "Observation", analysis.study_uid, analysis.model.name, finding.finding_id, quantity_.value
    )


def _name_estimate(analysis: Analysis, estimate: Estimate) -> ResourceName:
    return name_resource("Observation", analysis.study_uid, analysis.model.name, estimate.scale.value)


def _name_triage(analysis: Analysis) -> ResourceName:
    return name_resource("Observation", analysis.study_uid, analysis.model.name, "triage")


def _name_answer(analysis: Analysis) -> ResourceName:
    return name_resource("Observation", analysis.study_uid, analysis.model.name, "answer")


def _describe_refusal(analysis: Analysis, frame: ObservationFrame) -> Json:
    resource = _base(analysis, frame)
    resource["code"] = codeable(codes.ALGORITHM_ANSWER)
    resource["dataAbsentReason"] = hl7_concept("data-absent-reason", "not-performed", "Not Performed")
    return resource


def _describe_estimate(analysis: Analysis, estimate: Estimate, frame: ObservationFrame) -> Json:
    scale = codes.code_scale(estimate.scale)
    concept, words = codes.code_category(estimate.scale, estimate.value)
    resource = _base(analysis, frame)
    resource["code"] = codeable(scale.name)
    resource["valueCodeableConcept"] = codeable(concept, words)
    resource["component"] = [
        {
            "code": codeable(codes.code_probability(estimate.scale, value)),
            "valueQuantity": quantity(100 * probability, codes.PERCENT),
        }
        for value, probability in estimate.probabilities
    ]
    if scale.number is not None and estimate.number is not None:
        hazard = quantity(estimate.number, codes.RATIO)
        resource["component"].append({"code": codeable(scale.number), "valueQuantity": hazard})
    if not resource["component"]:
        del resource["component"]
    resource["note"] = [{"text": " ".join(describe_estimate(estimate))}, *resource.get("note", [])]
    return resource


def _describe_triage(analysis: Analysis, triage: Triage, frame: ObservationFrame) -> Json:
    resource = _base(analysis, frame)
    resource["code"] = codeable(codes.TRIAGE)
    resource["valueCodeableConcept"] = codeable(codes.code_risk(triage.risk))
    numbers = [(codes.TRIAGE_SCORE, triage.score), (codes.PREDICTIVE_VALUE, triage.predictive_value)]
    resource["component"] = [
        {"code": codeable(name), "valueQuantity": quantity(100 * value, codes.PERCENT)}
        for name, value in numbers
        if value is not None
    ]
    resource["note"] = [{"text": describe_triage(triage)}, *resource.get("note", [])]
    return resource


def _describe_group(analysis: Analysis, finding: Finding, frame: ObservationFrame) -> Json:
    concept = codes.code_finding(finding.concept)
    resource = _base(analysis, frame, finding)
    is_label = finding.box is None and not is_outlined(finding)
    if not is_label:
        resource["category"].append(codeable(codes.MEASUREMENT_GROUP))
    if finding.presence is Presence.PRESENT and not is_label:
        number = finding.segment_number or finding.finding_id.removeprefix("F")
        resource["code"] = codeable(concept.category)
        resource["valueCodeableConcept"] = codeable(concept.type, f"{concept.label} {number}")
    else:
        resource["code"] = codeable(concept.type, concept.label)
        resource["valueCodeableConcept"] = codeable(codes.code_presence(finding.presence))
    components = list(_components(finding, is_label=is_label))
    if components:
        resource["component"] = components
    members = [_name_measurement(analysis, finding, m.quantity).reference for m in finding.measurements]
    if members:
        resource["hasMember"] = members
    return resource


def _describe_measurement(
    analysis: Analysis, finding: Finding, measurement: Measurement, frame: ObservationFrame
) -> Json:
    resource = _base(analysis, frame, finding)
    resource["code"] = codeable(codes.code_quantity(measurement.quantity))
    if measurement.quantity is Quantity.VOLUME:
        resource["valueQuantity"] = quantity(codes.value_in_ml(measurement), codes.MILLILITRE)
    elif measurement.quantity is Quantity.AREA:
        resource["valueQuantity"] = quantity(codes.value_in_mm2(measurement), codes.SQUARE_MILLIMETRE)
    else:
        resource["valueQuantity"] = quantity(codes.value_in_mm(measurement), codes.MILLIMETRE)
    return resource


def _base(analysis: Analysis, frame: ObservationFrame, finding: Finding | None = None) -> Json:
    resource = {
        "resourceType": "Observation",
        "meta": {"security": [ai_asserted()]},
        "status": _STATUSES[frame.status],
        "category": [hl7_concept("observation-category", "imaging", "Imaging")],
        "device": name_model(analysis.model).reference,
        **frame.shared,
    }
    if finding is not None:
        site = codes.code_site(finding.site).concept
        side = None if finding.laterality is None else f"{site.meaning}, {_SIDES[finding.laterality]}"
        resource["bodySite"] = codeable(site, side)
    if analysis.doubts:
        resource["note"] = [{"text": describe_doubt(doubt)} for doubt in analysis.doubts]
    return resource


def _components(finding: Finding, *, is_label: bool) -> Iterator[Json]:
    """Yield the side, for which R4's bodySite has no element of its own, the confidence and its spread."""
    if finding.laterality is not None:
        side = codeable(codes.code_laterality(finding.laterality))
        yield {"code": codeable(codes.LATERALITY), "valueCodeableConcept": side}
    if finding.confidence is not None:
        name = codes.PROBABILITY_OF_PRESENCE if is_label else codes.CERTAINTY
        yield {"code": codeable(name), "valueQuantity": quantity(100 * finding.confidence, codes.PERCENT)}
    if finding.uncertainty is not None:
        yield {
            "code": codeable(codes.STANDARD_DEVIATION, "Standard deviation of repeated readings"),
            "valueQuantity": quantity(100 * finding.uncertainty, codes.PERCENT),
        }
