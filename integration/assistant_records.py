"""Adapter: what the assistant knows of a run, read from its folder and its headers.

Identifiers are read here so that they can be taken out of free text; they stay in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from dicom_node.errors import PermanentError, TransientError
from dicom_node.ledger import Ledger, RunState
from dicom_node.study import Study
from inference.analysis_files import load_outcome
from inference.findings import Box, Heatmap, Outcome
from inference.packages import ModelPackage
from integration.run_folder import RunFolder
from reporting.assistant.identifiers import Identifiers
from reporting.assistant.record import InstalledModel, LookedAt, SeriesLine, StudyRecord
from reporting.projection import Views, locate

#: Part of its peak from which a heat map's value belongs to the strongest region.
_STRONG: Final = 0.5
#: Runs whose record is kept between questions; making one reads every header.
_KEPT_RECORDS: Final = 16
_CRUDE_TASK: Final = "report"
_NAME_KEYWORDS: Final = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "ReferringPhysicianName", "OperatorsName", "PerformingPhysicianName", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy", "RequestingPhysician", "ResponsiblePerson",
)  # fmt: skip
_NUMBER_KEYWORDS: Final = (
    "PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "StudyID", "AdmissionID",
    "PatientTelephoneNumbers", "PatientAddress", "InsurancePlanIdentification", "MedicalRecordLocator",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "RequestedProcedureID",
)  # fmt: skip


class RunNotReadError(TransientError):
    """The models have not read the run's study yet: ask when it is read."""


class NoReadingError(PermanentError):
    """No model could read the run's study, so there is nothing to ask about; the run says why."""


class RunRecords:
    """Makes the record of a run from its folder.

    Parameters
    ----------
    folder_of : callable
        Run id to its folder.
    views_of : callable
        Run id to how its radiographs show the patient.
    packages : mapping
        ``name@version`` to model package.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        folder_of: Callable[[str], RunFolder],
        views_of: Callable[[str], Views],
        packages: Mapping[str, ModelPackage],
    ) -> None:
        self._ledger = ledger
        self._folder_of = folder_of
        self._views_of = views_of
        self._packages = packages
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int, str], StudyRecord] = {}

    def record(self, run_id: str) -> StudyRecord:
        """Return what the assistant may know of a run.

        Raises
        ------
        UnknownRunError
            If there is no such run.
        RunNotReadError, NoReadingError
            If there is nothing to ask about, yet or at all.
        """
        row = self._ledger.run(run_id)
        if row.state in {RunState.QUEUED, RunState.RUNNING}:
            raise RunNotReadError("The study of this run is still being read: ask when it is read.")
        key = (run_id, row.attempt, row.state.value)
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None:
            return kept
        record = self._make(run_id)
        with self._lock:
            self._kept[key] = record
            for oldest in list(self._kept)[:-_KEPT_RECORDS]:
                del self._kept[oldest]
        return record

    def _make(self, run_id: str) -> StudyRecord:
        folder = self._folder_of(run_id)
        outcomes = read_outcomes(folder)
        if not outcomes:
            raise NoReadingError("No model read the study of this run: its state and decision say why.")
        study = folder.read_study()
        views = self._views_of(run_id)
        installed = tuple(_describe_package(name, package) for name, package in self._packages.items())
        concepts = {model.reference: model.concepts for model in installed}
        analyses = tuple(outcome.analysis for outcome in outcomes)
        return StudyRecord(
            run_id=run_id,
            analyses=analyses,
            views=views,
            looked_at=tuple(
                summarise_heatmap(outcome.analysis.model.name, heatmap, views)
                for outcome in outcomes
                for heatmap in outcome.heatmaps
            ),
            sought={a.model.name: concepts.get(f"{a.model.name}@{a.model.version}", ()) for a in analyses},
            series=tuple(_describe_series(study)),
            installed=installed,
            identifiers=find_identifiers(study),
        )


def read_outcomes(folder: RunFolder) -> list[Outcome]:
    """Return what the models of a run said that find something; shadows and crude reports are none."""
    outcomes = [
        load_outcome(folder.path / answer["analysis"]) for answer in _answers(folder) if "analysis" in answer
    ]
    return [outcome for outcome in outcomes if outcome.analysis.model.task != _CRUDE_TASK]


def find_identifiers(study: Study) -> Identifiers:
    """Return what the headers of a study and its partners identify the patient by.

    UIDs of instances are left out: anything in the form of a UID is taken out of free text anyway.
    """
    names: list[str] = []
    numbers: list[str] = [study.study_uid]
    for one in (study, *study.partners):
        numbers.append(one.study_uid)
        for series in one.series:
            numbers.append(series.series_uid)
            names += [series.header.get(keyword, "") for keyword in _NAME_KEYWORDS]
            numbers += [series.header.get(keyword, "") for keyword in _NUMBER_KEYWORDS]
    return Identifiers(
        names=tuple(dict.fromkeys(filter(None, names))), numbers=tuple(dict.fromkeys(filter(None, numbers)))
    )


def summarise_heatmap(model: str, heatmap: Heatmap, views: Views) -> LookedAt:
    """Return where a heat map is strongest, in words' terms.

    Parameters
    ----------
    heatmap : Heatmap
        (D, H, W) float32, 0 to 1.
    """
    index = int(heatmap.values.reshape(len(heatmap.values), -1).max(axis=1).argmax())
    image = heatmap.values[index]
    strong = image >= _STRONG * float(image.max()) if float(image.max()) > 0 else np.zeros_like(image, bool)
    rows, columns = np.nonzero(strong)
    frame = heatmap.frames[index]
    box = (
        Box(
            frame=frame,
            left=float(columns.min()),
            top=float(rows.min()),
            right=float(columns.max() + 1),
            bottom=float(rows.max() + 1),
        )
        if rows.size
        else None
    )
    where = {"place": locate(box, views)} if box is not None else {}
    return LookedAt(
        model=model,
        answer=heatmap.answer,
        image=index + 1,
        images=len(heatmap.values),
        share=float(strong.mean()),
        **where,
    )


def _answers(folder: RunFolder) -> list[dict[str, Any]]:
    return [folder.read_json(path.name) for path in sorted(folder.path.glob("reading-*.json"))]


def _describe_package(reference: str, package: ModelPackage) -> InstalledModel:
    labels = package.card.labels if package.card.task != _CRUDE_TASK else ()
    return InstalledModel(
        reference=reference,
        task=package.card.task,
        title=package.identity.title,
        concepts=tuple(dict.fromkeys(label.concept for label in labels)),
    )


def _describe_series(study: Study) -> Iterator[SeriesLine]:
    for series in study.series:
        if series.series_number is not None:
            yield SeriesLine(
                number=series.series_number,
                modality=series.modality,
                images=series.number_of_images,
                description=series.description,
            )
