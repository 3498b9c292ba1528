from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from receiving.images import encode_file, make_image

from dicom_node.part10 import NotPartTenError, PartTen, build_header, split_part10

_META = {"implementation_class_uid": "2.25.1", "implementation_version_name": "TEST"}


def test_pieces_are_the_file() -> None:
    whole = encode_file(make_image())
    pieces = split_part10(whole)
    assert bytes(pieces.header) + bytes(pieces.data_set) == whole
    assert bytes(pieces.data_set[:2]) == b"\x08\x00"
    assert pieces.digest() == hashlib.sha256(pieces.data_set).hexdigest()


def test_a_built_header_is_read_by_pydicom_and_by_us() -> None:
    image = make_image()
    header = build_header(
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid=image.file_meta.TransferSyntaxUID,
        source_ae="SCANNER",
        **_META,
    )
    data_set = bytes(split_part10(encode_file(image)).data_set)
    read = dcmread(DicomBytesIO(header + data_set))
    assert read.file_meta.SourceApplicationEntityTitle == "SCANNER"
    assert read.PixelData == image.PixelData
    meta = PartTen(header, data_set).meta()
    assert (meta.sop_instance_uid, meta.transfer_syntax_uid) == (
        image.SOPInstanceUID,
        image.file_meta.TransferSyntaxUID,
    )


@pytest.mark.parametrize(
    "junk", [b"", b"GET / HTTP/1.1", bytes(400), bytes(128) + b"DICM\x02\x00\x00\x00UL\xff\xff"]
)
def test_what_is_no_part10_file_is_refused(junk: bytes) -> None:
    with pytest.raises(NotPartTenError):
        split_part10(junk)


@given(st.binary(max_size=300))
def test_no_bytes_after_the_prefix_do_harm(rest: bytes) -> None:
    whole = bytes(128) + b"DICM" + rest
    try:
        pieces = split_part10(whole)
    except NotPartTenError:
        return
    assert bytes(pieces.header) + bytes(pieces.data_set) == whole
    pieces.meta()


@given(st.text(alphabet="0123456789.", max_size=64), st.text(max_size=16))
def test_header_and_meta_agree_whatever_the_sender_wrote(uid: str, source: str) -> None:
    header = build_header(
        sop_class_uid=uid, sop_instance_uid=uid, transfer_syntax_uid=uid, source_ae=source, **_META
    )
    pieces = split_part10(header + b"\x08\x00rest")
    assert bytes(pieces.data_set) == b"\x08\x00rest"
    assert pieces.meta().sop_instance_uid == uid
