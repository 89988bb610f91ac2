"""Closing an account: nothing is lost, and nobody can tell any more who it was."""

import sqlite3

import httpx

from tests.gateway.test_accounts import auth, problem
from tests.gateway.test_api_keys import keyed
from tests.gateway.test_payment_files import bring
from tests.gateway.test_scheduled_payments import PATH, asked
from tests.gateway.world import World
from tests.person import PASSWORD, Person


def close(person: Person, password: str = PASSWORD) -> httpx.Response:
    return person.http.request("DELETE", "/v1/me", json={"password": password})


def stored(world: World, text: str) -> list[str]:
    """The tables that hold a text."""
    with sqlite3.connect(world.folder / "gateway.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [table for table in tables if any(text in str(row) for row in connection.execute(f"SELECT * FROM {table}"))]


def test_an_account_with_money_or_a_payment_under_way_stays(world: World) -> None:
    made = world.deal()
    assert problem(close(made.ann, "not the one")) == (403, "wrong_password")
    assert problem(close(made.ann)) == (409, "wallets_not_empty")
    with world.network.switched(hold=True):
        assert made.pay("10.00", key="all of it")["status"] in ("queued", "submitted")
        assert problem(close(made.ann)) == (409, "wallets_not_empty")
        assert made.bob.faucet(made.till, "1.00").status_code == 202
        assert problem(close(made.bob)) == (409, "under_way")
    made.ann.transfer(made.ann.pay(made.purse, made.till["address"], "10.00", key="all of it").json()["id"], wait=20)


def test_what_came_by_e_mail_or_may_come_back_keeps_an_account_open(world: World) -> None:
    made, carol = world.deal(), world.person()
    carol.wallet()
    assert made.ann.pay(made.purse, carol.email, "4.00", wait=20).json()["status"] == "committed"
    assert made.ann.pay(made.purse, f"nobody-{carol.email}", "6.00", wait=20).json()["status"] == "committed"
    assert problem(close(carol)) == (409, "wallets_not_empty")
    assert problem(close(made.ann)) == (409, "under_way")
    assert close(made.bob).status_code == 204


def test_what_is_left_of_a_closed_account_is_what_the_ledger_says(world: World) -> None:
    made = world.deal()
    ann = made.ann.verify()
    assert ann.http.patch("/v1/me", json={"name": "Annabel Lee"}).status_code == 200
    labelled = ann.post("/v1/wallets", {"label": "For the kingdom by the sea"}).json()
    with keyed(ann, "read") as program:
        bring(made, f"{labelled['id']},USD,1.00,,To the seraphs")
        ann.post(PATH, asked(made, reference="A kinsman's rent"))
        paid = made.pay("10.00", wait=20, key="annabels order")
        assert set(stored(world, ann.email)) >= {"users", "devnet_mails"}
        assert close(ann).status_code == 204
        assert problem(program.get("/v1/wallets")) == (401, "invalid_token")
    assert problem(ann.get("/v1/wallets")) == (401, "session_ended")
    assert problem(auth(world, "refresh", refresh_token=ann.refresh_token)) == (401, "invalid_token")
    assert problem(auth(world, "login", email=ann.email, password=PASSWORD)) == (401, "wrong_credentials")
    for personal in (ann.email, "Annabel", labelled["label"], "annabels order", "seraphs", "kinsman"):
        assert stored(world, personal) == []
    assert made.bob.transfer(paid["id"])["status"] == "committed"
    assert made.bob.balance(made.till)[0] == "10.00"
    again = auth(world, "register", email=ann.email, password=PASSWORD, name="Another Ann")
    assert again.status_code == 201, "the address is free"
    assert made.bob.pay(made.till, ann.email, "1.00", wait=20).json()["status"] == "committed", "and as unknown as any"
    assert problem(close(made.bob)) == (409, "wallets_not_empty")
