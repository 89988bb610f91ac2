"""The states of payment intents and exchanges: what time and a transfer's end make of them. Pure.

    payment intent   requires_payment ─► processing ─► succeeded         automatic capture
                     requires_payment ─► requires_capture ─► processing ─► succeeded       manual: reserved, then captured
                     back to where it was when the payment fails; requires_payment ─► expired; canceled from either
    exchange         offered ─► processing ─► settled | failed;  offered ─► canceled | expired

A transfer under way decides: while there is one, time passes without effect, and nobody cancels.
"""

from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from gateway.projection import Status

RESERVED_MS = 7 * 24 * 3600 * 1000
"""How long an authorized amount stays reserved for its capture."""
Changes = dict[str, Any]
"""New values of a row's columns; empty when it stays as it is."""


class IntentStatus(StrEnum):
    REQUIRES_PAYMENT = "requires_payment"
    PROCESSING = "processing"
    REQUIRES_CAPTURE = "requires_capture"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    EXPIRED = "expired"


class ExchangeStatus(StrEnum):
    OFFERED = "offered"
    PROCESSING = "processing"
    SETTLED = "settled"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class End(NamedTuple):
    """How a transfer stands: committed, failed (rejected or expired, with a code), or neither yet."""

    committed: bool
    failed: bool
    code: str

    @classmethod
    def of(cls, status: str, code: str) -> "End":
        """From what a transfer's row says."""
        failed = Status(status) in (Status.REJECTED, Status.EXPIRED)
        return cls(status == Status.COMMITTED, failed, (code or status) if failed else "")


class Intent(Protocol):
    """A row of ``PaymentIntent``, as far as it decides."""

    @property
    def status(self) -> str: ...
    @property
    def capturing(self) -> int: ...
    @property
    def capture_before(self) -> int | None: ...
    @property
    def expires_at(self) -> int: ...


def intent_changes(intent: Intent, end: End | None, now: int) -> Changes:
    """What becomes of a payment intent whose transfer, if it has one, stands as ``end`` says."""
    match intent.status:
        case IntentStatus.PROCESSING if end is not None and end.committed:
            return {"status": IntentStatus.SUCCEEDED, "amount_captured": intent.capturing, "capturing": 0}
        case IntentStatus.PROCESSING if end is not None and end.failed:
            return _unpaid(intent, end.code, now)
        case IntentStatus.REQUIRES_PAYMENT if now >= intent.expires_at:
            return {"status": IntentStatus.EXPIRED}
        case IntentStatus.REQUIRES_CAPTURE if intent.capture_before is not None and now >= intent.capture_before:
            return {"status": IntentStatus.CANCELED, "code": "authorization_expired"}
    return {}


def _unpaid(intent: Intent, code: str, now: int) -> Changes:
    """Its payment has failed: as before, unless the time for that is over."""
    changes: Changes = {"code": code, "capturing": 0, "transfer_id": None}
    if intent.capture_before is not None:
        late = now >= intent.capture_before
        return changes | {"status": IntentStatus.CANCELED if late else IntentStatus.REQUIRES_CAPTURE}
    late = now >= intent.expires_at
    nobody = {"payer_id": None, "payer_wallet_id": None, "payer_address": None}
    return changes | nobody | {"status": IntentStatus.EXPIRED if late else IntentStatus.REQUIRES_PAYMENT}


def intent_deadline(intent: Intent) -> int | None:
    """When time changes its state, if nothing else does before, ms."""
    deadlines = {
        IntentStatus.REQUIRES_PAYMENT: intent.expires_at,
        IntentStatus.REQUIRES_CAPTURE: intent.capture_before,
    }
    return deadlines.get(IntentStatus(intent.status))


def exchange_changes(status: str, end: End | None, expires_at: int, now: int) -> Changes:
    """What becomes of an exchange whose transfer, if it has one, stands as ``end`` says."""
    match status:
        case ExchangeStatus.PROCESSING if end is not None and end.committed:
            return {"status": ExchangeStatus.SETTLED}
        case ExchangeStatus.PROCESSING if end is not None and end.failed:
            return {"status": ExchangeStatus.FAILED, "code": end.code}
        case ExchangeStatus.OFFERED if now >= expires_at:
            return {"status": ExchangeStatus.EXPIRED}
    return {}


def next_look(waited: float) -> float:
    """Seconds until a transfer under way for ``waited`` seconds is looked at again: often at first, when most end."""
    return min(max(waited / 4, 0.1), 2.0)
