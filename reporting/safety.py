"""Pure. The words that keep a machine's result from being taken for a person's.

Banners, disclaimers and confidence wording live here, and only here, so that
every object, text and picture says the same thing and a test can hold it.
Plain ASCII, because it must survive every character set.
"""

from __future__ import annotations

from typing import Final

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

_HIGH_CONFIDENCE = 0.9
_MODERATE_CONFIDENCE = 0.7


def describe_confidence(confidence: float) -> str:
    """Return the wording for a model's confidence in what it outlined.

    Parameters
    ----------
    confidence : float
        0 to 1.

    Returns
    -------
    str
        ``high``, ``moderate`` or ``low``. It describes the network's output and is
        not a probability of disease.
    """
    if confidence >= _HIGH_CONFIDENCE:
        return "high"
    if confidence >= _MODERATE_CONFIDENCE:
        return "moderate"
    return "low"
