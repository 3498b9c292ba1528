"""Made-up MR volumes of a head with bright boxes, for tests of segmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inference.findings import FrameReference
from inference.volume import Volume


def head_volume(
    lesions=(), *, shape=(8, 256, 256), series_uid="1.2.1", frame_of_reference_uid="1.9"
) -> Volume:
    """A grey head with bright boxes (slice, row, column, size)."""
    rows, columns = np.indices(shape[1:])
    head = ((rows - shape[1] / 2) / (shape[1] * 0.4)) ** 2 + (
        (columns - shape[2] / 2) / (shape[2] * 0.3)
    ) ** 2 < 1
    array = np.repeat(np.where(head, 50.0, 0.0)[None], shape[0], axis=0).astype(np.float32)
    array += head * 12 * np.sin(columns / 9) * np.sin(rows / 7)  # grey and white matter, so to speak
    array += np.random.default_rng(0).normal(0, 2, size=shape).astype(np.float32)
    for index, row, column, size in lesions:
        array[index : index + 2, row : row + size, column : column + size] = 150
    affine = np.diag((1.0, 1.0, 5.0, 1.0))
    affine[:3, 3] = (-127.5, -127.5, 0.0)
    return Volume(
        array=array.astype(np.float32),
        affine=affine,
        frames=tuple(FrameReference(sop_instance_uid=f"{series_uid}.{i}") for i in range(shape[0])),
        series_uid=series_uid,
        frame_of_reference_uid=frame_of_reference_uid,
        modality="MR",
    )


def all_roles(flair: Volume) -> dict[str, Volume]:
    return {
        "pre": replace(head_volume(), series_uid="1.2.0"),
        "flair": flair,
        "post": replace(head_volume(), series_uid="1.2.2"),
    }
