"""Events as users get them: JSON, made when it is sent."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, select

from gateway.database import Transfer
from gateway.projection import Tracked
from gateway.rows import tracked_row
from gateway.times import iso

EventType = Literal[
    "transfer.committed",
    "transfer.rejected",
    "transfer.expired",
    "transfer.received",
    "purchase.completed",
    "purchase.declined",
    "purchase.failed",
    "purchase.disputed",
    "purchase.refunded",
    "purchase.requires_action",
    "payout.sent",
    "payout.paid",
    "payout.returned",
    "payout.failed",
    "refund.succeeded",
    "refund.failed",
    "payment_intent.processing",
    "payment_intent.requires_capture",
    "payment_intent.succeeded",
    "payment_intent.canceled",
    "payment_intent.expired",
    "payment_intent.refunded",
    "exchange.settled",
    "exchange.failed",
    "payment_file.completed",
    "payment_file.canceled",
    "scheduled_payment.paid",
    "scheduled_payment.retrying",
    "scheduled_payment.failed",
]


class Shown(NamedTuple):
    """``body``: the event as JSON, on one line."""

    id: int
    type: str
    body: bytes


class Shower:
    """Shows events. ``transfer``: what ``GET /v1/transfers/{id}`` says of one."""

    def __init__(self, transfer: Callable[[Tracked], dict[str, Any]]) -> None:
        self._transfer = transfer

    def show(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Shown]:
        """Rows of ``Event``, with one query for all transfers among them."""
        wanted = {bytes.fromhex(row.subject) for row in rows if not row.data}
        found: dict[str, bytes] = {}
        if wanted:
            query = select(Transfer.__table__).where(Transfer.transaction_id.in_(wanted))
            for transfer in connection.execute(query).mappings():
                view = self._transfer(tracked_row(transfer))
                found[view["id"]] = msgspec.json.encode(view)
        return [Shown(row.id, row.type, _body(row, row.data.encode() or found[row.subject])) for row in rows]


def _body(row: Row[Any], data: bytes) -> bytes:
    event = {"id": str(row.id), "type": row.type, "created_at": iso(row.created_at), "data": msgspec.Raw(data)}
    return msgspec.json.encode(event)
