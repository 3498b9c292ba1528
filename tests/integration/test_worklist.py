"""What makes a study urgent."""

from __future__ import annotations

from dicom_node.routing import Priority, RoutingDecision
from inference.findings import Analysis, Caveat, Doubt, ModelIdentity, RiskClass, Triage
from integration.worklist import choose_priority

ROUTINE = RoutingDecision()
EMERGENCY = RoutingDecision(priority=Priority.STAT, urgent_rules=("emergency",))


def analysis(risk: RiskClass | None, *, doubts: tuple[Doubt, ...] = ()) -> Analysis:
    model = ModelIdentity(name="head-ct", version="1.0.0", weights_sha256="", task="classification", title="")
    return Analysis(
        model=model,
        study_uid="1.2",
        inputs=(),
        findings=(),
        triage=None if risk is None else Triage(risk=risk, score=0.914),
        doubts=doubts,
    )


def test_high_risk_makes_a_study_urgent_and_says_which_model_said_so() -> None:
    priority, reason = choose_priority(ROUTINE, [analysis(None), analysis(RiskClass.HIGH)])
    assert priority is Priority.STAT
    assert reason == "head-ct 1.0.0 calls the study high risk (probability 0.91)"


def test_uncertain_keeps_and_low_never_lowers() -> None:
    assert choose_priority(ROUTINE, [analysis(RiskClass.UNCERTAIN)]) == (Priority.ROUTINE, "")
    assert choose_priority(ROUTINE, [analysis(RiskClass.LOW)]) == (Priority.ROUTINE, "")
    assert choose_priority(EMERGENCY, [analysis(RiskClass.LOW)]) == (Priority.STAT, "rule emergency")


def test_what_a_rule_and_a_model_say_is_told_together() -> None:
    _, reason = choose_priority(EMERGENCY, [analysis(RiskClass.HIGH)])
    assert reason.startswith("rule emergency; head-ct 1.0.0")


def test_a_refused_answer_makes_nothing_urgent() -> None:
    refusal = Doubt(caveat=Caveat.WRONG_BODY_PART, sentence="Not a head.", is_blocking=True)
    assert choose_priority(ROUTINE, [analysis(RiskClass.HIGH, doubts=(refusal,))])[0] is Priority.ROUTINE
