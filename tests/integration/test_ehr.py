from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from deliveries.contract import DestinationContract, Rig
from deliveries.http_peer import Answer, http_peer
from deliveries.results import RUN_ID, STUDY_KEY, make_bundle
from fakes import FakeClock, FakeDeliveryLedger
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from stack.servers import fhir_server

from integration.connections import BearerAuth
from integration.delivery import DeliveryItem, ReceiptState, deliver_run
from integration.destinations import FhirSettings, build_destination
from integration.ehr import describe_outcome, judge_transaction, read_bundle, report_identifier

NAME = "Synthetic^Case"
UNREAD = DeliveryItem(
    object_uid="bundle:unread",
    kind="bundle",
    path=Path("unread.json"),
    sop_class_uid=None,
    run_id=RUN_ID,
    study_key=STUDY_KEY,
)


def build(url, clock, **changes):
    settings = FhirSettings(name="ehr", url=url, timeout_s=changes.pop("timeout_s", 20), **changes)
    return build_destination(settings, clock=clock, new_uid=lambda: "2.25.1")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    return FakeDeliveryLedger(clock)


@pytest.fixture
def item(tmp_path):
    return make_bundle(tmp_path)


def accepted(statuses=("201 Created", "200 OK", "201 Created")):
    locations = (
        "Patient/p1/_history/1",
        "http://ehr.example/fhir/Observation/o1/_history/1",
        "DiagnosticReport/d1",
    )
    entries = [
        {"response": {"status": status, "location": location}}
        for status, location in zip(statuses, locations, strict=False)
    ]
    return answer(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": entries})


def answer(status, resource, **headers):
    content_type = {"Content-Type": "application/fhir+json"}
    return Answer(status, json.dumps(resource).encode(), content_type | headers)


def outcome_of(code, *expressions, **more):
    issue = {"severity": "error", "code": code, "expression": list(expressions), **more}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


class Server:
    """A script that accepts transactions and finds the report once one was accepted."""

    def __init__(self, *first_answers):
        self.first_answers = list(first_answers)
        self.accepted = 0
        self.shows = True

    def __call__(self, call):
        if call.method == "GET":
            report = {"resource": {"resourceType": "DiagnosticReport", "id": "d1"}}
            found = [report] if self.shows and self.accepted else []
            return answer(200, {"resourceType": "Bundle", "type": "searchset", "entry": found})
        if self.first_answers:
            return self.first_answers.pop(0)
        self.accepted += 1
        return accepted()


class TestServerInTestKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, clock, item):
        server = Server()
        with http_peer(server) as (_, url):
            yield Rig(build(f"{url}/fhir", clock), [item], lambda: {item.object_uid: min(1, server.accepted)})


@pytest.mark.fhir_server
class TestMedplumKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, tmp_path, clock, item):
        with fhir_server(tmp_path / "fhir") as server:

            def count_kept():
                query = f"{server.url}/DiagnosticReport?identifier=urn:example:preread|run-1/diagnosticreport"
                with urllib.request.urlopen(query) as response:
                    return {item.object_uid: len(json.load(response).get("entry", []))}

            yield Rig(build(server.url, clock), [item], count_kept)

    def test_the_receipt_names_what_was_written(self, rig, ledger, clock):
        deliver_run(rig.destination, rig.items, ledger, clock)
        (row,) = ledger.rows.values()
        assert row.receipt.startswith("FHIR: HTTP 200: 201 Patient/")
        assert row.receipt.count("201 ") == 3
        assert row.receipt.endswith("report read back")

    def test_a_refused_entry_refuses_the_whole_and_names_its_place(self, rig, ledger, clock):
        bundle = read_bundle(rig.items[0])
        del bundle["entry"][2]["resource"]["code"]
        rig.items[0].path.write_text(json.dumps(bundle))
        outcome = deliver_run(rig.destination, rig.items, ledger, clock)
        assert outcome.failed == (rig.items[0].object_uid,)
        assert "DiagnosticReport.code" in outcome.reason
        assert set(rig.count_kept().values()) == {0}


def test_a_transaction_is_posted_as_fhir_and_read_back_by_its_identifier(item, ledger, clock):
    auth = BearerAuth(type="bearer", token=SecretStr("token-1"))
    with http_peer(Server()) as (peer, url):
        outcome = deliver_run(build(f"{url}/fhir/", clock, auth=auth), [item], ledger, clock)
        post, get = peer.calls
    assert outcome.confirmed == (item.object_uid,)
    assert (post.path, post.headers["content-type"]) == ("/fhir", "application/fhir+json")
    assert json.loads(post.body) == json.loads(item.path.read_bytes())
    assert get.path == "/fhir/DiagnosticReport?identifier=urn%3Aexample%3Apreread%7Crun-1%2Fdiagnosticreport"
    assert {post.headers["authorization"], get.headers["authorization"]} == {"Bearer token-1"}
    receipt = next(iter(ledger.rows.values())).receipt
    assert "201 Patient/p1; 200 Observation/o1; 201 DiagnosticReport/d1" in receipt


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (answer(400, outcome_of("invalid", "Bundle.entry[2]")), "HTTP 400, refused: invalid Bundle.entry[2]"),
        (answer(422, outcome_of("business-rule")), "HTTP 422, refused: business-rule"),
        (answer(413, {}), "HTTP 413"),
        (accepted(("201 Created", "422 Unprocessable", "201 Created")), "entry 1 answered 422"),
    ],
)
def test_a_refusal_is_final(item, ledger, clock, refusal, reason):
    with http_peer(Server(refusal)) as (_, url):
        outcome = deliver_run(build(url, clock), [item], ledger, clock)
    assert outcome.failed == (item.object_uid,)
    assert reason in outcome.reason


@pytest.mark.parametrize(
    ("obstacle", "reason", "wait_s"),
    [
        (answer(429, {}, **{"Retry-After": "77"}), "too many requests", 77),
        (answer(503, outcome_of("transient")), "HTTP 503, server error", 5),
        (answer(412, outcome_of("multiple-matches"), **{"Retry-After": "9"}), "merge the duplicates", 9),
        (answer(409, outcome_of("conflict")), "conflicts with another write", 5),
        (answer(401, {}), "check the credentials", 5),
        (Answer(200, b"<html>login</html>"), "does not cover every entry", 5),
        (accepted(("201 Created",)), "does not cover every entry", 5),
        (accepted(("201 Created", "409 Conflict", "201 Created")), "entry 1 answered 409", 5),
        (Answer(200, b'{"resourceType"', missing_bytes=100), "connection broke", 5),
        (Answer(is_silent=True), "no answer in time", 5),
    ],
)
def test_an_obstacle_delays_and_loses_nothing(item, ledger, clock, obstacle, reason, wait_s):
    with http_peer(Server(obstacle)) as (_, url):
        destination = build(url, clock, timeout_s=0.5)
        outcome = deliver_run(destination, [item], ledger, clock)
        assert outcome.pending == (item.object_uid,)
        assert reason in outcome.reason
        assert outcome.retry_after_s == wait_s
        clock.advance(outcome.retry_after_s)
        assert deliver_run(destination, [item], ledger, clock).confirmed == (item.object_uid,)


def test_an_accepted_report_that_never_shows_is_sent_again(item, ledger, clock):
    server = Server()
    server.shows = False
    with http_peer(server) as (_, url):
        destination = build(url, clock, confirm_timeout_s=60)
        assert deliver_run(destination, [item], ledger, clock).pending
        clock.advance(60)
        lost = deliver_run(destination, [item], ledger, clock)
        assert "report is not found" in lost.reason
        server.shows = True
        clock.advance(lost.retry_after_s)
        assert deliver_run(destination, [item], ledger, clock).confirmed
    assert server.accepted == 2


def test_a_server_that_cannot_be_searched_leaves_the_report_sent(item, ledger, clock):
    def script(call):
        return accepted() if call.method == "POST" else answer(400, outcome_of("not-supported"))

    with http_peer(script) as (_, url):
        outcome = deliver_run(build(url, clock), [item], ledger, clock)
    assert (outcome.pending, outcome.reason) == (
        (item.object_uid,),
        "FHIR: search answered HTTP 400 and no Bundle",
    )


def test_no_prose_of_a_server_is_kept(item, ledger, clock, caplog):
    caplog.set_level("INFO")
    prose = outcome_of(
        f"invalid {NAME}",
        f"Patient.name.where(family='{NAME}')",
        "Patient.name[0]",
        diagnostics=f"{NAME} is unknown",
        details={"text": NAME},
    )
    with http_peer(Server(answer(422, prose))) as (_, url):
        outcome = deliver_run(build(url, clock), [item], ledger, clock)
        assert outcome.reason == "FHIR: HTTP 422, refused: unknown Patient.name[0]"
        ledger.rows.clear()
        assert deliver_run(build(url, clock), [item], ledger, clock).confirmed
    assert "identifier=" not in caplog.text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["resourceType", "issue", "entry", "response", "status"]), inner
            )
        ),
    )
)
def test_any_answer_can_be_judged(resource):
    with_type = {"resourceType": "OperationOutcome", "issue": resource}
    describe_outcome(with_type)
    receipt = judge_transaction(UNREAD, {"entry": [{}]}, 200, json.dumps(resource).encode(), None)
    assert receipt.state in ReceiptState
    assert report_identifier({"entry": resource}) is None


def test_an_identifier_is_escaped():
    report = {"resourceType": "DiagnosticReport", "identifier": [{"value": "a|b,c$d\\e", "system": "urn:x"}]}
    assert report_identifier({"entry": [{"resource": report}]}) == "urn:x|a\\|b\\,c\\$d\\\\e"


@pytest.mark.parametrize("content", ["", "[]", '{"resourceType": "Bundle", "type": "batch"}'])
def test_what_is_no_transaction_is_not_sent(item, ledger, clock, content):
    item.path.write_text(content)
    outcome = deliver_run(build("http://127.0.0.1:1", clock), [item], ledger, clock)
    assert outcome.failed == (item.object_uid,)
    assert "encode the run again" in outcome.reason
