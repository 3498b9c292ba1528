"""Pure. Findings and measurements as Observations.

One Observation per finding, which gathers one per measurement: category measurement
group, code the finding's category, value the finding (the mapping of the HL7 DICOM SR
guide, in R4). Lengths are in mm, volumes in mL, units in UCUM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from inference.findings import Analysis, Finding, Laterality, Measurement, Presence, Quantity
from reporting import codes
from reporting.fhir.elements import Json, ai_asserted, codeable, hl7_concept, quantity
from reporting.fhir.names import ResourceName, name_resource
from reporting.fhir.policy import ReportStatus
from reporting.fhir.study import name_model

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
    for finding in analysis.findings:
        yield name_group(analysis, finding), _describe_group(analysis, finding, frame)
        for measurement in finding.measurements:
            name = _name_measurement(analysis, finding, measurement.quantity)
            yield name, _describe_measurement(analysis, finding, measurement, frame)


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


def _describe_group(analysis: Analysis, finding: Finding, frame: ObservationFrame) -> Json:
    concept = codes.code_finding(finding.concept)
    resource = _base(analysis, finding, frame)
    resource["category"].append(codeable(codes.MEASUREMENT_GROUP))
    if finding.presence is Presence.PRESENT:
        number = finding.segment_number or finding.finding_id.removeprefix("F")
        resource["code"] = codeable(concept.category)
        resource["valueCodeableConcept"] = codeable(concept.type, f"{concept.label} {number}")
    else:
        resource["code"] = codeable(concept.type, concept.label)
        resource["valueCodeableConcept"] = codeable(codes.code_presence(finding.presence))
    components = list(_components(finding))
    if components:
        resource["component"] = components
    members = [_name_measurement(analysis, finding, m.quantity).reference for m in finding.measurements]
    if members:
        resource["hasMember"] = members
    return resource


def _describe_measurement(
    analysis: Analysis, finding: Finding, measurement: Measurement, frame: ObservationFrame
) -> Json:
    resource = _base(analysis, finding, frame)
    resource["code"] = codeable(codes.code_quantity(measurement.quantity))
    if measurement.quantity is Quantity.VOLUME:
        resource["valueQuantity"] = quantity(codes.value_in_ml(measurement), codes.MILLILITRE)
    else:
        resource["valueQuantity"] = quantity(codes.value_in_mm(measurement), codes.MILLIMETRE)
    return resource


def _base(analysis: Analysis, finding: Finding, frame: ObservationFrame) -> Json:
    site = codes.code_site(finding.site).concept
    side = None if finding.laterality is None else f"{site.meaning}, {_SIDES[finding.laterality]}"
    return {
        "resourceType": "Observation",
        "meta": {"security": [ai_asserted()]},
        "status": _STATUSES[frame.status],
        "category": [hl7_concept("observation-category", "imaging", "Imaging")],
        "bodySite": codeable(site, side),
        "device": name_model(analysis.model).reference,
        **frame.shared,
    }


def _components(finding: Finding) -> Iterator[Json]:
    """Yield the side, for which R4's bodySite has no element of its own, and the confidence."""
    if finding.laterality is not None:
        side = codeable(codes.code_laterality(finding.laterality))
        yield {"code": codeable(codes.LATERALITY), "valueCodeableConcept": side}
    if finding.confidence is not None:
        certainty = quantity(100 * finding.confidence, codes.PERCENT)
        yield {"code": codeable(codes.CERTAINTY), "valueQuantity": certainty}
