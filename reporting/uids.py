"""Pure. Deterministic UIDs: the same inputs, model and kind always give the same UID.

Everything that names a result (instances, series, tracking identifiers, devices,
FHIR resources) derives its name here, so that a re-run overwrites nothing and
duplicates nothing. No randomness and no clock may ever enter this module.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import NewType

DicomUID = NewType("DicomUID", str)

#: Separates Preread's names from any other use of SHA-256; changing it renames every result.
_NAMESPACE = uuid.UUID("5bb0d5a1-6c6a-5e0e-9a0d-6f7c1e6c2d11")
#: RFC 9562 version 8: a UUID whose bits an application derives by itself.
_VERSION = 8
_UID_ROOT = "2.25."


def derive_uuid(*parts: str) -> uuid.UUID:
    """Return the UUID that belongs to ``parts``, in this order.

    Parameters
    ----------
    *parts : str
        What the thing is made of, for example study UID, inputs digest, model, kind.
        Each part is hashed with its length, so ``("ab", "c")`` and ``("a", "bc")`` differ.

    Returns
    -------
    uuid.UUID
        Version 8, RFC 9562 variant; SHA-256 over the namespace and the parts.

    Raises
    ------
    ValueError
        If there are no parts.

    References
    ----------
    RFC 9562 section 5.8 and appendix B.2.
    """
    if not parts:
        raise ValueError("A UUID needs at least one part to be derived from.")
    digest = hashlib.sha256(_NAMESPACE.bytes)
    for part in parts:
        encoded = part.encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    bits = int.from_bytes(digest.digest()[:16], "big")
    bits = bits & ~(0xF << 76) | (_VERSION << 76)
    bits = bits & ~(0x3 << 62) | (0x2 << 62)
    return uuid.UUID(int=bits)


def derive_uid(*parts: str) -> DicomUID:
    """Return the DICOM UID that belongs to ``parts``: the UUID under the 2.25 root.

    Returns
    -------
    DicomUID
        At most 44 characters.

    References
    ----------
    PS3.5 B.2 (UUID derived UID).
    """
    return DicomUID(f"{_UID_ROOT}{derive_uuid(*parts).int}")
