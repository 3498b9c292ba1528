"""Pure. How rules name models, ``name`` or ``name@version``, and which installed version that means.

One version of a model speaks for it: a report with the same lesion from two
versions would count it twice. Further versions run as shadows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ModelReference:
    """A model by name, with or without its version.

    Attributes
    ----------
    version : str
        ``major.minor.patch``; empty means whichever is newest.
    """

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of one reference: the installed version that it means, or why none runs for it."""

    reference: ModelReference
    reason: str = ""
    is_installed: bool = True


def parse_reference(text: str) -> ModelReference:
    """Read ``name`` or ``name@version``.

    Raises
    ------
    ValueError
        If it is neither; the message says what is wanted.
    """
    name, at, version = text.partition("@")
    if not _NAME.fullmatch(name) or (at and not _VERSION.fullmatch(version)):
        raise ValueError(f"{text!r} names no model: write name or name@version, as in chest-xray-boxes@1.0.0")
    return ModelReference(name=name, version=version)


def choose_active(
    wanted: Iterable[ModelReference], installed: Iterable[ModelReference]
) -> tuple[Choice, ...]:
    """Decide which version of each model speaks for it.

    A pinned version goes before an unpinned name, of several pinned versions the newest that is
    installed.

    Parameters
    ----------
    wanted : iterable of ModelReference
        What the rules that matched name.
    installed : iterable of ModelReference
        Every installed version.

    Returns
    -------
    tuple of Choice
        At most one without a reason for each name; sorted.
    """
    wanted, installed = set(wanted), set(installed)
    choices: list[Choice] = []
    for name in sorted({reference.name for reference in wanted}):
        versions = [reference for reference in installed if reference.name == name]
        pins = {reference for reference in wanted if reference.name == name and reference.version}
        candidates = [reference for reference in versions if not pins or reference in pins]
        chosen = max(candidates, key=_age, default=None)
        if chosen is not None:
            choices.append(Choice(reference=chosen))
        for reference in sorted(pins - {chosen}) or ([] if chosen else [ModelReference(name=name)]):
            is_installed = reference in installed
            reason = (
                f"version {chosen.version} speaks for this model: name the other one under shadow"
                if is_installed and chosen is not None
                else _why_absent(reference)
            )
            choices.append(Choice(reference=reference, reason=reason, is_installed=is_installed))
    return tuple(choices)


def choose_shadows(
    wanted: Iterable[ModelReference],
    installed: Iterable[ModelReference],
    active: Iterable[ModelReference],
) -> tuple[Choice, ...]:
    """Decide which versions run as shadows: each that is named, unless it speaks for its model already."""
    installed, active = set(installed), set(active)
    choices: dict[ModelReference, Choice] = {}
    for reference in sorted(set(wanted)):
        versions = [other for other in installed if reference in {other, ModelReference(name=other.name)}]
        chosen = max(versions, key=_age, default=None)
        if chosen is None:
            choices[reference] = Choice(
                reference=reference, reason=_why_absent(reference), is_installed=False
            )
        elif chosen in active:
            choices[chosen] = Choice(reference=chosen, reason="it reads the study already, not as a shadow")
        else:
            choices[chosen] = Choice(reference=chosen)
    return tuple(choices[reference] for reference in sorted(choices))


def _why_absent(reference: ModelReference) -> str:
    return "this version is not installed" if reference.version else "this model is not installed"


def _age(reference: ModelReference) -> tuple[int, ...]:
    return tuple(int(part) for part in reference.version.split("."))
