"""Adapter: stores DICOM objects in a PACS over DICOMweb (STOW-RS), and proves it by QIDO-RS.

The multipart writer is our own: objects are streamed from file with a known
length, and one request is one attempt. An answer counts object by object: a
200 that does not name an object is no success for it.

References
----------
DICOM PS3.18 10.5 (Store Transaction), Annex I (Store Instances Response Module).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pydicom

from dicom_node.clock import Clock
from integration.connections import (
    HttpEndpoint,
    check_destination_status,
    open_http_client,
    translate_http_errors,
)
from integration.delivery import (
    Awaiting,
    DeliveryItem,
    DestinationProfile,
    DestinationRejectedError,
    DestinationUnavailableError,
    Receipt,
    ReceiptState,
)
from integration.dicomweb import DicomWebReader
from integration.statuses import STOW_FAILURE_REASONS, Verdict, classify

#: Most bytes of one request, unless a single object is larger: many archives hold a request in memory.
MAX_REQUEST_BYTES = 50 * 1000 * 1000
_CHUNK_BYTES = 1 << 18
_OK, _ACCEPTED, _CONFLICT = 200, 202, 409

_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_SEQUENCE = "00081199"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_FAILURE_REASON = "00081197"
_WARNING_REASON = "00081196"


class MultipartBody:
    """A multipart/related body of DICOM files, streamed from disk and readable more than once.

    Parameters
    ----------
    paths : sequence of Path
        Part-10 files.

    References
    ----------
    RFC 2387; PS3.18 8.6.1.2.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._sizes = tuple(path.stat().st_size for path in self._paths)
        name = hashlib.sha256("\n".join(map(str, self._paths)).encode()).hexdigest()[:32]
        self._boundary = f"preread-{name}"
        self._opening = f"--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._closing = f"--{self._boundary}--\r\n".encode()

    @property
    def headers(self) -> dict[str, str]:
        """Content-Type and Content-Length."""
        overhead = len(self._paths) * (len(self._opening) + len(b"\r\n")) + len(self._closing)
        media_type = f'multipart/related; type="application/dicom"; boundary={self._boundary}'
        return {"Content-Type": media_type, "Content-Length": str(sum(self._sizes) + overhead)}

    def __iter__(self) -> Iterator[bytes]:
        for path in self._paths:
            yield self._opening
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
            yield b"\r\n"
        yield self._closing


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """What a Store Instances Response Module says: reasons by SOP Instance UID, None where not given."""

    stored: Mapping[str, int | None]
    failed: Mapping[str, int | None]


class StowDestination:
    """A PACS reached over STOW-RS.

    Parameters
    ----------
    profile : DestinationProfile
        Name and wishes.
    endpoint : HttpEndpoint
        The DICOMweb root.
    is_confirmed_by_query : bool
        Ask by QIDO-RS before an object counts as confirmed; False takes the
        answer's word (for archives without QIDO-RS).
    confirm_timeout_s : float
        How long an accepted object may be missing from QIDO-RS before it is sent again, seconds.
    clock : callable
        Returns the present time, aware UTC.
    """

    def __init__(
        self,
        *,
        profile: DestinationProfile,
        endpoint: HttpEndpoint,
        is_confirmed_by_query: bool,
        confirm_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._profile = profile
        self._endpoint = endpoint
        self._is_confirmed_by_query = is_confirmed_by_query
        self._confirm_timeout_s = confirm_timeout_s
        self._clock = clock

    @property
    def profile(self) -> DestinationProfile:
        """What this destination wants."""
        return self._profile

    def send(self, items: Sequence[DeliveryItem]) -> Iterator[Receipt]:
        """Store the objects, at most about 50 MB a request.

        Raises
        ------
        DestinationUnavailableError
            If there is no usable answer.
        DestinationRejectedError
            If an object is missing from the run folder.
        """
        with open_http_client(self._endpoint) as client:
            for batch in split_batches(items, MAX_REQUEST_BYTES):
                yield from self._store(client, batch)

    def confirm(self, awaiting: Sequence[Awaiting]) -> Iterator[Receipt]:
        """Look for sent objects by QIDO-RS; those missing too long are to be sent again."""
        if not self._is_confirmed_by_query:
            for entry in awaiting:
                yield _receipt(entry.item, ReceiptState.CONFIRMED, f"{entry.detail}; not confirmed by query")
            return
        with DicomWebReader(self._endpoint) as reader:
            for entry in awaiting:
                waited_s = (self._clock() - entry.sent_at).total_seconds()
                if reader.has_instance(_study_uid(entry.item), entry.item.object_uid):
                    yield _receipt(entry.item, ReceiptState.CONFIRMED, f"{entry.detail}; found by QIDO-RS")
                elif waited_s >= self._confirm_timeout_s:
                    detail = f"accepted but not found by QIDO-RS after {waited_s:.0f} s: sent again"
                    yield _receipt(entry.item, ReceiptState.FAILED, detail, retry=True)

    def _store(self, client: httpx.Client, batch: Sequence[DeliveryItem]) -> Iterator[Receipt]:
        response = self._post(client, batch)
        answer = parse_store_answer(response.content)
        is_refused_whole = response.status_code not in {_OK, _ACCEPTED} and answer is None
        if is_refused_whole and len(batch) > 1:  # one bad object must not take the others with it
            for item in batch:
                yield from self._store(client, [item])
            return
        for receipt, item in zip(judge_store_answer(response.status_code, answer, batch), batch, strict=True):
            is_final = receipt.state is ReceiptState.FAILED and not receipt.retry
            yield self._look_twice(receipt, item) if is_final else receipt

    def _post(self, client: httpx.Client, batch: Sequence[DeliveryItem]) -> httpx.Response:
        try:
            body = MultipartBody([item.path for item in batch])
            headers = {**body.headers, "Accept": "application/dicom+json"}
            with translate_http_errors("STOW-RS"):
                response = client.post(f"{self._endpoint.base_url}/studies", content=body, headers=headers)
        except OSError as error:
            raise DestinationRejectedError(
                "the run folder lacks a result object: encode the run again"
            ) from error
        check_destination_status("STOW-RS", response, self._clock())
        return response

    def _look_twice(self, refusal: Receipt, item: DeliveryItem) -> Receipt:
        """Return the refusal, unless the object is there: an attempt whose answer was lost stored it."""
        if not self._is_confirmed_by_query:
            return refusal
        try:
            with DicomWebReader(self._endpoint) as reader:
                is_there = reader.has_instance(_study_uid(item), item.object_uid)
        except DestinationUnavailableError:
            return refusal
        if not is_there:
            return refusal
        return _receipt(item, ReceiptState.SENT, f"already stored ({refusal.detail})")


def split_batches(items: Sequence[DeliveryItem], max_bytes: int) -> tuple[tuple[DeliveryItem, ...], ...]:
    """Return the objects in order, in groups of at most so many bytes; a larger object goes alone.

    Raises
    ------
    DestinationRejectedError
        If an object is missing from the run folder.
    """
    batches: list[list[DeliveryItem]] = []
    room = 0
    for item in items:
        try:
            size = item.path.stat().st_size
        except OSError as error:
            raise DestinationRejectedError(
                "the run folder lacks a result object: encode the run again"
            ) from error
        if not batches or size > room:
            batches.append([])
            room = max_bytes
        batches[-1].append(item)
        room -= size
    return tuple(tuple(batch) for batch in batches)


def parse_store_answer(body: bytes) -> StoreAnswer | None:
    """Return what a response body says of each object; None if it says nothing readable.

    References
    ----------
    PS3.18 Annex I, in the DICOM JSON Model (Annex F).
    """
    try:
        module = json.loads(body)
        module = module[0] if isinstance(module, list) else module
        stored = _reasons(module, _REFERENCED_SOP_SEQUENCE, _WARNING_REASON)
        failed = _reasons(module, _FAILED_SOP_SEQUENCE, _FAILURE_REASON)
    except (ValueError, TypeError, AttributeError, LookupError):
        return None
    return StoreAnswer(stored=stored, failed=failed) if stored or failed else None


def judge_store_answer(
    status: int, answer: StoreAnswer | None, items: Sequence[DeliveryItem]
) -> tuple[Receipt, ...]:
    """Return one receipt per object of a request.

    Parameters
    ----------
    status : int
        HTTP status, not one that concerns the destination as a whole.
    answer : StoreAnswer or None
        What the body says.
    items : sequence of DeliveryItem
        The objects of the request.

    Returns
    -------
    tuple of Receipt
        In the order of ``items``.
    """
    return tuple(_judge(status, answer, item) for item in items)


def _judge(status: int, answer: StoreAnswer | None, item: DeliveryItem) -> Receipt:
    is_success = status in {_OK, _ACCEPTED}
    if answer is None:
        if is_success:
            detail = f"STOW-RS: HTTP {status} without a word about each object"
            return _receipt(item, ReceiptState.SENT, detail)
        return _receipt(item, ReceiptState.FAILED, f"STOW-RS: HTTP {status}, refused without a reason")
    if item.object_uid in answer.failed:
        return _judge_failure(status, answer.failed[item.object_uid], item)
    if item.object_uid in answer.stored:
        warning = answer.stored[item.object_uid]
        suffix = "" if warning is None else f", warning 0x{warning:04X}"
        return _receipt(item, ReceiptState.SENT, f"STOW-RS: HTTP {status}, stored{suffix}")
    detail = f"STOW-RS: HTTP {status}, the answer does not name this object"
    return _receipt(item, ReceiptState.FAILED, detail, retry=True)


def _judge_failure(status: int, reason: int | None, item: DeliveryItem) -> Receipt:
    if reason is None:
        detail = f"STOW-RS: HTTP {status}, failed without a reason"
        return _receipt(item, ReceiptState.FAILED, detail, retry=status != _CONFLICT)
    row = classify(reason, STOW_FAILURE_REASONS)
    detail = f"STOW-RS: HTTP {status}, failure reason 0x{reason:04X}: {row.meaning}"
    if row.verdict is Verdict.ACCEPTED:
        return _receipt(item, ReceiptState.SENT, detail)
    return _receipt(item, ReceiptState.FAILED, detail, retry=row.verdict is Verdict.RETRY)


def _reasons(module: Mapping[str, object], sequence: str, reason: str) -> dict[str, int | None]:
    element = module.get(sequence)
    items = element.get("Value", []) if isinstance(element, dict) else []
    reasons: dict[str, int | None] = {}
    for item in items:
        value = item.get(reason, {}).get("Value")
        reasons[str(item[_REFERENCED_SOP_INSTANCE_UID]["Value"][0])] = int(value[0]) if value else None
    return reasons


def _receipt(item: DeliveryItem, state: ReceiptState, detail: str, *, retry: bool = False) -> Receipt:
    return Receipt(object_uid=item.object_uid, state=state, detail=detail, retry=retry)


def _study_uid(item: DeliveryItem) -> str:
    """Return the Study Instance UID of an object's file."""
    try:
        header = pydicom.dcmread(item.path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        return str(header.StudyInstanceUID)
    except (OSError, AttributeError, pydicom.errors.InvalidDicomError) as error:
        raise DestinationRejectedError(
            "a result object is missing from the run folder or not readable: encode the run again"
        ) from error
