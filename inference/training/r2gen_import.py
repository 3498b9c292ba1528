"""Adapter: makes a model package of a published R2GenCMN checkpoint and the annotation that it learned from.

The checkpoint is read without running code. Its sizes follow from its weights, its words from the annotation,
by the rules of its authors; heads and answering memories cannot be seen in weights and are theirs (8, 32).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from dicom_node.errors import PermanentError
from inference.networks.r2gen_cmn import R2GenCMN
from inference.report_vocabulary import Cleaning, Vocabulary
from inference.training.classification_cards import read_card_template
from inference.training.run_files import write_card, write_weights

NAME: Final = "chest-xray-report-r2gencmn"
VERSION: Final = "1.0.0"

THRESHOLDS: Final[Mapping[Cleaning, int]] = {"iu_xray": 3, "mimic_cxr": 10}
"""How often a word came in the training reports, by data set."""

LONGEST: Final[Mapping[Cleaning, int]] = {"iu_xray": 60, "mimic_cxr": 100}
VIEWS: Final[Mapping[Cleaning, int]] = {"iu_xray": 2, "mimic_cxr": 1}

_MATRIX: Final = 224
_BLOCKS: Final = {"visual_extractor.model.6.22.conv1.weight": "resnet101",
                  "visual_extractor.model.6.5.conv1.weight": "resnet50"}  # fmt: skip
"""A layer that tells a ResNet from a smaller one."""


class CheckpointError(PermanentError):
    """A checkpoint or annotation is not that of an R2GenCMN; the message says what to give."""


def import_checkpoint(
    checkpoint: Path,
    annotation: Path,
    models_dir: Path,
    *,
    dataset: Cleaning,
    threshold: int | None = None,
    licence: str = "weights: as their authors say",
) -> Path:
    """Write a package of the task ``report``.

    Parameters
    ----------
    checkpoint : Path
        ``model_best.pth`` or the like, with a ``state_dict``.
    annotation : Path
        ``annotation.json`` of the data set: its training reports make the vocabulary.
    models_dir : Path
        Where the package is put, as ``chest-xray-report-r2gencmn/1.0.0``.
    dataset : str
        ``iu_xray`` (two views) or ``mimic_cxr``.
    threshold : int or None
        How often a word must come; None takes the authors' number.
    licence : str
        Licence of the weights, for the card.

    Returns
    -------
    Path
        The package's folder.

    Raises
    ------
    CheckpointError
        If a file is unreadable, or checkpoint and annotation do not belong together.
    """
    state = _read_state(checkpoint)
    vocabulary = _read_vocabulary(annotation, dataset, threshold or THRESHOLDS[dataset])
    words = _shape(state, "encoder_decoder.logit.weight")[0] - 1
    if words != len(vocabulary):
        raise CheckpointError(
            f"The checkpoint has {words} words, the annotation makes {len(vocabulary)}: give the annotation, "
            "the data set and the threshold that it was trained with."
        )
    arguments = _arguments(state, words, VIEWS[dataset])
    network = R2GenCMN(**arguments)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        raise CheckpointError(
            f"{checkpoint.name} has other layers than the published network: it is not supported."
        ) from exc
    folder = models_dir / NAME / VERSION
    card = read_card_template("chest-xray-report", VERSION) | {
        "name": NAME,
        "title": "Crude chest X-ray report (R2GenCMN, imported)",
        "network": {"builtin": "r2gen_cmn", "arguments": arguments},
        "options": {
            "vocabulary": list(vocabulary.words),
            "cleaning": dataset,
            "beams": 3,
            "longest": LONGEST[dataset],
        },
        "training_data": {"name": f"{dataset}, by the checkpoint's authors", "checkpoint": checkpoint.name},
        "metrics": {"note": "Not measured here: preread evaluate chest-xray-report --package measures it."},
        "limits": [
            "Its sentences are guesses of a network that nothing has verified.",
            "Numbers are lost in the vocabulary's cleaning; it may speak of earlier studies that nobody has.",
            "Images are prepared as this node prepares them, which differs a little from its training.",
        ],
        "licence": licence,
        "weights": {"files": write_weights(network, folder), "dtype": "float16"},
    }
    card["input"] |= {"matrix": _MATRIX}
    write_card(folder, card)
    return folder


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        stored: Any = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:
        raise CheckpointError(
            f"{path.name} is missing, damaged, or holds more than weights: keep its state_dict alone "
            "(torch.save of that dictionary) and give that file."
        ) from exc
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else None
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise CheckpointError(f"{path.name} holds no state_dict of tensors.")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _read_vocabulary(path: Path, dataset: Cleaning, threshold: int) -> Vocabulary:
    try:
        training = json.loads(path.read_text(encoding="utf-8"))["train"]
        reports = [str(entry["report"]) for entry in training]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{path.name} is not R2Gen's annotation: it has train, with reports.") from exc
    return Vocabulary.of_reports(reports, threshold=threshold, cleaning=dataset)


def _arguments(state: Mapping[str, torch.Tensor], words: int, views: int) -> dict[str, Any]:
    """Return the constructor arguments that the shapes of the weights tell."""
    part = "encoder_decoder"
    layers = {name.split(".")[4] for name in state if name.startswith(f"{part}.model.decoder.layers.")}
    width = _shape(state, f"{part}.att_embed.0.weight")[0]
    return {
        "words": words,
        "extractor": next((name for layer, name in _BLOCKS.items() if layer in state), "resnet18"),
        "views": views,
        "d_model": width,
        "d_ff": _shape(state, f"{part}.model.encoder.layers.0.feed_forward.w_1.weight")[0],
        "layers": len(layers),
        "memory_size": _shape(state, f"{part}.memory_matrix")[0],
        "positions": _shape(state, f"{part}.model.tgt_embed.1.pe")[1],
    }


def _shape(state: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"The checkpoint has no {name}: it is not an R2GenCMN.")
    return tuple(state[name].shape)
