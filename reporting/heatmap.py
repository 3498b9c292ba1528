"""Pure. Where a network looked: a Parametric Map for CT and MR, a picture for a radiograph.

A radiograph has no frame of reference to place a map in, so its heat map is painted over it.
An empty heat map has no object. The reader that the gate uses shares no code with the writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.findings import FrameReference, Heatmap
from inference.radiograph import MODALITIES
from reporting import codes
from reporting.context import Reading
from reporting.envelope import Envelope, neutral_header, seal
from reporting.errors import UnencodableResultError
from reporting.items import coded
from reporting.radiograph_picture import draw_heat, title_of
from reporting.secondary_capture import body_part_of, encode_picture
from reporting.seg import name_dimensions

#: Most frames of a Parametric Map: 32-bit pixels are large, and what is cold explains nothing.
MOST_FRAMES: Final = 48
_WINDOW: Final = (0.5, 1.0)


def encode_heatmap(
    reading: Reading, heatmap: Heatmap, sources: Sequence[Dataset], envelope: Envelope
) -> Dataset | None:
    """Return the heat map of one answer.

    Parameters
    ----------
    reading : Reading
        What the model said, with the radiographs where it read some.
    heatmap : Heatmap
        (D, H, W) float32, 0 to 1, on the frames of one series.
    sources : sequence of Dataset
        Headers of that series.
    envelope : Envelope
        Names and origin of the object.

    Returns
    -------
    Dataset or None
        Parametric Map for CT and MR, Secondary Capture for CR and DX; None if the map is empty
        or a radiograph's pixels are not there.

    Raises
    ------
    UnencodableResultError
        If heat map and images do not belong together, or it explains an answer that is not there.

    References
    ----------
    PS3.3 A.75 (Parametric Map), C.7.6.16.2.11 (Real World Value Mapping); CID 7180.
    """
    title = title_of(reading.analysis, heatmap.answer)
    if not sources or not np.isfinite(heatmap.values).all() or not (heatmap.values > 0).any():
        return None
    if sources[0].get("Modality") in MODALITIES:
        drawn = draw_heat(reading, heatmap, title)
        if drawn is None:
            return None
        return encode_picture(drawn, sources, envelope, body_part=body_part_of(reading.analysis))
    values, images = _select_frames(heatmap, sources)
    model = reading.analysis.model
    parametric_map = highdicom.pm.ParametricMap(
        source_images=[neutral_header(image) for image in images],
        pixel_array=values,
        series_instance_uid=envelope.series_instance_uid,
        series_number=envelope.series_number,
        sop_instance_uid=envelope.sop_instance_uid,
        instance_number=1,
        manufacturer=model.manufacturer,
        manufacturer_model_name=model.name,
        software_versions=model.version,
        device_serial_number=model.weights_sha256[:64],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_describe_values(title)],
        voi_lut_transformations=[highdicom.VOILUTTransformation(*_WINDOW)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_description=f"Where the network looked: {title}"[:64],
        content_label="AI_HEATMAP",
    )
    parametric_map.Laterality = None  # type 2C: whether the body part is paired is not known here
    name_dimensions(parametric_map, envelope.dimension_organization_uid)
    return seal(parametric_map, envelope)


def decode_heatmap(
    parametric_map: Dataset,
) -> tuple[npt.NDArray[np.float32], tuple[FrameReference, ...]]:
    """Return the values of a Parametric Map and the images they lie on, without the library that wrote it.

    Returns
    -------
    ndarray, tuple of FrameReference
        (D, H, W) float32, and D source frames.

    Raises
    ------
    UnencodableResultError
        If the pixels are not what the header says, or a frame names no source image.
    """
    shape = (
        int(parametric_map.NumberOfFrames),
        int(parametric_map.Rows),
        int(parametric_map.Columns),
    )
    pixels = np.frombuffer(parametric_map.FloatPixelData, "<f4")
    if pixels.size != np.prod(shape):
        raise UnencodableResultError("The heat map has another number of pixels than its header says.")
    frames = tuple(_source_of(group) for group in parametric_map.PerFrameFunctionalGroupsSequence)
    return pixels.reshape(shape), frames


def _source_of(group: Dataset) -> FrameReference:
    try:
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
    except (AttributeError, IndexError) as exc:
        raise UnencodableResultError("A frame of the heat map names no source image.") from exc
    number = item.get("ReferencedFrameNumber")
    return FrameReference(
        sop_instance_uid=str(item.ReferencedSOPInstanceUID),
        frame_number=None if number is None else int(number),
    )


def _describe_values(title: str) -> highdicom.pm.RealWorldValueMapping:
    return highdicom.pm.RealWorldValueMapping(
        lut_label="GRAD_CAM",
        lut_explanation=f"Gradient-weighted class activation, {title}"[:64],
        unit=coded(codes.RATIO),
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(codes.CLASS_ACTIVATION),
    )


def _select_frames(
    heatmap: Heatmap, sources: Sequence[Dataset]
) -> tuple[npt.NDArray[np.float32], list[Dataset]]:
    """Return the hottest frames that are not empty, in their order, and the images under them."""
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    try:
        images = [by_uid[frame.sop_instance_uid] for frame in heatmap.frames]
    except KeyError as exc:
        raise UnencodableResultError("The heat map lies on images that are not in the headers.") from exc
    if heatmap.values.shape != (len(images), int(images[0].Rows), int(images[0].Columns)):
        raise UnencodableResultError("The heat map has another shape than the images it lies on.")
    if any(not image.get("FrameOfReferenceUID") for image in images):
        raise UnencodableResultError("The images under the heat map have no Frame of Reference UID.")
    values = np.clip(heatmap.values, 0, 1).astype(np.float32)
    if "PerFrameFunctionalGroupsSequence" in images[0]:
        return _spread_over_multiframe(heatmap, values, images)
    peaks = values.max(axis=(1, 2))
    hottest = sorted(np.flatnonzero(peaks > 0).tolist(), key=lambda index: -peaks[index])[:MOST_FRAMES]
    kept = sorted(hottest)
    return values[kept], [images[index] for index in kept]


def _spread_over_multiframe(
    heatmap: Heatmap, values: npt.NDArray[np.float32], images: Sequence[Dataset]
) -> tuple[npt.NDArray[np.float32], list[Dataset]]:
    """Return the values on all frames of one multi-frame image, in its own order."""
    image = images[0]
    spread = np.zeros((int(image.NumberOfFrames), *values.shape[1:]), np.float32)
    for frame, plane, own in zip(heatmap.frames, values, images, strict=True):
        if own is not image or frame.frame_number is None or not 1 <= frame.frame_number <= len(spread):
            raise UnencodableResultError("The heat map names a frame that the multi-frame image lacks.")
        spread[frame.frame_number - 1] = plane
    return spread, [image]
