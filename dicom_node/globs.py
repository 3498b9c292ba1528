"""Pure. The pattern language of rules and input contracts: globs, case-insensitive.

``*`` any text, ``?`` one character, ``[abc]`` one of these. Nothing else: rule
files are written by people, and a pattern that can run for minutes has no place
in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches_any(text: str, patterns: Iterable[str]) -> bool:
    """Tell whether ``text`` as a whole matches one of the patterns, whatever the case."""
    folded = text.casefold()
    return any(fnmatchcase(folded, pattern.casefold()) for pattern in patterns)


def list_patterns(patterns: Iterable[str]) -> str:
    """Return the patterns as a person reads them: ``*brain* or *head* or empty``."""
    return " or ".join(pattern or "empty" for pattern in patterns)
