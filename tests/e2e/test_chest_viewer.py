"""A chest radiograph with marks, stored in Orthanc and opened in OHIF as a radiologist would."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from reporting_cases import (
    CONTEXT,
    DETECTOR,
    DX_SERIES_UID,
    LABELLER,
    STUDY_UID,
    chest_box,
    chest_case,
    frames_of,
    label,
    mark,
    radiograph_header,
)
from stack.browser import browser_page, count_coloured
from stack.modality import send
from stack.servers import ohif_site, orthanc_server
from stack.viewer import Viewer
from stack.waiting import wait_for

from inference.findings import Heatmap, Presence, RiskClass, Triage
from inference.radiograph import read_radiographs
from orthanc.companions import OrthancSettings
from orthanc.process import free_port
from reporting.context import Reading
from reporting.draft import draft_report
from reporting.encode import encode_results
from reporting.gate import check_objects
from reporting.projection import read_views

pytestmark = [pytest.mark.orthanc, pytest.mark.ohif, pytest.mark.timeout(600)]

PICTURES = Path(__file__).resolve().parents[2] / "build" / "ohif" / "chest"
ROWS, COLUMNS = 768, 640


def make_radiograph():
    """A frontal chest radiograph with pixels: two lungs, a heart, and a disc in the right upper zone."""
    header = radiograph_header(1, "PA", ROWS, COLUMNS)
    down, across = np.mgrid[0:ROWS, 0:COLUMNS] / np.array([ROWS, COLUMNS])[:, None, None]
    lungs = [((across - x) / 0.17) ** 2 + ((down - 0.42) / 0.32) ** 2 < 1 for x in (0.28, 0.72)]
    heart = ((across - 0.55) / 0.16) ** 2 + ((down - 0.6) / 0.17) ** 2 < 1
    nodule = np.hypot((across - 0.27) * COLUMNS, (down - 0.22) * ROWS) < 24
    grey = 0.65 - 0.45 * ((lungs[0] | lungs[1]) & ~heart) + 0.3 * nodule
    noise = np.random.default_rng(3).normal(0, 0.015, grey.shape)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, 0, "US"
    header.PixelIntensityRelationship, header.PixelIntensityRelationshipSign = "LIN", -1
    header.PresentationLUTShape, header.LossyImageCompression = "IDENTITY", "00"
    header.WindowCenter, header.WindowWidth = 2048, 4096
    header.PixelData = ((grey + noise).clip(0, 1) * 4095).astype(np.uint16).tobytes()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    header.file_meta.MediaStorageSOPInstanceUID = UID(header.SOPInstanceUID)
    return header


def read_chest(image):
    """What a detector and a labeller say of it, as a node would hand it to the reports."""
    series = [image]
    radiographs = read_radiographs(series)
    boxes = (
        mark(1, "cardiomegaly", "heart", chest_box(245, 330, 460, 595), 0.93),
        mark(2, "nodule", "lung", chest_box(140, 138, 206, 200), 0.81),
    )
    triage = Triage(risk=RiskClass.HIGH, score=0.94, predictive_value=0.88, calibration_patients=512)
    detected = chest_case(DETECTOR, boxes, triage=triage).saying(
        inputs=(replace(chest_case(DETECTOR, ()).analysis.inputs[0], frames=frames_of(series)),)
    )
    heat = np.zeros((1, ROWS, COLUMNS), np.float32)
    down, across = np.mgrid[0:ROWS, 0:COLUMNS]
    heat[0] = np.exp(-(((across - 173) / 60) ** 2) - ((down - 169) / 60) ** 2)
    heatmap = Heatmap(values=heat, series_uid=DX_SERIES_UID, frames=frames_of(series), answer="F2")
    labelled = chest_case(
        LABELLER,
        (
            label(1, "cardiomegaly", "heart", Presence.PRESENT, 0.9),
            label(2, "pneumothorax", "pleura", Presence.ABSENT, 0.03),
        ),
    ).saying(inputs=detected.analysis.inputs)
    return [
        Reading(analysis=detected.analysis, radiographs=radiographs, heatmaps=(heatmap,)),
        Reading(analysis=labelled.analysis, radiographs=radiographs),
    ]


def encode_chest(image):
    readings, sources = read_chest(image), {DX_SERIES_UID: [image]}
    text = draft_report([r.analysis for r in readings], read_views(sources), {DETECTOR.name})
    results = encode_results(readings, sources, text, CONTEXT)
    assert check_objects(results, sources, {}, {DETECTOR.name: readings[0].heatmaps}) == ()
    return [result.dataset for result in results]


def test_the_radiologist_sees_the_marks_as_rectangles_with_their_labels(tmp_path):
    image = make_radiograph()
    settings = OrthancSettings(
        folder=tmp_path / "orthanc",
        preread_dicom_port=free_port(),
        preread_api_url="http://127.0.0.1:9/api",
        preread_api_token="a-token",
    )
    with orthanc_server(settings) as orthanc:
        stored = [image, *encode_chest(image)]
        assert set(send(stored, orthanc.dicom_port)) == {0}
        with ohif_site(orthanc, tmp_path / "ohif") as site, browser_page() as page:
            look_at_marks(Viewer(page, site, PICTURES))


def look_at_marks(viewer: Viewer) -> None:
    viewer.open(STUDY_UID)
    viewer.photograph("1-images")

    viewer.load("AI findings chest-detector")
    viewer.open_panel("trackedMeasurements")
    panel = viewer.page.locator('[data-cy="trackedMeasurements-panel"]').first
    said = wait_for(lambda: _with_labels(panel.inner_text()), what="the marks in the panel")
    assert len(re.findall(r"Cardiomegaly 0\.93|Nodule 0\.81", said)) == 2
    viewer.photograph("2-marks")
    assert wait_for(lambda: count_coloured(viewer.look()) > 200, what="the rectangles on the image")

    viewer.load("AI overview chest-detector", hydrate=False)
    wait_for(lambda: count_red_banner(viewer.look()) > 500, what="the overview with its banner")
    viewer.photograph("3-overview")
    viewer.load("AI heat map Nodule", hydrate=False)
    wait_for(lambda: count_red_banner(viewer.look()) > 500, what="the heat map with its banner")
    viewer.photograph("4-heatmap")

    viewer.load("AI findings chest-labels", hydrate=False)
    viewer.shows("Cardiomegaly p=0.90")
    viewer.photograph("5-labels")
    viewer.load("AI draft report", hydrate=False)
    viewer.shows("AI RESULT - NOT REVIEWED")
    viewer.photograph("6-report")

    assert not viewer.page.get_by_text("Something went wrong").count()
    assert viewer.foreign_requests == []
    assert viewer.failures == []


def _with_labels(text: str) -> str:
    return text if "Cardiomegaly" in text and "Nodule" in text else ""


def count_red_banner(picture: np.ndarray) -> int:
    """Return how many pixels have the colour of the banner of our pictures."""
    red, green, blue = (picture[..., channel].astype(np.int16) for channel in range(3))
    return int(((abs(red - 150) < 25) & (green < 60) & (blue < 60)).sum())
