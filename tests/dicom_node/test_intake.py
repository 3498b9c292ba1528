from __future__ import annotations

import pytest
from fakes import FakeClock
from receiving.images import encode_file, make_image

from dicom_node.intake import Intake, Provenance, index_received
from dicom_node.ledger import Ledger, LedgerUnavailableError, Reception
from dicom_node.storage import InstanceStore
from dicom_node.study import derive_study_key

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
