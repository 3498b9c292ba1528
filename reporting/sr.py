"""Pure. Measurements as Comprehensive 3D SR documents (TID 1500), in the shapes that viewers take.

Two documents for what was outlined (``findings_sr.py`` has boxes and labels, ``estimates_sr.py``
the rest), because OHIF 3.13 opens a measurement report only if every group has coordinates, and
hydrates a pair of diameters only in the form that it writes itself:

- *measurements*, title (126000,DCM): one TID 1501 group per finding, the diameters with
  their lines in the image. Opens and turns into editable measurements.
- *volumes*, title (126001,DCM): one TID 1411 group per segment, the volume and the
  diameters with a reference to the segment. Opens as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset

from inference.findings import Analysis, Diameter, Finding, ModelIdentity, Quantity
from reporting import codes
from reporting.codes import Concept
from reporting.context import name_device, name_tracking
from reporting.envelope import Envelope, neutral_header, seal
from reporting.errors import UnencodableResultError
from reporting.items import code_content_item, coded, container_item, template_item, text_item, uid_item

#: Tracking identifiers by which OHIF knows the tool that a group hydrates into.
BIDIRECTIONAL_TOOL: Final = "Cornerstone3DTools@^0.1.0:Bidirectional"
LENGTH_TOOL: Final = "Cornerstone3DTools@^0.1.0:Length"
_DECIMALS: Final = 3
_NO_HEATMAPS: Final[Mapping[str, Sequence[Dataset]]] = MappingProxyType({})

Group: TypeAlias = (
    sr.MeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


def encode_measurements(analysis: Analysis, sources: Sequence[Dataset], envelope: Envelope) -> Dataset | None:
    """Return the report of diameters, each with its line in the image.

    Parameters
    ----------
    analysis : Analysis
        Findings; those without a long axis have no group.
    sources : sequence of Dataset
        Headers of the images on which the diameters lie.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset or None
        None if no finding has a diameter.

    Raises
    ------
    UnencodableResultError
        If a diameter lies on an image that is not among ``sources``.

    References
    ----------
    PS3.16 TID 1500, TID 1501, TID 300, TID 320.
    """
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    measured = [finding for finding in analysis.findings if finding.long_axis is not None]
    if not measured:
        return None
    groups = [_diameter_group(finding, analysis, by_uid, envelope) for finding in measured]
    lines = [line for finding in measured for line in _lines(finding)]
    evidence = [by_uid[uid] for uid in dict.fromkeys(line.frame.sop_instance_uid for line in lines)]
    return encode_report(codes.IMAGING_MEASUREMENT_REPORT, groups, evidence, envelope)


def encode_volumes(
    analysis: Analysis,
    segmentation: Dataset | None,
    sources: Sequence[Dataset],
    envelope: Envelope,
    heatmaps: Mapping[str, Sequence[Dataset]] = _NO_HEATMAPS,
) -> Dataset | None:
    """Return the report of volumes, each referring to its segment.

    Parameters
    ----------
    analysis : Analysis
        Findings; those without a segment have no group.
    segmentation : Dataset or None
        The segmentation of the same run and profile.
    sources : sequence of Dataset
        Headers of the series on which the segmentation lies.
    envelope : Envelope
        Names and origin of the object.
    heatmaps : mapping of str to sequence of Dataset
        The heat maps of each answer, by finding id.

    Returns
    -------
    Dataset or None
        None if there is no segmentation.

    References
    ----------
    PS3.16 TID 1500, TID 1411, TID 1419.
    """
    segmented = [finding for finding in analysis.findings if finding.segment_number is not None]
    if segmentation is None or not segmented:
        return None
    groups = [_volume_group(finding, analysis, segmentation, sources, envelope) for finding in segmented]
    for finding, group in zip(segmented, groups, strict=True):
        group[0].ContentSequence.extend(map(explain, heatmaps.get(finding.finding_id, ())))
    explanations = [heatmap for f in segmented for heatmap in heatmaps.get(f.finding_id, ())]
    evidence = [*sources, segmentation, *explanations]
    return encode_report(codes.ONCOLOGY_MEASUREMENT_REPORT, groups, evidence, envelope)


def encode_report(
    title: Concept,
    groups: Sequence[Group],
    evidence: Sequence[Dataset],
    envelope: Envelope,
    evaluations: Sequence[Dataset] = (),
) -> Dataset:
    """Return a measurement report (TID 1500).

    Parameters
    ----------
    title : Concept
        Document title (CID 7021).
    groups : sequence of Group
        Measurement groups; may be empty.
    evidence : sequence of Dataset
        Headers of every object that the content refers to; at least one.
    envelope : Envelope
        Names and origin of the object.
    evaluations : sequence of Dataset
        Content items of the Qualitative Evaluations at the root, in which no viewer looks for
        coordinates.
    """
    root = _root_of_groups(title, groups, envelope) if groups else _root_without_groups(title, envelope)
    document = sr.Comprehensive3DSR(
        evidence=[neutral_header(item) for item in evidence],
        content=root,
        series_instance_uid=envelope.series_instance_uid,
        series_number=envelope.series_number,
        sop_instance_uid=envelope.sop_instance_uid,
        instance_number=1,
        manufacturer=envelope.models[0].manufacturer,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    if evaluations:
        # highdicom 0.28.2 has no argument for this container of TID 1500.
        container = container_item(codes.QUALITATIVE_EVALUATIONS, evaluations)
        document.ContentSequence = [*document.ContentSequence, container]
    link_predecessors(document, envelope)
    return seal(document, envelope)


def _root_of_groups(title: Concept, groups: Sequence[Group], envelope: Envelope) -> Dataset:
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device_context(envelope.models[0])),
        procedure_reported=coded(codes.code_procedure(str(envelope.source.Modality))),
        imaging_measurements=groups,
        title=coded(title),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(coded(codes.ENGLISH)),
    )
    root: Dataset = report[0]
    return root


def _root_without_groups(title: Concept, envelope: Envelope) -> Dataset:
    """Return the root of a report that has qualitative evaluations alone, which highdicom cannot write."""
    procedure = codes.code_procedure(str(envelope.source.Modality))
    root = container_item(
        title,
        [
            code_content_item(codes.LANGUAGE_OF_CONTENT, codes.ENGLISH, "HAS CONCEPT MOD"),
            *observe_by_device(envelope.models[0]),
            code_content_item(codes.PROCEDURE_REPORTED, procedure, "HAS CONCEPT MOD"),
        ],
    )
    del root.RelationshipType
    root.ContentTemplateSequence = [template_item("1500")]
    return root


def explain(heatmap: Dataset) -> sr.ImageContentItem:
    """Return the content item that names the heat map of a group's finding (TID 1410, TID 1411)."""
    return sr.ImageContentItem(
        name=coded(codes.VISUAL_EXPLANATION),
        referenced_sop_class_uid=heatmap.SOPClassUID,
        referenced_sop_instance_uid=heatmap.SOPInstanceUID,
        relationship_type="CONTAINS",
    )


def link_predecessors(document: Dataset, envelope: Envelope) -> None:
    """Name the objects of the earlier run that this document replaces.

    References
    ----------
    PS3.3 C.17.2.3 Predecessor Documents Sequence (0040,A360).
    """
    predecessors = envelope.context.predecessors_of(envelope.kind, envelope.model_name)
    if not predecessors:
        return
    study = Dataset()
    study.StudyInstanceUID = envelope.source.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for predecessor in predecessors:
        instance, series = Dataset(), Dataset()
        instance.ReferencedSOPClassUID = predecessor.sop_class_uid
        instance.ReferencedSOPInstanceUID = predecessor.sop_instance_uid
        series.SeriesInstanceUID = predecessor.series_instance_uid
        series.ReferencedSOPSequence = [instance]
        study.ReferencedSeriesSequence.append(series)
    document.PredecessorDocumentsSequence = [study]


def device_context(model: ModelIdentity) -> sr.ObserverContext:
    """Return the model as Device observer (TID 1004): no person made this."""
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=name_device(model),
        name=model.name,
        manufacturer_name=model.manufacturer,
        model_name=model.name,
        serial_number=model.weights_sha256,
    )
    return sr.ObserverContext(observer_type=coded(codes.DEVICE), observer_identifying_attributes=attributes)


def observe_by_device(model: ModelIdentity) -> list[Dataset]:
    """Return the rows of TID 1002 and TID 1004 for a device, as content items of our own."""
    relationship = "HAS OBS CONTEXT"
    return [
        code_content_item(codes.OBSERVER_TYPE, codes.DEVICE, relationship),
        uid_item(codes.DEVICE_OBSERVER_UID, name_device(model), relationship),
        text_item(codes.DEVICE_OBSERVER_NAME, model.name, relationship),
        text_item(codes.DEVICE_OBSERVER_MANUFACTURER, model.manufacturer, relationship),
        text_item(codes.DEVICE_OBSERVER_MODEL, f"{model.name} {model.version}", relationship),
    ]


def describe_algorithm(model: ModelIdentity) -> sr.AlgorithmIdentification:
    """Return TID 4019."""
    return sr.AlgorithmIdentification(
        name=model.name,
        version=model.version,
        parameters=[f"weights_sha256={model.weights_sha256}"],
        family=coded(codes.ARTIFICIAL_INTELLIGENCE),
        manufacturer=model.manufacturer,
    )


def describe_site(finding: Finding) -> sr.FindingSite:
    """Return the anatomic site of a finding, with its side where the model gives one."""
    laterality = None if finding.laterality is None else coded(codes.code_laterality(finding.laterality))
    return sr.FindingSite(coded(codes.code_site(finding.site).concept), laterality=laterality)


def _diameter_group(
    finding: Finding, analysis: Analysis, sources: Mapping[str, Dataset], envelope: Envelope
) -> Group:
    lines = _lines(finding)
    names = [codes.LONG_AXIS, codes.SHORT_AXIS] if len(lines) > 1 else [codes.LENGTH]
    concept = codes.code_finding(finding.concept)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=name_tracking(envelope.context, analysis, finding.finding_id),
            identifier=BIDIRECTIONAL_TOOL if len(lines) > 1 else LENGTH_TOOL,
        ),
        finding_category=coded(concept.category),
        finding_type=coded(concept.type),
        finding_sites=[describe_site(finding)],
        algorithm_id=describe_algorithm(analysis.model),
        measurements=[_measure_line(name, line, sources) for name, line in zip(names, lines, strict=True)],
    )


def _lines(finding: Finding) -> list[Diameter]:
    return [line for line in (finding.long_axis, finding.perpendicular_axis) if line is not None]


def _measure_line(name: Concept, line: Diameter, sources: Mapping[str, Dataset]) -> sr.Measurement:
    source = sources.get(line.frame.sop_instance_uid)
    if source is None:
        raise UnencodableResultError("A diameter lies on an image that is not in the study's headers.")
    frames = None if line.frame.frame_number is None else [line.frame.frame_number]
    image = sr.SourceImageForRegion(
        referenced_sop_class_uid=source.SOPClassUID,
        referenced_sop_instance_uid=source.SOPInstanceUID,
        referenced_frame_numbers=frames,
    )
    coordinates = sr.CoordinatesForMeasurement(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array([[line.start.column, line.start.row], [line.end.column, line.end.row]]),
        source_image=image,
    )
    return sr.Measurement(
        name=coded(name),
        value=round(line.length_mm, _DECIMALS),
        unit=coded(codes.MILLIMETRE),
        referenced_coordinates=[coordinates],
    )


def _volume_group(
    finding: Finding,
    analysis: Analysis,
    segmentation: Dataset,
    sources: Sequence[Dataset],
    envelope: Envelope,
) -> Group:
    if finding.segment_number is None:
        raise UnencodableResultError("A finding without a segment number has no volume.")
    concept = codes.code_finding(finding.concept)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=name_tracking(envelope.context, analysis, finding.finding_id),
            identifier=f"{concept.label} {finding.segment_number} ({finding.finding_id})",
        ),
        # Written by hand: ReferencedSegment.from_segmentation fails for a single segment and
        # for label maps (highdicom 0.28.2).
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=finding.segment_number,
            source_series=sr.SourceSeriesForSegmentation(sources[0].SeriesInstanceUID),
        ),
        finding_category=coded(concept.category),
        finding_type=coded(concept.type),
        finding_sites=[describe_site(finding)],
        algorithm_id=describe_algorithm(analysis.model),
        measurements=_number_measurements(finding),
    )


_UNITS: Final[Mapping[Quantity, tuple[Concept, Callable[..., float]]]] = {
    Quantity.VOLUME: (codes.CUBIC_CENTIMETRE, codes.value_in_ml),
    Quantity.LONG_AXIS: (codes.MILLIMETRE, codes.value_in_mm),
    Quantity.PERPENDICULAR_AXIS: (codes.MILLIMETRE, codes.value_in_mm),
    Quantity.AREA: (codes.SQUARE_MILLIMETRE, codes.value_in_mm2),
}


def _number_measurements(finding: Finding) -> list[sr.Measurement]:
    measurements = []
    for measurement in finding.measurements:
        unit, convert = _UNITS[measurement.quantity]
        measurements.append(
            sr.Measurement(
                name=coded(codes.code_quantity(measurement.quantity)),
                value=round(convert(measurement), _DECIMALS),
                unit=coded(unit),
            )
        )
    return measurements
