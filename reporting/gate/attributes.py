"""Pure. The gate's check of attributes: what the mandatory modules of each IOD demand.

The tables of types are those of PS3.3 that highdicom carries (made from the standard's
DocBook). Conditional attributes (1C, 2C) are not in them and are the business of the
other checks and of the external validators in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.dataset import Dataset

from dicom_node.headers import OWN_MANUFACTURER
from reporting.context import ResultObject
from reporting.gate.evidence import Evidence, walk
from reporting.gate.violation import Violation, object_violation
from reporting.safety import SERIES_PREFIX

#: PS3.5 section 9.1.
_UID: Final = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_MAX_UID_LENGTH: Final = 64
_REQUIRED: Final = {"1": True, "2": False}
#: Which attributes of a content item are needed depends on its value type: reports.py checks them.
_UNCHECKED_MODULES: Final = frozenset({"sr-document-content"})
#: Each functional group is in one of these two, not in both: pixels.py reads them.
_FUNCTIONAL_GROUPS: Final = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def check_attributes(result: ResultObject, _: Evidence) -> Iterator[Violation]:
    """Yield a violation for each type 1 or 2 attribute of a mandatory module that is missing or empty."""
    dataset = result.dataset
    iod = get_sop_class_iod_map().get(str(dataset.get("SOPClassUID")))
    if iod is None:
        yield object_violation(result, "sop-class", "The SOP Class is none that the gate knows.")
        return
    for path, keyword, needs_value in _mandatory_attributes(iod):
        for holder in _follow(dataset, path):
            if keyword not in holder:
                yield object_violation(
                    result, "missing-attribute", f"{'.'.join((*path, keyword))} is missing."
                )
            elif needs_value and holder[keyword].is_empty:
                yield object_violation(result, "empty-attribute", f"{'.'.join((*path, keyword))} is empty.")


def check_uids(result: ResultObject, evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation for each malformed UID, and for names that clash with another object's."""
    dataset = result.dataset
    for item in walk(dataset):
        for element in item:
            values = element.value if element.VM > 1 else [element.value]
            if element.VR == "UI" and any(value and not _is_uid(str(value)) for value in values):
                yield object_violation(result, "malformed-uid", f"{element.keyword} is no UID.")
    others = [other for other in evidence.objects if other is not result]
    if result.object_uid in evidence.headers or any(o.object_uid == result.object_uid for o in others):
        yield object_violation(result, "duplicate-uid", "Another object has this SOP Instance UID.")
    series_uid = dataset.get("SeriesInstanceUID")
    if series_uid in evidence.sources or any(
        o.dataset.get("SeriesInstanceUID") == series_uid for o in others
    ):
        yield object_violation(
            result, "shared-series", "Viewers show one result per series: it needs its own."
        )
    meta = getattr(dataset, "file_meta", None)
    if meta is None or (meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID) != (
        dataset.get("SOPInstanceUID"),
        dataset.get("SOPClassUID"),
    ):
        yield object_violation(result, "file-meta", "File meta information does not name this object.")


def check_origin(result: ResultObject, _: Evidence) -> Iterator[Violation]:
    """Yield a violation if the object does not say that an algorithm of ours made it."""
    dataset = result.dataset
    if dataset.get("Manufacturer") != OWN_MANUFACTURER:
        yield object_violation(result, "origin", "Manufacturer does not name Preread.")
    if not str(dataset.get("SeriesDescription", "")).startswith(f"{SERIES_PREFIX} "):
        yield object_violation(result, "origin", "SeriesDescription does not begin with AI.")
    equipment: Sequence[Dataset] = dataset.get("ContributingEquipmentSequence") or []
    if not any(item.get("DeviceUID") and item.get("SoftwareVersions") for item in equipment):
        yield object_violation(
            result, "origin", "ContributingEquipmentSequence names no algorithm with Device UID and version."
        )


@cache
def _mandatory_attributes(iod: str) -> tuple[tuple[tuple[str, ...], str, bool], ...]:
    modules = [m["key"] for m in get_iod_module_map()[iod] if m["usage"] == "M"]
    table = get_module_attribute_map()
    return tuple(
        (tuple(row["path"]), str(row["keyword"]), _REQUIRED[row["type"]])
        for module in modules
        if module not in _UNCHECKED_MODULES
        for row in table.get(module, [])
        if row["type"] in _REQUIRED and (*row["path"],)[-1:] not in {(name,) for name in _FUNCTIONAL_GROUPS}
    )


def _follow(dataset: Dataset, path: Sequence[str]) -> Iterator[Dataset]:
    """Yield the items at the end of a path of sequences, as many as there are."""
    if not path:
        yield dataset
        return
    for item in dataset.get(path[0]) or []:
        yield from _follow(item, path[1:])


def _is_uid(value: str) -> bool:
    return len(value) <= _MAX_UID_LENGTH and _UID.fullmatch(value) is not None
