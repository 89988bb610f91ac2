"""Sessions: where somebody is logged in, and that nothing of a session outlives it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.identity.sessions import Device, Sessions
from gateway.identity.tokens import Tokens
from gateway.problems import Problem
from tests.gateway.registered import ann_registered
from tests.gateway.test_accounts import auth, problem
from tests.gateway.world import World
from tests.person import PASSWORD, Person

ANOTHER = "wrong donkey capacitor clip"


def again(world: World, person: Person, **headers: str) -> httpx.Client:
    """The same person, logged in once more."""
    body = {"email": person.email, "password": PASSWORD}
    session = world.gateway.http.post("/v1/auth/login", json=body, headers=headers).json()
    return httpx.Client(base_url=world.gateway.url, headers={"Authorization": f"Bearer {session['access_token']}"})


def test_a_revoked_session_is_refused_at_once_and_no_other(world: World) -> None:
    ann, bob = world.person(), world.person()
    with again(world, ann, **{"User-Agent": "A phone", "X-Forwarded-For": "203.0.113.9"}) as phone:
        here, there = ann.get("/v1/sessions").json()["items"], phone.get("/v1/sessions").json()["items"]
        assert [one["current"] for one in there] == [one["id"] == there[0]["id"] for one in there] == [True, False]
        assert [one["id"] for one in here] == [one["id"] for one in there]
        assert (there[0]["user_agent"], there[0]["address"]) == ("A phone", "127.0.0.1"), "a header is no proof of an address"
        assert problem(bob.http.delete(f"/v1/sessions/{there[0]['id']}")) == (404, "session_not_found")
        assert ann.http.delete(f"/v1/sessions/{there[0]['id']}").status_code == 204
        assert problem(phone.get("/v1/me")) == (401, "session_ended")
        order = {"from_wallet": "x", "to": "y", "asset": "USD", "amount": "1"}
        assert problem(phone.post("/v1/transfers", json=order)) == (401, "session_ended"), "the short way, too"
    assert problem(ann.http.delete(f"/v1/sessions/{there[0]['id']}")) == (404, "session_not_found")
    assert len(ann.get("/v1/sessions").json()["items"]) == 1


def test_access_tokens_end_with_logout_and_with_a_stolen_refresh_token(world: World) -> None:
    ann, bob = world.person(), world.person()
    assert auth(world, "logout", refresh_token=ann.refresh_token).status_code == 204
    assert problem(ann.get("/v1/me")) == (401, "session_ended")
    newest = auth(world, "refresh", refresh_token=bob.refresh_token).json()
    assert auth(world, "refresh", refresh_token=bob.refresh_token).status_code == 401
    for token in (newest["access_token"], bob.http.headers["Authorization"].removeprefix("Bearer ")):
        answer = world.gateway.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert problem(answer) == (401, "session_ended")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Sessions, Tokens]]:
    """Sessions as a gateway has them when it has started."""
    async with ann_registered(folder) as database:
        tokens = Tokens(bytes(32), 900)
        sessions = Sessions(database, tokens)
        await sessions.load()
        yield sessions, tokens


def test_what_has_ended_is_refused_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as (sessions, _):
            ended, alive = [await sessions.start("ann", "", Device("", "")) for _ in range(2)]
            await sessions.log_out(ended.refresh)
            await sessions.purge()
        async with opened(tmp_path) as (_, tokens):
            assert tokens.user_of(alive.access) == "ann"
            with pytest.raises(Problem, match="ended"):
                tokens.user_of(ended.access)

    asyncio.run(story())


def test_a_login_with_a_password_that_is_changed_meanwhile_fails(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as (sessions, _):
            with pytest.raises(Problem, match="changed"):
                await sessions.start("ann", "the hash of another", Device("", ""))
            assert await sessions.of("ann") == []

    asyncio.run(story())


def test_a_user_has_a_bounded_number_of_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.identity.sessions.MAX_SESSIONS", 3)

    async def story() -> None:
        async with opened(tmp_path) as (sessions, tokens):
            first, *_ = [await sessions.start("ann", "", Device("", str(number))) for number in range(4)]
            assert {row.address for row in await sessions.of("ann")} == {"1", "2", "3"}
            with pytest.raises(Problem, match="ended"):
                tokens.user_of(first.access)

    asyncio.run(story())


def test_a_new_password_ends_the_other_sessions(world: World) -> None:
    ann = world.person()

    def change(current: str, new: str) -> httpx.Response:
        return ann.http.put("/v1/me/password", json={"current": current, "new": new})

    with again(world, ann) as phone:
        assert problem(change("not the one", ANOTHER)) == (403, "wrong_password")
        assert problem(change(PASSWORD, "password")) == (422, "weak_password")
        assert phone.get("/v1/me").status_code == 200
        assert change(PASSWORD, ANOTHER).status_code == 204
        assert problem(phone.get("/v1/me")) == (401, "session_ended")
    assert ann.get("/v1/me").status_code == 200
    assert auth(world, "login", email=ann.email, password=PASSWORD).status_code == 401
    assert auth(world, "login", email=ann.email, password=ANOTHER).status_code == 200
