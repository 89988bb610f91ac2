"""Mails on their way: ordered in the database transaction that makes them necessary, sent by a job until the server takes them.

An order names an address, known or not, so that asking for a mail is the same work whoever asks. Whether there is somebody, and
what to tell him, is looked up when the order is carried out. Only then is the token of its link made; the database never has it.
"""

import secrets
import uuid
from hashlib import sha256
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Row, delete, select

from gateway.database import Database, insert, now_ms
from gateway.identity.mail_texts import Letter, written
from gateway.identity.mailer import Mail, Mailer, Undeliverable
from gateway.identity.tables import DevnetMail, MailOrder, MailToken, User
from gateway.jobs import Jobs

log = structlog.get_logger()
KIND = "mail"
_GIVEN_UP_MS = 3600 * 1000
"""After so long without a server that takes it, a mail is dropped: who still wants it has asked again."""
_LIFETIME_MS = {Letter.VERIFY: 24 * 3600 * 1000, Letter.RESET: 3600 * 1000}
_PAGES = {
    Letter.VERIFY: "verify?token=",
    Letter.RESET: "reset?token=",
    Letter.KNOWN: "login",
    Letter.CHANGED: "forgot",
    Letter.PASSKEY: "forgot",
}


class Proof(NamedTuple):
    """What a link that was followed proves: that this user reads the mails to this address."""

    user_id: str
    email: str
    name: str


class Mails:
    """What is ordered, and the tokens that were sent."""

    def __init__(self, database: Database, jobs: Jobs, mailer: Mailer, public_url: str) -> None:
        self._database, self._jobs, self._mailer, self._url = database, jobs, mailer, public_url.rstrip("/")
        self.write = jobs.write
        jobs.handle(KIND, self._carry_out)

    def order(self, connection: Connection, purpose: Letter, email: str) -> None:
        """Have a mail sent, in the caller's write, which must be ``write``. ``KNOWN`` is ``VERIFY`` until that is done."""
        name = uuid.uuid4().hex
        connection.execute(insert(connection, MailOrder).values(id=name, purpose=purpose.value, email=email, created_at=now_ms()))
        self._jobs.add(connection, KIND, name)

    async def prove(self, token: str, purpose: Letter) -> Proof | None:
        """What a token proves, if it is good. It stays good."""
        return await self._database.read(lambda c: _proof(c, token, purpose))

    def use(self, connection: Connection, token: str, purpose: Letter) -> Proof | None:
        """What a token proves, if it is good: in the caller's write, after which no token of the same purpose and user is."""
        found = _proof(connection, token, purpose)
        if found is not None:
            mine = (MailToken.user_id == found.user_id, MailToken.purpose == purpose.value)
            connection.execute(delete(MailToken).where(*mine))
        return found

    def forget(self, connection: Connection, user_id: str) -> None:
        """Erase a user's tokens and mails, in the caller's write."""
        email = select(User.email).where(User.id == user_id).scalar_subquery()
        connection.execute(delete(MailToken).where(MailToken.user_id == user_id))
        connection.execute(delete(MailOrder).where(MailOrder.email == email))
        connection.execute(delete(DevnetMail).where(DevnetMail.recipient == email))

    async def purge(self) -> None:
        """Drop tokens that have expired."""
        await self._database.write(lambda c: c.execute(delete(MailToken).where(MailToken.expires_at < now_ms())) and None)

    async def _carry_out(self, name: str) -> None:
        query: Any = select(MailOrder.__table__, User.id.label("user_id"), User.language, User.verified_at)
        query = query.outerjoin(User, User.email == MailOrder.email).where(MailOrder.id == name)
        order: Row[Any] | None = await self._database.read(lambda c: c.execute(query).first())
        if order is None:
            return
        letter = _letter(order)
        if letter is not None:
            await self._send(order, letter)
        await self._database.write(lambda c: c.execute(delete(MailOrder).where(MailOrder.id == name)) and None)

    async def _send(self, order: Row[Any], letter: Letter) -> None:
        link = f"{self._url}/#/{_PAGES[letter]}"
        if letter in _LIFETIME_MS:
            token = secrets.token_urlsafe(32)
            row = {"user_id": order.user_id, "purpose": letter.value, "expires_at": now_ms() + _LIFETIME_MS[letter]}
            await self._database.write(lambda c: c.execute(insert(c, MailToken).values(token_hash=_hash(token), **row)) and None)
            link += token
        try:
            await self._mailer.send(Mail(order.id, order.email, *written(letter, order.language, link)))
        except Exception as error:
            if not isinstance(error, Undeliverable) and now_ms() < order.created_at + _GIVEN_UP_MS:
                raise
            log.warning("a mail could not be sent", letter=letter.value, error=type(error).__name__)


def _letter(order: Row[Any]) -> Letter | None:
    """What to tell who was asked for; None: nothing, or nobody has the address."""
    if order.user_id is None:
        return None
    purpose = Letter(order.purpose)
    if order.verified_at is None:
        return Letter.VERIFY if purpose is Letter.KNOWN else purpose
    return None if purpose is Letter.VERIFY else purpose


def _proof(connection: Connection, token: str, purpose: Letter) -> Proof | None:
    good = (MailToken.token_hash == _hash(token), MailToken.purpose == purpose.value, MailToken.expires_at >= now_ms())
    query = select(User.id, User.email, User.name).join(MailToken, MailToken.user_id == User.id).where(*good)
    row = connection.execute(query).first()
    return None if row is None else Proof(*row)


def _hash(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()
