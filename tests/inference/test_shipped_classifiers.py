"""The classifiers under models/: they load, and they score what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.packages import load_package
from inference.training import chest_labels, head_ct
from inference.training.recipe import EvaluateRequest

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared" / "data"
CHEST = REPOSITORY / "models" / "chest-xray-labels" / "1.0.0"
HEAD = REPOSITORY / "models" / "head-ct" / "1.0.0"


@pytest.mark.parametrize(("folder", "labels"), [(CHEST, 14), (HEAD, 1)])
def test_a_shipped_classifier_loads_and_keeps_to_the_size_of_files(folder, labels):
    package = load_package(folder)
    assert len(package.card.labels) == labels
    assert package.card.doubt.dropout_passes > 0
    assert package.build().get_submodule(package.card.explanation_layer) is not None
    assert all(path.stat().st_size < 30_000_000 for path in folder.iterdir())


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "cxr").is_dir(), reason="the chest X-rays of ../shared/data are not there")
def test_the_chest_labels_score_what_their_card_says():
    card = load_package(CHEST).card
    figures = chest_labels.evaluate_model(EvaluateRequest(data=DATA / "cxr", package=CHEST))
    assert figures["mean_auc"]["mean"] == pytest.approx(card.metrics["mean_auc"]["mean"], abs=0.002)
    assert figures["mean_auc"]["mean"] >= 0.75, "the bar of this project"


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "head_ct").is_dir(), reason="the head CTs of ../shared/data are not there")
def test_head_ct_scores_what_its_card_says_on_the_fold_it_never_saw():
    card = load_package(HEAD).card
    figures = head_ct.evaluate_model(EvaluateRequest(data=DATA / "head_ct", package=HEAD))
    expected = card.metrics["packed_network_on_its_held_out_fold"]["auc"]["mean"]
    assert figures["auc"]["mean"] == pytest.approx(expected, abs=0.01)
