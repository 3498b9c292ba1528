"""Pure. The DIMSE statuses that this node answers with, beside their clauses.

Success is said only of what is durable. What fails for a passing reason is
``OUT_OF_RESOURCES``, which senders repeat; the Cannot Understand family is for
requests that will never be right.
"""

from __future__ import annotations

from enum import IntEnum


class StoreStatus(IntEnum):
    """C-STORE-RSP Status (0000,0900).

    ===================  ======  ==========================================================
    SUCCESS              0x0000  PS3.4 B.2.3; PS3.7 C.1.1: file and ledger row are durable
    OUT_OF_RESOURCES     0xA700  PS3.4 Table B.2-1: no room, or store or ledger not available
    CANNOT_UNDERSTAND    0xC000  PS3.4 Table B.2-1: a C-STORE request without a Data Set
    PROCESSING_FAILURE   0x0110  PS3.7 C.5.18: a defect of this node
    ===================  ======  ==========================================================
    """

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    CANNOT_UNDERSTAND = 0xC000


class CommitmentStatus(IntEnum):
    """N-ACTION-RSP and N-EVENT-REPORT-RSP Status of Storage Commitment (PS3.4 J.3.2.1.4, J.3.3.1.4).

    =====================  ======  =====================================================
    SUCCESS                0x0000  PS3.7 C.1.1
    PROCESSING_FAILURE     0x0110  PS3.7 C.5.18: ledger not available, ask again
    NO_SUCH_ACTION         0x0123  PS3.7 C.5.13: action type other than 1
    NOT_AUTHORIZED         0x0124  PS3.7 C.5.21: nobody to report to is configured
    NO_SUCH_EVENT_TYPE     0x0113  PS3.7 C.5.14: event type other than 1 or 2
    INVALID_ARGUMENT       0x0115  PS3.7 C.5.12: Transaction UID or references are missing
    =====================  ======  =====================================================
    """

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT = 0x0115
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) in a storage commitment report (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


class Rejection(tuple[int, int, int]):
    """A-ASSOCIATE-RJ: result, source, reason (PS3.8 Table 9-21)."""

    __slots__ = ()


#: Permanent, by the service user, no reason given: an address that may not associate.
REJECT_ADDRESS = Rejection((0x01, 0x01, 0x01))
