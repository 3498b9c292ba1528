"""Pure. Says whether a study is complete.

The rules, first that applies:

1. While an association that sent images of it is open, or received images are
   not indexed yet: no.
2. A known expected count is reached: yes, at once.
3. An expected count is known and not reached: no.
4. The source called the study stable and nothing came since: yes, at once.
5. Nothing came for the quiet period (a longer one after an abort): yes.

Over all of them stands the maximum wait: when nothing came for that long, the
study goes ahead with a note that says what was missing. More time never turns
a yes into a no; only new images do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dicom_node.ledger.records import StudyEvidence

#: Seconds between looks while only an event (release, indexing) can change the verdict.
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletenessPolicy:
    """How long to wait for more images of one source.

    Attributes
    ----------
    quiet_period_s : float
        After the last image or the end of its association.
    aborted_quiet_period_s : float
        Likewise when the association broke off: the source will probably come back.
    max_wait_s : float
        Of silence, after which a study goes ahead whatever is missing.
    """

    quiet_period_s: float = 5.0
    aborted_quiet_period_s: float = 30.0
    max_wait_s: float = 900.0

    def quiet_period_for(self, evidence: StudyEvidence) -> float:
        """Return the quiet period in seconds that this study waits."""
        if evidence.was_aborted:
            return max(self.quiet_period_s, self.aborted_quiet_period_s)
        return self.quiet_period_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a study is complete, and why.

    Attributes
    ----------
    check_again_at : datetime or None
        When time alone may change a no; None with a yes.
    reason : str
        One sentence for the console, free of patient data.
    is_short : bool
        Whether the study went ahead although something is known to be missing.
    """

    is_complete: bool
    reason: str
    check_again_at: datetime | None = None
    is_short: bool = False


def decide(evidence: StudyEvidence, policy: CompletenessPolicy, now: datetime) -> Verdict:
    """Decide whether a study is complete.

    Parameters
    ----------
    evidence : StudyEvidence
        What the ledger knows of it.
    policy : CompletenessPolicy
        How long to wait.
    now : datetime
        Aware time of the decision.
    """
    give_up_at = evidence.last_received_at + timedelta(seconds=policy.max_wait_s)
    waiting = _what_is_open(evidence)
    if waiting is None:
        settled = _settle(evidence, policy, now)
        if settled.is_complete:
            return settled
        waiting = settled
    if now >= give_up_at:
        return Verdict(
            is_complete=True,
            is_short=True,
            reason=f"went ahead after {policy.max_wait_s:g} s of silence although {waiting.reason}",
        )
    again_at = waiting.check_again_at or now + timedelta(seconds=_LOOK_AGAIN_S)
    return Verdict(is_complete=False, check_again_at=min(again_at, give_up_at), reason=waiting.reason)


def _what_is_open(evidence: StudyEvidence) -> Verdict | None:
    if evidence.open_associations:
        return Verdict(is_complete=False, reason="an association that sent images of it is open")
    if evidence.unindexed_count:
        return Verdict(is_complete=False, reason="received images are not indexed yet")
    return None


def _settle(evidence: StudyEvidence, policy: CompletenessPolicy, now: datetime) -> Verdict:
    """Decide by count, notification or silence, once nothing is open."""
    expected, arrived = evidence.expected_count, evidence.arrived_count
    if expected is not None:
        if arrived >= expected:
            return Verdict(is_complete=True, reason=f"all {expected} announced instances arrived")
        return Verdict(is_complete=False, reason=f"{arrived} of {expected} announced instances arrived")
    if evidence.stable_at is not None and evidence.stable_at >= evidence.last_received_at:
        return Verdict(is_complete=True, reason="the source called the study stable")
    quiet_s = policy.quiet_period_for(evidence)
    quiet_until = _last_activity(evidence) + timedelta(seconds=quiet_s)
    if now >= quiet_until:
        return Verdict(is_complete=True, reason=f"nothing came for {quiet_s:g} s")
    why = "the association broke off" if evidence.was_aborted else "images came"
    return Verdict(
        is_complete=False,
        check_again_at=quiet_until,
        reason=f"{why} less than {quiet_s:g} s ago",
    )


def _last_activity(evidence: StudyEvidence) -> datetime:
    if evidence.last_closed_at is None:
        return evidence.last_received_at
    return max(evidence.last_received_at, evidence.last_closed_at)
