"""Adapter: the composition root. Settings in, a running node out; nothing else constructs adapters."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Final, Self

import structlog
from fastapi import APIRouter, FastAPI

from dicom_node.clock import utc_now
from dicom_node.completeness import CompletenessPolicy
from dicom_node.intake import Intake
from dicom_node.ledger import DeliveryState, Ledger, RunState
from dicom_node.pairing import PairingPolicy, PairingRules
from dicom_node.routing import ModelReference
from dicom_node.scp import CommitmentPeer, ScpSettings, StorageScp
from dicom_node.study import StudyKey, derive_study_key
from dicom_node.tls import TlsSettings
from inference.engines import EngineName
from inference.findings import ModelIdentity
from inference.packages import Catalogue, ModelPackage, discover
from inference.runner import Runner, RunStatistics, always_eager
from inference.tuning import TunedEngines
from integration.api import ApiPorts, build_api
from integration.assembler import Assembler, CompletenessPolicies
from integration.assistant import build_assistant
from integration.assistant_api import AssistantPorts, assistant_router
from integration.clinical import build_collector, notes_store
from integration.commitment import CommitmentReport, record_commitment
from integration.delivery import Destination
from integration.destinations import CStoreSettings, StowSettings, build_destination
from integration.http_server import HttpServer
from integration.language import build_language
from integration.models_cli import ENGINES_FOLDER
from integration.observability import Metrics, adopt_library_loggers
from integration.pacs import expected_instances
from integration.pipeline import Models, Pipeline, Progress, ignore_progress
from integration.recovery import Recovery, RecoverySettings
from integration.settings import Settings, SettingsError
from integration.site import MEGABYTE, load_site_key, open_store, read_rules
from integration.stow_service import StowService
from integration.workflow import DELIVERY_QUEUE, READ_QUEUE, RUN_QUEUE, Engine
from reporting.context import ResultProfile, SegmentationForm
from reporting.uids import derive_uid

_RECONCILE_EVERY_S: Final = 60.0
ALL_QUEUES: Final = (RUN_QUEUE, READ_QUEUE, DELIVERY_QUEUE)

log = structlog.get_logger(__name__)


def software_version() -> str:
    """Return the version of Preread as installed."""
    try:
        return version("preread")
    except PackageNotFoundError:
        return "0+source"


class Node:
    """One process of Preread, put together.

    Parameters
    ----------
    settings : Settings
        What the site decided.
    observer : callable
        Called with (run id, model, slices done, slices in all) while a model reads.

    Raises
    ------
    SettingsError
        If a folder, a rule file or a model package is unusable.
    """

    def __init__(self, settings: Settings, *, observer: Progress = ignore_progress) -> None:
        self.settings = settings
        self._observer = observer
        self.metrics = Metrics()
        self.site_key = load_site_key(settings.data_dir)
        self.ledger = Ledger.connect(settings.ledger_url)
        self.ledger.migrate()
        self.store = open_store(settings)
        self.notes = notes_store(settings)
        self.intake = Intake(self.store, self.ledger, utc_now)
        self.catalogue = discover(settings.models_dir)
        self.rules = read_rules(
            settings.rules_file,
            is_fusion_wanted=settings.pairing.policy is not PairingPolicy.OFF
            and any(package.card.task == "fusion" for package in self.catalogue.packages),
        )
        self.progress: dict[str, dict[str, tuple[int, int]]] = {}
        self.language = build_language(settings)
        self.pipeline = self._build_pipeline()
        self.assistant = build_assistant(
            settings, self.ledger, self.pipeline, language_model=self.language.model
        )
        self._engine: Engine | None = None
        self._scp: StorageScp | None = None
        self._http: HttpServer | None = None
        self._assembler: Assembler | None = None
        self._recovery: Recovery | None = None

    # -- parts --------------------------------------------------------------------------------

    def _build_pipeline(self) -> Pipeline:
        settings = self.settings
        return Pipeline(
            data_dir=settings.data_dir.absolute(),
            ledger=self.ledger,
            store=self.store,
            rules=self.rules,
            models=Models(packages=usable_models(self.catalogue), runner=build_runner(settings)),
            destinations=build_destinations(settings),
            profiles={
                destination.name: ResultProfile(
                    segmentation=SegmentationForm(getattr(destination, "segmentation", None) or "BINARY")
                )
                for destination in settings.effective_destinations
            },
            report=settings.report,
            software_version=software_version(),
            metrics=self.metrics,
            progress=self._note_progress,
            pairing=settings.pairing.policy,
            language=self.language,
            clinical=build_collector(settings),
        )

    def _build_api(self) -> FastAPI:
        settings = self.settings.http
        stow = StowService(
            intake=self.intake,
            ledger=self.ledger,
            clock=utc_now,
            maximum_instance_bytes=settings.maximum_instance_mb * MEGABYTE,
        )
        ports = ApiPorts(
            ledger=self.ledger,
            stow=stow,
            site_key=self.site_key,
            metrics=self.metrics,
            clock=utc_now,
            requeue=self.requeue,
            wake=self.wake,
            is_ready=self.is_ready,
            progress=self.progress,
            assistant=self._build_assistant_router(),
            notes=self.notes if self.settings.clinical.enabled else None,
        )
        token = settings.token.get_secret_value() if settings.token else None
        return build_api(ports, token=token, version=software_version())

    def _build_assistant_router(self) -> APIRouter | None:
        wanted = self.settings.assistant
        if not wanted.enabled:
            return None
        return assistant_router(
            AssistantPorts(
                service=self.assistant,
                ledger=self.ledger,
                questions_per_minute=wanted.questions_per_minute,
                concurrent_questions=wanted.concurrent_questions,
                user_header=wanted.user_header,
                has_token=self.settings.http.token is not None,
            )
        )

    def _note_progress(self, run_id: str, model: str, done: int, total: int) -> None:
        self.progress.setdefault(run_id, {})[model] = (done, total)
        if done >= total:
            self.progress.pop(run_id, None)
        self._observer(run_id, model, done, total)

    # -- life ---------------------------------------------------------------------------------

    def start(self, *, queues: tuple[str, ...] = ALL_QUEUES, is_receiving: bool = True) -> Self:
        """Resume what was interrupted, then take work and, if asked, studies.

        Parameters
        ----------
        queues : tuple of str
            What this process works on.
        is_receiving : bool
            Listen for DICOM and HTTP and assemble studies; a worker does not.
        """
        engine = Engine(self.pipeline, self.settings.engine, self.settings.engine_url)
        engine.launch(queues)
        adopt_library_loggers()
        self._engine = engine
        self._recovery = Recovery(
            engine=engine,
            ledger=self.ledger,
            settings=RecoverySettings(
                executor_id=self.settings.engine.executor_id,
                lease_s=self.settings.engine.lease_s,
                reconcile_every_s=_RECONCILE_EVERY_S,
                maximum_crashes=self.settings.engine.maximum_crashes,
            ),
            quarantine=self.pipeline.quarantine,
            clock=utc_now,
        )
        self._recovery.start()
        if is_receiving:
            self._start_receiving(engine)
        return self

    def _start_receiving(self, engine: Engine) -> None:
        self.ledger.close_stale_associations(utc_now())
        self._start_assembling(engine)
        self._scp = StorageScp(
            scp_settings(self.settings),
            self.intake,
            on_association_released=lambda _association: self.wake(),
            on_commitment_report=self._note_commitment,
            commitment_peers={
                source.ae_title: CommitmentPeer(host=source.commitment.host, port=source.commitment.port)
                for source in self.settings.sources
                if source.commitment is not None
            },
        )
        self._scp.start()
        self._http = HttpServer(self._build_api(), self.settings.http.host, self.settings.http.port)
        self._http.start()
        log.info(
            "node_started",
            ae_title=self.settings.dicom.ae_title,
            host=self.settings.dicom.host,
            port=self.dicom_port,
        )

    def start_assembling(self) -> None:
        """Begin runs for studies that are complete, without listening; for studies taken from files.

        Raises
        ------
        SettingsError
            If the node is not started.
        """
        self._start_assembling(self._running_engine())

    def _start_assembling(self, engine: Engine) -> None:
        self._assembler = Assembler(
            ledger=self.ledger,
            store=self.store,
            site_key=self.site_key,
            policies=completeness_policies(self.settings),
            folder_of=self.pipeline.folder,
            submit=lambda run_id, attempt: engine.submit(run_id, attempt=attempt),
            ask_expected=self._ask_expected,
            metrics=self.metrics,
            clock=utc_now,
            pairing=pairing_rules(self.settings),
            find_needs=self.pipeline.fusion_needs,
        )
        self._assembler.start()

    def stop(self) -> None:
        """Stop taking studies, then stop working; what is in progress resumes at the next start."""
        self.language.stopping.set()
        for part in (self._scp, self._http, self._assembler, self._recovery):
            if part is not None:
                part.stop()
        self.assistant.close()
        if self._engine is not None:
            self._engine.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- while it runs ------------------------------------------------------------------------

    @property
    def dicom_port(self) -> int:
        """The TCP port on which studies are received."""
        return self._scp.port if self._scp else self.settings.dicom.port

    @property
    def http_port(self) -> int:
        """The TCP port of HTTP."""
        return self._http.port if self._http else self.settings.http.port

    def is_ready(self) -> bool:
        """Say whether the node takes studies."""
        return self._scp is not None and self.store.has_room()

    def wake(self) -> None:
        """Look for complete studies now."""
        if self._assembler is not None:
            self._assembler.wake()

    def requeue(self, run_id: str) -> str:
        """Deliver again what was refused; else read the study again.

        Returns
        -------
        str
            What was done, in words.

        Raises
        ------
        UnknownRunError
            If there is no such run.
        SettingsError
            If the node is not started.
        """
        return requeue_run(self.ledger, self._running_engine(), run_id)

    def find_study(self, name: str) -> StudyKey:
        """Return the key of a study that is named by key, Study Instance UID or run id.

        Raises
        ------
        SettingsError
            If there is no such study.
        """
        for key in (StudyKey(name), derive_study_key(name, self.site_key), StudyKey(name.partition("-")[0])):
            try:
                return self.ledger.study(key).study_key
            except KeyError:
                continue
        raise SettingsError("There is no such study: `preread studies` lists them.")

    def _running_engine(self) -> Engine:
        if self._engine is None:
            raise SettingsError("The node is not started: start it with `preread serve`.")
        return self._engine

    def _ask_expected(self, source_ae: str, study_key: StudyKey, study_uid: str) -> int | None:
        source = next((s for s in self.settings.sources if s.ae_title == source_ae), None)
        count = expected_instances(source, study_uid) if source else None
        if count is None:
            return None
        archives = [
            destination.name
            for destination in self.settings.effective_destinations
            if isinstance(destination, CStoreSettings | StowSettings)
        ]
        return count - self.ledger.count_delivered_objects(study_key, archives)

    def _note_commitment(
        self, transaction_uid: str, committed: tuple[str, ...], failed: tuple[tuple[str, int], ...]
    ) -> None:
        report = CommitmentReport(transaction_uid=transaction_uid, committed=committed, failed=failed)
        names = [
            d.name
            for d in self.settings.effective_destinations
            if isinstance(d, CStoreSettings) and d.commitment
        ]
        record_commitment(report, names, self.ledger, utc_now)


def usable_models(catalogue: Catalogue) -> Mapping[ModelReference, ModelPackage]:
    """Return every usable version of every model; log those that are not usable."""
    for broken in catalogue.broken:
        log.error("model_package_unusable", reason=broken.reason)
    return {
        ModelReference(name=package.card.name, version=package.card.version): package
        for package in catalogue.packages
    }


def build_runner(settings: Settings) -> Runner:
    """Return what runs networks: in the engines that tuning chose, and saying how fast."""
    tuned = TunedEngines(
        settings.data_dir / ENGINES_FOLDER, tuple(EngineName(name) for name in settings.engines.allowed)
    )
    return Runner(
        choose_engine=tuned.choose if settings.engines.enabled else always_eager, observer=_log_prediction
    )


def _log_prediction(model: ModelIdentity, statistics: RunStatistics) -> None:
    log.info(
        "images_predicted",
        model=model.name,
        model_version=model.version,
        count=statistics.images,
        images_per_s=round(statistics.images_per_second, 2),
        device=f"{statistics.device} {statistics.engine}",
        **({"reason": statistics.fallback} if statistics.fallback else {}),
    )


def build_destinations(settings: Settings) -> dict[str, Destination]:
    """Return the destinations of a site by name."""
    return {
        destination.name: build_destination(
            destination, clock=utc_now, new_uid=lambda: derive_uid("transaction", uuid.uuid4().hex)
        )
        for destination in settings.effective_destinations
    }


def completeness_policies(settings: Settings) -> CompletenessPolicies:
    """Return when studies of each source count as complete."""
    common = settings.completeness

    def policy(quiet_period_s: float) -> CompletenessPolicy:
        return CompletenessPolicy(
            quiet_period_s=quiet_period_s,
            aborted_quiet_period_s=common.aborted_quiet_period_s,
            max_wait_s=common.maximum_wait_s,
        )

    return CompletenessPolicies(
        default=policy(common.quiet_period_s),
        by_source={source.ae_title: policy(source.quiet_period_s) for source in settings.sources},
    )


def pairing_rules(settings: Settings) -> PairingRules:
    """Return how the studies of a patient are read together."""
    pairing = settings.pairing
    return PairingRules(
        policy=pairing.policy,
        window=timedelta(hours=pairing.window_hours),
        wait=timedelta(minutes=pairing.wait_minutes),
    )


def scp_settings(settings: Settings) -> ScpSettings:
    """Return how the application entity listens."""
    dicom = settings.dicom
    return ScpSettings(
        ae_title=dicom.ae_title,
        host=dicom.host,
        port=dicom.port,
        require_called_ae_title=dicom.require_called_ae_title,
        allowed_ae_titles=dicom.allowed_ae_titles,
        allowed_addresses=dicom.allowed_addresses,
        maximum_associations=dicom.maximum_associations,
        network_timeout_s=dicom.network_timeout_s,
        receiver_processes=dicom.receiver_processes,
        tls=TlsSettings(**dicom.tls.model_dump()) if dicom.tls else None,
    )


def requeue_run(ledger: Ledger, engine: Engine, run_id: str) -> str:
    """Deliver again what was refused or is missing; else read the study again."""
    refused = [d for d in ledger.deliveries_of(run_id) if d.state == DeliveryState.FAILED]
    if refused:
        ledger.requeue(run_id=run_id)
        ledger.set_run_state(run_id, RunState.DELIVERING)
        token = f"q{int(utc_now().timestamp() * 1000)}"
        priority = ledger.run(run_id).priority
        for destination in sorted({d.destination for d in refused}):
            engine.submit_delivery(run_id, destination, token=token, priority=priority)
        return f"{len(refused)} results are on their way again"
    attempt = ledger.begin_attempt(run_id)
    engine.submit(run_id, attempt=attempt)
    return f"the study is read again (attempt {attempt})"
