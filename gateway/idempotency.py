"""Clients' idempotency keys: what was made under one is made once, however often it is asked for."""

from dataclasses import dataclass

from sqlalchemy import Connection

from gateway.problems import Problem
from gateway.statements import CLAIM, CLAIMED


@dataclass
class Idempotency:
    """A client's key for one intent, and the fingerprint of what it asked for under it. ``replayed``: it had been used before."""

    key: str
    fingerprint: bytes
    replayed: bool = False


def claim(connection: Connection, user_id: str, key: Idempotency, made: bytes, created_at: int) -> bytes | None:
    """Bind a user's key to the id of what is being made; returns the id it is bound to already.

    Raises:
        Problem: 409, it was used for another request.
    """
    row = {"user_id": user_id, "key": key.key, "fingerprint": key.fingerprint, "made": made, "created_at": created_at}
    key.replayed = False  # a transaction that is tried again begins anew
    fresh = CLAIM.run(connection, row).rowcount
    return None if fresh else claimed(connection, user_id, key)


def claimed(connection: Connection, user_id: str, key: Idempotency) -> bytes | None:
    """The id of what a user's key is bound to, if it is. Raises Problem (409) when it was used for another request."""
    row = CLAIMED.run(connection, {"user_id": user_id, "key": key.key}).fetchone()
    return None if row is None else matching(key, *row)


def matching(key: Idempotency, fingerprint: bytes, made: bytes) -> bytes:
    """The id that a key is bound to with a fingerprint. Raises Problem (409) when that is another one."""
    if bytes(fingerprint) != key.fingerprint:
        raise Problem(409, "idempotency_conflict", "this Idempotency-Key was used for another request")
    key.replayed = True
    return bytes(made)
