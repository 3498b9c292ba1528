from __future__ import annotations

import pytest
import torch

from inference.networks.faster_rcnn import ARCHITECTURES, RadiographDetector, freeze_beginning


def small(**arguments) -> RadiographDetector:
    torch.manual_seed(0)
    return RadiographDetector(3, "lite0_fpn", **{"channels": 16, "head_features": 16} | arguments)


def target(*boxes: tuple[float, ...], label: int = 1) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.full((len(boxes),), label),
        "presence": torch.tensor([float(bool(boxes)), 1.0, 0.0, float("nan")]),
    }


def test_a_few_steps_on_one_film_teach_it_the_box() -> None:
    network = small()
    image = torch.full((2, 1, 128, 128), -1.5)
    image[:, :, 40:90, 30:80] = 1.5
    targets = [target((30.0, 40.0, 80.0, 90.0), label=2)] * 2
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    freeze_beginning(network)
    losses = []
    for _ in range(8):
        loss = torch.stack(list(network.losses(image, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.75 * losses[0]


def test_an_image_without_boxes_has_finite_losses_and_unknown_presence_is_left_out() -> None:
    network = small().train()
    losses = network.losses(torch.zeros(2, 1, 96, 96), [target(), target()])
    assert all(torch.isfinite(value) for value in losses.values())
    assert set(losses) == {
        "loss_objectness",
        "loss_rpn_box_reg",
        "loss_classifier",
        "loss_box_reg",
        "loss_presence",
    }


def test_boxes_lie_in_the_image_best_first_and_presence_stands_beside_them() -> None:
    network = small(score_threshold=0.0, boxes_per_image=7).eval()
    with torch.inference_mode():
        found = network(torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1)))
    assert len(found) == 2
    for each in found:
        assert len(each["boxes"]) <= 7
        assert each["boxes"].min() >= 0
        assert each["boxes"].max() <= 96
        assert (each["scores"].diff() <= 0).all()
        assert each["presence"].shape == (4,)


def test_given_boxes_are_scored_as_the_network_scores_its_own() -> None:
    network = small(score_threshold=0.0).eval()
    image = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        scores = network.region_scores(network.features(image), torch.tensor([[10.0, 10, 50, 60]]), (96, 96))
    assert scores.shape == (1, 3)
    assert 0 < float(scores.sum()) < 1


def test_the_frozen_beginning_does_not_learn_and_the_rest_does() -> None:
    network = small().train()
    freeze_beginning(network)
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert any("conv_stem" in name for name in frozen)
    assert any("blocks.1." in name for name in frozen)
    assert not any("blocks.2." in name or "rpn" in name or "fpn" in name for name in frozen)
    assert not network.backbone.body.bn1.training


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "maps"), [("r50_fpn_v2", 5), ("c5", 1)])
def test_the_large_architectures_find_boxes_and_train(arch: str, maps: int) -> None:
    network = RadiographDetector(2, arch)
    with torch.inference_mode():
        features = network.eval().features(torch.zeros(1, 1, 64, 64))
        assert len(features) == maps
        assert network(torch.zeros(1, 1, 64, 64))[0]["presence"].shape == (3,)
    if arch == "c5":
        assert features["0"].shape == (1, 2048, 2, 2)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="lite0_fpn"):
        RadiographDetector(3, "yolo")
    assert "lite0_fpn" in ARCHITECTURES
