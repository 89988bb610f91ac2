"""Users and sessions, and the form every error has."""

import time
from typing import Any

import httpx
import jwt
import pytest

from gateway.accounts import Throttle
from gateway.problems import Problem
from tests.gateway.conftest import World
from tests.person import PASSWORD


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that must be a problem document."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= body.keys()
    assert body["status"] == answer.status_code
    return answer.status_code, body["code"]


def test_who_am_i(world: World) -> None:
    alice = world.person()
    assert alice.get("/v1/me").json()["email"] == alice.email
    assert problem(world.gateway.http.get("/v1/me")) == (401, "not_authenticated")
    bad = world.gateway.http.get("/v1/me", headers={"Authorization": "Bearer nonsense"})
    assert problem(bad) == (401, "invalid_token")
    assert bad.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("lifetime", "secret", "code"), [(60, "00" * 32, "invalid_token"), (-1, None, "token_expired")])
def test_tokens_that_others_made_or_time_took_are_refused(world: World, lifetime: int, secret: str | None, code: str) -> None:
    key = bytes.fromhex(secret or world.gateway.environment["SHARDPAY_TOKEN_SECRET"])
    token = jwt.encode({"sub": "somebody", "exp": int(time.time()) + lifetime}, key, "HS256")
    assert problem(world.gateway.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})) == (401, code)


def test_an_address_registers_once_however_it_is_written(world: World) -> None:
    alice = world.person()
    again = {"email": f" {alice.email.upper()} ", "password": PASSWORD, "name": "Alice"}
    assert problem(world.gateway.http.post("/v1/auth/register", json=again)) == (409, "email_taken")


def test_login_does_not_tell_whether_the_address_exists(world: World) -> None:
    alice = world.person()
    wrong = world.gateway.http.post("/v1/auth/login", json={"email": alice.email, "password": "not the one"})
    unknown = world.gateway.http.post("/v1/auth/login", json={"email": "no@example.org", "password": "not the one"})
    assert problem(wrong) == problem(unknown) == (401, "wrong_credentials")
    assert wrong.json() == unknown.json()


def test_guessing_passwords_is_slowed_down(world: World) -> None:
    alice, bob = world.person(), world.person()

    def attempt(email: str, password: str) -> httpx.Response:
        return world.gateway.http.post("/v1/auth/login", json={"email": email, "password": password})

    answers = [attempt(alice.email, "not the one") for _ in range(10)]
    assert problem(answers[-1]) == (429, "too_many_attempts")
    assert int(answers[-1].headers["retry-after"]) > 0
    assert attempt(bob.email, PASSWORD).status_code == 200


def test_the_throttle_remembers_a_bounded_number_of_keys() -> None:
    throttle = Throttle(limit=1, window=60, capacity=100)
    for i in range(1000):
        throttle.check(str(i))
    assert len(throttle._attempts) == 100
    with pytest.raises(Problem):
        throttle.check("999")


def refresh(world: World, token: str) -> httpx.Response:
    return world.gateway.http.post("/v1/auth/refresh", json={"refresh_token": token})


def test_refresh_tokens_rotate_and_a_stolen_one_ends_the_session(world: World) -> None:
    alice = world.person()
    first = alice.refresh_token
    second = refresh(world, first).json()["refresh_token"]
    assert second != first
    assert problem(refresh(world, first)) == (401, "invalid_token")
    assert problem(refresh(world, second)) == (401, "invalid_token"), "the reuse revoked the whole family"


def test_logout_ends_the_session(world: World) -> None:
    alice = world.person()
    token = refresh(world, alice.refresh_token).json()["refresh_token"]
    assert world.gateway.http.post("/v1/auth/logout", json={"refresh_token": token}).status_code == 204
    assert problem(refresh(world, token)) == (401, "invalid_token")


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/auth/register", {"email": "no-at-sign", "password": PASSWORD, "name": "x"}, "/body/email"),
        ("/v1/auth/register", {"email": "a@example.org", "password": "short", "name": "x"}, "/body/password"),
        ("/v1/auth/login", {"email": "a@example.org"}, "/body/password"),
        ("/v1/auth/login", [], "/body"),
    ],
)
def test_validation_errors_point_at_the_field_and_repeat_no_input(world: World, path: str, body: Any, pointer: str) -> None:
    answer = world.gateway.http.post(path, json=body)
    assert problem(answer) == (422, "invalid_request")
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert "short" not in str([error.get("input") for error in answer.json()["errors"]])


def test_every_other_error_is_a_problem_document_too(world: World) -> None:
    http = world.gateway.http
    assert problem(http.get("/nowhere")) == (404, "not_found")
    assert problem(http.delete("/v1/wallets")) == (405, "method_not_allowed")
    assert problem(http.post("/v1/auth/login", content=b"{", headers={"content-type": "application/json"}))[0] == 422
    for body in (b"[" * 60_000, b"\xff\x00{"):
        assert problem(http.post("/v1/auth/login", content=body, headers={"content-type": "application/json"}))[0] in (400, 422)
    assert problem(http.post("/v1/auth/login", content=b"x" * 70_000)) == (413, "too_large")
    chunks = (b"x" * 1000 for _ in range(100))  # no content-length
    assert problem(http.post("/v1/auth/login", content=chunks)) == (413, "too_large")
