from __future__ import annotations

import pytest
import torch

from inference.networks.encoder_attention_unet import EncoderAttentionUNet
from inference.preparation import context_indices, stack_context
from inference.training.pretrained import PretrainedWeightsError, load_encoder, spread_over_channels

SMALL = {"in_channels": 9, "decoder_channels": (4, 4, 4, 8, 8)}


@pytest.fixture(scope="module")
def network() -> EncoderAttentionUNet:
    torch.manual_seed(0)
    return EncoderAttentionUNet(**SMALL).eval()


def test_logits_have_the_matrix_of_the_slices(network) -> None:
    with torch.inference_mode():
        scales = network.forward_scales(torch.randn(2, 9, 64, 96))
    assert [tuple(scale.shape) for scale in scales] == [(2, 1, 64, 96), (2, 1, 32, 48), (2, 1, 16, 24)]


def test_the_full_resolution_logits_are_those_of_the_node(network) -> None:
    slices = torch.randn(1, 9, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(slices), network.forward_scales(slices)[0])


def test_a_slice_does_not_depend_on_the_slices_beside_it_in_the_batch(network) -> None:
    slices = torch.randn(3, 9, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(slices)[1], network(slices[1:2])[0], atol=1e-5, rtol=1e-4)


def test_a_matrix_that_does_not_halve_five_times_is_refused(network) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        network(torch.randn(1, 9, 65, 64))


def test_every_parameter_is_trained() -> None:
    network = EncoderAttentionUNet(**SMALL)
    sum(scale.square().mean() for scale in network.forward_scales(torch.randn(2, 9, 64, 64))).backward()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]


def test_decoder_levels_must_fit_the_encoder() -> None:
    with pytest.raises(ValueError, match="5 maps"):
        EncoderAttentionUNet(decoder_channels=(8, 8))


def test_pretrained_weights_fill_the_encoder_and_spread_over_its_channels(tmp_path) -> None:
    donor = EncoderAttentionUNet(in_channels=3).encoder.state_dict()
    torch.save(
        {f"other.{number}": value for number, value in enumerate(donor.values())}, tmp_path / "donor.pth"
    )
    network = EncoderAttentionUNet(**SMALL)
    load_encoder(network.encoder, tmp_path / "donor.pth", slices=3)
    stem, *rest = network.encoder.state_dict()
    assert all(torch.equal(network.encoder.state_dict()[name], donor[name]) for name in rest)
    colours = torch.rand(1, 3, 8, 8)
    wide = torch.nn.functional.conv2d(colours.repeat(1, 3, 1, 1), network.encoder.state_dict()[stem])
    torch.testing.assert_close(wide, torch.nn.functional.conv2d(colours, donor[stem]))


def test_weights_of_another_architecture_are_refused(tmp_path) -> None:
    donor = EncoderAttentionUNet(in_channels=3).encoder.state_dict()
    reordered = {str(number): value for number, value in enumerate(reversed(donor.values()))}
    torch.save(reordered, tmp_path / "other.pth")
    with pytest.raises(PretrainedWeightsError, match="own architecture"):
        load_encoder(EncoderAttentionUNet(**SMALL).encoder, tmp_path / "other.pth", slices=3)


@pytest.mark.parametrize(("channels", "slices"), [(1, 1), (3, 1), (9, 3), (5, 5)])
def test_grey_input_keeps_the_size_of_its_response(channels: int, slices: int) -> None:
    weight = torch.rand(4, 3, 3, 3)
    spread = spread_over_channels(weight, channels, slices)
    assert spread.shape == (4, channels, 3, 3)
    if channels // slices != 1:
        torch.testing.assert_close(spread.sum(1), weight.sum(1))


def test_every_slice_is_seen_with_its_neighbours_and_ends_repeat() -> None:
    assert context_indices(3, 1).tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    slices = torch.arange(3, dtype=torch.float32)[:, None, None, None].expand(3, 2, 1, 1).numpy()
    assert stack_context(slices, 1)[:, :, 0, 0].tolist() == [
        [0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 2, 2],
        [1, 1, 2, 2, 2, 2],
    ]
    assert stack_context(slices, 0) is slices
