from __future__ import annotations

import json

import pytest
import torch

from inference.networks.r2gen_cmn import R2GenCMN
from inference.packages import load_package
from inference.rehearsal import rehearse
from inference.runner import Runner
from inference.training.r2gen_import import CheckpointError, import_checkpoint

REPORTS = ["The heart is normal. No effusion.", "The heart is large. Small effusion.", "The heart is normal."]


@pytest.fixture
def annotation(tmp_path):
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps({"train": [{"report": text} for text in REPORTS], "val": [], "test": []}))
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as the published training leaves it: random weights, and what it continues from."""
    torch.manual_seed(0)
    network = R2GenCMN(7, "resnet18", d_model=16, d_ff=24, layers=2, memory_size=40, positions=100)
    path = tmp_path / "model_best.pth"
    torch.save({"epoch": 3, "state_dict": network.state_dict(), "optimizer": {}, "monitor_best": 0.1}, path)
    return path, network


def test_a_published_checkpoint_becomes_a_package_that_writes(checkpoint, annotation, tmp_path):
    path, network = checkpoint
    folder = import_checkpoint(path, annotation, tmp_path / "models", dataset="iu_xray", threshold=2)
    package = load_package(folder)
    assert package.card.options["vocabulary"] == [".", "<unk>", "effusion", "heart", "is", "normal", "the"]
    assert package.card.network.arguments["layers"] == 2
    assert package.card.network.arguments["views"] == 2
    built = package.build()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(built.state_dict()[name], value, rtol=2e-3, atol=2e-3)
    outcome = rehearse(package, Runner("cpu"))
    assert outcome.analysis.findings == ()


def test_an_annotation_of_another_data_set_is_refused(checkpoint, annotation, tmp_path):
    with pytest.raises(CheckpointError, match="threshold"):
        import_checkpoint(checkpoint[0], annotation, tmp_path / "models", dataset="iu_xray")
    assert not (tmp_path / "models").exists()


def test_a_checkpoint_that_runs_code_is_refused_unrun(annotation, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(CheckpointError, match="more than weights"):
        import_checkpoint(path, annotation, tmp_path / "models", dataset="iu_xray")


@pytest.mark.parametrize("content", [{"state_dict": {"a": torch.zeros(1)}}, {"state_dict": [1]}])
def test_another_networks_checkpoint_is_refused(content, annotation, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError):
        import_checkpoint(path, annotation, tmp_path / "models", dataset="mimic_cxr", threshold=2)
