"""Pure. What the gate says when it stops something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reporting.context import ResultObject
from reporting.errors import ReportingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule that one object breaks.

    Attributes
    ----------
    object_uid : str
        SOP Instance UID, or ``resource type/index`` in a Bundle. Not for logs.
    rule : str
        Short name of the rule, constant.
    message : str
        What is wrong; names attributes and never their values.
    """

    object_uid: str
    rule: str
    message: str


def object_violation(result: ResultObject, rule: str, message: str) -> Violation:
    """Return the violation of a DICOM result; the message says of which kind it is."""
    return Violation(object_uid=result.object_uid, rule=rule, message=f"{result.kind.value}: {message}")


class GateError(ReportingError):
    """Results are not valid and were held back.

    Attributes
    ----------
    violations : tuple of Violation
        All of them.
    """

    def __init__(self, violations: Sequence[Violation], *, study_key: str | None = None) -> None:
        rules = ", ".join(dict.fromkeys(violation.rule for violation in violations))
        super().__init__(
            f"{len(violations)} rule(s) broken, nothing was sent: {rules}. "
            "Report this with the model's name and version; it is a fault of the software, not of the study.",
            study_key=study_key,
        )
        self.violations = tuple(violations)


def require_valid(violations: Sequence[Violation], *, study_key: str | None = None) -> None:
    """Do nothing if there are no violations.

    Raises
    ------
    GateError
        If there are any.
    """
    if violations:
        raise GateError(violations, study_key=study_key)
