"""API keys do what their scopes say until they are revoked, and never what only a login may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from gateway.identity.api_keys import ApiKeys
from gateway.identity.notices import Notices
from gateway.identity.tables import User
from gateway.identity.tokens import KEY_PREFIX, Tokens
from gateway.problems import Problem
from tests.gateway.registered import ann_registered
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.person import PASSWORD, Person


def keyed(person: Person, *scopes: str) -> httpx.Client:
    """A program with a new key of somebody's."""
    made = person.post("/v1/api-keys", {"name": "The till", "scopes": scopes})
    assert made.status_code == 201, made.text
    assert made.json()["key"].startswith("spk_")
    return httpx.Client(base_url=person.http.base_url, timeout=30, headers={"Authorization": f"Bearer {made.json()['key']}"})


def test_only_who_has_a_verified_address_makes_keys(world: World) -> None:
    ann, body = world.person(), {"name": "x", "scopes": ["read"]}
    assert problem(ann.post("/v1/api-keys", body)) == (403, "email_not_verified")
    assert ann.verify().post("/v1/api-keys", body).status_code == 201
    assert problem(ann.post("/v1/api-keys", body | {"scopes": []})) == (422, "invalid_request")
    assert problem(ann.post("/v1/api-keys", body | {"scopes": ["everything"]})) == (422, "invalid_request")


def test_a_key_does_what_its_scopes_say(world: World) -> None:
    made = world.deal(0, 1)
    made.ann.verify()
    order = {"from_wallet": made.purse["id"], "to": made.till["address"], "asset": "USD", "amount": "0.10"}
    with keyed(made.ann, "payments") as paying, keyed(made.ann, "read") as reading, keyed(made.ann, "webhooks") as other:
        for client in (paying, reading):
            assert client.get(f"/v1/wallets/{made.purse['id']}").json()["label"] == "main"
        assert problem(other.get("/v1/wallets")) == (403, "insufficient_scope")
        for headers in ({}, {"Content-Type": "application/json; charset=utf-8"}):  # the short way and the long
            assert paying.post("/v1/transfers?wait=20", json=order, headers=headers).json()["status"] == "committed"
            for client in (reading, other):
                assert problem(client.post("/v1/transfers", json=order, headers=headers)) == (403, "insufficient_scope")
        assert problem(reading.post("/v1/wallets", json={})) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/me", None),
        ("PATCH", "/v1/me", {"name": "Eve"}),
        ("DELETE", "/v1/me", {"password": PASSWORD}),
        ("PUT", "/v1/me/password", {"current": PASSWORD, "new": "wrong donkey capacitor clip"}),
        ("GET", "/v1/sessions", None),
        ("DELETE", "/v1/sessions/1", None),
        ("GET", "/v1/api-keys", None),
        ("POST", "/v1/api-keys", {"name": "x", "scopes": ["payments"]}),
        ("DELETE", "/v1/api-keys/1", None),
    ],
)
def test_no_key_manages_accounts(world: World, method: str, path: str, body: object) -> None:
    with keyed(world.person().verify(), "read", "payments", "checkout", "webhooks") as client:
        assert problem(client.request(method, path, json=body)) == (403, "api_key_not_allowed")


def test_a_revoked_key_is_refused_at_once_and_only_its_owner_revokes_it(world: World) -> None:
    ann, bob = world.person().verify(), world.person()
    with keyed(ann, "read") as first, keyed(ann, "read") as second:
        newest, oldest = ann.get("/v1/api-keys").json()["items"]
        assert newest.keys() == {"id", "name", "scopes", "created_at"}, "the key itself is shown once"
        assert bob.get("/v1/api-keys").json()["items"] == []
        assert problem(bob.http.delete(f"/v1/api-keys/{oldest['id']}")) == (404, "api_key_not_found")
        assert (first.get("/v1/wallets").status_code, second.get("/v1/wallets").status_code) == (200, 200)
        assert ann.http.delete(f"/v1/api-keys/{oldest['id']}").status_code == 204
        assert problem(first.get("/v1/wallets")) == (401, "invalid_token")
        assert second.get("/v1/wallets").status_code == 200
        assert problem(ann.http.delete(f"/v1/api-keys/{oldest['id']}")) == (404, "api_key_not_found")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[ApiKeys, Tokens]]:
    """API keys as a gateway has them when it has started."""
    async with ann_registered(folder) as database:
        tokens = Tokens(bytes(32), 900)
        keys = ApiKeys(database, tokens, Notices(database, tokens))
        await keys.load()
        yield keys, tokens


def test_keys_outlive_a_restart_are_few_and_stored_as_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> tuple[dict[str, Any], str]:
        async with opened(tmp_path) as (keys, tokens):
            good, bad = [await keys.create("ann", "till", ["read"]) for _ in range(2)]
            await keys.revoke("ann", bad[0]["id"])
        monkeypatch.setattr("gateway.identity.api_keys.MAX_KEYS", 2)
        async with opened(tmp_path) as (keys, tokens):
            assert tokens.user_of(good[1], "read") == "ann"
            with pytest.raises(Problem):
                tokens.user_of(bad[1], "read")
            await keys.create("ann", "till", ["read"])
            with pytest.raises(Problem, match="at most"):
                await keys.create("ann", "till", ["read"])
        return good

    row, key = asyncio.run(story())
    written = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.*"))
    assert row["key_hash"] in written
    assert key.removeprefix(KEY_PREFIX).encode() not in written


def test_a_key_that_was_asked_for_before_its_owner_was_suspended_is_not_made_after(tmp_path: Path) -> None:
    async def story() -> None:
        async with ann_registered(tmp_path) as database:
            tokens = Tokens(bytes(32), 900)
            keys = ApiKeys(database, tokens, Notices(database, tokens))
            await database.write(lambda c: c.execute(update(User).values(suspended_at=1)) and None)
            with pytest.raises(Problem, match="suspended"):
                await keys.create("ann", "till", ["read"])

    asyncio.run(story())
