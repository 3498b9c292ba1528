"""A model package with random weights: for tests that need a package and not its skill."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from inference.networks.attention_res_unet import AttentionResUNet

NAME = "random-segmenter"
VERSION = "0.1.0"


def random_card(sha256: str, **changes) -> dict:
    """Return the card's content; ``changes`` replace top-level fields."""
    card = {
        "name": NAME,
        "version": VERSION,
        "title": "Random segmentation network",
        "task": "segmentation",
        "network": {
            "builtin": "attention_res_unet",
            "arguments": {"in_channels": 3, "out_channels": 1, "channels": [4, 8], "dropout": 0.0},
        },
        "input": {
            "modality": "MR",
            "matrix": 256,
            "roles": [
                {
                    "name": "pre",
                    "any_description": ["*t1*"],
                    "none_of": ["*gad*", "*post*"],
                    "substitute": "flair",
                },
                {"name": "flair", "required": True, "any_description": ["*flair*"], "min_images": 3},
                {"name": "post", "any_description": ["*t1*gad*", "*t1*post*"], "substitute": "flair"},
            ],
        },
        "labels": [{"value": 1, "name": "Lesion", "concept": "neoplasm", "site": "brain"}],
        "threshold": 0.5,
        "min_component_voxels": 10,
        "intended_use": "Tests.",
        "limits": ["Random weights."],
        "training_data": "None.",
        "metrics": {},
        "licence": "Apache-2.0",
        "weights": {"files": [{"file": "model.safetensors", "sha256": sha256}], "dtype": "float16"},
    }
    return card | changes


def write_random_package(models_dir: Path, seed: int = 0, **changes) -> Path:
    """Write ``<models_dir>/<name>/<version>`` and return that folder."""
    torch.manual_seed(seed)
    network = AttentionResUNet(channels=(4, 8))
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    weights = save(state)
    card = random_card(hashlib.sha256(weights).hexdigest(), **changes)
    folder = models_dir / str(card["name"]) / str(card["version"])
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return folder
