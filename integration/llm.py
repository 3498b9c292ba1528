"""Adapter: asks a server that speaks OpenAI's chat protocol (vLLM, Ollama, llama.cpp) to word a report.

What is sent is the prompt and nothing else: no header, no user, no name of the study. Redirects
are refused, answers are read up to a size, and the whole exchange ends at the request's time,
however slowly the server drips. Messages carry neither addresses nor what a server wrote.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any, Final

import httpx

from integration.connections import CONNECT_TIMEOUT_S, BasicAuth, BearerAuth, HttpEndpoint
from integration.delivery import DestinationUnavailableError
from reporting.refine.port import (
    Completion,
    CompletionRequest,
    GenerationCancelledError,
    LanguageModelError,
    LanguageModelTimeoutError,
)

logging.getLogger("httpx").setLevel(logging.WARNING)

_MAX_ANSWER_BYTES: Final = 1 << 20
_POLL_S: Final = 0.05
_TRIES: Final = 3
_FIRST_WAIT_S: Final = 0.5
#: Statuses after which the same request may be answered in a moment (RFC 9110, RFC 6585).
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Statuses by which servers refuse a response_format that they do not know.
_REFUSED: Final = frozenset({400, 404, 415, 422, 501})
#: How an answer in JSON is asked for, strictest first; what a server refuses is not asked again.
_FORMS: Final = ("json_schema", "json_object", "plain")
_THOUGHT: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


class RefusedRequestError(LanguageModelError):
    """The endpoint refuses what it is asked: check its name of the model, its address and the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    body: bytes


class EndpointModel:
    """A language model behind an HTTP endpoint.

    Parameters
    ----------
    endpoint : HttpEndpoint
        Address up to the version (``https://host/v1``), key, TLS.
    model : str
        The server's name of the model.
    """

    def __init__(self, endpoint: HttpEndpoint, model: str) -> None:
        self._endpoint, self._model = endpoint, model
        self._forms: tuple[str, ...] = _FORMS

    @property
    def identity(self) -> str:
        """The server's name of the model."""
        return f"{self._model} (endpoint)"

    def complete(self, request: CompletionRequest, cancel: Event | None = None) -> Completion:
        """Answer a prompt (`reporting.refine.port.LanguageModel.complete`).

        Raises
        ------
        RefusedRequestError
            If the server refuses the request in every form.
        LanguageModelTimeoutError, GenerationCancelledError, LanguageModelError
            As the port says.
        """
        began = time.monotonic()
        answer = _run(self._exchange(request), request.timeout_s, cancel)
        return read_completion(answer.body, time.monotonic() - began)

    def look(self, timeout_s: float = 10.0) -> str:
        """Return what the server says of its models, for ``preread doctor``.

        Raises
        ------
        LanguageModelError
            If it does not answer, or does not know the model.
        """
        answer = _run(self._get("models"), timeout_s, None)
        if answer.status in {401, 403}:
            raise RefusedRequestError("The endpoint refuses the key: check language.endpoint.auth.")
        known = {str(entry.get("id")) for entry in _entries(_parse(answer.body).get("data"))}
        if known and self._model not in known:
            raise RefusedRequestError("The endpoint does not know the model: check language.model.")
        return "the endpoint answers" + (" and knows the model" if known else "")

    async def _exchange(self, request: CompletionRequest) -> _Answer:
        """Return the server's answer, in the strictest form of request that it takes."""
        async with self._client() as client:
            for index, form in enumerate(self._forms):
                answer = await _try_again(client, self._endpoint, _write_body(self._model, request, form))
                if answer.status == httpx.codes.OK:
                    self._forms = self._forms[index:]
                    return answer
                if answer.status not in _REFUSED:
                    break
        raise RefusedRequestError(
            f"The endpoint answered HTTP {answer.status}: check its address, key and model."
        )

    async def _get(self, path: str) -> _Answer:
        async with self._client() as client:
            return await _send(client, client.build_request("GET", f"{self._endpoint.base_url}/{path}"))

    def _client(self) -> httpx.AsyncClient:
        auth, headers = None, {"Accept": "application/json", "Accept-Encoding": "identity"}
        match self._endpoint.auth:
            case BasicAuth(user=user, password=password):
                auth = httpx.BasicAuth(user, password.get_secret_value())
            case BearerAuth(token=token):
                headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        try:
            verify = self._endpoint.tls.build_context() if self._endpoint.url.scheme == "https" else False
        except DestinationUnavailableError as error:
            raise LanguageModelError(str(error)) from error
        return httpx.AsyncClient(
            auth=auth,
            headers=headers,
            verify=verify,
            timeout=httpx.Timeout(self._endpoint.timeout_s, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
            follow_redirects=False,
        )


def read_completion(body: bytes, seconds: float) -> Completion:
    """Return what a chat completion says.

    Raises
    ------
    LanguageModelError
        If it is none.
    """
    answer = _parse(body)
    choices = _entries(answer.get("choices"))
    message = choices[0].get("message") if choices else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, str):
        raise LanguageModelError("The endpoint's answer is no chat completion.")
    usage = answer.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    return Completion(
        text=_THOUGHT.sub("", content),
        seconds=seconds,
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        is_cut=choices[0].get("finish_reason") == "length",
    )


def _write_body(model: str, request: CompletionRequest, form: str) -> bytes:
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": request.system},
            {"role": "user", "content": request.user},
        ],
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "stream": False,
    }
    if request.schema is not None and form == "json_schema":
        schema = {"name": "report", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.schema is not None and form == "json_object":
        body["response_format"] = {"type": "json_object"}
    return json.dumps(body).encode()


async def _try_again(client: httpx.AsyncClient, endpoint: HttpEndpoint, body: bytes) -> _Answer:
    """Return an answer that is not a passing failure; the caller's deadline ends the tries."""
    headers = {"Content-Type": "application/json"}
    wait_s = _FIRST_WAIT_S
    for number in range(1, _TRIES + 1):
        request = client.build_request(
            "POST", f"{endpoint.base_url}/chat/completions", content=body, headers=headers
        )
        try:
            answer = await _send(client, request)
        except httpx.TransportError as error:
            if number == _TRIES or isinstance(error, httpx.ReadTimeout):
                raise
        else:
            if answer.status not in _PASSING:
                return answer
        if number < _TRIES:
            await asyncio.sleep(wait_s)
            wait_s *= 2
    raise LanguageModelError("The endpoint is overloaded or broken: it answered with a server error.")


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> _Answer:
    response = await client.send(request, stream=True)
    try:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > _MAX_ANSWER_BYTES:
                raise LanguageModelError("The endpoint's answer is absurdly large.")
    finally:
        await response.aclose()
    return _Answer(status=response.status_code, body=bytes(body))


def _run(exchange: Coroutine[Any, Any, _Answer], timeout_s: float, cancel: Event | None) -> _Answer:
    """Run an exchange to its end, its deadline or its cancellation; its connection ends with it."""
    try:
        return asyncio.run(_watch(exchange, timeout_s, cancel))
    except (TimeoutError, httpx.TimeoutException) as error:
        raise LanguageModelTimeoutError("The endpoint did not answer in time.") from error
    except httpx.HTTPError as error:
        raise LanguageModelError(
            f"The endpoint cannot be reached ({type(error).__name__}): check host, port and certificates."
        ) from error


async def _watch(exchange: Coroutine[Any, Any, _Answer], timeout_s: float, cancel: Event | None) -> _Answer:
    async with asyncio.timeout(timeout_s):
        task = asyncio.ensure_future(exchange)
        try:
            while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
                if cancel is not None and cancel.is_set():
                    raise GenerationCancelledError("The caller wants no answer any more.")
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
