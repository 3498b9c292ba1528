"""Adapter: the node over HTTP: STOW-RS in, notifications, status, requeue, metrics.

Thin: a request is checked, handed to the room that knows, and answered. Study
Instance UIDs appear in paths and bodies, never in logs; access logs are off.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, status
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from dicom_node.clock import Clock
from dicom_node.errors import PermanentError, TransientError
from dicom_node.ledger import Ledger, UnknownRunError
from dicom_node.study import StudyKey, derive_study_key
from integration.observability import Metrics, describe_error
from integration.stow_service import StowService

log = structlog.get_logger(__name__)


class StableNotice(BaseModel):
    """What a source says of a study that stopped changing there."""

    model_config = ConfigDict(extra="forbid")

    instances: int | None = Field(None, ge=1, description="Instances that the study has at the source.")


class Requeued(BaseModel):
    """What a requeue set in motion."""

    run_id: str
    action: str


def build_api(
    *,
    ledger: Ledger,
    stow: StowService,
    site_key: bytes,
    metrics: Metrics,
    clock: Clock,
    requeue: Callable[[str], str],
    wake: Callable[[], None],
    is_ready: Callable[[], bool],
    token: str | None,
    progress: Mapping[str, Mapping[str, tuple[int, int]]],
    version: str,
) -> FastAPI:
    """Return the HTTP application.

    Parameters
    ----------
    requeue : callable
        Starts a run again, or what is missing of it; returns what it did in words.
    wake : callable
        Makes the assembler look now.
    progress : mapping
        Run id to model to (slices done, slices in all), of readings in progress.
    token : str or None
        Bearer token that every request but the health checks must carry.
    """
    api = FastAPI(title="Preread", version=version, docs_url="/api/docs", openapi_url="/api/openapi.json", redoc_url=None)
    guarded = [Depends(_require_token(token))]

    @api.exception_handler(PermanentError)
    async def refuse(_request: Request, error: PermanentError) -> JSONResponse:
        code = status.HTTP_404_NOT_FOUND if isinstance(error, UnknownRunError) else status.HTTP_400_BAD_REQUEST
        return JSONResponse({"detail": str(error)}, status_code=code)

    @api.exception_handler(TransientError)
    async def postpone(_request: Request, error: TransientError) -> JSONResponse:
        return JSONResponse(
            {"detail": str(error)}, status_code=status.HTTP_503_SERVICE_UNAVAILABLE, headers={"Retry-After": "30"}
        )

    @api.exception_handler(Exception)
    async def fail(_request: Request, error: Exception) -> JSONResponse:
        log.error("request_failed", error=describe_error(error))
        return JSONResponse({"detail": "The node could not answer; its log says why."}, status_code=500)

    @api.get("/healthz", response_class=PlainTextResponse, summary="The process is alive")
    def health() -> str:
        return "ok"

    @api.get("/readyz", response_class=PlainTextResponse, summary="The node takes studies")
    def ready(response: Response) -> str:
        if not is_ready():
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
            return "the node is starting, or its disk is full"
        return "ready"

    @api.get("/metrics", dependencies=guarded, response_class=PlainTextResponse, summary="Prometheus metrics")
    def show_metrics() -> PlainTextResponse:
        return PlainTextResponse(metrics.render(), media_type="text/plain; version=0.0.4")

    @api.post("/dicom-web/studies", dependencies=guarded, summary="STOW-RS: store instances")
    @api.post("/dicom-web/studies/{study_uid}", dependencies=guarded, summary="STOW-RS: store instances of a study")
    async def store_instances(request: Request, study_uid: str | None = None) -> Response:
        answer = await stow.store(request.headers, request.stream(), _peer(request), study_uid)
        wake()
        return JSONResponse(answer.body, status_code=answer.status, media_type="application/dicom+json")

    @api.post(
        "/api/studies/{study_uid}/stable",
        dependencies=guarded,
        status_code=status.HTTP_202_ACCEPTED,
        summary="A source says that a study is complete there",
    )
    def note_stable(study_uid: str, notice: StableNotice) -> dict[str, str]:
        study_key, now = derive_study_key(study_uid, site_key), clock()
        if notice.instances is not None:
            ledger.note_expected(study_key, notice.instances, now)
        ledger.note_stable(study_key, now)
        log.info("study_announced_stable", study_key=study_key, instances=notice.instances)
        wake()
        return {"study_key": study_key}

    @api.get("/api/studies", dependencies=guarded, summary="The studies last received")
    def list_studies(limit: Annotated[int, Field(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        return [asdict(row) for row in ledger.study_overview(limit)]

    @api.get("/api/studies/{study_key}/runs", dependencies=guarded, summary="The runs of a study, oldest first")
    def list_runs(study_key: str) -> list[dict[str, Any]]:
        return [_show_run(ledger, row.run.run_id, progress) for row in ledger.runs_of(StudyKey(study_key))]

    @api.get("/api/runs/{run_id}", dependencies=guarded, summary="One run: state, routing decision, deliveries")
    def show_run(run_id: str) -> dict[str, Any]:
        return _show_run(ledger, run_id, progress)

    @api.post(
        "/api/runs/{run_id}/requeue",
        dependencies=guarded,
        status_code=status.HTTP_202_ACCEPTED,
        summary="Deliver again what was refused, or read the study again",
    )
    def requeue_run(run_id: str) -> Requeued:
        return Requeued(run_id=run_id, action=requeue(run_id))

    @api.get("/api/quarantine", dependencies=guarded, summary="Instances that could not be read, with their reason")
    def list_quarantine(limit: Annotated[int, Field(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        return [
            {"instance_id": row.instance_id, "received_at": row.received_at, "source_ae": row.source_ae, "reason": row.reason}
            for row in ledger.quarantined(limit)
        ]

    return api


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


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


def _show_run(ledger: Ledger, run_id: str, progress: Mapping[str, Mapping[str, tuple[int, int]]]) -> dict[str, Any]:
    row = ledger.run(run_id)
    return {
        **asdict(row),
        "progress": {model: {"done": done, "total": total} for model, (done, total) in progress.get(run_id, {}).items()},
        "objects": [asdict(item) for item in ledger.objects_of(run_id)],
        "deliveries": [asdict(delivery) for delivery in ledger.deliveries_of(run_id)],
    }


