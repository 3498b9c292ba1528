"""Adapter: the steps of LangGraph's graph (admit, plan, act, word, check, remember) and its state.

The state is plain JSON, so that a conversation can be read back by another version; what
the person typed is in it without identifiers only. Tools, language model and cancellation
travel beside it, never in it.
"""

from __future__ import annotations

import time
from typing import Any, Final, TypedDict

from pydantic import TypeAdapter

from dicom_node.errors import PrereadError
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
from reporting.assistant.evidence import QUOTED, STATED, EvidenceKind, ToolCall, ToolResult, remark
from reporting.assistant.exchange import (
    AssistantCancelledError,
    AssistantEvent,
    AssistantTimeoutError,
    CalledTool,
    EventKind,
    Planner,
)
from reporting.assistant.intents import Intent, Plan, Turn, plan_by_rule
from reporting.assistant.proposals import Proposer
from reporting.assistant.question import Refusal, find_refusal
from reporting.assistant.session import AssistantLimits, Session
from reporting.assistant.tools import ToolPorts, call_tool
from reporting.text import Author

_TURNS: Final = TypeAdapter(tuple[Turn, ...])
_PLAN: Final = TypeAdapter(Plan)
_RESULTS: Final = TypeAdapter(tuple[ToolResult, ...])
_SENTENCES: Final = TypeAdapter(tuple[AnswerSentence, ...])
#: What an answer tells in full, whatever a language model leaves out of it.
_TOLD: Final = STATED | QUOTED | {EvidenceKind.ESTIMATE}


class State(TypedDict, total=False):
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


def begin(asked: str, planner: Planner) -> State:
    """Return the state in which a question enters the graph; the conversation's history is kept beside it."""
    return {
        "asked": asked,
        "refusal": "",
        "planner": planner.value,
        "plan": {},
        "results": [],
        "composed": [],
        "worded": [],
        "author": Author.RULES.value,
        "verdict": "",
    }


class Steps:
    """The nodes of the graph and its conditional edges, for one question."""

    def __init__(
        self, session: Session, ports: ToolPorts, proposer: Proposer, limits: AssistantLimits
    ) -> None:
        self._session = session
        self._ports = ports
        self._proposer = proposer
        self._limits = limits

    def admit(self, state: State) -> State:
        """Refuse what is refused whatever the study holds."""
        self._session.remaining_s()
        refusal = find_refusal(state["asked"])
        return {"refusal": refusal.value if refusal else ""}

    def after_admission(self, state: State) -> str:
        """Return the step behind the admission: a refused question is planned no more."""
        return "remember" if state["refusal"] else "plan"

    def plan(self, state: State) -> State:
        """Choose the tools: the language model if it may, else and where it fails the rules."""
        history = _TURNS.validate_python(state.get("history", []))
        plan, planner = None, Planner(state["planner"])
        if planner is Planner.LANGUAGE_MODEL and not state["results"]:
            plan = self._proposer.propose_plan(self._session, state["asked"], history)
        if plan is None:
            plan, planner = plan_by_rule(state["asked"], history), Planner.RULES
        refusal = "" if plan.intent is not None else Refusal.SUBJECT.value
        return {
            "plan": _PLAN.dump_python(plan, mode="json"),
            "planner": planner.value,
            "refusal": refusal,
        }

    def after_plan(self, state: State) -> str:
        """Return the step behind the plan: what fits no intent is refused."""
        return "remember" if state["refusal"] else "act"

    def act(self, state: State) -> State:
        """Call the tools."""
        from langgraph.config import get_stream_writer

        write = get_stream_writer()
        results = []
        for call in _PLAN.validate_python(state["plan"]).calls:
            self._session.remaining_s()
            shown: dict[str, object] = {"tool": call.tool.value, "arguments": dict(call.arguments)}
            write(AssistantEvent(kind=EventKind.TOOL_STARTED, data=shown))
            began = time.monotonic()
            result = self._use_tool(call)
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

    def after_act(self, state: State) -> str:
        """Let the rules plan once more where the language model's plan brought nothing."""
        results = _RESULTS.validate_python(state["results"])
        is_empty = all(item.kind is EvidenceKind.REMARK for result in results for item in result.evidence)
        return "plan" if is_empty and state["planner"] == Planner.LANGUAGE_MODEL.value else "word"

    def word(self, state: State) -> State:
        """Compose the answer by rule, and let the language model word what is no quotation."""
        results = _RESULTS.validate_python(state["results"])
        composed = compose_answer(results)
        is_help = _PLAN.validate_python(state["plan"]).intent is Intent.HELP
        evidence = [gather(results)[one.citations[0]] for one in composed]
        own = [item for item in evidence if item.kind not in QUOTED]
        worded: tuple[AnswerSentence, ...] = ()
        verdict = ""
        is_worth_words = any(item.kind is not EvidenceKind.REMARK for item in own)
        if is_worth_words and not is_help:
            worded, verdict = self._proposer.propose_wording(self._session, state["asked"], own)
        return {
            "composed": _SENTENCES.dump_python(composed, mode="json"),
            "worded": _SENTENCES.dump_python(worded, mode="json"),
            "verdict": verdict,
        }

    def check(self, state: State) -> State:
        """Keep what stands of the language model's sentences, with what an answer must say."""
        self._session.remaining_s()
        worded = _SENTENCES.validate_python(state["worded"])
        if not worded:
            return {}
        evidence = gather(_RESULTS.validate_python(state["results"]))
        kept, verdict = self._proposer.judge(self._session, state["asked"], worded, evidence)
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

    def remember(self, state: State) -> State:
        """Keep what the question was about, for the next one; a refused question is forgotten."""
        history = _TURNS.validate_python(state.get("history", []))
        if not state["refusal"]:
            plan = _PLAN.validate_python(state["plan"])
            intent = plan.intent.value if plan.intent else ""
            history = (*history, Turn(asked=state["asked"], intent=intent, concepts=plan.concepts))
        kept = history[max(0, len(history) - self._limits.history_turns) :]
        return {"history": _TURNS.dump_python(kept, mode="json")}

    def _use_tool(self, call: ToolCall) -> ToolResult:
        """Call one tool; one that fails says so, and the others go on."""
        try:
            return call_tool(call, self._session.record, self._ports, self._session.cancel)
        except (AssistantCancelledError, AssistantTimeoutError):
            raise
        except PrereadError as error:
            text = f"The tool {call.tool.value} gave no answer: {error}"
            return ToolResult(call=call, evidence=(remark(f"{call.tool.value}/failed", text),))


def read_out(state: State) -> Answer:
    """Return the answer that the graph's last state holds."""
    if state["refusal"]:
        return refuse(Refusal(state["refusal"]))
    results = _RESULTS.validate_python(state["results"])
    sentences = _SENTENCES.validate_python(state["worded"] or state["composed"])
    return finish(sentences, results, Author(state["author"]))


def read_intent(state: State) -> str:
    """Return what the question was taken to ask for, empty if nothing."""
    plan = _PLAN.validate_python(state.get("plan") or {"intent": None})
    return plan.intent.value if plan.intent else ""
