"""Adapter: opens what a site keeps in its data folder: key, store, rules."""

from __future__ import annotations

import contextlib
import os
import secrets
import uuid
from pathlib import Path
from typing import Final

from dicom_node.routing import RulesError, RuleSet, default_rules, parse_rules
from dicom_node.storage import InstanceStore
from integration.settings import Settings, SettingsError

MEGABYTE: Final = 1 << 20
_SITE_KEY_BYTES: Final = 32


def load_site_key(data_dir: Path) -> bytes:
    """Return the site's secret for study keys, made on the first start.

    Raises
    ------
    SettingsError
        If the data folder cannot be written.
    """
    path = data_dir / "site.key"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = data_dir / f".site.key.{uuid.uuid4().hex}"
        if not path.exists():
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_SITE_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # the first of several processes wins
                os.link(temporary, path)
            temporary.unlink()
        return path.read_bytes()
    except OSError as exc:
        raise SettingsError(
            f"data_dir {data_dir} cannot be written: choose another folder or its rights."
        ) from exc


def read_rules(rules_file: Path | None, *, is_fusion_wanted: bool = False) -> RuleSet:
    """Return the routing rules of a site, or the built-in ones.

    Parameters
    ----------
    rules_file : Path or None
        The site's own rules.
    is_fusion_wanted : bool
        Whether the built-in rules send head CT and MR to the fusion model.

    Raises
    ------
    RulesError
        If the file cannot be read, or names what is wrong in it.
    """
    if rules_file is None:
        return default_rules(is_fusion_wanted=is_fusion_wanted)
    try:
        text = rules_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RulesError(f"The rules file {rules_file} cannot be read: check rules_file.") from exc
    return parse_rules(text)


def open_store(settings: Settings) -> InstanceStore:
    """Return the instance store of a site."""
    return InstanceStore(
        settings.data_dir / "instances",
        min_free_bytes=settings.store.minimum_free_mb * MEGABYTE,
        min_free_fraction=settings.store.minimum_free_fraction,
    )
