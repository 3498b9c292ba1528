"""Pure. A mask as a DICOM Segmentation, and back.

Everything about SEG lives here: segments with codes and tracking identifiers, one
frame per source frame, and the reader that the gate uses, which shares no code
with the writer. An empty mask has no segmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from inference.findings import Analysis, Finding, FrameReference, Mask
from inference.radiograph import MODALITIES
from reporting import codes
from reporting.context import SegmentationForm, name_tracking
from reporting.envelope import Envelope, neutral_header, seal
from reporting.errors import UnencodableResultError
from reporting.items import coded

#: Viewers unpack 1-bit pixels byte by byte: pixels in all must fill whole 16-bit words, or OHIF's
#: adapter refuses the object because of the padding byte (PS3.5 8.1.1 pads to even length).
_WORD_BITS: Final = 16
#: pydicom's own RLE codec. If python-gdcm is installed pydicom prefers it, and its RLE encoder aborts
#: the whole process on small frames (3.2.6).
_RLE_PLUGIN: Final = "pydicom"


def encode_segmentation(
    analysis: Analysis, mask: Mask, sources: Sequence[Dataset], envelope: Envelope
) -> Dataset | None:
    """Return the Segmentation (or Label Map Segmentation) of a mask.

    Parameters
    ----------
    analysis : Analysis
        Findings whose ``segment_number`` names a label of the mask, numbered 1 to n.
    mask : Mask
        (D, H, W) uint8 on the frames of the reference series.
    sources : sequence of Dataset
        Headers of the reference series; single-frame instances, or one multi-frame instance.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset or None
        None if the mask is empty.

    Raises
    ------
    UnencodableResultError
        If mask, findings and images do not belong together.

    References
    ----------
    PS3.3 A.51 (Segmentation), A.51.5.1; PS3.3 C.8.20.
    """
    if not mask.labels.any():
        return None
    described = _described_findings(analysis, mask)
    images = _images_of(mask, sources)
    form = envelope.context.profile.segmentation
    labels, images, omits_empty = _select_frames(mask, images, len(described), form)
    segmentation = highdicom.seg.Segmentation(
        source_images=[neutral_header(image) for image in images],
        pixel_array=labels,
        segmentation_type=form.value,
        segment_descriptions=[_describe_segment(finding, analysis, envelope) for finding in described],
        series_instance_uid=envelope.series_instance_uid,
        series_number=envelope.series_number,
        sop_instance_uid=envelope.sop_instance_uid,
        instance_number=1,
        manufacturer=analysis.model.manufacturer,
        manufacturer_model_name=analysis.model.name,
        software_versions=analysis.model.version,
        device_serial_number=analysis.model.weights_sha256[:64],
        content_label="AI_SEGMENTATION",
        content_description=analysis.model.title[:64],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=omits_empty,
    )
    name_dimensions(segmentation, envelope.dimension_organization_uid)
    _put_background_last(segmentation)
    sealed = seal(segmentation, envelope)
    if envelope.context.profile.is_compressed:
        sealed.compress(RLELossless, encoding_plugin=_RLE_PLUGIN, generate_instance_uid=False)
    return sealed


def has_place(sources: Sequence[Dataset]) -> bool:
    """Say whether the images have a place in the patient: masks on others (radiographs) have no object."""
    return all(
        source.get("FrameOfReferenceUID")
        and ("ImagePositionPatient" in source or "PerFrameFunctionalGroupsSequence" in source)
        for source in sources
        if source.get("Modality") in MODALITIES
    )


def _put_background_last(segmentation: Dataset) -> None:
    """Move the background's item of a label map to the end of the Segment Sequence.

    PS3.3 C.8.20.2.3 wants the background described and leaves the order open. Viewers on
    @cornerstonejs/adapters before pull request 2882 (August 2026), OHIF 3.13 among them, take
    the n-th item for segment n whatever its number: in any other place the background's black
    would be the first lesion's colour.
    """
    items = list(segmentation.SegmentSequence)
    segmentation.SegmentSequence = sorted(items, key=lambda item: int(item.SegmentNumber) == 0)


def decode_segmentation(segmentation: Dataset, frames: Sequence[FrameReference]) -> npt.NDArray[np.uint8]:
    """Return the label map of a segmentation on ``frames``, without help of the library that wrote it.

    Parameters
    ----------
    segmentation : Dataset
        Segmentation or Label Map Segmentation with pixel data.
    frames : sequence of FrameReference
        D source frames, in the order of axis 0 of the result.

    Returns
    -------
    ndarray
        (D, H, W) uint8.

    Raises
    ------
    UnencodableResultError
        If a frame of the segmentation has no source among ``frames``.
    """
    position = {frame: index for index, frame in enumerate(frames)}
    pixels = pixel_array(segmentation, decoding_plugin=_decoder_of(segmentation))
    if pixels.ndim == 2:  # noqa: PLR2004 - pydicom drops the frame axis of a single frame
        pixels = pixels[np.newaxis]
    labels = np.zeros((len(frames), int(segmentation.Rows), int(segmentation.Columns)), np.uint8)
    is_label_map = segmentation.SegmentationType == SegmentationForm.LABELMAP
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for plane, group in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        source = source_frame(group)
        if source not in position:
            raise UnencodableResultError("A frame of the segmentation has no source image in the mask.")
        value = plane if is_label_map else plane * _segment_number(group, shared)
        target = labels[position[source]]
        target[plane != 0] = value[plane != 0]
    return labels


def _decoder_of(segmentation: Dataset) -> str:
    is_compressed = segmentation.file_meta.TransferSyntaxUID == RLELossless
    return _RLE_PLUGIN if is_compressed else ""


def source_frame(group: Dataset) -> FrameReference:
    """Return the image from which a frame was derived, as its per-frame functional group names it.

    Raises
    ------
    UnencodableResultError
        If it names none.
    """
    try:
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        uid = str(item.ReferencedSOPInstanceUID)
    except (AttributeError, IndexError) as exc:
        raise UnencodableResultError("A frame of the segmentation names no source image.") from exc
    number = item.get("ReferencedFrameNumber")
    return FrameReference(sop_instance_uid=uid, frame_number=None if number is None else int(number))


def _segment_number(group: Dataset, shared: Dataset) -> int:
    holder = group if "SegmentIdentificationSequence" in group else shared
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _described_findings(analysis: Analysis, mask: Mask) -> list[Finding]:
    """Return the findings with a segment, by number; they must be the labels of the mask."""
    findings = sorted(
        (f for f in analysis.findings if f.segment_number is not None), key=lambda f: f.segment_number or 0
    )
    numbers = [f.segment_number for f in findings]
    if numbers != list(range(1, len(numbers) + 1)):
        raise UnencodableResultError("Segment numbers must run from 1 without a gap: renumber the findings.")
    if not set(np.unique(mask.labels).tolist()) - {0} <= set(numbers):
        raise UnencodableResultError("The mask has labels that no finding describes.")
    return findings


def _images_of(mask: Mask, sources: Sequence[Dataset]) -> list[Dataset]:
    """Return the header of each frame of the mask; one multi-frame header stands for all of its frames."""
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    try:
        images = [by_uid[frame.sop_instance_uid] for frame in mask.frames]
    except KeyError as exc:
        raise UnencodableResultError("The mask lies on images that are not in the study's headers.") from exc
    if not images or mask.labels.shape != (len(images), int(images[0].Rows), int(images[0].Columns)):
        raise UnencodableResultError("The mask has another shape than the images it lies on.")
    if any(not image.get("FrameOfReferenceUID") for image in images):
        raise UnencodableResultError(
            "The images have no Frame of Reference UID, so that a mask on them has no place in the patient."
        )
    return images


def _select_frames(
    mask: Mask, images: list[Dataset], segments: int, form: SegmentationForm
) -> tuple[npt.NDArray[np.uint8], list[Dataset], bool]:
    """Return the labels, source images and whether empty frames are left out."""
    if "PerFrameFunctionalGroupsSequence" in images[0]:
        return (*_spread_over_multiframe(mask, images), True)
    if form is SegmentationForm.LABELMAP or _fills_words(mask.labels, _count_frames(mask.labels, segments)):
        return mask.labels, images, True
    for chosen in _contiguous_extensions(mask.labels):
        labels = mask.labels[chosen]
        if _fills_words(labels, labels.shape[0] * segments):
            return labels, images[chosen], False
    return mask.labels, images, True


def _spread_over_multiframe(mask: Mask, images: list[Dataset]) -> tuple[npt.NDArray[np.uint8], list[Dataset]]:
    """Return the labels on all frames of one multi-frame image, in its own order."""
    image = images[0]
    if any(other is not image for other in images):
        raise UnencodableResultError(
            "The series has several multi-frame images: a segmentation can lie on one of them only."
        )
    labels = np.zeros((int(image.NumberOfFrames), *mask.labels.shape[1:]), np.uint8)
    for index, frame in enumerate(mask.frames):
        if frame.frame_number is None or not 1 <= frame.frame_number <= len(labels):
            raise UnencodableResultError("The mask names a frame that the multi-frame image does not have.")
        labels[frame.frame_number - 1] = mask.labels[index]
    return labels, [image]


def _count_frames(labels: npt.NDArray[np.uint8], segments: int) -> int:
    """Return the number of frames that a binary segmentation without empty ones has."""
    return sum(int((labels == n).any(axis=(1, 2)).sum()) for n in range(1, segments + 1))


def _fills_words(labels: npt.NDArray[np.uint8], frames: int) -> bool:
    return bool((labels.shape[1] * labels.shape[2] * frames) % _WORD_BITS == 0)


def _contiguous_extensions(labels: npt.NDArray[np.uint8]) -> Iterator[slice]:
    """Yield the slab that holds the mask, then ever larger ones, to the whole series."""
    occupied = np.flatnonzero(labels.any(axis=(1, 2)))
    first, last = int(occupied[0]), int(occupied[-1]) + 1
    yield slice(first, last)
    while first > 0 or last < len(labels):
        if last < len(labels):
            last += 1
        else:
            first -= 1
        yield slice(first, last)


def _describe_segment(
    finding: Finding, analysis: Analysis, envelope: Envelope
) -> highdicom.seg.SegmentDescription:
    if finding.segment_number is None:
        raise UnencodableResultError("A finding without a segment number has no segment.")
    concept = codes.code_finding(finding.concept)
    label = f"{concept.label} {finding.segment_number}"
    model = analysis.model
    description = highdicom.seg.SegmentDescription(
        segment_number=finding.segment_number,
        segment_label=label[:64],
        segmented_property_category=coded(concept.category),
        segmented_property_type=coded(concept.type),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=model.name,
            family=coded(codes.ARTIFICIAL_INTELLIGENCE),
            version=model.version,
            source=model.manufacturer,
            parameters={"weights_sha256": model.weights_sha256},
        ),
        tracking_uid=name_tracking(envelope.context, analysis, finding.finding_id),
        tracking_id=f"{label} ({finding.finding_id})"[:64],
        anatomic_regions=[coded(codes.code_site(finding.site).concept)],
        display_color=highdicom.color.CIELabColor.from_rgb(*concept.rgb),
    )
    if finding.laterality is not None:
        region = description.AnatomicRegionSequence[0]
        region.AnatomicRegionModifierSequence = [coded(codes.code_laterality(finding.laterality))]
    return description


def name_dimensions(segmentation: Dataset, uid: str) -> None:
    """Replace the random Dimension Organization UID of the library by a derived one."""
    for item in segmentation.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = uid
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid
