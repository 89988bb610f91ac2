"""The audit log: who did what, when and why. Each entry's hash covers the hash of the one before, so that none can be changed,
removed or put in between without all hashes after it changing; whoever has kept one of them elsewhere notices."""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from gateway.admin.tables import AuditEntry, AuditHead
from gateway.cursors import read_cursor, write_cursor
from gateway.database import now_ms
from gateway.identity.text import one_line

HOST = "host"
"""The actor of what is done by commands on the gateway's host."""
FIRST = bytes(32)
"""What stands for the hash before the first entry."""
MAX_REASON = 500
_AT_ONCE = 1000
_TAG = b"shardpay audit log "


class Head(NamedTuple):
    """The last entry of a log: all that was in it when it had so many entries follows from this."""

    number: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.number} {self.hash.hex()}"


class Verdict(NamedTuple):
    """``wrong``: the first place where the log is not what it was, in words; "" when there is none."""

    head: Head
    wrong: str


def checked_reason(text: str) -> str:
    """A reason as it is kept. Raises ValueError."""
    reason = one_line(text.strip())
    if not 0 < len(reason) <= MAX_REASON:
        raise ValueError(f"a reason has 1 to {MAX_REASON} characters")
    return reason


def record(connection: Connection, actor: str, action: str, subject: str, reason: str = "", **details: Any) -> Head:
    """Add an entry, in the caller's write: it is there if what it tells of is. Nothing secret belongs in it."""
    taken = update(AuditHead).values(number=AuditHead.number + 1).returning(AuditHead.number, AuditHead.hash)
    number, before = connection.execute(taken).one()
    entry = {"number": number, "at": now_ms(), "actor": actor, "action": action, "subject": subject, "reason": reason}
    entry["details"] = msgspec.json.encode(details, order="sorted").decode()
    head = Head(number, hash_of(before, entry))
    connection.execute(insert(AuditEntry).values(**entry, hash=head.hash))
    connection.execute(update(AuditHead).values(hash=head.hash))
    return head


def hash_of(before: bytes, entry: Mapping[str, Any]) -> bytes:
    """SHA-256 of "shardpay audit log ", the hash of the entry before, and the entry's values as a JSON array."""
    values = [entry[name] for name in ("number", "at", "actor", "action", "subject", "reason", "details")]
    return sha256(_TAG + before + msgspec.json.encode(values)).digest()


def verify(connection: Connection, anchors: Iterable[Head] = ()) -> Verdict:
    """Recompute the log from its first entry, and compare it with what was kept of it elsewhere."""
    kept: dict[int, set[bytes]] = {}
    stored = connection.execute(select(AuditHead.number, AuditHead.hash)).one()  # first of all: more may come meanwhile
    for anchor in (*anchors, Head(*stored)):
        kept.setdefault(anchor.number, set()).add(anchor.hash)
    head = Head(0, FIRST)
    if kept.pop(0, {FIRST}) != {FIRST}:
        return Verdict(head, "its head is not what it was")
    for row in _entries(connection):
        if row.number != head.number + 1:
            return Verdict(head, f"entry {head.number + 1} is missing")
        head = Head(row.number, hash_of(head.hash, dict(row._mapping)))
        if head.hash != row.hash:
            return Verdict(head, f"entry {row.number} is not what it was, or one before it is not")
        if kept.pop(row.number, {head.hash}) != {head.hash}:
            return Verdict(head, f"entry {row.number} or one before it is not what it was when its hash was kept")
    if kept:
        return Verdict(head, f"it ends with entry {head.number}, but there were {max(kept)}")
    return Verdict(head, "")


def page(connection: Connection, subject: str | None, cursor: str | None, limit: int) -> tuple[list[Row[Any]], str | None]:
    """Entries, the latest first, and the cursor of the next page. Raises Problem (422) on a bad cursor."""
    query: Any = select(AuditEntry.__table__).order_by(AuditEntry.number.desc()).limit(limit + 1)
    if subject is not None:
        query = query.where(AuditEntry.subject == subject)
    if cursor is not None:
        query = query.where(AuditEntry.number < read_cursor(cursor)[0])
    rows = list(connection.execute(query))
    return rows[:limit], write_cursor(rows[limit - 1].number) if len(rows) > limit else None


def _entries(connection: Connection) -> Iterator[Row[Any]]:
    """All, the first first, some at a time."""
    last = -1
    while True:
        query = select(AuditEntry.__table__).where(AuditEntry.number > last).order_by(AuditEntry.number).limit(_AT_ONCE)
        rows = connection.execute(query).all()
        if not rows:
            return
        yield from rows
        last = rows[-1].number
