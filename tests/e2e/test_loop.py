"""The whole loop: a scanner sends to Orthanc, and the reading comes back to Orthanc, OHIF and the EHR."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from lgg_study import pack_lgg_patient
from stack.browser import browser_page, count_coloured
from stack.modality import make_study, send
from stack.node import Node, build_tiny_model
from stack.servers import fhir_server, ohif_site, orthanc_server
from stack.viewer import Viewer
from stack.waiting import wait_for
from validators import run_dciodvfy, run_dcmqi, run_fhir_validators, run_pixelmed

from orthanc.companions import OrthancServer, OrthancSettings
from orthanc.process import free_port

pytestmark = [pytest.mark.orthanc, pytest.mark.fhir_server, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURES = REPOSITORY / "build" / "ohif"
LGG = REPOSITORY.parent / "shared" / "data" / "lgg"
LGG_PATIENT = "TCGA_CS_5395_19981004"  # a validation patient
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
SLICES = 12


@dataclass(frozen=True, kw_only=True)
class Department:
    """Everything that runs: the archive, the node, the EHR."""

    orthanc: OrthancServer
    node: Node
    fhir_url: str

    def results(self, study_uid: str) -> list[dict]:
        """Return the objects of the node that QIDO-RS finds, as DICOM JSON."""
        fields = "&".join(f"includefield={tag}" for tag in ("00080060", "00080070", "0008103E", "00080016"))
        found = self.orthanc.get(f"/dicom-web/studies/{study_uid}/instances?{fields}") or []
        return [instance for instance in found if value(instance, "00080070") == "Preread"]

    def search(self, resource_type: str, **criteria: str) -> list[dict]:
        """Return the resources that the FHIR server finds."""
        query = urllib.parse.urlencode({**criteria, "_count": 500})
        with urllib.request.urlopen(f"{self.fhir_url}/{resource_type}?{query}", timeout=30) as answer:
            return [entry["resource"] for entry in json.load(answer).get("entry", [])]

    def has_reported(self) -> bool:
        """Say whether a report has reached the EHR; fail at once when the node gave up."""
        assert '"run_quarantined"' not in self.node.log_file.read_text(), self.node.log_tail()
        return bool(self.search("DiagnosticReport"))

    def read(self, study: list) -> str:
        """Send a study to the archive and wait until its results are delivered; return the run's id."""
        study_uid = study[0].StudyInstanceUID
        assert set(send(study, self.orthanc.dicom_port)) == {0}
        wait_for(self.has_reported, what="the report in the EHR", timeout_s=300)
        wait_for(lambda: self.results(study_uid), what="the results in the archive", timeout_s=120)
        (row,) = self.node.get("/studies")
        runs = wait_for(
            lambda: [
                run for run in self.node.get(f"/studies/{row['study_key']}/runs") if run["state"] == "done"
            ],
            what="the run to be done",
            timeout_s=120,
        )
        assert len(runs) == 1, "one study, one run"
        return runs[0]["run"]["run_id"]


def value(instance: dict, tag: str):
    values = instance.get(tag, {}).get("Value", [None])
    return values[0]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    build_tiny_model(folder)
    return folder


@pytest.fixture
def department(tmp_path, models_dir):
    yield from run_department(tmp_path, models_dir)


def run_department(folder, models_dir, *, segmentation="BINARY"):
    dicom_port, http_port = free_port(), free_port()
    settings = OrthancSettings(
        folder=folder / "orthanc",
        preread_dicom_port=dicom_port,
        preread_api_url=f"http://127.0.0.1:{http_port}/api",
        preread_api_token="a-token",
        stable_age_s=2,
    )
    with orthanc_server(settings) as orthanc, fhir_server(folder) as fhir:
        node = Node(
            folder / "node",
            {
                "models_dir": str(models_dir),
                "dicom": {"allowed_ae_titles": ["ORTHANC"]},
                "destinations": [
                    {
                        "type": "stow",
                        "name": "orthanc",
                        "url": orthanc.dicomweb_url,
                        "auth": {"type": "basic", "user": orthanc.user, "password": orthanc.password},
                        "segmentation": segmentation,
                    },
                    {"type": "fhir", "name": "ehr", "url": fhir.url},
                ],
            },
            dicom_port=dicom_port,
            http_port=http_port,
        )
        node.start()
        try:
            yield Department(orthanc=orthanc, node=node, fhir_url=fhir.url)
        finally:
            node.stop()


def test_a_study_sent_to_the_archive_comes_back_read(department):
    study = make_study(1, slices=SLICES, size=128)
    study_uid = study[0].StudyInstanceUID

    run_id = department.read(study)

    modalities = Counter(value(result, "00080060") for result in department.results(study_uid))
    assert modalities["SEG"] == 1
    assert modalities["SR"] >= 2
    (report,) = department.search("DiagnosticReport")
    assert report["status"] == "preliminary"
    assert department.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{study_uid}")
    quantities = [o["valueQuantity"] for o in department.search("Observation") if "valueQuantity" in o]
    assert quantities, "no measurement reached the EHR"

    states = {(d["destination"], d["state"]) for d in department.node.get(f"/runs/{run_id}")["deliveries"]}
    assert states == {("orthanc", "confirmed"), ("ehr", "confirmed")}


def test_results_in_the_archive_are_not_read_again_and_a_requeue_duplicates_nothing(department):
    study = make_study(2, slices=SLICES, size=128)
    study_uid = study[0].StudyInstanceUID
    run_id = department.read(study)
    archive = sorted(value(result, "00080018") for result in department.results(study_uid))
    before = {
        kind: len(department.search(kind))
        for kind in ("DiagnosticReport", "Observation", "ImagingStudy", "Device", "Provenance")
    }

    (archived,) = department.orthanc.get("/studies")
    wait_for(
        lambda: department.orthanc.get(f"/studies/{archived}")["IsStable"],
        what="the study with its results to settle",
    )
    done_before = department.node.log_file.read_text().count('"run_done"')
    assert department.node.post(f"/runs/{run_id}/requeue") == 202
    wait_for(
        lambda: department.node.log_file.read_text().count('"run_done"') > done_before,
        what="the requeued run to be done",
        timeout_s=120,
    )

    assert sorted(value(result, "00080018") for result in department.results(study_uid)) == archive
    after = {kind: len(department.search(kind)) for kind in before}
    assert after == before
    (row,) = department.node.get("/studies")
    assert len(department.node.get(f"/studies/{row['study_key']}/runs")) == 1, "the node read its own results"


@pytest.mark.ohif
def test_the_radiologist_sees_the_lesion_outlined_and_measured(department, tmp_path):
    study = make_study(3, slices=SLICES, size=128)
    department.read(study)

    with ohif_site(department.orthanc, tmp_path / "ohif") as site, browser_page() as page:
        look_at_results(Viewer(page, site, PICTURES / "phantom"), study[0].StudyInstanceUID)


@pytest.mark.ohif
def test_a_destination_that_wants_label_maps_gets_one_that_ohif_shows(tmp_path, models_dir):
    study = make_study(4, slices=SLICES, size=128)
    with contextmanager(run_department)(tmp_path, models_dir, segmentation="LABELMAP") as department:
        department.read(study)
        classes = {value(result, "00080016") for result in department.results(study[0].StudyInstanceUID)}
        assert LABEL_MAP_SEGMENTATION in classes
        with ohif_site(department.orthanc, tmp_path / "ohif") as site, browser_page() as page:
            look_at_results(Viewer(page, site, PICTURES / "labelmap"), study[0].StudyInstanceUID)


@pytest.mark.data
@pytest.mark.ohif
@pytest.mark.validators
@pytest.mark.skipif(not (LGG / "index.csv").is_file(), reason="../shared/data/lgg is not there")
def test_a_real_patient_comes_back_read_by_the_shipped_network(tmp_path):
    packed = pack_lgg_patient(LGG, LGG_PATIENT)
    study_uid = packed.datasets[0].StudyInstanceUID
    with contextmanager(run_department)(tmp_path, REPOSITORY / "models") as department:
        department.read(list(packed.datasets))
        objects = sorted((department.node.data_dir / "runs").rglob("*.dcm"))
        assert len(objects) == len(department.results(study_uid)) == 7
        assert {path.name: run_dciodvfy(path) for path in objects} == {path.name: [] for path in objects}
        reports = [path for path in objects if path.name.startswith(("measurements", "volumes", "narrative"))]
        assert {path.name: run_pixelmed(path) for path in reports} == {path.name: [] for path in reports}
        (segmentation,) = [path for path in objects if path.name.startswith("segmentation")]
        assert run_dcmqi(segmentation, tmp_path / "dcmqi", kind="seg")
        (bundle,) = (department.node.data_dir / "runs").rglob("bundle.json")
        assert not any(run_fhir_validators(json.loads(bundle.read_text())).values())
        with ohif_site(department.orthanc, tmp_path / "ohif") as site, browser_page() as page:
            look_at_results(Viewer(page, site, PICTURES / "lgg"), study_uid)


def look_at_results(viewer: Viewer, study_uid: str) -> None:
    viewer.open(study_uid)
    viewer.photograph("1-images")
    plain = count_coloured(viewer.look())

    viewer.load("AI segmentation")
    viewer.open_panel("panelSegmentation")
    viewer.shows("FLAIR abnormality 1")
    viewer.photograph("2-segmentation")

    viewer.load("AI diameters")
    viewer.open_panel("trackedMeasurements")
    measurement = wait_for(viewer.measurements, what="a measurement in the panel")
    assert "Neoplasm" in measurement
    assert re.search(r"L: \d+\.\d mm", measurement), measurement
    assert re.search(r"W: \d+\.\d mm", measurement), measurement

    lesion = wait_for(lambda: count_red(viewer.look()), what="the segment's colour on the lesion's slice")
    picture = viewer.look()
    rows, columns = picture.shape[:2]
    assert 0.005 < lesion / (rows * columns) < 0.3, "the outlined region has not the lesion's size"
    assert count_coloured(picture) > plain, "nothing was drawn"
    viewer.photograph("3-measurement")

    assert viewer.foreign_requests == []
    assert viewer.failures == []


def count_red(picture: np.ndarray) -> int:
    """Return how many pixels have the colour of the first segment, red, over something grey."""
    red, green, blue = (picture[..., channel].astype(np.int16) for channel in range(3))
    return int(((red - green > 50) & (red - blue > 50)).sum())
