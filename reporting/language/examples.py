"""Pure. Training pairs as tokens: the loss sees the answer alone, and batches hold alike lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch

from reporting.language.chat import end_answer, render_chat
from reporting.language.pairs import Pair

_WINDOW = 32
"""Batches that are sorted by length together: alike within, random between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One pair as tokens: the prompt's, then the answer's from ``start``."""

    tokens: tuple[int, ...]
    start: int

    @property
    def answer_length(self) -> int:
        """Number of tokens that are learned."""
        return len(self.tokens) - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Several examples, filled up at the right.

    Attributes
    ----------
    tokens, mask : torch.Tensor
        (N, L) int64: ids, and 1 where there is one.
    targets : torch.Tensor
        (N, L) int64: the next token where it is learned, else -100.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor


def encode_pairs(pairs: Sequence[Pair], tokenizer: Any, most_tokens: int) -> list[Example]:
    """Return pairs as tokens; those that are longer are left out, not cut.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Its chat template writes the prompt (`reporting.language.chat`).
    """
    examples = []
    for pair in pairs:
        prompt = _encode(tokenizer, render_chat(tokenizer, pair.system, pair.user))
        answer = _encode(tokenizer, end_answer(tokenizer, pair.answer))
        if len(prompt) + len(answer) <= most_tokens:
            examples.append(Example(tokens=(*prompt, *answer), start=len(prompt)))
    return examples


def plan_batches(examples: Sequence[Example], batch_tokens: int, random: Random) -> list[list[int]]:
    """Return the indices of each batch of one pass: alike lengths together, in random order.

    Parameters
    ----------
    batch_tokens : int
        Most tokens of a batch, filling included; a longer example is a batch of its own.
    """
    order = list(range(len(examples)))
    random.shuffle(order)
    window = _WINDOW * max(1, batch_tokens // max((len(e.tokens) for e in examples), default=1))
    batches: list[list[int]] = []
    for first in range(0, len(order), window):
        batch: list[int] = []
        for index in sorted(order[first : first + window], key=lambda i: len(examples[i].tokens)):
            longest = len(examples[index].tokens)
            if batch and longest * (len(batch) + 1) > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(index)
        if batch:
            batches.append(batch)
    random.shuffle(batches)
    return batches


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Return examples as one batch."""
    length = max(len(example.tokens) for example in examples)
    tokens = np.full((len(examples), length), pad, dtype=np.int64)
    mask = np.zeros((len(examples), length), dtype=np.int64)
    targets = np.full((len(examples), length), -100, dtype=np.int64)
    for row, example in enumerate(examples):
        count = len(example.tokens)
        tokens[row, :count] = example.tokens
        mask[row, :count] = 1
        targets[row, example.start - 1 : count - 1] = example.tokens[example.start :]
    return Batch(
        tokens=torch.from_numpy(tokens), mask=torch.from_numpy(mask), targets=torch.from_numpy(targets)
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
