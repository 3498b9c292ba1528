"""Pure. The gate's check of SR documents: flags, observers, notice, and the shapes that viewers take.

The viewer rules are measured on OHIF 3.13: a measurement report with one group without
coordinates, or without any group, leaves a black viewport, groups that share a
Tracking Unique Identifier are merged, and coordinates are found only if their image is
SELECTED FROM.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.dataset import Dataset

from reporting import codes
from reporting.codes import Concept
from reporting.context import ResultKind, ResultObject
from reporting.gate.evidence import Evidence, walk
from reporting.gate.violation import Violation, object_violation
from reporting.safety import REQUIRED_PHRASE

_REPORTS: Final = frozenset(
    {
        ResultKind.FINDINGS,
        ResultKind.MEASUREMENTS,
        ResultKind.VOLUMES,
        ResultKind.ESTIMATES,
        ResultKind.NARRATIVE,
    }
)
_FLAGS: Final = {
    "VerificationFlag": "UNVERIFIED",
    "PreliminaryFlag": "PRELIMINARY",
    "CompletionFlag": "COMPLETE",
}
#: Five points of a closed box, two values each.
_BOX_VALUES: Final = 10
_COORDINATES: Final = frozenset({"SCOORD", "SCOORD3D"})


def check_report(result: ResultObject, evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation for each rule that an SR document breaks."""
    if result.kind not in _REPORTS:
        return
    root = result.dataset
    for keyword, value in _FLAGS.items():
        if root.get(keyword) != value:
            yield object_violation(result, "report-flag", f"{keyword} must be {value}.")
    for item in _items(root):
        if not item.get("RelationshipType"):
            yield object_violation(result, "relationship", "A content item has no RelationshipType.")
        if item.get("ValueType") == "NUM" and not _has_number(item):
            yield object_violation(result, "number", "A NUM content item has no value with a unit.")
    if not any(_is_device_observer(item) for item in _items(root)):
        yield object_violation(result, "observer", "No Device is named as the observer.")
    if result.kind is ResultKind.NARRATIVE:
        yield from _check_notice(result)
    else:
        yield from _check_groups(result, evidence)


def _check_notice(result: ResultObject) -> Iterator[Violation]:
    sections = [item for item in result.dataset.get("ContentSequence") or [] if _is(item, "CONTAINER")]
    first = " ".join(str(item.get("TextValue", "")) for item in _items(sections[0])) if sections else ""
    if REQUIRED_PHRASE not in first:
        yield object_violation(
            result, "banner", "The first section lacks the notice that nobody reviewed it."
        )


def _check_groups(result: ResultObject, evidence: Evidence) -> Iterator[Violation]:
    groups = [item for item in _items(result.dataset) if _named(item, codes.MEASUREMENT_GROUP)]
    evaluations = [item for item in _items(result.dataset) if _named(item, codes.QUALITATIVE_EVALUATIONS)]
    is_opened_by_groups = _named(result.dataset, codes.IMAGING_MEASUREMENT_REPORT)
    if not groups and (is_opened_by_groups or not evaluations):
        yield object_violation(result, "groups", "There is no measurement group.")
    uids = [_tracking_uid(group) for group in groups]
    if not all(uids):
        yield object_violation(result, "tracking", "A group has no Tracking Unique Identifier.")
    if len(set(uids)) != len(uids):
        yield object_violation(result, "tracking", "Two groups share a Tracking Unique Identifier.")
    if is_opened_by_groups:
        for group in groups:
            yield from _check_coordinates(result, group, evidence)
            if result.kind is ResultKind.FINDINGS:
                yield from _check_box(result, group)


def _check_coordinates(result: ResultObject, group: Dataset, evidence: Evidence) -> Iterator[Violation]:
    coordinates = [item for item in _items(group) if item.get("ValueType") in _COORDINATES]
    if not coordinates:
        yield object_violation(
            result, "group-without-coordinates", "Viewers cannot open a group without coordinates."
        )
    for item in coordinates:
        images = [child for child in item.get("ContentSequence") or [] if _is(child, "IMAGE")]
        if item.ValueType == "SCOORD" and not images:
            yield object_violation(result, "coordinates", "Coordinates name no image.")
        if any(image.get("RelationshipType") != "SELECTED FROM" for image in images):
            yield object_violation(result, "coordinates", "Coordinates must be SELECTED FROM their image.")
        if any(not _is_inside(item, image, evidence) for image in images):
            yield object_violation(result, "coordinates", "Coordinates lie outside their image.")


def _check_box(result: ResultObject, group: Dataset) -> Iterator[Violation]:
    """Yield a violation unless a group is one closed box without a number, as OHIF hydrates it."""
    regions = [item for item in _items(group) if item.get("ValueType") == "SCOORD"]
    if len(regions) != 1 or not all(_is_box(region) for region in regions):
        yield object_violation(result, "box", "A box must be one closed polyline around a rectangle.")
    if any(item.get("ValueType") == "NUM" for item in _items(group)):
        yield object_violation(result, "box", "Viewers do not hydrate a box that has a number beside it.")


def _is_box(region: Dataset) -> bool:
    points = [float(value) for value in region.get("GraphicData") or []]
    if region.get("GraphicType") != "POLYLINE" or len(points) != _BOX_VALUES or points[:2] != points[-2:]:
        return False
    (left, top), (right, bottom) = points[:2], points[4:6]
    ring = [left, top, right, top, right, bottom, left, bottom, left, top]
    return left < right and top < bottom and points == ring


def _is_inside(coordinates: Dataset, image: Dataset, evidence: Evidence) -> bool:
    references = image.get("ReferencedSOPSequence") or []
    target = evidence.headers.get(str(references[0].get("ReferencedSOPInstanceUID"))) if references else None
    if target is None:
        return True  # a dangling reference is another rule's business
    values = [float(value) for value in coordinates.get("GraphicData") or []]
    columns, rows = values[0::2], values[1::2]
    return all(0 <= c <= int(target.Columns) for c in columns) and all(
        0 <= r <= int(target.Rows) for r in rows
    )


def _items(root: Dataset) -> Iterator[Dataset]:
    """Yield the content items below ``root``."""
    for item in root.get("ContentSequence") or []:
        yield from (nested for nested in walk(item) if "ValueType" in nested)


def _is(item: Dataset, value_type: str) -> bool:
    return bool(item.get("ValueType") == value_type)


def _named(item: Dataset, concept: Concept) -> bool:
    names = item.get("ConceptNameCodeSequence") or []
    return any(
        (name.get("CodeValue"), name.get("CodingSchemeDesignator")) == (concept.value, concept.scheme)
        for name in names
    )


def _tracking_uid(group: Dataset) -> str:
    children = group.get("ContentSequence") or []
    return next((str(c.get("UID")) for c in children if _named(c, codes.TRACKING_UNIQUE_IDENTIFIER)), "")


def _is_device_observer(item: Dataset) -> bool:
    return _named(item, codes.DEVICE_OBSERVER_UID) and bool(item.get("UID"))


def _has_number(item: Dataset) -> bool:
    values = item.get("MeasuredValueSequence") or []
    return (
        bool(values) and "NumericValue" in values[0] and bool(values[0].get("MeasurementUnitsCodeSequence"))
    )
