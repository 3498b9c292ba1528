"""Pure. The only advice that a text of Preread may give, each with what it rests on.

A language model may choose among these and copy them; any other advice is refused by the
checker. They speak of what the reader of the report does with it, and order nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from inference.findings import Presence
from reporting.facts import Certainty, Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One allowed piece of advice.

    Attributes
    ----------
    alias : str
        ``R1``, ``R2``, ...: how a language model cites it.
    text : str
        The sentence, word for word.
    """

    alias: str
    text: str


def allow_recommendations(facts: Facts) -> tuple[Recommendation, ...]:
    """Return the advice that fits a study's facts, in the order in which a report gives it."""
    present = facts.with_presence(Presence.PRESENT)
    is_unsure = any(fact.certainty in {Certainty.MODERATE, Certainty.LOW} for fact in present)
    texts = []
    if present:
        texts += ["Correlation with the clinical findings is advised."]
        texts += ["Comparison with earlier images is advised, if there are any."]
    if is_unsure or facts.with_presence(Presence.UNDETERMINED):
        texts += ["Findings of limited confidence should be confirmed by a radiologist on the images."]
    if not present:
        texts += [
            "If the clinical suspicion persists, the images should be reviewed with that question in mind."
        ]
    return tuple(Recommendation(alias=f"R{number}", text=text) for number, text in enumerate(texts, 1))
