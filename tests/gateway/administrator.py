"""An administrator of a world's gateway: made one on its host, logged in with a second factor."""

import pyotp

from gateway.__main__ import main
from tests.gateway.world import World
from tests.person import PASSWORD, Person


def second_factor(person: Person) -> list[str]:
    """Turns it on; recovery codes."""
    secret = person.post("/v1/me/totp", {"password": PASSWORD}).json()["secret"]
    codes: list[str] = person.post("/v1/me/totp/confirm", {"code": pyotp.TOTP(secret).now()}).json()["recovery_codes"]
    return codes


def log_in(person: Person, code: str) -> None:
    answer = person.http.post("/v1/auth/login", json={"email": person.email, "password": PASSWORD, "code": code})
    assert answer.status_code == 200, answer.text
    person.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def on_host(world: World, *arguments: str) -> int:
    """The exit code of a command beside the gateway."""
    return main([*arguments, "--config", str(world.gateway.config)])


def administrator(world: World) -> Person:
    person = world.person().verify()
    codes = second_factor(person)
    assert on_host(world, "admin", "grant", person.email, "--reason", "on call") == 0
    log_in(person, codes[0])
    return person
