"""Pure. All DICOM objects of a run, in the order in which they are delivered.

One place decides which kinds a reading gives: what was outlined becomes a segmentation with
its reports, boxes and labels a report that viewers open, estimates a report of their own, heat
maps one object each; the narrative and its PDF always. A model that gave no answer has these alone.
Writing to bytes is here too, because deterministic bytes are part of the promise that a re-run
changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

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
from reporting.pdf import DocumentExtras, encode_pdf, render_report
from reporting.radiograph_picture import title_of
from reporting.seg import encode_segmentation, has_place
from reporting.sr import encode_measurements, encode_volumes
from reporting.text import ReportText

_PLAIN_DOCUMENT: Final = DocumentExtras()


def encode_results(
    readings: Sequence[Reading],
    sources: SourceSeries,
    text: ReportText,
    context: ReportContext,
    document: DocumentExtras | None = _PLAIN_DOCUMENT,
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
    document : DocumentExtras or None
        What the PDF report has beyond the other results; None makes none.

    Returns
    -------
    tuple of ResultObject
        Per model what `ResultKind` lists up to the key images; then the narrative and the PDF;
        then the overviews. What has no content is left out.

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
    overviews: list[ResultObject] = []
    for index, reading in answered:
        envelope = _address(ResultKind.OVERVIEW, reading.analysis, index, sources, context)
        overview = encode_overview(reading, reference_series(reading.analysis, sources), envelope)
        overviews += _as_object(overview, envelope)
    part = "" if document is None else document.part
    objects.append(_encode_text(readings, sources, text, context, part))
    if document is not None:
        pictures = (*objects, *overviews)
        objects.append(_encode_document(readings, sources, text, context, document, pictures=pictures))
    return (*objects, *overviews)


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
    readings: Sequence[Reading], sources: SourceSeries, text: ReportText, context: ReportContext, part: str
) -> ResultObject:
    envelope = _address_all(ResultKind.NARRATIVE, readings, sources, context, part)
    dataset = encode_narrative(text, _evidence(readings, sources), envelope)
    return ResultObject(kind=ResultKind.NARRATIVE, model_name=envelope.model_name, dataset=dataset)


def _encode_document(
    readings: Sequence[Reading],
    sources: SourceSeries,
    text: ReportText,
    context: ReportContext,
    document: DocumentExtras,
    *,
    pictures: Sequence[ResultObject],
) -> ResultObject:
    envelope = _address_all(ResultKind.PDF, readings, sources, context, document.part)
    file = render_report(
        readings,
        sources,
        text,
        header=envelope.source,
        objects=pictures,
        context=context,
        extras=document,
    )
    dataset = encode_pdf(file, _evidence(readings, sources), envelope)
    return ResultObject(kind=ResultKind.PDF, model_name=envelope.model_name, dataset=dataset)


def _evidence(readings: Sequence[Reading], sources: SourceSeries) -> list[Dataset]:
    """Return the headers of every series that a model read, each once."""
    series = dict.fromkeys(item.series_uid for reading in readings for item in reading.analysis.inputs)
    return [header for series_uid in series for header in sources.get(series_uid, ())]


def _address_all(
    kind: ResultKind,
    readings: Sequence[Reading],
    sources: SourceSeries,
    context: ReportContext,
    part: str,
) -> Envelope:
    """Return the envelope of an object that carries what all models said.

    A report that was compared with an earlier study is another object than one that was not: the same
    images, read again after that study came, must not give other content under the same name.
    """
    analyses = [reading.analysis for reading in readings]
    return Envelope(
        kind=kind,
        source=reference_series(analyses[0], sources)[0],
        models=tuple(dict.fromkeys(analysis.model for analysis in analyses)),
        context=context,
        part=part,
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
