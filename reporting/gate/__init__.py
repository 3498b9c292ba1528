"""Pure. The gate: nothing leaves Preread that is not valid.

Every result passes here between encoding and delivery. A violation is a fault of
this software or of a model package, never something to be repaired silently: the
run is quarantined with its reasons. The gate decides; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from inference.findings import Heatmap, Mask
from reporting.context import ResultObject, SourceSeries
from reporting.gate.attributes import check_attributes, check_origin, check_uids
from reporting.gate.belonging import check_identity, check_references
from reporting.gate.bundle import check_bundle
from reporting.gate.documents import check_document
from reporting.gate.evidence import Evidence
from reporting.gate.heatmaps import check_heatmap
from reporting.gate.pixels import check_picture, check_segmentation
from reporting.gate.reports import check_report
from reporting.gate.violation import GateError, Violation, require_valid

_CHECKS: Final[tuple[Callable[[ResultObject, Evidence], Iterator[Violation]], ...]] = (
    check_attributes,
    check_uids,
    check_origin,
    check_identity,
    check_references,
    check_segmentation,
    check_heatmap,
    check_picture,
    check_report,
    check_document,
)

_NO_HEATMAPS: Final[Mapping[str, Sequence[Heatmap]]] = MappingProxyType({})


def check_objects(
    objects: Sequence[ResultObject],
    sources: SourceSeries,
    masks: Mapping[str, Mask],
    heatmaps: Mapping[str, Sequence[Heatmap]] = _NO_HEATMAPS,
) -> tuple[Violation, ...]:
    """Return every rule that the DICOM results of a run break.

    Parameters
    ----------
    objects : sequence of ResultObject
        All results of the run, best as read back from the files that will be sent.
    sources : mapping of str to sequence of Dataset
        Headers of every series that was read, by Series Instance UID.
    masks : mapping of str to Mask
        The mask of each model that made one, by model name.
    heatmaps : mapping of str to sequence of Heatmap
        The heat maps of each model that made some, by model name.

    Returns
    -------
    tuple of Violation
        Empty if all may leave.
    """
    evidence = Evidence(sources=sources, masks=masks, objects=objects, heatmaps=heatmaps)
    return tuple(
        violation for result in objects for check in _CHECKS for violation in check(result, evidence)
    )


__all__ = ["GateError", "Violation", "check_bundle", "check_objects", "require_valid"]
