"""Adapter: scores a language model on held-back studies: one line of the before/after table.

The run folder holds ``config.json``, ``answers.jsonl`` (every prompt with its answer, its reference and the
checker's faults, to be read by people) and ``figures.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, Final

import torch
from rich.console import Console
from torch import nn

from dicom_node.errors import PermanentError
from inference.training.devices import training_device
from inference.training.run_files import write_json
from reporting.language.adapters import load_adapter_card
from reporting.language.base_models import EMBEDDED, load_model, load_tokenizer
from reporting.language.chat import render_chat
from reporting.language.embedding import EncoderError, TextEncoder, open_encoder
from reporting.language.examples import Example, collate, encode_pairs, plan_batches
from reporting.language.pairs import Pair, Split, draw_pairs, is_held_back
from reporting.language.scoring import (
    Answered,
    bert_score,
    judge,
    perplexity,
    plain_text,
    reference_text,
    score_answers,
)
from reporting.language.text_metrics import figure
from reporting.language.tuning import answer_logits
from reporting.language.weights import find_default_model
from reporting.refine.prompt import build_request

ANSWERS: Final = "answers.jsonl"
FIGURES: Final = "figures.json"
_TIMEOUT_S: Final = 600.0


class EvaluationError(PermanentError):
    """A language model cannot be scored as asked; the message says what to change."""


class Engine(StrEnum):
    """What generates the answers."""

    OPENVINO = "openvino"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is scored, and on what.

    Attributes
    ----------
    base, adapter : str
        ``embedded`` or a hub folder, and the folder of a LoRA adapter or nothing.
    engine : Engine
        ``openvino`` serves as the node does; ``transformers`` answers in batches, so that its seconds are
        those of a batch divided by its reports.
    is_constrained : bool
        Whether decoding is bound to the answer's form (openvino alone).
    reports : int
        Number of held-back studies.
    most_tokens : int
        Longest answer.
    batch : int
        Reports that transformers answers together.
    has_answers, has_perplexity : bool
        What is measured.
    bert : str
        Hub folder of an encoder for BERTScore; none if empty.
    """

    base: str = EMBEDDED
    adapter: str = ""
    engine: Engine = Engine.OPENVINO
    is_constrained: bool = True
    reports: int = 60
    seed: int = 0
    kinds: tuple[str, ...] = ()
    most_facts: int = 40
    most_tokens: int = 640
    batch: int = 20
    has_answers: bool = True
    has_perplexity: bool = True
    bert: str = ""


def evaluate(config: EvaluateConfig, out: Path) -> dict[str, Any]:
    """Score a model on held-back studies and return its figures.

    Raises
    ------
    EvaluationError
        If constrained decoding is asked of an engine that has none, or openvino of a model it cannot read.
    BaseModelError, AdapterError
        If the model or its adapter cannot be read.
    """
    if config.engine is Engine.TRANSFORMERS and config.is_constrained and config.has_answers:
        raise EvaluationError("transformers binds no grammar here: --set is_constrained=false.")
    if config.adapter:
        load_adapter_card(Path(config.adapter))
    pairs = draw_pairs(
        Split.TEST, config.reports, seed=config.seed, kinds=config.kinds, most_facts=config.most_facts
    )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config)
    held_back = sum(pair.ground is not None and is_held_back(pair.ground) for pair in pairs)
    figures: dict[str, Any] = {"reports": len(pairs), "with_held_back_combination": held_back}
    if config.has_answers:
        figures |= _score(config, pairs, out)
    if config.has_perplexity:
        figures["perplexity"] = figure(measure_perplexity(config, pairs))
    write_json(out / FIGURES, figures)
    return figures


def measure_perplexity(config: EvaluateConfig, pairs: Sequence[Pair]) -> Any:
    """Return the perplexity of the references' tokens, by transformers in bfloat16."""
    tokenizer, model = load_tokenizer(config.base), _load(config)
    examples = encode_pairs(pairs, tokenizer, most_tokens=1 << 14)
    return perplexity(list(_losses(model, examples, int(tokenizer.pad_token_id))))


def _score(config: EvaluateConfig, pairs: Sequence[Pair], out: Path) -> dict[str, Any]:
    console = Console(stderr=True)
    generate = _by_openvino if config.engine is Engine.OPENVINO else _by_transformers
    answers: list[Answered] = []
    with (out / ANSWERS).open("w", encoding="utf-8") as stream:
        for answered in generate(config, pairs):
            answers.append(answered)
            stream.write(json.dumps(_describe(answered), ensure_ascii=False) + "\n")
            stream.flush()
            if len(answers) % 10 == 0:
                console.print(f"{len(answers)} of {len(pairs)} reports", highlight=False)
    figures = score_answers(answers, _encoder(console))
    if config.bert:
        texts = [(plain_text(judge(one).sentences, one.text), reference_text(one.pair)) for one in answers]
        figures["bert_score"] = figure(bert_score(texts, Path(config.bert)))
    return figures


def _by_openvino(config: EvaluateConfig, pairs: Sequence[Pair]) -> Iterator[Answered]:
    """Answer one prompt after the other, as the node does."""
    from reporting.language.embedded import EmbeddedModel
    from reporting.refine.port import CompletionRequest

    path = find_default_model() if config.base == EMBEDDED else Path(config.base)
    adapter = Path(config.adapter) if config.adapter else None
    model = EmbeddedModel(path, cache=Path.home() / ".cache" / "preread" / "language", adapter=adapter)
    for pair in pairs:
        if pair.ground is None:
            continue
        asked = build_request(pair.ground)
        request = CompletionRequest(
            system=asked.system,
            user=asked.user,
            schema=asked.schema if config.is_constrained else None,
            max_tokens=config.most_tokens,
            timeout_s=_TIMEOUT_S,
        )
        completion = model.complete(request)
        yield Answered(pair=pair, text=completion.text, seconds=completion.seconds)


def _by_transformers(config: EvaluateConfig, pairs: Sequence[Pair]) -> Iterator[Answered]:
    """Answer prompts in batches, filled up at the left."""
    tokenizer, model = load_tokenizer(config.base), _load(config)
    tokenizer.padding_side = "left"
    for first in range(0, len(pairs), config.batch):
        part = pairs[first : first + config.batch]
        texts = [render_chat(tokenizer, pair.system, pair.user) for pair in part]
        prompt = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        started = time.monotonic()
        with torch.inference_mode():
            output = model.generate(
                **prompt.to(model.device),
                max_new_tokens=config.most_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        seconds = (time.monotonic() - started) / len(part)
        said = tokenizer.batch_decode(output[:, prompt.input_ids.shape[1] :], skip_special_tokens=True)
        for pair, text in zip(part, said, strict=True):
            yield Answered(pair=pair, text=text, seconds=seconds)


def _load(config: EvaluateConfig) -> Any:
    model = load_model(config.base)
    if config.adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, config.adapter).merge_and_unload()
    return model.to(training_device()).eval()


@torch.no_grad()
def _losses(model: Any, examples: Sequence[Example], pad: int) -> Iterator[tuple[float, int]]:
    """Yield summed loss and number of tokens of each report."""
    for indices in plan_batches(examples, batch_tokens=2048, random=Random(0)):  # noqa: S311 - not a secret
        for index in indices:
            batch = collate([examples[index]], pad)
            logits, targets = answer_logits(model, batch)
            yield float(nn.functional.cross_entropy(logits, targets, reduction="sum")), len(targets)


def _encoder(console: Console) -> TextEncoder | None:
    try:
        return open_encoder()
    except EncoderError as error:
        console.print(f"no similarity: {error}", highlight=False)
        return None


def _describe(answered: Answered) -> dict[str, Any]:
    verdict = judge(answered)
    return {
        "prompt": answered.pair.user,
        "answer": answered.text,
        "reference": answered.pair.answer,
        "parsed": verdict.sentences is not None,
        "faults": [
            {"kind": fault.kind.value, "sentence": fault.index, "ids": fault.aliases, "detail": fault.detail}
            for fault in verdict.faults
        ],
        "seconds": round(answered.seconds, 2),
    }
