"""A second factor for logging in: codes of an authenticator app (TOTP, RFC 6238), and recovery codes for who has lost it."""

import base64
import secrets
from hashlib import sha256
from typing import Any

import pyotp
from pyotp.exceptions import OTPVerificationError
from sqlalchemy import Connection, Row, delete, select, update

from gateway.admin import audit
from gateway.database import Database, insert, now_ms
from gateway.identity import passkeys
from gateway.identity.tables import RecoveryCode, TotpSecret
from gateway.identity.throttle import Attempt, Limit, Throttle
from gateway.problems import Problem
from gateway.vault import Vault

ISSUER = "shardpay"
RECOVERY_CODES = 10
ON_CODE = Limit("code", 5, 600.0)
_SECRET_BYTES = 20
_STEPS_OFF = 1
"""Steps of 30 s that a phone's clock may be early or late."""


class SecondFactor:
    """Everybody's, where it is on. Secrets are sealed in the vault; a code is good once."""

    def __init__(self, database: Database, vault: Vault, throttle: Throttle) -> None:
        self._database, self._vault, self._throttle = database, vault, throttle

    async def is_on(self, user_id: str) -> bool:
        row = await self._row(user_id)
        return row is not None and row.confirmed_at is not None

    async def begin(self, user_id: str, email: str) -> tuple[str, str]:
        """A new secret, which counts once it is confirmed: in base32, and as the URI that apps scan. Raises Problem (409)."""
        raw = secrets.token_bytes(_SECRET_BYTES)
        row = {"user_id": user_id, "sealed": self._vault.seal(raw, owner_of(user_id)), "confirmed_at": None, "last_step": 0}

        def save(connection: Connection) -> bool:
            statement = insert(connection, TotpSecret).values(**row)
            replace = {"index_elements": ["user_id"], "set_": row, "where": TotpSecret.confirmed_at.is_(None)}
            return bool(connection.execute(statement.on_conflict_do_update(**replace)).rowcount)

        if not await self._database.write(save):
            raise Problem(409, "second_factor_on", "there is a second factor already: remove it first")
        totp = _totp(raw)
        return totp.secret, totp.provisioning_uri(name=email, issuer_name=ISSUER)

    async def confirm(self, user_id: str, code: str) -> list[str]:
        """Turn it on with the app's first code, and remove passkeys added without. Returns recovery codes, told this once.
        Raises Problem (403, 409)."""
        row, codes = await self._row(user_id), [secrets.token_hex(10) for _ in range(RECOVERY_CODES)]
        if row is None or row.confirmed_at is not None:
            raise Problem(409, "second_factor_not_begun", "there is nothing to confirm")
        await self._throttle.check(Attempt(ON_CODE, user_id))
        step = self._step(row, code)

        def save(connection: Connection) -> bool:
            mine = (TotpSecret.user_id == user_id, TotpSecret.sealed == row.sealed, TotpSecret.confirmed_at.is_(None))
            if not connection.execute(update(TotpSecret).where(*mine).values(confirmed_at=now_ms(), last_step=step)).rowcount:
                return False
            connection.execute(insert(connection, RecoveryCode), [{"code_hash": _hash(one), "user_id": user_id} for one in codes])
            passkeys.forget(connection, user_id)
            audit.record(connection, user_id, "second_factor.on", user_id)
            return True

        if step == 0 or not await self._database.write(save):
            raise Problem(403, "wrong_code", "this is not the app's code of now")
        return codes

    async def demand(self, user_id: str, code: str | None, status: int = 401) -> None:
        """Where it is on, take a code. Raises Problem with this status."""
        row = await self._row(user_id)
        if row is None or row.confirmed_at is None:
            return
        if code is None:
            raise Problem(status, "code_required", "send the code of your authenticator app, or a recovery code, too")
        if not await self._use(row, code):
            raise Problem(status, "wrong_code", "this code is wrong, or has been used")

    async def remove(self, user_id: str, code: str) -> None:
        """Turn it off with a code. Raises Problem (403, 409)."""
        row = await self._row(user_id)
        if row is None or row.confirmed_at is None:
            raise Problem(409, "second_factor_off", "there is no second factor")
        if not await self._use(row, code):
            raise Problem(403, "wrong_code", "this code is wrong, or has been used")

        def save(connection: Connection) -> None:
            self.forget(connection, user_id)
            audit.record(connection, user_id, "second_factor.off", user_id)

        await self._database.write(save)

    def forget(self, connection: Connection, user_id: str) -> None:
        """Erase what is known of a user, in the caller's write."""
        for table in (RecoveryCode, TotpSecret):
            connection.execute(delete(table).where(table.user_id == user_id))

    async def _use(self, row: Row[Any], code: str) -> bool:
        await self._throttle.check(Attempt(ON_CODE, row.user_id))
        step, given = self._step(row, code), _hash(code)
        newer = update(TotpSecret).where(TotpSecret.user_id == row.user_id, TotpSecret.last_step < step).values(last_step=step)
        recovery = delete(RecoveryCode).where(RecoveryCode.user_id == row.user_id, RecoveryCode.code_hash == given)
        return bool(await self._database.write(lambda c: c.execute(newer if step else recovery).rowcount))

    def _step(self, row: Row[Any], code: str) -> int:
        """The step of time that a code belongs to; 0 when it is none of now."""
        try:
            return _totp(self._vault.open(row.sealed, owner_of(row.user_id))).verify_and_get_timecode(
                code, valid_window=_STEPS_OFF
            )
        except OTPVerificationError:
            return 0

    async def _row(self, user_id: str) -> Row[Any] | None:
        query: Any = select(TotpSecret.__table__).where(TotpSecret.user_id == user_id)
        row: Row[Any] | None = await self._database.read(lambda c: c.execute(query).first())
        return row


def owner_of(user_id: str) -> bytes:
    return f"totp {user_id}".encode()


def _totp(raw: bytes) -> pyotp.TOTP:
    return pyotp.TOTP(base64.b32encode(raw).decode())


def _hash(code: str) -> bytes:
    return sha256(code.encode(errors="replace")).digest()
