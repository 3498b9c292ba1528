"""Pure. How urgent a run is: the rule that routed it, and what the models found.

Triage raises a priority and never lowers one: a rule knows what no image shows
(the emergency department, for example), and "low risk" is no reason to wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.routing import Priority, RoutingDecision
from inference.findings import Analysis, RiskClass


def explain_priority(decision: RoutingDecision) -> str:
    """Return which rule made a study urgent; empty if none did."""
    return f"rule {', '.join(decision.urgent_rules)}" if decision.urgent_rules else ""


def choose_priority(decision: RoutingDecision, analyses: Sequence[Analysis]) -> tuple[Priority, str]:
    """Return the priority of a run after its models have answered, and why.

    Parameters
    ----------
    decision : RoutingDecision
        What the rules said.
    analyses : sequence of Analysis
        What the active models said; shadows have no say.
    """
    urgent = [
        f"{analysis.model.name} {analysis.model.version} calls the study high risk "
        f"(probability {analysis.triage.score:.2f})"
        for analysis in analyses
        if analysis.triage is not None and analysis.triage.risk is RiskClass.HIGH and not analysis.is_refused
    ]
    reasons = [explain_priority(decision), *urgent]
    return Priority.STAT if urgent else decision.priority, "; ".join(filter(None, reasons))
