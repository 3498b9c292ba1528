"""Pure. What was examined, in words of a closed vocabulary: modality and region, no text of a header."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from reporting import codes

_RADIOGRAPHS: Final = frozenset({"CR", "DX"})
_NAMES: Final = {"CT": "CT", "MR": "MR"}
_REGIONS: Final = {"BRAIN": "brain", "HEAD": "head", "CHEST": "chest"}


def name_examination(modalities: Iterable[str], sites: Collection[str]) -> str:
    """Return which images were read, for the prompt: ``chest radiograph``, ``MR of the brain``.

    Parameters
    ----------
    modalities : iterable of str
        Modality (0008,0060) of each series that was read; others than CT, MR, CR and DX are not told.
    sites : collection of str
        Site keys of the findings.

    Returns
    -------
    str
        Empty if nothing can be told.
    """
    region = _name_region(sites)
    names = []
    for modality in dict.fromkeys(modalities):
        if modality in _RADIOGRAPHS:
            names.append(f"{region} radiograph".strip())
        elif modality in _NAMES:
            names.append(f"{_NAMES[modality]} of the {region}" if region else _NAMES[modality])
    return " and ".join(dict.fromkeys(names))


def _name_region(sites: Collection[str]) -> str:
    regions = {_REGIONS.get(codes.code_site(site).body_part, "") for site in sites}
    if regions == {"brain", "head"}:
        return "head"
    return regions.pop() if len(regions) == 1 else ""
