"""Adapter: talks to LangGraph: admit, plan, act, word, check, as a graph whose memory is a checkpoint.

The graph's state is plain JSON, so that a conversation can be read back by another
version; what the person typed is in it without identifiers only. Tools, language model
and cancellation travel beside the state, never in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from pydantic import TypeAdapter

from dicom_node.errors import PermanentError, PrereadError
from reporting.assistant.answer import (
    Answer,
    AnswerSentence,
    compose_answer,
    finish,
    gather,
    refuse,
)
from reporting.assistant.answer import (
    state as state_evidence,
)
from reporting.assistant.evidence import STATED, Evidence, EvidenceKind, ToolCall, ToolResult
from reporting.assistant.exchange import (
    AssistantCancelledError,
    AssistantEvent,
    AssistantTimeoutError,
    CalledTool,
    EventKind,
    Exchange,
    Planner,
)
from reporting.assistant.grounding import check_findings, find_fault
from reporting.assistant.intents import Intent, Plan, Turn, plan_by_rule
from reporting.assistant.question import Question, Refusal, clean_question, find_refusal
from reporting.assistant.record import StudyRecord
from reporting.assistant.tools import ToolPorts, call_tool
from reporting.assistant.wording import ask_for_answer, ask_for_plan, read_answer, read_plan
from reporting.facts import Facts, collect_facts
from reporting.refine.answer import UnusableAnswerError
from reporting.refine.port import LanguageModel, LanguageModelError
from reporting.text import Author

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.types import StreamMode

#: Opens the memory of a run's conversations.
Memory = Callable[[str], "AbstractContextManager[BaseCheckpointSaver[str]]"]
Emit = Callable[[AssistantEvent], None]

_TURNS: Final = TypeAdapter(tuple[Turn, ...])
_PLAN: Final = TypeAdapter(Plan)
_RESULTS: Final = TypeAdapter(tuple[ToolResult, ...])
_SENTENCES: Final = TypeAdapter(tuple[AnswerSentence, ...])
_RULES_STAND: Final = "The composed answer stands: "


class LangGraphMissingError(PermanentError):
    """LangGraph is not installed: `pip install preread[language]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantLimits:
    """What one question may cost.

    Attributes
    ----------
    question_characters : int
        Longest question.
    timeout_s : float
        Seconds for a whole answer.
    wording_timeout_s : float
        Seconds for each request to the language model; then rules go on.
    history_turns : int
        Earlier questions that a conversation remembers.
    is_worded : bool
        Whether the language model, if there is one, words answers.
    """

    question_characters: int = 500
    timeout_s: float = 120.0
    wording_timeout_s: float = 30.0
    history_turns: int = 6
    is_worded: bool = True


class _State(TypedDict, total=False):
    """The state of the graph, all JSON; ``history`` is what outlives a question."""

    history: list[dict[str, Any]]
    asked: str
    refusal: str
    planner: str
    plan: dict[str, Any]
    results: list[dict[str, Any]]
    composed: list[dict[str, Any]]
    worded: list[dict[str, Any]]
    author: str
    verdict: str


@dataclass(slots=True, kw_only=True)
class _Session:
    """What one question needs beside the graph's state."""

    question: Question
    record: StudyRecord
    cancel: Event
    ends_at: float
    facts: Facts
    called: list[CalledTool] = field(default_factory=list)
    took_part: bool = False

    def remaining_s(self) -> float:
        """Return the seconds that are left.

        Raises
        ------
        AssistantCancelledError, AssistantTimeoutError
        """
        if self.cancel.is_set():
            raise AssistantCancelledError("The question was cancelled.")
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise AssistantTimeoutError("The assistant did not finish in time: ask again, or ask for less.")
        return left


class Assistant:
    """Answers questions about a run from the node's own tools.

    Parameters
    ----------
    ports : ToolPorts
        What the tools ask.
    memory : callable
        Run id to the memory of its conversations.
    language_model : LanguageModel or None
        Chooses tools and words answers; without one, rules do both.
    planner : Planner
        Who chooses the tools where there is a language model.
    """

    def __init__(
        self,
        *,
        ports: ToolPorts,
        memory: Memory,
        language_model: LanguageModel | None = None,
        planner: Planner = Planner.RULES,
        limits: AssistantLimits | None = None,
    ) -> None:
        self._ports = ports
        self._memory = memory
        self._model = language_model
        self._planner = planner if language_model is not None else Planner.RULES
        self.limits = limits or AssistantLimits()

    def ask(
        self, question: Question, record: StudyRecord, emit: Emit, cancel: Event | None = None
    ) -> Exchange:
        """Answer one question.

        Parameters
        ----------
        question : Question
            What was asked.
        record : StudyRecord
            The run it is about.
        emit : callable
            Takes each event as it happens; the last one is `EventKind.FINAL`.
        cancel : threading.Event or None
            Ends the work when it is set.

        Raises
        ------
        UnusableQuestionError
            If the question is empty or too long.
        AssistantTimeoutError, AssistantCancelledError
            If there is no answer.
        LangGraphMissingError
            If LangGraph is not installed.
        """
        began = time.monotonic()
        asked = clean_question(question.text, record.identifiers, self.limits.question_characters)
        session = _Session(
            question=question,
            record=record,
            cancel=cancel or Event(),
            ends_at=began + self.limits.timeout_s,
            facts=collect_facts(record.analyses, record.views),
        )
        state = self._run(session, asked, emit)
        answer = _read_out(state)
        _stream(answer, emit)
        plan = _PLAN.validate_python(state.get("plan") or {"intent": None})
        return Exchange(
            asked=asked,
            answer=answer,
            intent=plan.intent.value if plan.intent else "",
            planner=Planner(state.get("planner", Planner.RULES)),
            calls=tuple(session.called),
            language_model=self._model.identity if self._model and session.took_part else "",
            verdict=state.get("verdict", ""),
            seconds=time.monotonic() - began,
        )

    # -- the graph ----------------------------------------------------------------------------

    def _run(self, session: _Session, asked: str, emit: Emit) -> _State:
        """Run the graph on one question; a conversation's state is read and kept by its memory."""
        try:
            from langgraph.graph import END, START, StateGraph
            from langsmith import tracing_context
        except ImportError as exc:
            raise LangGraphMissingError(
                "The assistant needs LangGraph: `pip install preread[language]`."
            ) from exc
        steps = _Steps(self, session)
        graph = StateGraph(_State)
        for name, step in (
            ("admit", steps.admit),
            ("plan", steps.plan),
            ("act", steps.act),
            ("word", steps.word),
            ("check", steps.check),
            ("remember", steps.remember),
        ):
            graph.add_node(name, step)
        graph.add_edge(START, "admit")
        graph.add_conditional_edges("admit", steps.after_admission, ["plan", "remember"])
        graph.add_conditional_edges("plan", steps.after_plan, ["act", "remember"])
        graph.add_conditional_edges("act", steps.after_act, ["plan", "word"])
        graph.add_edge("word", "check")
        graph.add_edge("check", "remember")
        graph.add_edge("remember", END)
        fresh: _State = {
            "asked": asked,
            "refusal": "",
            "planner": self._planner.value,
            "plan": {},
            "results": [],
            "composed": [],
            "worded": [],
            "author": Author.RULES.value,
            "verdict": "",
        }
        final: _State = {}
        # Tracing would send questions to a service outside: off, whatever the environment says.
        with tracing_context(enabled=False), self._memory(session.question.run_id) as memory:
            compiled = graph.compile(checkpointer=memory)
            modes: list[StreamMode] = ["custom", "values"]
            thread: RunnableConfig = {"configurable": {"thread_id": session.question.conversation}}
            for mode, part in compiled.stream(fresh, thread, stream_mode=modes, durability="exit"):
                if mode == "custom":
                    emit(cast("AssistantEvent", part))
                else:
                    final = cast("_State", part)
        return final

    def propose_plan(self, session: _Session, asked: str, history: Sequence[Turn]) -> Plan | None:
        """Return the language model's plan; None if it gave none that can be used."""
        assert self._model is not None
        timeout_s = min(self.limits.wording_timeout_s, session.remaining_s())
        request = ask_for_plan(asked, history, session.record, timeout_s)
        session.took_part = True
        try:
            text = self._model.complete(request, session.cancel).text
            return read_plan(text, asked, session.record)
        except (LanguageModelError, UnusableAnswerError):
            return None

    def propose_wording(
        self, session: _Session, asked: str, evidence: Sequence[Evidence]
    ) -> tuple[tuple[AnswerSentence, ...], str]:
        """Return the language model's sentences, or none and why."""
        if self._model is None or not self.limits.is_worded:
            return (), ""
        timeout_s = min(self.limits.wording_timeout_s, session.remaining_s())
        request = ask_for_answer(asked, evidence, session.facts, timeout_s)
        session.took_part = True
        try:
            text = self._model.complete(request, session.cancel).text
            return read_answer(text, evidence), ""
        except LanguageModelError:
            return (), f"{_RULES_STAND}the language model did not answer."
        except UnusableAnswerError:
            return (), f"{_RULES_STAND}the language model answered in another form than was asked for."

    def judge(
        self, session: _Session, asked: str, worded: Sequence[AnswerSentence], evidence: dict[str, Evidence]
    ) -> tuple[tuple[AnswerSentence, ...], str]:
        """Return those sentences that stand, and the verdict; none if the composed answer must stand."""
        faults = [find_fault(one, evidence, asked, session.record.identifiers) for one in worded]
        kept = tuple(one for one, fault in zip(worded, faults, strict=True) if not fault)
        if not kept:
            return (), f"{_RULES_STAND}{next(iter(faults), 'there was no sentence')}."
        wrong = check_findings(kept, evidence, session.facts)
        if wrong:
            return (), f"{_RULES_STAND}{wrong}."
        dropped = len(worded) - len(kept)
        return kept, f"{len(kept)} sentences of the language model passed the checks, {dropped} were dropped."

    def use_tool(self, call: ToolCall, session: _Session) -> ToolResult:
        """Call one tool; one that fails says so, and the others go on."""
        try:
            return call_tool(call, session.record, self._ports, session.cancel)
        except (AssistantCancelledError, AssistantTimeoutError):
            raise
        except PrereadError as error:
            remark = Evidence(
                evidence_id=f"{call.tool.value}/failed",
                kind=EvidenceKind.REMARK,
                text=f"The tool {call.tool.value} gave no answer: {error}",
            )
            return ToolResult(call=call, evidence=(remark,))


class _Steps:
    """The nodes of the graph and the edges between them, for one question."""

    def __init__(self, assistant: Assistant, session: _Session) -> None:
        self._assistant = assistant
        self._session = session

    def admit(self, state: _State) -> _State:
        """Refuse what is refused whatever the study holds."""
        self._session.remaining_s()
        refusal = find_refusal(state["asked"])
        return {"refusal": refusal.value if refusal else ""}

    def after_admission(self, state: _State) -> str:
        return "remember" if state["refusal"] else "plan"

    def plan(self, state: _State) -> _State:
        """Choose the tools: the language model if it may, else and where it fails the rules."""
        history = _TURNS.validate_python(state.get("history", []))
        plan, planner = None, Planner(state["planner"])
        if planner is Planner.LANGUAGE_MODEL and not state["results"]:
            plan = self._assistant.propose_plan(self._session, state["asked"], history)
        if plan is None:
            plan, planner = plan_by_rule(state["asked"], history), Planner.RULES
        refusal = "" if plan.intent is not None else Refusal.SUBJECT.value
        return {
            "plan": _PLAN.dump_python(plan, mode="json"),
            "planner": planner.value,
            "refusal": refusal,
        }

    def after_plan(self, state: _State) -> str:
        return "remember" if state["refusal"] else "act"

    def act(self, state: _State) -> _State:
        """Call the tools."""
        from langgraph.config import get_stream_writer

        write = get_stream_writer()
        results = []
        for call in _PLAN.validate_python(state["plan"]).calls:
            self._session.remaining_s()
            shown: dict[str, object] = {"tool": call.tool.value, "arguments": dict(call.arguments)}
            write(AssistantEvent(kind=EventKind.TOOL_STARTED, data=shown))
            began = time.monotonic()
            result = self._assistant.use_tool(call, self._session)
            seconds = time.monotonic() - began
            self._session.called.append(
                CalledTool(
                    call=call, result_sha256=result.digest, evidence=len(result.evidence), seconds=seconds
                )
            )
            data: dict[str, object] = {
                "tool": call.tool.value,
                "evidence": len(result.evidence),
                "seconds": round(seconds, 3),
            }
            write(AssistantEvent(kind=EventKind.TOOL_FINISHED, data=data))
            results.append(result)
        return {"results": _RESULTS.dump_python(tuple(results), mode="json")}

    def after_act(self, state: _State) -> str:
        """Let the rules plan once more where the language model's plan brought nothing."""
        results = _RESULTS.validate_python(state["results"])
        is_empty = all(item.kind is EvidenceKind.REMARK for result in results for item in result.evidence)
        return "plan" if is_empty and state["planner"] == Planner.LANGUAGE_MODEL.value else "word"

    def word(self, state: _State) -> _State:
        """Compose the answer by rule, and let the language model word one."""
        results = _RESULTS.validate_python(state["results"])
        composed = compose_answer(results)
        is_help = _PLAN.validate_python(state["plan"]).intent is Intent.HELP
        worded: tuple[AnswerSentence, ...] = ()
        verdict = ""
        if not is_help:
            evidence = [gather(results)[one.citations[0]] for one in composed]
            worded, verdict = self._assistant.propose_wording(self._session, state["asked"], evidence)
        return {
            "composed": _SENTENCES.dump_python(composed, mode="json"),
            "worded": _SENTENCES.dump_python(worded, mode="json"),
            "verdict": verdict,
        }

    def check(self, state: _State) -> _State:
        """Keep what stands of the language model's sentences, with what an answer must say."""
        self._session.remaining_s()
        worded = _SENTENCES.validate_python(state["worded"])
        if not worded:
            return {}
        evidence = gather(_RESULTS.validate_python(state["results"]))
        kept, verdict = self._assistant.judge(self._session, state["asked"], worded, evidence)
        if not kept:
            return {"verdict": verdict, "worded": []}
        cited = {name for sentence in kept for name in sentence.citations}
        missing = [
            state_evidence(item)
            for item in evidence.values()
            if item.evidence_id not in cited and (item.is_required or item.kind in _TOLD)
        ]
        sentences = (*kept, *missing)
        return {
            "worded": _SENTENCES.dump_python(sentences, mode="json"),
            "author": Author.LANGUAGE_MODEL.value,
            "verdict": verdict,
        }

    def remember(self, state: _State) -> _State:
        """Keep what the question was about, for the next one; a refused question is forgotten."""
        history = _TURNS.validate_python(state.get("history", []))
        if not state["refusal"]:
            plan = _PLAN.validate_python(state["plan"])
            intent = plan.intent.value if plan.intent else ""
            history = (*history, Turn(asked=state["asked"], intent=intent, concepts=plan.concepts))
        kept = history[max(0, len(history) - self._assistant.limits.history_turns) :]
        return {"history": _TURNS.dump_python(kept, mode="json")}


#: What an answer tells in full, whatever a language model leaves out of it.
_TOLD: Final = STATED | {EvidenceKind.ESTIMATE, EvidenceKind.PASSAGE, EvidenceKind.RELATION}


def _read_out(state: _State) -> Answer:
    if state["refusal"]:
        return refuse(Refusal(state["refusal"]))
    results = _RESULTS.validate_python(state["results"])
    sentences = _SENTENCES.validate_python(state["worded"] or state["composed"])
    return finish(sentences, results, Author(state["author"]))


def _stream(answer: Answer, emit: Emit) -> None:
    """Emit an answer that passed its checks: word by word, then the citations."""
    for sentence in answer.sentences:
        for word in sentence.text.split():
            emit(AssistantEvent(kind=EventKind.TOKEN, data={"text": f"{word} "}))
        data: dict[str, object] = {"text": sentence.text, "citations": list(sentence.citations)}
        emit(AssistantEvent(kind=EventKind.SENTENCE, data=data))
    cited = [
        {
            "id": one.citation_id,
            "kind": one.kind.value,
            "finding_ids": list(one.finding_ids),
            "source": one.source,
            "licence": one.licence,
        }
        for one in answer.citations
    ]
    emit(AssistantEvent(kind=EventKind.CITATIONS, data={"citations": cited}))
