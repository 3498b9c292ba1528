"""Result objects for delivery tests: real Part-10 files and a FHIR Bundle, made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dicom_node.study import StudyKey
from integration.delivery import DeliveryItem

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

RUN_ID = "0123456789abcdef0123-0123456789ab-1"
STUDY_KEY = StudyKey("0123456789abcdef0123")


def make_items(folder: Path, *, study_uid: str | None = None) -> list[DeliveryItem]:
    """Write a segmentation, a measurement report and an overview of one study."""
    study_uid = study_uid or generate_uid()
    kinds = {"segmentation": SEGMENTATION, "measurements": COMPREHENSIVE_3D_SR, "overview": SECONDARY_CAPTURE}
    return [make_item(folder, kind, sop_class, study_uid) for kind, sop_class in kinds.items()]


def make_item(folder: Path, kind: str, sop_class: str, study_uid: str, size: int = 64) -> DeliveryItem:
    """Write one Part-10 file with ``size`` by ``size`` noise pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = generate_uid()
    dataset.PatientID, dataset.PatientName = "SYNTHETIC", "Synthetic^Case"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.StudyID = dataset.ReferringPhysicianName = ""
    dataset.Modality = "OT"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    noise = np.random.default_rng(seed=7).integers(0, 256, size=(size, size), dtype=np.uint8)
    dataset.PixelData = noise.tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return DeliveryItem(
        object_uid=dataset.SOPInstanceUID,
        kind=kind,
        path=path,
        sop_class_uid=sop_class,
        run_id=RUN_ID,
        study_key=STUDY_KEY,
    )


def make_bundle(folder: Path, *, name: str = "run-1") -> DeliveryItem:
    """Write a transaction Bundle: a synthetic patient, an observation and a report, all conditional."""
    entries = [_entry(resource, name) for resource in ("Patient", "Observation", "DiagnosticReport")]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bundle.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    return DeliveryItem(
        object_uid=f"bundle:{name}",
        kind="bundle",
        path=path,
        sop_class_uid=None,
        run_id=RUN_ID,
        study_key=STUDY_KEY,
    )


def _entry(resource_type: str, name: str) -> dict:
    system, value = "urn:example:preread", f"{name}/{resource_type.lower()}"
    resource: dict = {"resourceType": resource_type, "identifier": [{"system": system, "value": value}]}
    if resource_type != "Patient":
        coding = {"system": "http://loinc.org", "code": "24590-2"}
        resource |= {
            "status": "preliminary",
            "code": {"coding": [coding]},
            "subject": {"reference": "urn:uuid:00000000-0000-5000-8000-00000000000a"},
            "effectiveDateTime": "2026-01-02T10:15:00Z",
        }
    suffix = {"Patient": "a", "Observation": "b", "DiagnosticReport": "c"}[resource_type]
    return {
        "fullUrl": f"urn:uuid:00000000-0000-5000-8000-00000000000{suffix}",
        "resource": resource,
        "request": {"method": "POST", "url": resource_type, "ifNoneExist": f"identifier={system}|{value}"},
    }
