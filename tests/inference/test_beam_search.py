from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from inference.beam_search import search_beams
from inference.networks.r2gen_cmn import R2GenCMN


@dataclass(frozen=True)
class Said:
    """Reports as the tokens said so far."""

    tokens: torch.Tensor

    def take(self, rows: torch.Tensor) -> Said:
        return Said(self.tokens[rows])


class Table:
    """Writes by a table: the tokens so far, to the probabilities of the next."""

    def __init__(self, table: dict[tuple[int, ...], tuple[float, ...]]) -> None:
        self.table = table

    def advance(self, writing: Said, tokens: torch.Tensor) -> tuple[torch.Tensor, Said]:
        said = torch.cat((writing.tokens, tokens.unsqueeze(1)), dim=1)
        rows = [self.table.get(tuple(row[1:]), (1.0, 0.0, 0.0)) for row in said.tolist()]
        return torch.tensor(rows).log(), Said(said)


GREEDY_TRAP = Table(
    {
        (): (0.0, 0.6, 0.4),
        (1,): (0.35, 0.35, 0.3),  # 0.6 * 0.35 = 0.21
        (2,): (0.9, 0.05, 0.05),  # 0.4 * 0.9 = 0.36
    }
)


def begin(count: int) -> Said:
    return Said(torch.zeros(count, 0, dtype=torch.long))


def test_more_beams_find_what_the_greedy_one_misses() -> None:
    (greedy,) = search_beams(GREEDY_TRAP, begin(1), 1, beams=1)
    (wide,) = search_beams(GREEDY_TRAP, begin(1), 1, beams=2)
    assert greedy.tokens == (1,)
    assert wide.tokens == (2,)
    assert wide.log_probability == pytest.approx(torch.tensor(0.36).log().item())


def test_one_beam_is_greedy_decoding() -> None:
    torch.manual_seed(0)
    network = R2GenCMN(
        9, "test_efficientnet", d_model=16, d_ff=16, heads=2, layers=1, memory_size=8, top_k=4, positions=32
    ).eval()
    patches = network.patches(torch.randn(3, 1, 64, 64))
    found = search_beams(network, network.begin(patches), 3, beams=1, longest=12)
    for index in range(3):
        writing, token, words = network.begin(patches[index : index + 1]), 0, []
        for _ in range(12):
            scores, writing = network.advance(writing, torch.tensor([token]))
            token = int(scores[0].argmax())
            if token == 0:
                break
            words.append(token)
        assert found[index].tokens == tuple(words)


def test_reports_of_a_batch_are_those_of_each_image_alone() -> None:
    torch.manual_seed(2)
    network = R2GenCMN(
        9, "test_efficientnet", d_model=16, d_ff=16, heads=2, layers=1, memory_size=8, top_k=4, positions=32
    ).eval()
    patches = network.patches(torch.randn(3, 1, 64, 64))
    together = search_beams(network, network.begin(patches), 3, beams=3, longest=8)
    for index, written in enumerate(together):
        (alone,) = search_beams(network, network.begin(patches[index : index + 1]), 1, beams=3, longest=8)
        assert alone.tokens == written.tokens


def test_a_report_that_does_not_end_is_cut() -> None:
    endless = Table({(): (0.0, 1.0, 0.0), (1,): (0.0, 1.0, 0.0), (1, 1): (0.0, 1.0, 0.0)})
    (cut,) = search_beams(endless, begin(1), 1, beams=2, longest=3)
    assert cut.tokens == (1, 1, 1)


def test_a_blocked_run_of_tokens_comes_once() -> None:
    chatty = Table({(1, 2) * n + tail: next_
                    for n in range(4)
                    for tail, next_ in (((), (0.05, 0.95, 0.0)), ((1,), (0.05, 0.0, 0.95)))})  # fmt: skip
    (free,) = search_beams(chatty, begin(1), 1, beams=1, longest=6)
    (blocked,) = search_beams(chatty, begin(1), 1, beams=1, longest=6, blocked_ngram=2)
    assert free.tokens == (1, 2, 1, 2, 1, 2)
    assert blocked.tokens == (1, 2, 1)
