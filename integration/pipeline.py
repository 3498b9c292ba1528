"""Adapter: the steps of a run, as plain functions of the run's id.

Each step reads what the step before left in the run folder, does one thing,
leaves its result there and returns small JSON. Each may run twice: what it
writes is a function of what it reads. No step knows the engine; the order is
``workflow.py``. No step waits for a person or sleeps.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pydicom
import structlog
from pydantic import TypeAdapter
from pydicom.dataset import Dataset

from dicom_node.clock import Clock, utc_now
from dicom_node.errors import PermanentError
from dicom_node.headers import read_header
from dicom_node.ledger import DeliveryState, Ledger, RunRow, RunState
from dicom_node.routing import RoutingDecision, RuleSet, route_study
from dicom_node.storage import InstanceStore
from dicom_node.study import Instance, Series, Study
from inference.analysis_files import load_analysis, load_outcome, save_outcome
from inference.findings import Analysis
from inference.packages import ModelPackage
from inference.reading import read_study
from inference.runner import Runner
from inference.volume import read_volume
from integration.delivery import DeliveryItem, Destination, deliver_run, select_items
from integration.observability import Metrics
from integration.result_files import BUNDLE_KIND, Manifest, ManifestEntry, ResultFiles
from integration.run_folder import RunFolder
from integration.settings import ReportSection
from reporting.context import (
    Reading,
    ReportContext,
    ResultProfile,
)
from reporting.draft import draft_report
from reporting.encode import encode_results
from reporting.errors import UnencodableResultError
from reporting.fhir import FhirPolicy, build_bundle
from reporting.gate import check_bundle, check_objects, require_valid
from reporting.refine import LanguageModel, refine
from reporting.text import ReportText

#: Bumped by hand when the order, the names or the arguments of steps change.
PIPELINE_VERSION: Final = "1"

Json = dict[str, Any]
Progress = Callable[[str, str, int, int], None]

_TEXT = TypeAdapter(ReportText)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The model packages in use and the runner that holds them.

    Attributes
    ----------
    packages : mapping
        Model name to package.
    """

    packages: Mapping[str, ModelPackage]
    runner: Runner


def ignore_progress(_run_id: str, _model: str, _done: int, _total: int) -> None:
    """Take a progress report and do nothing."""


class Pipeline:
    """The steps of a run.

    Parameters
    ----------
    data_dir : Path
        Root of the paths that the ledger keeps for result objects.
    profiles : mapping
        Destination name to the profile of objects that it wants.
    language_model : LanguageModel or None
        What refines the drafted text; without one the draft stands.
    progress : callable
        Called with (run id, model, slices done, slices in all) while a model reads.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        ledger: Ledger,
        store: InstanceStore,
        rules: RuleSet,
        models: Models,
        destinations: Mapping[str, Destination],
        profiles: Mapping[str, ResultProfile],
        report: ReportSection,
        software_version: str,
        metrics: Metrics,
        language_model: LanguageModel | None = None,
        clock: Clock = utc_now,
        progress: Progress = ignore_progress,
    ) -> None:
        self._data_dir = data_dir
        self._ledger = ledger
        self._store = store
        self._rules = rules
        self._models = models
        self._destinations = destinations
        self._profiles = profiles
        self._timezone = ZoneInfo(report.timezone)
        self._fhir = FhirPolicy(
            patient_id_system=report.patient_identifier_system,
            accession_system=report.accession_identifier_system,
            organization=report.organization,
            subject=report.fhir_subject,
            write=report.fhir_write,
        )
        self._software_version = software_version
        self._metrics = metrics
        self._language_model = language_model
        self._clock = clock
        self.progress = progress

    def folder(self, run_id: str) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(self._data_dir / "runs", run_id)

    # -- from study to readings ---------------------------------------------------------------

    def assemble(self, run_id: str) -> Json:
        """Complete the study with one header per series, read from the store."""
        with self._timed("assemble"):
            folder = self.folder(run_id)
            study = folder.read_study()
            folder.remove("reading-*.json")  # answers of an earlier attempt
            folder.write_study(
                replace(study, series=tuple(self._with_header(series) for series in study.series))
            )
            self._ledger.set_run_state(run_id, RunState.RUNNING)
            return {"series": len(study.series), "instances": len(study.instances)}

    def route(self, run_id: str) -> Json:
        """Decide which models read which series, and keep the reasons."""
        with self._timed("route"):
            decision = self._decide(self.folder(run_id).read_study())
            self.folder(run_id).write_json("decision.json", decision.to_json())
            self._ledger.record_decision(run_id, decision.to_json())
            models = sorted({assignment.model for assignment in decision.assignments})
            absent = sorted({entry.model for entry in decision.models} - set(self._models.packages))
            if absent and not models:
                raise PermanentError(
                    f"The rules ask for models that are not installed: {', '.join(absent)}. "
                    "`preread models list` says why; then requeue the run."
                )
            log.info("study_routed", run_id=run_id, count=len(models), priority=str(decision.priority))
            return {"models": models, "priority": str(decision.priority)}

    def read(self, run_id: str, model: str) -> Json:
        """Let one model read the study; leave its analysis and mask."""
        with self._timed("read"):
            folder = self.folder(run_id)
            study = folder.read_study()
            decision = _decision(folder)
            assignment = next(a for a in decision.assignments if a.model == model)
            package = self._models.packages[model]
            volumes = {
                role: read_volume(self._datasets(study.series_by_uid(uid)))
                for role, uid in assignment.roles.items()
            }
            outcome = read_study(
                package,
                volumes,
                self._models.runner,
                study.study_uid,
                progress=lambda done, total: self.progress(run_id, model, done, total),
            )
            path = save_outcome(folder.path, outcome)
            folder.write_json(_reading_name(model), {"analysis": path.name})
            log.info(
                "study_read",
                run_id=run_id,
                model=model,
                model_version=package.card.version,
                findings=len(outcome.analysis.findings),
            )
            return {"model": model, "findings": len(outcome.analysis.findings)}

    def note_failed_reading(self, run_id: str, model: str, reason: str) -> Json:
        """Keep why a model could not read the study."""
        self.folder(run_id).write_json(_reading_name(model), {"reason": reason})
        log.warning("reading_failed", run_id=run_id, model=model, reason=reason)
        return {"model": model}

    def collect_readings(self, run_id: str) -> Json:
        """Say whether every model of the decision has answered."""
        folder = self.folder(run_id)
        return {"is_complete": all(folder.exists(_reading_name(model)) for model in self._models_of(folder))}

    # -- from readings to objects -------------------------------------------------------------

    def draft(self, run_id: str) -> Json:
        """Write the report's text from the findings."""
        with self._timed("draft"):
            folder = self.folder(run_id)
            text = draft_report([reading.analysis for reading in self._readings(folder)])
            folder.write_bytes("draft.json", _TEXT.dump_json(text))
            return {"text": "draft.json"}

    def refine(self, run_id: str) -> Json:
        """Refine the text by the language model, if there is one; the draft is the fallback."""
        with self._timed("refine"):
            folder = self.folder(run_id)
            draft = _TEXT.validate_json((folder.path / "draft.json").read_bytes())
            text = refine(
                draft, [reading.analysis for reading in self._readings(folder)], self._language_model
            )
            folder.write_bytes("text.json", _TEXT.dump_json(text))
            return {"text": "text.json"}

    def encode(self, run_id: str) -> Json:
        """Write every result object, once per profile that a destination wants."""
        with self._timed("encode"):
            folder = self.folder(run_id)
            row = self._ledger.run(run_id)
            readings = [self._with_background(folder, reading) for reading in self._readings(folder)]
            text, sources = self._text(folder), self._sources(folder)
            files = self._files(run_id)
            entries: list[ManifestEntry] = []
            without_bundle = ""
            is_bundle_wanted = self._is_bundle_wanted(folder)
            for profile in self._wanted_profiles(folder):
                context = self._context(row, profile)
                results = encode_results(readings, sources, text, context)
                entries += files.write_objects(profile, results)
                if not is_bundle_wanted:
                    continue
                try:
                    bundle = build_bundle(
                        [reading.analysis for reading in readings],
                        text,
                        sources=sources,
                        objects=results,
                        context=context,
                        policy=self._fhir,
                        previous=self._previous_analyses(row),
                    )
                except UnencodableResultError as exc:
                    without_bundle = str(exc)  # the images' results go out all the same; close_run tells
                else:
                    entries.append(files.write_bundle(profile, run_id, bundle))
            manifest = Manifest(entries=tuple(entries), without_bundle=without_bundle)
            self._ledger.record_objects(run_id, files.write_manifest(manifest))
            return {"objects": len(entries)}

    def gate(self, run_id: str) -> Json:
        """Stop the run if any object on disk is not valid."""
        with self._timed("gate"):
            folder, files = self.folder(run_id), self._files(run_id)
            sources = self._sources(folder)
            masks = {
                reading.analysis.model.name: reading.mask
                for reading in self._readings(folder)
                if reading.mask is not None
            }
            study_key = self._ledger.run(run_id).run.study_key
            for profile in self._wanted_profiles(folder):
                bundle = files.read_bundle(profile)
                violations = (
                    *check_objects(files.read_objects(profile), sources, masks),
                    *(check_bundle(bundle) if bundle is not None else ()),
                )
                require_valid(violations, study_key=study_key)
            return {"is_valid": True}

    # -- from objects to destinations ---------------------------------------------------------

    def queue_deliveries(self, run_id: str) -> Json:
        """Note what goes where; from here on the results are on their way."""
        names = self._wanted_destinations(self.folder(run_id))
        for name in names:
            for item in select_items(self._destinations[name].profile, self._items(run_id, name)):
                self._ledger.queue_delivery(item.object_uid, name, run_id)
        self._ledger.set_run_state(run_id, RunState.DELIVERING)
        return {"destinations": names}

    def deliver(self, run_id: str, destination: str, number: int) -> Json:
        """Make one attempt to bring the run's objects to one destination."""
        with self._timed("deliver"):
            outcome = deliver_run(
                self._destinations[destination],
                self._items(run_id, destination),
                self._ledger,
                self._clock,
                jitter=random.random,
            )
        log.info(
            "delivery_attempted",
            run_id=run_id,
            destination=destination,
            attempt=number,
            confirmed=len(outcome.confirmed),
            pending=len(outcome.pending),
            failed=len(outcome.failed),
            retry_after_s=outcome.retry_after_s,
            reason=outcome.reason,
        )
        self._metrics.deliveries.labels(destination, "finished" if outcome.is_finished else "retry").inc()
        return {
            "confirmed": len(outcome.confirmed),
            "pending": len(outcome.pending),
            "failed": len(outcome.failed),
            "retry_after_s": outcome.retry_after_s,
        }

    def close_run(self, run_id: str) -> Json:
        """End the run once every delivery has ended."""
        deliveries = self._ledger.deliveries_of(run_id)
        if any(d.state in (DeliveryState.QUEUED, DeliveryState.SENT) for d in deliveries):
            return {"state": str(RunState.DELIVERING)}
        without_bundle = self._missing_bundle(run_id)
        if without_bundle:
            return self.quarantine(run_id, f"The FHIR report could not be made: {without_bundle}")
        refused = [d for d in deliveries if d.state == DeliveryState.FAILED]
        if refused:
            where = ", ".join(sorted({d.destination for d in refused}))
            return self.quarantine(
                run_id, f"{len(refused)} results were refused by {where}: {refused[0].error}"
            )
        self._ledger.set_run_state(run_id, RunState.DONE)
        self._metrics.runs.labels(str(RunState.DONE)).inc()
        log.info("run_done", run_id=run_id, objects=len(deliveries))
        return {"state": str(RunState.DONE)}

    def quarantine(self, run_id: str, reason: str) -> Json:
        """Set the run aside with its reason; it stays visible and can be requeued."""
        self._ledger.set_run_state(run_id, RunState.QUARANTINED, reason)
        self._metrics.runs.labels(str(RunState.QUARANTINED)).inc()
        log.error("run_quarantined", run_id=run_id, reason=reason)
        return {"state": str(RunState.QUARANTINED), "reason": reason}

    # -- what steps share ---------------------------------------------------------------------

    def _decide(self, study: Study) -> RoutingDecision:
        packages = self._models.packages
        return route_study(
            study,
            self._rules,
            {name: package.contract for name, package in packages.items()},
            {name: package.card.version for name, package in packages.items()},
        )

    def explain(self, study: Study) -> RoutingDecision:
        """Return what the present rules would decide for a study, without running anything."""
        return self._decide(
            replace(study, series=tuple(self._with_header(series) for series in study.series))
        )

    def readings(self, run_id: str) -> list[Reading]:
        """Return what the models said about a run's study, with the pixels for pictures of it."""
        folder = self.folder(run_id)
        return [self._with_background(folder, reading) for reading in self._readings(folder)]

    def sources(self, run_id: str) -> dict[str, Sequence[Dataset]]:
        """Return the headers of the series that were read, by Series Instance UID."""
        return self._sources(self.folder(run_id))

    def _with_header(self, series: Series) -> Series:
        ordered = sorted(series.instances, key=_instance_order)
        header = read_header(self._store.path_of(ordered[0].path)).header
        return replace(series, instances=tuple(ordered), header=dict(header))

    def _datasets(self, series: Series, *, with_pixels: bool = True) -> list[Dataset]:
        paths = [self._store.path_of(instance.path) for instance in series.instances]
        return [pydicom.dcmread(path, stop_before_pixels=not with_pixels) for path in paths]

    def _sources(self, folder: RunFolder) -> dict[str, Sequence[Dataset]]:
        study = folder.read_study()
        decision = _decision(folder)
        uids = sorted({uid for assignment in decision.assignments for uid in assignment.roles.values()})
        return {uid: self._datasets(study.series_by_uid(uid), with_pixels=False) for uid in uids}

    def _models_of(self, folder: RunFolder) -> list[str]:
        decision = _decision(folder)
        return sorted({assignment.model for assignment in decision.assignments})

    def _readings(self, folder: RunFolder) -> list[Reading]:
        """Return what the models said, without pictures; a run that no model could read ends here."""
        answers = [folder.read_json(_reading_name(model)) for model in self._models_of(folder)]
        loaded = [
            load_outcome(folder.path / answer["analysis"]) for answer in answers if "analysis" in answer
        ]
        if not loaded:
            reasons = [answer["reason"] for answer in answers if "reason" in answer]
            raise PermanentError("No model could read the study: " + "; ".join(reasons))
        return [
            Reading(analysis=outcome.analysis, mask=outcome.mask, heatmaps=outcome.heatmaps)
            for outcome in loaded
        ]

    def _with_background(self, folder: RunFolder, reading: Reading) -> Reading:
        """Return a reading with the pixels that its mask lies on, for pictures."""
        if reading.mask is None:
            return reading
        series = folder.read_study().series_by_uid(reading.mask.series_uid)
        return replace(reading, background=read_volume(self._datasets(series)).array)

    def _text(self, folder: RunFolder) -> ReportText:
        return _TEXT.validate_json((folder.path / "text.json").read_bytes())

    def _wanted_destinations(self, folder: RunFolder) -> list[str]:
        decision = _decision(folder)
        unknown = sorted(set(decision.destinations) - set(self._destinations))
        if unknown:
            raise PermanentError(
                f"The rules name destinations that are not configured: {', '.join(unknown)}. "
                "Add them to `destinations`, or correct the rule; then requeue the run."
            )
        return list(decision.destinations) or sorted(self._destinations)

    def _is_bundle_wanted(self, folder: RunFolder) -> bool:
        names = self._wanted_destinations(folder)
        return any(BUNDLE_KIND in self._destinations[name].profile.kinds for name in names)

    def _wanted_profiles(self, folder: RunFolder) -> list[ResultProfile]:
        profiles = {self._profiles[name] for name in self._wanted_destinations(folder)}
        return sorted(profiles, key=lambda profile: profile.key)

    def _context(self, row: RunRow, profile: ResultProfile) -> ReportContext:
        run = row.run
        earlier = self._files(run.predecessor) if run.predecessor else None
        predecessor = earlier.as_predecessors(profile) if earlier and earlier.has_manifest() else ()
        return ReportContext(
            run_id=run.run_id,
            created_at=run.created_at.replace(microsecond=0),
            software_version=self._software_version,
            inputs_digest=run.instance_digest,
            predecessor=predecessor,
            profile=profile,
            site_timezone=self._timezone,
        )

    def _files(self, run_id: str) -> ResultFiles:
        return ResultFiles(self.folder(run_id), self._data_dir)

    def _items(self, run_id: str, destination: str) -> list[DeliveryItem]:
        study_key = self._ledger.run(run_id).run.study_key
        return self._files(run_id).as_items(self._profiles[destination], run_id, study_key)

    def _missing_bundle(self, run_id: str) -> str:
        """Return why a run that made results has no FHIR Bundle; empty if it has, or made none."""
        files = self._files(run_id)
        return files.read_manifest().without_bundle if files.has_manifest() else ""

    def _previous_analyses(self, row: RunRow) -> list[Analysis]:
        """Return what the run before said, so that what is gone can be retracted."""
        if row.run.predecessor is None:
            return []
        folder = self.folder(row.run.predecessor)
        return [load_analysis(path) for path in sorted(folder.path.glob("analysis-*.json"))]

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.steps.labels(step).observe(time.perf_counter() - began)


def _decision(folder: RunFolder) -> RoutingDecision:
    return RoutingDecision.from_json(folder.read_json("decision.json"))


def _reading_name(model: str) -> str:
    return f"reading-{model}.json"


def _instance_order(instance: Instance) -> tuple[bool, int, str]:
    number = instance.instance_number
    return (number is None, number or 0, instance.sop_instance_uid)
