"""Pure. CT and MR image datasets made from arrays, for phantoms and test studies.

What is written is complete and valid by PS3.3, with UIDs that follow from a seed, so that the same call gives
the same bytes. It must never be used on a patient's images: names and numbers here are made up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

DEFAULT_ACQUIRED_AT: Final = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
"""When synthetic studies say that they were acquired."""

SYNTHETIC_MANUFACTURER: Final = "Synthetic images"
"""Manufacturer of synthetic studies: not that of our results, which the node never reads again."""

_SOP_CLASSES: Final = MappingProxyType({"CT": CTImageStorage, "MR": MRImageStorage})

_UUID_DERIVED_ROOT: Final = "2.25."

_SPIN_ECHO: Final = MappingProxyType(
    {
        "ScanningSequence": "SE",
        "SequenceVariant": "SK",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "EchoTrainLength": 1,
        "EchoTime": 14.0,
        "RepetitionTime": 500.0,
        "MagneticFieldStrength": 1.5,
    }
)
_TECHNIQUES: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "MR": _SPIN_ECHO,
        "CT": MappingProxyType(
            {
                "KVP": 120.0,
                "AcquisitionNumber": 1,
                "RescaleIntercept": -1024.0,
                "RescaleSlope": 1.0,
                "RescaleType": "HU",
            }
        ),
    }
)
"""Attributes of the image modules (PS3.3 C.8.2.1, C.8.3.1) that every image of a modality carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticStudy:
    """Who and when: the attributes that the series of one synthetic study share.

    Attributes
    ----------
    seed : str
        Everything that has a UID derives it from this.
    patient_name, patient_id : str
        Made-up identity.
    description : str
        Study Description.
    acquired_at : datetime
        Aware time of the study.
    """

    seed: str
    patient_name: str
    patient_id: str
    description: str
    acquired_at: datetime = DEFAULT_ACQUIRED_AT

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return synthetic_uid(self.seed, "study")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSeries:
    """One series of parallel planes.

    Attributes
    ----------
    number : int
        Series Number; series of one study differ in it.
    description, modality : str
        Series Description; ``CT`` or ``MR``.
    pixel_spacing_mm : tuple of float
        Distance between rows, between columns.
    thickness_mm, spacing_mm : float
        Slice Thickness, Spacing Between Slices.
    positions, orientations : ndarray
        (D, 3) and (D, 6) float64, LPS mm: Image Position and Orientation (Patient) of each slice.
    image_type : tuple of str
        Image Type.
    technique : mapping
        Attributes by keyword that replace or add to the modality's usual ones.
    """

    number: int
    description: str
    modality: str = "MR"
    pixel_spacing_mm: tuple[float, float]
    thickness_mm: float
    spacing_mm: float
    positions: npt.NDArray[np.float64]
    orientations: npt.NDArray[np.float64]
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "OTHER")
    technique: Mapping[str, object] = field(default_factory=dict)


def synthetic_uid(*parts: str | int) -> str:
    """Return a UID that follows from its parts (PS3.5 B.2, UUID-derived)."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
    bits = int.from_bytes(digest[:16], "big")
    version_8 = (bits & ~(0xF << 76) & ~(0x3 << 62)) | (0x8 << 76) | (0x2 << 62)  # RFC 9562
    return f"{_UUID_DERIVED_ROOT}{version_8}"


def image_datasets(
    study: SyntheticStudy, series: SyntheticSeries, stored: npt.NDArray[np.int16]
) -> tuple[Dataset, ...]:
    """Make the images of one series.

    Parameters
    ----------
    study : SyntheticStudy
        What the images share with the study's other series.
    series : SyntheticSeries
        Geometry and technique.
    stored : ndarray
        (D, H, W) int16 stored values; negative values are allowed.

    Returns
    -------
    tuple of Dataset
        D single-frame images with file meta information, explicit VR little endian, Instance Number from 1.
    """
    return tuple(_image(study, series, stored, index) for index in range(len(stored)))


def _image(
    study: SyntheticStudy, series: SyntheticSeries, stored: npt.NDArray[np.int16], index: int
) -> Dataset:
    """Make one image."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = _SOP_CLASSES[series.modality]
    dataset.SOPInstanceUID = synthetic_uid(study.seed, "image", series.number, index)
    dataset.InstanceNumber = index + 1
    dataset.ImageType = list(series.image_type)
    add_study(dataset, study)
    _add_series(dataset, study, series)
    _add_plane(dataset, series, index)
    _add_pixels(dataset, stored[index], stored)
    for keyword, value in {**_TECHNIQUES[series.modality], **series.technique}.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = file_meta_of(dataset)
    return dataset


def add_study(dataset: Dataset, study: SyntheticStudy) -> None:
    """Add the patient and study modules (PS3.3 C.7.1.1, C.7.2.1)."""
    dataset.PatientName = study.patient_name
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate = "19600101"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = study.study_uid
    dataset.StudyID = "1"
    dataset.StudyDescription = study.description
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = study.acquired_at.strftime("%Y%m%d")
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = study.acquired_at.strftime("%H%M%S")
    dataset.ReferringPhysicianName = ""
    dataset.AccessionNumber = synthetic_uid(study.seed, "accession")[-8:]


def _add_series(dataset: Dataset, study: SyntheticStudy, series: SyntheticSeries) -> None:
    """Add the series, equipment and frame of reference modules (PS3.3 C.7.3.1, C.7.5.1, C.7.4.1)."""
    dataset.Modality = series.modality
    dataset.SeriesInstanceUID = synthetic_uid(study.seed, "series", series.number)
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    dataset.BodyPartExamined = "HEAD"
    dataset.PatientPosition = "HFS"
    dataset.FrameOfReferenceUID = synthetic_uid(study.seed, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = SYNTHETIC_MANUFACTURER
    dataset.ManufacturerModelName = "Analytic phantom"
    dataset.SoftwareVersions = "1"


def _add_plane(dataset: Dataset, series: SyntheticSeries, index: int) -> None:
    """Add the image plane module (PS3.3 C.7.6.2)."""
    dataset.PixelSpacing = list(series.pixel_spacing_mm)
    dataset.SliceThickness = series.thickness_mm
    if series.modality == "MR":
        dataset.SpacingBetweenSlices = series.spacing_mm
    dataset.ImagePositionPatient = [_decimal(value) for value in series.positions[index]]
    dataset.ImageOrientationPatient = [_decimal(value) for value in series.orientations[index]]


def _add_pixels(dataset: Dataset, plane: npt.NDArray[np.int16], stored: npt.NDArray[np.int16]) -> None:
    """Add the image pixel module (PS3.3 C.7.6.3), and a window that the whole series shares."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    low, high = (float(value) for value in np.percentile(stored, (1.0, 99.5)))
    intercept = -1024.0 if dataset.Modality == "CT" else 0.0
    dataset.WindowCenter = _decimal((low + high) / 2 + intercept)
    dataset.WindowWidth = _decimal(max(high - low, 1.0))
    dataset.PixelData = np.ascontiguousarray(plane, dtype="<i2").tobytes()
    dataset["PixelData"].VR = "OW"


def _decimal(value: float) -> float:
    """Round to what a decimal string of 16 bytes holds."""
    return round(float(value), 6) + 0.0


def file_meta_of(dataset: Dataset) -> FileMetaDataset:
    """Return the file meta information of an image in explicit VR little endian (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return meta
