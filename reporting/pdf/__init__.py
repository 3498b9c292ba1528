"""Pure. The report as an Encapsulated PDF: the same file goes to the PACS and into the FHIR report."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from reporting import codes
from reporting.envelope import Envelope, reference_instances, seal
from reporting.items import code_item
from reporting.pdf.document import DOCUMENT_TITLE, DocumentExtras, ModelNotes, note_model, render_report
from reporting.pdf.page import PageSize
from reporting.sr import link_predecessors


def encode_pdf(file: bytes, sources: Sequence[Dataset], envelope: Envelope) -> Dataset:
    """Return a PDF file as a DICOM object.

    Parameters
    ----------
    file : bytes
        What `render_report` returned.
    sources : sequence of Dataset
        Headers of the images that were read.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset
        Unverified; Burned In Annotation is YES, because the first page names the patient.

    References
    ----------
    PS3.3 A.45.1 (Encapsulated PDF), C.24.1, C.24.2, C.8.6.1; CID 7020 (extensible).
    """
    document = Dataset()
    document.SOPClassUID = EncapsulatedPDFStorage
    document.SOPInstanceUID = envelope.sop_instance_uid
    document.Modality = "DOC"
    document.ConversionType = "WSD"
    document.AcquisitionDateTime = None
    document.BurnedInAnnotation = "YES"
    document.RecognizableVisualFeatures = _visible_features(sources)
    document.SourceInstanceSequence = reference_instances(sources)
    document.DocumentTitle = DOCUMENT_TITLE
    document.ConceptNameCodeSequence = [code_item(codes.DIAGNOSTIC_IMAGING_REPORT)]
    document.VerificationFlag = "UNVERIFIED"
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocument = file + b"\0" * (len(file) % 2)
    document.EncapsulatedDocumentLength = len(file)
    link_predecessors(document, envelope)
    return seal(document, envelope)


def read_pdf(document: Dataset) -> bytes:
    """Return the PDF file of an Encapsulated PDF, without the byte that makes its length even."""
    held = bytes(document.EncapsulatedDocument)
    return held[: int(document.get("EncapsulatedDocumentLength") or len(held))]


def _visible_features(sources: Sequence[Dataset]) -> str:
    """Separate slices show no face; a source that says otherwise of itself is believed."""
    return "YES" if any(s.get("RecognizableVisualFeatures") == "YES" for s in sources) else "NO"


__all__ = [
    "DocumentExtras",
    "ModelNotes",
    "PageSize",
    "encode_pdf",
    "note_model",
    "read_pdf",
    "render_report",
]
