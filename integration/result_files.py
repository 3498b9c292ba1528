"""Adapter: the result objects of a run on disk, and the manifest that lists them.

Objects are written once per profile; what is delivered, checked by the gate and
referred to by a later run is what lies here, read back, never what was in
memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pydicom
from pydantic import TypeAdapter

from dicom_node.ledger import OutputObject
from dicom_node.study import StudyKey
from integration.delivery import DeliveryItem
from integration.run_folder import RunFolder
from reporting.context import PredecessorObject, ResultKind, ResultObject, ResultProfile
from reporting.encode import write_part10

BUNDLE_KIND: Final = "bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """One result file.

    Attributes
    ----------
    profile : str
        Key of the profile that it belongs to.
    object_uid : str
        SOP Instance UID; of a Bundle a name that is unique in the node.
    path : str
        Relative to the data directory.
    sop_class_uid, series_uid, model_name : str
        Empty for a Bundle.
    """

    profile: str
    object_uid: str
    kind: str
    path: str
    sha256: str
    sop_class_uid: str = ""
    series_uid: str = ""
    model_name: str = ""

    @property
    def is_dicom(self) -> bool:
        """Whether this is a DICOM object."""
        return bool(self.sop_class_uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All result files of a run.

    Attributes
    ----------
    without_bundle : str
        Why there is no FHIR Bundle; empty if there is one.
    """

    entries: tuple[ManifestEntry, ...] = ()
    without_bundle: str = ""


_MANIFEST = TypeAdapter(Manifest)
_MANIFEST_NAME: Final = "manifest.json"


class ResultFiles:
    """The result files of one run.

    Parameters
    ----------
    folder : RunFolder
        The run's folder.
    data_dir : Path
        Root of the paths in manifest and ledger.
    """

    def __init__(self, folder: RunFolder, data_dir: Path) -> None:
        self._folder = folder
        self._data_dir = data_dir

    # -- writing ------------------------------------------------------------------------------

    def write_objects(self, profile: ResultProfile, results: Sequence[ResultObject]) -> list[ManifestEntry]:
        """Write the DICOM objects of one profile."""
        return [self._write_object(profile, result) for result in results]

    def write_bundle(self, profile: ResultProfile, run_id: str, bundle: dict[str, Any]) -> ManifestEntry:
        """Write the FHIR Bundle of one profile."""
        content = json.dumps(bundle, indent=1, sort_keys=True).encode()
        path = self._folder.write_bytes(f"objects/{profile.key}/bundle.json", content)
        return ManifestEntry(
            profile=profile.key,
            object_uid=f"{run_id}:{profile.key}:{BUNDLE_KIND}",
            kind=BUNDLE_KIND,
            path=str(path.relative_to(self._data_dir)),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def write_manifest(self, manifest: Manifest) -> tuple[OutputObject, ...]:
        """Write the manifest; return its entries as the ledger keeps them."""
        self._folder.write_bytes(_MANIFEST_NAME, _MANIFEST.dump_json(manifest, indent=1))
        return tuple(_to_output(entry) for entry in manifest.entries)

    def _write_object(self, profile: ResultProfile, result: ResultObject) -> ManifestEntry:
        content = write_part10(result.dataset)
        path = self._folder.write_bytes(
            f"objects/{profile.key}/{result.kind}-{result.object_uid}.dcm", content
        )
        return ManifestEntry(
            profile=profile.key,
            object_uid=result.object_uid,
            kind=str(result.kind),
            path=str(path.relative_to(self._data_dir)),
            sha256=hashlib.sha256(content).hexdigest(),
            sop_class_uid=str(result.dataset.SOPClassUID),
            series_uid=str(result.dataset.SeriesInstanceUID),
            model_name=result.model_name,
        )

    # -- reading ------------------------------------------------------------------------------

    def has_manifest(self) -> bool:
        """Say whether the run got as far as writing its results."""
        return self._folder.exists(_MANIFEST_NAME)

    def read_manifest(self) -> Manifest:
        """Return the manifest.

        Raises
        ------
        RunFolderError
            If the run has none.
        """
        return _MANIFEST.validate_python(self._folder.read_json(_MANIFEST_NAME))

    def read_objects(self, profile: ResultProfile) -> list[ResultObject]:
        """Return the DICOM objects of one profile as they will be sent: read back from their files."""
        return [
            ResultObject(
                kind=ResultKind(entry.kind),
                model_name=entry.model_name,
                dataset=pydicom.dcmread(self._data_dir / entry.path),
            )
            for entry in self._entries(profile)
            if entry.is_dicom
        ]

    def read_bundle(self, profile: ResultProfile) -> dict[str, Any] | None:
        """Return the FHIR Bundle of one profile, if the run has one."""
        entry = next((entry for entry in self._entries(profile) if entry.kind == BUNDLE_KIND), None)
        if entry is None:
            return None
        bundle: dict[str, Any] = json.loads((self._data_dir / entry.path).read_bytes())
        return bundle

    def as_predecessors(self, profile: ResultProfile) -> tuple[PredecessorObject, ...]:
        """Return the DICOM objects of one profile as a later run refers to them."""
        return tuple(
            PredecessorObject(
                kind=ResultKind(entry.kind),
                model_name=entry.model_name,
                sop_class_uid=entry.sop_class_uid,
                sop_instance_uid=entry.object_uid,
                series_instance_uid=entry.series_uid,
            )
            for entry in self._entries(profile)
            if entry.is_dicom
        )

    def as_items(self, profile: ResultProfile, run_id: str, study_key: StudyKey) -> list[DeliveryItem]:
        """Return the files of one profile as deliveries take them."""
        return [
            DeliveryItem(
                object_uid=entry.object_uid,
                kind=entry.kind,
                path=self._data_dir / entry.path,
                sop_class_uid=entry.sop_class_uid or None,
                run_id=run_id,
                study_key=study_key,
            )
            for entry in self._entries(profile)
        ]

    def _entries(self, profile: ResultProfile) -> list[ManifestEntry]:
        return [entry for entry in self.read_manifest().entries if entry.profile == profile.key]


def _to_output(entry: ManifestEntry) -> OutputObject:
    values = asdict(entry)
    return OutputObject(**{name: values[name] for name in OutputObject.__slots__})
