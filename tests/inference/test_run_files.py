from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from inference.training import run_files
from inference.training.run_files import OverrideError, append_history, override, plot_curves, write_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    epochs: int = 3
    rates: tuple[float, ...] = (0.1,)
    name: str | None = None


def test_fields_are_overridden_by_text() -> None:
    changed = override(Config(), {"epochs": "7", "rates": "[1e-3, 2.0]", "name": "x"})
    assert changed == Config(epochs=7, rates=(1e-3, 2.0), name="x")


@pytest.mark.parametrize("overrides", [{"epoch": "3"}, {"epochs": "many"}, {"rates": "[a"}])
def test_an_override_that_does_not_fit_is_refused(overrides: dict[str, str]) -> None:
    with pytest.raises(OverrideError):
        override(Config(), overrides)


def test_curves_are_a_picture_of_the_history(tmp_path) -> None:
    append_history(tmp_path, {"epoch": 0, "loss": 1.0})
    append_history(tmp_path, {"epoch": 1, "loss": 0.5, "dice": 0.7})
    with Image.open(plot_curves(tmp_path, scores=("dice",))) as picture:
        assert picture.size == (800, 600)
    assert run_files.read_history(tmp_path)[1]["dice"] == 0.7


def test_weights_are_cut_into_shards_that_hold_them_all(tmp_path, monkeypatch) -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8))
    monkeypatch.setattr(run_files, "_MAX_SHARD_BYTES", 160)
    files = write_weights(network, tmp_path)
    assert len(files) > 1
    stored = {}
    for file in files:
        stored |= load_file(tmp_path / file["file"])
    assert stored.keys() == network.state_dict().keys()
    torch.testing.assert_close(stored["0.weight"].float(), network[0].weight, atol=1e-3, rtol=0)
