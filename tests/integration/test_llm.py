from __future__ import annotations

import socket
import threading
import time

import pytest
from openai_server import Behaviour, serve
from pydantic import SecretStr

from integration.connections import BearerAuth, HttpEndpoint, TlsClient
from integration.llm import EndpointModel, RefusedRequestError
from reporting.refine.breaker import BreakingModel
from reporting.refine.port import (
    CompletionRequest,
    GenerationCancelledError,
    LanguageModelError,
    LanguageModelRestingError,
    LanguageModelTimeoutError,
)

REQUEST = CompletionRequest(
    system="You word reports.", user="Present: F1 nodule", schema={"type": "object"}, timeout_s=5
)


def model_at(url: str, **changes: object) -> EndpointModel:
    return EndpointModel(HttpEndpoint(url=url, **changes), "test-model")  # type: ignore[arg-type]


def complete(behaviour: Behaviour, request: CompletionRequest = REQUEST):
    with serve(behaviour) as url:
        return model_at(url).complete(request)


def test_a_prompt_is_answered_and_counted():
    behaviour = Behaviour(answer='{"findings": []}')
    completion = complete(behaviour)
    assert completion.text == '{"findings": []}'
    assert (completion.prompt_tokens, completion.completion_tokens) == (100, 50)
    assert not completion.is_cut
    (body,) = behaviour.bodies
    assert body["temperature"] == 0
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_nothing_but_the_prompt_is_sent():
    behaviour = Behaviour()
    complete(behaviour)
    (body,), (headers,) = behaviour.bodies, behaviour.headers
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "stream", "response_format"}
    assert set(headers) <= {
        "Host", "Accept", "Accept-Encoding", "Connection", "User-Agent", "Content-Type", "Content-Length",
    }  # fmt: skip


def test_the_key_travels_and_is_never_shown():
    behaviour = Behaviour()
    with serve(behaviour) as url:
        model = model_at(url, auth=BearerAuth(type="bearer", token=SecretStr("swordfish")))
        model.complete(REQUEST)
        assert "swordfish" not in repr(model._endpoint)
    assert behaviour.headers[0]["Authorization"] == "Bearer swordfish"


def test_a_server_that_knows_no_schema_is_asked_for_plain_json_and_remembered():
    behaviour = Behaviour(refused_forms=("json_schema",))
    with serve(behaviour) as url:
        model = model_at(url)
        model.complete(REQUEST)
        model.complete(REQUEST)
    forms = [body["response_format"]["type"] for body in behaviour.bodies]
    assert forms == ["json_schema", "json_object", "json_object"]


def test_a_server_that_knows_no_form_is_asked_plainly():
    behaviour = Behaviour(refused_forms=("json_schema", "json_object"))
    complete(behaviour)
    assert "response_format" not in behaviour.bodies[-1]


def test_thoughts_are_left_out():
    assert complete(Behaviour(answer='<think>{"no": 1}</think>{"findings": []}')).text == '{"findings": []}'


def test_a_passing_failure_is_tried_again():
    behaviour = Behaviour(answer="well", first_statuses=[503])
    assert complete(behaviour).text == "well"


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_a_refusal_says_what_to_check_and_quotes_nothing(status):
    with pytest.raises(LanguageModelError) as caught:
        complete(Behaviour(status=status))
    assert "Doe" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"\xff" * 99]
)
def test_what_is_no_chat_completion_is_an_error(raw):
    with pytest.raises(LanguageModelError):
        complete(Behaviour(raw=raw))


def test_a_huge_answer_is_not_read_to_its_end():
    with pytest.raises(LanguageModelError, match="absurdly large"):
        complete(Behaviour(raw=b"x" * (3 << 20)))


def test_a_redirect_is_refused():
    behaviour = Behaviour(status=307, location="http://127.0.0.1:9/v1/chat/completions")
    with pytest.raises(RefusedRequestError):
        complete(behaviour)
    assert len(behaviour.bodies) == 1


@pytest.mark.parametrize("behaviour", [Behaviour(delay_s=1.5), Behaviour(answer="x" * 500, drip_s=0.01)])
def test_a_slow_server_is_left_in_time_however_it_is_slow(behaviour):
    began = time.monotonic()
    with pytest.raises(LanguageModelTimeoutError), serve(behaviour) as url:
        try:
            model_at(url).complete(CompletionRequest(system="s", user="u", timeout_s=0.5))
        finally:
            spent = time.monotonic() - began
    assert spent < 1.4


def test_a_cancelled_request_ends_at_once():
    cancel = threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    with serve(Behaviour(delay_s=1.5)) as url:
        timer.start()
        began = time.monotonic()
        with pytest.raises(GenerationCancelledError):
            model_at(url).complete(REQUEST, cancel)
        assert time.monotonic() - began < 1.2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_down_is_an_error_without_its_address():
    port = free_port()
    with pytest.raises(LanguageModelError, match="cannot be reached") as caught:
        model_at(f"http://127.0.0.1:{port}/v1").complete(REQUEST)
    assert str(port) not in str(caught.value)


def test_a_certificate_file_that_is_missing_is_an_error(tmp_path):
    model = model_at("https://127.0.0.1:1/v1", tls=TlsClient(ca_file=tmp_path / "none.pem"))
    with pytest.raises(LanguageModelError, match="TLS files"):
        model.complete(REQUEST)


def test_the_doctor_learns_whether_the_model_is_known():
    with serve(Behaviour()) as url:
        assert "knows the model" in model_at(url).look()
        with pytest.raises(RefusedRequestError, match=r"language\.model"):
            EndpointModel(HttpEndpoint(url=url), "another").look()


def test_a_failing_endpoint_rests_and_is_tried_again():
    now = [0.0]
    behaviour = Behaviour(status=401)
    with serve(behaviour) as url:
        model = BreakingModel(model_at(url), failures=2, rest_s=60, clock=lambda: now[0])
        for _ in range(2):
            with pytest.raises(RefusedRequestError):
                model.complete(REQUEST)
        asked = len(behaviour.bodies)
        with pytest.raises(LanguageModelRestingError):
            model.complete(REQUEST)
        assert len(behaviour.bodies) == asked
        now[0] = 61.0
        with pytest.raises(RefusedRequestError):
            model.complete(REQUEST)
        with pytest.raises(LanguageModelRestingError):
            model.complete(REQUEST)
        now[0], behaviour.status = 200.0, 200
        model.complete(REQUEST)
        behaviour.status = 401
        with pytest.raises(RefusedRequestError):
            model.complete(REQUEST)
        behaviour.status = 200
        assert model.complete(REQUEST)
