from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fakes import FakeClock
from receiving.images import encode_file, make_image

from dicom_node.intake import Intake, Provenance, index_received
from dicom_node.ledger import Ledger, LedgerUnavailableError, Reception
from dicom_node.storage import InstanceStore
from dicom_node.study import StudyKey, derive_study_key

SITE_KEY = bytes(range(32))
HERE = Provenance(source_ae="STOW\x00", source_address="127.0.0.1", association_id="request-1")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def intake(store: InstanceStore, sqlite_ledger: Ledger, clock: FakeClock) -> Intake:
    return Intake(store, sqlite_ledger, clock)


def test_an_instance_is_stored_recorded_and_indexed(
    intake: Intake, store: InstanceStore, sqlite_ledger: Ledger, clock: FakeClock
) -> None:
    image = make_image()
    assert intake.accept(encode_file(image), HERE) is Reception.NEW
    assert intake.accept(encode_file(image), HERE) is Reception.DUPLICATE
    (row,) = sqlite_ledger.unindexed(10)
    assert (row.source_ae, row.received_at) == ("STOW", clock.now)
    assert store.path_of(row.path).read_bytes() == encode_file(image)
    assert index_received(sqlite_ledger, store, SITE_KEY) == 1
    assert index_received(sqlite_ledger, store, SITE_KEY) == 0
    study = sqlite_ledger.study(derive_study_key(image.StudyInstanceUID, SITE_KEY))
    assert study.series[0].description == "Series 1"


def test_the_studies_of_a_patient_know_each_other(
    intake: Intake, store: InstanceStore, sqlite_ledger: Ledger, clock: FakeClock
) -> None:
    told = {"StudyDate": "20260301", "StudyTime": "081500"}
    images = {
        "a": make_image("a", PatientID="4711", IssuerOfPatientID="A", **told),
        "b": make_image("b", PatientID="4711 ", IssuerOfPatientID="A"),
        "c": make_image("c", PatientID="4711", IssuerOfPatientID="B"),
        "d": make_image("d", PatientID=""),
        "e": make_image("e", PatientID=""),
    }
    for image in images.values():
        intake.accept(encode_file(image), HERE)
    index_received(sqlite_ledger, store, SITE_KEY)
    keys = {name: derive_study_key(image.StudyInstanceUID, SITE_KEY) for name, image in images.items()}
    siblings = {name: [row.study_key for row in sqlite_ledger.siblings(key)] for name, key in keys.items()}
    assert siblings["a"] == [keys["a"], keys["b"]]
    assert siblings["b"] == [keys["b"], keys["a"]]
    assert [siblings[name] for name in "cde"] == [[keys[name]] for name in "cde"]
    own, other = sqlite_ledger.siblings(keys["a"])
    assert own.studied_at == datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
    assert other.studied_at == clock.now  # its header does not say
    assert own.is_collecting
    with pytest.raises(KeyError):
        sqlite_ledger.siblings(StudyKey("unknown"))


def test_bytes_that_are_no_file_are_kept_and_quarantined(
    intake: Intake, store: InstanceStore, sqlite_ledger: Ledger
) -> None:
    intake.accept(b"<html>not an image</html>", HERE)
    assert index_received(sqlite_ledger, store, SITE_KEY) == 1
    (bad,) = sqlite_ledger.quarantined(10)
    assert bad.reason
    assert store.path_of(bad.path).read_bytes() == b"<html>not an image</html>"


def test_a_sender_that_announces_another_uid_is_quarantined(
    intake: Intake, store: InstanceStore, sqlite_ledger: Ledger
) -> None:
    image = make_image()
    image.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    content = encode_file(image).replace(
        str(image.SOPInstanceUID).encode(), str(make_image(number=2).SOPInstanceUID).encode(), 1
    )
    intake.accept(content, HERE)
    index_received(sqlite_ledger, store, SITE_KEY)
    (bad,) = sqlite_ledger.quarantined(10)
    assert "another SOP Instance UID" in bad.reason


def test_a_file_that_vanished_is_quarantined(
    intake: Intake, store: InstanceStore, sqlite_ledger: Ledger
) -> None:
    intake.accept(encode_file(make_image()), HERE)
    (row,) = sqlite_ledger.unindexed(10)
    store.remove(row.path)
    index_received(sqlite_ledger, store, SITE_KEY)
    assert "gone" in sqlite_ledger.quarantined(10)[0].reason


def test_a_ledger_that_is_down_is_no_success(store: InstanceStore) -> None:
    intake = Intake(store, Ledger.connect("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    with pytest.raises(LedgerUnavailableError):
        intake.accept(encode_file(make_image()), HERE)
