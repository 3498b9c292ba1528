from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.multipart import MultipartError, MultipartReader, boundary_of

BOUNDARY = b"gc0p4Jq0M2Yt08jU534c0p"


def encode(contents: list[bytes], *, boundary: bytes = BOUNDARY) -> bytes:
    body = b""
    for content in contents:
        body += b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n"
    return body + b"--" + boundary + b"--\r\nepilogue"


def read_in_pieces(body: bytes, cuts: list[int], *, maximum: int = 10_000) -> tuple[list[bytes], bool]:
    reader = MultipartReader(BOUNDARY, maximum_part_bytes=maximum)
    positions = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    parts = [
        part.content for start, end in itertools.pairwise(positions) for part in reader.feed(body[start:end])
    ]
    return parts, reader.is_finished


@given(
    contents=st.lists(st.binary(max_size=200).filter(lambda b: b"\r\n--" not in b), max_size=5),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=12),
)
def test_parts_come_out_as_they_went_in_however_the_body_is_cut(
    contents: list[bytes], cuts: list[int]
) -> None:
    parts, is_finished = read_in_pieces(encode(contents), cuts)
    assert parts == contents
    assert is_finished


def test_a_preamble_is_skipped() -> None:
    parts, _ = read_in_pieces(b"this is a preamble\r\n" + encode([b"one"]), [])
    assert parts == [b"one"]


def test_a_body_that_ends_early_is_not_finished() -> None:
    parts, is_finished = read_in_pieces(encode([b"one", b"two"])[:-40], [])
    assert parts == [b"one"]
    assert not is_finished


def test_a_part_larger_than_allowed_is_refused_before_it_is_all_in_memory() -> None:
    reader = MultipartReader(BOUNDARY, maximum_part_bytes=1000)
    head = b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
    with pytest.raises(MultipartError, match="maximum_instance_mb"):
        for chunk in [head, *[b"x" * 5000] * 10]:
            list(reader.feed(chunk))


def test_a_part_without_headers_is_refused() -> None:
    reader = MultipartReader(BOUNDARY, maximum_part_bytes=1000)
    with pytest.raises(MultipartError, match="header block"):
        list(reader.feed(b"--" + BOUNDARY + b"\r\nno headers here\r\n--" + BOUNDARY + b"--"))


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', ("application/dicom", b"abc")),
        ("multipart/related; boundary=abc", ("application/dicom", b"abc")),
        (
            'multipart/related; type="application/dicom+json"; boundary="a b"',
            ("application/dicom+json", b"a b"),
        ),
    ],
)
def test_the_content_type_names_part_type_and_boundary(
    content_type: str, expected: tuple[str, bytes]
) -> None:
    assert boundary_of(content_type) == expected


@pytest.mark.parametrize(
    "content_type", ["", "application/dicom", "multipart/form-data; boundary=x", "multipart/related"]
)
def test_other_content_types_are_refused(content_type: str) -> None:
    with pytest.raises(MultipartError, match="multipart/related"):
        boundary_of(content_type)
