"""Adapter: the assistant over HTTP: a question in, server-sent events or one JSON answer out, and the audit.

Sentences are streamed only after they passed their checks, word by word. A client that
goes away cancels its question. Questions are bounded in length, rate and number.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import Event
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, HTTPException, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from dicom_node.errors import PrereadError, TransientError
from dicom_node.ledger import Ledger
from integration.assistant_service import AssistantService, Inquiry
from integration.observability import describe_error
from reporting.assistant.answer import Answer, show_citation
from reporting.assistant.exchange import AssistantEvent, EventKind, Exchange
from reporting.assistant.question import Question

_EVENT_STREAM: Final = "text/event-stream"
_MINUTE_S: Final = 60.0
_KEEP_ALIVE_S: Final = 10.0
_LONGEST_ASKER: Final = 100
_HARD_LIMIT: Final = 10_000
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

log = structlog.get_logger(__name__)


class QuestionBody(BaseModel):
    """A question about a run."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, max_length=_HARD_LIMIT, description="What is asked, in English.")
    conversation: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Conversation of the run that it belongs to; follow-ups refer to it.",
    )
    stream: bool = Field(default=False, description="Answer with server-sent events.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantPorts:
    """What the endpoints of the assistant talk to.

    Attributes
    ----------
    questions_per_minute : int
        Questions that one asker may ask in a minute.
    concurrent_questions : int
        Questions that are worked on at the same time.
    user_header : str
        Header in which the site's proxy names the person it has authenticated; empty if there is none.
    has_token : bool
        Whether requests carry the site's token.
    """

    service: AssistantService
    ledger: Ledger
    questions_per_minute: int
    concurrent_questions: int
    user_header: str = ""
    has_token: bool = False


class Gate:
    """Bounds how often one asker asks and how many questions are worked on at once.

    Parameters
    ----------
    clock : callable
        Seconds of a clock that never goes back.
    """

    def __init__(self, per_minute: int, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._at_once = at_once
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[str, deque[float]] = {}
        self._open = 0

    @contextmanager
    def pass_through(self, asker: str) -> Iterator[None]:
        """Let one question through.

        Raises
        ------
        HTTPException
            429 with the seconds to wait, if it is too many.
        """
        self.enter(asker)
        try:
            yield
        finally:
            self.leave()

    def enter(self, asker: str) -> None:
        """Count a question in; raises as `pass_through` does."""
        with self._lock:
            now = self._clock()
            self._asked = {one: times for one, times in self._asked.items() if times[-1] > now - _MINUTE_S}
            times = self._asked.setdefault(asker, deque(maxlen=self._per_minute))
            if len(times) == self._per_minute and times[0] > now - _MINUTE_S:
                raise _too_many(times[0] + _MINUTE_S - now, "This asker asks too many questions")
            if self._open >= self._at_once:
                if not times:
                    del self._asked[asker]
                raise _too_many(1.0, "Too many questions are worked on")
            times.append(now)
            self._open += 1

    def leave(self) -> None:
        """Count a question out."""
        with self._lock:
            self._open -= 1


def _too_many(wait_s: float, why: str) -> HTTPException:
    seconds = str(max(1, round(wait_s)))
    return HTTPException(
        status.HTTP_429_TOO_MANY_REQUESTS,
        f"{why}: ask again in {seconds} s.",
        headers={"Retry-After": seconds},
    )


def assistant_router(ports: AssistantPorts) -> APIRouter:
    """Return the endpoints of the assistant; the caller guards them."""
    router = APIRouter(prefix="/api", tags=["assistant"])
    gate = Gate(ports.questions_per_minute, ports.concurrent_questions)

    @router.post("/runs/{run_id}/assistant", summary="Ask about a run")
    async def ask(run_id: str, body: QuestionBody, request: Request) -> Response:
        asked_by = name_asker(request, ports)
        question = Question(run_id=run_id, text=body.question, conversation=body.conversation)
        gate.enter(asked_by)
        is_handed_on = False
        try:
            inquiry = await run_in_threadpool(ports.service.take, question, asked_by)
            if body.stream or _EVENT_STREAM in request.headers.get("accept", ""):
                is_handed_on = True
                return StreamingResponse(
                    _stream(ports.service, inquiry, gate), media_type=_EVENT_STREAM, headers=_HEADERS
                )
            cancel = Event()
            exchange = await run_in_threadpool(ports.service.answer, inquiry, _ignore, cancel)
            return JSONResponse(show_exchange(inquiry, exchange), headers={"Cache-Control": "no-store"})
        finally:
            if not is_handed_on:
                gate.leave()

    @router.get("/runs/{run_id}/assistant", summary="What was asked about a run, newest first")
    def list_of_run(
        run_id: str, limit: Annotated[int, Query(ge=1, le=1000, description="Rows at the most.")] = 100
    ) -> list[dict[str, Any]]:
        ports.ledger.run(run_id)
        return [asdict(row) for row in ports.ledger.exchanges(limit, run_id)]

    @router.get("/assistant/audit", summary="What was asked, by whom, and what became of it, newest first")
    def list_audit(
        run_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Rows at the most.")] = 100,
    ) -> list[dict[str, Any]]:
        return [asdict(row) for row in ports.ledger.exchanges(limit, run_id)]

    return router


def name_asker(request: Request, ports: AssistantPorts) -> str:
    """Return who asks, as far as this node knows: the person that the site's proxy names, else the way in."""
    host = request.client.host if request.client else ""
    stated = request.headers.get(ports.user_header, "") if ports.user_header else ""
    person = "".join(letter for letter in stated if letter.isprintable()).strip()[:_LONGEST_ASKER]
    return person or f"{'token' if ports.has_token else 'local'}@{host}"


def show_exchange(inquiry: Inquiry, exchange: Exchange) -> dict[str, Any]:
    """Return an answer as JSON."""
    return {
        "exchange_id": inquiry.exchange_id,
        "run_id": inquiry.question.run_id,
        "conversation": inquiry.question.conversation,
        **show_answer(exchange.answer),
        "intent": exchange.intent,
        "planner": exchange.planner.value,
        "tools": [
            {"tool": one.call.tool.value, "arguments": dict(one.call.arguments), "evidence": one.evidence}
            for one in exchange.calls
        ],
        "language_model": exchange.language_model,
        "verdict": exchange.verdict,
        "seconds": round(exchange.seconds, 3),
    }


def show_answer(answer: Answer) -> dict[str, Any]:
    """Return the answer proper as JSON; its banner and closing are part of it."""
    return {
        "outcome": answer.outcome.value,
        "refusal": answer.refusal.value if answer.refusal else None,
        "banner": answer.banner,
        "sentences": [{"text": one.text, "citations": list(one.citations)} for one in answer.sentences],
        "closing": answer.closing,
        "author": answer.author.value,
        "citations": [show_citation(one) for one in answer.citations],
        "text": answer.plain,
    }


def _ignore(_event: AssistantEvent) -> None:
    """Take an event and do nothing: an answer that is not streamed shows none."""


async def _stream(service: AssistantService, inquiry: Inquiry, gate: Gate) -> AsyncIterator[str]:
    """Yield the events of one question; a client that goes away cancels it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[str, dict[str, Any]] | None] = asyncio.Queue()
    cancel = Event()

    def put(item: tuple[str, dict[str, Any]] | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def work() -> None:
        try:
            exchange = service.answer(inquiry, lambda event: put((event.kind.value, event.data)), cancel)
            put((EventKind.FINAL.value, show_exchange(inquiry, exchange)))
        except PrereadError as error:
            is_passing = isinstance(error, TransientError)
            put((EventKind.ERROR.value, {"detail": str(error), "retry": is_passing}))
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread
            log.error("request_failed", error=describe_error(error))
            detail = "The node could not answer; its log says why."
            put((EventKind.ERROR.value, {"detail": detail, "retry": False}))
        finally:
            gate.leave()
            put(None)

    threading.Thread(target=work, name="preread-assistant", daemon=True).start()
    try:
        while True:
            try:
                item = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_S)
            except TimeoutError:
                yield ": working\n\n"
                continue
            if item is None:
                return
            yield _write_event(*item)
    finally:
        cancel.set()


def _write_event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
