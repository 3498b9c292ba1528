"""Adapter: the refinement of a run's text: gathers what it may rest on, asks the model, keeps the record.

It never fails a run. Whatever goes wrong with a language model, the draft stands, and
the record says why.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from threading import Event

import structlog
from pydicom.dataset import Dataset

import reporting.checker
from dicom_node.errors import TransientError
from inference.findings import Analysis
from integration.observability import Metrics
from reporting.checker import Fault, check_sentences
from reporting.facts import collect_facts
from reporting.projection import read_views
from reporting.recommendations import allow_recommendations
from reporting.refine.answer import CitedSentence
from reporting.refine.asking import Checker
from reporting.refine.examination import name_examination
from reporting.refine.port import LanguageModel
from reporting.refine.prompt import Ground
from reporting.refine.record import Budget, Reason, Refinement
from reporting.refine.refinement import refine_report
from reporting.text import ReportText

log = structlog.get_logger(__name__)


class FactChecker:
    """The checker, as the refinement asks for it.

    Attributes
    ----------
    version : str
        Start of the SHA-256 over the checker's code and lexicon: other rules, another version.
    """

    def __init__(self) -> None:
        files = sorted(
            (file for file in resources.files(reporting.checker).iterdir() if file.is_file()),
            key=lambda file: file.name,
        )
        self.version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]

    def check(self, sentences: Sequence[CitedSentence], ground: Ground) -> tuple[Fault, ...]:
        """Return everything that is wrong with sentences (`reporting.checker.check_sentences`)."""
        return check_sentences(sentences, ground)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageSide:
    """What words reports in this process.

    Attributes
    ----------
    model : LanguageModel or None
        None where the site has none: drafts go out.
    checker : Checker
        What every wording must pass.
    budget : Budget
        What one report may cost.
    stopping : threading.Event
        Set when the process ends: a generation in progress is given up, and its step runs again.
    """

    model: LanguageModel | None = None
    checker: Checker = field(default_factory=FactChecker)
    budget: Budget = field(default_factory=Budget)
    stopping: Event = field(default_factory=Event)


def gather_ground(
    analyses: Sequence[Analysis],
    sources: Mapping[str, Sequence[Dataset]],
    *,
    clinical: Sequence[str] = (),
    crude: Sequence[str] = (),
) -> Ground:
    """Return all that a run's text may rest on; of the headers, views and modalities alone.

    Parameters
    ----------
    sources : mapping
        Headers of the series that were read, by Series Instance UID.
    clinical : sequence of str
        Sentences of the closed vocabulary (`reporting.clinical.ClinicalInformation.for_prompt`).
    crude : sequence of str
        Sentences that a network worded from the image.
    """
    facts = collect_facts(analyses, read_views(sources))
    modalities = [str(headers[0].get("Modality") or "") for headers in sources.values() if headers]
    return Ground(
        facts=facts,
        examination=name_examination(modalities, {fact.site for fact in facts.facts}),
        clinical=tuple(clinical),
        crude=tuple(crude),
        recommendations=allow_recommendations(facts),
    )


def refine_run(
    run_id: str,
    draft: ReportText,
    ground: Ground,
    *,
    language: LanguageSide,
    metrics: Metrics,
    clock: Callable[[], float] = time.monotonic,
) -> Refinement:
    """Return the text that stands for a run, and count what it took.

    Raises
    ------
    TransientError
        If the process is ending: the step runs again at the next start.
    """
    refinement = refine_report(
        draft,
        ground,
        language.model,
        checker=language.checker,
        budget=language.budget,
        clock=clock,
        cancel=language.stopping,
    )
    record = refinement.record
    if record.reason is Reason.CANCELLED and language.stopping.is_set():
        raise TransientError("The node is stopping: the text is refined after the next start.")
    metrics.refinements.labels(str(record.standing), str(record.reason)).inc()
    if record.attempts:
        metrics.refine_seconds.observe(record.seconds)
        metrics.refine_tokens.labels("prompt").inc(record.prompt_tokens)
        metrics.refine_tokens.labels("completion").inc(record.completion_tokens)
    log.info(
        "text_refined",
        run_id=run_id,
        model=record.model,
        state=str(record.standing),
        reason=str(record.reason),
        attempt=record.attempts,
    )
    return refinement
