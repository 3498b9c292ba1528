from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from inference.explain import (
    ExplanationError,
    grad_cam,
    grad_cam_inputs,
    hottest_area,
    overlap_of_hottest,
    points_at,
    similarity_after_randomisation,
)


class Corners(nn.Module):
    """Two channels of one convolution each: the first answer rests on bright, the second on dark pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 1)
        self.rise = nn.ReLU(inplace=True)
        self.maps.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        self.maps.bias.data = torch.zeros(2)

    def forward(self, x):
        return self.rise(self.maps(x)).mean(dim=(2, 3))


def bright_square(count=3):
    images = np.zeros((count, 1, 16, 16), dtype=np.float32)
    images[:, :, 2:6, 9:13] = 1.0
    images[:, :, 10:14, 1:5] = -1.0
    return images


@pytest.fixture
def network():
    frozen = Corners().eval()
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    return frozen


@pytest.mark.parametrize(("label", "rows", "columns"), [(0, (2, 6), (9, 13)), (1, (10, 14), (1, 5))])
def test_the_map_lies_where_the_answer_comes_from(network, label, rows, columns):
    maps = grad_cam(network, bright_square(), "maps", lambda output: output[:, label], batch_size=2)
    reference = np.zeros((16, 16), dtype=bool)
    reference[slice(*rows), slice(*columns)] = True
    assert maps.shape == (3, 16, 16)
    assert maps.dtype == np.float32
    assert (maps.min(), maps.max()) == (0.0, 1.0)
    for heatmap in maps:
        assert points_at(heatmap, reference)
        assert overlap_of_hottest(heatmap, reference) == 1.0


def test_the_network_is_left_as_it_was(network):
    network.rise.train()
    with torch.inference_mode():
        grad_cam(network, bright_square(), "maps", lambda output: output[:, 0])
    assert not network.maps._forward_hooks
    assert not network.maps._backward_hooks
    assert network.rise.training
    assert not network.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_the_size_of_the_batch_does_not_matter(network):
    images = np.random.default_rng(0).normal(size=(5, 1, 16, 16)).astype(np.float32)
    whole, parts = (
        grad_cam(network, images, "maps", lambda output: output[:, 0], batch_size=size) for size in (5, 2)
    )
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_nothing_that_speaks_for_an_answer_gives_a_dark_map(network):
    images = np.full((1, 1, 8, 8), -1.0, dtype=np.float32)
    heatmap = grad_cam(network, images, "maps", lambda output: output[:, 0])[0]
    assert not heatmap.any()
    assert not points_at(heatmap, np.ones((8, 8), dtype=bool))


class TwoInputs(nn.Module):
    """Bright pixels of either input; a missing one counts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ct, self.mr = Corners(), Corners()

    def forward(self, ct, mr):
        parts = [encoder(x) for encoder, x in ((self.ct, ct), (self.mr, mr)) if x is not None]
        return torch.stack(parts).sum(dim=0)


def test_each_input_of_a_fusion_has_its_own_map():
    network = TwoInputs().eval()
    ct, mr = bright_square(2), np.ascontiguousarray(bright_square(2)[..., ::-1])
    layers = ("ct.maps", "mr.maps")
    ours, theirs = grad_cam_inputs(network, (ct, mr), layers, lambda output: output[:, 0])
    assert ours is not None
    np.testing.assert_array_equal(ours[..., ::-1], theirs)
    alone, missing = grad_cam_inputs(network, (ct, None), layers, lambda output: output[:, 0])
    np.testing.assert_array_equal(alone, ours)
    assert missing is None


def test_a_detector_is_called_as_it_wants_to_be(network):
    called = []

    def forward(images):
        called.append(list(images))
        return network(images)

    grad_cam(network, bright_square(1), "maps", lambda output: output[:, 0], forward=forward)
    assert len(called[0]) == 1


@pytest.mark.parametrize("layer", ["nowhere", "maps.weight"])
def test_a_layer_that_is_not_there_is_named(network, layer):
    with pytest.raises(ExplanationError, match="no layer"):
        grad_cam(network, bright_square(), layer, lambda output: output[:, 0])


def test_a_layer_without_a_map_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(ExplanationError, match="convolutional"):
        grad_cam(network, np.ones((1, 1, 8, 8), dtype=np.float32), "1", lambda output: output[:, 0])


def test_hottest_area_and_pointing_game():
    heatmap = np.zeros((10, 10), dtype=np.float32)
    heatmap[4, 4], heatmap[4, 5] = 1.0, 0.5
    reference = np.zeros((10, 10), dtype=bool)
    reference[4, 6] = True
    assert hottest_area(heatmap, 0.01).sum() == 1
    assert hottest_area(heatmap, 0.5).sum() == 2  # zeros are not hot
    assert not points_at(heatmap, reference, 1)
    assert points_at(heatmap, reference, 2)
    assert overlap_of_hottest(heatmap, reference, 0.02) == 0.0


def test_maps_of_a_trained_network_change_with_its_weights_and_those_of_an_edge_filter_do_not():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1)).eval()
    images = np.random.default_rng(0).normal(size=(2, 1, 24, 24)).astype(np.float32)
    explained = similarity_after_randomisation(
        network, lambda each: grad_cam(each, images, "2", lambda output: output[:, 0].mean(dim=(1, 2)))
    )
    edges = similarity_after_randomisation(network, lambda _: images[:, 0])
    assert edges == pytest.approx(1.0)
    assert explained < 0.7
