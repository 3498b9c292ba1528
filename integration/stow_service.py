"""Adapter: STOW-RS (PS3.18 10.5): the intake over HTTP.

Each instance of a request goes through the same intake as C-STORE and is
answered for on its own; what could be stored is stored, whatever happens to the
rest.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pydicom
import structlog

from dicom_node.clock import Clock
from dicom_node.errors import PermanentError, TransientError
from dicom_node.intake import Intake, Provenance
from dicom_node.ledger import Ledger
from dicom_node.part10 import FileMeta, NotPartTenError, split_part10
from integration.multipart import MultipartError, MultipartReader, Part, boundary_of

#: What the ledger calls senders over HTTP that give no name.
STOW_SOURCE: Final = "STOW-RS"
#: PS3.18 table I.2-2, by the meaning they have here.
OUT_OF_RESOURCES: Final = 0xA700
MISMATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000

_HTTP_OK, _HTTP_ACCEPTED, _HTTP_CONFLICT, _HTTP_UNAVAILABLE = 200, 202, 409, 503

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StowAnswer:
    """HTTP status and DICOM JSON body."""

    status: int
    body: dict[str, Any]


@dataclass(slots=True)
class _Outcome:
    stored: list[FileMeta] = field(default_factory=list)
    failed: list[tuple[FileMeta, int]] = field(default_factory=list)


class StowService:
    """Takes STOW-RS requests.

    Parameters
    ----------
    maximum_instance_bytes : int
        Largest instance taken.
    """

    def __init__(self, *, intake: Intake, ledger: Ledger, clock: Clock, maximum_instance_bytes: int) -> None:
        self._intake = intake
        self._ledger = ledger
        self._clock = clock
        self._maximum = maximum_instance_bytes

    async def store(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], peer: str, study_uid: str | None
    ) -> StowAnswer:
        """Store every instance of a multipart/related request.

        Parameters
        ----------
        headers : mapping
            Request headers, by lower-case name.
        body : async iterator of bytes
            The request's body as it arrives.
        peer : str
            Address of the sender.
        study_uid : str or None
            Take instances of this study only.

        Raises
        ------
        MultipartError
            If the body is not what its headers announce. What came before is stored.
        """
        media_type, boundary = boundary_of(headers.get("content-type", ""))
        if media_type != "application/dicom":
            raise MultipartError('Send the instances as Part 10 files: type="application/dicom".')
        reader = MultipartReader(boundary, maximum_part_bytes=self._maximum)
        provenance = Provenance(
            source_ae=STOW_SOURCE, source_address=peer, association_id=f"stow-{uuid.uuid4().hex}"
        )
        outcome = _Outcome()
        await asyncio.to_thread(
            self._ledger.open_association, provenance.association_id, provenance.source_ae, self._clock()
        )
        is_broken = True
        try:
            async for chunk in body:
                for part in reader.feed(chunk):
                    await asyncio.to_thread(self._take, part, provenance, study_uid, outcome)
            is_broken = not reader.is_finished
        finally:
            await asyncio.to_thread(
                self._ledger.close_association, provenance.association_id, self._clock(), aborted=is_broken
            )
        if is_broken:
            raise MultipartError("The body ended before its closing boundary; send the request again.")
        return _answer(outcome)

    def _take(self, part: Part, provenance: Provenance, study_uid: str | None, outcome: _Outcome) -> None:
        meta = FileMeta()
        try:
            pieces = split_part10(part.content)
            meta = pieces.meta()
            if study_uid is not None and not _belongs_to(part.content, study_uid):
                outcome.failed.append((meta, MISMATCH))
                return
            self._intake.accept(pieces, provenance)
        except NotPartTenError:
            outcome.failed.append((meta, CANNOT_UNDERSTAND))
        except TransientError:
            outcome.failed.append((meta, OUT_OF_RESOURCES))
        except PermanentError:
            outcome.failed.append((meta, CANNOT_UNDERSTAND))
        else:
            outcome.stored.append(meta)


def _belongs_to(part10: bytes, study_uid: str) -> bool:
    try:
        dataset = pydicom.dcmread(
            io.BytesIO(part10), stop_before_pixels=True, specific_tags=["StudyInstanceUID"]
        )
    except Exception:  # noqa: BLE001 - pydicom raises anything on hostile bytes; the intake judges those
        return True
    return str(dataset.get("StudyInstanceUID", "")) == study_uid


def _answer(outcome: _Outcome) -> StowAnswer:
    """Return status and body as PS3.18 10.5.3 and Table I.1-2 want them."""
    body: dict[str, Any] = {}
    if outcome.stored:
        body["00081199"] = {"vr": "SQ", "Value": [_reference(meta) for meta in outcome.stored]}
    if outcome.failed:
        body["00081198"] = {
            "vr": "SQ",
            "Value": [
                {**_reference(meta), "00081197": {"vr": "US", "Value": [why]}} for meta, why in outcome.failed
            ],
        }
        log.warning("stow_instances_refused", count=len(outcome.failed))
    return StowAnswer(status=_status(outcome), body=body)


def _status(outcome: _Outcome) -> int:
    if not outcome.failed:
        return _HTTP_OK
    if outcome.stored:
        return _HTTP_ACCEPTED
    is_full = all(why == OUT_OF_RESOURCES for _meta, why in outcome.failed)
    return _HTTP_UNAVAILABLE if is_full else _HTTP_CONFLICT


def _reference(meta: FileMeta) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [meta.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [meta.sop_instance_uid]},
    }
