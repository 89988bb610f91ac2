"""Passkeys: who has the device logs in, with an answer to this page's question of now, and nobody else."""

import secrets
import sqlite3
import time
from typing import Any

import httpx
import jwt
import pytest
from webauthn.helpers import bytes_to_base64url

from gateway.identity.passkeys import MAX_PASSKEYS, relying_party
from tests.authenticator import PRESENT, Authenticator
from tests.gateway.test_accounts import auth, problem
from tests.gateway.test_api_keys import keyed
from tests.gateway.test_closing import close, stored
from tests.gateway.test_mails import mails
from tests.gateway.test_second_factor import begun, confirm
from tests.gateway.test_sessions import again
from tests.gateway.world import World
from tests.person import PASSWORD, Person, mailed_token


def device(world: World) -> Authenticator:
    return Authenticator(world.gateway.url.replace("127.0.0.1", "localhost"))


def begin(person: Person, **more: str) -> httpx.Response:
    return person.post("/v1/me/passkeys/options", {"password": PASSWORD, **more})


def add(person: Person, credential: dict[str, Any], name: str = "phone") -> httpx.Response:
    return person.post("/v1/me/passkeys", {"name": name, "credential": credential})


def added(world: World, person: Person) -> Authenticator:
    """A device that logs in."""
    phone = device(world)
    answer = add(person, phone.make(begin(person).json()))
    assert answer.status_code == 201, answer.text
    return phone


def question(world: World) -> dict[str, Any]:
    options: dict[str, Any] = world.gateway.http.post("/v1/auth/passkey/options").json()
    return options


def log_in(world: World, credential: dict[str, Any]) -> httpx.Response:
    return world.gateway.http.post("/v1/auth/passkey", json={"credential": credential})


def signed(world: World, secret: str = "", **claims: Any) -> str:
    """A challenge as the gateway makes them, but for these claims."""
    good = {"aud": "passkey login", "exp": int(time.time()) + 60, "jti": secrets.token_hex(8)}
    key = bytes.fromhex(secret or world.gateway.environment["SHARDPAY_TOKEN_SECRET"])
    return jwt.encode(good | claims, key, "HS256")


def coded(challenge: str) -> dict[str, str]:
    return {"rpId": "localhost", "challenge": bytes_to_base64url(challenge.encode())}


def test_a_passkey_logs_in_instead_of_password_and_second_factor(world: World) -> None:
    ann = world.person()
    app = begun(ann)
    recovery = confirm(ann, app.now()).json()["recovery_codes"]
    assert problem(ann.post("/v1/me/passkeys/options", {"password": "not the one"})) == (403, "wrong_password")
    assert problem(begin(ann)) == (403, "code_required")
    assert problem(begin(ann, code="000000")) == (403, "wrong_code")
    phone = device(world)
    options = begin(ann, code=recovery[0]).json()
    assert (options["rp"]["id"], options["user"]["name"]) == ("localhost", ann.email)
    made = add(ann, phone.make(options), " My phone ").json()
    assert (made["name"], made["last_used_at"]) == ("My phone", None)
    assert mails(world, ann.email, 2)[0]["subject"] == "A passkey was added"
    session = log_in(world, phone.sign(question(world))).json()
    me = world.gateway.http.get("/v1/me", headers={"Authorization": f"Bearer {session['access_token']}"})
    assert me.json()["email"] == ann.email
    assert auth(world, "refresh", refresh_token=session["refresh_token"]).status_code == 200
    (listed,) = ann.get("/v1/me/passkeys").json()["items"]
    assert listed["last_used_at"] >= made["created_at"]


def test_a_second_factor_removes_the_passkeys_that_were_added_without_it(world: World) -> None:
    ann = world.person()
    phone, asked = added(world, ann), begin(ann).json()
    confirm(ann, begun(ann).now())
    assert problem(log_in(world, phone.sign(question(world)))) == (401, "passkey_unknown")
    assert problem(add(ann, device(world).make(asked))) == (422, "challenge_expired"), "asked for without the code"


def test_an_answer_is_good_once_and_for_what_was_asked_now(world: World) -> None:
    ann = world.person()
    phone = added(world, ann)
    answer = phone.sign(question(world))
    assert log_in(world, answer).status_code == 200
    assert problem(log_in(world, answer)) == (401, "challenge_expired"), "replayed"
    assert log_in(world, phone.sign(coded(signed(world)))).status_code == 200
    for challenge in (
        coded(signed(world, exp=int(time.time()) - 1)),
        coded(signed(world, aud="another purpose")),
        coded(signed(world, secret="00" * 32)),
        coded(ann.http.headers["Authorization"].removeprefix("Bearer ")),
        coded("nonsense"),
        begin(ann).json() | {"rpId": "localhost"},
    ):
        assert problem(log_in(world, phone.sign(challenge))) == (401, "challenge_expired")
    token = world.gateway.http.get("/v1/me", headers={"Authorization": f"Bearer {signed(world)}"})
    assert problem(token) == (401, "invalid_token"), "no challenge is an access token"


def test_an_answer_that_no_device_gave_to_this_page_is_refused(world: World) -> None:
    ann, bob = world.person(), world.person()
    phone, other = added(world, ann), added(world, bob)

    def refused(credential: dict[str, Any]) -> bool:
        return problem(log_in(world, credential)) == (401, "passkey_refused")

    for origin in ("https://localhost", "http://localhost.example.org", world.gateway.url, f"{phone.origin}/"):
        honest, phone.origin = phone.origin, origin
        assert refused(phone.sign(question(world))), origin
        phone.origin = honest
    assert refused(phone.sign(question(world) | {"rpId": "example.org"})), "made for another domain"
    phone.flags = PRESENT
    assert refused(phone.sign(question(world))), "its user was not verified"
    phone.flags = 5
    mine, theirs = phone.sign(question(world)), other.sign(question(world))
    assert refused(mine | {"response": mine["response"] | {"userHandle": theirs["response"]["userHandle"]}}), "as somebody else"
    assert refused(mine | {"response": theirs["response"] | {"userHandle": mine["response"]["userHandle"]}}), (
        "another's signature"
    )
    assert refused(phone.sign(question(world), framed=True)), "inside another page"
    assert refused(mine | {"id": "A", "rawId": "A"})
    assert refused(mine | {"response": mine["response"] | {"signature": "AAAA"}})
    assert refused(mine | {"response": mine["response"] | {"authenticatorData": "AAAA"}})
    assert refused(mine | {"response": mine["response"] | {"clientDataJSON": "AAAA"}})
    assert problem(log_in(world, device(world).sign(question(world)))) == (401, "passkey_unknown")
    assert log_in(world, mine).status_code == 200, "what was refused has used nothing up"


def test_a_copied_device_is_noticed_by_its_count_of_signatures(world: World) -> None:
    phone = added(world, world.person())
    phone.count = 7
    assert log_in(world, phone.sign(question(world))).status_code == 200
    assert problem(log_in(world, phone.sign(question(world)))) == (401, "passkey_refused")
    phone.count = 8
    assert log_in(world, phone.sign(question(world))).status_code == 200


def test_only_a_passkey_of_this_page_user_and_moment_is_added_once(world: World) -> None:
    ann, bob = world.person(), world.person()
    phone = device(world)
    honest = phone.origin
    for origin, flags, code in (("https://example.org", 5, "passkey_refused"), (honest, PRESENT, "passkey_refused")):
        phone.origin, phone.flags = origin, flags
        assert problem(add(ann, phone.make(begin(ann).json()))) == (422, code)
    phone.flags = 5
    credential = phone.make(begin(ann).json())
    garbage = credential | {"response": credential["response"] | {"attestationObject": "o2NmbXQ"}}
    assert problem(add(ann, garbage)) == (422, "passkey_refused")
    assert problem(add(bob, credential)) == (422, "challenge_expired"), "asked for by somebody else"
    assert problem(add(ann, phone.make(begin(ann).json() | {"challenge": question(world)["challenge"]}))) == (
        422,
        "challenge_expired",
    )
    assert add(ann, credential).status_code == 201
    assert problem(add(ann, credential)) == (422, "challenge_expired")
    assert problem(add(bob, phone.make(begin(bob).json()))) == (409, "passkey_taken")
    assert [one["id"] for one in begin(ann).json()["excludeCredentials"]] == [credential["id"]]
    (kept,) = ann.get("/v1/me/passkeys").json()["items"]
    assert bob.get("/v1/me/passkeys").json()["items"] == []
    assert problem(bob.http.patch(f"/v1/me/passkeys/{kept['id']}", json={"name": "mine"})) == (404, "passkey_not_found")
    assert problem(bob.http.delete(f"/v1/me/passkeys/{kept['id']}")) == (404, "passkey_not_found")
    assert ann.http.patch(f"/v1/me/passkeys/{kept['id']}", json={"name": "laptop"}).json()["name"] == "laptop"
    with keyed(ann.verify(), "read", "payments") as program:
        assert problem(program.get("/v1/me/passkeys")) == (403, "api_key_not_allowed")


def test_a_removed_passkey_logs_in_no_more_and_takes_the_other_sessions_along(world: World) -> None:
    ann = world.person()
    phone = added(world, ann)
    (kept,) = ann.get("/v1/me/passkeys").json()["items"]
    with again(world, ann) as elsewhere:
        assert ann.http.delete(f"/v1/me/passkeys/{kept['id']}").status_code == 204
        assert problem(elsewhere.get("/v1/me")) == (401, "session_ended")
    assert ann.get("/v1/me").status_code == 200
    assert problem(log_in(world, phone.sign(question(world)))) == (401, "passkey_unknown")


def test_a_password_set_by_mail_removes_passkeys_that_a_changed_one_keeps(world: World) -> None:
    ann = world.person()
    phone, new = added(world, ann), "wrong donkey capacitor clip"
    assert ann.http.put("/v1/me/password", json={"current": PASSWORD, "new": new}).status_code == 204
    assert log_in(world, phone.sign(question(world))).status_code == 200
    auth(world, "password/forgot", email=ann.email)
    assert auth(world, "password/reset", token=mailed_token(ann.http, ann.email, "reset"), password=PASSWORD).status_code == 204
    assert problem(log_in(world, phone.sign(question(world)))) == (401, "passkey_unknown")


def test_a_closed_account_leaves_no_passkey(world: World) -> None:
    ann = world.person()
    phone = device(world)
    add(ann, phone.make(begin(ann).json()), "Annabels phone")
    assert stored(world, "Annabels phone") == ["passkeys"]
    assert close(ann).status_code == 204
    assert stored(world, "Annabels phone") == []
    assert problem(log_in(world, phone.sign(question(world)))) == (401, "passkey_unknown")


def test_there_are_so_many_passkeys_and_no_more(world: World) -> None:
    ann = world.person()
    first, second = begin(ann).json(), begin(ann).json()
    row = "INSERT INTO passkeys VALUES (?, ?, '', ?, '', 0, 0, NULL)"
    user = ann.get("/v1/me").json()["id"]
    with sqlite3.connect(world.folder / "gateway.db", timeout=30) as connection:
        connection.executemany(
            row, [(f"{number} {user[:20]}", user, secrets.token_bytes(16)) for number in range(MAX_PASSKEYS - 1)]
        )
    assert add(ann, device(world).make(first)).status_code == 201
    assert problem(add(ann, device(world).make(second))) == (409, "limit_exceeded")
    assert problem(begin(ann)) == (409, "limit_exceeded")


@pytest.mark.parametrize(
    ("url", "party"),
    [
        ("https://wallet.example.org/", ("wallet.example.org", "https://wallet.example.org")),
        ("https://Wallet.example.org:443", ("wallet.example.org", "https://wallet.example.org")),
        ("https://wallet.example.org:8443", ("wallet.example.org", "https://wallet.example.org:8443")),
        ("http://127.0.0.1:8080", ("localhost", "http://localhost:8080")),
        ("http://[::1]:8080", ("localhost", "http://localhost:8080")),
        ("http://localhost", ("localhost", "http://localhost")),
        ("http://wallet.example.org", None),
        ("https://192.0.2.7", None),
        ("http://0.0.0.0:8080", None),
        ("", None),
    ],
)
def test_passkeys_are_made_for_the_domain_where_the_page_is(url: str, party: tuple[str, str] | None) -> None:
    assert relying_party(url) == party
