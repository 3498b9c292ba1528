"""Pure. What a site decides about FHIR: whose identifiers, who owns what, how we write.

These are choices of the EHR's owner, so they are arguments and not constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reporting.uids import derive_uid

#: System of the identifiers that Preread gives to its own resources.
OWN_IDENTIFIER_SYSTEM: Final = f"urn:oid:{derive_uid('fhir', 'identifier system')}"


class SubjectPolicy(StrEnum):
    """How a report finds its patient.

    ``LOGICAL`` writes the Patient ID and leaves the look-up to the server; ``CONDITIONAL``
    makes the server resolve it, and refuse a patient that it does not know; ``CREATE`` adds
    a Patient, which only stores without a master patient index want.
    """

    LOGICAL = "logical"
    CONDITIONAL = "conditional"
    CREATE = "create"


class WritePolicy(StrEnum):
    """How a second post changes nothing.

    ``CLIENT_ID`` is ``PUT Type/id`` with ids that we derive: no search, so two posts at the same
    moment cannot make two resources, and no limit of entries (Medplum takes at most 8 with
    conditional entries in a transaction). ``CONDITIONAL`` is ``PUT Type?identifier=``, for
    servers that assign every id themselves.
    """

    CLIENT_ID = "client_id"
    CONDITIONAL = "conditional"


class ReportStatus(StrEnum):
    """Status of the report (FHIR R4 diagnostic-report-status)."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    AMENDED = "amended"
    ENTERED_IN_ERROR = "entered-in-error"


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirPolicy:
    """A site's choices.

    Attributes
    ----------
    patient_id_system : str
        System of the Patient ID (0010,0020).
    accession_system : str or None
        System of the Accession Number; None writes it without one.
    organization : str
        Name of the department in whose name the report is issued.
    largest_pdf_bytes : int
        A larger PDF is not attached to the report; 0 attaches none.
    """

    patient_id_system: str
    accession_system: str | None = None
    organization: str = "Radiology"
    subject: SubjectPolicy = SubjectPolicy.LOGICAL
    write: WritePolicy = WritePolicy.CLIENT_ID
    identifier_system: str = OWN_IDENTIFIER_SYSTEM
    largest_pdf_bytes: int = 4_000_000
