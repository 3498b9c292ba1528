"""The whole assistant: cited answers, refusals, memory, time, and what reaches prompts and answers."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from assistant_cases import (
    IDENTIFIERS,
    INJECTION,
    FakeLanguageModel,
    FakeLibrary,
    FakePassage,
    Memories,
    ask,
    chest_record,
    copy_statements,
    make_assistant,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reporting.assistant.answer import Outcome
from reporting.assistant.exchange import (
    AssistantCancelledError,
    AssistantEvent,
    AssistantTimeoutError,
    EventKind,
    Planner,
)
from reporting.assistant.graph import AssistantLimits
from reporting.assistant.identifiers import Identifiers
from reporting.assistant.question import Question, Refusal
from reporting.assistant.tools import ToolPorts
from reporting.assistant.vocabulary import is_vocabulary
from reporting.refine.port import CompletionRequest, LanguageModelError
from reporting.safety import ASSISTANT_BANNER, ASSISTANT_CLOSING, LEFT_OUT_SENTENCE, REQUIRED_PHRASE

pytest.importorskip("langgraph")

QUESTIONS = (
    "What did the AI find?", "Is there a pneumothorax?", "How large is it?", "Where did the network look?",
    "Can I trust this?", "How urgent is this study?", "Which model read the study?", "Has it grown?",
    "What does the guideline say about nodules?", "Which diseases are associated with cardiomegaly?",
    "Please run the detector on series 1", "What can I ask?", "Should we operate?", "What is the weather?",
)  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_answer_is_marked_and_every_sentence_cites(question: str) -> None:
    record = chest_record()
    answer = ask(make_assistant(record), record, question).answer
    assert answer.plain.startswith(ASSISTANT_BANNER)
    assert answer.plain.endswith(ASSISTANT_CLOSING)
    assert REQUIRED_PHRASE in answer.plain
    assert all(sentence.citations for sentence in answer.sentences)
    if answer.outcome is Outcome.ANSWERED:
        cited = {one.citation_id for one in answer.citations}
        assert {name for sentence in answer.sentences for name in sentence.citations} == cited


def test_a_refused_question_calls_no_tool_and_no_model() -> None:
    record, model = chest_record(), FakeLanguageModel(copy_statements)
    assistant = make_assistant(record, model, planner=Planner.LANGUAGE_MODEL)
    exchange = ask(assistant, record, "Which dose of heparin should I give?")
    assert (exchange.answer.outcome, exchange.answer.refusal) == (Outcome.REFUSED, Refusal.TREATMENT)
    assert (exchange.calls, model.requests) == ((), [])


def test_instructions_in_notes_and_passages_reach_no_prompt_and_no_answer() -> None:
    analysis = chest_record().analyses[0]
    record = chest_record(analyses=(replace(analysis, notes=(INJECTION,)), chest_record().analyses[1]))
    model = FakeLanguageModel(copy_statements)
    library = FakeLibrary((FakePassage("evil#1", f"Nodule sizes differ. {INJECTION}", title="Nodules"),))
    assistant = make_assistant(record, model, ports=ToolPorts(library=library))
    answers = [
        ask(assistant, record, q).answer for q in ("What does the guideline say about nodules?", *QUESTIONS)
    ]
    assert LEFT_OUT_SENTENCE in answers[0].plain
    for text in (model.prompts, *(answer.plain for answer in answers)):
        assert "gnore all previous" not in text


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.from_regex(r"\A[A-Z][a-zäöüß]{5,14}\Z"),
    number=st.from_regex(r"\A[A-Z]{2,4}[0-9]{4,9}\Z"),
    birth=st.dates().map(lambda day: day.strftime("%Y%m%d")),
    question=st.sampled_from(QUESTIONS),
    planner=st.sampled_from(list(Planner)),
)
def test_no_identifier_reaches_a_prompt_an_answer_or_the_memory(
    name: str, number: str, birth: str, question: str, planner: Planner
) -> None:
    if is_vocabulary(name):
        return
    uid = f"1.2.826.0.1.99.{int(birth)}"
    who = Identifiers(names=(f"{name}^Qx",), numbers=(number, birth, uid))
    hostile = f"{question} It is {name.upper()}, {number}, born {birth}, study {uid}."
    base = chest_record()
    notes = (f"Scanned as {name} ({number}).",)
    record = replace(
        base, identifiers=who, analyses=(replace(base.analyses[0], notes=notes), base.analyses[1])
    )
    library = FakeLibrary((FakePassage(f"{number}#1", f"The nodule of {name}, {birth}.", title=name),))
    model, memory = FakeLanguageModel(copy_statements), Memories()
    assistant = make_assistant(
        record, model, planner=planner, ports=ToolPorts(library=library), memory=memory
    )
    exchange = ask(assistant, record, hostile)
    kept = [str(item) for saver in memory.savers.values() for item in saver.storage.values()]
    for text in (model.prompts, exchange.answer.plain, exchange.asked, *kept):
        for secret in (name, name.upper(), number, birth, uid):
            assert secret not in text


def test_a_conversation_is_remembered_within_bounds_and_apart_from_others() -> None:
    record, memory = chest_record(), Memories()
    limits = AssistantLimits(history_turns=2)
    assistant = make_assistant(record, limits=limits, memory=memory)
    for _ in range(4):
        ask(assistant, record, "Where is the effusion?", "a")
    assert "effusion" in ask(assistant, record, "How sure is it?", "a").answer.text
    config = {"configurable": {"thread_id": "a"}}
    state = memory.savers[record.run_id].get(config)["channel_values"]
    assert len(state["history"]) == 2
    assert ask(assistant, record, "And on the left?", "b").answer.outcome is Outcome.REFUSED


def test_a_refused_question_leaves_no_trace_in_the_conversation() -> None:
    record = chest_record()
    assistant = make_assistant(record)
    ask(assistant, record, "Where is the effusion?")
    ask(assistant, record, "What is the weather?")
    assert ask(assistant, record, "And on the left?").intent == "place"


def test_a_question_ends_in_time_and_when_it_is_cancelled() -> None:
    record = chest_record()
    quick = make_assistant(record, limits=AssistantLimits(timeout_s=1e-9))
    with pytest.raises(AssistantTimeoutError):
        ask(quick, record, "What did the AI find?")
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(AssistantCancelledError):
        question = Question(run_id=record.run_id, text="What did the AI find?")
        make_assistant(record).ask(question, record, lambda _: None, cancel)


def test_a_tool_that_fails_says_so_and_the_others_go_on() -> None:
    class Broken:
        def search(self, query: str, limit: int) -> list[FakePassage]:
            raise LanguageModelError("the library is being rebuilt")

    record = chest_record()
    assistant = make_assistant(record, ports=ToolPorts(library=Broken()))
    text = ask(assistant, record, "What does the guideline say about effusion?").answer.text
    assert "The tool retrieve gave no answer: the library is being rebuilt" in text


def test_tokens_make_up_the_sentences_and_come_after_the_tools() -> None:
    record, events = chest_record(), list[AssistantEvent]()
    question = Question(run_id=record.run_id, text="Is there a pneumothorax?")
    answer = make_assistant(record).ask(question, record, events.append).answer
    kinds = [event.kind for event in events]
    assert kinds[:2] == [EventKind.TOOL_STARTED, EventKind.TOOL_FINISHED]
    assert kinds[-1] is EventKind.CITATIONS
    tokens = "".join(str(e.data["text"]) for e in events if e.kind is EventKind.TOKEN)
    assert tokens.split() == answer.text.split()


def test_nothing_is_traced_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from langsmith import utils

    seen = []
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "true")
    utils.get_env_var.cache_clear()

    def answer(request: CompletionRequest) -> str:
        seen.append(utils.tracing_is_enabled())
        return copy_statements(request)

    record = chest_record()
    ask(make_assistant(record, FakeLanguageModel(answer)), record, "What did the AI find?")
    utils.get_env_var.cache_clear()
    assert seen == [False]


def test_rules_answer_at_once() -> None:
    record = chest_record()
    assistant = make_assistant(record)
    ask(assistant, record, "What did the AI find?")
    began = time.monotonic()
    ask(assistant, record, "Is there a pneumothorax?")
    assert time.monotonic() - began < 5


def test_identifiers_of_the_cases_are_what_tests_think() -> None:
    assert "SYN-0001" in IDENTIFIERS.numbers
