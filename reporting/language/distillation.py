"""Adapter: teaches a smaller language model by a larger one that stays as it is.

The student first learns the answers alone, then their words and, in a growing part, the teacher's
probabilities of every next word: in the end 0.7 of the cross-entropy and 0.3 of the divergence. The
same run without the teacher is one setting away (``--set has_teacher=false``), so that what the
teacher adds can be told. The run folder holds what that of ``lora.py`` holds, and ``student/``.

References
----------
Hinton et al., Distilling the knowledge in a neural network, arXiv:1503.02531 (temperature and its square).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from dicom_node.errors import PermanentError
from inference.training.devices import training_device
from inference.training.run_files import write_json
from reporting.language.base_models import EMBEDDED, load_model, load_tokenizer
from reporting.language.examples import Batch
from reporting.language.lora import SUMMARY, PairsConfig, encode_sets, schedule_of
from reporting.language.tuning import Loss, Schedule, answer_logits, cross_entropy, tune

STUDENT: Final = "student"


class DistillationError(PermanentError):
    """A student cannot learn from this teacher; the message says why."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig(PairsConfig, Schedule):
    """A distillation recipe; `PairsConfig` and `Schedule` describe the other fields.

    Attributes
    ----------
    teacher : str
        ``embedded``, or the folder of a hub model.
    teacher_adapter : str
        Folder of a LoRA adapter that is merged into it; none if empty.
    student : str
        Folder of a smaller model with the same vocabulary; if empty it is made from the teacher.
    keep_every : int
        A student made from the teacher has every so-maniest of its layers, the first and the last included.
    has_teacher : bool
        False trains the same student in the same way on the answers alone.
    kl_weight : float
        Final share of the divergence in the loss; the cross-entropy has the rest.
    temperature : float
        Softens both distributions in the divergence.
    sft_share : float
        Share of the run in which the student learns the answers alone.
    ramp_share : float
        Share of the run in which the divergence then grows to its final share.
    """

    teacher: str = EMBEDDED
    teacher_adapter: str = ""
    student: str = ""
    keep_every: int = 2
    has_teacher: bool = True
    kl_weight: float = 0.3
    temperature: float = 2.0
    sft_share: float = 0.3
    ramp_share: float = 0.4


def distil(config: DistillConfig, out: Path, *, resume: bool = False) -> Path:
    """Train the student and return its folder.

    Raises
    ------
    BaseModelError, PairsError, RecipeError
        If a model or the pairs cannot be read.
    DistillationError
        If teacher and student have different vocabularies.
    """
    tokenizer = load_tokenizer(config.teacher)
    teacher = load_teacher(config)
    if config.student:
        student = load_model(config.student, dtype="float32")
        require_same_vocabulary(
            teacher.config.vocab_size, tokenizer, student.config.vocab_size, load_tokenizer(config.student)
        )
    else:
        student = prune_layers(teacher, config.keep_every)
    training, validation = encode_sets(config, tokenizer, out)
    write_json(out / "config.json", config)
    device = training_device()
    teacher.to(device)
    result = tune(
        student,
        training,
        validation,
        schedule_of(config),
        out,
        pad=int(tokenizer.pad_token_id),
        loss=teach(teacher, config) if config.has_teacher else cross_entropy,
        device=device,
        resume=resume,
        keep=lambda: _keep(student, tokenizer, out / STUDENT),
    )
    sizes = {name: _count(model) for name, model in (("teacher", teacher), ("student", student))}
    write_json(out / SUMMARY, {**result, "parameters": sizes})
    return out / STUDENT


def load_teacher(config: DistillConfig) -> Any:
    """Return the teacher with its adapter merged in, and nothing to train."""
    teacher = load_model(config.teacher)
    if config.teacher_adapter:
        from peft import PeftModel

        teacher = PeftModel.from_pretrained(teacher, config.teacher_adapter).merge_and_unload()
    teacher.eval()
    return teacher.requires_grad_(requires_grad=False)


def teach(teacher: Any, config: DistillConfig) -> Loss:
    """Return the loss of a student: the answers' words, and in a growing part the teacher's view of them."""

    def loss(student: Any, batch: Batch, progress: float) -> tuple[torch.Tensor, Mapping[str, float]]:
        weight = weigh_teacher(progress, config)
        logits, targets = answer_logits(student, batch)
        answers = nn.functional.cross_entropy(logits, targets)
        if weight <= 0.0:
            return answers, {"loss": answers.item(), "cross_entropy": answers.item(), "kl_weight": 0.0}
        with torch.no_grad():
            wanted, _ = answer_logits(teacher, batch)
        divergence = config.temperature**2 * nn.functional.kl_div(
            torch.log_softmax(logits / config.temperature, dim=-1),
            torch.log_softmax(wanted / config.temperature, dim=-1),
            log_target=True,
            reduction="batchmean",
        )
        both = (1.0 - weight) * answers + weight * divergence
        return both, {
            "loss": both.item(),
            "cross_entropy": answers.item(),
            "divergence": divergence.item(),
            "kl_weight": weight,
        }

    return loss


def weigh_teacher(progress: float, config: DistillConfig) -> float:
    """Return the share of the divergence in the loss: none at first, then growing to its final share."""
    if config.ramp_share <= 0.0:
        return config.kl_weight if progress >= config.sft_share else 0.0
    grown = (progress - config.sft_share) / config.ramp_share
    return config.kl_weight * min(1.0, max(0.0, grown))


def prune_layers(model: Any, keep_every: int) -> Any:
    """Return a float32 copy of a model with every so-maniest layer, the first and the last included.

    Raises
    ------
    DistillationError
        If that leaves all layers, or the model has no list of layers.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None or keep_every < 2:  # noqa: PLR2004
        raise DistillationError("A student is made from a model with layers, by keep_every of 2 or more.")
    count = len(layers)
    number = max(1, round(count / keep_every))
    kept = sorted({round(index * (count - 1) / max(1, number - 1)) for index in range(number)})
    student = copy.deepcopy(model).float()
    decoder = student.get_decoder()
    decoder.layers = nn.ModuleList([decoder.layers[index] for index in kept])
    for position, layer in enumerate(decoder.layers):
        layer.self_attn.layer_idx = position
    student.config.num_hidden_layers = len(kept)
    if getattr(student.config, "layer_types", None):
        student.config.layer_types = [student.config.layer_types[index] for index in kept]
    return student.requires_grad_(requires_grad=True)


def require_same_vocabulary(
    teacher_size: int, teacher_tokenizer: Any, student_size: int, student_tokenizer: Any
) -> None:
    """Refuse a student whose next words are not those of the teacher.

    Raises
    ------
    DistillationError
        If the vocabularies differ.
    """
    if teacher_size != student_size or teacher_tokenizer.get_vocab() != student_tokenizer.get_vocab():
        raise DistillationError(
            f"Teacher and student have different vocabularies ({teacher_size} and {student_size} words): "
            "their probabilities cannot be compared. Choose a student of the teacher's family."
        )


def _count(model: Any) -> int:
    return sum(value.numel() for value in model.parameters())


def _keep(student: Any, tokenizer: Any, folder: Path) -> None:
    """Write the student as it is, in bfloat16, as a folder of transformers."""
    partial = folder.with_suffix(".part")
    copy.deepcopy(student).to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
