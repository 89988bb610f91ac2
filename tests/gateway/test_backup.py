"""A copy of the database taken while payments run is put back: what the chain knows is there again, nothing is paid twice, and
the rest is as the documents say."""

import secrets
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.backup import back_up
from gateway.vault import TOKEN_SECRET
from tests.gateway.administrator import on_host
from tests.gateway.test_accounts import problem
from tests.gateway.test_money import SLOW, Customer
from tests.gateway.world import World
from tests.person import PASSWORD
from tests.waiting import until

LATER = 5
"""Payments after the copy."""


def test_a_copy_put_back_catches_up_with_the_chain_and_finds_what_was_paid_since(
    new_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = new_world()
    environment = world.gateway.environment = dict(world.gateway.environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    world.start_gateway()
    deal, copy, database = world.deal(0, 1), tmp_path / "copy.db", world.folder / "gateway.db"
    paid, enough = list[str](), threading.Event()
    buyer = Customer(world)
    bought = buyer.buy("7.00", SLOW, wait=0)

    def pay() -> None:
        while not enough.is_set():
            paid.append(deal.pay("0.01")["id"])

    payer = threading.Thread(target=pay)
    payer.start()
    until(lambda: len(paid) > 10)
    assert on_host(world, "backup", str(copy)) == 0
    enough.set()
    payer.join()
    since = [deal.pay("0.01", wait=20, key=f"order {number}")["id"] for number in range(LATER)]
    lost = deal.ann.wallet()
    until(lambda: buyer.purchase(bought)["status"] == "completed")
    assert on_host(world, "reconcile") == 0
    deal.ann.http.put("/v1/me/password", json={"current": PASSWORD, "new": "another horse battery staple"})
    capsys.readouterr()
    assert on_host(world, "audit-log", "head") == 0
    (tmp_path / "kept").write_text(capsys.readouterr().out)
    world.gateway.kill()

    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    assert on_host(world, "backup", str(copy)) == 2, "there is none to copy, and the copy that is there stays"
    database.write_bytes(copy.read_bytes())
    assert on_host(world, "restored", "--reason", "the disk was lost") == 0
    environment[TOKEN_SECRET] = secrets.token_hex(32)
    world.start_gateway()

    assert problem(deal.ann.get("/v1/me")) == (401, "invalid_token")
    for person in (deal.ann, deal.bob, buyer.person):
        assert problem(person.post("/v1/auth/refresh", {"refresh_token": person.refresh_token})) == (401, "invalid_token")
        login = person.http.post("/v1/auth/login", json={"email": person.email, "password": PASSWORD})
        person.http.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
    count = len(paid) + len(since)
    expected = tuple(f"{cents // 100}.{cents % 100:02}" for cents in (1000 - count, count))
    until(lambda: (deal.ann.balance(deal.purse)[0], deal.bob.balance(deal.till)[0]) == expected, "what the chain says")
    for person, wallet in ((deal.ann, deal.purse), (deal.bob, deal.till)):
        lines = {line["id"]: line for line in person.history(wallet)}
        assert lines.keys() >= {*paid, *since}
        assert {lines[one]["status"] for one in (*paid, *since)} == {"committed"}
        assert {lines[one]["kind"] for one in since} == {"incoming"}
        assert lines[paid[0]]["kind"] == "transfer"
    assert problem(deal.ann.get(f"/v1/wallets/{lost['id']}")) == (404, "wallet_not_found")
    assert on_host(world, "audit-log", "verify") == 0
    assert on_host(world, "audit-log", "verify", "--kept", str(tmp_path / "kept")) == 1, "what was logged since is lost, and told"
    again = deal.pay("0.01", wait=20, key="order 0")
    assert again["status"] == "committed"
    assert again["id"] not in since, "nothing here knows of that key"
    until(lambda: buyer.purchase(bought)["status"] == "completed")
    assert buyer.balance == "14.00", "minted again, since nothing here knows of the first time"
    assert on_host(world, "reconcile") == 1, "but reconciliation does"


def test_a_copy_is_whole_and_its_owners_or_there_is_none(tmp_path: Path) -> None:
    database, copy = tmp_path / "gateway.db", tmp_path / "copy.db"
    with sqlite3.connect(database) as connection:
        connection.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (x); CREATE INDEX i ON t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(5000)])
        connection.commit()
        connection.execute("INSERT INTO t VALUES (-1)")  # not committed: not in it
        assert back_up(database, copy) == copy.stat().st_size
    connection.close()
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as copied:
        assert copied.execute("SELECT count(*), min(x) FROM t").fetchone() == (5000, 0)
    copied.close()
    with pytest.raises(FileExistsError):
        back_up(database, copy)
    copy.unlink()
    damaged = bytearray(database.read_bytes())
    damaged[4096 : 3 * 4096] = bytes(2 * 4096)
    database.write_bytes(damaged)
    with pytest.raises(sqlite3.Error):
        back_up(database, copy)
    assert sorted(path.name for path in tmp_path.iterdir() if "copy" in path.name) == []
