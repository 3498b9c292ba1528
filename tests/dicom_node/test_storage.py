from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from receiving.images import encode_file, encode_pieces, make_image

from dicom_node.part10 import split_part10
from dicom_node.storage import InstanceStore, MissingFileError, StorageFullError, StorageUnavailableError


def test_a_stored_file_is_byte_identical_and_named_by_its_data_set(store: InstanceStore) -> None:
    whole = encode_file(make_image())
    stored = store.put(whole)
    assert store.path_of(stored.path).read_bytes() == whole
    assert stored.digest == hashlib.sha256(split_part10(whole).data_set).hexdigest()
    assert stored.path == f"{stored.digest[:2]}/{stored.digest}.dcm"
    assert stored.size_bytes == len(whole)


def test_storing_twice_stores_once(store: InstanceStore) -> None:
    pieces = encode_pieces(make_image())
    first = store.put(pieces)
    written_at = store.path_of(first.path).stat().st_mtime_ns
    assert store.put(pieces) == first
    assert store.path_of(first.path).stat().st_mtime_ns == written_at


def test_the_same_bytes_under_another_transfer_syntax_are_another_file(store: InstanceStore) -> None:
    image = make_image()
    first = store.put(encode_pieces(image))
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    pieces = encode_pieces(make_image())
    relabelled = split_part10(
        bytes(pieces.header).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0")
        + bytes(pieces.data_set)
    )
    second = store.put(relabelled)
    assert second.path != first.path
    assert second.digest == first.digest
    assert store.put(relabelled) == second


def test_a_damaged_file_is_written_again(store: InstanceStore) -> None:
    whole = encode_file(make_image())
    path = store.path_of(store.put(whole).path)
    path.write_bytes(whole[:200])
    store.put(whole)
    assert path.read_bytes() == whole


def test_many_threads_store_the_same_file(store: InstanceStore) -> None:
    whole = encode_file(make_image(size=128))
    failures: list[BaseException] = []

    def put() -> None:
        try:
            store.put(whole)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [p.name for p in (store.root / "incoming").iterdir()] == []


def test_the_watermark_refuses_and_says_so(tmp_path: Path) -> None:
    full = InstanceStore(tmp_path, min_free_bytes=2**62, min_free_fraction=0)
    assert not full.has_room()
    with pytest.raises(StorageFullError):
        full.put(encode_file(make_image()))
    assert not InstanceStore(tmp_path, min_free_bytes=0, min_free_fraction=1).has_room()
    assert InstanceStore(tmp_path, min_free_bytes=0, min_free_fraction=0).has_room()


def test_a_broken_volume_is_a_transient_failure(store: InstanceStore) -> None:
    (store.root / "incoming").rmdir()
    (store.root / "incoming").write_text("in the way")
    with pytest.raises(StorageUnavailableError):
        store.put(encode_file(make_image()))


def test_abandoned_temporary_files_go_and_those_in_use_stay(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    abandoned, young = incoming / "a.part", incoming / "b.part"
    for file in (abandoned, young):
        file.write_bytes(b"half")
    long_ago = time.time() - 3600
    os.utime(abandoned, (long_ago, long_ago))
    InstanceStore(tmp_path, min_free_bytes=0, min_free_fraction=0)
    assert not abandoned.exists()
    assert young.exists()


def test_paths_do_not_lead_out_of_the_store(store: InstanceStore) -> None:
    with pytest.raises(MissingFileError):
        store.path_of("../../etc/passwd")


def test_removing_twice_is_no_error(store: InstanceStore) -> None:
    stored = store.put(encode_file(make_image()))
    store.remove(stored.path)
    store.remove(stored.path)
    assert not store.path_of(stored.path).exists()
