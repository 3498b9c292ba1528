"""Pure. Text that is an instruction to software rather than a question, a note or a source.

What reads like one is refused as a question and left out as a note or a passage. This is
one wall of several: nothing that is quoted can change what tools are called or what is
checked, whatever it says.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from reporting.assistant.rules import pattern

#: Characters that show nothing and may hide text (Unicode general category Cf).
_INVISIBLE: Final = "Cf"


def reads_as_instruction(text: str) -> bool:
    """Say whether a text addresses the software instead of asking or stating something."""
    plain = unicodedata.normalize("NFKC", strip_invisible(text))
    return pattern("instructions").search(plain) is not None


def strip_invisible(text: str) -> str:
    """Return a text without control and format characters; line breaks stay."""
    return "".join(
        letter
        for letter in text
        if letter in "\n\t" or unicodedata.category(letter) not in {_INVISIBLE, "Cc", "Co", "Cs"}
    )
