"""Pure. The checker: what a language model's text says must be what the facts say.

Plain code, no network and no model: a closed vocabulary, rules in the manner of ConText, and a
comparison with the facts that each sentence cites. It never repairs (``reporting/refine/`` does) and
never decides what is true: that are the facts.
"""

from __future__ import annotations

from reporting.checker.checking import check_sentences
from reporting.checker.faults import Fault, FaultKind, group_faults
from reporting.checker.lexicon import Lexicon, LexiconError, build_lexicon, default_lexicon, read_tables
from reporting.checker.reading import extract_statements
from reporting.checker.statements import Context, Stated, StatedPlace, StatedSize, Statement

__all__ = [
    "Context",
    "Fault",
    "FaultKind",
    "Lexicon",
    "LexiconError",
    "Stated",
    "StatedPlace",
    "StatedSize",
    "Statement",
    "build_lexicon",
    "check_sentences",
    "default_lexicon",
    "extract_statements",
    "group_faults",
    "read_tables",
]
