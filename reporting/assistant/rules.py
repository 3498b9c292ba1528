"""Adapter: reads the tables beside it: how questions are recognised, and the words of questions."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import Any, Final

import yaml

_NEVER: Final = "(?!)"


@functools.cache
def read_table(name: str) -> dict[str, Any]:
    """Return a table that travels with the package: ``questions`` or ``vocabulary``."""
    text = files("reporting.assistant").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


@functools.cache
def pattern(*path: str) -> re.Pattern[str]:
    """Return the expressions of one entry of ``questions.yaml`` as one pattern, without regard to case."""
    entry: Any = read_table("questions")
    for key in path:
        entry = entry[key]
    return re.compile("|".join(entry) or _NEVER, re.IGNORECASE | re.DOTALL)
