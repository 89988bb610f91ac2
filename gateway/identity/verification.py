"""What a link in a mail does: prove an e-mail address, or set a forgotten password."""

from sqlalchemy import Connection, func, update

from gateway.admin import audit
from gateway.database import now_ms
from gateway.identity import passkeys
from gateway.identity.mail_texts import Letter
from gateway.identity.mails import Mails, Proof
from gateway.identity.passwords import Passwords
from gateway.identity.sessions import Ended, Sessions, end
from gateway.identity.tables import User
from gateway.problems import Problem


class Verification:
    """Asks for such mails, whether or not anybody has the address, and takes the tokens they bring."""

    def __init__(self, passwords: Passwords, sessions: Sessions, mails: Mails) -> None:
        self._passwords, self._sessions, self._mails = passwords, sessions, mails

    async def ask(self, email: str) -> None:
        """Send a link that verifies an address to who has to verify it."""
        await self._mails.write(lambda c: self._mails.order(c, Letter.VERIFY, email))

    async def forgot(self, email: str) -> None:
        """Send a link that sets a new password to who has this address."""
        await self._mails.write(lambda c: self._mails.order(c, Letter.RESET, email))

    async def verify(self, token: str) -> Proof:
        """Note that an address is its user's. Raises Problem (422)."""

        def save(connection: Connection) -> Proof | None:
            proof = self._mails.use(connection, token, Letter.VERIFY)
            if proof is not None:
                connection.execute(update(User).where(User.id == proof.user_id).values(verified_at=now_ms()))
            return proof

        proof = await self._mails.write(save)
        if proof is None:
            raise _worthless()
        return proof

    async def reset(self, token: str, password: str) -> Proof:
        """Set a new password, end all sessions and remove all passkeys: another may have made them. Who has the token reads the
        mails to the address: it is verified, too.

        Raises:
            Problem: 422, a token that is not good, or a weak password, with which the token stays good.
        """
        proof = await self._mails.prove(token, Letter.RESET)
        if proof is None:
            raise _worthless()
        values = {"password_hash": await self._passwords.hashed(password, proof.email, proof.name)}

        def save(connection: Connection) -> list[Ended] | None:
            if self._mails.use(connection, token, Letter.RESET) is None:
                return None
            verified = func.coalesce(User.verified_at, now_ms())
            connection.execute(update(User).where(User.id == proof.user_id).values(**values, verified_at=verified))
            passkeys.forget(connection, proof.user_id)
            self._mails.order(connection, Letter.CHANGED, proof.email)
            audit.record(connection, proof.user_id, "password.reset", proof.user_id)
            return end(connection, proof.user_id)

        gone = await self._mails.write(save)
        if gone is None:
            raise _worthless()
        self._sessions.ended(gone)
        return proof


def _worthless() -> Problem:
    return Problem(422, "invalid_link", "this link has been used, or is too old: ask for another mail")
