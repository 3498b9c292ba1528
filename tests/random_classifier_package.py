"""Classifier packages with random weights: for tests that need one and not its skill."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from inference.networks.classifiers import EncoderClassifier


def classifier_card(sha256: str, *, modality: str = "DX", **changes) -> dict:
    """Return the card's content; ``changes`` replace top-level fields."""
    is_ct = modality == "CT"
    labels = (
        [("Intracranial haemorrhage", "intracranial_haemorrhage", "brain")]
        if is_ct
        else [("Effusion", "effusion", "pleura"), ("Mass", "mass", "lung"), ("Nodule", "nodule", "lung")]
    )
    card = {
        "name": "random-classifier",
        "version": "0.1.0",
        "title": "Random classifier",
        "task": "classification",
        "network": {
            "builtin": "encoder_classifier",
            "arguments": {"in_channels": 1, "out_channels": len(labels), "dropout": 0.5},
        },
        "input": {
            "modality": modality,
            "plane": "axial" if is_ct else "any",
            "matrix": 64,
            "preparation": "ct_windows" if is_ct else "radiograph",
            "windows": [{"centre_hu": 40, "width_hu": 80}] if is_ct else [],
            "roles": [{"name": "image", "required": True}],
        },
        "labels": [
            {"value": value, "name": name, "concept": concept, "site": site}
            for value, (name, concept, site) in enumerate(labels, start=1)
        ],
        "explanation_layer": "encoder.bn2",
        "intended_use": "Tests.",
        "limits": ["Random weights."],
        "training_data": "None.",
        "metrics": {},
        "licence": "Apache-2.0",
        "weights": {"files": [{"file": "model.safetensors", "sha256": sha256}], "dtype": "float16"},
    }
    return card | changes


def write_classifier_package(models_dir: Path, *, modality: str = "DX", seed: int = 0, **changes) -> Path:
    """Write ``<models_dir>/<name>/<version>`` and return that folder."""
    torch.manual_seed(seed)
    network = EncoderClassifier(1, 1 if modality == "CT" else 3, dropout=0.5)
    weights = save({k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()})
    card = classifier_card(hashlib.sha256(weights).hexdigest(), modality=modality, **changes)
    folder = models_dir / str(card["name"]) / str(card["version"])
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return folder
