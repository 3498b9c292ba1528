"""Adapter: LoRA adapters as they ship: a folder ``models/<name>/<version>/`` with a card and weights.

An adapter is no imaging model: by its ``adapter.yaml`` `inference.packages` passes it over. An adapter whose
weights have another SHA-256 than its card says is not loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reporting.errors import ReportingError
from reporting.language.digests import digest_file

CARD: Final = "adapter.yaml"
WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
_SHA256: Final = r"^[0-9a-f]{64}$"
_VERSION: Final = r"^\d+\.\d+\.\d+$"


class AdapterError(ReportingError):
    """An adapter is unusable; the message names the file and what to do about it."""


class AdapterCard(BaseModel):
    """What must be known of an adapter.

    Attributes
    ----------
    base_model : str
        Name of the model that it was trained on.
    base_sha256 : str or None
        Of that model's file, where it is one file.
    sha256 : str
        Of ``adapter_model.safetensors``.
    config_sha256 : str
        Of ``adapter_config.json``.
    trained_on : tuple of str
        Every source of text, with its licence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: Annotated[str, Field(pattern=_VERSION)]
    title: str
    base_model: str
    base_sha256: Annotated[str | None, Field(pattern=_SHA256)] = None
    licence: str
    sha256: Annotated[str, Field(pattern=_SHA256)]
    config_sha256: Annotated[str, Field(pattern=_SHA256)]
    intended_use: str
    limits: tuple[str, ...]
    trained_on: tuple[str, ...]
    metrics: dict[str, Any] = {}


def load_adapter_card(folder: Path) -> AdapterCard | None:
    """Return the card of an adapter whose files are what the card says.

    Parameters
    ----------
    folder : Path
        Folder of the adapter.

    Returns
    -------
    AdapterCard or None
        None for an adapter of the site's own that has no card.

    Raises
    ------
    AdapterError
        If the weights or the configuration are missing, or are not those of the card, or the card is
        not valid.
    """
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise AdapterError(f"The adapter {folder.name} lacks {name}: give the folder that PEFT saved.")
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        card = AdapterCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as exc:
        raise AdapterError(f"The card {CARD} of the adapter {folder.name} is not valid.") from exc
    for name, digest in ((WEIGHTS, card.sha256), (CONFIG, card.config_sha256)):
        if digest_file(folder / name) != digest:
            raise AdapterError(
                f"{name} of the adapter {card.name} {card.version} is not the file that its card names: "
                "install the adapter again."
            )
    return card


def find_adapter(models_dir: Path, base: Path) -> Path | None:
    """Return the newest adapter under a models folder that was trained on a model, if there is one.

    Parameters
    ----------
    models_dir : Path
        Folder of ``<name>/<version>`` folders.
    base : Path
        File of the model.

    Raises
    ------
    AdapterError
        If an adapter there is not what its card says.
    """
    folders = [path.parent for path in models_dir.glob(f"*/*/{CARD}") if not path.parent.name.startswith(".")]
    digest = digest_file(base) if folders else ""
    fitting = []
    for folder in folders:
        card = load_adapter_card(folder)
        if card is not None and card.base_sha256 == digest:
            fitting.append((tuple(int(part) for part in card.version.split(".")), folder))
    return max(fitting)[1] if fitting else None


def pack_adapter(trained: Path, out: Path, card: Mapping[str, Any]) -> AdapterCard:
    """Write a trained adapter as it ships: float16 weights, a clean configuration, a card.

    Parameters
    ----------
    trained : Path
        Folder that PEFT saved.
    out : Path
        ``models/<name>/<version>``.
    card : mapping
        Fields of `AdapterCard` but the digests.

    Raises
    ------
    AdapterError
        If a weight does not fit float16.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights = {name: value.to(torch.float16) for name, value in load_file(trained / WEIGHTS).items()}
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise AdapterError("A weight of the adapter is too large for float16: train with a lower rate.")
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    (out / WEIGHTS).chmod(0o644)
    config = json.loads((trained / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = card["base_model"]  # a folder of the machine that trained it
    (out / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    digests = {"sha256": digest_file(out / WEIGHTS), "config_sha256": digest_file(out / CONFIG)}
    checked = AdapterCard.model_validate({**card, **digests})
    text = yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    (out / CARD).write_text(
        "# Card of a LoRA adapter; README.md says the same for people.\n" + text, encoding="utf-8"
    )
    return checked
