"""Adapter: chooses and builds the language model that the settings ask for."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

from integration.llm import EndpointModel
from integration.refining import LanguageSide
from integration.settings import LanguageSection, Settings
from reporting.language.embedded import EmbeddedModel
from reporting.language.local import LocalModel
from reporting.language.weights import find_default_model
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
    model = build_model(section, settings.data_dir / MERGED_FOLDER)
    if model is not None:
        log.info("language_model_chosen", model=model.identity)
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
    if section.endpoint is not None and section.backend == "endpoint":
        EndpointModel(section.endpoint, section.model).look()
    model = build_model(section, settings.data_dir / MERGED_FOLDER)
    assert model is not None
    answer = model.complete(_PROBE)
    return f"{model.identity} answers in {answer.seconds:.1f} s"


def build_model(section: LanguageSection, cache: Path) -> LanguageModel | None:
    """Return the language model of the settings, or None where drafts stand.

    Parameters
    ----------
    cache : Path
        Folder of models with their adapter merged in.

    Raises
    ------
    MissingLanguageModelError
        If the default model is asked for and not installed.
    """
    device = section.device
    match section.backend:
        case "none":
            return None
        case "embedded":
            return EmbeddedModel(
                Path(section.model) if section.model else find_default_model(),
                cache=cache,
                adapter=section.adapter,
                device="CPU" if device == "auto" else device,
                threads=section.threads,
            )
        case "local":
            return LocalModel(
                Path(section.model) if section.model else find_default_model(),
                adapter=section.adapter,
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
