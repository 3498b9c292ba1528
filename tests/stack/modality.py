"""Adapter: the machines around the node: a scanner that sends, a receiver that takes notes, tiny studies."""

from __future__ import annotations

import gc
import hashlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt

from orthanc.process import free_port


def uid_of(*parts: object) -> str:
    """Return a UID that depends on ``parts`` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest, 'big')}"


def make_study(
    number: int,
    *,
    slices: int = 8,
    size: int = 64,
    series_descriptions: Sequence[str] = ("AX FLAIR",),
    manufacturer: str = "Phantom Works",
    modality: str = "MR",
    first_slice: int = 0,
    taken_at: datetime | None = None,
) -> list[Dataset]:
    """Return a small brain-like MR study: a folded grey disc with a brighter one in it, on a dark ground.

    The folds are there because the node refuses a uniform disc as the phantom that it is.
    """
    taken_at = taken_at or datetime.now(UTC)
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    head = np.hypot(rows, columns) < 0.42
    tissue = 300 + 90 * np.cos(9 * np.arctan2(rows, columns)) * np.sin(24 * np.hypot(rows, columns))
    instances = []
    for series_number, description in enumerate(series_descriptions, start=1):
        for index in range(first_slice, first_slice + slices):
            lesion = np.hypot(rows - 0.12, columns - 0.15) < 0.14 * np.cos((index / slices - 0.5) * 2)
            noise = np.random.default_rng(number * 1000 + index).normal(0, 8, (size, size))
            pixels = (tissue * head + 350 * (lesion & head) + noise).clip(0, 1000).astype(np.uint16)
            instances.append(
                _make_slice(number, series_number, index, description, manufacturer, modality, pixels)
            )
    for instance in instances:
        instance.StudyDate = instance.SeriesDate = instance.ContentDate = taken_at.strftime("%Y%m%d")
        instance.StudyTime = instance.SeriesTime = instance.ContentTime = taken_at.strftime("%H%M%S")
    return instances


def _make_slice(
    number: int,
    series_number: int,
    index: int,
    description: str,
    manufacturer: str,
    modality: str,
    pixels: np.ndarray,
) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = uid_of("instance", number, series_number, description, index)
    ds.StudyInstanceUID = uid_of("study", number)
    ds.SeriesInstanceUID = uid_of("series", number, series_number, description)
    ds.FrameOfReferenceUID = uid_of("frame", number)
    ds.PatientName, ds.PatientID = f"Phantom^Number{number}", f"PHANTOM-{number:04d}"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.AccessionNumber, ds.StudyID = f"A{number:06d}", "1"
    ds.ReferringPhysicianName = ds.PositionReferenceIndicator = ds.Laterality = ""
    ds.StudyDescription, ds.SeriesDescription = "MR BRAIN", description
    ds.Modality, ds.Manufacturer, ds.BodyPartExamined = modality, manufacturer, "BRAIN"
    ds.ManufacturerModelName, ds.DeviceSerialNumber, ds.SoftwareVersions = "Phantom", "1", "1"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength, ds.InversionTime = "9000", "120", "1", "2500"
    ds.PatientPosition, ds.SeriesNumber, ds.InstanceNumber = "HFS", series_number, index + 1
    ds.AcquisitionNumber = 1
    ds.SliceThickness, ds.SpacingBetweenSlices = "5", "5"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-96.0, -96.0, 5.0 * index]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelSpacing = [192 / pixels.shape[0], 192 / pixels.shape[1]]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.WindowCenter, ds.WindowWidth = "350", "700"
    ds.PixelData = pixels.tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    return ds


def send(
    instances: Sequence[Dataset], port: int, *, called: str = "ORTHANC", calling: str = "SCANNER"
) -> list[int | None]:
    """C-STORE ``instances`` over one association; return one status each, None where there was no answer."""
    ae = AE(calling)
    for sop_class in {instance.SOPClassUID for instance in instances}:
        ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        del association
        _collect_sockets()
        return [None] * len(instances)
    statuses: list[int | None] = []
    for instance in instances:
        if not association.is_established:
            statuses.append(None)
            continue
        try:
            answer = association.send_c_store(instance)
        except RuntimeError:  # the association died between the look and the send
            statuses.append(None)
            continue
        statuses.append(answer.Status if "Status" in answer else None)
    if association.is_established:
        association.release()
    return statuses


def _collect_sockets() -> None:
    """Let go of the socket that pynetdicom leaves open when nobody listens, without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@dataclass
class Receiver:
    """A Storage SCP that remembers the SOP Instance UIDs it took, in order."""

    port: int
    taken: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def handle(self, event: evt.Event) -> int:
        uid = event.request.AffectedSOPInstanceUID
        with self.changed:
            if uid in self.refused:
                return 0xA700
            self.taken.append(uid)
            self.changed.notify_all()
        return 0x0000


@contextmanager
def receiver(*, ae_title: str = "PREREAD", port: int | None = None) -> Iterator[Receiver]:
    """Run a Storage SCP on 127.0.0.1."""
    state = Receiver(port=port or free_port())
    ae = AE(ae_title)
    ae.supported_contexts = AllStoragePresentationContexts
    server = ae.start_server(
        ("127.0.0.1", state.port), block=False, evt_handlers=[(evt.EVT_C_STORE, state.handle)]
    )
    try:
        yield state
    finally:
        server.shutdown()
