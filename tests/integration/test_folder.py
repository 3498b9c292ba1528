from __future__ import annotations

import os
from dataclasses import replace

import pytest
from deliveries.contract import DestinationContract, Rig
from deliveries.results import RUN_ID, STUDY_KEY, make_bundle, make_items

from integration.delivery import (
    ALL_KINDS,
    DestinationProfile,
    DestinationRejectedError,
    DestinationUnavailableError,
    ReceiptState,
)
from integration.folder import FolderDestination, file_name

PROFILE = DestinationProfile(name="outbox", kinds=frozenset(map(str, ALL_KINDS)))


class TestFolderKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, tmp_path):
        items = [*make_items(tmp_path / "run"), make_bundle(tmp_path / "run")]
        root = tmp_path / "outbox"

        def count_kept():
            written = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
            return {item.object_uid: written.count(item.path.read_bytes()) for item in items}

        return Rig(FolderDestination(profile=PROFILE, path=root), items, count_kept)


def test_files_lie_by_study_run_and_kind(tmp_path):
    items = [*make_items(tmp_path / "run"), make_bundle(tmp_path / "run")]
    list(FolderDestination(profile=PROFILE, path=tmp_path / "outbox").send(items))
    run = tmp_path / "outbox" / STUDY_KEY / RUN_ID
    assert sorted(path.name.split("-")[0] for path in run.iterdir()) == [
        "bundle.json",
        "measurements",
        "overview",
        "segmentation",
    ]


def test_nothing_half_written_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    items = make_items(tmp_path / "run")
    monkeypatch.setattr(os, "fsync", _raise_no_space)
    with pytest.raises(DestinationUnavailableError, match="No space left"):
        list(FolderDestination(profile=PROFILE, path=tmp_path / "outbox").send(items))
    assert [path for path in (tmp_path / "outbox").rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path):
    blocked = tmp_path / "outbox"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(DestinationUnavailableError):
        list(FolderDestination(profile=PROFILE, path=blocked).send(make_items(tmp_path / "run")))


def test_other_bytes_on_disk_are_not_confirmed(tmp_path, monkeypatch):
    monkeypatch.setattr("integration.folder._digest_of", lambda path: "0" * 64)
    receipts = list(
        FolderDestination(profile=PROFILE, path=tmp_path / "out").send(make_items(tmp_path / "run"))
    )
    assert {(receipt.state, receipt.retry) for receipt in receipts} == {(ReceiptState.FAILED, True)}


@pytest.mark.parametrize("run_id", ["../../etc", "..", "a/b", ""])
def test_no_name_leaves_the_folder(tmp_path, run_id):
    item = replace(make_bundle(tmp_path), run_id=run_id)
    with pytest.raises(DestinationRejectedError):
        file_name(item)


def _raise_no_space(descriptor):
    raise OSError(28, "No space left on device")
