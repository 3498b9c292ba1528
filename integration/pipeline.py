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

import numpy as np
import pydicom
import structlog
from pydantic import TypeAdapter
from pydicom.dataset import Dataset

from dicom_node.clock import Clock, utc_now
from dicom_node.errors import PermanentError
from dicom_node.headers import read_header
from dicom_node.ledger import DeliveryState, Ledger, RunRow, RunState
from dicom_node.pairing import FusionNeed, PairingPolicy, find_needs, require_partners
from dicom_node.routing import (
    Assignment,
    InputContract,
    ModelReference,
    RoutingDecision,
    RuleSet,
    route_study,
    select_series,
)
from dicom_node.storage import InstanceStore
from dicom_node.study import Instance, Series, Study
from inference.analysis_files import load_analysis, load_outcome, save_outcome
from inference.findings import Analysis, FrameReference, Outcome
from inference.packages import ModelPackage
from inference.radiograph import MODALITIES as PROJECTION_MODALITIES
from inference.radiograph import Radiograph, read_radiographs
from inference.reading import read_study
from inference.runner import Runner
from inference.volume import Volume, read_volume
from integration.clinical import ClinicalPort, load_information, save_information
from integration.comparison import Contestant, compare_outcomes
from integration.delivery import DeliveryItem, Destination, deliver_run, select_items
from integration.observability import Metrics
from integration.priors import PriorStudies, describe_comparisons, load_comparisons
from integration.refining import LanguageSide, gather_ground, refine_run
from integration.result_files import BUNDLE_KIND, Manifest, ManifestEntry, ResultFiles
from integration.run_folder import RunFolder
from integration.settings import ReportSection
from integration.worklist import choose_priority, explain_priority
from reporting.clinical import ClinicalInformation, add_clinical_section
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
from reporting.language.crude_report import CRUDE_FILES, crude_sentences, write_crude
from reporting.pdf import DocumentExtras, note_model
from reporting.projection import read_views
from reporting.refine.record import RefinementRecord
from reporting.refine.refinement import digest_text
from reporting.text import ReportText

#: Bumped by hand when the order, the names or the arguments of steps change.
PIPELINE_VERSION: Final = "2"

Json = dict[str, Any]
Progress = Callable[[str, str, int, int], None]

_TEXT = TypeAdapter(ReportText)
_RECORD = TypeAdapter(RefinementRecord)
#: Folder, within a run's, of everything that shadows say: no step that makes results looks into it.
_SHADOWS: Final = "shadow"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The model packages in use and the runner that holds them.

    Attributes
    ----------
    packages : mapping
        Every usable version of every model to its package.
    """

    packages: Mapping[ModelReference, ModelPackage]
    runner: Runner

    def package(self, reference: str) -> ModelPackage:
        """Return the package of ``name@version``.

        Raises
        ------
        PermanentError
            If it is not installed any more.
        """
        for known, package in self.packages.items():
            if str(known) == reference:
                return package
        raise PermanentError(
            f"The model {reference} is not installed any more: install it again, then requeue the run."
        )


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
    language : LanguageSide or None
        What words the drafted text anew and what checks it; without a model the draft stands.
    progress : callable
        Called with (run id, model, slices done, slices in all) while a model reads.
    clinical : ClinicalPort or None
        Where order, notes and history come from; without one reports say nothing of them.
    pairing : PairingPolicy
        Whether a model that reads two studies of a patient may run on one of them.
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
        language: LanguageSide | None = None,
        clock: Clock = utc_now,
        progress: Progress = ignore_progress,
        pairing: PairingPolicy = PairingPolicy.OFF,
        clinical: ClinicalPort | None = None,
    ) -> None:
        self._clinical = clinical
        self._pairing = pairing
        self._data_dir = data_dir
        self._ledger = ledger
        self._store = store
        self._rules = rules
        self._models = models
        self._destinations = destinations
        self._profiles = profiles
        self._timezone = ZoneInfo(report.timezone)
        self._report = report
        self._priors = PriorStudies(ledger=ledger, folder_of=self.folder) if report.compare_priors else None
        self._fhir = FhirPolicy(
            patient_id_system=report.patient_identifier_system,
            accession_system=report.accession_identifier_system,
            organization=report.organization,
            subject=report.fhir_subject,
            write=report.fhir_write,
            largest_pdf_bytes=int(report.fhir_pdf_mb * 1e6),
        )
        self._software_version = software_version
        self._metrics = metrics
        self._language = language or LanguageSide()
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
            for answers in (
                "reading-*.json",
                f"{_SHADOWS}/reading-*.json",
                CRUDE_FILES,
            ):  # of an earlier attempt
                folder.remove(answers)
            folder.write_study(self._with_headers(study))
            self._ledger.set_run_state(run_id, RunState.RUNNING)
            return {"series": len(study.series), "instances": len(study.instances)}

    def route(self, run_id: str) -> Json:
        """Decide which models read which series, and keep the reasons."""
        with self._timed("route"):
            decision = self._decide(self.folder(run_id).read_study())
            self.folder(run_id).write_json("decision.json", decision.to_json())
            self._ledger.record_decision(run_id, decision.to_json())
            models = [assignment.reference for assignment in decision.active]
            shadows = [assignment.reference for assignment in decision.shadows]
            self._ledger.set_priority(run_id, decision.priority, explain_priority(decision))
            asked = [entry for entry in decision.models if not entry.is_shadow]
            if asked and not any(entry.is_installed for entry in asked):
                absent = ", ".join(entry.model for entry in asked)
                raise PermanentError(
                    f"The rules ask for models that are not installed: {absent}. "
                    "`preread models list` says why; then requeue the run."
                )
            log.info("study_routed", run_id=run_id, count=len(models), priority=str(decision.priority))
            return {"models": models, "shadows": shadows, "priority": str(decision.priority)}

    def read(self, run_id: str, model: str) -> Json:
        """Let one model (``name@version``) read the study; leave what it says, outlined and looked at."""
        with self._timed("read"):
            folder = self.folder(run_id)
            study = folder.read_study()
            assignment = _decision(folder).assignment_of(model)
            package = self._models.package(model)
            series = {role: study.series_by_uid(uid) for role, uid in assignment.roles.items()}
            outcome = read_study(
                package,
                {role: self._read_images(one) for role, one in series.items()},
                self._models.runner,
                study.study_uid,
                progress=lambda done, total: self.progress(run_id, model, done, total),
                headers={role: _header_of(study, one) for role, one in series.items()},
            )
            path = save_outcome(_outcome_folder(folder, assignment), outcome)
            if package.card.task == "report" and not assignment.is_shadow:
                write_crude(folder.path, assignment.reference, outcome.crude_report)
            folder.write_json(_answer_name(assignment), {"analysis": str(path.relative_to(folder.path))})
            log.info(
                "study_read",
                run_id=run_id,
                model=assignment.model,
                model_version=assignment.version,
                findings=len(outcome.analysis.findings),
            )
            return {"model": model, "findings": len(outcome.analysis.findings)}

    def note_failed_reading(self, run_id: str, model: str, reason: str) -> Json:
        """Keep why a model could not read the study."""
        folder = self.folder(run_id)
        folder.write_json(_answer_name(_decision(folder).assignment_of(model)), {"reason": reason})
        log.warning("reading_failed", run_id=run_id, model=model, reason=reason)
        return {"model": model}

    def collect_readings(self, run_id: str) -> Json:
        """Say whether every model of the decision has answered; shadows are not waited for."""
        folder = self.folder(run_id)
        return {"is_complete": all(folder.exists(_answer_name(a)) for a in _decision(folder).active)}

    def prioritize(self, run_id: str) -> Json:
        """Raise the run's priority where a model calls the study high risk; say which shadows remain."""
        folder = self.folder(run_id)
        decision = _decision(folder)
        row = self._ledger.run(run_id)
        analyses = [load_analysis(path) for path in _analysis_paths(folder, decision.active)]
        priority, reason = choose_priority(decision, analyses)
        if (priority, reason) != (row.priority, row.priority_reason):
            self._ledger.set_priority(run_id, priority, reason)
            log.info("priority_raised", run_id=run_id, priority=str(priority), reason=reason)
        return {
            "priority": str(priority),
            "shadows": [assignment.reference for assignment in decision.shadows],
        }

    def compare_shadow(self, run_id: str, model: str) -> Json:
        """Keep what a shadow said beside each active model of the run."""
        with self._timed("compare_shadow"):
            folder = self.folder(run_id)
            decision = _decision(folder)
            challenger = self._contestant(folder, decision.assignment_of(model))
            compared = 0
            for assignment in decision.active:
                champion = self._contestant(folder, assignment)
                labels = compare_outcomes(champion, challenger)
                self._ledger.record_comparison(
                    run_id, champion.reference, challenger.reference, labels, self._clock()
                )
                compared += len(labels)
            return {"labels": compared}

    # -- from readings to objects -------------------------------------------------------------

    def draft(self, run_id: str) -> Json:
        """Write the report's text from the findings."""
        with self._timed("draft"):
            folder = self.folder(run_id)
            readings = self._readings(folder)
            analyses = [reading.analysis for reading in readings]
            sources = self._sources(folder)
            views = read_views(sources)
            comparisons = self._priors.compare(run_id, analyses, sources, views) if self._priors else ()
            text = draft_report(
                analyses,
                views,
                {reading.analysis.model.name for reading in readings if reading.heatmaps},
                describe_comparisons(comparisons, views),
            )
            text = add_clinical_section(text, self._clinical_information(run_id))
            folder.write_bytes("draft.json", _TEXT.dump_json(text))
            return {"text": "draft.json"}

    def _clinical_information(self, run_id: str) -> ClinicalInformation | None:
        """Return what is known of the case; once results exist, what they were made with stands."""
        folder = self.folder(run_id)
        known = load_information(folder)
        if self._clinical is None or self._ledger.objects_of(run_id):
            return known
        headers = [header for series in self._sources(folder).values() for header in series]
        information = self._clinical.collect(self._ledger.run(run_id).run.study_key, headers)
        save_information(folder, information)
        return information

    def refine(self, run_id: str) -> Json:
        """Refine the text by the language model, if there is one; the draft is the fallback."""
        with self._timed("refine"):
            folder = self.folder(run_id)
            draft = _TEXT.validate_json((folder.path / "draft.json").read_bytes())
            if self._ledger.objects_of(run_id) and _is_refined(folder, draft):
                return {"text": "text.json"}  # results bear their UIDs: what they say does not change
            known = load_information(folder)
            ground = gather_ground(
                [reading.analysis for reading in self._readings(folder)],
                self._sources(folder),
                clinical=known.for_prompt() if known is not None else (),
                crude=crude_sentences(folder.path),
            )
            refinement = refine_run(run_id, draft, ground, language=self._language, metrics=self._metrics)
            folder.write_bytes("refinement.json", _RECORD.dump_json(refinement.record, indent=1))
            folder.write_bytes("text.json", _TEXT.dump_json(refinement.text))
            return {"text": "text.json"}

    def encode(self, run_id: str) -> Json:
        """Write every result object, once per profile that a destination wants."""
        with self._timed("encode"):
            folder = self.folder(run_id)
            row = self._ledger.run(run_id)
            readings = [self._with_pixels(folder, reading) for reading in self._readings(folder)]
            text, sources = self._text(folder), self._sources(folder)
            files = self._files(run_id)
            entries: list[ManifestEntry] = []
            without_bundle = ""
            is_bundle_wanted = self._is_bundle_wanted(folder)
            document = self._document(folder, readings)
            for profile in self._wanted_profiles(folder):
                context = self._context(row, profile)
                results = encode_results(readings, sources, text, context, document)
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

    def _document(self, folder: RunFolder, readings: Sequence[Reading]) -> DocumentExtras | None:
        """Return what the PDF report has beyond the other results; None where the site wants no PDF."""
        if not self._report.pdf:
            return None
        models = {(reading.analysis.model.name, reading.analysis.model.version) for reading in readings}
        return DocumentExtras(
            size=self._report.page_size,
            comparisons=load_comparisons(folder),
            notes={
                reference.name: note_model(package.card.intended_use, package.card.limits)
                for reference, package in self._models.packages.items()
                if (reference.name, reference.version) in models
            },
        )

    def gate(self, run_id: str) -> Json:
        """Stop the run if any object on disk is not valid."""
        with self._timed("gate"):
            folder, files = self.folder(run_id), self._files(run_id)
            sources = self._sources(folder)
            readings = {reading.analysis.model.name: reading for reading in self._readings(folder)}
            masks = {name: reading.mask for name, reading in readings.items() if reading.mask is not None}
            heatmaps = {name: reading.heatmaps for name, reading in readings.items()}
            study_key = self._ledger.run(run_id).run.study_key
            for profile in self._wanted_profiles(folder):
                bundle = files.read_bundle(profile)
                violations = (
                    *check_objects(files.read_objects(profile), sources, masks, heatmaps),
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
        return {"destinations": names, "priority": str(self._ledger.run(run_id).priority)}

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
            "priority": str(self._ledger.run(run_id).priority),
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
        contracts = {
            reference: require_partners(contract, self._pairing)
            for reference, contract in self._contracts().items()
        }
        return route_study(study, self._rules, contracts)

    def _contracts(self) -> dict[ModelReference, InputContract]:
        return {reference: package.contract for reference, package in self._models.packages.items()}

    def fusion_needs(self, study: Study) -> tuple[FusionNeed, ...]:
        """Return what a study brings to the fusion models that the rules ask for, and what it lacks."""
        described = self._with_headers(study)
        contracts = self._contracts()
        return find_needs(described, route_study(described, self._rules, contracts), contracts)

    def explain(self, study: Study) -> RoutingDecision:
        """Return what the present rules would decide for a study, without running anything."""
        return self._decide(self._with_headers(study))

    def readings(self, run_id: str) -> list[Reading]:
        """Return what the models said about a run's study, with the pixels for pictures of it."""
        folder = self.folder(run_id)
        return [self._with_pixels(folder, reading) for reading in self._readings(folder)]

    def sources(self, run_id: str) -> dict[str, Sequence[Dataset]]:
        """Return the headers of the series that were read, by Series Instance UID."""
        return self._sources(self.folder(run_id))

    @property
    def packages(self) -> dict[str, ModelPackage]:
        """The usable model packages by ``name@version``."""
        return {str(reference): package for reference, package in self._models.packages.items()}

    def read_aside(self, run_id: str, model: str, series_uid: str | None = None) -> Outcome:
        """Let a model (``name@version``) read a run's study, or one series of it; the run does not change.

        Raises
        ------
        PermanentError
            If the study has no series for the model, or is not what it reads.
        TransientError
            If the device failed or has no memory now.
        """
        package, study = self._models.package(model), self.folder(run_id).read_study()
        chosen = [one for one in study.series if series_uid in {None, one.series_uid}]
        selection = select_series(replace(study, series=tuple(chosen)), package.contract)
        if selection.obstacles:
            raise PermanentError(f"{model} cannot read this: {'; '.join(selection.obstacles)}.")
        series = {role: study.series_by_uid(uid) for role, uid in selection.roles}
        return read_study(
            package,
            {role: self._read_images(one) for role, one in series.items()},
            self._models.runner,
            study.study_uid,
            headers={role: _header_of(study, one) for role, one in series.items()},
        )

    def _with_headers(self, study: Study) -> Study:
        """Return a study and its partners with one header per series."""
        return replace(
            study,
            series=tuple(self._with_header(series) for series in study.series),
            partners=tuple(self._with_headers(partner) for partner in study.partners),
        )

    def _with_header(self, series: Series) -> Series:
        ordered = sorted(series.instances, key=_instance_order)
        header = read_header(self._store.path_of(ordered[0].path)).header
        return replace(series, instances=tuple(ordered), header=dict(header))

    def _datasets(self, series: Series, *, with_pixels: bool = True) -> list[Dataset]:
        paths = [self._store.path_of(instance.path) for instance in series.instances]
        return [pydicom.dcmread(path, stop_before_pixels=not with_pixels) for path in paths]

    def _read_images(self, series: Series) -> Volume | Sequence[Radiograph]:
        """Return the pixels of a series as the models take them."""
        datasets = self._datasets(series)
        if series.modality.upper() in PROJECTION_MODALITIES:
            return read_radiographs(datasets)
        return read_volume(datasets)

    def _contestant(self, folder: RunFolder, assignment: Assignment) -> Contestant:
        outcome = next((load_outcome(path) for path in _analysis_paths(folder, [assignment])), None)
        card = self._models.package(assignment.reference).card
        labels = () if card.task == "report" else card.labels  # its text is no finding to compare
        return Contestant(
            reference=assignment.reference,
            concepts=tuple(label.concept for label in labels),
            outcome=outcome,
        )

    def _sources(self, folder: RunFolder) -> dict[str, Sequence[Dataset]]:
        study = folder.read_study()
        decision = _decision(folder)
        uids = sorted({uid for assignment in decision.active for uid in assignment.roles.values()})
        return {uid: self._datasets(study.series_by_uid(uid), with_pixels=False) for uid in uids}

    def _readings(self, folder: RunFolder) -> list[Reading]:
        """Return what the models said, without pixels; a run that no model could read ends here."""
        active = _decision(folder).active
        outcomes = [load_outcome(path) for path in _analysis_paths(folder, active)]
        loaded = [outcome for outcome in outcomes if outcome.analysis.model.task != "report"]
        if not loaded:
            answers = [folder.read_json(_answer_name(assignment)) for assignment in active]
            reasons = [answer["reason"] for answer in answers if "reason" in answer]
            raise PermanentError(
                "No model could read the study: "
                + "; ".join(reasons or ["a crude report alone is not a reading; add a model that finds"])
            )
        # What lies on a partner study's images is made by that study's own run, which reads both too.
        own = {series.series_uid for series in folder.read_study().series}
        return [
            Reading(
                analysis=outcome.analysis,
                mask=outcome.mask,
                heatmaps=tuple(heatmap for heatmap in outcome.heatmaps if heatmap.series_uid in own),
            )
            for outcome in loaded
        ]

    def _with_pixels(self, folder: RunFolder, reading: Reading) -> Reading:
        """Return a reading with the pixels that its results lie on, for pictures."""
        place = _place_of(reading)
        if place is None:
            return reading
        series_uid, frame = place
        series = folder.read_study().series_by_uid(series_uid)
        if frame is None and series.modality.upper() not in PROJECTION_MODALITIES:
            return reading
        images = self._read_images(series)
        if isinstance(images, Volume):
            return replace(reading, background=images.array)
        shown = next((image for image in images if image.frame == frame), images[0])
        return replace(reading, background=shown.stored(shown.array)[np.newaxis], radiographs=tuple(images))

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
        answers = [folder.read_json(path.name) for path in sorted(folder.path.glob("reading-*.json"))]
        analyses = [
            load_analysis(folder.path / answer["analysis"]) for answer in answers if "analysis" in answer
        ]
        return [analysis for analysis in analyses if analysis.model.task != "report"]

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.steps.labels(step).observe(time.perf_counter() - began)


def _is_refined(folder: RunFolder, draft: ReportText) -> bool:
    """Say whether the run has a text that was made from the same draft."""
    if not (folder.exists("refinement.json") and folder.exists("text.json")):
        return False
    record = _RECORD.validate_json((folder.path / "refinement.json").read_bytes())
    return record.draft_sha256 == digest_text(draft)


def _decision(folder: RunFolder) -> RoutingDecision:
    return RoutingDecision.from_json(folder.read_json("decision.json"))


def _answer_name(assignment: Assignment) -> str:
    """Return the name of the file that says how a model answered; shadows have a folder of their own."""
    name = f"reading-{assignment.reference}.json"
    return f"{_SHADOWS}/{name}" if assignment.is_shadow else name


def _header_of(study: Study, series: Series) -> dict[str, str]:
    """Return what the header of a series says about its content; views differ from image to image."""
    header = {
        **series.header,
        "StudyDescription": study.description,
        "SeriesDescription": series.description,
        "BodyPartExamined": series.body_part,
        "Modality": series.modality,
    }
    return {keyword: value for keyword, value in header.items() if keyword != "ViewPosition"}


def _outcome_folder(folder: RunFolder, assignment: Assignment) -> Path:
    return folder.path / _SHADOWS / assignment.reference if assignment.is_shadow else folder.path


def _analysis_paths(folder: RunFolder, assignments: Sequence[Assignment]) -> list[Path]:
    """Return the analyses of those models that could read the study."""
    answers = [folder.read_json(_answer_name(assignment)) for assignment in assignments]
    return [folder.path / answer["analysis"] for answer in answers if "analysis" in answer]


def _place_of(reading: Reading) -> tuple[str, FrameReference | None] | None:
    """Return the series, and the image where one is named, on which results lie; None if there are none."""
    analysis = reading.analysis
    if reading.mask is not None:
        return reading.mask.series_uid, reading.mask.frames[0]
    if analysis.is_refused or not analysis.inputs:
        return None
    reference = analysis.inputs[0].series_uid
    heatmap = min(reading.heatmaps, key=lambda heatmap: heatmap.series_uid != reference, default=None)
    if heatmap is not None:
        return heatmap.series_uid, heatmap.frames[0]
    box = next((finding.box for finding in analysis.findings if finding.box is not None), None)
    return reference, box.frame if box is not None else None


def _instance_order(instance: Instance) -> tuple[bool, int, str]:
    number = instance.instance_number
    return (number is None, number or 0, instance.sop_instance_uid)
