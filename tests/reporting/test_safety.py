from __future__ import annotations

import pytest

from inference.findings import Caveat, Doubt, RiskClass, Triage
from reporting import safety


def test_confidence_is_low_where_repeated_readings_disagree():
    assert safety.describe_confidence(0.95) == "high"
    assert safety.describe_confidence(0.95, 0.05) == "high"
    assert safety.describe_confidence(0.95, 0.2) == "low"


def test_disagreement_is_said_with_its_size():
    assert safety.describe_uncertainty(0.04) == "Repeated readings vary by 0.04 (standard deviation)."
    assert safety.describe_uncertainty(0.2).endswith(": take this with caution.")


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "below 0.01"), (0.004, "below 0.01"), (0.5, "0.50"), (0.999, "above 0.99")],
)
def test_no_probability_is_a_certainty(probability, text):
    assert safety.format_probability(probability) == text


def test_triage_states_what_it_rests_on():
    high = Triage(risk=RiskClass.HIGH, score=0.94, predictive_value=0.88, calibration_patients=512)
    assert (
        "at least 88 % were abnormal (lower 95 % bound, 512 calibration patients)"
        in safety.describe_triage(high)
    )
    low = Triage(risk=RiskClass.LOW, score=0.04, predictive_value=0.97, calibration_patients=400)
    assert safety.describe_triage(low).endswith(safety.ABSENCE_SENTENCE)
    uncertain = Triage(risk=RiskClass.UNCERTAIN, score=0.5)
    assert "states no predictive value" in safety.describe_triage(uncertain)


def test_a_blocking_doubt_says_that_there_is_no_answer():
    doubt = Doubt(caveat=Caveat.WRONG_BODY_PART, sentence="The images show no chest", is_blocking=True)
    assert safety.describe_doubt(doubt) == f"{safety.REFUSAL_SENTENCE} The images show no chest."
    open_doubt = Doubt(caveat=Caveat.LOW_CONFIDENCE, sentence="The mark is faint.")
    assert safety.describe_doubt(open_doubt) == "This answer must be doubted: The mark is faint."


def test_every_sentence_is_plain_ascii():
    texts = [value for value in vars(safety).values() if isinstance(value, str)]
    assert all(text.isascii() for text in texts)
