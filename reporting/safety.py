"""Pure. The words that keep a machine's result from being taken for a person's.

Banners, disclaimers and confidence wording live here, and only here, so that
every object, text and picture says the same thing and a test can hold it.
Plain ASCII, because it must survive every character set.
"""

from __future__ import annotations

from typing import Final

from inference.findings import Doubt, RiskClass, Triage

#: At the head of every text.
BANNER: Final = (
    "AI RESULT - NOT REVIEWED. This text was made by an algorithm. No physician has reviewed it. "
    "It is decision support and not a diagnosis."
)
#: On every picture.
PICTURE_BANNER: Final = "AI RESULT - NOT REVIEWED - NOT FOR PRIMARY DIAGNOSIS"
#: What a text or a banner must contain for the gate to let it pass.
REQUIRED_PHRASE: Final = "AI RESULT - NOT REVIEWED"
#: First word of the Series Description of every result.
SERIES_PREFIX: Final = "AI"
#: What every recommendation section ends with.
REVIEW_SENTENCE: Final = (
    "A radiologist must review the images and these results before they are used in the care of the patient."
)
#: What absence of a finding does not mean.
ABSENCE_SENTENCE: Final = "This does not rule out disease."

#: What every statement about a whole study ends with.
ESTIMATE_SENTENCE: Final = "This is an estimate by an algorithm and not a diagnosis."
#: What a survival estimate ends with.
SURVIVAL_SENTENCE: Final = "It compares groups of patients and does not predict the course of one patient."
#: What a heat map is, and is not.
HEATMAP_SENTENCE: Final = "A heat map shows where the network looked; it is no outline of a lesion."
#: How side and zone of a box on a radiograph were found.
POSITION_SENTENCE: Final = (
    "Sides and zones of marks on the radiograph are estimated from their position in the image."
)
#: Where clinical information in a report is from, and that nobody checked it.
CLINICAL_SENTENCE: Final = (
    "This was taken from the order and the record by an algorithm, not from the images, and was not checked."
)
#: What a report says when a model gave no answer.
REFUSAL_SENTENCE: Final = "No answer was given, and nothing can be concluded from that."

#: Before every answer of the assistant.
ASSISTANT_BANNER: Final = (
    f"{REQUIRED_PHRASE}. This answer was put together by software from what algorithms found and from "
    "cited texts. No physician has reviewed it. It is decision support and not a diagnosis."
)
#: What every answer of the assistant ends with.
ASSISTANT_CLOSING: Final = REVIEW_SENTENCE
#: What the assistant can be asked; part of every refusal.
ASSISTANT_SCOPE: Final = (
    "You can ask what the algorithms found in this study, where, how large and how sure they are, where they "
    "looked and what they doubt, which algorithm read which series, how it compares with earlier studies of "
    "this patient, and what the site's sources say; or have an installed model read a series of this study."
)
#: Why the assistant does not answer.
REFUSED_SUBJECT: Final = "This is not about what was found in this study or what the site's sources say."
REFUSED_TREATMENT: Final = "The assistant gives no advice on treatment, medication or doses."
REFUSED_DIAGNOSIS: Final = "The assistant makes no diagnosis and no prognosis."
REFUSED_IDENTITY: Final = "The assistant does not know who the patient is and gives no personal data."
REFUSED_OTHER_PATIENT: Final = "The assistant answers about this study and its patient alone."
REFUSED_INSTRUCTION: Final = "The assistant takes questions and no instructions about how it works."
#: What stands in an answer in place of a note or a passage that was left out.
LEFT_OUT_SENTENCE: Final = "A text was left out because it reads like an instruction to software."
#: What a quotation is.
QUOTATION_SENTENCE: Final = "Quoted from the named source; it was not written for this patient."
#: What becomes of a reading that a person asked the assistant for.
ASIDE_SENTENCE: Final = "It was read on request; the result is kept beside the run and was not delivered."

_HIGH_CONFIDENCE = 0.9
_MODERATE_CONFIDENCE = 0.7
#: Standard deviation of repeated readings from which a probability is called unsteady.
UNSTEADY_DEVIATION: Final = 0.15


def describe_confidence(confidence: float, uncertainty: float | None = None) -> str:
    """Return the wording for a model's confidence in what it outlined or marked.

    Parameters
    ----------
    confidence : float
        0 to 1.
    uncertainty : float or None
        Standard deviation of the confidence over repeated readings, 0 to 0.5.

    Returns
    -------
    str
        ``high``, ``moderate`` or ``low``; always ``low`` where repeated readings disagree. It
        describes the network's output and is not a probability of disease.
    """
    if is_unsteady(uncertainty):
        return "low"
    if confidence >= _HIGH_CONFIDENCE:
        return "high"
    if confidence >= _MODERATE_CONFIDENCE:
        return "moderate"
    return "low"


def is_unsteady(uncertainty: float | None) -> bool:
    """Say whether repeated readings disagree so much that the answer is of low confidence."""
    return uncertainty is not None and uncertainty >= UNSTEADY_DEVIATION


def describe_uncertainty(uncertainty: float) -> str:
    """Return the sentence that says how much repeated readings disagree.

    Parameters
    ----------
    uncertainty : float
        Standard deviation over Monte-Carlo dropout passes, 0 to 0.5.
    """
    spread = f"Repeated readings vary by {uncertainty:.2f} (standard deviation)"
    return f"{spread}: take this with caution." if is_unsteady(uncertainty) else f"{spread}."


def format_probability(probability: float) -> str:
    """Return a probability as text reads it: two decimals, and never a certainty."""
    if probability < _LEAST:
        return f"below {_LEAST}"
    return f"above {1 - _LEAST}" if probability > 1 - _LEAST else f"{probability:.2f}"


def describe_triage(triage: Triage) -> str:
    """Return the sentences about how urgent a study looks, with what that rests on.

    The predictive value is a lower confidence bound on the calibration patients, so "at least".
    """
    stated = f"calibrated probability of an abnormal study {format_probability(triage.score)}"
    if triage.risk is RiskClass.UNCERTAIN or triage.predictive_value is None:
        word = _RISK_WORDS[triage.risk]
        return f"Triage: {word} ({stated}). The algorithm states no predictive value for this class."
    kind = "abnormal" if triage.risk is RiskClass.HIGH else "free of what the algorithm looks for"
    sentence = (
        f"Triage: {_RISK_WORDS[triage.risk]} ({stated}). Of the studies in this class at least "
        f"{100 * triage.predictive_value:.0f} % were {kind} "
        f"(lower 95 % bound, {triage.calibration_patients} calibration patients)."
    )
    return sentence if triage.risk is RiskClass.HIGH else f"{sentence} {ABSENCE_SENTENCE}"


def describe_doubt(doubt: Doubt) -> str:
    """Return the sentence that says why an answer must be doubted, or why there is none."""
    reason = doubt.sentence.strip()
    reason = reason if reason.endswith((".", "!", "?")) else f"{reason}."
    return f"{REFUSAL_SENTENCE} {reason}" if doubt.is_blocking else f"This answer must be doubted: {reason}"


def describe_draft(reason: str) -> str:
    """Return the sentence that says that rules worded a text, and why no language model did.

    Parameters
    ----------
    reason : str
        A `reporting.refine.record.Reason`.
    """
    return f"The draft stands, worded by rules from the findings: {_DRAFT_REASONS[reason]}."


def describe_refinement(model: str, *, replaced: int, added: int) -> str:
    """Return the sentences that say that a language model worded a text, and who checked it.

    Parameters
    ----------
    model : str
        Identity of the language model.
    replaced, added : int
        Sentences of the model that gave way to rules, and sentences that rules added.
    """
    worded = f"Findings and impression were worded by a language model ({model}) from the findings."
    checked = "Rules checked every sentence against the findings; no person has."
    mended = [f"replaced {replaced} of its sentences"] if replaced else []
    mended += [f"added {added} that it left out"] if added else []
    return " ".join([worded, checked, *([f"Rules {' and '.join(mended)}."] if mended else [])])


_LEAST: Final = 0.01
#: By `reporting.refine.record.Reason`.
_DRAFT_REASONS: Final = {
    "no_model": "no language model is configured",
    "nothing_to_word": "there is no finding that a language model could word",
    "unreachable": "the language model did not answer",
    "out_of_time": "the language model did not answer in time",
    "resting": "the language model failed several times and is not asked for a while",
    "cancelled": "the language model was told to stop",
    "unusable": "the language model's answer was not in the form that was asked for",
    "unfaithful": "the language model's wording did not agree with the findings",
}
_RISK_WORDS: Final = {
    RiskClass.LOW: "low risk",
    RiskClass.HIGH: "high risk",
    RiskClass.UNCERTAIN: "uncertain",
}
