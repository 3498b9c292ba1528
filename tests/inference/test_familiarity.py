from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inference.cards import FamiliarityCard
from inference.explain import ExplanationError
from inference.familiarity import Familiarity, judge, pooled_features, thresholds_of
from inference.findings import Caveat
from inference.packages import ModelPackageError


def features(count=400, width=24, seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(6, width))
    return (rng.normal(size=(count, 6)) @ mixing + 0.1 * rng.normal(size=(count, width))).astype(np.float32)


def test_training_images_lie_near_one_and_others_far():
    known = Familiarity.fit(features())
    assert known.distance(features()).mean() == pytest.approx(1.0, abs=0.15)
    assert np.quantile(known.distance(features(seed=1)), 0.95) < 2
    assert (known.distance(np.random.default_rng(3).normal(size=(50, 24)).astype(np.float32)) > 3).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_the_distance_does_not_depend_on_the_scale_of_the_features(seed, scale):
    ours = Familiarity.fit(features(80))
    theirs = Familiarity.fit(features(80) * np.float32(scale))
    new = features(5, seed=seed)
    np.testing.assert_allclose(ours.distance(new), theirs.distance(new * np.float32(scale)), rtol=0.02)


def test_what_is_saved_is_what_is_read(tmp_path):
    known = Familiarity.fit(features())
    file = known.save(tmp_path)
    card = FamiliarityCard(file=file.file, sha256=file.sha256, threshold=2.0, refusal=4.0)
    new = features(seed=5)
    np.testing.assert_array_equal(Familiarity.load(tmp_path, card).distance(new), known.distance(new))
    (tmp_path / file.file).write_bytes(b"other")
    with pytest.raises(ModelPackageError, match="SHA-256"):
        Familiarity.load(tmp_path, card)


def test_few_images_are_no_reference():
    with pytest.raises(ValueError, match="at least"):
        Familiarity.fit(features(10))


def test_features_are_the_pooled_output_of_a_layer():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).eval()
    images = np.random.default_rng(0).normal(size=(5, 1, 4, 4)).astype(np.float32)
    pooled = pooled_features(network, images, "0", batch_size=2)
    expected = network[0](torch.from_numpy(images)).mean(dim=(2, 3)).detach().numpy()
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)
    assert not network[0]._forward_hooks
    assert pooled_features(network, images, "3").shape == (5, 2)
    with pytest.raises(ExplanationError, match="no layer"):
        pooled_features(network, images, "9")


def test_the_verdict_follows_the_limits():
    card = FamiliarityCard(file="f.safetensors", sha256="0" * 64, threshold=1.5, refusal=3.0)
    assert judge(1.4, card) is None
    doubted, refused = judge(2.0, card), judge(3.5, card)
    assert (doubted.caveat, doubted.is_blocking) == (Caveat.OUT_OF_DISTRIBUTION, False)
    assert refused.is_blocking
    threshold, refusal = thresholds_of(np.linspace(0.8, 1.6, 100).astype(np.float32))
    assert 1.5 < threshold < 1.6 < refusal == pytest.approx(3.2)
