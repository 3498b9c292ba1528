"""Adapter: talks to LangGraph: the steps as a graph whose memory is a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event
from typing import TYPE_CHECKING, cast

from dicom_node.errors import PermanentError
from reporting.assistant.exchange import AssistantEvent, Exchange, Planner, stream_answer
from reporting.assistant.proposals import Proposer
from reporting.assistant.question import Question, clean_question
from reporting.assistant.record import StudyRecord
from reporting.assistant.session import AssistantLimits, Session
from reporting.assistant.steps import State, Steps, begin, read_intent, read_out
from reporting.assistant.tools import ToolPorts
from reporting.facts import collect_facts
from reporting.refine.port import LanguageModel

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.types import StreamMode

__all__ = ["Assistant", "AssistantLimits", "Emit", "LangGraphMissingError", "Memory"]

#: Opens the memory of a run's conversations.
Memory = Callable[[str], "AbstractContextManager[BaseCheckpointSaver[str]]"]
Emit = Callable[[AssistantEvent], None]


class LangGraphMissingError(PermanentError):
    """LangGraph is not installed: `pip install preread[language]`."""


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
        self._proposer = Proposer(language_model, self.limits)

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
            Takes each event as it happens; the last one is `EventKind.CITATIONS`.
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
        session = Session(
            question=question,
            record=record,
            cancel=cancel or Event(),
            ends_at=began + self.limits.timeout_s,
            facts=collect_facts(record.analyses, record.views),
        )
        state = self._run(session, asked, emit)
        answer = read_out(state)
        for event in stream_answer(answer):
            emit(event)
        return Exchange(
            asked=asked,
            answer=answer,
            intent=read_intent(state),
            planner=Planner(state.get("planner", Planner.RULES)),
            calls=tuple(session.called),
            language_model=self._model.identity if self._model and session.took_part else "",
            verdict=state.get("verdict", ""),
            seconds=time.monotonic() - began,
        )

    def _run(self, session: Session, asked: str, emit: Emit) -> State:
        """Run the graph on one question; a conversation's state is read and kept by its memory."""
        try:
            from langgraph.graph import END, START, StateGraph
            from langsmith import tracing_context
        except ImportError as exc:
            raise LangGraphMissingError(
                "The assistant needs LangGraph: `pip install preread[language]`."
            ) from exc
        steps = Steps(session, self._ports, self._proposer, self.limits)
        graph = StateGraph(State)
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
        final: State = {}
        # Tracing would send questions to a service outside: off, whatever the environment says.
        with tracing_context(enabled=False), self._memory(session.question.run_id) as memory:
            compiled = graph.compile(checkpointer=memory)
            modes: list[StreamMode] = ["custom", "values"]
            thread: RunnableConfig = {"configurable": {"thread_id": session.question.conversation}}
            for mode, part in compiled.stream(
                begin(asked, self._planner), thread, stream_mode=modes, durability="exit"
            ):
                if mode == "custom":
                    emit(cast("AssistantEvent", part))
                else:
                    final = cast("State", part)
        return final
