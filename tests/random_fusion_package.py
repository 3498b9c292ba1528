"""A fusion package with random weights and made-up heads: for tests that need the task and not its skill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from inference.findings import FrameReference
from inference.networks.dual_encoder import DualEncoder
from inference.packages import ModelPackage, load_package
from inference.training.run_files import write_card, write_weights
from inference.volume import Volume

NAME = "ct-mr-fusion"
ARGUMENTS = {"encoder": "test_resnet", "features": 16, "dropout": 0.3}


def tiny_network(seed: int = 0, *, class_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> DualEncoder:
    """Return a small network with random weights; ``class_bias`` decides what it says."""
    torch.manual_seed(seed)
    network = DualEncoder(**ARGUMENTS)
    with torch.no_grad():
        network.class_head.bias += torch.tensor(class_bias)
    return network.eval()


def write_fusion_package(
    models_dir: Path, *, class_bias: tuple[float, float, float] = (0.0, 0.0, 0.0), **changes: object
) -> ModelPackage:
    """Write ``<models_dir>/ct-mr-fusion/0.1.0`` and load it."""
    folder = models_dir / NAME / "0.1.0"
    files = write_weights(tiny_network(class_bias=class_bias), folder)
    card: dict[str, object] = {
        "name": NAME,
        "version": "0.1.0",
        "title": "Random fusion network",
        "task": "fusion",
        "network": {"builtin": "dual_encoder", "arguments": ARGUMENTS, "activation": "softmax"},
        "input": {
            "modality": ["CT", "MR"],
            "plane": "axial",
            "matrix": 64,
            "windows": [{"centre_hu": 40, "width_hu": 80}],
            "is_any_role_enough": True,
            "roles": [
                {"name": "ct", "modality": "CT", "min_images": 3},
                {"name": "mr", "modality": "MR", "any_description": ["*flair*", "*gad*"], "min_images": 3},
            ],
        },
        "labels": [
            {"value": 1 + index, "name": name, "concept": "neoplasm", "site": "brain"}
            for index, name in enumerate(("healthy", "benign", "malignant"))
        ],
        "options": {"slices": 5, "risk_median": 0.0, "risk_tertiles": [-0.1, 0.1]},
        "explanation_layer": "neck",
        "doubt": {"temperatures": [1.5], "dropout_passes": 4},
        "intended_use": "Tests.",
        "limits": ["Random weights."],
        "training_data": "None.",
        "metrics": {},
        "licence": "Apache-2.0",
        "weights": {"files": files, "dtype": "float16"},
    }
    write_card(folder, card | changes)
    return load_package(folder)


def head_volume(modality: str, *, slices: int = 8, matrix: int = 96, seed: int = 0) -> Volume:
    """Return an ellipsoid head with texture, nose up: Hounsfield units for a CT, arbitrary ones for an MR."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(
        np.linspace(-0.8, 0.8, slices), np.linspace(-1, 1, matrix), np.linspace(-1, 1, matrix), indexing="ij"
    )
    radius = (x / 0.62) ** 2 + (y / 0.78) ** 2 + (z / 1.6) ** 2
    texture = np.cumsum(rng.normal(size=x.shape), axis=2)
    texture /= np.abs(texture).max()
    if modality == "CT":
        values = np.where(radius < 0.8, 38 + 8 * texture, np.where(radius < 1.0, 700.0, -1000.0))
    else:
        values = np.where(radius < 1.0, 400 + 150 * texture, 4 + 2 * rng.normal(size=x.shape))
    spacing = 240.0 / matrix
    return Volume(
        array=values.astype(np.float32),
        affine=np.array(
            [[spacing, 0, 0, -120], [0, spacing, 0, -120], [0, 0, 5, 0], [0, 0, 0, 1]], dtype=float
        ),
        frames=tuple(
            FrameReference(sop_instance_uid=f"2.25.{seed}{len(modality)}{ord(modality[0])}{index}")
            for index in range(slices)
        ),
        series_uid=f"2.25.{seed}{ord(modality[0])}",
        frame_of_reference_uid=f"2.25.9{ord(modality[0])}",
        modality=modality,
    )
