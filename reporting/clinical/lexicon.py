"""Pure. The closed vocabulary: every problem that can be recognised, and the only words that leave for it.

The table is ``lexicon.yaml``. A phrase that is not in it is not recognised, however
medical it is; that is the price for never passing on a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

import yaml

SNOMED_SYSTEM: Final = "http://snomed.info/sct"


class ProblemKind(StrEnum):
    """What sort of thing an entry is."""

    SYMPTOM = "symptom"
    FINDING = "finding"
    DISEASE = "disease"
    PROCEDURE = "procedure"
    DEVICE = "device"
    EXPOSURE = "exposure"
    PURPOSE = "purpose"


@dataclass(frozen=True, slots=True, kw_only=True)
class LexiconEntry:
    """One problem.

    Attributes
    ----------
    noun : str
        What prompts and reports call it.
    snomed : str
        SNOMED CT concept id; empty where none is certain.
    spellings : tuple of str
        Phrases that stand for it, in any case; the noun is one.
    exact : tuple of str
        Abbreviations that stand for it only in these letters.
    absent : tuple of str
        Phrases that say that it is not there.
    """

    key: str
    noun: str
    kind: ProblemKind
    snomed: str = ""
    spellings: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """The entries by key, and phrases that look like one and are none."""

    entries: Mapping[str, LexiconEntry]
    ignored: tuple[str, ...]

    def noun(self, concept: str) -> str | None:
        """Return what a concept is called; None for a concept that is not of this vocabulary."""
        entry = self.entries.get(concept)
        return entry.noun if entry else None

    def find_code(self, snomed: str) -> LexiconEntry | None:
        """Return the entry of a SNOMED CT concept."""
        return next((entry for entry in self.entries.values() if snomed and entry.snomed == snomed), None)


@cache
def load_lexicon() -> Lexicon:
    """Return the lexicon of the package."""
    table = yaml.safe_load((files(__package__) / "lexicon.yaml").read_text(encoding="utf-8"))
    entries = [
        LexiconEntry(
            key=row["key"],
            noun=row["noun"],
            kind=ProblemKind(row["kind"]),
            snomed=row.get("snomed", ""),
            spellings=tuple(dict.fromkeys([row["noun"].lower(), *row.get("also", ())])),
            exact=tuple(row.get("exact", ())),
            absent=tuple(row.get("absent", ())),
        )
        for row in table["entries"]
    ]
    return Lexicon(
        entries=MappingProxyType({entry.key: entry for entry in entries}), ignored=tuple(table["ignored"])
    )
