"""One tiny package for each model that the built-in rules name: real networks, weights that say something.

Skill is none of their business: tests that use them prove the way of a study through the node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from random_fusion_package import write_fusion_package
from random_model_package import write_random_package
from torch import nn

from inference.networks.classifiers import EncoderClassifier
from inference.networks.faster_rcnn import RadiographDetector
from inference.networks.r2gen_cmn import R2GenCMN
from inference.training.classification_cards import read_card_template
from inference.training.run_files import write_card, write_weights

VERSION = "0.1.0"
DETECTOR: dict[str, Any] = {"classes": 2, "arch": "lite0_fpn", "channels": 16, "head_features": 16}
CLASSIFIER: dict[str, Any] = {"in_channels": 1, "encoder": "test_efficientnet", "dropout": 0.3}
TRIAGE = {
    "low": 0.1,
    "high": 0.6,
    "negative_predictive_value": 0.9,
    "positive_predictive_value": 0.8,
    "calibration_patients": 40,
}


def write_every_package(models_dir: Path) -> None:
    """Write all of them."""
    write_random_package(models_dir, name="brain-tumour-lgg", version=VERSION, threshold=0.52)
    write_box_package(models_dir)
    write_label_package(models_dir)
    write_head_ct_package(models_dir)
    write_fusion_package(models_dir, class_bias=(-20.0, 0.0, 20.0))


def write_box_package(models_dir: Path) -> Path:
    """Write ``chest-xray-boxes``: it sees masses wherever it looks, and no nodule."""
    torch.manual_seed(0)
    network = RadiographDetector(**DETECTOR)
    _answer(network.roi_heads.box_predictor.cls_score, (0.0, 3.0, -3.0))
    return _write(
        models_dir,
        "chest-xray-boxes",
        network,
        title="Tiny chest X-ray boxes",
        task="detection",
        network={"builtin": "faster_rcnn", "arguments": DETECTOR, "activation": "softmax"},
        input=_radiograph_input(128),
        labels=[_label(1, "Mass", "mass"), _label(2, "Nodule", "nodule")],
        explanation_layer="backbone.body.blocks.6",
    )


def write_label_package(models_dir: Path) -> Path:
    """Write ``chest-xray-labels``: effusion present, nodule absent, low risk."""
    arguments = CLASSIFIER | {"out_channels": 2}
    return _write(
        models_dir,
        "chest-xray-labels",
        _classifier(arguments, (2.0, -3.0)),
        title="Tiny chest X-ray labels",
        task="classification",
        network={"builtin": "encoder_classifier", "arguments": arguments},
        input=_radiograph_input(128),
        labels=[_label(1, "Effusion", "effusion", "pleura"), _label(2, "Nodule", "nodule")],
        explanation_layer="encoder.bn2",
        doubt={"dropout_passes": 3},
    )


WORDS = (".", "<unk>", "effusion", "no")
WRITER: dict[str, Any] = {
    "words": len(WORDS), "extractor": "test_efficientnet", "d_model": 16, "d_ff": 16, "heads": 2, "layers": 1,
    "memory_size": 8, "top_k": 4, "positions": 32,
}  # fmt: skip


def write_report_package(models_dir: Path, *, vocabulary: tuple[str, ...] = WORDS) -> Path:
    """Write ``chest-xray-report``: it says «no effusion .» of everything."""
    torch.manual_seed(0)
    network = R2GenCMN(**WRITER)
    part = network.encoder_decoder
    with torch.no_grad():  # each word follows from the one before alone
        layer = part.model.decoder.layers[0]
        ends = (layer.self_attn.linears[3], layer.src_attn.linears[3], layer.feed_forward.w_2)
        for end in (*ends, part.cmn.linears[3], part.logit):
            end.weight.zero_()
            end.bias.zero_()
        words, places = part.model.tgt_embed
        places.pe.zero_()
        words.lut.weight.copy_(torch.eye(len(WORDS) + 1, WRITER["d_model"]) * 4)
        for before, after in ((0, 4), (4, 3), (3, 1), (1, 0)):
            part.logit.weight[after, before] = 9.0
    card = read_card_template("chest-xray-report", VERSION)
    return _write(
        models_dir,
        "chest-xray-report",
        network,
        title=card["title"],
        task="report",
        network={"builtin": "r2gen_cmn", "arguments": WRITER},
        input=_radiograph_input(64),
        labels=card["labels"],
        options={"vocabulary": list(vocabulary), "longest": 10},
    )


def write_head_ct_package(models_dir: Path) -> Path:
    """Write ``head-ct``: haemorrhage present, high risk."""
    arguments = CLASSIFIER | {"out_channels": 1}
    return _write(
        models_dir,
        "head-ct",
        _classifier(arguments, (2.0,)),
        title="Tiny head CT haemorrhage",
        task="classification",
        network={"builtin": "encoder_classifier", "arguments": arguments},
        input={
            "modality": "CT",
            "plane": "axial",
            "matrix": 64,
            "preparation": "ct_windows",
            "windows": [{"centre_hu": 40, "width_hu": 80}],
            "roles": [{"name": "head", "required": True, "min_images": 3}],
        },
        labels=[_label(1, "Intracranial haemorrhage", "intracranial_haemorrhage", "brain")],
        explanation_layer="encoder.bn2",
        doubt={"triage": TRIAGE},
    )


def _radiograph_input(matrix: int) -> dict[str, Any]:
    return {
        "modality": ["CR", "DX"],
        "matrix": matrix,
        "preparation": "radiograph",
        "roles": [{"name": "film", "required": True}],
    }


def _label(value: int, name: str, concept: str, site: str = "lung") -> dict[str, Any]:
    return {"value": value, "name": name, "concept": concept, "site": site}


def _classifier(arguments: dict[str, Any], logits: tuple[float, ...]) -> nn.Module:
    torch.manual_seed(0)
    network = EncoderClassifier(**arguments)
    _answer(network.head, logits)
    return network


def _answer(layer: nn.Linear, logits: tuple[float, ...]) -> None:
    """Let a layer say about these logits, a little more or less by what it sees."""
    with torch.no_grad():
        layer.weight *= 0.05
        layer.bias.copy_(torch.tensor(logits))


def _write(models_dir: Path, name: str, weights: nn.Module, **card: Any) -> Path:
    folder = models_dir / name / VERSION
    files = write_weights(weights.eval(), folder)
    whole = {
        "name": name,
        "version": VERSION,
        "intended_use": "Tests.",
        "limits": ["Random weights."],
        "training_data": "None.",
        "metrics": {},
        "licence": "Apache-2.0",
        "weights": {"files": files, "dtype": "float16"},
    }
    whole |= card
    write_card(folder, whole)
    return folder
