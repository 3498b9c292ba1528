"""Adapter: the composition root. Settings in, a running node out; nothing else constructs adapters."""

from __future__ import annotations

import os
import secrets
import threading
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
import uvicorn

from dicom_node.clock import utc_now
from dicom_node.completeness import CompletenessPolicy
from dicom_node.intake import Intake
from dicom_node.ledger import DeliveryState, Ledger, RunState
from dicom_node.routing import RulesError, RuleSet, default_rules, parse_rules
from dicom_node.scp import CommitmentPeer, ScpSettings, StorageScp
from dicom_node.storage import InstanceStore
from dicom_node.study import StudyKey, derive_study_key
from dicom_node.tls import TlsSettings
from inference.packages import Catalogue, ModelPackage, discover
from inference.runner import Runner
from integration.api import build_api
from integration.assembler import Assembler, CompletenessPolicies
from integration.commitment import CommitmentReport, record_commitment
from integration.delivery import Destination
from integration.destinations import CStoreSettings, build_destination
from integration.observability import Metrics, adopt_library_loggers
from integration.pacs import expected_instances
from integration.pipeline import Models, Pipeline
from integration.recovery import Recovery, RecoverySettings
from integration.settings import Settings, SettingsError
from integration.stow_service import StowService
from integration.workflow import DELIVERY_QUEUE, READ_QUEUE, RUN_QUEUE, Engine
from reporting.context import ResultProfile, SegmentationForm
from reporting.uids import derive_uid

_SITE_KEY_BYTES: Final = 32
_RECONCILE_EVERY_S: Final = 60.0
_MEGABYTE: Final = 1 << 20
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

    Raises
    ------
    SettingsError
        If a folder, a rule file or a model package is unusable.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.site_key = load_site_key(settings.data_dir)
        self.ledger = Ledger.connect(settings.ledger_url)
        self.ledger.migrate()
        self.store = open_store(settings)
        self.intake = Intake(self.store, self.ledger, utc_now)
        self.catalogue = discover(settings.models_dir)
        self.rules = read_rules(settings.rules_file)
        self.progress: dict[str, dict[str, tuple[int, int]]] = {}
        self.pipeline = self._build_pipeline()
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
            models=Models(packages=usable_models(self.catalogue), runner=Runner()),
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
        )

    def _note_progress(self, run_id: str, model: str, done: int, total: int) -> None:
        self.progress.setdefault(run_id, {})[model] = (done, total)
        if done >= total:
            self.progress.pop(run_id, None)

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
        self._http = HttpServer(self)
        self._http.start()
        log.info("node_started", ae_title=self.settings.dicom.ae_title, host=self.settings.dicom.host, port=self.dicom_port)

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
        )
        self._assembler.start()

    def stop(self) -> None:
        """Stop taking studies, then stop working; what is in progress resumes at the next start."""
        for part in (self._scp, self._http, self._assembler, self._recovery):
            if part is not None:
                part.stop()
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

    def _ask_expected(self, source_ae: str, study_uid: str) -> int | None:
        source = next((s for s in self.settings.sources if s.ae_title == source_ae), None)
        return expected_instances(source, study_uid) if source else None

    def _note_commitment(
        self, transaction_uid: str, committed: tuple[str, ...], failed: tuple[tuple[str, int], ...]
    ) -> None:
        report = CommitmentReport(transaction_uid=transaction_uid, committed=committed, failed=failed)
        names = [d.name for d in self.settings.effective_destinations if isinstance(d, CStoreSettings) and d.commitment]
        record_commitment(report, names, self.ledger, utc_now)


class HttpServer:
    """The HTTP interface in a thread of its own."""

    def __init__(self, node: Node) -> None:
        settings = node.settings.http
        stow = StowService(
            intake=node.intake,
            ledger=node.ledger,
            metrics=node.metrics,
            clock=utc_now,
            maximum_instance_bytes=settings.maximum_instance_mb * _MEGABYTE,
        )
        api = build_api(
            ledger=node.ledger,
            stow=stow,
            site_key=node.site_key,
            metrics=node.metrics,
            clock=utc_now,
            requeue=node.requeue,
            wake=node.wake,
            is_ready=node.is_ready,
            token=settings.token.get_secret_value() if settings.token else None,
            progress=node.progress,
            version=software_version(),
        )
        self._server = uvicorn.Server(
            uvicorn.Config(api, host=settings.host, port=settings.port, access_log=False, log_config=None)
        )
        self._thread = threading.Thread(target=self._server.run, name="preread-http", daemon=True)

    def start(self) -> None:
        """Listen; return when requests are answered.

        Raises
        ------
        SettingsError
            If the port is taken.
        """
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise SettingsError("http.port cannot be listened on: another program has it; choose another one.")
            self._thread.join(timeout=0.02)

    def stop(self) -> None:
        """Answer what is in progress, then stop."""
        self._server.should_exit = True
        self._thread.join(timeout=10)

    @property
    def port(self) -> int:
        """The TCP port in use."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])


def load_site_key(data_dir: Path) -> bytes:
    """Return the site's secret for study keys, made on the first start.

    Raises
    ------
    SettingsError
        If the data folder cannot be written.
    """
    path = data_dir / "site.key"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = data_dir / f".site.key.{uuid.uuid4().hex}"
        if not path.exists():
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_SITE_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # the first of several processes wins
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        return path.read_bytes()
    except OSError as exc:
        raise SettingsError(f"data_dir {data_dir} cannot be written: choose another folder or its rights.") from exc


def read_rules(rules_file: Path | None) -> RuleSet:
    """Return the routing rules of a site, or the built-in ones.

    Raises
    ------
    RulesError
        If the file cannot be read, or names what is wrong in it.
    """
    if rules_file is None:
        return default_rules()
    try:
        text = rules_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RulesError(f"The rules file {rules_file} cannot be read: check rules_file.") from exc
    return parse_rules(text)


def open_store(settings: Settings) -> InstanceStore:
    """Return the instance store of a site."""
    return InstanceStore(
        settings.data_dir / "instances",
        min_free_bytes=settings.store.minimum_free_mb * _MEGABYTE,
        min_free_fraction=settings.store.minimum_free_fraction,
    )


def usable_models(catalogue: Catalogue) -> Mapping[str, ModelPackage]:
    """Return the newest usable package of each model; log those that are not usable."""
    for broken in catalogue.broken:
        log.error("model_package_unusable", reason=broken.reason)
    return catalogue.newest


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
        for destination in sorted({d.destination for d in refused}):
            engine.submit_delivery(run_id, destination, token=token)
        return f"{len(refused)} results are on their way again"
    attempt = ledger.begin_attempt(run_id)
    engine.submit(run_id, attempt=attempt)
    return f"the study is read again (attempt {attempt})"
