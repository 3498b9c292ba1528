"""Adapter: reads causal language models: the embedded GGUF by its name, any other from a local folder.

Nothing is downloaded: a hub model is named by the folder it was downloaded into.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any, Final

from dicom_node.errors import PermanentError
from reporting.language.weights import INSTALL, MissingLanguageModelError, find_default_model

#: The name by which recipes mean the model that comes with the extra ``language``.
EMBEDDED: Final = "embedded"


class BaseModelError(PermanentError):
    """A language model cannot be read for training; the message says what to install or to give."""


def load_model(base: str, *, dtype: str = "bfloat16") -> Any:
    """Return a causal language model in evaluation mode, on the CPU.

    Parameters
    ----------
    base : str
        `EMBEDDED`, or a folder of transformers (``config.json`` and safetensors).
    dtype : str
        Name of torch's type for the weights.

    Raises
    ------
    BaseModelError
        If a library, the weights or the folder are missing or damaged.
    """
    torch, transformers = _import()
    folder, options = _locate(base)
    options["dtype"] = getattr(torch, dtype)
    if "gguf_file" not in options:
        options["use_safetensors"] = True
    model = _read(transformers.AutoModelForCausalLM, folder, options)
    # A model from GGUF says that it is quantised, and could then be neither trained nor saved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.eval()
    return model


def load_tokenizer(base: str) -> Any:
    """Return a model's tokenizer, with a token to fill up batches.

    Raises
    ------
    BaseModelError
        As `load_model`.
    """
    _, transformers = _import()
    folder, options = _locate(base)
    tokenizer = _read(transformers.AutoTokenizer, folder, options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def unpack(base: str, out: Path) -> Path:
    """Write a model and its tokenizer as a folder of transformers, which loads in seconds.

    Raises
    ------
    BaseModelError
        As `load_model`.
    """
    model, tokenizer = load_model(base), load_tokenizer(base)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _import() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as exc:
        raise BaseModelError(f"Training a language model needs transformers: {INSTALL}.") from exc
    return torch, transformers


def _locate(base: str) -> tuple[Path, dict[str, Any]]:
    """Return a model's folder, and what transformers must know to read it."""
    if base != EMBEDDED:
        folder = Path(base).expanduser()
        if not (folder / "config.json").is_file():
            raise BaseModelError(
                f"{base} is no folder of a language model (it lacks config.json): give {EMBEDDED!r} or a "
                "folder into which a hub model was downloaded."
            )
        return folder, {"local_files_only": True}
    if importlib.util.find_spec("gguf") is None:
        raise BaseModelError(f"transformers reads the embedded language model by gguf: {INSTALL}.")
    try:
        file = find_default_model()
    except MissingLanguageModelError as exc:
        raise BaseModelError(str(exc)) from exc
    return file.parent, {"gguf_file": file.name, "local_files_only": True}


def _read(reader: Any, folder: Path, options: dict[str, Any]) -> Any:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return reader.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as exc:
        raise BaseModelError(f"The language model in {folder.name} cannot be read: {exc}") from exc
