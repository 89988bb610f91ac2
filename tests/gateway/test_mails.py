"""Mails: what they prove, once; that nobody learns from them, or from the lack of them, who has an account."""

import re
import time
from statistics import median
from typing import Any

import httpx
import pytest

from tests.gateway.test_accounts import auth, problem
from tests.gateway.world import World
from tests.person import PASSWORD, mailed_token
from tests.waiting import until

ANOTHER = "wrong donkey capacitor clip"


def mails(world: World, to: str, count: int = 1) -> list[dict[str, Any]]:
    """All to somebody, the latest first, when there are so many."""

    def find() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = world.gateway.http.get("/v1/devnet/mails", params={"to": to}).json()["items"]
        return items if len(items) >= count else []

    return until(find, f"{count} mails to {to}")


def login(world: World, email: str, password: str = PASSWORD) -> httpx.Response:
    return auth(world, "login", email=email, password=password)


def known(world: World, email: str) -> str:
    """An address whose account is verified."""
    assert auth(world, "register", email=email, password=PASSWORD, name="Ann").status_code == 202
    assert auth(world, "verify", token=mailed_token(world.gateway.http, email, "verify")).status_code == 204
    return email


def test_an_address_is_verified_with_a_link_that_is_good_once(world: World) -> None:
    ann = world.person()
    assert ann.get("/v1/me").json()["email_verified"] is False
    token = mailed_token(ann.http, ann.email, "verify")
    assert ann.verify().get("/v1/me").json()["email_verified"] is True
    assert problem(auth(world, "verify", token=token)) == (422, "invalid_link")
    assert problem(auth(world, "verify", token="\u00e4" * 43)) == (422, "invalid_link")


def test_a_forgotten_password_is_reset_once_and_every_session_ends(world: World) -> None:
    ann = world.person()
    assert auth(world, "password/forgot", email=ann.email.upper()).status_code == 202
    token = mailed_token(ann.http, ann.email, "reset")
    assert problem(auth(world, "verify", token=token)) == (422, "invalid_link"), "it proves one thing only"
    assert problem(auth(world, "password/reset", token=token, password="password")) == (422, "weak_password")
    assert auth(world, "password/reset", token=token, password=ANOTHER).status_code == 204
    assert problem(ann.get("/v1/me")) == (401, "session_ended")
    assert problem(auth(world, "refresh", refresh_token=ann.refresh_token)) == (401, "invalid_token")
    assert problem(auth(world, "password/reset", token=token, password=PASSWORD)) == (422, "invalid_link")
    assert (login(world, ann.email).status_code, login(world, ann.email, ANOTHER).status_code) == (401, 200)
    assert "changed" in mails(world, ann.email, 3)[0]["subject"], "and its owner is told"


def test_nobody_logs_in_with_an_address_that_must_be_verified_and_is_not(strict: World) -> None:
    email = "Zoe@Example.org"
    first = auth(strict, "register", email=email, password=ANOTHER, name="Somebody else", language="de")
    again = auth(strict, "register", email=email, password=PASSWORD, name="Zoe", language="zh")
    assert [(one.status_code, one.json()) for one in (first, again)] == [(202, {"status": "verification_sent"})] * 2
    wrong, right = login(strict, email, "not the one"), login(strict, email)
    assert problem(wrong) == problem(right) == (401, "wrong_credentials")
    assert wrong.json() | {"request_id": ""} == right.json() | {"request_id": ""}
    latest = mails(strict, email, 2)[0]
    assert latest["subject"] == "请确认您的电子邮箱"
    assert "https://wallet.example.org/#/verify?token=" in latest["text"]
    assert auth(strict, "verify", token=re.search(r"token=(\S+)", latest["text"])[1]).status_code == 204  # type: ignore[index]
    assert problem(login(strict, email, ANOTHER)) == (401, "wrong_credentials"), "who came first had proven nothing"
    assert login(strict, email).status_code == 200
    assert auth(strict, "register", email=email, password=ANOTHER, name="x").status_code == 202
    mails(strict, email, 3)
    assert login(strict, email).status_code == 200, "a verified account stays as it is"


@pytest.mark.parametrize(
    ("step", "body"),
    [
        ("register", {"password": PASSWORD, "name": "Ann"}),
        ("register", {"password": "password", "name": "Ann"}),
        ("login", {"password": "not the one"}),
        ("verification", {}),
        ("password/forgot", {}),
    ],
    ids=["register", "register badly", "log in", "verify", "forgot"],
)
def test_from_outside_one_cannot_tell_who_has_an_account(strict: World, step: str, body: dict[str, str]) -> None:
    seconds: dict[bool, list[float]] = {True: [], False: []}
    answers = []
    label = f"{step.replace('/', '-')}-{len(body.get('password', ''))}@example.org"
    ann = known(strict, f"ann-{label}")
    for number in range(4):
        for is_known, email in ((True, ann), (False, f"nobody-{number}-{label}")):
            begun = time.perf_counter()
            answer = auth(strict, step, email=email, **body)
            seconds[is_known].append(time.perf_counter() - begun)
            of_this_one = answer.headers["x-request-id"]
            headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
            answers.append((answer.status_code, headers, answer.content.replace(of_this_one.encode(), b"")))
    assert all(answer == answers[0] for answer in answers), answers
    slow, fast = sorted((median(seconds[True]), median(seconds[False])))[::-1]
    assert slow < 2.5 * fast + 0.005, seconds


def test_no_secret_is_in_the_logs(world: World) -> None:
    ann = world.person().verify()
    secrets = [PASSWORD, ANOTHER, "not the one", ann.refresh_token, ann.http.headers["Authorization"].removeprefix("Bearer ")]
    secrets += [mailed_token(ann.http, ann.email, "verify")]
    secrets += [ann.post("/v1/api-keys", {"name": "x", "scopes": ["read"]}).json()["key"]]
    for path in ("/v1/me", f"/v1/wallets/{secrets[-1]}"):
        world.gateway.http.get(path, headers={"Authorization": f"Bearer {secrets[-1]}x"})
    login(world, ann.email, "not the one")
    auth(world, "password/forgot", email=ann.email)
    secrets += [mailed_token(ann.http, ann.email, "reset")]
    auth(world, "password/reset", token=secrets[-1], password=ANOTHER)
    auth(world, "verify", token=secrets[-1] + "x")
    world.gateway.http.post("/v1/auth/login", content=f'{{"password": "{PASSWORD}')
    logged = world.gateway.log.read_text()
    assert "gateway starting" in logged
    assert [secret for secret in secrets if secret in logged] == []


def test_who_has_an_account_is_told_so_by_mail_and_who_has_none_gets_no_mail(strict: World) -> None:
    ann = known(strict, "told@example.org")
    auth(strict, "register", email=ann, password=ANOTHER, name="Somebody")
    latest = mails(strict, ann, 2)[0]
    assert (latest["subject"], "token=" in latest["text"]) == ("You have a wallet already", False)
    for step in ("verification", "password/forgot"):
        auth(strict, step, email="silent@example.org")
    auth(strict, "verification", email=ann)
    auth(strict, "password/forgot", email=ann)
    assert mails(strict, ann, 3)[0]["subject"] == "Choose a new password", "and nothing to verify what is verified"
    assert strict.gateway.http.get("/v1/devnet/mails", params={"to": "silent@example.org"}).json()["items"] == []
