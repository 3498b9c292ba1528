"""Pure. Small synthetic instances for tests of the receiving side."""

from __future__ import annotations

import hashlib
from io import BytesIO

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.part10 import PartTen, split_part10

ROOT = "1.2.826.0.1.3680043.10.1000"


def make_uid(*parts: object) -> str:
    """Return a UID that depends on the parts alone."""
    number = int(hashlib.sha256(repr(parts).encode()).hexdigest()[:24], 16)
    return f"{ROOT}.{number}"


def make_image(
    study: str = "a", series: int = 1, number: int = 1, *, size: int = 8, **elements: object
) -> Dataset:
    """Return a CT image of ``size`` x ``size`` pixels; ``elements`` replace or add, None deletes."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = make_uid(study, series, number)
    image.StudyInstanceUID = make_uid(study)
    image.SeriesInstanceUID = make_uid(study, series)
    image.PatientName = "Phantom^Synthetic"
    image.PatientID = "PHANTOM"
    image.Modality = "CT"
    image.Manufacturer = "Scanner Works"
    image.StudyDescription = "CT head"
    image.SeriesDescription = f"Series {series}"
    image.BodyPartExamined = "HEAD"
    image.SeriesNumber = series
    image.InstanceNumber = number
    image.Rows = image.Columns = size
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = bytes([number % 256, series % 256]) * (size * size)
    for keyword, value in elements.items():
        if value is None:
            del image[keyword]
        else:
            setattr(image, keyword, value)
    image.file_meta.MediaStorageSOPClassUID = image.get("SOPClassUID", "")
    image.file_meta.MediaStorageSOPInstanceUID = image.get("SOPInstanceUID", "")
    return image


def encode_file(image: Dataset) -> bytes:
    """Return the instance as a Part 10 file."""
    target = BytesIO()
    copy = FileDataset(None, image, preamble=bytes(128), file_meta=image.file_meta)
    copy.save_as(target, enforce_file_format=bool(image.file_meta.MediaStorageSOPInstanceUID))
    return target.getvalue()


def encode_pieces(image: Dataset) -> PartTen:
    """Return the instance as header and Data Set."""
    return split_part10(encode_file(image))
