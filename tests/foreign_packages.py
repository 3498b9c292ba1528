"""Small packages of foreign formats with random weights: for tests that need their form, not their skill."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from pathlib import Path

import torch
import yaml
from monai.networks.nets import UNet

from inference.engines import export_onnx

SIDE = 16

BUNDLE_NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "num_res_units": 1,
}


def volume_card(name: str, network: dict, files: dict[str, bytes], **changes) -> dict:
    """Return the card of a 3-D segmentation of grey and white matter."""
    card = {
        "name": name,
        "version": "0.1.0",
        "title": "Test network for volumes",
        "task": "segmentation",
        "network": {"activation": "softmax"} | network,
        "input": {
            "modality": "MR",
            "dimensions": 3,
            "matrix": SIDE,
            "spacing_mm": [1.0, 1.0, 1.0],
            "orientation": "RAS",
            "preparation": "unit_range",
            "roles": [{"name": "t1", "required": True, "any_description": ["*t1*"]}],
        },
        "labels": [
            {"value": 1, "name": "White matter", "concept": "white_matter", "site": "brain"},
            {"value": 2, "name": "Grey matter", "concept": "gray_matter", "site": "brain"},
        ],
        "intended_use": "Tests.",
        "limits": ["Tests only."],
        "training_data": "None.",
        "metrics": {},
        "licence": "MIT",
        "weights": {
            "dtype": "float32",
            "files": [
                {"file": path, "sha256": hashlib.sha256(content).hexdigest()}
                for path, content in files.items()
            ],
        },
    }
    return card | changes


def write_package(root: Path, card: dict, files: dict[str, bytes]) -> Path:
    """Write ``<root>/<name>/<version>`` and return that folder."""
    folder = root / card["name"] / card["version"]
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return folder


def small_network(seed: int = 0) -> torch.nn.Module:
    """Return a 3-D U-Net of three output channels, the first the background."""
    torch.manual_seed(seed)
    arguments = {key: value for key, value in BUNDLE_NETWORK.items() if key != "_target_"}
    return UNet(**arguments).eval().requires_grad_(requires_grad=False)


def as_torchscript(network: torch.nn.Module, side: int = SIDE) -> bytes:
    """Return a network as TorchScript."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, side, side, side)), buffer)
    return buffer.getvalue()


def write_torchscript_package(root: Path, **changes) -> Path:
    """Write a package of one TorchScript file."""
    files = {"model.ts": as_torchscript(small_network())}
    return write_package(root, volume_card("script", {"format": "torchscript"}, files, **changes), files)


def write_onnx_package(root: Path, **changes) -> Path:
    """Write a package of one ONNX file."""
    files = {"model.onnx": export_onnx(small_network(), torch.zeros(1, 1, SIDE, SIDE, SIDE))}
    return write_package(root, volume_card("graph", {"format": "onnx"}, files, **changes), files)


def inference_config(**changes) -> dict:
    """Return ``configs/inference.json`` as the Model Zoo ships it; ``changes`` replace sections."""
    config = {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": BUNDLE_NETWORK,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
                {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
                {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [SIDE, SIDE, SIDE],
            "sw_batch_size": 2,
            "overlap": 0.5,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"},
            ],
        },
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device"},
        "run": ["$@evaluator.run()"],
    }
    return config | changes


def metadata(**changes) -> dict:
    """Return ``configs/metadata.json``."""
    channel_def = {"0": "background", "1": "white matter", "2": "grey matter"}
    described = {
        "version": "0.1.0",
        "monai_version": "1.6.1",
        "pytorch_version": "2.13.0",
        "numpy_version": "2.4.6",
        "task": "test",
        "network_data_format": {
            "inputs": {
                "image": {
                    "num_channels": 1,
                    "spatial_shape": ["8*n", "8*n", "8*n"],
                    "channel_def": {"0": "T1"},
                }
            },
            "outputs": {"pred": {"num_channels": 3, "channel_def": channel_def}},
        },
    }
    return described | changes


def bundle_files(inference: dict | None = None, described: dict | None = None) -> dict[str, bytes]:
    """Return the files of a bundle that a card lists."""
    state = io.BytesIO()
    torch.save(small_network().state_dict(), state)
    return {
        "bundle/configs/metadata.json": json.dumps(described or metadata()).encode(),
        "bundle/configs/inference.json": json.dumps(inference or inference_config()).encode(),
        "bundle/models/model.pt": state.getvalue(),
    }


def write_bundle_package(root: Path, files: dict[str, bytes] | None = None, **changes) -> Path:
    """Write a package around a bundle, with the files that the Zoo ships and nobody here reads."""
    listed = files or bundle_files()
    folder = write_package(
        root, volume_card("bundled", {"format": "monai_bundle"}, listed, **changes), listed
    )
    (folder / "bundle" / "docs").mkdir()
    (folder / "bundle" / "docs" / "README.md").write_text("# A bundle\n")
    (folder / "bundle" / "large_files.yml").write_text("large_files: []\n")
    (folder / "bundle" / "scripts").mkdir()
    (folder / "bundle" / "scripts" / "__init__.py").write_text(
        "raise SystemExit('a script of a bundle ran')\n"
    )
    return folder
