"""Users: signing up, logging in, their profiles and passwords."""

import uuid
from typing import Any

from sqlalchemy import Connection, Row, exists, select, update
from sqlalchemy.exc import IntegrityError

from gateway.admin import audit
from gateway.database import Database, Wallet, insert, now_ms
from gateway.identity.mail_texts import Letter
from gateway.identity.mails import Mails
from gateway.identity.passwords import Passwords
from gateway.identity.second_factor import SecondFactor
from gateway.identity.sessions import Device, Ended, Issued, Sessions, end
from gateway.identity.tables import Session, User
from gateway.problems import Problem


class Accounts:
    """The users.

    Attributes:
        sign_ups: since start.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        second_factor: SecondFactor,
        sessions: Sessions,
        mails: Mails,
        must_verify: bool,
    ) -> None:
        """``must_verify``: whether nobody logs in before he has verified his address."""
        self._second_factor = second_factor
        self._database, self._passwords, self._sessions, self._mails = database, passwords, sessions, mails
        self.must_verify = must_verify
        self.sign_ups = 0

    async def register(self, email: str, password_hash: str, name: str, language: str) -> str:
        """Create a user and send him a mail; returns the id.

        If addresses must be verified, the same happens for one that is taken, but its mail says so. What was given before for an
        address that nobody has verified yet is replaced: whoever was first has proven nothing.

        Raises:
            Problem: 409, the e-mail address is taken, if it need not be verified.
        """
        row = {"id": uuid.uuid4().hex, "email": email, "name": name, "language": language, "created_at": now_ms()}
        row["password_hash"] = password_hash
        again = {column: row[column] for column in ("name", "language", "password_hash")}
        unproven = User.verified_at.is_(None) & ~exists().where(Wallet.user_id == User.id)

        def save(connection: Connection) -> None:
            statement = insert(connection, User).values(**row)
            if self.must_verify:
                statement = statement.on_conflict_do_update(index_elements=["email"], set_=again, where=unproven)
            connection.execute(statement)
            self._mails.order(connection, Letter.KNOWN, email)

        try:
            await self._mails.write(save)
        except IntegrityError:
            raise Problem(409, "email_taken", "this e-mail address is registered already") from None
        self.sign_ups += 1
        return str(row["id"])

    async def login(self, email: str, password: str, code: str | None, device: Device) -> Issued:
        """Raises Problem (401), the same and after the same time whatever is wrong: address, password, or it is not verified.
        With all that right, a second factor may be missing or wrong (401, with another code)."""
        query = select(User.id, User.password_hash, User.verified_at).where(User.email == email)
        row = await self._database.read(lambda c: c.execute(query).first())
        right = await self._passwords.match(row.password_hash if row else None, password)
        if row is None or not right or (self.must_verify and row.verified_at is None):
            unproven = ", or the address is not verified yet" if self.must_verify else ""
            raise Problem(401, "wrong_credentials", f"wrong e-mail address or password{unproven}")
        await self._second_factor.demand(row.id, code)
        return await self._sessions.start(row.id, row.password_hash, device)

    async def profile(self, user_id: str) -> Row[Any]:
        """A user's row. Raises Problem (401) when the user is gone."""
        query = select(User.__table__).where(User.id == user_id, User.closed_at.is_(None))
        row = await self._database.read(lambda c: c.execute(query).first())
        if row is None:
            raise Problem(401, "invalid_token", "this user does not exist")
        return row

    async def change(self, user_id: str, values: dict[str, Any]) -> None:
        """Change a user's profile: name, language, default wallet. Raises Problem (404) when the wallet is not his."""
        wallet = values.get("default_wallet")
        own = select(Wallet.id).where(Wallet.id == wallet, Wallet.user_id == user_id)

        def save(connection: Connection) -> bool:
            if wallet is not None and connection.execute(own).first() is None:
                return False
            connection.execute(update(User).where(User.id == user_id).values(**values))
            return True

        if values and not await self._database.write(save):
            raise Problem(404, "wallet_not_found", "you have no such wallet")

    async def check_password(self, user_id: str, password: str) -> Row[Any]:
        """A user's row, when the password is right. Raises Problem (403)."""
        row = await self.profile(user_id)
        if not await self._passwords.match(row.password_hash, password):
            raise Problem(403, "wrong_password", "the current password is another one")
        return row

    async def change_password(self, user_id: str, session: str, current: str, new: str) -> None:
        """Replace a user's password; all sessions but the given one end. Raises Problem (403, 422)."""
        row = await self.check_password(user_id, current)
        password_hash = await self._passwords.hashed(new, row.email, row.name)

        def save(connection: Connection) -> list[Ended] | None:
            unchanged = (User.id == user_id, User.password_hash == row.password_hash)
            if not connection.execute(update(User).where(*unchanged).values(password_hash=password_hash)).rowcount:
                return None
            self._mails.order(connection, Letter.CHANGED, row.email)
            audit.record(connection, user_id, "password.changed", user_id)
            return end(connection, user_id, Session.id != session)

        gone = await self._mails.write(save)
        if gone is None:
            raise Problem(403, "wrong_password", "the current password is another one")
        self._sessions.ended(gone)
