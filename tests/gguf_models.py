"""A tiny random Llama in a GGUF file, and a LoRA adapter that fits it: for tests of merging and starting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HIDDEN, HEADS, KEY_HEADS, RANK = 64, 4, 2, 2
_TENSORS = {
    "token_embd.weight": (32, HIDDEN),
    "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
    "blk.0.attn_k.weight": (HIDDEN // 2, HIDDEN),
    "blk.0.attn_v.weight": (HIDDEN // 2, HIDDEN),
}
_MODULES = {"q_proj": HIDDEN, "k_proj": HIDDEN // 2, "v_proj": HIDDEN // 2}


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write the model, and return its tensors by name."""
    import gguf

    random = np.random.default_rng(1)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in _TENSORS.items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_token_list(["a", "b"])
    writer.add_array("tokenizer.ggml.scores", [0.0, 1.0])
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def write_adapter(folder: Path, **config: object) -> Path:
    """Write the adapter as PEFT saves it, with other fields of its configuration if given."""
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(2)
    tensors = {}
    for module, rows in _MODULES.items():
        prefix = f"base_model.model.model.layers.0.self_attn.{module}.lora_"
        tensors[f"{prefix}A.weight"] = random.normal(size=(RANK, HIDDEN)).astype(np.float32)
        tensors[f"{prefix}B.weight"] = random.normal(size=(rows, RANK)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"r": RANK, "lora_alpha": 8, "bias": "none"} | config)
    )
    return folder
