"""Pure. A study and the rules in, a decision out: which models, on which series, and why.

Every rule that matches contributes: models and destinations are united, the
highest priority wins. Every rule that does not match says why not, and so does
every model that cannot run: nobody has to guess why nothing happened. Shadows
are chosen like models and kept apart from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dicom_node.matching import find_obstacles
from dicom_node.model_reference import Choice, ModelReference, choose_active, choose_shadows
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
    "ModelReference",
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

Named = TypeVar("Named")

#: Name under which the fallback appears among the explanations.
FALLBACK_NAME = "fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One model and the series that it reads.

    Attributes
    ----------
    is_shadow : bool
        Whether what it says stays in the node.
    roles : mapping
        Role to Series Instance UID, in the order of the model's contract.
    substitutions : tuple of (missing role, role whose series stands in)
    """

    model: str
    version: str = ""
    roles: Mapping[str, SeriesUID] = field(default_factory=dict)
    substitutions: tuple[tuple[str, str], ...] = ()
    is_shadow: bool = False

    @property
    def reference(self) -> str:
        """The model as rules name it, with its version."""
        return str(ModelReference(name=self.model, version=self.version))


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
    is_shadow: bool = False
    is_installed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingDecision:
    """What happens to a study, and why.

    Attributes
    ----------
    assignments : tuple of Assignment
        By model name, then the shadows; empty if nothing runs.
    destinations : tuple of str
        By name; empty leaves the choice to the site's settings.
    urgent_rules : tuple of str
        Names of the rules, or ``fallback``, that asked for ``stat``, sorted.
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
    urgent_rules: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    explanations: tuple[RuleExplanation, ...] = ()
    models: tuple[ModelExplanation, ...] = ()

    @property
    def active(self) -> tuple[Assignment, ...]:
        """The models whose findings are reported."""
        return tuple(assignment for assignment in self.assignments if not assignment.is_shadow)

    @property
    def shadows(self) -> tuple[Assignment, ...]:
        """The models that are only compared."""
        return tuple(assignment for assignment in self.assignments if assignment.is_shadow)

    def assignment_of(self, reference: str) -> Assignment:
        """Return the assignment of ``name@version``.

        Raises
        ------
        KeyError
            If the decision has none.
        """
        for assignment in self.assignments:
            if assignment.reference == reference:
                return assignment
        raise KeyError(reference)

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
                    "is_shadow": item.is_shadow,
                }
                for item in self.assignments
            ],
            "destinations": list(self.destinations),
            "priority": self.priority.value,
            "urgent_rules": list(self.urgent_rules),
            "rules": list(self.rules),
            "explanations": [
                {"rule": item.rule, "matched": item.matched, "reasons": list(item.reasons)}
                for item in self.explanations
            ],
            "models": [
                {
                    "model": item.model,
                    "runs": item.runs,
                    "reasons": list(item.reasons),
                    "is_shadow": item.is_shadow,
                    "is_installed": item.is_installed,
                }
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
                    is_shadow=item["is_shadow"],
                )
                for item in decision["assignments"]
            ),
            destinations=tuple(decision["destinations"]),
            priority=Priority(decision["priority"]),
            urgent_rules=tuple(decision["urgent_rules"]),
            rules=tuple(decision["rules"]),
            explanations=tuple(
                RuleExplanation(rule=item["rule"], matched=item["matched"], reasons=tuple(item["reasons"]))
                for item in decision["explanations"]
            ),
            models=tuple(
                ModelExplanation(
                    model=item["model"],
                    runs=item["runs"],
                    reasons=tuple(item["reasons"]),
                    is_shadow=item["is_shadow"],
                    is_installed=item["is_installed"],
                )
                for item in decision["models"]
            ),
        )


def route_study(
    study: Study, rules: RuleSet, contracts: Mapping[ModelReference, InputContract]
) -> RoutingDecision:
    """Decide which models read a study; total: every study gets a decision.

    Parameters
    ----------
    study : Study
        With one header per series.
    rules : RuleSet
        The site's rules.
    contracts : mapping
        Every installed version of every model to its input contract.
    """
    explanations = tuple(_explain(rule, study) for rule in rules.rules)
    matching = [rule for rule, told in zip(rules.rules, explanations, strict=True) if told.matched]
    named = [(rule.name, rule.then) for rule in matching] or [(FALLBACK_NAME, rules.fallback)]
    outcomes = [then for _, then in named]
    fallback = RuleExplanation(
        rule=FALLBACK_NAME,
        matched=not matching,
        reasons=() if not matching else ("another rule matched",),
    )
    active = choose_active(_gathered(outcome.models for outcome in outcomes), contracts)
    speaking = [choice.reference for choice in active if not choice.reason]
    shadows = choose_shadows(_gathered(outcome.shadows for outcome in outcomes), contracts, speaking)
    told = [_assign(study, choice, contracts, is_shadow=False) for choice in active]
    told += [_assign(study, choice, contracts, is_shadow=True) for choice in shadows]
    urgent = tuple(sorted(name for name, then in named if then.priority is Priority.STAT))
    return RoutingDecision(
        assignments=tuple(assignment for _, assignment in told if assignment is not None),
        destinations=tuple(sorted(set(_gathered(outcome.destinations for outcome in outcomes)))),
        priority=Priority.STAT if urgent else Priority.ROUTINE,
        urgent_rules=urgent,
        rules=tuple(sorted(rule.name for rule in matching)),
        explanations=(*explanations, fallback),
        models=tuple(explanation for explanation, _ in told),
    )


def _assign(
    study: Study, choice: Choice, contracts: Mapping[ModelReference, InputContract], *, is_shadow: bool
) -> tuple[ModelExplanation, Assignment | None]:
    """Return what becomes of one model on a study: why, and its series if it runs."""
    reference = choice.reference
    if choice.reason:
        return ModelExplanation(
            model=str(reference), runs=False, reasons=(choice.reason,),
            is_shadow=is_shadow, is_installed=choice.is_installed,
        ), None  # fmt: skip
    selection = select_series(study, contracts[reference])
    stand_ins = tuple(
        f"no series for {missing}: {stand_in} stands in" for missing, stand_in in selection.substitutions
    )
    explanation = ModelExplanation(
        model=str(reference),
        runs=not selection.obstacles,
        reasons=selection.obstacles or stand_ins,
        is_shadow=is_shadow,
    )
    if selection.obstacles:
        return explanation, None
    return explanation, Assignment(
        model=reference.name,
        version=reference.version,
        roles=dict(selection.roles),
        substitutions=selection.substitutions,
        is_shadow=is_shadow,
    )


def _explain(rule: Rule, study: Study) -> RuleExplanation:
    obstacles = find_obstacles(study, rule.when)
    return RuleExplanation(rule=rule.name, matched=not obstacles, reasons=obstacles)


def _gathered(groups: Iterable[tuple[Named, ...]]) -> tuple[Named, ...]:
    return tuple(name for group in groups for name in group)
