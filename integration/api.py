"""Adapter: the node over HTTP: STOW-RS in, notifications, status, requeue, metrics.

Thin: a request is checked, handed to the room that knows, and answered. Study
Instance UIDs appear in paths and bodies, never in logs; access logs are off.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response, status
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from dicom_node.clock import Clock
from dicom_node.errors import PermanentError, TransientError
from dicom_node.ledger import Ledger, RunRow, StoredInstance, UnknownRunError
from dicom_node.study import StudyKey, derive_study_key
from integration.clinical import MAX_NOTE, NotesStore
from integration.observability import Metrics, describe_error
from integration.stow_service import StowService

#: Run id to model to (slices done, slices in all).
Progress = Mapping[str, Mapping[str, tuple[int, int]]]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows at the most.")]

_RETRY_AFTER_S = "30"

log = structlog.get_logger(__name__)


class StableNotice(BaseModel):
    """What a source says of a study that stopped changing there."""

    model_config = ConfigDict(extra="forbid")

    instances: int | None = Field(None, ge=1, description="Instances that the study has at the source.")


class Note(BaseModel):
    """What a person knows of the case: order text, history, a letter."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=MAX_NOTE, description="Plain text; an empty one removes an earlier note.")


class NoteKept(BaseModel):
    """Whose note was kept."""

    study_key: StudyKey


class Requeued(BaseModel):
    """What a requeue set in motion."""

    run_id: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPorts:
    """What the HTTP interface talks to.

    Attributes
    ----------
    requeue : callable
        Starts a run again, or what is missing of it; returns what it did in words.
    wake : callable
        Makes the assembler look now.
    is_ready : callable
        Whether the node takes studies.
    progress : mapping
        Run id to model to (slices done, slices in all), of readings in progress.
    notes : NotesStore or None
        Where clinical notes are kept; None where the site has them off.
    assistant : APIRouter or None
        The endpoints of the assistant; None where the site has it off.
    """

    ledger: Ledger
    stow: StowService
    site_key: bytes
    metrics: Metrics
    clock: Clock
    requeue: Callable[[str], str]
    wake: Callable[[], None]
    is_ready: Callable[[], bool]
    progress: Progress
    notes: NotesStore | None = None
    assistant: APIRouter | None = None


def build_api(ports: ApiPorts, *, token: str | None, version: str) -> FastAPI:
    """Return the HTTP application.

    Parameters
    ----------
    token : str or None
        Bearer token that every request but the health checks must carry.
    version : str
        Version of Preread, for the OpenAPI description.
    """
    api = FastAPI(
        title="Preread",
        version=version,
        docs_url="/api/docs",
        openapi_url="/api/openapi.json",
        redoc_url=None,
    )
    _add_error_answers(api)
    api.include_router(_health(ports))
    guarded = [Depends(_require_token(token))]
    for router in (_metrics(ports), _dicomweb(ports), _studies(ports), _runs(ports)):
        api.include_router(router, dependencies=guarded)
    if ports.assistant is not None:
        api.include_router(ports.assistant, dependencies=guarded)
    return api


def _add_error_answers(api: FastAPI) -> None:
    @api.exception_handler(PermanentError)
    async def refuse(_request: Request, error: PermanentError) -> JSONResponse:
        is_unknown = isinstance(error, UnknownRunError)
        code = status.HTTP_404_NOT_FOUND if is_unknown else status.HTTP_400_BAD_REQUEST
        return JSONResponse({"detail": str(error)}, status_code=code)

    @api.exception_handler(TransientError)
    async def postpone(_request: Request, error: TransientError) -> JSONResponse:
        return JSONResponse(
            {"detail": str(error)},
            status_code=status.HTTP_503_SERVICE_UNAVAILABLE,
            headers={"Retry-After": _RETRY_AFTER_S},
        )

    @api.exception_handler(Exception)
    async def fail(_request: Request, error: Exception) -> JSONResponse:
        log.error("request_failed", error=describe_error(error))
        return JSONResponse(
            {"detail": "The node could not answer; its log says why."},
            status_code=status.HTTP_500_INTERNAL_SERVER_ERROR,
        )


def _health(ports: ApiPorts) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", response_class=PlainTextResponse, summary="The process is alive")
    def health() -> str:
        return "ok"

    @router.get("/readyz", response_class=PlainTextResponse, summary="The node takes studies")
    def ready(response: Response) -> str:
        if not ports.is_ready():
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
            return "the node is starting, or its disk is full"
        return "ready"

    return router


def _metrics(ports: ApiPorts) -> APIRouter:
    router = APIRouter(tags=["metrics"])

    @router.get("/metrics", response_class=PlainTextResponse, summary="Prometheus metrics")
    def show_metrics() -> PlainTextResponse:
        for state, count in ports.ledger.count_instances().items():
            ports.metrics.instances.labels(str(state)).set(count)
        return PlainTextResponse(ports.metrics.render(), media_type="text/plain; version=0.0.4")

    return router


def _dicomweb(ports: ApiPorts) -> APIRouter:
    router = APIRouter(prefix="/dicom-web", tags=["dicomweb"])

    @router.post("/studies", summary="STOW-RS: store instances")
    @router.post("/studies/{study_uid}", summary="STOW-RS: store instances of a study")
    async def store_instances(request: Request, study_uid: str | None = None) -> Response:
        peer = request.client.host if request.client else ""
        answer = await ports.stow.store(request.headers, request.stream(), peer, study_uid)
        ports.wake()
        return JSONResponse(answer.body, status_code=answer.status, media_type="application/dicom+json")

    return router


def _studies(ports: ApiPorts) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["studies"])
    ledger = ports.ledger

    @router.post(
        "/studies/{study_uid}/stable",
        status_code=status.HTTP_202_ACCEPTED,
        summary="A source says that a study is complete there",
    )
    def note_stable(study_uid: str, notice: StableNotice) -> dict[str, str]:
        study_key, now = derive_study_key(study_uid, ports.site_key), ports.clock()
        if notice.instances is not None:
            ledger.note_expected(study_key, notice.instances, now)
        ledger.note_stable(study_key, now)
        log.info("study_announced_stable", study_key=study_key, instances=notice.instances)
        ports.wake()
        return {"study_key": study_key}

    @router.put("/studies/{study_uid}/notes", summary="Give the clinical notes of a study before it is read")
    def keep_study_notes(study_uid: str, note: Note) -> NoteKept:
        return _keep_note(ports, derive_study_key(study_uid, ports.site_key), note)

    @router.get("/studies", summary="The studies last received")
    def list_studies(limit: Limit = 100) -> list[dict[str, Any]]:
        return [asdict(row) for row in ledger.study_overview(limit)]

    @router.get("/worklist", summary="The studies in the order in which people should look at them")
    def list_worklist(limit: Limit = 100) -> list[dict[str, Any]]:
        return [asdict(row) for row in ledger.worklist(limit)]

    @router.get("/studies/{study_key}/runs", summary="The runs of a study, oldest first")
    def list_runs(study_key: str) -> list[dict[str, Any]]:
        return [_show_run(ports, row) for row in ledger.runs_of(StudyKey(study_key))]

    @router.get("/quarantine", summary="Instances that could not be read, with their reason")
    def list_quarantine(limit: Limit = 100) -> list[dict[str, Any]]:
        return [_show_instance(row) for row in ledger.quarantined(limit)]

    @router.get("/conflicts", summary="Instances that came under a known UID with other content")
    def list_conflicts(limit: Limit = 100) -> list[dict[str, Any]]:
        return [_show_instance(row) for row in ledger.conflicts(limit)]

    return router


def _runs(ports: ApiPorts) -> APIRouter:
    router = APIRouter(prefix="/api/runs", tags=["runs"])

    @router.get("/{run_id}", summary="One run: state, routing decision, deliveries")
    def show_run(run_id: str) -> dict[str, Any]:
        return _show_run(ports, ports.ledger.run(run_id))

    @router.put("/{run_id}/notes", summary="Give the clinical notes of a run's study, until it is drafted")
    def keep_run_notes(run_id: str, note: Note) -> NoteKept:
        return _keep_note(ports, ports.ledger.run(run_id).run.study_key, note)

    @router.post(
        "/{run_id}/requeue",
        status_code=status.HTTP_202_ACCEPTED,
        summary="Deliver again what was refused, or read the study again",
    )
    def requeue_run(run_id: str) -> Requeued:
        return Requeued(run_id=run_id, action=ports.requeue(run_id))

    return router


def _keep_note(ports: ApiPorts, study_key: StudyKey, note: Note) -> NoteKept:
    if ports.notes is None:
        raise PermanentError("Clinical notes are off: set clinical.enabled to have them read.")
    ports.notes.write(study_key, note.text)
    log.info("clinical_note_kept", study_key=study_key)
    return NoteKept(study_key=study_key)


def _require_token(token: str | None) -> Callable[[str | None], None]:
    def check(authorization: Annotated[str | None, Header()] = None) -> None:
        if token is None:
            return
        given = (authorization or "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(
                status.HTTP_401_UNAUTHORIZED,
                "Send the site's token: Authorization: Bearer ...",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def _show_instance(row: StoredInstance) -> dict[str, Any]:
    shown = ("instance_id", "received_at", "source_ae", "study_key", "reason")
    return {name: getattr(row, name) for name in shown}


def _show_run(ports: ApiPorts, row: RunRow) -> dict[str, Any]:
    run_id = row.run.run_id
    running = ports.progress.get(run_id, {})
    return {
        **asdict(row),
        "progress": {model: {"done": done, "total": total} for model, (done, total) in running.items()},
        "objects": [asdict(item) for item in ports.ledger.objects_of(run_id)],
        "deliveries": [asdict(delivery) for delivery in ports.ledger.deliveries_of(run_id)],
    }
