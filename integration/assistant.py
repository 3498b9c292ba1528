"""Adapter: the assistant's ports over the ledger, run folders and models of this node, and its audit trail.

What is asked and answered goes to the ledger and to no log. Conversations and readings on
request lie in the run's folder, so that they go when the run goes; nothing of the run
itself is changed and nothing is delivered.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog

from dicom_node.clock import Clock, utc_now
from dicom_node.errors import PermanentError, PrereadError, TransientError
from dicom_node.ledger import AssistantExchange, Ledger, RunRow, RunState
from dicom_node.study import Study
from inference.analysis_files import load_analysis, load_outcome, save_outcome
from inference.findings import Analysis, Box, Heatmap, Outcome
from inference.packages import ModelPackage
from integration.library import build_site_graph, open_site_library
from integration.observability import describe_error
from integration.pipeline import Pipeline
from integration.priors import load_comparisons
from integration.run_folder import RunFolder
from integration.settings import Settings
from reporting.assistant.answer import Outcome as QuestionOutcome
from reporting.assistant.exchange import AssistantCancelledError, AssistantEvent, Exchange, Planner
from reporting.assistant.graph import Assistant, AssistantLimits
from reporting.assistant.identifiers import Identifiers
from reporting.assistant.question import Question, clean_question
from reporting.assistant.record import (
    AsideReading,
    AsideState,
    InstalledModel,
    LookedAt,
    Relation,
    SeriesLine,
    StudyRecord,
)
from reporting.assistant.tools import ToolPorts
from reporting.comparison import Comparison
from reporting.language.knowledge_graph import KnowledgeGraph as PhenotypeGraph
from reporting.language.knowledge_graph import NodeKind
from reporting.language.knowledge_graph import Relation as GraphRelation
from reporting.language.library import Library as TextLibrary
from reporting.language.passages import Passage
from reporting.projection import Views, locate, read_views
from reporting.refine.port import LanguageModel

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver

#: Folder, within a run's, of what the assistant keeps.
FOLDER: Final = "assistant"
_CONVERSATIONS: Final = "conversations.db"
_BUSY_TIMEOUT_S: Final = 30.0
#: Part of its peak from which a heat map's value belongs to the strongest region.
_STRONG: Final = 0.5
_LOOK_EVERY_S: Final = 0.2
#: Runs whose record is kept between questions; making one reads every header.
_KEPT_RECORDS: Final = 16
#: Conversations that share a lock wait for each other; one conversation never runs twice at once.
_CONVERSATION_LOCKS: Final = 64
#: Diseases, phenotypes and passages, of each so many.
_RELATIONS: Final = 3
_PASSAGES_LOOKED_AT: Final = 30
#: Edges from a finding to a passage: through a sign and a disease at the most; what is farther off is chance.
_LONGEST_WAY: Final = 3
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

log = structlog.get_logger(__name__)

ReadAside = Callable[[str, str, str | None], Outcome]
"""Run id, model (``name@version``) and Series Instance UID or None to what the model says."""


class RunNotReadError(TransientError):
    """The models have not read the run's study yet: ask when it is read."""


class NoReadingError(PermanentError):
    """No model could read the run's study, so there is nothing to ask about; the run says why."""


# -- what the assistant knows of a run ----------------------------------------------------------


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


# -- earlier studies ----------------------------------------------------------------------------


class KeptComparisons:
    """What the run was compared with when its report was drafted: the same that the report says."""

    def __init__(self, folder_of: Callable[[str], RunFolder]) -> None:
        self._folder_of = folder_of

    def comparisons_of(self, run_id: str) -> Sequence[Comparison]:
        """Return the comparisons, the latest study first."""
        return load_comparisons(self._folder_of(run_id))


# -- sources ------------------------------------------------------------------------------------


class SiteSources:
    """The site's library and knowledge graph as the assistant asks them; opened at the first question.

    Parameters
    ----------
    settings : Settings
        Say where they are, and whether questions may search them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._library: TextLibrary | None = None
        self._graph: tuple[int, PhenotypeGraph] | None = None

    def search(self, query: str, limit: int) -> Sequence[Passage]:
        """Return the passages of the library that fit best."""
        return self._open_library().search(query, limit)

    def related(self, concepts: Sequence[str]) -> Sequence[Relation]:
        """Return diseases, phenotypes and passages near to findings, with the way that leads there."""
        graph = self._open_graph()
        ontology = f"Human Phenotype Ontology, release {graph.release}"
        named = [
            Relation(text=_word_relation(one), source=ontology)
            for one in graph.related(concepts, _RELATIONS, (NodeKind.DISEASE, NodeKind.PHENOTYPE))
        ]
        passages = {passage.passage_id: passage for passage in self._open_library().passages()}
        near = [
            (_word_relation(one), passages[one.key])
            for one in graph.related(concepts, _PASSAGES_LOOKED_AT, (NodeKind.PASSAGE,))
            if len(one.path) <= _LONGEST_WAY and one.key in passages
        ]
        texts = [
            Relation(text=words, source=f"{passage.title}, {passage.source}", licence=passage.licence)
            for words, passage in near[:_RELATIONS]
        ]
        return (*named, *texts)

    def _open_library(self) -> TextLibrary:
        with self._lock:
            if self._library is None:
                self._library = open_site_library(self._settings)
            return self._library

    def _open_graph(self) -> PhenotypeGraph:
        """Return the graph of the library as it is now: texts may have come or gone since it was built."""
        library = self._open_library()
        with self._lock:
            version = library.version
            if self._graph is None or self._graph[0] != version:
                self._graph = (version, build_site_graph(self._settings, library))
            return self._graph[1]


def _word_relation(one: GraphRelation) -> str:
    return f"{one.name} ({one.kind.value}): {'; '.join(one.path)}"


# -- readings on request ------------------------------------------------------------------------


class AsideReader:
    """Runs models on request, one at a time, and keeps what they say beside the run.

    Parameters
    ----------
    read : callable
        Reads a run's study with a model; changes nothing of the run.
    wait_s : float
        Seconds that an answer waits for a reading; it goes on behind it.
    longest_queue : int
        Readings that may wait; more are refused.
    """

    def __init__(
        self, *, folder_of: Callable[[str], RunFolder], read: ReadAside, wait_s: float, longest_queue: int
    ) -> None:
        self._folder_of = folder_of
        self._read = read
        self._wait_s = wait_s
        self._longest_queue = longest_queue
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preread-aside")
        self._lock = threading.Lock()
        self._underway: dict[str, Future[Analysis]] = {}

    def read_aside(self, run_id: str, reference: str, series: int | None, cancel: Event) -> AsideReading:
        """Let a model read the run's study, or one series of it; wait a bounded time.

        A reading that was made before is not made again.
        """
        folder = self._folder_of(run_id)
        name = reference if series is None else f"{reference}-series-{series}"
        kept = folder.path / FOLDER / name
        try:
            if (found := next(iter(sorted(kept.glob("analysis-*.json"))), None)) is not None:
                return AsideReading(state=AsideState.DONE, reference=reference, analysis=load_analysis(found))
            future = self._submit(f"{run_id}/{name}", run_id, reference, series)
            if future is None:
                reason = "Too many readings were asked for: ask again later."
                return AsideReading(state=AsideState.IMPOSSIBLE, reference=reference, reason=reason)
            analysis = self._await(future, cancel)
        except PrereadError as error:
            return AsideReading(state=AsideState.IMPOSSIBLE, reference=reference, reason=str(error))
        if analysis is None:
            return AsideReading(state=AsideState.UNDERWAY, reference=reference)
        return AsideReading(state=AsideState.DONE, reference=reference, analysis=analysis)

    def close(self) -> None:
        """Take no more readings; one that is being made is finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, name: str, run_id: str, reference: str, series: int | None) -> Future[Analysis] | None:
        with self._lock:
            self._underway = {key: one for key, one in self._underway.items() if not one.done()}
            if name in self._underway:
                return self._underway[name]
            if len(self._underway) >= self._longest_queue:
                return None
            future = self._pool.submit(self._make, run_id, reference, series)
            self._underway[name] = future
            return future

    def _make(self, run_id: str, reference: str, series: int | None) -> Analysis:
        folder = self._folder_of(run_id)
        uid = None
        if series is not None:
            found = [one for one in folder.read_study().series if one.series_number == series]
            if not found:
                raise PermanentError(f"The study has no series {series}.")
            uid = found[0].series_uid
        outcome = self._read(run_id, reference, uid)
        name = reference if series is None else f"{reference}-series-{series}"
        save_outcome(folder.path / FOLDER / name, outcome)
        log.info("study_read_on_request", run_id=run_id, model=reference)
        return outcome.analysis

    def _await(self, future: Future[Analysis], cancel: Event) -> Analysis | None:
        ends_at = time.monotonic() + self._wait_s
        while time.monotonic() < ends_at:
            try:
                return future.result(timeout=_LOOK_EVERY_S)
            except FutureTimeoutError:
                if cancel.is_set():
                    raise AssistantCancelledError("The question was cancelled.") from None
        return None


# -- memory -------------------------------------------------------------------------------------


def run_memory(folder_of: Callable[[str], RunFolder]) -> Callable[[str], Any]:
    """Return what opens the memory of a run's conversations: a SQLite file in the run's folder."""

    @contextmanager
    def open_memory(run_id: str) -> Iterator[SqliteSaver]:
        from langgraph.checkpoint.sqlite import SqliteSaver

        path = folder_of(run_id).path / FOLDER / _CONVERSATIONS
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)) as database:
            yield SqliteSaver(database)

    return open_memory


# -- the service --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A question that was taken: about a run that can be asked about, by a known person.

    ``exchange_id`` names its row of the audit trail.
    """

    exchange_id: str
    question: Question
    record: StudyRecord
    row: RunRow
    asked_by: str


class AssistantService:
    """Takes questions, lets the assistant answer them, and keeps the audit trail."""

    def __init__(
        self,
        *,
        assistant: Assistant,
        records: RunRecords,
        ledger: Ledger,
        clock: Clock,
        aside: AsideReader | None = None,
    ) -> None:
        self._aside = aside
        self._assistant = assistant
        self._records = records
        self._ledger = ledger
        self._clock = clock
        self._conversations = tuple(threading.Lock() for _ in range(_CONVERSATION_LOCKS))

    def take(self, question: Question, asked_by: str) -> Inquiry:
        """Check that a question can be worked on; it is not answered yet.

        Raises
        ------
        UnknownRunError, RunNotReadError, NoReadingError, UnusableQuestionError
        """
        row = self._ledger.run(question.run_id)
        record = self._records.record(question.run_id)
        clean_question(question.text, record.identifiers, self._assistant.limits.question_characters)
        return Inquiry(
            exchange_id=uuid.uuid4().hex, question=question, record=record, row=row, asked_by=asked_by
        )

    def answer(self, inquiry: Inquiry, emit: Callable[[AssistantEvent], None], cancel: Event) -> Exchange:
        """Answer a question; whatever becomes of it is in the audit trail before this returns.

        Raises
        ------
        PrereadError
            If there is no answer.
        """
        began, asked_at = time.monotonic(), self._clock()
        try:
            with self._conversation(inquiry.question):
                exchange = self._assistant.ask(inquiry.question, inquiry.record, emit, cancel)
        except BaseException as error:
            is_cancelled = cancel.is_set()
            outcome = QuestionOutcome.CANCELLED if is_cancelled else QuestionOutcome.FAILED
            seconds = time.monotonic() - began
            row = _row_of(inquiry, asked_at, outcome.value, verdict=describe_error(error), seconds=seconds)
            self._ledger.record_exchange(row)
            log.warning("question_unanswered", run_id=inquiry.question.run_id, error=describe_error(error))
            raise
        self._ledger.record_exchange(_row_of_exchange(inquiry, asked_at, exchange))
        log.info(
            "question_answered",
            run_id=inquiry.question.run_id,
            state=exchange.answer.outcome.value,
            step=exchange.intent,
            count=len(exchange.calls),
        )
        return exchange

    def close(self) -> None:
        """Take no more readings on request."""
        if self._aside is not None:
            self._aside.close()

    @contextmanager
    def _conversation(self, question: Question) -> Iterator[None]:
        """Let the questions of one conversation follow each other."""
        number = hash((question.run_id, question.conversation)) % _CONVERSATION_LOCKS
        with self._conversations[number]:
            yield


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _row_of(inquiry: Inquiry, asked_at: Any, outcome: str, **values: Any) -> AssistantExchange:
    return AssistantExchange(
        exchange_id=inquiry.exchange_id,
        run_id=inquiry.question.run_id,
        study_key=inquiry.row.run.study_key,
        conversation=inquiry.question.conversation,
        asked_at=asked_at,
        asked_by=inquiry.asked_by,
        question=inquiry.question.text,
        question_sha256=digest_text(inquiry.question.text),
        outcome=outcome,
        **values,
    )


def _row_of_exchange(inquiry: Inquiry, asked_at: Any, exchange: Exchange) -> AssistantExchange:
    answer = exchange.answer
    return _row_of(
        inquiry,
        asked_at,
        answer.outcome.value,
        refusal=answer.refusal.value if answer.refusal else "",
        intent=exchange.intent,
        planner=exchange.planner.value,
        tools=tuple(
            {
                "tool": one.call.tool.value,
                "arguments": dict(one.call.arguments),
                "result_sha256": one.result_sha256,
                "evidence": one.evidence,
                "seconds": round(one.seconds, 3),
            }
            for one in exchange.calls
        ),
        answer=answer.plain,
        answer_sha256=digest_text(answer.plain),
        citations=tuple(
            {
                "id": one.citation_id,
                "kind": one.kind.value,
                "finding_ids": list(one.finding_ids),
                "source": one.source,
                "licence": one.licence,
            }
            for one in answer.citations
        ),
        language_model=exchange.language_model,
        verdict=exchange.verdict,
        seconds=exchange.seconds,
    )


def build_assistant(
    settings: Settings,
    ledger: Ledger,
    pipeline: Pipeline,
    *,
    language_model: LanguageModel | None = None,
    clock: Clock = utc_now,
) -> AssistantService:
    """Return the assistant of a site.

    Parameters
    ----------
    language_model : LanguageModel or None
        What words answers; the assistant does without.
    """
    wanted = settings.assistant
    sources = SiteSources(settings) if settings.library.enabled else None
    aside = AsideReader(
        folder_of=pipeline.folder,
        read=pipeline.read_aside,
        wait_s=wanted.model_wait_s,
        longest_queue=wanted.model_queue,
    )
    assistant = Assistant(
        ports=ToolPorts(
            priors=KeptComparisons(pipeline.folder),
            library=sources,
            graph=sources,
            runner=aside if wanted.is_model_run_allowed else None,
        ),
        memory=run_memory(pipeline.folder),
        language_model=language_model,
        planner=Planner(wanted.planner),
        limits=AssistantLimits(
            question_characters=wanted.question_characters,
            timeout_s=wanted.timeout_s,
            wording_timeout_s=wanted.wording_timeout_s,
            history_turns=wanted.history_turns,
            is_worded=wanted.is_worded,
        ),
    )
    records = RunRecords(
        ledger=ledger,
        folder_of=pipeline.folder,
        views_of=lambda run_id: read_views(pipeline.sources(run_id)),
        packages=pipeline.packages,
    )
    return AssistantService(assistant=assistant, records=records, ledger=ledger, clock=clock, aside=aside)
