"""Pure. A study and the rules in, a decision out: which models, on which series, and why.

Every rule that matches contributes: models and destinations are united, the
highest priority wins. Every rule that does not match says why not, and so does
every model that cannot run: nobody has to guess why nothing happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dicom_node.matching import find_obstacles
from dicom_node.rules import (
    Conditions,
    Outcome,
    Priority,
    Rule,
    RulesError,
    RuleSet,
    default_rules,
    parse_rules,
)
from dicom_node.selection import InputContract, InputRole, Selection, select_series
from dicom_node.study import SeriesUID, Study

__all__ = [
    "Assignment",
    "Conditions",
    "InputContract",
    "InputRole",
    "ModelExplanation",
    "Outcome",
    "Priority",
    "RoutingDecision",
    "Rule",
    "RuleExplanation",
    "RuleSet",
    "RulesError",
    "Selection",
    "default_rules",
    "parse_rules",
    "route_study",
    "select_series",
]

#: Name under which the fallback appears among the explanations.
FALLBACK_NAME = "fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One model and the series that it reads.

    Attributes
    ----------
    roles : mapping
        Role to Series Instance UID, in the order of the model's contract.
    substitutions : tuple of (missing role, role whose series stands in)
    """

    model: str
    version: str = ""
    roles: Mapping[str, SeriesUID] = field(default_factory=dict)
    substitutions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleExplanation:
    """Whether a rule matched; if not, every reason why not."""

    rule: str
    matched: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelExplanation:
    """Whether a model that a rule asked for can run; if not, why not; what stood in for what."""

    model: str
    runs: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingDecision:
    """What happens to a study, and why.

    Attributes
    ----------
    assignments : tuple of Assignment
        By model name; empty if nothing runs.
    destinations : tuple of str
        By name; empty leaves the choice to the site's settings.
    rules : tuple of str
        Names of the rules that matched, sorted; empty if the fallback decided.
    explanations : tuple of RuleExplanation
        One per rule in the order of the file, then the fallback.
    models : tuple of ModelExplanation
        One per model that a matching rule asked for, by name.
    """

    assignments: tuple[Assignment, ...] = ()
    destinations: tuple[str, ...] = ()
    priority: Priority = Priority.ROUTINE
    rules: tuple[str, ...] = ()
    explanations: tuple[RuleExplanation, ...] = ()
    models: tuple[ModelExplanation, ...] = ()

    @property
    def rule(self) -> str | None:
        """Name of the (first) rule that matched, or None if the fallback decided."""
        return self.rules[0] if self.rules else None

    def to_json(self) -> dict[str, Any]:
        """Return the decision as a JSON object."""
        return {
            "assignments": [
                {
                    "model": item.model,
                    "version": item.version,
                    "roles": [[role, uid] for role, uid in item.roles.items()],
                    "substitutions": [list(pair) for pair in item.substitutions],
                }
                for item in self.assignments
            ],
            "destinations": list(self.destinations),
            "priority": self.priority.value,
            "rules": list(self.rules),
            "explanations": [
                {"rule": item.rule, "matched": item.matched, "reasons": list(item.reasons)}
                for item in self.explanations
            ],
            "models": [
                {"model": item.model, "runs": item.runs, "reasons": list(item.reasons)}
                for item in self.models
            ],
        }

    @classmethod
    def from_json(cls, decision: Mapping[str, Any]) -> RoutingDecision:
        """Return the decision that ``to_json`` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it was written by something else.
        """
        return cls(
            assignments=tuple(
                Assignment(
                    model=item["model"],
                    version=item["version"],
                    roles={role: SeriesUID(uid) for role, uid in item["roles"]},
                    substitutions=tuple((missing, stand_in) for missing, stand_in in item["substitutions"]),
                )
                for item in decision["assignments"]
            ),
            destinations=tuple(decision["destinations"]),
            priority=Priority(decision["priority"]),
            rules=tuple(decision["rules"]),
            explanations=tuple(
                RuleExplanation(rule=item["rule"], matched=item["matched"], reasons=tuple(item["reasons"]))
                for item in decision["explanations"]
            ),
            models=tuple(
                ModelExplanation(model=item["model"], runs=item["runs"], reasons=tuple(item["reasons"]))
                for item in decision["models"]
            ),
        )


def route_study(
    study: Study,
    rules: RuleSet,
    contracts: Mapping[str, InputContract],
    model_versions: Mapping[str, str],
) -> RoutingDecision:
    """Decide which models read a study; total: every study gets a decision.

    Parameters
    ----------
    study : Study
        With one header per series.
    rules : RuleSet
        The site's rules.
    contracts : mapping
        Installed model to its input contract.
    model_versions : mapping
        Installed model to its version.
    """
    explanations = tuple(_explain(rule, study) for rule in rules.rules)
    matching = [rule for rule, told in zip(rules.rules, explanations, strict=True) if told.matched]
    outcomes = [rule.then for rule in matching] or [rules.fallback]
    fallback = RuleExplanation(
        rule=FALLBACK_NAME,
        matched=not matching,
        reasons=() if not matching else ("another rule matched",),
    )
    assignments: list[Assignment] = []
    models: list[ModelExplanation] = []
    for model in _united(outcome.models for outcome in outcomes):
        if model not in contracts:
            models.append(ModelExplanation(model=model, runs=False, reasons=("this model is not installed",)))
            continue
        selection = select_series(study, contracts[model])
        models.append(_explain_model(model, selection))
        if not selection.obstacles:
            assignments.append(
                Assignment(
                    model=model,
                    version=model_versions.get(model, ""),
                    roles=dict(selection.roles),
                    substitutions=selection.substitutions,
                )
            )
    is_stat = any(outcome.priority == Priority.STAT for outcome in outcomes)
    return RoutingDecision(
        assignments=tuple(assignments),
        destinations=_united(outcome.destinations for outcome in outcomes),
        priority=Priority.STAT if is_stat else Priority.ROUTINE,
        rules=tuple(sorted(rule.name for rule in matching)),
        explanations=(*explanations, fallback),
        models=tuple(models),
    )


def _explain(rule: Rule, study: Study) -> RuleExplanation:
    obstacles = find_obstacles(study, rule.when)
    return RuleExplanation(rule=rule.name, matched=not obstacles, reasons=obstacles)


def _explain_model(model: str, selection: Selection) -> ModelExplanation:
    stand_ins = tuple(
        f"no series for {missing}: {stand_in} stands in" for missing, stand_in in selection.substitutions
    )
    return ModelExplanation(
        model=model, runs=not selection.obstacles, reasons=selection.obstacles or stand_ins
    )


def _united(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for group in groups for name in group}))
