"""Pure. Beam search: the likeliest reports that a writer makes, token by token.

A report's score is the sum of its log-probabilities, with no bonus for length, as in the published R2GenCMN;
one beam is greedy decoding. Token 0 ends a report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch

END = 0
"""The token that begins, ends and pads a report."""


class Draft(Protocol):
    """Reports while they are written."""

    def take(self, rows: torch.Tensor) -> Self:
        """Return the reports of the given rows, which may repeat."""
        ...


Drafts = TypeVar("Drafts", bound=Draft)


class Writer(Protocol[Drafts]):
    """What adds one token at a time."""

    def advance(self, writing: Drafts, tokens: torch.Tensor) -> tuple[torch.Tensor, Drafts]:
        """Add (N,) tokens; return (N, tokens) log-probabilities of the next ones, and the reports."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A finished report.

    Attributes
    ----------
    tokens : tuple of int
        Without the end token.
    log_probability : float
        Of the whole report, the end token included.
    """

    tokens: tuple[int, ...]
    log_probability: float


@torch.inference_mode()
def search_beams(
    writer: Writer[Drafts],
    beginning: Drafts,
    count: int,
    *,
    beams: int = 3,
    longest: int = 100,
    blocked_ngram: int = 0,
    device: torch.device | None = None,
) -> list[Written]:
    """Write a report for each of several images.

    Parameters
    ----------
    writer : Writer
        The network.
    beginning : Drafts
        ``count`` reports without a word.
    count : int
        How many images.
    beams : int
        Reports that are followed at once for an image; 1 takes the likeliest token each time.
    longest : int
        Most tokens of a report; one that has not ended by then is cut.
    blocked_ngram : int
        No run of so many tokens comes twice in a report; 0 allows every repetition.
    device : torch.device or None
        Where the writer computes.

    Returns
    -------
    list of Written
        The likeliest finished report of each image.
    """
    writing = beginning.take(torch.arange(count, device=device).repeat_interleave(beams))
    sequences = torch.zeros(count, beams, 0, dtype=torch.long, device=device)
    scores = torch.full((count, beams), float("-inf"), device=device)
    scores[:, 0] = 0.0  # all beams of an image are equal at first
    tokens = torch.full((count * beams,), END, dtype=torch.long, device=device)
    done: list[Written | None] = [None] * count
    first = torch.arange(count, device=device).unsqueeze(1) * beams
    for place in range(longest):
        following, writing = writer.advance(writing, tokens)
        if blocked_ngram:
            following = _block(following, sequences.flatten(0, 1), blocked_ngram)
        size = following.shape[-1]
        candidates = (scores.unsqueeze(-1) + following.view(count, beams, size)).flatten(1)
        scores, chosen = candidates.topk(beams, dim=1)
        parents, words = chosen // size, chosen % size
        sequences = torch.cat((sequences.gather(1, parents.unsqueeze(-1).expand_as(sequences)),
                               words.unsqueeze(-1)), dim=-1)  # fmt: skip
        writing = writing.take((first + parents).flatten())
        tokens = words.flatten()
        has_ended = (words == END) | torch.tensor(place == longest - 1, device=device)
        for image, beam in torch.nonzero(has_ended & scores.isfinite()).tolist():
            done[image] = _better(done[image], sequences[image, beam].tolist(), float(scores[image, beam]))
        scores = scores.masked_fill(has_ended, float("-inf"))
        best = scores.max(dim=1).values.tolist()
        if all(one is not None and one.log_probability >= open_score
               for one, open_score in zip(done, best, strict=True)):  # fmt: skip
            break  # a report only loses probability as it grows
    return [one or Written(tokens=(), log_probability=float("-inf")) for one in done]


def _better(kept: Written | None, tokens: list[int], score: float) -> Written:
    """Return the likelier of two finished reports."""
    if kept is not None and kept.log_probability >= score:
        return kept
    words = tokens[:-1] if tokens[-1] == END else tokens
    return Written(tokens=tuple(words), log_probability=score)


def _block(following: torch.Tensor, sequences: torch.Tensor, length: int) -> torch.Tensor:
    """Forbid the tokens that would end a run of ``length`` tokens which a report has already."""
    allowed = following.clone()
    for row, sequence in enumerate(sequences.tolist()):
        tail = sequence[len(sequence) - length + 1 :] if len(sequence) >= length - 1 else None
        if tail is None:
            continue
        for start in range(len(sequence) - length + 1):
            if sequence[start : start + length - 1] == tail:
                allowed[row, sequence[start + length - 1]] = float("-inf")
    return allowed
