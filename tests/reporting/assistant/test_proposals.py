"""What a language model may do: choose tools of the closed set and word what it cites, believed nothing."""

from __future__ import annotations

import json

import pytest
from assistant_cases import (
    FakeLanguageModel,
    FakeLibrary,
    FakePassage,
    FakeRunner,
    answering,
    ask,
    brain_record,
    chest_record,
    copy_statements,
    is_plan_request,
    make_assistant,
)

from reporting.assistant.answer import Outcome
from reporting.assistant.exchange import (
    Planner,
)
from reporting.assistant.graph import AssistantLimits
from reporting.assistant.tools import ToolPorts
from reporting.refine.port import CompletionRequest, LanguageModelError
from reporting.text import Author

pytest.importorskip("langgraph")


def test_a_faithful_wording_stands_and_is_attributed() -> None:
    record = brain_record()
    model = FakeLanguageModel(
        answering(("The FLAIR signal abnormality on the right side of the brain measures 1.2 mL.", ["S1"]))
    )
    exchange = ask(make_assistant(record, model), record, "How large is the lesion on the right side?")
    assert exchange.language_model == "fake-model 1"
    assert exchange.answer.author is Author.LANGUAGE_MODEL, exchange.verdict
    assert "brain-tumour-lgg/F1" in {one.citation_id for one in exchange.answer.citations}


@pytest.mark.parametrize(
    "answer",
    [
        "no JSON at all",
        '{"sentences": []}',
        '{"sentences": [{"text": "It measures 9 mL.", "ids": ["S1"]}]}',
        '{"sentences": [{"text": "There is no lesion.", "ids": ["S1"]}]}',
        '{"sentences": [{"text": "It measures 1.2 mL in volume.", "ids": []}]}',
        '{"sentences": [{"text": "It measures 1.2 mL in volume.", "ids": ["S99"]}]}',
        '{"sentences": [{"text": "Biopsy is recommended.", "ids": ["S1"]}]}',
        '{"sentences": "x"}',
    ],
)
def test_whatever_a_model_answers_amiss_the_composed_answer_stands(answer: str) -> None:
    record = brain_record()
    composed = ask(make_assistant(record), record, "How large is it?").answer
    exchange = ask(make_assistant(record, FakeLanguageModel(lambda _: answer)), record, "How large is it?")
    assert exchange.answer == composed
    assert "composed answer stands" in exchange.verdict


def test_a_model_that_is_down_costs_only_its_wording() -> None:
    def fail(_request: CompletionRequest) -> str:
        raise LanguageModelError("down")

    record = brain_record()
    exchange = ask(
        make_assistant(record, FakeLanguageModel(fail), planner=Planner.LANGUAGE_MODEL),
        record,
        "How large is it?",
    )
    assert exchange.answer.outcome is Outcome.ANSWERED
    assert exchange.planner is Planner.RULES
    assert "did not answer" in exchange.verdict


def test_what_must_be_said_is_said_whatever_the_model_leaves_out() -> None:
    record = chest_record()
    model = FakeLanguageModel(answering(("No pneumothorax was detected.", ["S1"])))
    exchange = ask(make_assistant(record, model), record, "Is there a pneumothorax?")
    assert exchange.answer.author is Author.LANGUAGE_MODEL
    assert "The film is rotated." in exchange.answer.text


def test_a_quotation_reaches_no_prompt_and_stands_whole_beside_what_the_model_words() -> None:
    record = chest_record()
    model = FakeLanguageModel(copy_statements)
    assistant = make_assistant(record, model)
    quoted = ask(assistant, record, "What does the guideline say about pneumothorax?")
    assert "supine radiograph may hide it" not in model.prompts
    assert "Sample text: pneumothorax, Sample society (public domain)" in quoted.answer.text
    assert '"A pneumothorax is air in the pleural space. A supine radiograph may hide it."' in (
        quoted.answer.text
    )


def test_no_model_is_asked_to_word_an_answer_of_quotations_alone() -> None:
    record, model = chest_record(), FakeLanguageModel(copy_statements)
    library = FakeLibrary((FakePassage("text#1", "A fracture is a broken bone."),))
    assistant = make_assistant(record, model, ports=ToolPorts(library=library))
    exchange = ask(assistant, record, "What does the guideline say about a fracture?")
    assert (model.requests, exchange.language_model) == ([], "")
    assert exchange.answer.author is Author.RULES


def test_a_model_chooses_tools_of_the_closed_set_alone() -> None:
    record = chest_record()
    plan = {"calls": [{"tool": "size", "findings": ["effusion"]}, {"tool": "triage", "findings": []}]}
    model = FakeLanguageModel(lambda request: json.dumps(plan) if is_plan_request(request) else "")
    assistant = make_assistant(record, model, planner=Planner.LANGUAGE_MODEL)
    exchange = ask(assistant, record, "Tell me about the effusion")
    assert [one.call.tool.value for one in exchange.calls] == ["measurements", "where_did_it_look"]
    assert exchange.planner is Planner.LANGUAGE_MODEL


@pytest.mark.parametrize("tool", ["run_model", "shell", "none"])
def test_a_model_cannot_start_a_reading_that_nobody_asked_for(tool: str) -> None:
    record = chest_record()
    runner = FakeRunner(analysis=record.analyses[0])
    plan = json.dumps({"calls": [{"tool": tool, "findings": []}]})
    model = FakeLanguageModel(lambda request: plan if is_plan_request(request) else "")
    assistant = make_assistant(record, model, planner=Planner.LANGUAGE_MODEL, ports=ToolPorts(runner=runner))
    ask(assistant, record, "What did the AI find?")
    assert runner.asked == []


def test_rules_plan_again_where_a_model_chose_tools_that_know_nothing() -> None:
    record = brain_record(looked_at=())
    plan = json.dumps({"calls": [{"tool": "attention", "findings": []}]})
    model = FakeLanguageModel(lambda request: plan if is_plan_request(request) else "")
    assistant = make_assistant(record, model, planner=Planner.LANGUAGE_MODEL)
    exchange = ask(assistant, record, "How large is it?")
    assert [one.call.tool.value for one in exchange.calls] == ["where_did_it_look", "measurements"]
    assert exchange.intent == "size"


def test_a_request_to_the_model_never_outlasts_the_answer() -> None:
    record, model = chest_record(), FakeLanguageModel(copy_statements)
    limits = AssistantLimits(timeout_s=20, wording_timeout_s=1000)
    ask(make_assistant(record, model, limits=limits), record, "What did the AI find?")
    assert all(0 < request.timeout_s <= 20 for request in model.requests)
