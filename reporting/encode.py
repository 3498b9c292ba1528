"""Pure. All DICOM objects of a run, in the order in which they are delivered.

One place decides which kinds a reading gives: a segmentation and its reports if
something was outlined, the narrative always. Writing to bytes is here too, because
deterministic bytes are part of the promise that a re-run changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from inference.findings import Analysis
from reporting.context import Reading, ReportContext, ResultKind, ResultObject, SourceSeries
from reporting.envelope import Envelope
from reporting.errors import UnencodableResultError
from reporting.narrative_sr import encode_narrative
from reporting.overview import encode_overview
from reporting.seg import encode_segmentation
from reporting.sr import encode_measurements, encode_volumes
from reporting.text import ReportText


def encode_results(
    readings: Sequence[Reading], sources: SourceSeries, text: ReportText, context: ReportContext
) -> tuple[ResultObject, ...]:
    """Return the DICOM objects of a run.

    Parameters
    ----------
    readings : sequence of Reading
        What each model said, with mask and pixels where it outlined something; at least one.
    sources : mapping of str to sequence of Dataset
        Headers of every series that was read, by Series Instance UID.
    text : ReportText
        The report that stands.
    context : ReportContext
        The run.

    Returns
    -------
    tuple of ResultObject
        Per model segmentation, measurements and volumes; then the narrative; then the
        overviews. What has no content (nothing outlined, no diameter) is left out.

    Raises
    ------
    UnencodableResultError
        If findings, masks and headers do not belong together.
    UnknownConceptError
        If a finding has no code.

    Notes
    -----
    Equal arguments give equal bytes (`write_part10`).
    """
    if not readings:
        raise UnencodableResultError("A run without a reading has no results to encode.")
    objects: list[ResultObject] = []
    for index, reading in enumerate(readings):
        objects += _encode_reading(reading, index, sources, context)
    objects.append(_encode_text(readings, sources, text, context))
    for index, reading in enumerate(readings):
        envelope = _address(ResultKind.OVERVIEW, reading.analysis, index, sources, context)
        overview = encode_overview(reading, reference_series(reading.analysis, sources), envelope)
        objects += _as_object(overview, envelope)
    return tuple(objects)


def write_part10(dataset: Dataset) -> bytes:
    """Return a result as a DICOM file: preamble, file meta information, data set.

    Explicit VR Little Endian unless the object is RLE compressed. Equal data sets give
    equal bytes.

    References
    ----------
    PS3.10 section 7.
    """
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def reference_series(analysis: Analysis, sources: SourceSeries) -> Sequence[Dataset]:
    """Return the headers of the series on which masks and points of an analysis lie.

    Raises
    ------
    UnencodableResultError
        If ``sources`` does not have that series.
    """
    headers = sources.get(analysis.inputs[0].series_uid, ()) if analysis.inputs else ()
    if not headers:
        raise UnencodableResultError("The headers of the series that the model read are missing.")
    return headers


def _encode_reading(
    reading: Reading, index: int, sources: SourceSeries, context: ReportContext
) -> list[ResultObject]:
    analysis = reading.analysis
    headers = reference_series(analysis, sources)
    to_segmentation, to_measurements, to_volumes = (
        _address(kind, analysis, index, sources, context)
        for kind in (ResultKind.SEGMENTATION, ResultKind.MEASUREMENTS, ResultKind.VOLUMES)
    )
    segmentation = None
    if reading.mask is not None:
        segmentation = encode_segmentation(analysis, reading.mask, headers, to_segmentation)
    return [
        *_as_object(segmentation, to_segmentation),
        *_as_object(encode_measurements(analysis, headers, to_measurements), to_measurements),
        *_as_object(encode_volumes(analysis, segmentation, headers, to_volumes), to_volumes),
    ]


def _encode_text(
    readings: Sequence[Reading], sources: SourceSeries, text: ReportText, context: ReportContext
) -> ResultObject:
    analyses = [reading.analysis for reading in readings]
    envelope = Envelope(
        kind=ResultKind.NARRATIVE,
        source=reference_series(analyses[0], sources)[0],
        models=tuple(dict.fromkeys(analysis.model for analysis in analyses)),
        context=context,
    )
    series = dict.fromkeys(item.series_uid for analysis in analyses for item in analysis.inputs)
    evidence = [header for series_uid in series for header in sources.get(series_uid, ())]
    return ResultObject(
        kind=ResultKind.NARRATIVE,
        model_name=envelope.model_name,
        dataset=encode_narrative(text, evidence, envelope),
    )


def _address(
    kind: ResultKind, analysis: Analysis, index: int, sources: SourceSeries, context: ReportContext
) -> Envelope:
    return Envelope(
        kind=kind,
        source=reference_series(analysis, sources)[0],
        models=(analysis.model,),
        context=context,
        model_index=index,
    )


def _as_object(dataset: Dataset | None, envelope: Envelope) -> list[ResultObject]:
    if dataset is None:
        return []
    return [ResultObject(kind=envelope.kind, model_name=envelope.model_name, dataset=dataset)]
