"""Pure. The second request: the same facts, the answer that was given, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from reporting.refine.answer import CitedSentence, write_answer
from reporting.refine.port import CompletionRequest
from reporting.refine.repair import SeenFault

_MOST_FAULTS: Final = 12
_MAX_DETAIL_LENGTH: Final = 160
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 .,;:()%/'-]+")


def ask_again(
    request: CompletionRequest, answer: Sequence[CitedSentence], faults: Sequence[SeenFault]
) -> CompletionRequest:
    """Return the request with an answer to it and its faults, by which the model may correct itself.

    Parameters
    ----------
    answer : sequence of CitedSentence
        What the model answered; empty if that was not the JSON that was asked for.
    """
    if not answer:
        return replace(request, user=f"{request.user}\nAnswer with the JSON object alone.")
    lines = [f"Your answer: {write_answer(answer)}", "Its faults:"]
    lines += [f"- {_describe(fault, answer)}" for fault in faults[:_MOST_FAULTS]]
    lines.append("Answer again, with these faults corrected.")
    return replace(request, user="\n".join([request.user, *lines]))


def _describe(fault: SeenFault, answer: Sequence[CitedSentence]) -> str:
    place = "The answer"
    if fault.index is not None:
        section = answer[fault.index].section
        number = sum(one.section is section for one in answer[: fault.index + 1])
        place = f"Sentence {number} of {section.value}"
    about = f" ({', '.join(fault.aliases)})" if fault.aliases else ""
    kind = str(fault.kind).replace("_", " ")
    detail = _NOT_PLAIN.sub(" ", fault.detail)[:_MAX_DETAIL_LENGTH].strip()
    return f"{place}{about}: {kind}{f': {detail}' if detail else ''}"
