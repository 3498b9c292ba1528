"""Adapter: chooses and builds the language model that the settings ask for."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import structlog

from integration.llm import EndpointModel
from integration.refining import LanguageSide
from integration.settings import LanguageSection, Settings
from reporting.language.adapters import find_adapter
from reporting.language.embedded import EmbeddedModel
from reporting.language.local import LocalModel
from reporting.language.weights import INSTALL, MissingLanguageModelError, find_default_model
from reporting.refine.breaker import BreakingModel
from reporting.refine.port import CompletionRequest, LanguageModel
from reporting.refine.record import Budget

#: Folder, below data_dir, of models with their adapter merged in.
MERGED_FOLDER = "language"
#: What the doctor asks: any answer will do.
_PROBE = CompletionRequest(
    system="You word radiology reports.", user="Say: ready.", max_tokens=8, timeout_s=120.0
)

log = structlog.get_logger(__name__)


def build_language(settings: Settings) -> LanguageSide:
    """Return what words reports in this process; its weights are loaded when they are needed.

    Raises
    ------
    MissingLanguageModelError
        If the model that is asked for is not there.
    """
    section = settings.language
    model = build_model(section, settings.data_dir / MERGED_FOLDER, settings.models_dir)
    if model is not None:
        log.info("language_model_chosen", model=model.identity)
    elif section.backend == "auto":
        log.info("no_language_model", reason=explain_absence(settings.models_dir))
    return LanguageSide(
        model=model,
        budget=Budget(seconds=section.budget_s, tokens=section.budget_tokens, attempts=section.attempts),
    )


def look_at_language(settings: Settings) -> str:
    """Return how the language model of the settings is, in words, after it has answered something.

    Raises
    ------
    PrereadError
        If it does not answer; the message says what to do.
    """
    section = settings.language
    if section.backend == "none":
        return "none: drafts go out"
    if section.backend == "auto" and (reason := explain_absence(settings.models_dir)):
        return f"none: drafts go out ({reason})"
    if section.endpoint is not None and section.backend == "endpoint":
        EndpointModel(section.endpoint, section.model).look()
    model = build_model(section, settings.data_dir / MERGED_FOLDER, settings.models_dir)
    assert model is not None
    answer = model.complete(_PROBE)
    return f"{model.identity} answers in {answer.seconds:.1f} s"


def explain_absence(models_dir: Path | None) -> str:
    """Return what the embedded model lacks to be taken by itself; empty if it is all there.

    Without its adapter the model words no report that passes the checker, so that it is not worth its time.
    """
    if importlib.util.find_spec("openvino_genai") is None:
        return f"openvino-genai is not installed: {INSTALL}"
    try:
        default = find_default_model()
    except MissingLanguageModelError as error:
        return str(error).removesuffix(".")
    if models_dir is None or find_adapter(models_dir, default) is None:
        return "the adapter of the embedded model is not in the models folder"
    return ""


def build_model(
    section: LanguageSection, cache: Path, models_dir: Path | None = None
) -> LanguageModel | None:
    """Return the language model of the settings, or None where drafts stand.

    Parameters
    ----------
    cache : Path
        Folder of models with their adapter merged in.
    models_dir : Path or None
        Where the adapter of the default model is looked for, if the settings name neither model nor adapter.

    Raises
    ------
    MissingLanguageModelError
        If the default model is asked for and not installed.
    AdapterError
        If the adapter's files are not those that its card names.
    """
    device = section.device
    match section.backend:
        case "none":
            return None
        case "auto" if explain_absence(models_dir):
            return None
        case "auto" | "embedded":
            weights, adapter = _choose_weights(section, models_dir)
            return EmbeddedModel(
                weights,
                cache=cache,
                adapter=adapter,
                device="CPU" if device == "auto" else device,
                threads=section.threads,
            )
        case "local":
            weights, adapter = _choose_weights(section, models_dir)
            return LocalModel(
                weights,
                adapter=adapter,
                device=device,
            )
        case "endpoint":
            assert section.endpoint is not None
            endpoint = EndpointModel(section.endpoint, section.model)
            return BreakingModel(
                endpoint,
                failures=section.failures_before_rest,
                rest_s=section.rest_s,
                clock=time.monotonic,
            )


def _choose_weights(section: LanguageSection, models_dir: Path | None) -> tuple[Path, Path | None]:
    """Return model and adapter: those of the settings, else the default model with the one made for it."""
    if section.model:
        return Path(section.model), section.adapter
    default = find_default_model()
    if section.adapter is not None or models_dir is None:
        return default, section.adapter
    return default, find_adapter(models_dir, default)
