"""Adapter: writes a GGUF model with a LoRA adapter merged into its weights, once, into a cache.

openvino-genai applies no adapter to a model that it reads from GGUF: it warns that every
tensor is unused and answers without it (measured with 2026.4.1). A merged file serves
openvino-genai, llama.cpp and Ollama alike. Changed matrices are kept in 8 bits, so that
what training added to the 4-bit weights is not rounded away again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reporting.errors import ReportingError
from reporting.language.adapters import CONFIG, WEIGHTS
from reporting.language.digests import digest_file

_LORA: Final = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight")


class UnusableAdapterError(ReportingError):
    """A LoRA adapter does not fit the model, or is of a kind that cannot be merged."""


def merge_adapter(model: Path, adapter: Path, cache: Path) -> Path:
    """Return the GGUF file with the adapter merged in; it is written unless the cache has it.

    Parameters
    ----------
    model : Path
        GGUF file.
    adapter : Path
        Folder with ``adapter_config.json`` and ``adapter_model.safetensors`` of PEFT.
    cache : Path
        Folder of merged files, named by the digests of what went into them.

    Raises
    ------
    UnusableAdapterError
        If the adapter lacks a file, changes a matrix that the model lacks, or is more than plain LoRA.
    """
    config, weights = adapter / CONFIG, adapter / WEIGHTS
    if not config.is_file() or not weights.is_file():
        raise UnusableAdapterError(f"The adapter folder must hold {CONFIG} and {WEIGHTS}.")
    parts = (digest_file(model), digest_file(weights), digest_file(config))
    target = cache / f"{model.stem}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:16]}.gguf"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        _write_merged(model, read_updates(adapter), partial)
        partial.replace(target)
    return target


def read_updates(adapter: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return what an adapter adds to each matrix, by the module's name in the Hugging Face model.

    Returns
    -------
    dict of str to ndarray
        (rows, columns) float32: scale times B A.

    Raises
    ------
    UnusableAdapterError
        If it is more than plain LoRA.
    """
    from safetensors import safe_open

    config = json.loads((adapter / CONFIG).read_bytes())
    if config.get("use_dora") or config.get("bias", "none") != "none" or config.get("modules_to_save"):
        raise UnusableAdapterError("Only plain LoRA can be merged: no DoRA, bias or saved modules.")
    factors: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    with safe_open(adapter / WEIGHTS, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            found = _LORA.fullmatch(name)
            if found is None:
                raise UnusableAdapterError(f"The adapter's tensor {name} is no factor of a LoRA update.")
            factors.setdefault(found["module"], {})[found["part"]] = file.get_tensor(name).astype(np.float32)
    return {
        module: _scale(module, config, pair["A"].shape[0]) * (pair["B"] @ pair["A"])
        for module, pair in factors.items()
        if pair.keys() == {"A", "B"}
    }


def _scale(module: str, config: Mapping[str, Any], rank: int) -> float:
    alphas = config.get("alpha_pattern") or {}
    alpha = next((value for key, value in alphas.items() if module.endswith(key)), config["lora_alpha"])
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _write_merged(model: Path, updates: Mapping[str, npt.NDArray[np.float32]], target: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(model)
    architecture = str(_field(reader, "general.architecture"))
    names = _name_tensors(gguf, architecture, int(_field(reader, f"{architecture}.block_count")), updates)
    unknown = sorted(set(names.values()) - {tensor.name for tensor in reader.tensors})
    if unknown:
        raise UnusableAdapterError(f"The adapter changes {unknown[0]}, which the model lacks.")
    heads = int(_field(reader, f"{architecture}.attention.head_count"))
    key_heads = int(_field(reader, f"{architecture}.attention.head_count_kv"))
    by_tensor = {tensor: updates[module] for module, tensor in names.items()}
    writer = gguf.GGUFWriter(target, architecture)
    _copy_fields(gguf, reader, writer)
    for tensor in reader.tensors:
        update = by_tensor.get(tensor.name)
        if update is None:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        if architecture == "llama" and ".attn_q." in tensor.name:
            update = _interleave(update, heads)
        elif architecture == "llama" and ".attn_k." in tensor.name:
            update = _interleave(update, key_heads)
        matrix = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if matrix.shape != update.shape:
            raise UnusableAdapterError(f"The adapter's update of {tensor.name} has another shape.")
        merged = gguf.quants.quantize(
            np.ascontiguousarray(matrix + update, np.float32), gguf.GGMLQuantizationType.Q8_0
        )
        writer.add_tensor(tensor.name, merged, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name_tensors(gguf: Any, architecture: str, blocks: int, updates: Mapping[str, object]) -> dict[str, str]:
    """Return the GGUF tensor that each module of an adapter changes."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in kinds:
        raise UnusableAdapterError(f"The gguf library knows no architecture {architecture}: update it.")
    known = gguf.get_tensor_name_map(kinds[architecture], blocks)
    names = {}
    for module in updates:
        name = known.get_name(module)
        if name is None:
            raise UnusableAdapterError(f"The adapter changes {module}, which has no place in a GGUF file.")
        names[module] = f"{name}.weight"
    return names


def _interleave(update: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Return rows in the order in which llama.cpp keeps queries and keys (rotary pairs side by side)."""
    rows, columns = update.shape
    halves = update.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _field(reader: Any, name: str) -> Any:
    field = reader.fields.get(name)
    if field is None:
        raise UnusableAdapterError(f"The GGUF file lacks {name}.")
    return field.contents()


def _copy_fields(gguf: Any, reader: Any, writer: Any) -> None:
    """Copy every key but those that a writer sets itself."""
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        sub_kind = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub_kind)
