"""The MeshNet of ../shared/data as a package, and its T1 volume as a DICOM MR series."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from foreign_packages import as_torchscript, volume_card, write_package
from pydicom import Dataset
from tfjs import convert_meshnet

from dicom_node.synthetic_series import SyntheticSeries, SyntheticStudy, image_datasets
from inference.engines import export_onnx

MESHNET = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights" / "meshnet"
NETWORK = "model5_gw_ae"
NAME = "meshnet-tissue"
SIDE = 256
LABELS = [
    {"value": 1, "name": "White matter", "concept": "white_matter", "site": "brain"},
    {"value": 2, "name": "Grey matter", "concept": "gray_matter", "site": "brain"},
]


def read_t1() -> npt.NDArray[np.float32]:
    """Return the volume, (256, 256, 256): axes to the patient's left, feet and front (LIA), 1 mm."""
    image = nibabel.load(MESHNET / "t1_crop.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("L", "I", "A")
    return np.asarray(image.dataobj, dtype=np.float32)


def pack_t1(volume: npt.NDArray[np.float32], step: int = 1) -> list[Dataset]:
    """Return the volume as coronal slices, columns to the left, rows to the feet; every ``step``-th voxel."""
    slices = volume.transpose(2, 1, 0)[::step, ::step, ::step]  # front is the last: rows I, columns L
    depth, height, width = slices.shape
    study = SyntheticStudy(
        seed="meshnet/t1", patient_name="TEST^MESHNET", patient_id="MESHNET", description="MR BRAIN"
    )
    corner = (-(width - 1) * step / 2, (height - 1) * step / 2)
    wrapping = SyntheticSeries(
        number=2,
        description="COR T1 MPRAGE",
        pixel_spacing_mm=(float(step), float(step)),
        thickness_mm=float(step),
        spacing_mm=float(step),
        positions=np.array([(corner[0], depth * step / 2 - step * k, corner[1]) for k in range(depth)]),
        orientations=np.tile((1.0, 0.0, 0.0, 0.0, 0.0, -1.0), (depth, 1)),
        technique={"ScanningSequence": "GR", "EchoTime": 3.0, "RepetitionTime": 2300.0},
    )
    return list(image_datasets(study, wrapping, slices.astype(np.int16)))


def write_meshnet_package(root: Path, form: str, side: int = SIDE, version: str = "1.0.0") -> Path:
    """Write the network as a ``torchscript`` or ``onnx`` package and return its folder."""
    network = convert_meshnet(MESHNET / NETWORK)
    if form == "onnx":
        files = {"model.onnx": export_onnx(network, torch.zeros(1, 1, side, side, side))}
    else:
        files = {"model.ts": as_torchscript(network, 32)}
    card = volume_card(NAME, {"format": form}, files)
    card |= {
        "version": version,
        "title": "Brain tissue volumes (MeshNet)",
        "labels": LABELS,
        "options": {"keep_largest": True},
        "intended_use": "Measures grey and white matter on T1-weighted MR of the head.",
    }
    card["input"] |= {"matrix": side, "orientation": "LIA"}
    return write_package(root, card, files)
