"""Pure. Boxes and labels as Comprehensive 3D SR documents that viewers open.

One TID 1410 group per box, title (126000,DCM): a closed polyline of five points, its purpose,
the finding, the site, and the label with its confidence as a comment. No numbers: OHIF 3.13
does not hydrate a box that has one beside it. Labels without a place stand in the Qualitative
Evaluations at the root, because a group without coordinates leaves that viewer black; and where
there is no box at all the title is another, because so does a document without any group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset

from inference.findings import Analysis, Box, Finding, FrameReference, Presence
from reporting import codes
from reporting.context import name_tracking
from reporting.draft.kinds import is_outlined, number_titles
from reporting.envelope import Envelope
from reporting.errors import UnencodableResultError
from reporting.items import code_content_item, coded, text_item
from reporting.safety import describe_doubt, describe_triage
from reporting.sr import Group, describe_algorithm, describe_site, encode_report, explain

_LONG_STRING: Final = 64


def encode_findings(
    analysis: Analysis,
    sources: Sequence[Dataset],
    heatmaps: Mapping[str, Sequence[Dataset]],
    envelope: Envelope,
) -> Dataset | None:
    """Return the report of boxes and labels.

    Parameters
    ----------
    analysis : Analysis
        Present findings with a box have a group; findings without a place and the triage stand
        in the Qualitative Evaluations.
    sources : sequence of Dataset
        Headers of the images that were read.
    heatmaps : mapping of str to sequence of Dataset
        The heat maps of each answer, by finding id.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset or None
        None if there is neither box nor label nor triage.

    Raises
    ------
    UnencodableResultError
        If a box lies on an image that is not among ``sources``, or outside it.

    References
    ----------
    PS3.16 TID 1500, TID 1410, CID 219; the shape is that of reference 2.4 (OHIF 3.13).
    """
    boxed, labels = boxed_findings(analysis), label_findings(analysis)
    evaluations = [item for label in labels for item in _evaluate(label)] + _evaluate_study(analysis)
    if not boxed and not evaluations:
        return None
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    titles = number_titles(boxed)
    groups = [_box_group(f, titles[f.finding_id], analysis, by_uid, envelope) for f in boxed]
    for finding, group in zip(boxed, groups, strict=True):
        group[0].ContentSequence.extend(map(explain, heatmaps.get(finding.finding_id, ())))
    answers = [finding.finding_id for finding in (*boxed, *labels)]
    evidence = [
        *_evidence(boxed, labels, sources),
        *(heatmap for answer in answers for heatmap in heatmaps.get(answer, ())),
    ]
    title = codes.IMAGING_MEASUREMENT_REPORT if groups else codes.EVALUATION_REPORT
    return encode_report(title, groups, evidence, envelope, evaluations)


def boxed_findings(analysis: Analysis) -> list[Finding]:
    """Return the present findings that have a box."""
    return [f for f in analysis.findings if f.box is not None and f.presence is Presence.PRESENT]


def label_findings(analysis: Analysis) -> list[Finding]:
    """Return the findings that are a label alone: present, absent or undetermined, without a place."""
    return [f for f in analysis.findings if f.box is None and not is_outlined(f)]


def _box_group(
    finding: Finding,
    title: str,
    analysis: Analysis,
    sources: Mapping[str, Dataset],
    envelope: Envelope,
) -> Group:
    if finding.box is None:
        raise UnencodableResultError("A finding without a box has no region.")
    concept = codes.code_finding(finding.concept)
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=name_tracking(envelope.context, analysis, finding.finding_id),
            identifier=f"{title} ({finding.finding_id})"[:_LONG_STRING],
        ),
        referenced_region=_outline(finding.box, sources),
        geometric_purpose=coded(codes.BOUNDED_BY),
        finding_category=coded(concept.category),
        finding_type=coded(concept.type),
        finding_sites=[describe_site(finding)],
        algorithm_id=describe_algorithm(analysis.model),
    )
    comment = sr.TextContentItem(
        name=coded(codes.COMMENT), value=describe_mark(finding), relationship_type="CONTAINS"
    )
    group[0].ContentSequence.append(comment)
    return group


def describe_mark(finding: Finding) -> str:
    """Return label and confidence of a box, as viewers show them beside it."""
    label = codes.code_finding(finding.concept).label
    return label if finding.confidence is None else f"{label} {finding.confidence:.2f}"


def _outline(box: Box, sources: Mapping[str, Dataset]) -> sr.ImageRegion:
    source = sources.get(box.frame.sop_instance_uid)
    if source is None:
        raise UnencodableResultError("A box lies on an image that is not in the study's headers.")
    is_inside = 0 <= box.left < box.right <= int(source.Columns) and 0 <= box.top < box.bottom <= int(
        source.Rows
    )
    if not is_inside:
        raise UnencodableResultError("A box is empty or lies outside its image: clip it to the image.")
    corners = [
        [box.left, box.top],
        [box.right, box.top],
        [box.right, box.bottom],
        [box.left, box.bottom],
        [box.left, box.top],
    ]
    frames = None if box.frame.frame_number is None else [box.frame.frame_number]
    image = sr.SourceImageForRegion(
        referenced_sop_class_uid=source.SOPClassUID,
        referenced_sop_instance_uid=source.SOPInstanceUID,
        referenced_frame_numbers=frames,
    )
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE, graphic_data=np.array(corners, float), source_image=image
    )


def _evaluate(finding: Finding) -> list[Dataset]:
    """Return whether a label is present, and the probability for that in words."""
    concept = codes.code_finding(finding.concept)
    items = [code_content_item(concept.type, codes.code_presence(finding.presence), "CONTAINS")]
    if finding.confidence is not None:
        items.append(text_item(codes.COMMENT, f"{concept.label} p={finding.confidence:.2f}"))
    return items


def _evaluate_study(analysis: Analysis) -> list[Dataset]:
    """Return the triage class with what it rests on, and the doubts, if there is anything else to say."""
    items = []
    if analysis.triage is not None:
        items.append(code_content_item(codes.TRIAGE, codes.code_risk(analysis.triage.risk), "CONTAINS"))
        items.append(text_item(codes.COMMENT, describe_triage(analysis.triage)))
    if items or label_findings(analysis) or boxed_findings(analysis):
        items += [text_item(codes.COMMENT, describe_doubt(doubt)) for doubt in analysis.doubts]
    return items


def _evidence(
    boxed: Sequence[Finding], labels: Sequence[Finding], sources: Sequence[Dataset]
) -> list[Dataset]:
    """Return the images that the content names or rests on; those of all labels, unless they name a slice."""
    frames: list[FrameReference | None] = [f.box.frame if f.box is not None else None for f in boxed]
    frames += [finding.key_frame for finding in labels if finding.key_frame is not None]
    named = {frame.sop_instance_uid for frame in frames if frame is not None}
    chosen = [source for source in sources if str(source.SOPInstanceUID) in named]
    return chosen or list(sources)
