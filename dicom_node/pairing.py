"""Pure. Which studies of a patient are read together, and whether one waits for the other.

A fusion model reads a patient's CT and MR, which scanners send as two studies. Every study gets the run that
it would get anyway; here is decided which other study's series join it. Both studies of a pair are read with
both, whichever came first: neither report may say less than the node knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from dicom_node.model_reference import ModelReference
from dicom_node.routing import RoutingDecision
from dicom_node.selection import InputContract, select_series
from dicom_node.study import Study, StudyKey


class PairingPolicy(StrEnum):
    """What happens to a study whose partner is not there."""

    #: Studies are never paired.
    OFF = "off"
    #: Read at once with what is there; a partner that comes later makes a new version of the run.
    DEGRADE = "degrade"
    #: Wait for the partner, then degrade.
    WAIT = "wait"
    #: Read at once, but not by the models that lack a partner; they join when it comes.
    REQUIRE = "require"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingRules:
    """How a site pairs studies.

    Attributes
    ----------
    policy : PairingPolicy
        What happens without a partner.
    window : timedelta
        Most time between the two studies.
    wait : timedelta
        Longest wait for a partner, counted from a study's last image.
    """

    policy: PairingPolicy = PairingPolicy.OFF
    window: timedelta = timedelta(hours=72)
    wait: timedelta = timedelta(minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionNeed:
    """What a study brings to a model that reads whichever of its roles are there, and what it lacks.

    Attributes
    ----------
    model : str
        ``name@version``.
    filled, missing : frozenset of str
        Roles; one is filled at least.
    """

    model: str
    filled: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientStudy:
    """One study of a patient as far as pairing needs it.

    Attributes
    ----------
    study_key : StudyKey
        The study.
    studied_at : datetime
        When it was acquired, or else received.
    last_received_at : datetime
        When its last image came.
    is_complete : bool
        Whether its images are all there.
    needs : tuple of FusionNeed
        One a fusion model that the rules ask for.
    """

    study_key: StudyKey
    studied_at: datetime
    last_received_at: datetime
    is_complete: bool = True
    needs: tuple[FusionNeed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingDecision:
    """Whether a study is read now, and with which others.

    Attributes
    ----------
    is_ready : bool
        Whether it is read now.
    partners : tuple of StudyKey
        Studies whose series join it, nearest in time first.
    wait_until : datetime or None
        When it is read at the latest; None when it is read now.
    reason : str
        One sentence for the console, free of patient data.
    """

    is_ready: bool
    partners: tuple[StudyKey, ...] = ()
    wait_until: datetime | None = None
    reason: str


def find_needs(
    study: Study, decision: RoutingDecision, contracts: Mapping[ModelReference, InputContract]
) -> tuple[FusionNeed, ...]:
    """Return what a study brings to the fusion models that the rules ask for, and what it lacks.

    Parameters
    ----------
    study : Study
        With one header per series; partners do not count.
    decision : RoutingDecision
        What the rules ask for; a model that could not run for want of a series counts too.
    contracts : mapping
        Every installed model to its input contract, as its card has it.
    """
    asked = {explanation.model for explanation in decision.models if explanation.is_installed}
    needs = []
    for reference, contract in contracts.items():
        if str(reference) not in asked or not contract.is_any_role_enough:
            continue
        filled = frozenset(role for role, _ in select_series(study, contract).roles)
        missing = frozenset(role.name for role in contract.roles) - filled
        if filled:
            needs.append(FusionNeed(model=str(reference), filled=filled, missing=missing))
    return tuple(sorted(needs, key=lambda need: need.model))


def decide_pairing(
    study: PatientStudy, others: Sequence[PatientStudy], rules: PairingRules, now: datetime
) -> PairingDecision:
    """Decide whether a complete study is read now, and with which other studies of the patient.

    A partner fills a role that the study lacks, by the same model, within the window. Of several the
    nearest in time is taken, one for each role. A partner that is still arriving counts as not there yet:
    once it is, the study is read again with it.

    Parameters
    ----------
    study : PatientStudy
        The study; its images are all there.
    others : sequence of PatientStudy
        Other studies of the same patient, in any order.
    rules : PairingRules
        The site's.
    now : datetime
        Aware time of the decision.
    """
    lacking = {(need.model, role) for need in study.needs for role in need.missing}
    if rules.policy is PairingPolicy.OFF or not lacking:
        return PairingDecision(is_ready=True, reason="no model lacks a partner study")
    near = sorted(
        (
            other
            for other in others
            if other.study_key != study.study_key
            and abs(other.studied_at - study.studied_at) <= rules.window
            and _offered(other) & lacking
        ),
        key=lambda other: (abs(other.studied_at - study.studied_at), other.study_key),
    )
    partners: list[StudyKey] = []
    open_roles = set(lacking)
    for other in near:
        if other.is_complete and _offered(other) & open_roles:
            partners.append(other.study_key)
            open_roles -= _offered(other)
    if not open_roles:
        return PairingDecision(
            is_ready=True,
            partners=tuple(partners),
            reason="its partner study is here: both are read together",
        )
    is_arriving = any(_offered(other) & open_roles for other in near if not other.is_complete)
    wait_until = study.last_received_at + rules.wait
    if rules.policy is PairingPolicy.WAIT and now < wait_until:
        return PairingDecision(
            is_ready=False, wait_until=wait_until, reason="it waits for the patient's partner study"
        )
    if partners:
        return PairingDecision(
            is_ready=True, partners=tuple(partners), reason="some of its partner studies are here"
        )
    return PairingDecision(is_ready=True, reason=_alone(rules.policy, is_arriving=is_arriving))


def require_partners(contract: InputContract, policy: PairingPolicy) -> InputContract:
    """Return the contract by which a study is routed: `PairingPolicy.REQUIRE` makes every role required."""
    if policy is not PairingPolicy.REQUIRE or not contract.is_any_role_enough:
        return contract
    return replace(contract, roles=tuple(replace(role, required=True) for role in contract.roles))


def _offered(study: PatientStudy) -> set[tuple[str, str]]:
    return {(need.model, role) for need in study.needs for role in need.filled}


def _alone(policy: PairingPolicy, *, is_arriving: bool) -> str:
    if policy is PairingPolicy.REQUIRE:
        return "no partner study is here: models that need one do not run until it comes"
    if is_arriving:
        return "its partner study is still arriving: it is read alone, and again with it"
    if policy is PairingPolicy.WAIT:
        return "no partner study came in time: it is read alone"
    return "no partner study is here: it is read alone"
