"""Pure. What the standard's registry of UIDs says of SOP Classes (PS3.6 Annex A).

One place that knows the shape of pydicom's registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]  # public by its documentation only

from dicom_node.study import SOPClassUID

_SOP_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    uid: (title, keyword)
    for uid, (title, kind, _, _, keyword) in UID_dictionary.items()
    if kind == "SOP Class" and title
}
#: Title (``MR Image Storage``) and keyword (``MRImageStorage``) to UID.
SOP_CLASS_BY_NAME: Final[Mapping[str, SOPClassUID]] = {
    name: SOPClassUID(uid) for uid, names in _SOP_CLASSES.items() for name in names if name
}
#: PS3.4 B.5: classes whose instances are images; secondary captures have no geometry to read.
IMAGE_CLASSES: Final[frozenset[SOPClassUID]] = frozenset(
    SOPClassUID(uid)
    for uid, (title, _) in _SOP_CLASSES.items()
    if "Image Storage" in title and "Secondary Capture" not in title
)
#: Images as the detector gives them, not meant to be looked at (PS3.3 A.26).
RAW_CLASSES: Final[frozenset[SOPClassUID]] = frozenset(
    uid for uid in IMAGE_CLASSES if "For Processing" in _SOP_CLASSES[uid][0]
)


def name_sop_class(uid: str) -> str:
    """Return the title of a SOP Class, or its UID if the registry has none."""
    return _SOP_CLASSES[uid][0] if uid in _SOP_CLASSES else uid


def is_registered(uid: str) -> bool:
    """Tell whether the registry has this SOP Class."""
    return uid in _SOP_CLASSES
