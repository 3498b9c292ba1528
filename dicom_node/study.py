"""Pure. Study, Series and Instance as the node knows them, and the study key.

These are the values that travel between the packages. They name stored files
by path and digest and carry no pixel data. What identifies a patient stays in
the stored files and in ``Series.header``; nothing here may be logged but the
study key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

StudyUID = NewType("StudyUID", str)
SeriesUID = NewType("SeriesUID", str)
SOPInstanceUID = NewType("SOPInstanceUID", str)
SOPClassUID = NewType("SOPClassUID", str)
TransferSyntaxUID = NewType("TransferSyntaxUID", str)
#: Keyed hash of a Study Instance UID; the only study identifier that may be logged.
StudyKey = NewType("StudyKey", str)
#: Keyed hash of who the patient is; matches a patient's studies and is never logged.
PatientKey = NewType("PatientKey", str)
#: Lower-case hexadecimal SHA-256 of stored bytes.
Digest = NewType("Digest", str)

_STUDY_KEY_HEX_DIGITS = 20
_PATIENT_KEY_HEX_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One SOP Instance in the instance store.

    ``path`` is relative to the store's root; ``digest`` is that of the Data Set
    bytes as received, without file meta information.
    """

    sop_instance_uid: SOPInstanceUID
    sop_class_uid: SOPClassUID
    transfer_syntax_uid: TransferSyntaxUID
    digest: Digest
    path: str
    size_bytes: int
    instance_number: int | None = None
    number_of_frames: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    r"""The instances of one series, and what its first header says.

    ``header`` maps DICOM keywords to short text values of the first instance
    (by Instance Number, then UID); multi-valued elements are joined by ``\``.
    """

    series_uid: SeriesUID
    modality: str
    description: str = ""
    body_part: str = ""
    series_number: int | None = None
    instances: tuple[Instance, ...] = ()
    header: Mapping[str, str] = field(default_factory=dict)

    @property
    def number_of_images(self) -> int:
        """Frames in the series, a single-frame instance counting as one."""
        return sum(instance.number_of_frames for instance in self.instances)

    @property
    def sop_classes(self) -> frozenset[SOPClassUID]:
        """SOP Class UIDs present in the series."""
        return frozenset(instance.sop_class_uid for instance in self.instances)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study as received: every readable instance that is not our own result.

    ``partners`` are other studies of the same patient that are read with it; their series are found by UID,
    but belong to no list of this study.
    """

    study_key: StudyKey
    study_uid: StudyUID
    source_ae: str
    description: str = ""
    series: tuple[Series, ...] = ()
    partners: tuple[Study, ...] = ()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances, series by series."""
        return tuple(instance for series in self.series for instance in series.instances)

    def series_by_uid(self, series_uid: str) -> Series:
        """Return one series of this study or of a partner.

        Raises
        ------
        KeyError
            If there is no such series.
        """
        for series in (*self.series, *(series for partner in self.partners for series in partner.series)):
            if series.series_uid == series_uid:
                return series
        raise KeyError(series_uid)


def derive_study_key(study_uid: str, site_key: bytes) -> StudyKey:
    """Return the keyed hash under which a study is logged and stored.

    Parameters
    ----------
    study_uid : str
        Study Instance UID (0020,000D).
    site_key : bytes
        The site's secret, at least 16 bytes. Another key gives other study keys.

    Returns
    -------
    StudyKey
        20 hexadecimal digits of HMAC-SHA-256.
    """
    tag = hmac.new(site_key, study_uid.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return StudyKey(tag.hexdigest()[:_STUDY_KEY_HEX_DIGITS])


def derive_patient_key(patient_id: str, issuer: str, site_key: bytes) -> PatientKey | None:
    """Return the keyed hash by which a patient's studies are matched.

    Parameters
    ----------
    patient_id, issuer : str
        Patient ID (0010,0020) and Issuer of Patient ID (0010,0021); two issuers give two patients.
    site_key : bytes
        The site's secret.

    Returns
    -------
    PatientKey or None
        32 hexadecimal digits of HMAC-SHA-256; None without a Patient ID, which matches nobody.
    """
    if not patient_id.strip():
        return None
    name = f"patient\n{issuer.strip()}\n{patient_id.strip()}"
    tag = hmac.new(site_key, name.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return PatientKey(tag.hexdigest()[:_PATIENT_KEY_HEX_DIGITS])


def digest_instance_set(instances: tuple[Instance, ...]) -> Digest:
    """Return the digest of the sorted SOP Instance UIDs: the identity of an instance set.

    The order of arrival does not matter; one more instance gives another digest.
    """
    uids = sorted({instance.sop_instance_uid for instance in instances})
    return Digest(hashlib.sha256("\n".join(uids).encode()).hexdigest())
