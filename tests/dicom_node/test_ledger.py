"""The whole suite runs on SQLite and, with the marker ``postgres``, on PostgreSQL."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from receiving.images import make_uid
from sqlalchemy import inspect

from dicom_node.headers import InstanceHeader
from dicom_node.ledger import (
    DeliveryState,
    InstanceState,
    Ledger,
    LedgerError,
    LedgerUnavailableError,
    OutputObject,
    ReceivedInstance,
    Reception,
    Run,
    RunState,
    UnknownDeliveryError,
    UnknownRunError,
)
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import metadata
from dicom_node.study import (
    Digest,
    SeriesUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyKey,
    StudyUID,
    TransferSyntaxUID,
    digest_instance_set,
)

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
KEY = StudyKey("study-a")


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _received(number: int, *, content: str = "", seconds: float = 0, **changes: object) -> ReceivedInstance:
    base = ReceivedInstance(
        sop_instance_uid=SOPInstanceUID(make_uid(number)),
        sop_class_uid=SOPClassUID("1.2.840.10008.5.1.4.1.1.2"),
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
        digest=Digest(content or f"digest-{number}"),
        path=f"aa/{content or number}.dcm",
        size_bytes=100,
        source_ae="SCANNER",
        source_address="127.0.0.1",
        association_id="association-1",
        received_at=_at(seconds),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def _header(number: int, *, series: int = 1, is_own: bool = False, uid: str | None = None) -> InstanceHeader:
    return InstanceHeader(
        study_uid=StudyUID(make_uid("study")),
        series_uid=SeriesUID(make_uid("series", series)),
        sop_instance_uid=SOPInstanceUID(uid or make_uid(number)),
        sop_class_uid=SOPClassUID("1.2.840.10008.5.1.4.1.1.2"),
        modality="CT",
        study_description="CT head",
        series_description=f"Series {series}",
        series_number=series,
        instance_number=number,
        is_own_result=is_own,
    )


def _index_all(ledger: Ledger, *, own: frozenset[str] = frozenset()) -> None:
    for row in ledger.unindexed(1000):
        is_own = row.sop_instance_uid in own
        header = replace(_header(row.instance_id, is_own=is_own), sop_instance_uid=row.sop_instance_uid)
        ledger.mark_indexed(row.instance_id, header, KEY)


def _begin(ledger: Ledger, run_id: str) -> Run:
    study = ledger.study(KEY)
    return ledger.begin_next_run(run_id, KEY, digest_instance_set(study.instances), _at(100))


# -- schema ----------------------------------------------------------------------------------


def test_all_migrations_give_exactly_the_tables(ledger: Ledger) -> None:
    with ledger._database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        migrated = _describe_schema(connection)
        connection.rollback()
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert _describe_schema(connection) == migrated
        connection.rollback()


def _describe_schema(connection: object) -> dict[str, object]:
    inspector = inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            sorted(
                (i["name"], tuple(i["column_names"]), bool(i["unique"])) for i in inspector.get_indexes(table)
            ),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(
                (tuple(f["constrained_columns"]), f["referred_table"])
                for f in inspector.get_foreign_keys(table)
            ),
        )
        for table in metadata.tables
    }


def test_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    failures: list[BaseException] = []

    def migrate() -> None:
        ledger = Ledger.connect(database_url)
        try:
            ledger.migrate()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
        finally:
            ledger.close()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_sqlite_survives_power_loss_by_its_settings(sqlite_ledger: Ledger) -> None:
    with sqlite_ledger._database.engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000, "foreign_keys": 1}


def test_a_database_that_is_down_is_a_transient_failure() -> None:
    ledger = Ledger.connect("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(LedgerUnavailableError):
        ledger.record_received(_received(1))


def test_naive_times_are_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.record_received(_received(1, received_at=datetime(2026, 1, 1)))  # noqa: DTZ001


# -- intake ----------------------------------------------------------------------------------


def test_times_come_back_as_they_went_in_whatever_their_zone(ledger: Ledger) -> None:
    tokyo = START.astimezone(timezone(timedelta(hours=9)))
    ledger.record_received(_received(1, received_at=tokyo))
    (row,) = ledger.unindexed(10)
    assert row.received_at == START
    assert row.received_at.tzinfo is UTC


def test_new_duplicate_and_conflict(ledger: Ledger) -> None:
    assert ledger.record_received(_received(1)) is Reception.NEW
    assert ledger.record_received(_received(1, seconds=9)) is Reception.DUPLICATE
    assert ledger.record_received(_received(1, content="other")) is Reception.CONFLICT
    assert ledger.record_received(_received(1, content="other")) is Reception.DUPLICATE
    _index_all(ledger)
    (instance,) = ledger.study(KEY).instances
    assert instance.digest == "digest-1"
    (conflict,) = ledger.conflicts(10)
    assert conflict.digest == "other"


def test_instances_without_a_uid_do_not_conflict(ledger: Ledger) -> None:
    empty = SOPInstanceUID("")
    assert ledger.record_received(_received(1, sop_instance_uid=empty)) is Reception.NEW
    assert ledger.record_received(_received(2, sop_instance_uid=empty)) is Reception.NEW
    assert ledger.record_received(_received(2, sop_instance_uid=empty)) is Reception.DUPLICATE


def test_a_uid_that_the_sender_left_out_comes_from_the_data_set(ledger: Ledger) -> None:
    ledger.record_received(_received(1))
    empty = SOPInstanceUID("")
    ledger.record_received(_received(2, sop_instance_uid=empty))
    ledger.record_received(_received(3, sop_instance_uid=empty))
    ledger.record_received(_received(1, sop_instance_uid=empty))
    rows = ledger.unindexed(10)
    for row, uid in zip(rows, (make_uid(1), make_uid("late"), make_uid(1), make_uid(1)), strict=True):
        ledger.mark_indexed(row.instance_id, _header(row.instance_id, uid=uid), KEY)
    assert {i.sop_instance_uid for i in ledger.study(KEY).instances} == {make_uid(1), make_uid("late")}
    assert [row.digest for row in ledger.conflicts(10)] == ["digest-3"]
    assert "copy" in ledger.quarantined(10)[0].reason


def test_concurrent_senders_lose_nothing(ledger: Ledger) -> None:
    results: list[Reception] = []

    def send(sender: int) -> None:
        results.extend(
            ledger.record_received(_received(number)) for number in range(sender * 3, sender * 3 + 10)
        )

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert results.count(Reception.NEW) == 31
    assert ledger.count_instances()[InstanceState.RECEIVED] == 31


def test_two_processes_meet_on_one_row(ledger: Ledger, database_url: str) -> None:
    other = Ledger.connect(database_url)
    results: list[Reception] = []

    def send(side: Ledger) -> None:
        results.extend(side.record_received(_received(number)) for number in range(20))

    threads = [threading.Thread(target=send, args=(side,)) for side in (ledger, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert sorted(results) == [Reception.DUPLICATE] * 20 + [Reception.NEW] * 20


def test_quarantined_instances_are_visible_with_their_reason(ledger: Ledger) -> None:
    ledger.record_received(_received(1))
    (row,) = ledger.unindexed(10)
    ledger.quarantine_instance(row.instance_id, "SOPClassUID is missing")
    assert ledger.unindexed(10) == ()
    (bad,) = ledger.quarantined(10)
    assert (bad.state, bad.reason) == (InstanceState.QUARANTINED, "SOPClassUID is missing")


def test_held_instances_answer_storage_commitment(ledger: Ledger) -> None:
    ledger.record_received(_received(1))
    held = ledger.held_instances([make_uid(1), make_uid(2)])
    assert held == {make_uid(1): "1.2.840.10008.5.1.4.1.1.2"}


# -- studies ---------------------------------------------------------------------------------


def test_a_study_is_its_readable_current_foreign_instances(ledger: Ledger) -> None:
    for number in (3, 1, 2):
        ledger.record_received(_received(number))
    _index_all(ledger, own=frozenset({make_uid(2)}))
    study = ledger.study(KEY)
    assert (study.source_ae, study.description) == ("SCANNER", "CT head")
    assert {i.sop_instance_uid for i in study.instances} == {make_uid(1), make_uid(3)}
    with pytest.raises(KeyError):
        ledger.study(StudyKey("unknown"))


def test_only_our_own_results_make_no_study(ledger: Ledger) -> None:
    ledger.record_received(_received(1))
    _index_all(ledger, own=frozenset({make_uid(1)}))
    assert ledger.collecting(_at(60)) == ()


def test_evidence_tells_open_closed_and_aborted_associations(ledger: Ledger) -> None:
    ledger.open_association("association-1", "SCANNER", _at(0))
    ledger.record_received(_received(1, seconds=1))
    ledger.record_received(_received(2, seconds=2))
    (row, _) = ledger.unindexed(10)
    ledger.mark_indexed(row.instance_id, _header(1), KEY)
    (evidence,) = ledger.collecting(_at(60))
    assert (evidence.open_associations, evidence.unindexed_count, evidence.indexed_count) == (1, 1, 1)
    _index_all(ledger)
    ledger.close_association("association-1", _at(5), aborted=True)
    ledger.close_association("association-1", _at(6), aborted=False)
    (evidence,) = ledger.collecting(_at(60))
    assert (evidence.open_associations, evidence.unindexed_count, evidence.indexed_count) == (0, 0, 2)
    assert (evidence.last_closed_at, evidence.was_aborted) == (_at(5), True)
    assert (evidence.first_received_at, evidence.last_received_at) == (_at(1), _at(2))


def test_stale_associations_are_closed_as_aborted(ledger: Ledger) -> None:
    ledger.open_association("association-1", "SCANNER", _at(0), receiver_id="r1")
    ledger.open_association("association-2", "SCANNER", _at(0), receiver_id="r2")
    assert ledger.close_stale_associations(_at(9), receiver_id="r1") == 1
    assert ledger.close_stale_associations(_at(9)) == 1
    ledger.record_received(_received(1))
    _index_all(ledger)
    (evidence,) = ledger.collecting(_at(60))
    assert (evidence.open_associations, evidence.was_aborted) == (0, True)


def test_notices_may_come_before_the_first_instance(ledger: Ledger) -> None:
    ledger.note_expected(KEY, 4, _at(0))
    ledger.note_stable(KEY, _at(1))
    ledger.note_stable(KEY, _at(2))
    ledger.record_received(_received(1, seconds=3))
    _index_all(ledger)
    (evidence,) = ledger.collecting(_at(60))
    assert (evidence.expected_count, evidence.stable_at) == (4, _at(2))


def test_late_images_make_a_successor(ledger: Ledger) -> None:
    ledger.record_received(_received(1))
    _index_all(ledger)
    first = _begin(ledger, "run-1")
    assert (first.version, first.predecessor) == (1, None)
    assert ledger.mark_assembled(KEY, "run-1")
    assert ledger.collecting(_at(200)) == ()
    ledger.record_received(_received(1))  # a duplicate changes nothing
    ledger.record_received(_received(9))
    _index_all(ledger, own=frozenset({make_uid(9)}))  # nor does our own result
    assert ledger.collecting(_at(200)) == ()
    ledger.record_received(_received(2, seconds=150))
    _index_all(ledger)
    (evidence,) = ledger.collecting(_at(200))
    assert (evidence.first_received_at, evidence.indexed_count) == (_at(150), 2)
    second = _begin(ledger, "run-2")
    assert (second.version, second.predecessor) == (2, "run-1")
    assert _begin(ledger, "run-2") == second
    assert ledger.mark_assembled(KEY, "run-2")


def test_an_image_between_look_and_mark_is_not_forgotten(ledger: Ledger) -> None:
    ledger.record_received(_received(1))
    _index_all(ledger)
    _begin(ledger, "run-1")
    ledger.record_received(_received(2))
    _index_all(ledger)
    assert not ledger.mark_assembled(KEY, "run-1")
    assert len(ledger.collecting(_at(200))) == 1


def test_the_overview_tells_where_studies_stand(ledger: Ledger) -> None:
    ledger.record_received(_received(1))
    _index_all(ledger)
    _begin(ledger, "run-1")
    ledger.mark_assembled(KEY, "run-1")
    ledger.set_run_state("run-1", RunState.DONE)
    (row,) = ledger.study_overview(10)
    assert (row.study_key, row.instance_count, row.run_count) == (KEY, 1, 1)
    assert (row.last_run_id, row.last_run_state, row.is_collecting) == ("run-1", RunState.DONE, False)


# -- runs ------------------------------------------------------------------------------------


@pytest.fixture
def run(ledger: Ledger) -> Run:
    run = Run(
        run_id="run-1",
        study_key=KEY,
        version=1,
        instance_digest=Digest("d"),
        predecessor=None,
        created_at=START,
    )
    ledger.begin_run(run)
    return run


def test_a_run_keeps_its_state_reason_and_decision(ledger: Ledger, run: Run) -> None:
    ledger.begin_run(run)
    ledger.record_decision("run-1", {"models": ["m"], "umlaut": "ä"})
    ledger.set_run_state("run-1", RunState.QUARANTINED, "no series fits")
    row = ledger.run("run-1")
    assert row.run == run
    assert (row.state, row.reason) == (RunState.QUARANTINED, "no series fits")
    assert row.decision == {"models": ["m"], "umlaut": "ä"}
    assert [r.run.run_id for r in ledger.runs_of(KEY)] == ["run-1"]
    assert ledger.runs_in([RunState.QUEUED]) == ()
    assert len(ledger.runs_in([RunState.QUARANTINED, RunState.DONE])) == 1


def test_crashes_are_counted(ledger: Ledger, run: Run) -> None:
    assert [ledger.count_crash("run-1") for _ in range(3)] == [1, 2, 3]


def test_unknown_runs_are_named_as_such(ledger: Ledger) -> None:
    for call in (
        lambda: ledger.run("x"),
        lambda: ledger.set_run_state("x", RunState.DONE),
        lambda: ledger.count_crash("x"),
    ):
        with pytest.raises(UnknownRunError):
            call()


# -- deliveries ------------------------------------------------------------------------------


@pytest.fixture
def delivery(ledger: Ledger, run: Run) -> str:
    item = OutputObject(
        object_uid="2.25.1", kind="segmentation", path="p", sha256="s", sop_class_uid="c", series_uid="u"
    )
    ledger.record_objects("run-1", (item,))
    ledger.record_objects("run-1", (item,))
    assert ledger.objects_of("run-1") == (item,)
    ledger.queue_delivery("2.25.1", "pacs", "run-1")
    ledger.queue_delivery("2.25.1", "pacs", "run-1")
    return "2.25.1"


def test_our_outputs_are_known(ledger: Ledger, delivery: str) -> None:
    assert ledger.is_own_output("2.25.1")
    assert not ledger.is_own_output("2.25.2")


def test_a_delivery_goes_from_queued_over_sent_to_confirmed(ledger: Ledger, delivery: str) -> None:
    ledger.mark_sent(delivery, "pacs", at=_at(1), receipt="asked")
    ledger.mark_sent(delivery, "pacs", at=_at(2), receipt="asked again")
    (row,) = ledger.deliveries_of("run-1")
    assert (row.state, row.attempts, row.sent_at, row.receipt) == (
        DeliveryState.SENT,
        1,
        _at(1),
        "asked again",
    )
    ledger.mark_confirmed(delivery, "pacs", at=_at(3), receipt="kept")
    ledger.mark_failed(delivery, "pacs", error="late", at=_at(4), next_attempt_at=None, permanent=True)
    (row,) = ledger.deliveries_of("run-1")
    assert (row.state, row.confirmed_at, row.receipt, row.error) == (
        DeliveryState.CONFIRMED,
        _at(3),
        "kept",
        "",
    )
    assert ledger.pending_deliveries("pacs") == ()
    assert ledger.requeue(run_id="run-1") == 0


def test_a_failed_attempt_waits_and_a_final_one_is_requeued_by_hand(ledger: Ledger, delivery: str) -> None:
    ledger.mark_failed(delivery, "pacs", error="down", at=_at(1), next_attempt_at=_at(60), permanent=False)
    assert ledger.pending_deliveries("pacs", due_at=_at(59)) == ()
    (row,) = ledger.pending_deliveries("pacs", due_at=_at(60))
    assert (row.state, row.attempts, row.error) == (DeliveryState.QUEUED, 1, "down")
    ledger.mark_failed(delivery, "pacs", error="refused", at=_at(61), next_attempt_at=None, permanent=True)
    assert ledger.pending_deliveries() == ()
    assert ledger.requeue(destination="pacs", at=_at(100)) == 1
    (row,) = ledger.pending_deliveries("pacs")
    assert (row.state, row.queued_at, row.error) == (DeliveryState.QUEUED, _at(100), "")


def test_what_archives_have_confirmed_is_counted_once_per_object(
    ledger: Ledger, delivery: str, run: Run
) -> None:
    assert ledger.count_delivered_objects(run.study_key, ["pacs", "archive"]) == 0
    ledger.queue_delivery(delivery, "archive", "run-1")
    for destination in ("pacs", "archive"):
        ledger.mark_confirmed(delivery, destination, at=_at(1), receipt="kept")
    assert ledger.count_delivered_objects(run.study_key, ["pacs", "archive"]) == 1
    assert ledger.count_delivered_objects(run.study_key, ["folder"]) == 0


# -- attempts, leases and retention ----------------------------------------------------------


def test_a_new_attempt_queues_the_run_and_forgets_its_crashes(ledger: Ledger, run: Run) -> None:
    ledger.count_crash("run-1")
    ledger.set_run_state("run-1", RunState.QUARANTINED, "a reason")
    assert ledger.begin_attempt("run-1") == 2
    row = ledger.run("run-1")
    assert (row.attempt, row.state, row.reason, row.crash_count) == (2, RunState.QUEUED, "", 0)
    with pytest.raises(UnknownRunError):
        ledger.begin_attempt("x")


def test_a_lease_expires_unless_renewed_and_is_dropped_once(ledger: Ledger) -> None:
    ledger.renew_lease("a", until=_at(10))
    ledger.renew_lease("b", until=_at(10))
    ledger.renew_lease("a", until=_at(20))
    assert ledger.expired_leases(_at(15)) == ("b",)
    assert [ledger.drop_lease("b"), ledger.drop_lease("b")] == [True, False]
    assert ledger.expired_leases(_at(30)) == ("a",)


def test_unknown_deliveries_are_named_as_such(ledger: Ledger) -> None:
    with pytest.raises(UnknownDeliveryError):
        ledger.mark_sent("x", "pacs", at=START)


def test_a_url_is_all_that_differs(database_url: str) -> None:
    database = Database(database_url)
    assert database.is_sqlite == database_url.startswith("sqlite")
    database.close()
