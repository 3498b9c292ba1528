"""Pure. The slices that a label rests on as a Key Object Selection, so that a PACS opens them first."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import ko
from pydicom.dataset import Dataset

from inference.findings import Analysis, Presence
from reporting import codes
from reporting.envelope import Envelope, neutral_header, seal
from reporting.errors import UnencodableResultError
from reporting.findings_sr import label_findings
from reporting.items import coded
from reporting.safety import BANNER
from reporting.sr import device_context


def encode_key_images(analysis: Analysis, sources: Sequence[Dataset], envelope: Envelope) -> Dataset | None:
    """Return the key images of the labels that are present.

    Parameters
    ----------
    analysis : Analysis
        Labels with a key frame; what has a box, a segment or a diameter shows its own place.
    sources : sequence of Dataset
        Headers of the images that were read.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset or None
        None if no present label has a key frame.

    Raises
    ------
    UnencodableResultError
        If a key frame is not among ``sources``.

    References
    ----------
    PS3.3 A.35.4 (Key Object Selection), PS3.16 TID 2010, CID 7010.
    """
    keyed = [f for f in label_findings(analysis) if f.presence is Presence.PRESENT and f.key_frame]
    if not keyed:
        return None
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    uids = dict.fromkeys(f.key_frame.sop_instance_uid for f in keyed if f.key_frame is not None)
    if not set(uids) <= set(by_uid):
        raise UnencodableResultError("A key image is not in the study's headers.")
    images = [neutral_header(by_uid[uid]) for uid in uids]
    labels = ", ".join(codes.code_finding(finding.concept).label for finding in keyed)
    content = ko.KeyObjectSelection(
        document_title=coded(codes.OF_INTEREST),
        referenced_objects=images,
        observer_device_context=device_context(envelope.models[0]),
        description=f"{BANNER} Slices that the algorithm's answer rests on most: {labels}.",
    )
    document = ko.KeyObjectSelectionDocument(
        evidence=images,
        content=content,
        series_instance_uid=envelope.series_instance_uid,
        series_number=envelope.series_number,
        sop_instance_uid=envelope.sop_instance_uid,
        instance_number=1,
        manufacturer=envelope.models[0].manufacturer,
    )
    for item in document.ContentSequence:
        if item.ValueType == "IMAGE":
            del item.ConceptNameCodeSequence  # TID 2010 gives its images no name; highdicom 0.28.2 does
    return seal(document, envelope)
