from __future__ import annotations

import pytest
import torch
from random_fusion_package import tiny_network

from inference.networks.dual_encoder import DualEncoder, grade_probabilities

CT = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
MR = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def network() -> DualEncoder:
    return tiny_network()


@pytest.mark.parametrize(("ct", "mr"), [(CT, None), (None, MR), (CT, MR)])
@torch.inference_mode()
def test_it_reads_ct_mr_or_both(
    network: DualEncoder, ct: torch.Tensor | None, mr: torch.Tensor | None
) -> None:
    logits = network(ct, mr)
    assert logits.tumour_class.shape == (3, 3)
    assert logits.stage.shape == (3, 1)
    assert logits.risk.shape == (3,)
    assert all(torch.isfinite(part).all() for part in logits)


def test_it_refuses_a_study_of_nothing(network: DualEncoder) -> None:
    with pytest.raises(ValueError, match="at least one"):
        network()


@torch.inference_mode()
def test_a_row_without_a_modality_is_read_as_if_its_slice_were_not_there(network: DualEncoder) -> None:
    presence = torch.tensor([[True, True], [False, True], [True, False]])
    mixed = network(CT, MR, presence).tumour_class
    torch.testing.assert_close(mixed[0], network(CT[:1], MR[:1]).tumour_class[0])
    torch.testing.assert_close(mixed[1], network(None, MR[1:2]).tumour_class[0])
    torch.testing.assert_close(mixed[2], network(CT[2:], None).tumour_class[0])


@torch.inference_mode()
def test_the_features_of_each_modality_are_of_one_length_whatever_is_missing(network: DualEncoder) -> None:
    for ct, mr in ((CT, None), (None, MR), (CT, MR)):
        encoded_ct = None if ct is None else network.ct_encoder(ct)
        encoded_mr = None if mr is None else network.mr_encoder(mr)
        joint = network.represent(encoded_ct, encoded_mr)
        assert joint.shape == (3, 2 * 16 + 2)
        lengths = joint[:, :32].norm(dim=1)
        torch.testing.assert_close(lengths, lengths[:1].expand(3))
        assert joint[0, 32:].tolist() == [float(ct is not None), float(mr is not None)]


@torch.inference_mode()
def test_the_order_of_a_studys_slices_does_not_matter(network: DualEncoder) -> None:
    turned = network.forward_study(CT, MR.flip(0))
    for ours, theirs in zip(network.forward_study(CT, MR), turned, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.inference_mode()
def test_a_study_may_have_other_numbers_of_slices_of_each_modality(network: DualEncoder) -> None:
    assert network.forward_study(CT, MR[:1]).tumour_class.shape == (1, 3)


def test_the_placeholders_learn_from_what_is_missing(network: DualEncoder) -> None:
    network.zero_grad()
    network(CT, None).tumour_class.sum().backward()
    assert network.placeholders.grad is not None
    assert network.placeholders.grad[1].abs().sum() > 0
    assert network.placeholders.grad[0].abs().sum() == 0
    network.zero_grad()


def test_ordinal_logits_become_probabilities_that_add_up() -> None:
    logits = torch.tensor([[2.0, -1.0], [-30.0, 5.0], [30.0, 30.0]])
    grades = grade_probabilities(logits)
    torch.testing.assert_close(grades.sum(dim=1), torch.ones(3))
    assert (grades >= 0).all()
    assert grades.argmax(dim=1).tolist() == [1, 0, 2]


def test_the_shipped_encoder_fits_the_budget_of_its_weights() -> None:
    weights = sum(p.numel() for p in DualEncoder().state_dict().values())
    assert weights * 2 < 17_000_000


def test_it_refuses_heads_without_a_choice() -> None:
    with pytest.raises(ValueError, match="at least two"):
        DualEncoder(encoder="test_resnet", classes=1)
