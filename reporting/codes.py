"""Pure. Every code that Preread writes, with its source, and the maps from findings to codes.

One table for DICOM and FHIR. Codes come from PS3.16 (the context group is named), from
SNOMED CT or LOINC; where no code is certain there is a private one (scheme 99PREREAD),
which says so, and never a guess. A finding, site or quantity that is missing here cannot
be reported: add it here, with its source, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from inference.findings import Laterality, Measurement, Presence, Quantity, RiskClass, Scale
from reporting.errors import UnknownConceptError
from reporting.uids import derive_uid

#: Coding Scheme Designator of the codes that no standard scheme has for certain (PS3.3 C.12.1.1.7).
PRIVATE_SCHEME: Final = "99PREREAD"
#: Coding Scheme UID of the private codes, in DICOM and (as urn:oid) in FHIR.
PRIVATE_SCHEME_UID: Final = derive_uid("coding scheme", PRIVATE_SCHEME)
#: Coding Scheme Name of the private codes.
PRIVATE_SCHEME_NAME: Final = "Preread private codes"


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
        "UMLS": "http://terminology.hl7.org/CodeSystem/umls",
        PRIVATE_SCHEME: f"urn:oid:{PRIVATE_SCHEME_UID}",
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


def _private(value: str, meaning: str) -> Concept:
    return Concept(value=value, scheme=PRIVATE_SCHEME, meaning=meaning, source=f"private, {PRIVATE_SCHEME}")


#: SNOMED CT concepts that PS3.16 does not list: each was found in at least two independent public tables.
_SNOMED: Final = "SNOMED CT (not in PS3.16)"


# Document titles
IMAGING_MEASUREMENT_REPORT: Final = _dcm("126000", "Imaging Measurement Report", "CID 7021")
ONCOLOGY_MEASUREMENT_REPORT: Final = _dcm("126001", "Oncology Measurement Report", "CID 7021")
#: CID 7021 is extensible. OHIF 3.13 shows this title as text, and one of 126000 without a group not at all.
EVALUATION_REPORT: Final = _private("EVALUATION_REP", "Imaging Qualitative Evaluation Report")
DIAGNOSTIC_IMAGING_REPORT: Final = _ln("18748-4", "Diagnostic Imaging Report", "CID 7000")

# Sections of the narrative and their elements
SUMMARY_SECTION: Final = _ln("55112-7", "Summary", "CID 7001")
CLINICAL_SECTION: Final = _ln("55752-0", "Clinical Information", "CID 7001")
PROCEDURE_SECTION: Final = _ln("55111-9", "Current Procedure Descriptions", "CID 7001")
PREVIOUS_FINDINGS_SECTION: Final = _ln("18834-2", "Previous Findings", "CID 7001")
FINDINGS_SECTION: Final = _ln("59776-5", "Findings", "CID 7001")
IMPRESSIONS_SECTION: Final = _ln("19005-8", "Impressions", "CID 7001")
RECOMMENDATIONS_SECTION: Final = _ln("18783-1", "Recommendations", "CID 7001")
SUMMARY_ELEMENT: Final = _ln("55112-7", "Summary", "CID 7002")
CLINICAL_ELEMENT: Final = _ln("11329-0", "History", "CID 7002")
PROCEDURE_ELEMENT: Final = _dcm("121065", "Procedure Description", "CID 7002")
PREVIOUS_FINDING: Final = _dcm("121069", "Previous Finding", "CID 7002")
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
QUALITATIVE_EVALUATIONS: Final = Concept(
    value="C0034375", scheme="UMLS", meaning="Qualitative Evaluations", source="TID 1500"
)
COMMENT: Final = _dcm("121106", "Comment", "TID 1500")
BOUNDED_BY: Final = _sct("75958009", "Bounded by", "CID 219")
OF_INTEREST: Final = _dcm("113000", "Of Interest", "CID 7010")

# Who made it
ARTIFICIAL_INTELLIGENCE: Final = _dcm("123110", "Artificial Intelligence", "CID 7162")
PROCESSING_EQUIPMENT: Final = _dcm("109102", "Processing Equipment", "CID 7005")

# Derived pictures
SEGMENTATION_DERIVATION: Final = _dcm("113076", "Segmentation", "CID 7203")
SOURCE_IMAGE: Final = _dcm("121322", "Source image for image processing operation", "CID 7202")
CLASS_ACTIVATION: Final = _dcm("130403", "Gradient-weighted class activation", "CID 7180, CID 7469")
VISUAL_EXPLANATION: Final = _dcm("130401", "Visual explanation", "PS3.16 annex D")

# Quantities and units
VOLUME: Final = _sct("118565006", "Volume", "CID 7469")
LONG_AXIS: Final = _sct("103339001", "Long Axis", "CID 7469")
SHORT_AXIS: Final = _sct("103340004", "Short Axis", "CID 7469")
LENGTH: Final = _sct("410668003", "Length", "CID 7469")
MILLIMETRE: Final = _ucum("mm", "millimeter", "CID 7460")
CUBIC_CENTIMETRE: Final = _ucum("cm3", "cubic centimeter", "CID 7462")
MILLILITRE: Final = _ucum("mL", "milliliter", "UCUM")
PERCENT: Final = _ucum("%", "percent", "CID 7181, UCUM")
RATIO: Final = _ucum("{ratio}", "ratio", "CID 7181, UCUM")
AREA: Final = _sct("42798000", "Area", "CID 7469")
SQUARE_MILLIMETRE: Final = _ucum("mm2", "square millimeter", "CID 7461")
STANDARD_DEVIATION: Final = _sct("386136009", "Standard Deviation", "CID 7464")

# Sides and presence
LEFT: Final = _sct("7771000", "Left", "CID 244")
RIGHT: Final = _sct("24028007", "Right", "CID 244")
BILATERAL: Final = _sct("51440002", "Bilateral", "CID 244")
PRESENT: Final = _sct("52101004", "Present", "CID 240")
ABSENT: Final = _sct("272519000", "Absent", "CID 240")
UNDETERMINED: Final = _sct("373068000", "Undetermined", "CID 240")

LATERALITY: Final = _sct("272741003", "Laterality", "CID 210")
CERTAINTY: Final = _dcm("111012", "Certainty of Finding", "CID 6048")
PROBABILITY_OF_PRESENCE: Final = _private("PRESENCE_PROB", "Probability that the finding is present")

# Findings and sites
ABNORMAL_STRUCTURE: Final = _sct("49755003", "Morphologically Abnormal Structure", "CID 7150")
ANATOMICAL_STRUCTURE: Final = _sct("91723000", "Anatomical Structure", "CID 7150")
LESION_OF_BRAIN: Final = _sct("301766008", "Lesion of Brain", "CID 7151, CID 7199")
NEOPLASM: Final = _sct("108369006", "Neoplasm", "CID 7151, CID 7159")
BRAIN: Final = _sct("12738006", "Brain", "CID 7151")
GRAY_MATTER: Final = _sct("389081007", "Gray Matter", "CID 7151, CID 7153")
WHITE_MATTER: Final = _sct("68523003", "Cerebral White Matter", "CID 7151, CID 7153")
CEREBROSPINAL_FLUID: Final = _sct("65216001", "Cerebrospinal Fluid", "CID 7151, CID 7153")
HEMORRHAGE: Final = _sct("50960005", "Hemorrhage", "CID 7151, CID 7159")
INTRACRANIAL_HEMORRHAGE: Final = _sct("1386000", "Intracranial hemorrhage", "PS3.16 annex D (SNOMED)")
LESION: Final = _sct("52988006", "Lesion", "CID 7151, CID 7159")
MASS: Final = _sct("4147007", "Mass", "CID 6104, CID 7159")
NODULE: Final = _sct("27925004", "Nodule", "CID 6104, CID 7159")
OPACITY: Final = _dcm("112001", "Opacity", "CID 6104")
INFILTRATE: Final = _dcm("112121", "Infiltrate", "CID 6104")
INTERSTITIAL_PATTERN: Final = _dcm("112004", "Abnormal interstitial pattern", "CID 6104, CID 6106")
CALCIFICATION: Final = _sct("18115005", "Pathologic calcification", "CID 3802, CID 6335")
PLEURAL_EFFUSION: Final = _sct("60046008", "Pleural effusion", "CID 645")
PNEUMOTHORAX: Final = _sct("36118008", "Pneumothorax", "CID 6102, CID 6105")
PULMONARY_EDEMA: Final = _sct("19242006", "Pulmonary edema", "CID 3700")
ATELECTASIS: Final = _sct("46621007", "Atelectasis", _SNOMED)
CARDIOMEGALY: Final = _sct("8186001", "Cardiomegaly", _SNOMED)
CONSOLIDATION: Final = _sct("95436008", "Lung consolidation", _SNOMED)
EMPHYSEMA: Final = _sct("87433001", "Pulmonary emphysema", _SNOMED)
FIBROSIS: Final = _sct("51615001", "Fibrosis of lung", _SNOMED)
PNEUMONIA: Final = _sct("233604007", "Pneumonia", _SNOMED)
AORTIC_ENLARGEMENT: Final = _private("AORTA_ENLARGED", "Enlargement of the aorta")
HERNIA: Final = _private("HERNIA", "Hernia on chest radiograph")
NODULE_OR_MASS: Final = _private("NODULE_OR_MASS", "Nodule or mass")
PLEURAL_THICKENING: Final = _private("PLEURA_THICKENED", "Pleural thickening")
LUNG: Final = _sct("39607008", "Lung", "CID 4, CID 7151")
HEART: Final = _sct("80891009", "Heart", "CID 4009, CID 7151")
AORTA: Final = _sct("15825003", "Aorta", "CID 4, CID 7151")
PLEURA: Final = _sct("3120008", "Pleura", "CID 7151")
MEDIASTINUM: Final = _sct("72410000", "Mediastinum", "CID 4, CID 7151")
HEAD: Final = _sct("69536005", "Head", "CID 4, CID 7151")
THORAX: Final = _sct("816094009", "Thorax", "CID 4")

# What is estimated of a whole study, and how urgent it looks
TUMOUR_CLASS: Final = _private("TUMOUR_CLASS", "Estimated tumour class")
TUMOUR_GRADE: Final = _private("WHO_GRADE", "Estimated WHO grade of a lower-grade glioma")
RISK_GROUP: Final = _private("RISK_GROUP", "Estimated survival risk group")
RELATIVE_HAZARD: Final = _private("RELATIVE_HAZARD", "Hazard relative to the median training patient")
NORMAL: Final = _sct("17621005", "Normal", "CID 242")
BENIGN: Final = _sct("30807003", "Benign", "CID 6063")
MALIGNANT: Final = _sct("21594007", "Malignant", "CID 6063")
WHO_GRADE_2: Final = _private("WHO_GRADE_2", "WHO grade 2")
WHO_GRADE_3: Final = _private("WHO_GRADE_3", "WHO grade 3")
LOWER_THIRD: Final = _private("LOWER_THIRD", "Lower third of the training patients")
MIDDLE_THIRD: Final = _private("MIDDLE_THIRD", "Middle third of the training patients")
HIGHER_THIRD: Final = _private("HIGHER_THIRD", "Higher third of the training patients")
ALGORITHM_ANSWER: Final = _private("ALGORITHM_ANSWER", "Answer of an imaging algorithm")
TRIAGE: Final = _private("TRIAGE", "Triage class given by an algorithm")
TRIAGE_SCORE: Final = _private("TRIAGE_SCORE", "Calibrated probability of an abnormal study")
PREDICTIVE_VALUE: Final = _private("PREDICTIVE_VALUE", "Lower bound of the predictive value of the class")
LOW_RISK: Final = _sct("75976002", "Low risk", "CID 3118")
HIGH_RISK: Final = _sct("15508007", "High risk", "CID 3118")
UNCERTAIN_RISK: Final = _sct("64957009", "Uncertain risk", "CID 3118")

# Procedures
MR_UNSPECIFIED: Final = _ln("25056-3", "MRI unspecified body region", "CID 100")
CT_UNSPECIFIED: Final = _ln("25045-6", "CT unspecified body region", "CID 100")
#: CID 100 has had a code for radiography since 2024 only (43468-8, LN): validators and viewers know this one.
IMAGING_PROCEDURE: Final = _sct("363679005", "Imaging procedure", "CID 100")
MR_BRAIN: Final = _ln("24590-2", "MR Brain", "CID 646, LOINC")
CT_HEAD: Final = _ln("24725-4", "CT Head", "CID 7000, LOINC")
CT_CHEST: Final = _ln("24627-2", "CT Chest", "CID 7000, LOINC")
XR_CHEST: Final = _ln("30745-4", "XR Chest Views", "LOINC (not in PS3.16)")


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

    @property
    def is_anatomy(self) -> bool:
        """Whether this is a normal structure rather than something found."""
        return self.category == ANATOMICAL_STRUCTURE


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConcept:
    """How one anatomic site is coded and named, and which study shows it.

    ``body_part`` is the Defined Term of Body Part Examined (PS3.16 annex L).
    """

    concept: Concept
    noun: str
    body_part: str
    study_codes: MappingProxyType[str, Concept]


def _sign(
    concept: Concept,
    label: str,
    rgb: tuple[int, int, int],
    *,
    noun: str | None = None,
    conclusion: Concept | None = None,
) -> FindingConcept:
    """Return a finding whose own code is the sign that was seen, unless another is its conclusion."""
    return FindingConcept(
        category=ABNORMAL_STRUCTURE,
        type=concept,
        conclusion=conclusion or concept,
        label=label,
        noun=noun or label.lower(),
        rgb=rgb,
    )


def _structure(concept: Concept, label: str, rgb: tuple[int, int, int]) -> FindingConcept:
    """Return a normal structure, which is outlined and never concluded from."""
    return FindingConcept(
        category=ANATOMICAL_STRUCTURE,
        type=concept,
        conclusion=concept,
        label=label,
        noun=label.lower(),
        rgb=rgb,
    )


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
        # Head CT
        "intracranial_haemorrhage": _sign(
            INTRACRANIAL_HEMORRHAGE,
            "Intracranial haemorrhage",
            (210, 40, 90),
            noun="sign of intracranial haemorrhage",
            conclusion=HEMORRHAGE,
        ),
        "tumour": _sign(
            NEOPLASM, "Brain lesion", (230, 60, 50), noun="lesion like a tumour", conclusion=LESION_OF_BRAIN
        ),
        # Chest radiographs
        "aortic_enlargement": _sign(AORTIC_ENLARGEMENT, "Aortic enlargement", (235, 120, 60)),
        "atelectasis": _sign(ATELECTASIS, "Atelectasis", (255, 200, 60)),
        "calcification": _sign(CALCIFICATION, "Calcification", (200, 230, 255)),
        "cardiomegaly": _sign(CARDIOMEGALY, "Cardiomegaly", (255, 90, 70)),
        "consolidation": _sign(CONSOLIDATION, "Consolidation", (255, 150, 90)),
        "edema": _sign(PULMONARY_EDEMA, "Pulmonary oedema", (120, 200, 255), noun="sign of pulmonary oedema"),
        "effusion": _sign(PLEURAL_EFFUSION, "Pleural effusion", (80, 200, 255)),
        "emphysema": _sign(EMPHYSEMA, "Emphysema", (170, 170, 255), noun="sign of emphysema"),
        "fibrosis": _sign(FIBROSIS, "Fibrosis", (180, 140, 90), noun="sign of fibrosis"),
        "hernia": _sign(HERNIA, "Hernia", (220, 120, 200)),
        "ild": _sign(INTERSTITIAL_PATTERN, "Interstitial pattern", (150, 210, 150)),
        "infiltration": _sign(INFILTRATE, "Infiltrate", (255, 220, 120)),
        "lung_opacity": _sign(OPACITY, "Lung opacity", (230, 130, 255)),
        "mass": _sign(MASS, "Mass", (255, 70, 140)),
        "nodule": _sign(NODULE, "Nodule", (140, 230, 120)),
        "nodule_mass": _sign(NODULE_OR_MASS, "Nodule/Mass", (140, 230, 120), noun="nodule or mass"),
        "other_lesion": _sign(LESION, "Other lesion", (230, 200, 200)),
        # A picture shows an opacity; that it is an infection is a diagnosis.
        "pneumonia": _sign(
            PNEUMONIA,
            "Pneumonia-like opacity",
            (255, 110, 110),
            noun="opacity like pneumonia",
            conclusion=OPACITY,
        ),
        "pneumothorax": _sign(PNEUMOTHORAX, "Pneumothorax", (90, 255, 220)),
        "pleural_thickening": _sign(PLEURAL_THICKENING, "Pleural thickening", (160, 190, 110)),
        "pulmonary_fibrosis": _sign(FIBROSIS, "Pulmonary fibrosis", (180, 140, 90), noun="sign of fibrosis"),
        # Normal structures, for packages that measure them
        "brain": _structure(BRAIN, "Brain", (240, 210, 190)),
        "brain_volume": _structure(BRAIN, "Brain", (240, 210, 190)),
        "gray_matter": _structure(GRAY_MATTER, "Gray matter", (160, 160, 190)),
        "white_matter": _structure(WHITE_MATTER, "White matter", (240, 240, 200)),
        "cerebrospinal_fluid": _structure(CEREBROSPINAL_FLUID, "Cerebrospinal fluid", (80, 140, 230)),
    }
)


def _chest(concept: Concept, noun: str) -> SiteConcept:
    return SiteConcept(concept=concept, noun=noun, body_part="CHEST", study_codes=_CHEST_STUDIES)


_HEAD_STUDIES: Final = MappingProxyType({"MR": MR_BRAIN, "CT": CT_HEAD})
_CHEST_STUDIES: Final = MappingProxyType({"CR": XR_CHEST, "DX": XR_CHEST, "CT": CT_CHEST})
_SITES: Final = MappingProxyType(
    {
        "brain": SiteConcept(concept=BRAIN, noun="brain", body_part="BRAIN", study_codes=_HEAD_STUDIES),
        "head": SiteConcept(concept=HEAD, noun="head", body_part="HEAD", study_codes=_HEAD_STUDIES),
        "aorta": _chest(AORTA, "aorta"),
        "heart": _chest(HEART, "heart"),
        "lung": _chest(LUNG, "lung"),
        "mediastinum": _chest(MEDIASTINUM, "mediastinum"),
        "pleura": _chest(PLEURA, "pleura"),
        "thorax": _chest(THORAX, "chest"),
    }
)
_LATERALITIES: Final = MappingProxyType(
    {Laterality.LEFT: LEFT, Laterality.RIGHT: RIGHT, Laterality.BILATERAL: BILATERAL}
)
_PRESENCES: Final = MappingProxyType(
    {Presence.PRESENT: PRESENT, Presence.ABSENT: ABSENT, Presence.UNDETERMINED: UNDETERMINED}
)
_QUANTITIES: Final = MappingProxyType(
    {
        Quantity.VOLUME: VOLUME,
        Quantity.LONG_AXIS: LONG_AXIS,
        Quantity.PERPENDICULAR_AXIS: SHORT_AXIS,
        Quantity.AREA: AREA,
    }
)
_RISKS: Final = MappingProxyType(
    {RiskClass.LOW: LOW_RISK, RiskClass.HIGH: HIGH_RISK, RiskClass.UNCERTAIN: UNCERTAIN_RISK}
)
_PROCEDURES: Final = MappingProxyType(
    {"MR": MR_UNSPECIFIED, "CT": CT_UNSPECIFIED, "CR": IMAGING_PROCEDURE, "DX": IMAGING_PROCEDURE}
)
#: Factor from a unit that a model may use to the canonical unit of its quantity.
_TO_MILLIMETRE: Final = MappingProxyType({"mm": 1.0, "cm": 10.0})
_TO_MILLILITRE: Final = MappingProxyType({"mL": 1.0, "ml": 1.0, "cm3": 1.0, "mm3": 0.001})
_TO_SQUARE_MILLIMETRE: Final = MappingProxyType({"mm2": 1.0, "cm2": 100.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleConcept:
    """How one kind of estimate about a whole study is coded and named.

    Attributes
    ----------
    name : Concept
        What is estimated.
    noun : str
        The same in a sentence, with its article.
    categories : mapping of str to (Concept, str)
        Code and wording of each value.
    number : Concept or None
        Name of the number of a scale that has one.
    """

    name: Concept
    noun: str
    categories: MappingProxyType[str, tuple[Concept, str]]
    number: Concept | None = None


_SCALES: Final = MappingProxyType(
    {
        Scale.TUMOUR_CLASS: ScaleConcept(
            name=TUMOUR_CLASS,
            noun="the tumour class",
            categories=MappingProxyType(
                {
                    "healthy": (NORMAL, "healthy"),
                    "benign": (BENIGN, "benign"),
                    "malignant": (MALIGNANT, "malignant"),
                }
            ),
        ),
        Scale.TUMOUR_STAGE: ScaleConcept(
            name=TUMOUR_GRADE,
            noun="the WHO grade among lower-grade gliomas",
            categories=MappingProxyType(
                {"grade_2": (WHO_GRADE_2, "WHO grade 2"), "grade_3": (WHO_GRADE_3, "WHO grade 3")}
            ),
        ),
        Scale.SURVIVAL_RISK: ScaleConcept(
            name=RISK_GROUP,
            noun="the hazard",
            categories=MappingProxyType(
                {
                    "lower": (LOWER_THIRD, "the lower third of the training patients"),
                    "middle": (MIDDLE_THIRD, "the middle third of the training patients"),
                    "higher": (HIGHER_THIRD, "the higher third of the training patients"),
                }
            ),
            number=RELATIVE_HAZARD,
        ),
    }
)


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


def code_risk(risk: RiskClass) -> Concept:
    """Return the code of a triage class (CID 3118)."""
    return _RISKS[risk]


def code_scale(scale: Scale) -> ScaleConcept:
    """Return how a kind of estimate is coded."""
    return _SCALES[scale]


def code_category(scale: Scale, value: str) -> tuple[Concept, str]:
    """Return code and wording of a value of an estimate.

    Raises
    ------
    UnknownConceptError
        If the scale has no such value.
    """
    try:
        return _SCALES[scale].categories[value]
    except KeyError as exc:
        raise UnknownConceptError(
            f"The value {value!r} of {scale.value} has no code: add it to reporting/codes.py."
        ) from exc


def code_probability(scale: Scale, value: str) -> Concept:
    """Return the concept name of the probability of one value of an estimate."""
    concept, _ = code_category(scale, value)
    return _private(f"P_{value.upper()}", f"Probability of {concept.meaning}")


def code_study(modality: str, sites: frozenset[str]) -> Concept:
    """Return the code of the examination reported: that of the sites where they agree, else the general one.

    Parameters
    ----------
    modality : str
        Modality of the images read.
    sites : frozenset of str
        Site keys of the findings.
    """
    studies = {code_site(site).study_codes.get(modality) for site in sites}
    study = studies.pop() if len(studies) == 1 else None
    return study or DIAGNOSTIC_IMAGING_REPORT


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


def value_in_mm2(measurement: Measurement) -> float:
    """Return an area in mm2.

    Raises
    ------
    UnknownConceptError
        If the unit is no area known here.
    """
    return _convert(measurement, _TO_SQUARE_MILLIMETRE)


def _convert(measurement: Measurement, factors: MappingProxyType[str, float]) -> float:
    try:
        return measurement.value * factors[measurement.unit]
    except KeyError as exc:
        raise UnknownConceptError(
            f"The unit {measurement.unit!r} does not fit {measurement.quantity.value}: "
            f"use one of {', '.join(factors)}."
        ) from exc
