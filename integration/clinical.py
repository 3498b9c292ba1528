"""Adapter: gathers what is known of a case before the images: headers, pasted notes, the record.

What goes in is free text of patients; what comes out is words of a closed vocabulary
(``reporting/clinical/``). Pasted notes lie as files beside the runs and go with the
study when it is pruned.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

import structlog
from pydantic import TypeAdapter
from pydicom.dataset import Dataset

from dicom_node.study import StudyKey
from integration.clinical_record import ClinicalRecord, RecordAnswer, RecordPolicy
from integration.run_folder import RunFolder
from integration.settings import Settings, SettingsError
from reporting.clinical import (
    ClinicalInformation,
    ClinicalProblem,
    NoteReader,
    Remark,
    SourceKind,
    SourceText,
    gather,
)
from reporting.clinical.dicom_source import read_headers
from reporting.clinical.note_reader import MAX_CHARACTERS

#: Longest pasted note, characters.
MAX_NOTE: Final = 100_000

#: File of a run's folder that holds what was collected for it.
CLINICAL_FILE: Final = "clinical.json"

_INFORMATION = TypeAdapter(ClinicalInformation)

log = structlog.get_logger(__name__)


class ClinicalPort(Protocol):
    """Where a run's clinical information comes from."""

    def collect(self, study_key: StudyKey, headers: Sequence[Dataset]) -> ClinicalInformation:
        """Return what is known of a study's patient; whatever fails is said in a remark."""


class NotesStore:
    """Notes that people gave for a study, one file each.

    Parameters
    ----------
    folder : Path
        Made when the first note comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, study_key: StudyKey, text: str) -> None:
        """Keep a note in place of an earlier one; an empty one removes it."""
        if not text.strip():
            self.remove(study_key)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(study_key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        temporary.write_text(text[:MAX_NOTE], encoding="utf-8")
        temporary.replace(path)

    def read(self, study_key: StudyKey) -> str:
        """Return the note of a study; empty if there is none."""
        try:
            return self._path(study_key).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def remove(self, study_key: StudyKey) -> None:
        """Remove the note of a study."""
        self._path(study_key).unlink(missing_ok=True)

    def _path(self, study_key: StudyKey) -> Path:
        return self._folder / f"{study_key}.txt"


class ClinicalCollector:
    """Headers, pasted notes and, where the site has one, the clinical record.

    Parameters
    ----------
    notes : NotesStore
        Where pasted notes lie.
    settings : Settings
        Whether and how the record is asked.

    Raises
    ------
    SettingsError
        If the clinical NLP library is not installed.
    """

    def __init__(self, notes: NotesStore, settings: Settings) -> None:
        if find_spec("medspacy") is None:
            raise SettingsError(
                "clinical.enabled needs medspacy: install preread[language] and then "
                "`pip install --no-deps --requirement no-deps.txt`, or switch it off."
            )
        self._notes = notes
        self._lock = threading.Lock()
        self._reader: NoteReader | None = None
        endpoint = settings.clinical.fhir
        policy = record_policy(settings)
        self._record = ClinicalRecord(endpoint, policy, self._read) if endpoint is not None else None

    def collect(self, study_key: StudyKey, headers: Sequence[Dataset]) -> ClinicalInformation:
        """Return what is known of a study's patient; whatever fails is said in a remark.

        Parameters
        ----------
        headers : sequence of Dataset
            At least one header of the study.
        """
        texts = list(read_headers(headers))
        note = self._notes.read(study_key)
        if note:
            texts.append(SourceText(kind=SourceKind.PASTED, origin="note", text=note))
        answer = self._ask(headers)
        texts += answer.texts
        remarks = list(answer.remarks)
        problems = list(answer.problems)
        for text in texts:
            problems += self._read(text)
            if len(text.text) > MAX_CHARACTERS:
                remarks.append(Remark.SHORTENED)
        information = gather(problems, [*(text.kind for text in texts), *answer.sources], remarks)
        log.info("clinical_information_collected", study_key=study_key, count=len(information.problems))
        return information

    def _ask(self, headers: Sequence[Dataset]) -> RecordAnswer:
        if self._record is None or not headers:
            return RecordAnswer()
        self._load()  # not at the cost of the server's time
        return self._record.ask(
            str(headers[0].get("PatientID") or ""), str(headers[0].get("AccessionNumber") or "")
        )

    def _read(self, text: SourceText) -> tuple[ClinicalProblem, ...]:
        return self._load().read(text)

    def _load(self) -> NoteReader:
        with self._lock:
            if self._reader is None:  # takes seconds: not before the first note
                self._reader = NoteReader()
            return self._reader


def save_information(folder: RunFolder, information: ClinicalInformation) -> None:
    """Keep what was collected for a run."""
    folder.write_bytes(CLINICAL_FILE, _INFORMATION.dump_json(information))


def load_information(folder: RunFolder) -> ClinicalInformation | None:
    """Return what was collected for a run; None if nothing was."""
    if not folder.exists(CLINICAL_FILE):
        return None
    return _INFORMATION.validate_json((folder.path / CLINICAL_FILE).read_bytes())


def record_policy(settings: Settings) -> RecordPolicy:
    """Return what is asked of the clinical record."""
    clinical, report = settings.clinical, settings.report
    return RecordPolicy(
        timeout_s=clinical.timeout_s,
        maximum_conditions=clinical.maximum_conditions,
        maximum_documents=clinical.maximum_documents,
        patient_id_system=report.patient_identifier_system,
        accession_system=report.accession_identifier_system,
    )


def notes_store(settings: Settings) -> NotesStore:
    """Return where a site's pasted notes lie."""
    return NotesStore(settings.data_dir / "notes")


def build_collector(settings: Settings) -> ClinicalCollector | None:
    """Return what gathers clinical information; None where the site has it off."""
    return ClinicalCollector(notes_store(settings), settings) if settings.clinical.enabled else None
