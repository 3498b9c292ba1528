"""Pure. What a destination's answer means: the status tables of the standards, to be laid beside them.

One row per status or range; everything a destination can say ends in one of
three verdicts. Adapters translate wire answers with these tables and decide
nothing about retrying by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What to do after an answer."""

    ACCEPTED = "accepted"
    """The object is stored."""
    RETRY = "retry"
    """The object is not stored; the same request may succeed later."""
    REFUSED = "refused"
    """The object is not stored; the same request will fail again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """One line of a status table: codes ``first`` to ``last`` inclusive."""

    first: int
    last: int
    verdict: Verdict
    meaning: str


def _row(first: int, verdict: Verdict, meaning: str, last: int | None = None) -> StatusRow:
    return StatusRow(first=first, last=first if last is None else last, verdict=verdict, meaning=meaning)


#: C-STORE response Status (0000,0900). PS3.4 Table B.2-1, PS3.7 Annex C; 0xA8xx from retired editions.
C_STORE_STATUSES: tuple[StatusRow, ...] = (
    _row(0x0000, Verdict.ACCEPTED, "success"),
    _row(0xB000, Verdict.ACCEPTED, "stored, data elements coerced"),
    _row(0xB006, Verdict.ACCEPTED, "stored, data elements discarded"),
    _row(0xB007, Verdict.ACCEPTED, "stored, data set does not match SOP Class"),
    _row(0xB000, Verdict.ACCEPTED, "stored with a warning", 0xBFFF),
    _row(0xA700, Verdict.RETRY, "out of resources", 0xA7FF),
    _row(0xA800, Verdict.REFUSED, "SOP Class not supported", 0xA8FF),
    _row(0xA900, Verdict.REFUSED, "data set does not match SOP Class", 0xA9FF),
    _row(0xC000, Verdict.REFUSED, "cannot understand", 0xCFFF),
    _row(0x0110, Verdict.RETRY, "processing failure"),
    _row(0x0111, Verdict.ACCEPTED, "already stored (duplicate SOP Instance)"),
    _row(0x0117, Verdict.REFUSED, "invalid SOP Instance"),
    _row(0x0122, Verdict.REFUSED, "SOP Class not supported"),
    _row(0x0124, Verdict.RETRY, "not authorised"),
    _row(0x0210, Verdict.RETRY, "duplicate invocation"),
    _row(0x0211, Verdict.REFUSED, "unrecognised operation"),
    _row(0x0212, Verdict.REFUSED, "mistyped argument"),
    _row(0x0213, Verdict.RETRY, "resource limitation"),
)

#: Failure Reason (0008,1197) of a STOW-RS response. PS3.18 Table I.2-2, which allows further codes:
#: 0x0111 is used for a duplicate by several archives, 0xB00E and 0xB00F by the Azure DICOM service
#: (its conformance statement: 45070 already stored, 45071 being stored by another request).
STOW_FAILURE_REASONS: tuple[StatusRow, ...] = (
    _row(0x0111, Verdict.ACCEPTED, "already stored (duplicate SOP Instance)"),
    _row(0xB00E, Verdict.ACCEPTED, "already stored"),
    _row(0xB00F, Verdict.RETRY, "being stored by another request"),
    _row(0xA700, Verdict.RETRY, "out of resources", 0xA7FF),
    _row(0xA900, Verdict.REFUSED, "data set does not match SOP Class", 0xA9FF),
    _row(0xC122, Verdict.REFUSED, "transfer syntax not supported"),
    _row(0xC000, Verdict.REFUSED, "cannot understand", 0xCFFF),
    _row(0x0110, Verdict.RETRY, "processing failure"),
    _row(0x0122, Verdict.REFUSED, "SOP Class not supported"),
    _row(0x0124, Verdict.RETRY, "not authorised"),
)

#: Failure Reason (0008,1197) of a storage commitment report. PS3.3 C.14.1.1.
#: RETRY means: send the object again, then ask again.
COMMITMENT_FAILURE_REASONS: tuple[StatusRow, ...] = (
    _row(0x0110, Verdict.RETRY, "processing failure"),
    _row(0x0112, Verdict.RETRY, "no such object instance"),
    _row(0x0213, Verdict.RETRY, "resource limitation"),
    _row(0x0131, Verdict.RETRY, "duplicate transaction UID"),
    _row(0x0122, Verdict.REFUSED, "referenced SOP Class not supported"),
    _row(0x0119, Verdict.REFUSED, "class and instance conflict"),
)

#: HTTP status codes that concern the destination and not the object (RFC 9110, RFC 6585): whatever
#: is sent, the answer is the same until somebody or time repairs it. They are retried, so that an
#: expired password or a stopped archive costs a delay and never a result.
HTTP_DESTINATION_STATUSES: tuple[StatusRow, ...] = (
    _row(300, Verdict.RETRY, "redirect: set the final address", 399),
    _row(401, Verdict.RETRY, "not authenticated: check the credentials"),
    _row(403, Verdict.RETRY, "not authorised: check the permissions of this node"),
    _row(404, Verdict.RETRY, "no such service: check the address"),
    _row(405, Verdict.RETRY, "method not offered: check the address"),
    _row(407, Verdict.RETRY, "proxy wants authentication"),
    _row(408, Verdict.RETRY, "request timeout"),
    _row(421, Verdict.RETRY, "misdirected request: check the address"),
    _row(423, Verdict.RETRY, "locked"),
    _row(425, Verdict.RETRY, "too early"),
    _row(429, Verdict.RETRY, "too many requests"),
    _row(500, Verdict.RETRY, "server error", 599),
)

#: FHIR transaction (R4 http.html#transaction-response): what else is worth another attempt.
#: 409 and 412 come from concurrent or ambiguous conditional writes and heal when the other writer
#: is done or somebody merges the duplicates.
FHIR_STATUSES: tuple[StatusRow, ...] = (
    _row(200, Verdict.ACCEPTED, "done", 299),
    _row(409, Verdict.RETRY, "conflicts with another write"),
    _row(412, Verdict.RETRY, "a conditional write matches several records: merge the duplicates"),
    *HTTP_DESTINATION_STATUSES,
)

#: What an unlisted status means: nothing a standard promises to heal.
UNKNOWN_STATUS_MEANING = "refused"


def classify(code: int, table: tuple[StatusRow, ...]) -> StatusRow:
    """Return the first row of a table that covers a code.

    Parameters
    ----------
    code : int
        Status or reason as received.
    table : tuple of StatusRow
        One of the tables of this module.

    Returns
    -------
    StatusRow
        The row; for an unlisted code one that refuses it.
    """
    for row in table:
        if row.first <= code <= row.last:
            return row
    return _row(code, Verdict.REFUSED, UNKNOWN_STATUS_MEANING)
