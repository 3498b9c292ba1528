"""Pure. The synthetic studies of ``preread demo``, and which models read them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pydicom.dataset import Dataset

DEMO_SEED: Final = 7


class DemoStudy(StrEnum):
    """The studies that can be drawn."""

    BRAIN_MR = "brain-mr"
    CHEST = "chest"
    HEAD_CT = "head-ct"


DEMO_MODELS: Final = MappingProxyType(
    {
        DemoStudy.BRAIN_MR: ("brain-tumour-lgg",),
        DemoStudy.CHEST: ("chest-xray-boxes", "chest-xray-labels"),
        DemoStudy.HEAD_CT: ("head-ct",),
    }
)
"""What reads each of them by the built-in rules."""


def draw_demo_study(kind: DemoStudy) -> Sequence[Dataset]:
    """Draw a study; the same one each time."""
    if kind is DemoStudy.CHEST:
        from dicom_node.chest_phantom import chest_study

        return chest_study(DEMO_SEED).datasets
    from dicom_node.phantom import brain_mr_study, head_ct_study

    draw = head_ct_study if kind is DemoStudy.HEAD_CT else brain_mr_study
    return draw(DEMO_SEED).datasets
