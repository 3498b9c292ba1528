from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.model_reference import ModelReference
from dicom_node.pairing import (
    FusionNeed,
    PairingPolicy,
    PairingRules,
    PatientStudy,
    decide_pairing,
    find_needs,
    require_partners,
)
from dicom_node.routing import InputContract, InputRole, parse_rules, route_study
from dicom_node.selection import select_series
from dicom_node.sop_classes import SOP_CLASS_BY_NAME
from dicom_node.study import (
    Digest,
    Instance,
    Series,
    SeriesUID,
    SOPInstanceUID,
    Study,
    StudyKey,
    StudyUID,
    TransferSyntaxUID,
    derive_patient_key,
)

T0 = datetime(2026, 3, 1, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
MODEL = "fusion@1.0.0"
CONTRACT = InputContract(
    roles=(InputRole(name="ct", modalities=("CT",)), InputRole(name="mr", modalities=("MR",))),
    is_any_role_enough=True,
)
CONTRACTS = {ModelReference(name="fusion", version="1.0.0"): CONTRACT}
RULES = parse_rules(
    "rules: [{name: head, when: {modality: [CT, MR]}, models: [fusion]}]\nfallback: {models: []}"
)


def need(*filled: str) -> FusionNeed:
    return FusionNeed(model=MODEL, filled=frozenset(filled), missing=frozenset({"ct", "mr"}) - set(filled))


def patient_study(name: str, role: str, *, hours: float = 0, complete: bool = True) -> PatientStudy:
    return PatientStudy(
        study_key=StudyKey(name),
        studied_at=T0 + hours * HOUR,
        last_received_at=T0 + hours * HOUR,
        is_complete=complete,
        needs=(need(role),) if role else (),
    )


def rules(policy: str, *, wait_minutes: float = 30) -> PairingRules:
    return PairingRules(policy=PairingPolicy(policy), window=24 * HOUR, wait=timedelta(minutes=wait_minutes))


CT = patient_study("ct", "ct")
MR = patient_study("mr", "mr", hours=2)
ARRIVING = patient_study("mr", "mr", hours=2, complete=False)
LAST_WEEK = patient_study("old", "mr", hours=-100)
OTHER_CT = patient_study("ct2", "ct", hours=1)
CHEST = patient_study("chest", "", hours=1)


@pytest.mark.parametrize(
    ("policy", "others", "minutes", "is_ready", "partners"),
    [
        ("off", [MR], 0, True, []),
        ("degrade", [], 0, True, []),
        ("degrade", [MR], 0, True, ["mr"]),
        ("degrade", [ARRIVING], 0, True, []),
        ("degrade", [LAST_WEEK], 0, True, []),
        ("degrade", [OTHER_CT, CHEST], 0, True, []),
        ("wait", [], 0, False, []),
        ("wait", [], 29, False, []),
        ("wait", [], 30, True, []),
        ("wait", [ARRIVING], 10, False, []),
        ("wait", [MR], 0, True, ["mr"]),
        ("wait", [LAST_WEEK], 0, False, []),
        ("require", [], 0, True, []),
        ("require", [MR, LAST_WEEK], 0, True, ["mr"]),
    ],
)
def test_what_happens_to_a_ct(
    policy: str, others: list[PatientStudy], minutes: float, is_ready: bool, partners: list[str]
) -> None:
    decision = decide_pairing(CT, others, rules(policy), T0 + timedelta(minutes=minutes))
    assert (decision.is_ready, list(decision.partners)) == (is_ready, partners)
    assert decision.reason
    assert (decision.wait_until is None) == is_ready


def test_the_nearest_of_several_partners_is_taken() -> None:
    near, far = patient_study("near", "mr", hours=-1), patient_study("far", "mr", hours=5)
    assert decide_pairing(CT, [far, near], rules("degrade"), T0).partners == (StudyKey("near"),)


def test_a_study_that_no_fusion_model_reads_never_waits() -> None:
    assert decide_pairing(CHEST, [MR], rules("wait"), T0).is_ready
    whole = PatientStudy(
        study_key=StudyKey("both"), studied_at=T0, last_received_at=T0, needs=(need("ct", "mr"),)
    )
    assert decide_pairing(whole, [MR], rules("wait"), T0).partners == ()


STUDIES = st.lists(
    st.builds(
        patient_study,
        st.sampled_from([f"s{number}" for number in range(6)]),
        st.sampled_from(["ct", "mr", ""]),
        hours=st.integers(-60, 60),
        complete=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda study: study.study_key,
)


@given(others=STUDIES, policy=st.sampled_from(list(PairingPolicy)), minutes=st.integers(0, 600))
def test_every_study_is_read_in_the_end_with_partners_that_fit(
    others: list[PatientStudy], policy: PairingPolicy, minutes: int
) -> None:
    now = T0 + timedelta(minutes=minutes)
    decision = decide_pairing(CT, others, rules(str(policy)), now)
    by_key = {other.study_key: other for other in others}
    for key in decision.partners:
        assert by_key[key].is_complete
        assert abs(by_key[key].studied_at - CT.studied_at) <= 24 * HOUR
        assert by_key[key].needs == (need("mr"),)
    assert len(decision.partners) <= 1
    assert decide_pairing(CT, list(reversed(others)), rules(str(policy)), now) == decision
    if not decision.is_ready:
        assert policy is PairingPolicy.WAIT
        assert decision.wait_until is not None
        assert decide_pairing(CT, others, rules("wait"), decision.wait_until).is_ready


@given(hours=st.integers(-40, 40))
def test_pairing_is_mutual(hours: int) -> None:
    mr = patient_study("mr", "mr", hours=hours)
    ours, theirs = (decide_pairing(a, [b], rules("degrade"), T0) for a, b in ((CT, mr), (mr, CT)))
    assert bool(ours.partners) == bool(theirs.partners)


def series(uid: str, modality: str) -> Series:
    kind = SOP_CLASS_BY_NAME["CTImageStorage" if modality == "CT" else "MRImageStorage"]
    instance = Instance(
        sop_instance_uid=SOPInstanceUID(f"{uid}.1"), sop_class_uid=kind, digest=Digest("d"), path="p",
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"), size_bytes=1,
    )  # fmt: skip
    return Series(series_uid=SeriesUID(uid), modality=modality, instances=(instance,))


def study(name: str, *modalities: str, partners: tuple[Study, ...] = ()) -> Study:
    return Study(
        study_key=StudyKey(name), study_uid=StudyUID(f"2.25.{len(name)}"), source_ae="X", partners=partners,
        series=tuple(series(f"1.{len(name)}.{index}", kind) for index, kind in enumerate(modalities)),
    )  # fmt: skip


def test_a_study_needs_what_its_own_series_do_not_fill() -> None:
    ct = study("ct", "CT")
    assert find_needs(ct, route_study(ct, RULES, CONTRACTS), CONTRACTS) == (need("ct"),)
    both = study("both", "MR", "CT")
    assert find_needs(both, route_study(both, RULES, CONTRACTS), CONTRACTS) == (need("ct", "mr"),)
    none = study("none", "CR")
    assert find_needs(none, route_study(none, RULES, CONTRACTS), CONTRACTS) == ()


def test_a_partner_fills_the_role_that_is_missing_after_the_studys_own() -> None:
    mr = study("mr", "MR", partners=(study("ct1", "CT", "MR"),))
    roles = select_series(mr, CONTRACT).roles
    assert roles == (("mr", mr.series[0].series_uid), ("ct", mr.partners[0].series[0].series_uid))
    for _, uid in roles:
        assert mr.series_by_uid(uid).series_uid == uid


def test_a_model_that_needs_all_its_roles_reads_no_partner() -> None:
    strict = InputContract(roles=(InputRole(name="ct", required=True, modalities=("CT",)),))
    assert select_series(study("mr", "MR", partners=(study("ct1", "CT"),)), strict).obstacles


def test_policy_require_keeps_a_fusion_model_from_half_a_study() -> None:
    contract = require_partners(CONTRACT, PairingPolicy.REQUIRE)
    assert select_series(study("mr", "MR"), contract).obstacles
    assert not select_series(study("mr", "MR", partners=(study("ct1", "CT"),)), contract).obstacles
    assert require_partners(CONTRACT, PairingPolicy.DEGRADE) is CONTRACT


def test_a_patient_is_matched_by_id_and_issuer_alone() -> None:
    key = b"k" * 32
    assert derive_patient_key("4711", "A", key) == derive_patient_key(" 4711 ", "A", key)
    assert derive_patient_key("4711", "A", key) != derive_patient_key("4711", "B", key)
    assert derive_patient_key("4711", "", key) != derive_patient_key("4712", "", key)
    assert derive_patient_key("4711", "", key) != derive_patient_key("4711", "", b"l" * 32)
    assert derive_patient_key("  ", "A", key) is None
    assert "4711" not in str(derive_patient_key("4711", "A", key))
