"""Pure. Text that is an instruction to software rather than a question, a note or a source.

What reads like one is refused as a question and left out as a note or a passage. This is
one wall of several: nothing that is quoted can change what tools are called or what is
checked, whatever it says.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_PATTERNS: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"\b(?:ignore|disregard|forget|override|bypass|skip)\b.{0,40}\b(?:instruction|prompt|rule|above|previous|"
        r"prior (?:text|message|instruction)|earlier (?:text|message|instruction)|guardrail|polic|restriction|"
        r"safety|checker|everything|findings?)",
        r"\b(?:system|developer|hidden|initial)\s+(?:prompt|message|instruction)",
        r"\b(?:reveal|print|show|repeat|output|tell me|what (?:is|are))\b.{0,30}\b(?:your|the)\s+"
        r"(?:prompt|instructions|rules|words above|text above|api key|token|password|secret)",
        r"\byou are (?:now|no longer)\b|\bfrom now on\b|\bpretend (?:to be|that|you)\b|\bact as\b|\brole[- ]?play",
        r"\b(?:jailbreak|developer mode|dan mode|do anything now|sudo|debug mode|admin mode)\b",
        r"<\|[^|>]{0,40}\|>|\[/?inst\]|<</?sys>>|###\s*(?:system|instruction|assistant|user)",
        r"(?:^|\n)\s*(?:system|assistant|developer|user)\s*:",
        r"\b(?:say|state|write|report|answer|claim|respond|reply)\b.{0,25}\b(?:that )?(?:there (?:is|are) no|no "
        r"(?:tumou?r|finding|abnormal)|everything is normal|the (?:study|patient) is (?:normal|healthy))",
        r"\b(?:do not|don't|never|stop)\s+(?:cite|mention|check|refuse|follow|show the banner|add the banner)",
        r"\b(?:remove|drop|omit|without|hide|leave out)\b.{0,20}\b(?:banner|disclaimer|citations?)\b",
        r"\b(?:delete|drop|overwrite|alter|edit|insert|erase|wipe)\b.{0,30}\b(?:findings?|table|database|"
        r"report|results?|records?|measurements?|study|audit)\b",
        r"\b(?:change|set|mark|update)\s+(?:the|this|all|every|my)\b.{0,40}\b(?:to|as)\b",
        r"\b(?:execute|eval|import os|subprocess|curl|wget|rm -rf)\b|;\s*drop\s+table|\{\{.*\}\}|<script",
        r"\bnew (?:instructions|rules|task)\b|\binstead,? (?:of answering|answer|say|write|do)\b",
    )
)
#: Characters that show nothing and may hide text (Unicode general category Cf).
_INVISIBLE: Final = "Cf"


def reads_as_instruction(text: str) -> bool:
    """Say whether a text addresses the software instead of asking or stating something."""
    plain = unicodedata.normalize("NFKC", strip_invisible(text))
    return any(pattern.search(plain) for pattern in _PATTERNS)


def strip_invisible(text: str) -> str:
    """Return a text without control and format characters; line breaks stay."""
    return "".join(
        letter
        for letter in text
        if letter in "\n\t" or unicodedata.category(letter) not in {_INVISIBLE, "Cc", "Co", "Cs"}
    )
