"""Pure. How good worded reports are: whether they can be read, pass the checker, and are like a reference.

A reference is one wording among many that would be as good, so that BLEU, METEOR and ROUGE-L are low for
every free wording and compare systems only with each other. What counts first is the checker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.training.metrics import Interval
from reporting.checker import Fault, check_sentences
from reporting.language.embedding import TextEncoder
from reporting.language.pairs import Pair
from reporting.language.text_metrics import RESAMPLES, figure, mean_interval, score_texts
from reporting.refine.answer import CitedSentence, UnusableAnswerError, parse_answer
from reporting.text import SectionName


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One prompt, what a model answered, and how long it took."""

    pair: Pair
    text: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the parser and the checker say of one answer.

    Attributes
    ----------
    sentences : tuple of CitedSentence or None
        None for an answer that is not the JSON asked for.
    """

    sentences: tuple[CitedSentence, ...] | None
    faults: tuple[Fault, ...] = ()

    @property
    def is_faithful(self) -> bool:
        """Whether the whole report may leave as it is."""
        return self.sentences is not None and not self.faults

    @property
    def faithful_share(self) -> float:
        """Share of the sentences in which the checker finds no fault; 0 where there are none."""
        if not self.sentences:
            return 0.0
        faulty = {fault.index for fault in self.faults if fault.index is not None}
        return 1.0 - len(faulty) / len(self.sentences)


def judge(answered: Answered) -> Verdict:
    """Return the verdict on one answer.

    Raises
    ------
    ValueError
        If the pair was not drawn, so that there are no facts to hold it to.
    """
    if answered.pair.ground is None:
        raise ValueError("Only drawn pairs have facts to check an answer by.")
    try:
        sentences = parse_answer(answered.text)
    except UnusableAnswerError:
        return Verdict(sentences=None)
    return Verdict(sentences=sentences, faults=check_sentences(sentences, answered.pair.ground))


def score_answers(answers: Sequence[Answered], encoder: TextEncoder | None = None) -> dict[str, Any]:
    """Return all figures of a system, means with 95 % bootstrap intervals over reports.

    Parameters
    ----------
    answers : sequence of Answered
        One a study; at least one.
    encoder : TextEncoder or None
        Gives ``similarity``, the cosine between answer and reference.
    """
    verdicts = [judge(one) for one in answers]
    texts = [
        (plain_text(verdict.sentences, one.text), reference_text(one.pair))
        for verdict, one in zip(verdicts, answers, strict=True)
    ]
    figures = {
        "parsed": figure(mean_interval([float(verdict.sentences is not None) for verdict in verdicts])),
        "faithful_sentences": figure(mean_interval([verdict.faithful_share for verdict in verdicts])),
        "faithful_reports": figure(mean_interval([float(verdict.is_faithful) for verdict in verdicts])),
        **score_texts(texts).figures(),
        "seconds": figure(mean_interval([one.seconds for one in answers])),
        "faults": dict(
            Counter(fault.kind.value for verdict in verdicts for fault in verdict.faults).most_common()
        ),
    }
    if encoder is not None:
        mine, theirs = (encoder.encode([pair[side] or " " for pair in texts]) for side in (0, 1))
        figures["similarity"] = figure(mean_interval([float(value) for value in (mine * theirs).sum(axis=1)]))
    return figures


def plain_text(sentences: Sequence[CitedSentence] | None, raw: str) -> str:
    """Return findings and impression as text; of an answer that cannot be read, all of it."""
    if sentences is None:
        return raw.strip() or "-"
    return " ".join(one.text for one in sentences if one.section is not SectionName.RECOMMENDATION)


def reference_text(pair: Pair) -> str:
    """Return findings and impression of a pair's own answer."""
    return plain_text(parse_answer(pair.answer), pair.answer)


def perplexity(losses: Sequence[tuple[float, int]]) -> Interval:
    """Return the perplexity of the answers' tokens, with its interval over reports.

    Parameters
    ----------
    losses : sequence of (float, int)
        Summed loss and number of tokens of each report.
    """
    rows = np.asarray(losses, dtype=np.float64)
    draws = np.random.default_rng(0).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    summed = draws @ rows
    low, high = np.percentile(np.exp(summed[:, 0] / summed[:, 1]), (2.5, 97.5))
    total, count = rows.sum(axis=0)
    return Interval(mean=float(np.exp(total / count)), low=float(low), high=float(high), count=len(rows))


def bert_score(pairs: Sequence[tuple[str, str]], folder: Path) -> Interval:
    """Return the mean F1 of BERTScore with an encoder of a hub folder: last layer, no idf, not rescaled.

    References
    ----------
    Zhang et al., BERTScore, arXiv:1904.09675.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    def embed(text: str) -> Any:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state[0, 1:-1]  # without the special tokens
        return torch.nn.functional.normalize(hidden, dim=-1)

    values = []
    for candidate, reference in pairs:
        likeness = embed(candidate) @ embed(reference).T
        if likeness.numel() == 0:
            values.append(0.0)
            continue
        precision = float(likeness.max(dim=1).values.mean())
        recall = float(likeness.max(dim=0).values.mean())
        values.append(2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0)
    return mean_interval(values)
