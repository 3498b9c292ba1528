from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf_models import HEADS, HIDDEN, KEY_HEADS, RANK, write_adapter, write_gguf
from safetensors.numpy import save_file

from reporting.language.merging import UnusableAdapterError, merge_adapter, read_updates

gguf = pytest.importorskip("gguf", reason="needs the extra language")


def read_model(path: Path) -> dict[str, np.ndarray]:
    reader = gguf.GGUFReader(path)
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}


def test_the_adapter_is_added_where_llama_cpp_keeps_each_row(tmp_path):
    base = write_gguf(tmp_path / "base.gguf")
    updates = read_updates(write_adapter(tmp_path / "style"))
    merged = read_model(merge_adapter(tmp_path / "base.gguf", tmp_path / "style", tmp_path / "cache"))
    tolerance = max(np.abs(tensor).max() for tensor in merged.values()) / 127
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    processor = LlamaTensorProcessor()
    for module, heads in (("q_proj", HEADS), ("k_proj", KEY_HEADS), ("v_proj", None)):
        name = f"blk.0.attn_{module[0]}.weight"
        change = merged[name] - base[name]
        if heads is not None:  # back into the order of Hugging Face, by transformers' own code
            change = processor._reverse_permute_weights(change, HEADS, heads)
        expected = updates[f"model.layers.0.self_attn.{module}"]
        np.testing.assert_allclose(change, expected, atol=tolerance)
        assert np.abs(expected).max() > 10 * tolerance
    np.testing.assert_array_equal(merged["token_embd.weight"], base["token_embd.weight"])


def test_what_the_file_says_of_itself_is_kept(tmp_path):
    write_gguf(tmp_path / "base.gguf")
    merged = merge_adapter(tmp_path / "base.gguf", write_adapter(tmp_path / "style"), tmp_path / "cache")
    before, after = gguf.GGUFReader(tmp_path / "base.gguf"), gguf.GGUFReader(merged)
    for name, field in before.fields.items():
        if not name.startswith("GGUF."):
            assert after.fields[name].contents() == field.contents()


def test_a_merged_file_is_written_once_for_each_pair(tmp_path):
    write_gguf(tmp_path / "base.gguf")
    first = merge_adapter(tmp_path / "base.gguf", write_adapter(tmp_path / "style"), tmp_path / "cache")
    written = first.stat().st_mtime_ns
    assert merge_adapter(tmp_path / "base.gguf", tmp_path / "style", tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == written
    write_adapter(tmp_path / "style", lora_alpha=16)
    assert merge_adapter(tmp_path / "base.gguf", tmp_path / "style", tmp_path / "cache") != first


def test_the_scale_is_alpha_over_rank(tmp_path):
    plain = read_updates(write_adapter(tmp_path / "style"))
    double = read_updates(write_adapter(tmp_path / "style", lora_alpha=16))
    stable = read_updates(write_adapter(tmp_path / "style", use_rslora=True))
    for module, update in plain.items():
        np.testing.assert_allclose(double[module], 2 * update, rtol=1e-5)
        np.testing.assert_allclose(stable[module], update * RANK**0.5, rtol=1e-5)


@pytest.mark.parametrize("config", [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}])
def test_what_is_more_than_plain_lora_is_refused(tmp_path, config):
    write_gguf(tmp_path / "base.gguf")
    with pytest.raises(UnusableAdapterError):
        merge_adapter(tmp_path / "base.gguf", write_adapter(tmp_path / "style", **config), tmp_path / "cache")


def test_an_adapter_of_another_model_is_refused(tmp_path):
    write_gguf(tmp_path / "base.gguf")
    adapter = write_adapter(tmp_path / "style")
    save_file(
        {
            "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": np.ones((RANK, HIDDEN), np.float32),
            "base_model.model.model.layers.7.mlp.up_proj.lora_B.weight": np.ones((HIDDEN, RANK), np.float32),
        },
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(UnusableAdapterError):
        merge_adapter(tmp_path / "base.gguf", adapter, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.gguf"))


def test_a_folder_without_an_adapter_says_what_it_must_hold(tmp_path):
    write_gguf(tmp_path / "base.gguf")
    with pytest.raises(UnusableAdapterError, match=r"adapter_config\.json"):
        merge_adapter(tmp_path / "base.gguf", tmp_path, tmp_path / "cache")
