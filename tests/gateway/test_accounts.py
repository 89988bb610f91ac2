"""Users and sessions, and the form every error has."""

import json
import time
from typing import Any

import httpx
import jwt
import pytest

from tests.gateway.world import World
from tests.person import PASSWORD
from tests.waiting import until


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that must be a problem document."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= body.keys()
    assert body["status"] == answer.status_code
    return answer.status_code, body["code"]


def auth(world: World, step: str, **body: str) -> httpx.Response:
    return world.gateway.http.post(f"/v1/auth/{step}", json=body)


def test_who_am_i_is_told_to_a_good_token_only(world: World) -> None:
    def token(lifetime: int, secret: str) -> str:
        claims = {"sub": "somebody", "sid": "", "exp": int(time.time()) + lifetime}
        return jwt.encode(claims, bytes.fromhex(secret), "HS256")

    alice, secret = world.person(), world.gateway.environment["SHARDPAY_TOKEN_SECRET"]
    assert alice.get("/v1/me").json()["email"] == alice.email
    for bad, code in (
        ("nonsense", "invalid_token"),
        (token(60, "00" * 32), "invalid_token"),
        (token(-1, secret), "token_expired"),
    ):
        answer = world.gateway.http.get("/v1/me", headers={"Authorization": f"Bearer {bad}"})
        assert (problem(answer), answer.headers["www-authenticate"]) == ((401, code), "Bearer")


def test_a_token_that_was_good_is_refused_when_it_has_expired(world: World) -> None:
    alice, secret = world.person(), bytes.fromhex(world.gateway.environment["SHARDPAY_TOKEN_SECRET"])
    user = alice.get("/v1/me").json()["id"]
    short = jwt.encode({"sub": user, "sid": "", "exp": int(time.time()) + 2}, secret, "HS256")

    def me() -> httpx.Response:
        return world.gateway.http.get("/v1/me", headers={"Authorization": f"Bearer {short}"})

    assert (me().status_code, me().status_code) == (200, 200)
    until(lambda: me().status_code != 200, "expired")
    assert problem(me()) == (401, "token_expired")


def test_an_address_registers_once_however_it_is_written(world: World) -> None:
    again = auth(world, "register", email=f" {world.person().email.upper()} ", password=PASSWORD, name="Alice")
    assert problem(again) == (409, "email_taken")


@pytest.mark.parametrize("password", ["password", " " * 8, "hunter22", "qwertyuiop", "tremendous-person", "Tremendous Person"])
def test_a_password_that_is_easy_to_guess_is_refused(world: World, password: str) -> None:
    body = {"email": "tremendous-person@example.org", "name": "Tremendous Person", "password": password}
    assert problem(auth(world, "register", **body)) == (422, "weak_password")


def test_a_profile_is_changed_and_receives_where_it_says(world: World) -> None:
    ann, bob = world.person(), world.person()
    before = ann.get("/v1/me").json()
    assert (before["language"], before["default_wallet"], before["email_verified"]) == ("en", None, False)
    first, second, foreign = ann.wallet(), ann.wallet(), bob.wallet(0, USD="1.00")
    changed = ann.http.patch("/v1/me", json={"name": " Ann\u0301 ", "language": "de", "default_wallet": second["id"]})
    assert changed.json() == before | {"name": "Anń", "language": "de", "default_wallet": second["id"]}
    assert bob.pay(foreign, ann.email, "0.50", wait=20).json()["status"] == "committed"
    assert (ann.balance(first)[0], ann.balance(second)[0]) == ("0.00", "0.50")
    assert problem(ann.http.patch("/v1/me", json={"default_wallet": foreign["id"]})) == (404, "wallet_not_found")
    assert ann.http.patch("/v1/me", json={}).json() == changed.json()


def test_guesses_learn_no_address_and_are_slowed_down(world: World) -> None:
    alice, bob = world.person(), world.person()
    wrong, *_, last = [auth(world, "login", email=alice.email, password="not the one") for _ in range(10)]
    unknown = auth(world, "login", email="no@example.org", password="not the one")
    assert problem(wrong) == problem(unknown) == (401, "wrong_credentials")
    assert wrong.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert problem(last) == (429, "too_many_attempts")
    assert 0 < int(last.headers["retry-after"]) <= 60
    limits = [last.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")]
    assert limits == ["10", "0", last.headers["retry-after"]]
    assert auth(world, "login", email=bob.email, password=PASSWORD).status_code == 200


def test_refresh_tokens_rotate_and_theft_or_logout_ends_the_session(world: World) -> None:
    def refresh(token: str) -> httpx.Response:
        return auth(world, "refresh", refresh_token=token)

    alice, bob = world.person(), world.person()
    stolen = alice.refresh_token
    newest = refresh(stolen).json()["refresh_token"]
    assert newest != stolen
    left = refresh(bob.refresh_token).json()["refresh_token"]
    assert auth(world, "logout", refresh_token=left).status_code == 204
    for token in (stolen, newest, left):  # the second use of the first revoked the whole family
        assert problem(refresh(token)) == (401, "invalid_token")


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/auth/register", {"email": "no-at-sign", "password": PASSWORD, "name": "x"}, "/body/email"),
        ("/v1/auth/register", {"email": "аnn@example.org", "password": PASSWORD, "name": "x"}, "/body/email"),  # a Cyrillic a
        ("/v1/auth/register", {"email": "a@example.org", "password": "hunter2", "name": "x"}, "/body/password"),
        ("/v1/auth/register", {"email": "a@example.org", "password": "\ud800" * 9, "name": "x"}, "/body/password"),
        ("/v1/auth/register", {"email": "a@example.org", "password": PASSWORD, "name": "Ann\u202eB"}, "/body/name"),
        ("/v1/auth/login", {"email": "a@example.org"}, "/body/password"),
        ("/v1/auth/login", [], "/body"),
    ],
)
def test_validation_errors_point_at_the_field_and_repeat_no_input(world: World, path: str, body: Any, pointer: str) -> None:
    answer = world.gateway.http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert problem(answer) == (422, "invalid_request")
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("GET", "/nowhere", b"", 404, "not_found"),
        ("DELETE", "/v1/wallets", b"", 405, "method_not_allowed"),
        ("GET", "/v1/me", b"", 401, "not_authenticated"),
        ("GET", "/v1/blocks/0/99999999", b"", 404, "block_not_found"),
        ("GET", "/v1/blocks?shard=9", b"", 404, "shard_not_found"),
        ("GET", "/v1/accounts/spay1x", b"", 422, "invalid_address"),
        ("POST", "/v1/auth/login", b"{", 422, "invalid_request"),
        ("POST", "/v1/auth/login", b"[" * 60_000, 400, "bad_request"),
        ("POST", "/v1/auth/login", b"\xff\x00{", 400, "bad_request"),
        ("POST", "/v1/auth/login", b"x" * 70_000, 413, "too_large"),
        ("POST", "/v1/auth/login", (b"x" * 1000 for _ in range(100)), 413, "too_large"),  # no content-length
    ],
)
def test_every_other_error_is_a_problem_document_too(
    world: World, method: str, path: str, content: Any, status: int, code: str
) -> None:
    answer = world.gateway.http.request(method, path, content=content, headers={"content-type": "application/json"})
    assert problem(answer) == (status, code)
