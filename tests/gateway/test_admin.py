"""Administration: who may do it, what it does, and the log of it, which shows every later change."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.admin import audit, limits
from gateway.admin.audit import Head
from gateway.database import open_engine
from gateway.money.limits import Limits, Today, is_beyond
from node.protocol.genesis import Asset
from tests.gateway.administrator import administrator, log_in, on_host, second_factor
from tests.gateway.test_accounts import problem
from tests.gateway.test_api_keys import keyed
from tests.gateway.test_money import Customer
from tests.gateway.world import World
from tests.person import PASSWORD, Person
from tests.waiting import until

WHY = {"reason": "the court said so"}


@pytest.fixture(scope="module")
def ada(world: World) -> Person:
    return administrator(world)


@pytest.fixture(scope="module")
def bea(world: World) -> Person:
    return administrator(world)


def id_of(person: Person) -> str:
    return str(person.get("/v1/me").json()["id"])


def test_administrators_are_made_on_the_host_and_log_in_with_a_second_factor(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    eve = world.person()

    def ask() -> httpx.Response:
        return eve.get("/v1/admin/audit-log")

    def grant(email: str = eve.email) -> int:
        return on_host(world, "admin", "grant", email, "--reason", "on call")

    assert problem(ask()) == (403, "not_administrator")
    assert grant("nobody@example.org") == 1
    assert grant() == 1, "the address is not verified"
    eve.verify()
    assert grant() == 1, "there is no second factor"
    codes = second_factor(eve)
    assert problem(ask()) == (403, "not_administrator")
    assert grant() == 0
    assert problem(ask()) == (403, "second_factor_needed"), "it was not asked for at this login"
    log_in(eve, codes[0])
    logged = ask().json()["items"][:3]
    assert [entry["action"] for entry in logged] == ["administrator.login", "administrator.granted", "second_factor.on"]
    assert [entry["actor"] for entry in logged] == [id_of(eve), "host", id_of(eve)]
    with keyed(eve, "read", "payments", "checkout", "webhooks") as program:
        assert problem(program.get("/v1/admin/audit-log")) == (403, "api_key_not_allowed")
    assert eve.http.request("DELETE", "/v1/me/totp", json={"code": codes[1]}).status_code == 204
    assert problem(ask()) == (403, "second_factor_needed")
    capsys.readouterr()
    assert on_host(world, "admin", "list") == 0
    assert eve.email in capsys.readouterr().out.splitlines()
    assert on_host(world, "admin", "revoke", eve.email, "--reason", "left") == 0
    assert problem(ask()) == (403, "not_administrator")
    assert on_host(world, "admin", "revoke", eve.email, "--reason", "left") == 1


def test_nobody_else_gets_anywhere_below_admin(world: World) -> None:
    stranger, paths = world.person(), world.gateway.http.get("/openapi.json").json()["paths"]
    below = [(path, method) for path, methods in paths.items() if path.startswith("/v1/admin") for method in methods]
    assert len(below) >= 9
    for path, method in below:
        place = path.format(user_id="0" * 32, purchase_id="0" * 32)
        body: dict[str, Any] = {"json": {}} if method != "get" else {}
        assert problem(stranger.http.request(method, place, **body))[0] in (403, 422), path
        assert world.gateway.http.request(method, place, **body).status_code in (401, 422), path


def test_a_suspended_user_is_out_at_once_and_stays_out(world: World, ada: Person) -> None:
    bob = world.person().verify()
    path = f"/v1/admin/users/{id_of(bob)}"
    sides = {"give": {"asset": "USD", "amount": "1.00"}, "want": {"asset": "VND", "amount": "1"}}
    offer = bob.post("/v1/exchanges", {"wallet_id": bob.wallet()["id"], **sides}).json()
    assert offer["status"] == "offered"
    with keyed(bob, "read") as program:
        assert problem(ada.post(f"{path}/suspend", {})) == (422, "invalid_request"), "without a reason nothing happens"
        assert ada.post(f"{path}/suspend", WHY).json()["suspended_at"]
        assert problem(ada.post(f"{path}/suspend", WHY)) == (409, "already_decided")
        assert problem(bob.get("/v1/me")) == (401, "session_ended")
        assert problem(program.get("/v1/wallets")) == (401, "invalid_token")
        assert problem(bob.post("/v1/auth/refresh", {"refresh_token": bob.refresh_token})) == (401, "invalid_token")
        login = {"email": bob.email, "password": PASSWORD}
        assert problem(bob.post("/v1/auth/login", login)) == (403, "suspended")
        assert problem(bob.post("/v1/auth/login", login | {"password": "another"})) == (401, "wrong_credentials")
        assert ada.post(f"{path}/reinstate", WHY).json()["suspended_at"] is None
        session = bob.post("/v1/auth/login", login).json()
        bob.http.headers["Authorization"] = f"Bearer {session['access_token']}"
        assert problem(program.get("/v1/wallets")) == (401, "invalid_token"), "the key does not come back"
        assert bob.get("/v1/api-keys").json()["items"] == []
        assert bob.get(f"/v1/exchanges/{offer['id']}").json()["status"] == "canceled"


def test_a_frozen_account_neither_pays_nor_receives_until_it_is_unfrozen(world: World, ada: Person) -> None:
    deal = world.deal(0, 1)
    order = {"addresses": [deal.purse["address"], deal.till["address"]], "asset": "USD", **WHY}
    frozen = ada.post("/v1/admin/freeze", order, "key 1", wait=20)
    assert (frozen.status_code, frozen.json()["kind"], frozen.json()["status"]) == (200, "freeze", "committed"), frozen.text
    assert ada.post("/v1/admin/freeze", order, "key 1").json()["id"] == frozen.json()["id"], "once"
    assert deal.pay("1.00", wait=20)["code"] == "account_frozen"
    assert deal.ann.get(f"/v1/wallets/{deal.purse['id']}").json()["balances"]["USD"]["frozen"] is True
    assert ada.post("/v1/admin/unfreeze", order, wait=20).json()["status"] == "committed"
    assert deal.pay("1.00", wait=20)["status"] == "committed"
    (entry,) = ada.get("/v1/admin/audit-log", subject=frozen.json()["id"]).json()["items"]
    assert (entry["actor"], entry["action"], entry["reason"]) == (id_of(ada), "account.freeze", WHY["reason"])
    assert entry["details"]["addresses"] == order["addresses"]
    assert problem(ada.post("/v1/admin/freeze", order | {"asset": "VND"})) == (409, "no_issuer_key")
    twice = [deal.purse["address"]] * 2
    assert problem(ada.post("/v1/admin/freeze", order | {"addresses": twice})) == (422, "invalid_address")


def raised(ada: Person, customer: Customer, purchase: int | None = 20_000, per_day: int | None = 50_000) -> httpx.Response:
    path = f"/v1/admin/users/{id_of(customer.person)}/limits"
    return ada.http.put(path, json={"purchase": purchase, "purchases_per_day": per_day, **WHY})


def test_two_administrators_are_needed_to_mint_beyond_everybodys_limits(world: World, ada: Person, bea: Person) -> None:
    customer = Customer(world)
    assert problem(customer.try_to_buy("6000.00")) == (422, "amount_too_large")
    assert raised(ada, customer).json()["limits"] == {"purchase": 20_000, "purchases_per_day": 50_000}
    assert customer.buy("100.00")["status"] == "completed", "within everybody's limits nobody is asked"
    large, other = (customer.buy("6000.00", wait=0)["id"] for _ in range(2))

    def decide(who: Person, what: str, purchase: str) -> httpx.Response:
        return who.post(f"/v1/admin/mints/{purchase}/{what}", WHY)

    def waiting() -> set[str]:
        return {one["purchase_id"] for one in bea.get("/v1/admin/mints").json()["items"]}

    until(lambda: waiting() >= {large, other})
    assert problem(decide(ada, "approve", large)) == (403, "four_eyes"), "who raised the limit does not mint, too"
    assert customer.purchase({"id": large})["status"] == "processing"
    assert decide(bea, "approve", large).json() == {"purchase_id": large, "approved": True}
    assert problem(decide(bea, "reject", large)) == (409, "already_decided")
    assert customer.purchase({"id": large}, wait=20)["status"] == "completed"
    assert decide(bea, "reject", other).status_code == 200
    refused = customer.purchase({"id": other}, wait=20)
    assert (refused["status"], refused["decline_code"]) == ("failed", "not_approved")
    assert customer.balance == "6100.00"
    with sqlite3.connect(world.folder / "gateway.db") as books:
        charged = dict(books.execute("SELECT id, state FROM test_charges WHERE id IN (?, ?)", (large, other)))
    assert charged == {large: "captured", other: "canceled"}
    assert not waiting() & {large, other}
    for unknown, code in (("0" * 32, "purchase_not_found"), ("%00", "not_found")):
        assert problem(decide(bea, "approve", unknown)) == (404, code)


def test_administrators_approve_nothing_for_themselves(world: World, ada: Person) -> None:
    customer = Customer(world)
    codes = second_factor(customer.person)
    assert on_host(world, "admin", "grant", customer.person.email, "--reason", "on call") == 0
    log_in(customer.person, codes[0])
    raised(ada, customer)
    own = customer.buy("6000.00", wait=0)["id"]
    assert problem(customer.person.post(f"/v1/admin/mints/{own}/approve", WHY)) == (403, "four_eyes")


def test_many_purchases_that_are_together_beyond_everybodys_limits_need_an_approval_too() -> None:
    general, asset = Limits(5_000, 10_000, 0), Asset("USD", 2, "")
    assert not is_beyond(asset, 500_000, Today(1, 0, 500_000), general)
    assert is_beyond(asset, 500_000, Today(1, 0, 500_001), general)
    assert is_beyond(asset, 500_001, Today(0, 0, 0), general)


def test_what_nobody_decides_in_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/gateway.db")
    with engine.begin() as connection:
        assert limits.approval(connection, "p") is limits.Approval.NOT_NEEDED
        limits.ask(connection, "p", "ada")
        assert limits.approval(connection, "p") is limits.Approval.WAITING
        monkeypatch.setattr(limits, "WAITS_MS", -1)
        assert limits.approval(connection, "p") is limits.Approval.REFUSED
    engine.dispose()


def test_limits_are_lowered_taken_back_and_not_set_by_oneself(world: World, ada: Person) -> None:
    customer = Customer(world)
    raised(ada, customer, 10, 15)
    assert problem(customer.try_to_buy("10.01")) == (422, "amount_too_large")
    assert customer.buy("10.00")["status"] == "completed"
    assert problem(customer.try_to_buy("6.00")) == (429, "purchase_limit")
    assert raised(ada, customer, None, None).json()["limits"] == {"purchase": None, "purchases_per_day": None}
    assert customer.buy("6.00")["status"] == "completed"
    own = ada.http.put(f"/v1/admin/users/{id_of(ada)}/limits", json={"purchase": 1, "purchases_per_day": 1, **WHY})
    assert problem(own) == (403, "four_eyes")


def test_administrators_see_a_user_and_the_addresses_of_his_wallets(world: World, ada: Person) -> None:
    bob = world.person().verify()
    wallet = bob.wallet()
    payer = world.person()
    assert payer.pay(payer.wallet(USD="5.00"), bob.email, "1.00", wait=20).status_code == 200
    seen = ada.get("/v1/admin/users", email=bob.email).json()
    assert seen == ada.get(f"/v1/admin/users/{seen['id']}").json()
    assert (seen["email"], seen["administrator"], seen["second_factor"]) == (bob.email, False, False)
    assert wallet["address"] in [one["address"] for one in seen["addresses"]]
    assert [one["wallet_id"] for one in seen["addresses"]] == [wallet["id"]] * 2
    assert problem(ada.get("/v1/admin/users", email="nobody@example.org")) == (404, "user_not_found")


def test_what_users_do_for_their_security_is_logged_without_who_they_are(world: World, ada: Person) -> None:
    bob = world.person().verify()
    wallet, user = bob.wallet(), id_of(bob)
    with keyed(bob, "read"):
        pass
    bob.post(f"/v1/wallets/{wallet['id']}/export", {"password": PASSWORD, "passphrase": "long enough passphrase"})
    bob.http.put("/v1/me/password", json={"current": PASSWORD, "new": "another horse battery staple"})
    entries = ada.get("/v1/admin/audit-log", subject=user).json()["items"]
    assert [entry["action"] for entry in entries] == ["password.changed", "key.exported", "api_key.made"]
    assert {entry["actor"] for entry in entries} == {user}
    assert bob.email not in str(entries)


# -- the log


@contextmanager
def written(folder: Path, count: int = 5) -> Iterator[tuple[Any, list[Head]]]:
    """A log, in a transaction, and its heads from the first entry on."""
    engine = open_engine(f"sqlite:///{folder}/gateway.db")
    with closing(engine.connect()) as connection:
        heads = [audit.record(connection, "ada", "user.suspended", f"user {n}", "why", n=n) for n in range(count)]
        yield connection, heads
        connection.rollback()
    engine.dispose()


FORGERIES = [
    ("UPDATE audit_log SET reason = 'another' WHERE number = 3", "entry 3 is not what it was"),
    ("UPDATE audit_log SET at = at + 1 WHERE number = 1", "entry 1 is not what it was"),
    ("UPDATE audit_log SET actor = 'bea' WHERE number = 5", "entry 5 is not what it was"),
    ("UPDATE audit_log SET details = '{}' WHERE number = 2", "entry 2 is not what it was"),
    ("UPDATE audit_log SET hash = zeroblob(32) WHERE number = 2", "entry 2 is not what it was"),
    ("DELETE FROM audit_log WHERE number = 1", "entry 1 is missing"),
    ("DELETE FROM audit_log WHERE number = 4", "entry 4 is missing"),
    ("DELETE FROM audit_log WHERE number = 5", "ends with entry 4"),
    ("DELETE FROM audit_log", "ends with entry 0"),
]


@pytest.mark.parametrize(("forgery", "wrong"), FORGERIES)
def test_a_log_that_was_changed_anywhere_is_told_from_one_that_was_not(tmp_path: Path, forgery: str, wrong: str) -> None:
    with written(tmp_path) as (connection, heads):
        assert audit.verify(connection, heads) == (heads[-1], "")
        connection.execute(text(forgery))
        assert wrong in audit.verify(connection).wrong


def test_an_entry_that_was_forged_with_its_hash_does_not_fit_the_next(tmp_path: Path) -> None:
    with written(tmp_path) as (connection, heads):
        row = connection.execute(text("SELECT * FROM audit_log WHERE number = 3")).mappings().one()
        forged = audit.hash_of(heads[1].hash, {**row, "reason": "another"})
        connection.execute(text("UPDATE audit_log SET reason = 'another', hash = :hash WHERE number = 3"), {"hash": forged})
        assert "entry 4 is not what it was" in audit.verify(connection).wrong


def test_a_log_rewritten_as_a_whole_or_cut_off_is_told_by_a_hash_kept_elsewhere(tmp_path: Path) -> None:
    with written(tmp_path) as (connection, heads):
        connection.execute(text("DELETE FROM audit_log"))
        connection.execute(text("UPDATE audit_head SET number = 0, hash = zeroblob(32)"))
        for n in range(4):
            audit.record(connection, "ada", "user.suspended", f"user {n}", "a better reason", n=n)
        assert audit.verify(connection).wrong == "", "by itself it cannot tell"
        assert "entry 2" in audit.verify(connection, [heads[1]]).wrong
        assert "ends with entry 4" in audit.verify(connection, [heads[4]]).wrong


def test_the_command_says_whether_the_log_is_whole(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def verify(kept: str | None = None) -> int:
        if kept is None:
            return on_host(world, "audit-log", "verify")
        (tmp_path / "kept").write_text(kept)
        return on_host(world, "audit-log", "verify", "--kept", str(tmp_path / "kept"))

    administrator(world)
    capsys.readouterr()
    assert on_host(world, "audit-log", "head") == 0
    head = capsys.readouterr().out
    administrator(world)
    assert verify() == 0
    assert verify(head) == 0
    assert "agrees with 1" in capsys.readouterr().out
    number, _, digest = head.strip().partition(" ")
    assert verify(f"{number} {'0' * 64}\n") == 1
    assert verify(f"{int(number) + 10_000} {digest}\n") == 1
    assert verify("nonsense") == 2
