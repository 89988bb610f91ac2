"""Webhook endpoints: where users want their events sent, and the secrets that sign them."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from gateway.database import Database, insert, now_ms
from gateway.events.outbox import Event
from gateway.events.posting import CONNECT_TIMEOUT
from gateway.events.signatures import new_secret
from gateway.events.tables import WebhookEndpoint
from gateway.events.targets import BadUrl, NotFound, Refused, Targets
from gateway.problems import Problem
from gateway.vault import Vault

MAX_ENDPOINTS = 10
"""Per user."""
OVERLAP_MS = 24 * 3600 * 1000
"""How long a secret that was replaced signs, too."""


class Webhooks:
    """Everybody's endpoints."""

    def __init__(self, database: Database, vault: Vault, targets: Targets) -> None:
        self._database, self._vault, self._targets = database, vault, targets

    async def create(self, user_id: str, url: str, events: Sequence[str]) -> tuple[Row[Any], str]:
        """An endpoint that gets the events from now on. Returns its row and its secret, which is not shown again.

        Raises:
            Problem: 422, the URL cannot be reached from here, or must not be; 409, too many endpoints.
        """
        address, endpoint_id, secret = await self._checked(url), uuid.uuid4().hex, new_secret()
        row: dict[str, Any] = {"id": endpoint_id, "user_id": user_id, "url": address, "events": " ".join(events), "disabled": ""}
        row |= {"secret": self._sealed(secret, endpoint_id), "deleted": False, "created_at": now_ms()}

        def save(connection: Connection) -> bool:
            mine = (WebhookEndpoint.user_id == user_id, WebhookEndpoint.deleted.is_(False))
            count = connection.execute(select(func.count()).select_from(WebhookEndpoint).where(*mine)).scalar_one()
            if count < MAX_ENDPOINTS:
                connection.execute(insert(connection, WebhookEndpoint).values(**row, after_event=_last_event(connection)))
            return bool(count < MAX_ENDPOINTS)

        if not await self._database.write(save):
            raise Problem(409, "limit_exceeded", f"at most {MAX_ENDPOINTS} webhook endpoints")
        return await self.endpoint(user_id, endpoint_id), secret

    async def endpoints(self, user_id: str) -> Sequence[Row[Any]]:
        """A user's, oldest first."""
        mine = select(WebhookEndpoint.__table__).where(WebhookEndpoint.user_id == user_id, WebhookEndpoint.deleted.is_(False))
        return await self._database.read(lambda c: c.execute(mine.order_by(WebhookEndpoint.created_at)).all())

    async def endpoint(self, user_id: str, endpoint_id: str) -> Row[Any]:
        """Raises Problem (404)."""
        query = select(WebhookEndpoint.__table__).where(*_mine(user_id, endpoint_id))
        return _there(await self._database.read(lambda c: c.execute(query).first()))

    async def change(
        self, user_id: str, endpoint_id: str, url: str | None, events: Sequence[str] | None, enabled: bool | None
    ) -> Row[Any]:
        """Change what is not None. One that is enabled again gets the events from then on.

        Raises:
            Problem: 404; 422 as ``create``.
        """
        await self.endpoint(user_id, endpoint_id)
        values: dict[str, Any] = {}
        if url is not None:
            values["url"] = await self._checked(url)
        if events is not None:
            values["events"] = " ".join(events)
        if enabled is False:
            values["disabled"] = "by_owner"

        def save(connection: Connection) -> Row[Any]:
            row = _there(connection.execute(select(WebhookEndpoint.__table__).where(*_mine(user_id, endpoint_id))).first())
            again = {"disabled": "", "failing_since": None, "after_event": _last_event(connection)}
            changed = values | (again if enabled and row.disabled else {})
            if changed:
                connection.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(**changed))
            return connection.execute(select(WebhookEndpoint.__table__).where(WebhookEndpoint.id == endpoint_id)).one()

        return await self._database.write(save)

    async def delete(self, user_id: str, endpoint_id: str) -> None:
        """Nothing is sent there any more. Raises Problem (404)."""
        gone = update(WebhookEndpoint).where(*_mine(user_id, endpoint_id)).values(deleted=True)
        if not await self._database.write(lambda c: c.execute(gone).rowcount):
            raise Problem(404, "webhook_endpoint_not_found", "there is no such webhook endpoint")

    def forget(self, connection: Connection, user_id: str) -> None:
        """Erase where a user's events went, in the caller's write."""
        erased = {"deleted": True, "url": "", "secret": b"", "old_secret": None}
        connection.execute(update(WebhookEndpoint).where(WebhookEndpoint.user_id == user_id).values(**erased))

    async def rotate(self, user_id: str, endpoint_id: str) -> str:
        """A new secret; the one before signs, too, for a day, and the one before that no more. Raises Problem (404)."""
        secret = new_secret()
        new: dict[str, Any] = {"secret": self._sealed(secret, endpoint_id), "old_secret": WebhookEndpoint.secret}
        new["old_secret_until"] = now_ms() + OVERLAP_MS
        change = update(WebhookEndpoint).where(*_mine(user_id, endpoint_id)).values(**new)
        if not await self._database.write(lambda c: c.execute(change).rowcount):
            raise Problem(404, "webhook_endpoint_not_found", "there is no such webhook endpoint")
        return secret

    def secrets(self, endpoint: Any) -> list[str]:
        """Those that sign now, of an endpoint's row, the newest first. Raises WrongKey."""
        sealed = [endpoint.secret]
        if endpoint.old_secret is not None and now_ms() < endpoint.old_secret_until:
            sealed.append(endpoint.old_secret)
        return [self._vault.open(one, owner_of(endpoint.id)).decode() for one in sealed]

    def _sealed(self, secret: str, endpoint_id: str) -> bytes:
        return self._vault.seal(secret.encode(), owner_of(endpoint_id))

    async def _checked(self, url: str) -> str:
        """The URL in its usual form. Raises Problem (422)."""
        try:
            parts = self._targets.check_form(url)
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._targets.addresses(parts.raw_host.decode("ascii"), parts.port or 0)
        except BadUrl as error:
            raise Problem(422, "invalid_url", str(error)) from None
        except Refused:
            raise Problem(422, "address_refused", "webhooks do not reach addresses inside a network") from None
        except (NotFound, TimeoutError):
            raise Problem(422, "name_not_found", "the name in the URL has no address") from None
        return str(parts)


def owner_of(endpoint_id: str) -> bytes:
    return b"webhook endpoint " + endpoint_id.encode()


def _mine(user_id: str, endpoint_id: str) -> tuple[Any, ...]:
    found = (WebhookEndpoint.id == endpoint_id, WebhookEndpoint.user_id == user_id)
    return (*found, WebhookEndpoint.deleted.is_(False))


def _there(row: Row[Any] | None) -> Row[Any]:
    if row is None:
        raise Problem(404, "webhook_endpoint_not_found", "there is no such webhook endpoint")
    return row


def _last_event(connection: Connection) -> int:
    return connection.execute(select(func.max(Event.id))).scalar() or 0
