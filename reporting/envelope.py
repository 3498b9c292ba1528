"""Pure. What every DICOM result shares: patient, study, equipment, times, character set.

highdicom builds the content on neutral headers (no patient reaches its checks or
its log messages); `seal` then copies patient and study from the source, as they
are, and sets what makes an object ours. All random and clock values that the
library puts in are replaced here, so that equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.headers import OWN_MANUFACTURER
from inference.findings import ModelIdentity
from reporting import codes
from reporting.context import ReportContext, ResultKind, name_device
from reporting.items import code_item
from reporting.safety import SERIES_PREFIX
from reporting.times import write_date_and_time, write_date_time, zone_of
from reporting.uids import derive_uid

#: Implementation Class UID (0002,0012) of what Preread writes.
IMPLEMENTATION_CLASS_UID: Final = derive_uid("implementation", OWN_MANUFACTURER)
_IMPLEMENTATION_VERSION_NAME: Final = "PREREAD"
_UTF_8: Final = "ISO_IR 192"
_LONG_STRING: Final = 64
_SHORT_STRING: Final = 16

#: Series Number of each kind; the objects of the n-th model get n tens more, heat maps n hundreds.
_SERIES_NUMBERS: Final = {
    ResultKind.SEGMENTATION: 9001,
    ResultKind.MEASUREMENTS: 9002,
    ResultKind.VOLUMES: 9003,
    ResultKind.NARRATIVE: 9004,
    ResultKind.OVERVIEW: 9005,
    ResultKind.FINDINGS: 9006,
    ResultKind.ESTIMATES: 9007,
    ResultKind.KEY_IMAGES: 9008,
    ResultKind.PDF: 9009,
    ResultKind.HEATMAP: 9101,
}
_NUMBERS_PER_MODEL: Final = 10
_HEATMAPS_PER_MODEL: Final = 100
_SERIES_TITLES: Final = {
    ResultKind.SEGMENTATION: "segmentation",
    ResultKind.MEASUREMENTS: "diameters",
    ResultKind.VOLUMES: "volumes",
    ResultKind.NARRATIVE: "draft report",
    ResultKind.OVERVIEW: "overview",
    ResultKind.FINDINGS: "findings",
    ResultKind.ESTIMATES: "estimates",
    ResultKind.KEY_IMAGES: "key images",
    ResultKind.PDF: "report PDF",
    ResultKind.HEATMAP: "heat map",
}
#: Type 2 attributes of the Patient and General Study modules: written empty when the source has none.
_TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
#: Attributes of the Patient, General Study, Patient Study and Clinical Trial modules (PS3.3 C.7.1, C.7.2)
#: that are copied when the source has them.
_COPIED: Final = (
    *_TYPE_2,
    "StudyInstanceUID",
    "StudyDescription",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDsSequence",
    "IssuerOfAccessionNumberSequence",
    "ProcedureCodeSequence",
    "PatientBirthTime",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "TimezoneOffsetFromUTC",
)
#: What highdicom reads of a source image; anything else stays away from it.
_GEOMETRY: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One object before it exists: its names, its source and the models behind it.

    Attributes
    ----------
    source : Dataset
        Header of an image of the reference series, from which patient and study are copied.
    models : tuple of ModelIdentity
        The models whose results the object carries.
    model_index : int
        Position of the model in the run; keeps Series Numbers apart.
    part : str
        What tells objects of the same kind and model apart, where there are several (heat maps).
    part_title : str
        The same in words, for the Series Description.
    part_number : int
        Position among them.
    """

    kind: ResultKind
    source: Dataset
    models: tuple[ModelIdentity, ...]
    context: ReportContext
    model_index: int = 0
    part: str = ""
    part_title: str = ""
    part_number: int = 0

    @property
    def sop_instance_uid(self) -> str:
        """UID of the object."""
        return self._name("instance")

    @property
    def series_instance_uid(self) -> str:
        """UID of its series, which has no other object."""
        return self._name("series")

    @property
    def dimension_organization_uid(self) -> str:
        """UID of its dimension organisation, if it has frames."""
        return self._name("dimensions")

    @property
    def series_number(self) -> int:
        """Number of its series."""
        step = _HEATMAPS_PER_MODEL if self.kind is ResultKind.HEATMAP else _NUMBERS_PER_MODEL
        return _SERIES_NUMBERS[self.kind] + step * self.model_index + self.part_number

    @property
    def model_name(self) -> str:
        """Name of the model, or the names joined by +."""
        return "+".join(model.name for model in self.models)

    @property
    def model_version(self) -> str:
        """Version of the model, or the versions joined by +."""
        return "+".join(model.version for model in self.models)

    @property
    def series_description(self) -> str:
        """``AI`` + what + model and version, at most 64 characters."""
        title = f"{_SERIES_TITLES[self.kind]} {self.part_title}".rstrip()
        text = f"{SERIES_PREFIX} {title} {self.model_name} {self.model_version}"
        return text[:_LONG_STRING].rstrip()

    def _name(self, what: str) -> str:
        study_uid = str(self.source.StudyInstanceUID)
        parts = (self.kind.value, self.part) if self.part else (self.kind.value,)
        return str(self.context.name_result(study_uid, self.models, what, *parts))


def neutral_header(source: Dataset) -> Dataset:
    """Return the geometry and names of an image without its patient.

    Parameters
    ----------
    source : Dataset
        Header of an image; pixel data may be absent.

    Returns
    -------
    Dataset
        What highdicom needs to build on it; patient and study elements are empty.
    """
    header = Dataset()
    for keyword in _GEOMETRY:
        if keyword in source:
            header.add(source[keyword])
    if "PerFrameFunctionalGroupsSequence" not in source and "SliceThickness" not in source:
        header.SliceThickness = None
    for keyword in _TYPE_2:
        setattr(header, keyword, None)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def seal(content: Dataset, envelope: Envelope) -> Dataset:
    """Return the finished object: ``content`` with everything that all our objects share.

    Parameters
    ----------
    content : Dataset
        The object-specific attributes, plus SOP Class, SOP Instance and Series UID, Modality.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset
        Plain data set with file meta information, ready to be written.
    """
    sealed = Dataset(content)
    context, source = envelope.context, envelope.source
    _write_series_and_equipment(sealed, envelope)
    _write_times(sealed, envelope)
    sealed.ContributingEquipmentSequence = [
        *(_describe_model(model, context) for model in envelope.models),
        _describe_library(context),
    ]
    _declare_private_codes(sealed)
    _write_character_set(sealed, source)
    _copy_patient_and_study(sealed, source)
    sealed.file_meta = _write_file_meta(sealed, content)
    sealed.preamble = b"\0" * 128
    return sealed


def _declare_private_codes(sealed: Dataset) -> None:
    """Say whose the private codes are, if there are any (PS3.3 C.12.1.1.7)."""
    if not any(
        element.keyword == "CodingSchemeDesignator" and element.value == codes.PRIVATE_SCHEME
        for element in sealed.iterall()
    ):
        return
    item = Dataset()
    item.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    item.CodingSchemeUID = codes.PRIVATE_SCHEME_UID
    item.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = OWN_MANUFACTURER
    sealed.CodingSchemeIdentificationSequence = [item]


def _write_series_and_equipment(sealed: Dataset, envelope: Envelope) -> None:
    sealed.SOPInstanceUID = envelope.sop_instance_uid
    sealed.SeriesInstanceUID = envelope.series_instance_uid
    sealed.SeriesNumber = envelope.series_number
    sealed.InstanceNumber = 1
    sealed.SeriesDescription = envelope.series_description
    sealed.Manufacturer = OWN_MANUFACTURER
    sealed.ManufacturerModelName = envelope.model_name[:_LONG_STRING]
    sealed.SoftwareVersions = [
        f"{OWN_MANUFACTURER} {envelope.context.software_version}"[:_LONG_STRING],
        *(f"{model.name} {model.version}"[:_LONG_STRING] for model in envelope.models),
    ]
    # The weights are the serial number of a model: two installations with the same are the same device.
    sealed.DeviceSerialNumber = envelope.models[0].weights_sha256[:_LONG_STRING]


def _write_times(sealed: Dataset, envelope: Envelope) -> None:
    zone = zone_of(envelope.source, envelope.context.site_timezone)
    day, clock = write_date_and_time(envelope.context.created_at, zone)
    sealed.InstanceCreationDate, sealed.InstanceCreationTime = day, clock
    sealed.SeriesDate, sealed.SeriesTime = day, clock
    sealed.ContentDate, sealed.ContentTime = day, clock


def _describe_model(model: ModelIdentity, context: ReportContext) -> Dataset:
    """Return the Contributing Equipment item of a model (IHE AIR: one per algorithm)."""
    item = Dataset()
    item.Manufacturer = model.manufacturer[:_LONG_STRING]
    item.ManufacturerModelName = model.name[:_LONG_STRING]
    item.SoftwareVersions = model.version[:_LONG_STRING]
    item.DeviceSerialNumber = model.weights_sha256[:_LONG_STRING]
    item.DeviceUID = name_device(model)
    item.ContributionDateTime = write_date_time(context.created_at)
    item.ContributionDescription = "Algorithm that made this result"
    item.PurposeOfReferenceCodeSequence = [code_item(codes.PROCESSING_EQUIPMENT)]
    return item


def _describe_library(context: ReportContext) -> Dataset:
    item = Dataset()
    item.Manufacturer = OWN_MANUFACTURER
    item.ManufacturerModelName = OWN_MANUFACTURER
    item.SoftwareVersions = context.software_version[:_LONG_STRING]
    item.ContributionDateTime = write_date_time(context.created_at)
    item.ContributionDescription = "Software that ran the algorithm and wrote this object"
    item.PurposeOfReferenceCodeSequence = [code_item(codes.PROCESSING_EQUIPMENT)]
    return item


def _copy_patient_and_study(sealed: Dataset, source: Dataset) -> None:
    for keyword in _COPIED:
        if keyword in source:
            sealed.add(_copy_element(source[keyword]))
        elif keyword in _TYPE_2:
            setattr(sealed, keyword, None)


def _copy_element(element: DataElement) -> DataElement:
    """Return an equal element without checking its value: what the source says is copied, odd or not."""
    return DataElement(element.tag, element.VR, deepcopy(element.value), already_converted=True)


def _write_character_set(sealed: Dataset, source: Dataset) -> None:
    """Keep the source's character set if our own text fits into it, else take UTF-8.

    The PACS already reads the source's, and ASCII fits into every one of them.
    """
    declared = source.get("SpecificCharacterSet")
    terms = [declared] if isinstance(declared, str) else list(declared or [])
    if not all(term in python_encoding for term in terms) or not _is_ascii(sealed):
        sealed.SpecificCharacterSet = _UTF_8
    elif any(terms):
        sealed.SpecificCharacterSet = terms[0] if len(terms) == 1 else terms
    elif "SpecificCharacterSet" in sealed:
        del sealed.SpecificCharacterSet


def _is_ascii(dataset: Dataset) -> bool:
    return all(
        str(value).isascii()
        for element in dataset.iterall()
        if element.VR in _TEXT_VRS
        for value in (element.value if element.VM > 1 else [element.value])
    )


_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def _write_file_meta(sealed: Dataset, content: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sealed.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(sealed.SOPInstanceUID)
    given = getattr(content, "file_meta", None)
    meta.TransferSyntaxUID = given.TransferSyntaxUID if given is not None else ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = _IMPLEMENTATION_VERSION_NAME
    return meta


def reference_instances(headers: Sequence[Dataset]) -> list[Dataset]:
    """Return Referenced SOP Sequence items (class and instance) for ``headers``."""
    items = []
    for header in headers:
        item = Dataset()
        item.ReferencedSOPClassUID = header.SOPClassUID
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        items.append(item)
    return items
