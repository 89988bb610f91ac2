"""Several gateway processes on one database: whoever answers, it is one gateway; whichever dies, nothing is lost or doubled."""

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from copy import copy
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from tests.gateway.listener import Listener
from tests.gateway.world import World
from tests.person import PASSWORD, Deal, Person
from tests.processes import ProgramProcess
from tests.waiting import until


class Cluster:
    """Three of them, each reached on a port of its own. The first one started follows the chains."""

    def __init__(self, folder: Path, database: str) -> None:
        self.database = database
        self.world = World(folder, {"database": database, "name": "one"})
        self.processes = [self.world.gateway, *(self.world.another(name) for name in ("two", "three"))]

    def start(self) -> None:
        for process in self.processes:
            process.start("/readyz")

    def leader(self) -> str:
        """The name of the one that follows the chains."""
        name: str = self.processes[0].http.get("/v1/network").json()["followed_by"]
        return name

    def stop(self, process: ProgramProcess) -> None:
        """Let it stand still, but not in the middle of a write: on SQLite nobody else could write until it goes on."""
        while True:
            os.kill(process.pid, signal.SIGSTOP)
            if not self.database.startswith("sqlite"):
                return
            with (
                closing(sqlite3.connect(self.database.removeprefix("sqlite:///"), timeout=2, isolation_level=None)) as connection,
                suppress(sqlite3.OperationalError),
            ):
                connection.execute("BEGIN IMMEDIATE")
                return
            os.kill(process.pid, signal.SIGCONT)

    def close(self) -> None:
        for process in self.processes[1:]:
            process.kill()
        self.world.close()


def at(person: Person, process: ProgramProcess) -> Person:
    """The same login, at another process."""
    moved = copy(person)
    moved.http = httpx.Client(base_url=process.url, timeout=40, headers=person.http.headers)
    return moved


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp(request.param)
    url = f"sqlite:///{folder}/gateway.db" if request.param == "sqlite" else new_database()
    with closing(Cluster(folder, url)) as made:
        made.start()
        yield made


def spread(deal: Deal, cluster: Cluster) -> list[Person]:
    return [at(deal.ann, process) for process in cluster.processes]


def test_of_many_at_once_at_all_processes_exactly_the_affordable_ones_are_paid(cluster: Cluster) -> None:
    made = cluster.world.deal(0, 1)
    people = spread(made, cluster)

    def pay(number: int) -> str:
        answer = people[number % 3].pay(made.purse, made.till["address"], "1.00", wait=30)
        status: str = answer.json()["status"]
        return status

    with ThreadPoolExecutor(30) as pool:
        assert Counter(pool.map(pay, range(30))) == {"committed": 10, "rejected": 20}
    assert made.available() == ("0.00", "10.00")


def test_one_key_at_all_processes_makes_one_transfer(cluster: Cluster) -> None:
    made = cluster.world.deal()
    people = spread(made, cluster)

    def pay(number: int) -> str:
        answer = people[number % 3].pay(made.purse, made.till["address"], "3.00", key="rent", wait=30)
        made_id: str = answer.json()["id"]
        return made_id

    with ThreadPoolExecutor(50) as pool:
        assert len(set(pool.map(pay, range(50)))) == 1
    assert made.available() == ("7.00", "3.00")


def test_what_one_process_reserves_no_other_spends(cluster: Cluster) -> None:
    made = cluster.world.deal()
    shop, buyer = at(made.bob, cluster.processes[1]), at(made.ann, cluster.processes[2])
    wish = {"wallet_id": made.till["id"], "asset": "USD", "amount": "8.00", "capture_method": "manual"}
    intent = shop.post("/v1/payment-intents", wish).json()["id"]
    assert buyer.post(f"/v1/payment-intents/{intent}/confirm", {"from_wallet": made.purse["id"]}).status_code == 200
    assert made.ann.pay(made.purse, made.till["address"], "3.00").json()["status"] == "rejected"
    captured = made.bob.post(f"/v1/payment-intents/{intent}/capture", {"amount": "5.00"}, wait=30)
    assert captured.json()["status"] == "succeeded", captured.text
    assert made.available() == ("5.00", "5.00")


def test_who_waits_and_who_listens_hears_it_at_any_process(cluster: Cluster) -> None:
    made = cluster.world.deal(0, 1)
    with closing(Listener(at(made.bob, cluster.processes[2]))) as bob:
        paid = at(made.ann, cluster.processes[1]).pay(made.purse, made.till["address"], "1.00", wait=30).json()
        assert paid["status"] == "committed"
        assert [told.data["data"]["id"] for told in bob.wait(1)] == [paid["id"]]


def test_a_purchase_waited_for_at_one_process_is_made_by_another(cluster: Cluster) -> None:
    ann = at(cluster.world.person().verify(), cluster.processes[1])
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}
    wish = {"wallet_id": ann.wallet()["id"], "asset": "USD", "amount": "5.00", "card": card}
    assert ann.post("/v1/purchases", wish, wait=30).json()["status"] == "completed"


def test_what_ends_at_one_process_ends_at_all(cluster: Cluster) -> None:
    ann = cluster.world.person().verify()
    there = at(ann, cluster.processes[1])
    made = ann.post("/v1/api-keys", {"name": "till", "scopes": ["read"]}).json()
    key = httpx.Client(base_url=cluster.processes[2].url, headers={"Authorization": f"Bearer {made['key']}"})
    assert key.get("/v1/wallets").status_code == 200, "good at once everywhere"
    wallet = ann.wallet()
    assert there.get(f"/v1/wallets/{wallet['id']}").json()["label"] == "main"
    ann.http.patch(f"/v1/wallets/{wallet['id']}", json={"label": "new"})
    assert there.get(f"/v1/wallets/{wallet['id']}").json()["label"] == "new"
    assert ann.http.delete(f"/v1/api-keys/{made['id']}").status_code == 204
    until(lambda: key.get("/v1/wallets").status_code == 401, "revoked everywhere", within=2)
    current = next(one["id"] for one in ann.get("/v1/sessions").json()["items"] if one["current"])
    assert ann.http.delete(f"/v1/sessions/{current}").status_code == 204
    until(lambda: there.get("/v1/me").status_code == 401, "ended everywhere", within=2)


class Load:
    """Clients that pay cents at all processes as long as it lasts; each payment has a key of its own."""

    def __init__(self, made: Deal, cluster: Cluster) -> None:
        self.acknowledged: dict[str, str] = {}
        self.refused: list[Any] = []
        self.cut = 0
        self._made, self._cluster, self._over = made, cluster, Event()
        self._pool = ThreadPoolExecutor(9)
        self._clients = [self._pool.submit(self._pay, number) for number in range(9)]

    def _pay(self, number: int) -> None:
        person, sent = at(self._made.ann, self._cluster.processes[number % 3]), 0
        while not self._over.is_set():
            intent, sent = f"{number} {sent}", sent + 1
            try:
                answer = person.pay(self._made.purse, self._made.till["address"], "0.01", key=intent)
            except httpx.TransportError:
                self.cut += 1
                return
            if answer.status_code == 202:
                self.acknowledged[intent] = answer.json()["id"]
            else:
                self.refused.append(answer.text)

    def goes_on(self, count: int) -> None:
        wanted = len(self.acknowledged) + count
        until(lambda: len(self.acknowledged) >= wanted, f"{count} more payments")

    def end(self) -> None:
        self._over.set()
        with suppress(Exception):
            for client in self._clients:
                client.result(30)
        self._pool.shutdown()

    def check(self, process: ProgramProcess) -> None:
        """Each acknowledged payment has happened, once."""
        ann, bob = at(self._made.ann, process), at(self._made.bob, process)
        for transfer_id in self.acknowledged.values():
            assert ann.transfer(transfer_id, wait=30)["status"] == "committed"
        lines = [line["id"] for line in bob.history(self._made.till)]
        assert len(set(lines)) == len(lines)
        assert set(self.acknowledged.values()) <= set(lines)
        assert bob.balance(self._made.till)[0] == f"{len(lines) / 100:.2f}"


@pytest.mark.parametrize("victim", ["the one that follows the chains", "another"])
def test_a_process_killed_under_load_takes_nothing_along_and_the_others_go_on(cluster: Cluster, victim: str) -> None:
    made = cluster.world.deal(0, 1, "100.00")
    names = ["one", "two", "three"]
    leading = cluster.leader()
    name = leading if victim.startswith("the one") else next(one for one in names if one != leading)
    process = cluster.processes[names.index(name)]
    alive = next(one for one in cluster.processes if one is not process)
    load = Load(made, cluster)
    load.goes_on(50)
    process.kill()
    load.goes_on(50)
    load.end()
    assert (load.cut, load.refused) == (3, []), "its own clients lost their connections, nobody else noticed anything"
    load.check(alive)
    process.start("/readyz")


def test_who_stood_still_past_the_lease_writes_nothing_more(cluster: Cluster) -> None:
    made = cluster.world.deal(0, 1, "100.00")
    names = ["one", "two", "three"]
    stale = cluster.processes[names.index(cluster.leader())]
    others = [process for process in cluster.processes if process is not stale]
    ann = at(made.ann, others[0])
    cluster.stop(stale)
    try:
        until(lambda: others[1].http.get("/v1/network").json()["followed_by"] not in ("", names[cluster.processes.index(stale)]))
        paid = ann.pay(made.purse, made.till["address"], "2.00", wait=30).json()
        assert paid["status"] == "committed"
    finally:
        os.kill(stale.pid, signal.SIGCONT)
    later = at(made.ann, stale).pay(made.purse, made.till["address"], "3.00", wait=30).json()
    assert later["status"] == "committed", "it serves on"
    until(lambda: "follows the chains no more" in stale.log.read_text(), "it has noticed")
    assert at(made.bob, others[0]).balance(made.till) == ("5.00", "0.00")
    assert [line["id"] for line in at(made.bob, others[1]).history(made.till)] == [later["id"], paid["id"]]


def test_a_login_is_good_at_all(cluster: Cluster) -> None:
    ann = cluster.world.person()
    for process in cluster.processes:
        answer = process.http.post("/v1/auth/login", json={"email": ann.email, "password": PASSWORD})
        assert answer.status_code == 200
