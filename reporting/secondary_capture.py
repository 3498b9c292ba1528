"""Pure. A picture that Preread drew as a Secondary Capture image, for PACS without SR display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from inference.findings import Analysis, FrameReference
from reporting import codes
from reporting.canvas import Drawing
from reporting.codes import Concept
from reporting.envelope import Envelope, reference_instances, seal
from reporting.errors import UnencodableResultError
from reporting.items import code_item
from reporting.safety import PICTURE_BANNER


def encode_picture(
    drawing: Drawing,
    sources: Sequence[Dataset],
    envelope: Envelope,
    *,
    derivation: Concept | None = None,
    body_part: str | None = None,
) -> Dataset:
    """Return a picture as a Secondary Capture image.

    Parameters
    ----------
    drawing : Drawing
        The picture; the banner follows its description.
    sources : sequence of Dataset
        Headers of the series that was read.
    envelope : Envelope
        Names and origin of the object.
    derivation : Concept or None
        How it was made, where CID 7203 has a code for that.
    body_part : str or None
        Body Part Examined.

    Raises
    ------
    UnencodableResultError
        If an image shown is not among ``sources``.

    References
    ----------
    PS3.3 A.8.1 (Secondary Capture), C.7.6.1 (General Image), C.8.6.1.
    """
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = envelope.sop_instance_uid
    image.Modality = "OT"
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.PatientOrientation = None
    image.BodyPartExamined = body_part
    _describe_privacy(image, sources)
    image.DerivationDescription = f"{drawing.description} {PICTURE_BANNER}"
    if derivation is not None:
        image.DerivationCodeSequence = [code_item(derivation)]
    image.SourceImageSequence = _source_items(drawing.frames, {str(s.SOPInstanceUID): s for s in sources})
    image.LossyImageCompression = "00"
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = drawing.picture.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    pixels = drawing.picture.tobytes()
    image.PixelData = pixels + b"\0" * (len(pixels) % 2)
    image["PixelData"].VR = "OB"
    return seal(image, envelope)


def body_part_of(analysis: Analysis) -> str | None:
    """Return the Body Part Examined of the findings, if they have one in common."""
    parts = {codes.code_site(finding.site).body_part for finding in analysis.findings}
    return parts.pop() if len(parts) == 1 else None


def _describe_privacy(image: Dataset, sources: Sequence[Dataset]) -> None:
    """Say whether the picture names or shows the patient.

    Burned In Annotation asks for text that identifies the patient and the date (PS3.3
    C.7.6.1): our banner and numbers do not, so it is YES only if a source picture says so
    of itself. A handful of separate slices does not show a face; again a source that says
    otherwise is believed.
    """
    for keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        inherited = any(source.get(keyword) == "YES" for source in sources)
        setattr(image, keyword, "YES" if inherited else "NO")


def _source_items(frames: Sequence[FrameReference], by_uid: Mapping[str, Dataset]) -> list[Dataset]:
    items = []
    for frame in frames:
        source = by_uid.get(frame.sop_instance_uid)
        if source is None:
            raise UnencodableResultError("A picture shows an image that is not in the study's headers.")
        (item,) = reference_instances([source])
        if frame.frame_number is not None:
            item.ReferencedFrameNumber = frame.frame_number
        item.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_IMAGE)]
        items.append(item)
    return items
