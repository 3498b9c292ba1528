from __future__ import annotations

import pytest
import torch

from inference.networks.r2gen_cmn import LayerNorm, MultiThreadMemory, R2GenCMN

SMALL = {"d_model": 16, "d_ff": 24, "heads": 4, "layers": 2, "memory_size": 20, "top_k": 5, "positions": 64}
CNN = "test_efficientnet"


@pytest.fixture(scope="module")
def network() -> R2GenCMN:
    torch.manual_seed(0)
    return R2GenCMN(11, CNN, **SMALL).eval()


def _attention(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.linears.{index}.{name}": shape
        for index in range(4)
        for name, shape in (("weight", (width, width)), ("bias", (width,)))
    }


def _norm(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.a_2": (width,), f"{prefix}.b_2": (width,)}


def published_table(words: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published encoder-decoder: 512 wide, 3 layers, memory of 2,048 vectors."""
    width, part = 512, "encoder_decoder"
    table: dict[str, tuple[int, ...]] = {
        f"{part}.memory_matrix": (2048, width),
        f"{part}.att_embed.0.weight": (width, 2048),
        f"{part}.att_embed.0.bias": (width,),
        f"{part}.logit.weight": (words + 1, width),
        f"{part}.logit.bias": (words + 1,),
        f"{part}.model.src_embed.0.pe": (1, 5000, width),
        f"{part}.model.tgt_embed.0.lut.weight": (words + 1, width),
        f"{part}.model.tgt_embed.1.pe": (1, 5000, width),
    }
    for shared in ("cmn", "model.cmn"):
        table |= _attention(f"{part}.{shared}", width)
    for side, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "src_attn"))):
        table |= _norm(f"{part}.model.{side}.norm", width)
        for layer in range(3):
            prefix = f"{part}.model.{side}.layers.{layer}"
            for attention in attentions:
                table |= _attention(f"{prefix}.{attention}", width)
            for index in (1, 2):
                table |= {
                    f"{prefix}.feed_forward.w_{index}.weight": (width, width),
                    f"{prefix}.feed_forward.w_{index}.bias": (width,),
                }
            for index in range(len(attentions) + 1):
                table |= _norm(f"{prefix}.sublayer.{index}.norm", width)
    return table


def test_the_full_network_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        whole = R2GenCMN(760)
    state = {name: tuple(value.shape) for name, value in whole.state_dict().items()}
    table = published_table(760)
    assert {name: shape for name, shape in state.items() if name.startswith("encoder_decoder.")} == table
    convolutions = {
        name.removeprefix("visual_extractor.model.") for name in state if name.startswith("visual_extractor.")
    }
    assert state["visual_extractor.model.0.weight"] == (64, 3, 7, 7)
    assert state["visual_extractor.model.1.running_mean"] == (64,)
    assert state["visual_extractor.model.4.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert state["visual_extractor.model.6.22.conv3.weight"] == (1024, 256, 1, 1)
    assert state["visual_extractor.model.7.2.bn3.num_batches_tracked"] == ()
    assert {name.split(".")[0] for name in convolutions} == {"0", "1", "4", "5", "6", "7"}
    assert set(state) == set(table) | {f"visual_extractor.model.{name}" for name in convolutions}
    assert len(convolutions) == 624  # ResNet-101 without its two of the last layer


def test_shapes_of_patches_and_words(network: R2GenCMN) -> None:
    images = torch.randn(2, 1, 64, 64)
    patches = network.patches(images)
    assert patches.shape[:2] == (2, 4)
    assert patches.shape[2] == network.visual_extractor.channels
    tokens = torch.tensor([[0, 3, 4, 5], [0, 7, 0, 0]])
    answer = network(images, tokens)
    assert answer.shape == (2, 4, 12)
    torch.testing.assert_close(answer.exp().sum(-1), torch.ones(2, 4))


def test_two_views_give_the_patches_of_both() -> None:
    torch.manual_seed(0)
    network = R2GenCMN(5, CNN, views=2, **SMALL).eval()
    images = torch.randn(3, 2, 64, 64)
    patches = network.patches(images)
    assert patches.shape[1] == 8
    torch.testing.assert_close(patches[1, 4:], network.visual_extractor(images[1:2, 1:])[0])


def test_writing_word_by_word_gives_what_a_known_report_gives(network: R2GenCMN) -> None:
    patches = network.patches(torch.randn(2, 1, 64, 64))
    tokens = torch.tensor([[0, 3, 4, 5, 6], [0, 7, 1, 2, 9]])
    whole = network.follow(patches, tokens)
    writing = network.begin(patches)
    for place in range(tokens.shape[1]):
        scores, writing = network.advance(writing, tokens[:, place])
        torch.testing.assert_close(scores, whole[:, place])


def test_no_word_sees_those_after_it(network: R2GenCMN) -> None:
    patches = network.patches(torch.randn(1, 1, 64, 64))
    one, other = (network.follow(patches, torch.tensor([[0, 3, 4, last]])) for last in (5, 9))
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3], other[:, 3])


def test_each_thread_is_answered_by_its_best_memories_alone() -> None:
    torch.manual_seed(1)
    memory = MultiThreadMemory(heads=2, width=8, dropout=0.0, top_k=3)
    x, matrix = torch.randn(2, 5, 8), torch.randn(12, 8)
    given = memory.project(matrix.unsqueeze(0))
    answer = memory(x, given)
    query, key, value, output = memory.linears
    wanted = torch.zeros(2, 5, 8)
    for item in range(2):
        for place in range(5):
            for head in range(2):
                part = slice(head * 4, head * 4 + 4)
                scores = key(matrix)[:, part] @ query(x[item, place])[part] / 2.0
                best = scores.argsort(descending=True)[:3]
                weights = scores[best].softmax(0)
                wanted[item, place, part] = weights @ value(matrix)[best, part]
    torch.testing.assert_close(answer, output(wanted))


def test_a_memory_smaller_than_k_answers_with_all_of_it() -> None:
    memory = MultiThreadMemory(heads=1, width=4, dropout=0.0, top_k=32)
    assert memory(torch.randn(1, 2, 4), memory.project(torch.randn(1, 3, 4))).shape == (1, 2, 4)


def test_the_memory_learns_from_both_sides(network: R2GenCMN) -> None:
    network.zero_grad()
    patches = network.patches(torch.randn(1, 1, 64, 64)).detach()
    network.follow(patches, torch.tensor([[0, 3, 4]]))[0, -1, 5].backward()
    gradient = network.encoder_decoder.memory_matrix.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert network.encoder_decoder.cmn is network.encoder_decoder.model.cmn


def test_normalisation_takes_the_unbiased_deviation() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    wanted = (x - 3.0) / (torch.tensor(14.0 / 3.0).sqrt() + 1e-6)
    torch.testing.assert_close(LayerNorm(4)(x), wanted)


@pytest.mark.parametrize("wrong", [{"words": 0}, {"words": 3, "d_model": 18}, {"words": 3, "top_k": 0}])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"d_model|at least"):
        R2GenCMN(**{"extractor": CNN, **SMALL, **wrong})
