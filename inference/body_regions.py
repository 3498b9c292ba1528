"""Pure. Regions of the body: which one a model's site lies in, and which ones a header's words name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

REGION_OF_SITE: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("brain", "head", "skull", "cranium"), "head")
    | dict.fromkeys(
        ("chest", "thorax", "lung", "lungs", "heart", "pleura", "mediastinum", "diaphragm", "aorta"), "chest"
    )
)
"""Region in which an anatomic site of a model's card lies; sites that are not here check nothing."""

_WORDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "head": frozenset(
            {"BRAIN", "CEREBRAL", "CRANE", "CRANIO", "CRANIUM", "ENCEPHALON", "HEAD", "KOPF", "SKULL", "TETE"}
        ),
        "neck": frozenset({"CAROTID", "CERVICAL", "COU", "CSPINE", "HALS", "LARYNX", "NECK", "THYROID"}),
        "chest": frozenset(
            {
                "BREAST",
                "CARDIAC",
                "CHEST",
                "HEART",
                "LUNG",
                "LUNGS",
                "PULMON",
                "RIB",
                "RIBS",
                "THORAX",
                "TORAX",
            }
        ),
        "abdomen": frozenset(
            {"ABDOME", "ABDOMEN", "ABDOMINAL", "BAUCH", "KIDNEY", "LIVER", "PANCREAS", "SPLEEN"}
        ),
        "pelvis": frozenset({"BECKEN", "BLADDER", "HIP", "PELVIS", "PROSTATE", "SACRUM", "UTERUS"}),
        "spine": frozenset({"BWS", "LSPINE", "LUMBAR", "LWS", "SPINE", "SSPINE", "TLSPINE", "TSPINE"}),
        "arm": frozenset(
            {"ARM", "CLAVICLE", "ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST"}
        ),
        "leg": frozenset(
            {"ANKLE", "CALCANEUS", "CALF", "FEMUR", "FOOT", "KNEE", "LEG", "THIGH", "TIBIA", "TOE"}
        ),
        "jaw": frozenset({"DENTAL", "JAW", "MANDIBLE", "MAXILLA", "TEETH", "TOOTH"}),
        "limb": frozenset({"EXTREMITY"}),
    }
)
"""Words of Body Part Examined (PS3.16 Annex L) and of descriptions in several languages, by region."""

PHANTOM_WORDS: Final = frozenset({"PHANTOM", "PHANTOME", "CATPHAN"})
"""Words that only a phantom's header holds."""

QUALITY_WORDS: Final = frozenset({"QA", "QC", "ACR", "CALIBRATION", "CONSTANCY"})
"""Words of quality checks, which are mostly made with phantoms."""


def words_of(text: str) -> frozenset[str]:
    """Return the words of a header value in capitals, without accents and digits."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").upper()
    return frozenset(re.split(r"[^A-Z]+", plain)) - {""}


def regions_named_by(words: frozenset[str]) -> frozenset[str]:
    """Return the regions of the body that words name."""
    return frozenset(region for region, names in _WORDS.items() if words & names)
