"""A second factor: who has the password only does not get in, and no code is good twice."""

from typing import Any

import httpx
import pyotp

from tests.gateway.test_accounts import auth, problem
from tests.gateway.test_api_keys import keyed
from tests.gateway.world import World
from tests.person import PASSWORD, Person


def begun(person: Person) -> pyotp.TOTP:
    """What an app makes of the new secret."""
    made = person.post("/v1/me/totp", {"password": PASSWORD}).json()
    app = pyotp.parse_uri(made["uri"])
    assert isinstance(app, pyotp.TOTP)
    assert (app.secret, app.name, app.issuer) == (made["secret"], person.email, "shardpay")
    return app


def confirm(person: Person, code: str) -> httpx.Response:
    return person.post("/v1/me/totp/confirm", {"code": code})


def early(app: pyotp.TOTP) -> str:
    """A code that is not good any more, or not yet."""
    return app.at(0)


def login(world: World, person: Person, **more: Any) -> httpx.Response:
    return auth(world, "login", email=person.email, password=PASSWORD, **more)


def test_with_a_second_factor_the_password_alone_does_not_log_in(world: World) -> None:
    ann = world.person()
    assert problem(ann.post("/v1/me/totp", {"password": "not the one"})) == (403, "wrong_password")
    assert problem(confirm(ann, "123456")) == (409, "second_factor_not_begun")
    begun(ann)
    app = begun(ann)  # which replaces what was not confirmed
    assert problem(confirm(ann, early(app))) == (403, "wrong_code")
    assert login(world, ann).status_code == 200, "not before it is confirmed"
    code = app.now()
    recovery = confirm(ann, code).json()["recovery_codes"]
    assert len(set(recovery)) == 10
    assert ann.get("/v1/me").json()["second_factor"] is True
    assert problem(ann.post("/v1/me/totp", {"password": PASSWORD})) == (409, "second_factor_on")
    assert problem(login(world, ann)) == (401, "code_required")
    assert problem(auth(world, "login", email=ann.email, password="not the one", code=recovery[1])) == (401, "wrong_credentials")
    assert problem(login(world, ann, code=code)) == (401, "wrong_code"), "it has been used"
    assert login(world, ann, code=f" {recovery[0].upper()} ").status_code == 200


def test_each_code_is_good_once_and_few_are_tried(world: World) -> None:
    ann = world.person()
    app = begun(ann)
    recovery = confirm(ann, app.now()).json()["recovery_codes"]
    assert login(world, ann, code=recovery[0]).status_code == 200
    assert problem(login(world, ann, code=recovery[0])) == (401, "wrong_code")
    for wrong in ("000000", "\u0664" * 6):
        assert problem(login(world, ann, code=wrong)) == (401, "wrong_code")
    assert problem(login(world, ann, code=recovery[1])) == (429, "too_many_attempts")


def test_it_is_removed_with_a_code_and_by_no_api_key(world: World) -> None:
    ann = world.person().verify()
    recovery = confirm(ann, begun(ann).now()).json()["recovery_codes"]

    def remove(client: httpx.Client, code: str) -> httpx.Response:
        return client.request("DELETE", "/v1/me/totp", json={"code": code})

    with keyed(ann, "read", "payments") as program:
        assert problem(remove(program, recovery[0])) == (403, "api_key_not_allowed")
    assert problem(remove(ann.http, "000000")) == (403, "wrong_code")
    assert remove(ann.http, recovery[0]).status_code == 204
    assert problem(remove(ann.http, recovery[1])) == (409, "second_factor_off")
    assert login(world, ann).status_code == 200


def test_its_secret_is_not_in_the_database_in_clear(world: World) -> None:
    ann = world.person()
    app = begun(ann)
    recovery = confirm(ann, app.now()).json()["recovery_codes"]
    written = b"".join(path.read_bytes() for path in world.folder.glob("gateway.*"))
    for private in (app.secret.encode(), app.byte_secret(), *(code.encode() for code in recovery)):
        assert private not in written
