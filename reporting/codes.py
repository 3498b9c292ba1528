"""Pure. Every code that Preread writes, with its source, and the maps from findings to codes.

One table for DICOM and FHIR. Codes come from PS3.16 (the context group is named)
or from LOINC; nothing is invented. A finding, site or quantity that is missing
here cannot be reported: add it here, with its source, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from inference.findings import Laterality, Measurement, Presence, Quantity
from reporting.errors import UnknownConceptError


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One coded concept.

    Attributes
    ----------
    value : str
        Code Value (0008,0100).
    scheme : str
        Coding Scheme Designator (0008,0102).
    meaning : str
        Code Meaning (0008,0104), at most 64 characters.
    source : str
        Where the code is defined or bound.
    """

    value: str
    scheme: str
    meaning: str
    source: str

    @property
    def fhir_system(self) -> str:
        """URI of the coding scheme in FHIR (PS3.16 table 8-1)."""
        return _FHIR_SYSTEMS[self.scheme]


_FHIR_SYSTEMS: Final = MappingProxyType(
    {
        "SCT": "http://snomed.info/sct",
        "DCM": "http://dicom.nema.org/resources/ontology/DCM",
        "LN": "http://loinc.org",
        "UCUM": "http://unitsofmeasure.org",
    }
)


def _sct(value: str, meaning: str, source: str) -> Concept:
    return Concept(value=value, scheme="SCT", meaning=meaning, source=source)


def _dcm(value: str, meaning: str, source: str) -> Concept:
    return Concept(value=value, scheme="DCM", meaning=meaning, source=source)


def _ln(value: str, meaning: str, source: str) -> Concept:
    return Concept(value=value, scheme="LN", meaning=meaning, source=source)


def _ucum(value: str, meaning: str, source: str) -> Concept:
    return Concept(value=value, scheme="UCUM", meaning=meaning, source=source)


# Document titles
IMAGING_MEASUREMENT_REPORT: Final = _dcm("126000", "Imaging Measurement Report", "CID 7021")
ONCOLOGY_MEASUREMENT_REPORT: Final = _dcm("126001", "Oncology Measurement Report", "CID 7021")
DIAGNOSTIC_IMAGING_REPORT: Final = _ln("18748-4", "Diagnostic Imaging Report", "CID 7000")

# Sections of the narrative and their elements
SUMMARY_SECTION: Final = _ln("55112-7", "Summary", "CID 7001")
PROCEDURE_SECTION: Final = _ln("55111-9", "Current Procedure Descriptions", "CID 7001")
FINDINGS_SECTION: Final = _ln("59776-5", "Findings", "CID 7001")
IMPRESSIONS_SECTION: Final = _ln("19005-8", "Impressions", "CID 7001")
RECOMMENDATIONS_SECTION: Final = _ln("18783-1", "Recommendations", "CID 7001")
SUMMARY_ELEMENT: Final = _ln("55112-7", "Summary", "CID 7002")
PROCEDURE_ELEMENT: Final = _dcm("121065", "Procedure Description", "CID 7002")
FINDING: Final = _dcm("121071", "Finding", "CID 7002")
IMPRESSION_ELEMENT: Final = _dcm("121073", "Impression", "CID 7002")
RECOMMENDATION_ELEMENT: Final = _dcm("121075", "Recommendation", "CID 7002")

# Structure of content trees
LANGUAGE_OF_CONTENT: Final = _dcm("121049", "Language of Content Item and Descendants", "TID 1204")
ENGLISH: Final = Concept(value="en", scheme="RFC5646", meaning="English", source="CID 5000")
OBSERVER_TYPE: Final = _dcm("121005", "Observer Type", "TID 1002")
DEVICE: Final = _dcm("121007", "Device", "CID 270")
DEVICE_OBSERVER_UID: Final = _dcm("121012", "Device Observer UID", "TID 1004")
DEVICE_OBSERVER_NAME: Final = _dcm("121013", "Device Observer Name", "TID 1004")
DEVICE_OBSERVER_MANUFACTURER: Final = _dcm("121014", "Device Observer Manufacturer", "TID 1004")
DEVICE_OBSERVER_MODEL: Final = _dcm("121015", "Device Observer Model Name", "TID 1004")
IMAGING_MEASUREMENTS: Final = _dcm("126010", "Imaging Measurements", "TID 1500")
MEASUREMENT_GROUP: Final = _dcm("125007", "Measurement Group", "TID 1501")
TRACKING_IDENTIFIER: Final = _dcm("112039", "Tracking Identifier", "TID 1501")
TRACKING_UNIQUE_IDENTIFIER: Final = _dcm("112040", "Tracking Unique Identifier", "TID 1501")
PROCEDURE_REPORTED: Final = _dcm("121058", "Procedure reported", "TID 1500")

# Who made it
ARTIFICIAL_INTELLIGENCE: Final = _dcm("123110", "Artificial Intelligence", "CID 7162")
PROCESSING_EQUIPMENT: Final = _dcm("109102", "Processing Equipment", "CID 7005")

# Derived pictures
SEGMENTATION_DERIVATION: Final = _dcm("113076", "Segmentation", "CID 7203")
SOURCE_IMAGE: Final = _dcm("121322", "Source image for image processing operation", "CID 7202")

# Quantities and units
VOLUME: Final = _sct("118565006", "Volume", "CID 7469")
LONG_AXIS: Final = _sct("103339001", "Long Axis", "CID 7469")
SHORT_AXIS: Final = _sct("103340004", "Short Axis", "CID 7469")
LENGTH: Final = _sct("410668003", "Length", "CID 7469")
MILLIMETRE: Final = _ucum("mm", "millimeter", "CID 7460")
CUBIC_CENTIMETRE: Final = _ucum("cm3", "cubic centimeter", "CID 7462")
MILLILITRE: Final = _ucum("mL", "milliliter", "UCUM")
PERCENT: Final = _ucum("%", "percent", "CID 7469, UCUM")

# Sides and presence
LEFT: Final = _sct("7771000", "Left", "CID 244")
RIGHT: Final = _sct("24028007", "Right", "CID 244")
BILATERAL: Final = _sct("51440002", "Bilateral", "CID 244")
PRESENT: Final = _sct("52101004", "Present", "CID 240")
ABSENT: Final = _sct("272519000", "Absent", "CID 240")
UNDETERMINED: Final = _sct("373068000", "Undetermined", "CID 240")

LATERALITY: Final = _sct("272741003", "Laterality", "CID 210")
CERTAINTY: Final = _dcm("111012", "Certainty of Finding", "CID 6048")

# Findings and sites
ABNORMAL_STRUCTURE: Final = _sct("49755003", "Morphologically Abnormal Structure", "CID 7150")
LESION_OF_BRAIN: Final = _sct("301766008", "Lesion of Brain", "CID 7151, CID 7199")
NEOPLASM: Final = _sct("108369006", "Neoplasm", "CID 7151, CID 7159")
BRAIN: Final = _sct("12738006", "Brain", "CID 7151")

# Procedures
MR_UNSPECIFIED: Final = _ln("25056-3", "MRI unspecified body region", "CID 100")
CT_UNSPECIFIED: Final = _ln("25045-6", "CT unspecified body region", "CID 100")
XR_UNSPECIFIED: Final = _ln("43468-8", "XR unspecified body region", "CID 100")
MR_BRAIN: Final = _ln("24590-2", "MR Brain", "CID 646, LOINC")


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingConcept:
    """How one kind of finding is coded, coloured and named.

    Attributes
    ----------
    category, type : Concept
        Segmented Property Category and Type, finding category and finding.
    conclusion : Concept
        What a report may conclude from it: the sign that was seen, never a diagnosis.
    label : str
        Name of a segment; its number follows.
    noun : str
        The finding in a sentence, in the singular and without an article.
    rgb : tuple of int
        Recommended display colour, 0 to 255.
    """

    category: Concept
    type: Concept
    conclusion: Concept
    label: str
    noun: str
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConcept:
    """How one anatomic site is coded and named, and which study shows it.

    ``body_part`` is the Defined Term of Body Part Examined (PS3.16 annex L).
    """

    concept: Concept
    noun: str
    body_part: str
    study_codes: MappingProxyType[str, Concept]


_FINDINGS: Final = MappingProxyType(
    {
        # The training masks outline the FLAIR abnormality of a known tumour: the segment is
        # named by what was outlined, its type by what CID 7159 has for it.
        "neoplasm": FindingConcept(
            category=ABNORMAL_STRUCTURE,
            type=NEOPLASM,
            conclusion=LESION_OF_BRAIN,
            label="FLAIR abnormality",
            noun="FLAIR signal abnormality",
            rgb=(230, 60, 50),
        ),
    }
)
_SITES: Final = MappingProxyType(
    {
        "brain": SiteConcept(
            concept=BRAIN,
            noun="brain",
            body_part="BRAIN",
            study_codes=MappingProxyType({"MR": MR_BRAIN}),
        )
    }
)
_LATERALITIES: Final = MappingProxyType(
    {Laterality.LEFT: LEFT, Laterality.RIGHT: RIGHT, Laterality.BILATERAL: BILATERAL}
)
_PRESENCES: Final = MappingProxyType(
    {Presence.PRESENT: PRESENT, Presence.ABSENT: ABSENT, Presence.UNDETERMINED: UNDETERMINED}
)
_QUANTITIES: Final = MappingProxyType(
    {Quantity.VOLUME: VOLUME, Quantity.LONG_AXIS: LONG_AXIS, Quantity.PERPENDICULAR_AXIS: SHORT_AXIS}
)
_PROCEDURES: Final = MappingProxyType(
    {"MR": MR_UNSPECIFIED, "CT": CT_UNSPECIFIED, "CR": XR_UNSPECIFIED, "DX": XR_UNSPECIFIED}
)
#: Factor from a unit that a model may use to the canonical unit of its quantity.
_TO_MILLIMETRE: Final = MappingProxyType({"mm": 1.0, "cm": 10.0})
_TO_MILLILITRE: Final = MappingProxyType({"mL": 1.0, "ml": 1.0, "cm3": 1.0, "mm3": 0.001})


def code_finding(concept: str) -> FindingConcept:
    """Return how a finding is coded.

    Raises
    ------
    UnknownConceptError
        If no finding of that key is known.
    """
    try:
        return _FINDINGS[concept]
    except KeyError as exc:
        raise UnknownConceptError(
            f"The finding {concept!r} has no code: add it to reporting/codes.py."
        ) from exc


def code_site(site: str) -> SiteConcept:
    """Return how an anatomic site is coded.

    Raises
    ------
    UnknownConceptError
        If no site of that key is known.
    """
    try:
        return _SITES[site]
    except KeyError as exc:
        raise UnknownConceptError(f"The site {site!r} has no code: add it to reporting/codes.py.") from exc


def code_laterality(laterality: Laterality) -> Concept:
    """Return the code of a side (CID 244)."""
    return _LATERALITIES[laterality]


def code_presence(presence: Presence) -> Concept:
    """Return the code of a presence (CID 240)."""
    return _PRESENCES[presence]


def code_quantity(quantity: Quantity) -> Concept:
    """Return the concept name of a measurement.

    The perpendicular diameter is coded as Short Axis: viewers read a pair of long
    and short axis as one bidirectional measurement.
    """
    return _QUANTITIES[quantity]


def code_procedure(modality: str) -> Concept:
    """Return the procedure that a measurement report is about (CID 100).

    Raises
    ------
    UnknownConceptError
        If no procedure of that modality is known.
    """
    try:
        return _PROCEDURES[modality]
    except KeyError as exc:
        raise UnknownConceptError(
            f"Modality {modality!r} has no procedure code: add it to reporting/codes.py."
        ) from exc


def code_study(modality: str, sites: frozenset[str]) -> Concept:
    """Return the code of the examination reported: the site's own where one applies, else the general one.

    Parameters
    ----------
    modality : str
        Modality of the images read.
    sites : frozenset of str
        Site keys of the findings.
    """
    if len(sites) == 1:
        site = code_site(next(iter(sites)))
        return site.study_codes.get(modality, DIAGNOSTIC_IMAGING_REPORT)
    return DIAGNOSTIC_IMAGING_REPORT


def value_in_mm(measurement: Measurement) -> float:
    """Return a length in mm.

    Raises
    ------
    UnknownConceptError
        If the unit is no length known here.
    """
    return _convert(measurement, _TO_MILLIMETRE)


def value_in_ml(measurement: Measurement) -> float:
    """Return a volume in mL (1 mL = 1 cm3).

    Raises
    ------
    UnknownConceptError
        If the unit is no volume known here.
    """
    return _convert(measurement, _TO_MILLILITRE)


def _convert(measurement: Measurement, factors: MappingProxyType[str, float]) -> float:
    try:
        return measurement.value * factors[measurement.unit]
    except KeyError as exc:
        raise UnknownConceptError(
            f"The unit {measurement.unit!r} does not fit {measurement.quantity.value}: "
            f"use one of {', '.join(factors)}."
        ) from exc
