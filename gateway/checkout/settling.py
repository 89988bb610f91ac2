"""What payment intents and exchanges share: a transfer settles them, and a job looks at it until it has ended."""

import re
from typing import NoReturn

from sqlalchemy import Connection, select

from gateway.checkout.states import End, next_look
from gateway.database import Transfer, now_ms
from gateway.problems import Problem
from node.protocol.codes import Code

FIRST_LOOK_MS = 200
"""After which a transfer just begun is looked at; whoever waits for it looks at once when it ends."""
_ID = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether it has the form of an id made here: anything else is no database's business."""
    return _ID.fullmatch(text) is not None


def transfer_end(connection: Connection, transaction_id: bytes | None) -> tuple[End, float]:
    """How a transfer stands, durably, and the seconds until it is worth looking again."""
    query = select(Transfer.status, Transfer.code, Transfer.created_at).where(Transfer.transaction_id == transaction_id)
    row = connection.execute(query).one()
    return End.of(row.status, row.code), next_look((now_ms() - row.created_at) / 1000)


def refuse(code: Code) -> NoReturn:
    """A wallet cannot pay. Raises Problem (409)."""
    raise Problem(409, code, "this wallet has too little for that, by its verified balance and what is under way or reserved")
