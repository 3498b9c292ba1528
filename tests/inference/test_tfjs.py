from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest

from inference.training.tfjs import TensorFlowJsError, read_tfjs_weights


def write_model(folder, weights, *, cut=16, **changes):
    """Write a layers model whose bytes are cut into shards without regard for the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    content = b"".join(value.astype("<f4").tobytes() for value in weights.values())
    shards = [content[start : start + cut] for start in range(0, len(content), cut)]
    for number, shard in enumerate(shards):
        (folder / f"shard{number}.bin").write_bytes(shard)
    entries = [
        {"name": name, "shape": list(value.shape), "dtype": "float32"} | changes
        for name, value in weights.items()
    ]
    paths = [f"shard{number}.bin" for number in range(len(shards))]
    manifest = {"weightsManifest": [{"paths": paths, "weights": entries}]}
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture
def weights():
    draws = np.random.default_rng(0)
    return {"conv/kernel": draws.normal(size=(3, 3, 1, 2)), "bn/gamma": draws.normal(size=2)}


def test_weights_are_read_across_shard_boundaries_from_file_folder_and_npm_package(tmp_path, weights):
    folder = write_model(tmp_path / "package" / "net", weights)
    with tarfile.open(tmp_path / "net-1.0.0.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    for path in (folder / "model.json", folder, tmp_path / "net-1.0.0.tgz"):
        read = read_tfjs_weights(path)
        assert list(read) == list(weights)
        for name, value in weights.items():
            np.testing.assert_array_equal(read[name], value.astype(np.float32))


def test_missing_and_short_shards_are_refused(tmp_path, weights):
    folder = write_model(tmp_path, weights)
    (folder / "shard4.bin").write_bytes(b"")
    with pytest.raises(TensorFlowJsError, match="cut off"):
        read_tfjs_weights(folder)
    (folder / "shard0.bin").unlink()
    with pytest.raises(TensorFlowJsError, match=r"shard0\.bin is missing"):
        read_tfjs_weights(folder)


def test_quantised_weights_are_refused(tmp_path, weights):
    with pytest.raises(TensorFlowJsError, match="not plain float32"):
        read_tfjs_weights(write_model(tmp_path, weights, quantization={"dtype": "uint8"}))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(TensorFlowJsError, match="0 files"):
        read_tfjs_weights(tmp_path)
    (tmp_path / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TensorFlowJsError, match="no weights manifest"):
        read_tfjs_weights(tmp_path)
