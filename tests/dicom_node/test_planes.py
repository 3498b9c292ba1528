from __future__ import annotations

import pytest

from dicom_node.planes import Plane, read_plane


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (r"1\0\0\0\1\0", Plane.AXIAL),
        (r"-1\0\0\0\-1\0", Plane.AXIAL),
        (r"1\0\0\0\0.8\-0.6", Plane.AXIAL),
        (r"0\1\0\0\0\-1", Plane.SAGITTAL),
        (r"1\0\0\0\0\-1", Plane.CORONAL),
        ("", None),
        (r"1\0\0", None),
        (r"1\0\0\0\x\0", None),
    ],
)
def test_planes(orientation: str, plane: Plane | None) -> None:
    assert read_plane(orientation) is plane
