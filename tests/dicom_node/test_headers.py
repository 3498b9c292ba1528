from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MediaStorageDirectoryStorage
from receiving.images import encode_file, make_image

from dicom_node.headers import (
    MAX_VALUE_LENGTH,
    OWN_MANUFACTURER,
    UnreadableInstanceError,
    read_header,
    read_study_time,
)


def _write(folder: Path, image: Dataset) -> Path:
    path = folder / "image.dcm"
    path.write_bytes(encode_file(image))
    return path


def test_a_header_says_what_routing_needs(tmp_path: Path) -> None:
    image = make_image(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], MagneticFieldStrength="1.5")
    header = read_header(_write(tmp_path, image))
    assert header.study_uid == image.StudyInstanceUID
    assert header.modality == "CT"
    assert header.body_part == "HEAD"
    assert header.series_number == 1
    assert header.number_of_frames == 1
    assert not header.is_own_result
    assert header.header["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert header.header["MagneticFieldStrength"] == "1.5"
    assert "PixelData" not in header.header


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_a_missing_uid_is_a_reason(tmp_path: Path, keyword: str) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(_without(encode_file(make_image()), make_image()[keyword]))
    with pytest.raises(UnreadableInstanceError, match=keyword):
        read_header(path)


def _without(content: bytes, element: DataElement) -> bytes:
    """Blank the value of one UID in the Data Set."""
    value = str(element.value).encode()
    length = len(value) + len(value) % 2
    start = content.index(struct.pack("<HH2sH", element.tag.group, element.tag.elem, b"UI", length)) + 8
    return content[:start] + bytes(length) + content[start + length :]


def test_text_of_attackers_is_text(tmp_path: Path) -> None:
    image = make_image(SeriesDescription="<script>\x00\x1balert(1)</script>", StudyDescription="x" * 60)
    assert read_header(_write(tmp_path, image)).series_description == "<script>alert(1)</script>"


def test_a_uid_that_is_none_is_refused_without_being_quoted(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    content = encode_file(make_image())
    uid = str(make_image().SeriesInstanceUID).encode()
    path.write_bytes(content.replace(uid, b"'; DROP TABLE".ljust(len(uid), b"x")))
    with pytest.raises(UnreadableInstanceError) as caught:
        read_header(path)
    assert "DROP" not in str(caught.value)


def test_long_values_are_cut(tmp_path: Path) -> None:
    image = make_image(ImageComments="y" * 5000, TextValue="z" * 50_000)
    header = read_header(_write(tmp_path, image)).header
    assert len(header["ImageComments"]) == MAX_VALUE_LENGTH
    assert "TextValue" not in header


def test_deep_nesting_ends_in_a_reason(tmp_path: Path) -> None:
    content = encode_file(make_image(PixelData=None))
    opening = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    path = tmp_path / "deep.dcm"
    path.write_bytes(content + opening * 20_000)
    with pytest.raises(UnreadableInstanceError):
        read_header(path)


def test_a_dicomdir_is_no_image(tmp_path: Path) -> None:
    image = make_image(SOPClassUID=MediaStorageDirectoryStorage)
    with pytest.raises(UnreadableInstanceError, match="DICOMDIR"):
        read_header(_write(tmp_path, image))


def test_our_own_results_are_recognised(tmp_path: Path) -> None:
    assert read_header(_write(tmp_path, make_image(Manufacturer=OWN_MANUFACTURER))).is_own_result
    contributor = Dataset()
    contributor.Manufacturer = OWN_MANUFACTURER
    image = make_image(ContributingEquipmentSequence=Sequence([contributor]))
    assert read_header(_write(tmp_path, image)).is_own_result


def test_a_file_that_is_gone_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInstanceError):
        read_header(tmp_path / "gone.dcm")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(encode_file(make_image()))
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content[: data.draw(st.integers(140, len(content)))])
    try:
        header = read_header(path)
    except UnreadableInstanceError as error:
        reason = str(error)
    else:
        reason = ""
        assert header.study_uid
    assert "Phantom" not in reason


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"StudyDate": "20260301", "StudyTime": "081500.25"}, datetime(2026, 3, 1, 8, 15, tzinfo=UTC)),
        ({"StudyDate": "20260301", "StudyTime": "0815"}, datetime(2026, 3, 1, 8, 15, tzinfo=UTC)),
        ({"StudyDate": "20260301"}, datetime(2026, 3, 1, tzinfo=UTC)),
        (
            {"StudyDate": "20260301", "StudyTime": "081500", "TimezoneOffsetFromUTC": "+0200"},
            datetime(2026, 3, 1, 6, 15, tzinfo=UTC),
        ),
        ({"StudyDate": "2026-03-01"}, None),
        ({"StudyTime": "081500"}, None),
        ({"StudyDate": "00010101", "TimezoneOffsetFromUTC": "+1200"}, None),
        ({"StudyDate": "20260301", "TimezoneOffsetFromUTC": "east"}, None),
    ],
)
def test_the_time_of_a_study_is_read_where_the_header_says_it(
    header: dict[str, str], expected: datetime | None
) -> None:
    assert read_study_time(header) == expected
