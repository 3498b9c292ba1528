"""Pure. Free text as it may be shown and put into prompts: without identifiers, and never an instruction."""

from __future__ import annotations

from reporting.assistant.identifiers import Identifiers, redact
from reporting.assistant.instructions import reads_as_instruction, strip_invisible


def clean_free_text(text: str, identifiers: Identifiers) -> str:
    """Return free text without identifiers and hidden characters; nothing if it is an instruction."""
    plain = " ".join(strip_invisible(text).split())
    return "" if reads_as_instruction(text) else redact(plain, identifiers)
