from __future__ import annotations

import json
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from inference.networks.classifiers import Classifier
from inference.radiograph_preparation import BLACK
from inference.training.classification import (
    Augmentation,
    Examples,
    Schedule,
    augment,
    box_loss,
    fit,
    is_new_layer,
    predict_logits,
)
from inference.training.classification_metrics import mean_area
from inference.training.run_files import HISTORY
from inference.training.schedule import one_cycle

STILL = Augmentation(mirror=False, rotation_degrees=0, scale=0, shift=0, contrast=0, brightness=0)


class Tiny(Classifier):
    """A classifier that trains in milliseconds."""

    feature_channels = 8

    def __init__(self, labels=2):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, labels)

    def features(self, x):
        return self.stem(x).relu()

    def classify(self, maps):
        return self.head(maps.amax(dim=(2, 3)))


def examples(count=48, seed=0, side=16):
    """Images whose first label is a bright square, whose second one is never there but once."""
    draws = np.random.default_rng(seed)
    images = draws.normal(-1, 0.1, (count, 1, side, side)).astype(np.float16)
    targets = np.zeros((count, 2), dtype=bool)
    places = np.zeros((count, 2, 8, 8), dtype=bool)
    for index in range(0, count, 2):
        row, column = draws.integers(0, side // 2 - 2, 2) * 2
        images[index, 0, row : row + 4, column : column + 4] = 2.0
        targets[index, 0] = True
        places[index, 0, row // 2 : row // 2 + 2, column // 2 : column // 2 + 2] = True
    targets[0, 1] = True
    is_placed = ~targets | places.any(axis=(2, 3))
    patients = tuple(str(index // 2) for index in range(count))
    return Examples(images=images, targets=targets, patients=patients, places=places, is_placed=is_placed)


def score(logits, validation):
    return {"score": mean_area(logits, validation.targets, [0])}


SCHEDULE = Schedule(epochs=12, batch_size=8, peak_rate=0.05, pretrained_rate=0.05, box_weight=0.5)


def train(out, network=None, *, judge=score, validation=True, resume=False, **changes):
    torch.manual_seed(0)
    network = network or Tiny()
    schedule = Schedule(**({name: getattr(SCHEDULE, name) for name in Schedule.__slots__} | changes))
    best = fit(
        network,
        examples(),
        examples(seed=1) if validation else None,
        judge,
        out,
        schedule=schedule,
        augmentation=STILL,
        seed=1,
        resume=resume,
    )
    network.load_state_dict(load_file(best))
    return network.eval()


def test_a_classifier_learns_and_leaves_its_run_folder(tmp_path):
    network = train(tmp_path)
    assert score(predict_logits(network, examples(seed=2).images), examples(seed=2))["score"] > 0.95
    history = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert {"epoch", "loss", "box_loss", "score"} <= set(history[0])
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    train(tmp_path / "whole", epochs=3)
    stopping = Mock(side_effect=[{"score": 0.0}, KeyboardInterrupt])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", epochs=3, judge=stopping)
    train(tmp_path / "parts", epochs=3, resume=True)
    resumed, whole = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["average"]
        for name in ("parts", "whole")
    )
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value)


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    network = train(tmp_path, validation=False, epochs=3)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["average"]
    torch.testing.assert_close(network.stem.weight, stored["stem.weight"])


def test_the_head_states_frequencies_whatever_positives_weighed(tmp_path):
    network = train(tmp_path, validation=False, epochs=2)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["average"]
    shift = stored["head.bias"] - network.head.bias.detach()
    assert shift[0] == pytest.approx(0.0, abs=1e-6), "as many positives as negatives"
    assert shift[1] == pytest.approx(np.log(5.0), abs=1e-5), "one of 48 weighs the most there is"


def test_frozen_layers_stay(tmp_path):
    network = Tiny()
    before = network.stem.weight.detach().clone()
    train(tmp_path, network, epochs=1, frozen=("stem",))
    torch.testing.assert_close(network.stem.weight.detach(), before)


def test_boxes_move_with_their_image():
    batch = examples(8)
    generator = torch.Generator().manual_seed(3)
    changes = Augmentation(rotation_degrees=20, scale=0.2, shift=0.1, contrast=0, brightness=0)
    images, places = augment(batch, changes, generator)
    assert images.shape == (8, 1, 16, 16)
    assert torch.isfinite(images).all()
    for index in (0, 2, 4, 6):
        if places[index, 0].max() < 0.9:
            continue  # moved out of the picture
        bright = images[index, 0].reshape(8, 2, 8, 2).amax(dim=(1, 3)) > 0.5
        assert bright[places[index, 0] > 0.9].any()


def test_nothing_changes_when_no_change_is_asked_for():
    batch = examples(4)
    images, _ = augment(batch, STILL, torch.Generator())
    np.testing.assert_allclose(images.numpy(), batch.images.astype(np.float32), atol=1e-3)


def test_beyond_the_edges_lies_black():
    batch = Examples(images=np.zeros((4, 1, 16, 16), np.float16), targets=np.zeros((4, 1), bool), patients=())
    images, places = augment(
        Examples(images=batch.images, targets=batch.targets, patients=tuple("abcd")),
        Augmentation(mirror=False, rotation_degrees=45, scale=0.5, contrast=0, brightness=0),
        torch.Generator().manual_seed(0),
    )
    assert places is None
    assert images.min() == pytest.approx(BLACK)


def test_only_known_places_count():
    logits = torch.full((1, 2, 2, 2), 5.0)
    places = torch.zeros(1, 2, 4, 4)
    places[0, 0] = 1.0
    right = box_loss(logits, places, torch.tensor([[True, False]]))
    wrong = box_loss(logits, places, torch.tensor([[False, True]]))
    assert right < 0.1
    assert wrong > 4


def test_the_rate_rises_and_falls_once():
    rates = [one_cycle(step / 100, 0.15) for step in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] < 0.1
    assert rates[-1] < 0.01


def test_heads_and_gates_are_new():
    assert is_new_layer("body.last_linear.weight")
    assert is_new_layer("body.layer1.0.se_layer.fc.0.weight")
    assert is_new_layer("head.bias")
    assert not is_new_layer("encoder.conv_head.weight")
