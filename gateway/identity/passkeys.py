"""Passkeys (WebAuthn): a key pair in somebody's device logs in, instead of the password and the second factor.

It may, because it is two factors itself: the device, and what the device asks of its user before it signs (a PIN, a finger, a
face). The browser offers a passkey to the page it was made for only, so nobody can be talked into giving it to another. Which
devices there are is their users' business: no attestation is asked for.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import webauthn
from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from webauthn.helpers import base64url_to_bytes, options_to_json_dict, parse_client_data_json
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from gateway.admin import audit
from gateway.database import Database, insert, now_ms
from gateway.identity.challenges import SECONDS, Challenges
from gateway.identity.mail_texts import Letter
from gateway.identity.mails import Mails
from gateway.identity.sessions import Device, Ended, Issued, Sessions, end
from gateway.identity.tables import Passkey, Session, TotpSecret, User
from gateway.problems import Problem

T = TypeVar("T")
MAX_PASSKEYS = 20
"""Per user."""
MAX_KEY_BYTES = 1024
"""Of a public key and of a credential's id. The largest in use, RSA with 4096 bits, has 530."""
_LOGIN = "passkey login"
_NAME = "shardpay"
_PORTS = {"http": 80, "https": 443}


class RelyingParty(NamedTuple):
    """Whom passkeys are made for: a domain, and the one origin at it whose page may use them."""

    domain: str
    origin: str


class Passkeys:
    """Everybody's. ``relying_party``: None where the page has no domain, so that browsers have no passkeys for it."""

    def __init__(self, database: Database, mails: Mails, sessions: Sessions, secret: bytes, public_url: str) -> None:
        self._database, self._mails, self._sessions = database, mails, sessions
        self._challenges, self.relying_party = Challenges(secret), relying_party(public_url)

    async def begin(self, user: Row[Any]) -> dict[str, Any]:
        """What a browser needs to make one for a user: WebAuthn's ``PublicKeyCredentialCreationOptionsJSON``.

        Raises:
            Problem: 409, there are too many, or browsers have none for this page.
        """
        party = self._party()
        credentials = select(Passkey.credential_id).where(Passkey.user_id == user.id)
        existing, purpose = await self._database.read(
            lambda c: (c.execute(credentials).scalars().all(), _registration(c, user.id))
        )
        _check_count(len(existing))
        options = webauthn.generate_registration_options(
            rp_id=party.domain,
            rp_name=_NAME,
            user_id=user.id.encode(),
            user_name=user.email,
            user_display_name=user.name,
            challenge=self._challenges.make(purpose),
            timeout=SECONDS * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=one) for one in existing],
        )
        return options_to_json_dict(options)

    async def add(self, user: Row[Any], name: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Take the passkey a browser has made for a user, who is told so by mail.

        Raises:
            Problem: 422, not a passkey for this page, this user and now; 409, it is there already, or there are too many.
        """
        party = self._party()
        challenge = await self._challenge(answer, 422)
        made = await _verified(
            422,
            lambda: webauthn.verify_registration_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=party.domain,
                expected_origin=party.origin,
                require_user_verification=True,
            ),
        )
        if max(len(made.credential_id), len(made.credential_public_key)) > MAX_KEY_BYTES:
            raise _refused(422)
        row: dict[str, Any] = {"id": uuid.uuid4().hex, "user_id": user.id, "name": name, "created_at": now_ms()}
        row |= {"credential_id": made.credential_id, "public_key": made.credential_public_key, "sign_count": made.sign_count}
        count = select(func.count()).select_from(Passkey).where(Passkey.user_id == user.id)

        def save(connection: Connection) -> None:
            _check_count(connection.execute(count).scalar_one())
            self._take(connection, challenge, _registration(connection, user.id), 422)
            connection.execute(insert(connection, Passkey).values(**row))
            self._mails.order(connection, Letter.PASSKEY, user.email)
            audit.record(connection, user.id, "passkey.added", user.id, passkey=row["id"])

        try:
            await self._mails.write(save)
        except IntegrityError:
            raise Problem(409, "passkey_taken", "this passkey is registered already") from None
        return row | {"last_used_at": None}

    def ask(self) -> dict[str, Any]:
        """What a browser needs to log somebody in, whoever it is: WebAuthn's ``PublicKeyCredentialRequestOptionsJSON``.
        Raises Problem (409)."""
        options = webauthn.generate_authentication_options(
            rp_id=self._party().domain,
            challenge=self._challenges.make(_LOGIN),
            timeout=SECONDS * 1000,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return options_to_json_dict(options)

    async def log_in(self, answer: dict[str, Any], device: Device) -> Issued:
        """Log in whoever's passkey has signed. Raises Problem (401)."""
        party = self._party()
        challenge = await self._challenge(answer, 401)
        found = await self._find(answer)
        proven = await _verified(
            401,
            lambda: webauthn.verify_authentication_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=party.domain,
                expected_origin=party.origin,
                credential_public_key=found.public_key,
                credential_current_sign_count=found.sign_count,
                require_user_verification=True,
            ),
        )

        def note(connection: Connection) -> None:
            self._take(connection, challenge, _LOGIN, 401)
            unchanged = (Passkey.id == found.id, Passkey.sign_count == found.sign_count)
            values = {"sign_count": proven.new_sign_count, "last_used_at": now_ms()}
            if not connection.execute(update(Passkey).where(*unchanged).values(**values)).rowcount:
                raise _refused(401)

        return await self._sessions.start(found.user_id, found.password_hash, device, note)

    async def of(self, user_id: str) -> Sequence[Row[Any]]:
        """A user's, the newest first."""
        query = select(Passkey.__table__).where(Passkey.user_id == user_id)
        return await self._database.read(lambda c: c.execute(query.order_by(Passkey.created_at.desc(), Passkey.id)).all())

    async def rename(self, user_id: str, passkey: str, name: str) -> Row[Any]:
        """Give one another name. Raises Problem (404) when it is not his."""
        statement = update(Passkey).where(Passkey.id == passkey, Passkey.user_id == user_id).values(name=name)
        query = select(Passkey.__table__).where(Passkey.id == passkey)
        row = await self._database.write(lambda c: c.execute(query).first() if c.execute(statement).rowcount else None)
        if row is None:
            raise _not_found()
        return row

    async def remove(self, user_id: str, session: str, passkey: str) -> None:
        """Forget one, and end all sessions but the given one: who has the device may be in one of them. Raises Problem (404)."""
        mine = (Passkey.id == passkey, Passkey.user_id == user_id)

        def save(connection: Connection) -> list[Ended] | None:
            if not connection.execute(delete(Passkey).where(*mine)).rowcount:
                return None
            audit.record(connection, user_id, "passkey.removed", user_id, passkey=passkey)
            return end(connection, user_id, Session.id != session)

        gone = await self._database.write(save)
        if gone is None:
            raise _not_found()
        self._sessions.ended(gone)

    async def _find(self, answer: dict[str, Any]) -> Row[Any]:
        """The passkey that an answer names, with its user's password hash. Raises Problem (401)."""
        names = (answer["id"], answer["response"]["userHandle"])
        credential, user = await _verified(401, lambda: [base64url_to_bytes(name) for name in names])
        query: Any = select(Passkey.__table__, User.password_hash).join(User, User.id == Passkey.user_id)
        row: Row[Any] | None = await self._database.read(
            lambda c: c.execute(query.where(Passkey.credential_id == credential)).first()
        )
        if row is None:
            raise Problem(401, "passkey_unknown", "nobody here has this passkey, or not any more")
        if row.user_id.encode() != user:
            raise _refused(401)
        return row

    async def _challenge(self, answer: dict[str, Any], status: int) -> bytes:
        """What a browser says was signed, and whoever made it. Raises Problem."""
        signed = await _verified(status, lambda: parse_client_data_json(base64url_to_bytes(answer["response"]["clientDataJSON"])))
        if signed.cross_origin:
            raise _refused(status)
        return signed.challenge

    def _take(self, connection: Connection, challenge: bytes, purpose: str, status: int) -> None:
        """Use a challenge up, in the caller's write. Raises Problem when it is none of ours for this, or was used."""
        if not (self._challenges.is_good(challenge, purpose) and self._challenges.use(connection, challenge)):
            raise Problem(status, "challenge_expired", "this took too long, or was sent before: begin again")

    def _party(self) -> RelyingParty:
        if self.relying_party is None:
            raise Problem(409, "passkeys_unavailable", "there are no passkeys here: the page is not at a domain")
        return self.relying_party


def relying_party(public_url: str) -> RelyingParty | None:
    """Of a page at this URL. Browsers have passkeys for domains, with TLS, and for localhost: the name of a loopback address."""
    url = urlsplit(public_url)
    host = url.hostname or ""
    domain = "localhost" if _is_loopback(host) else host
    if not domain or _is_address(domain) or (url.scheme != "https" and domain != "localhost"):
        return None
    port = "" if url.port in (None, _PORTS.get(url.scheme)) else f":{url.port}"
    return RelyingParty(domain, f"{url.scheme}://{domain}{port}")


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_loopback


def forget(connection: Connection, user_id: str) -> None:
    """Erase a user's passkeys, in the caller's write."""
    connection.execute(delete(Passkey).where(Passkey.user_id == user_id))


async def _verified(status: int, check: Callable[[], T]) -> T:
    """What a check of somebody's answer finds. It takes CPU, so a thread does it. Raises Problem."""
    try:
        return await asyncio.to_thread(check)
    except Exception as error:  # whatever taking apart a stranger's bytes has led to: they are no good answer
        raise _refused(status) from error


def _registration(connection: Connection, user_id: str) -> str:
    """What a challenge is for: it took the second factor that is on now, or none is."""
    since = connection.execute(select(TotpSecret.confirmed_at).where(TotpSecret.user_id == user_id)).scalar()
    return f"passkey of {user_id} with the second factor of {since}"


def _check_count(count: int) -> None:
    if count >= MAX_PASSKEYS:
        raise Problem(409, "limit_exceeded", f"at most {MAX_PASSKEYS} passkeys")


def _refused(status: int) -> Problem:
    return Problem(status, "passkey_refused", "this is not a valid answer of a passkey to this page")


def _not_found() -> Problem:
    return Problem(404, "passkey_not_found", "you have no such passkey")
