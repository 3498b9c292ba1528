"""Pure. All DICOM objects of a run, in the order in which they are delivered.

One place decides which kinds a reading gives: what was outlined becomes a segmentation with
its reports, boxes and labels a report that viewers open, estimates a report of their own, heat
maps one object each; the narrative always. A model that gave no answer has the narrative alone.
Writing to bytes is here too, because deterministic bytes are part of the promise that a re-run
changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from inference.findings import Analysis
from reporting.context import Reading, ReportContext, ResultKind, ResultObject, SourceSeries
from reporting.envelope import Envelope
from reporting.errors import UnencodableResultError
from reporting.estimates_sr import encode_estimates
from reporting.findings_sr import encode_findings
from reporting.heatmap import encode_heatmap
from reporting.key_images import encode_key_images
from reporting.narrative_sr import encode_narrative
from reporting.overview import encode_overview
from reporting.radiograph_picture import title_of
from reporting.seg import encode_segmentation, has_place
from reporting.sr import encode_measurements, encode_volumes
from reporting.text import ReportText


def encode_results(
    readings: Sequence[Reading], sources: SourceSeries, text: ReportText, context: ReportContext
) -> tuple[ResultObject, ...]:
    """Return the DICOM objects of a run.

    Parameters
    ----------
    readings : sequence of Reading
        What each model said, with mask, heat maps and pixels where there are any; at least one.
    sources : mapping of str to sequence of Dataset
        Headers of every series that was read, by Series Instance UID; of one patient, and of
        several studies where a model read several. Objects are filed in the study of the
        reference series.
    text : ReportText
        The report that stands.
    context : ReportContext
        The run.

    Returns
    -------
    tuple of ResultObject
        Per model what `ResultKind` lists up to the key images; then the narrative; then the
        overviews. What has no content is left out.

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
    answered = [(index, r) for index, r in enumerate(readings) if not r.analysis.is_refused]
    for index, reading in answered:
        objects += _encode_reading(reading, index, sources, context)
    objects.append(_encode_text(readings, sources, text, context))
    for index, reading in answered:
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
    envelopes = {kind: _address(kind, analysis, index, sources, context) for kind in ResultKind}
    segmentation = None
    if reading.mask is not None and has_place(headers):
        segmentation = encode_segmentation(
            analysis, reading.mask, headers, envelopes[ResultKind.SEGMENTATION]
        )
    explained = _encode_heatmaps(reading, sources, envelopes[ResultKind.HEATMAP])
    heatmaps: dict[str, list[Dataset]] = {}
    for answer, result in explained:
        heatmaps.setdefault(answer, []).append(result.dataset)
    read = [header for item in analysis.inputs for header in sources.get(item.series_uid, ())]
    encoded = {
        ResultKind.FINDINGS: encode_findings(analysis, headers, heatmaps, envelopes[ResultKind.FINDINGS]),
        ResultKind.MEASUREMENTS: encode_measurements(analysis, headers, envelopes[ResultKind.MEASUREMENTS]),
        ResultKind.VOLUMES: encode_volumes(
            analysis, segmentation, headers, envelopes[ResultKind.VOLUMES], heatmaps
        ),
        ResultKind.ESTIMATES: encode_estimates(analysis, read, heatmaps, envelopes[ResultKind.ESTIMATES]),
        ResultKind.KEY_IMAGES: encode_key_images(analysis, headers, envelopes[ResultKind.KEY_IMAGES]),
    }
    return [
        *_as_object(segmentation, envelopes[ResultKind.SEGMENTATION]),
        *(result for _, result in explained),
        *(result for kind, dataset in encoded.items() for result in _as_object(dataset, envelopes[kind])),
    ]


def _encode_heatmaps(
    reading: Reading, sources: SourceSeries, envelope: Envelope
) -> list[tuple[str, ResultObject]]:
    """Return each heat map with the answer it explains, in a series of its own.

    A heat map on a series of another study is filed in that study, where viewers show it with its images.
    """
    explained = []
    for number, heatmap in enumerate(reading.heatmaps):
        headers = sources.get(heatmap.series_uid, ())
        if not headers:
            raise UnencodableResultError("The headers of the series under a heat map are missing.")
        own = replace(
            envelope,
            source=headers[0],
            part=f"{heatmap.answer}/{heatmap.series_uid}",
            part_title=title_of(reading.analysis, heatmap.answer),
            part_number=number,
        )
        dataset = encode_heatmap(reading, heatmap, headers, own)
        explained += [(heatmap.answer, result) for result in _as_object(dataset, own)]
    return explained


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
