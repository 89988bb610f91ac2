"""The gateway across the boundaries of epochs: two shards become three, and then two again, and nobody notices but who looks."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import redis

from gateway.database import Database, now_ms, open_engine
from gateway.epochs import StoredEpochs
from gateway.proofs.command import main
from node.client.line import BrokerUnavailable, Line
from node.protocol import topics
from node.protocol.address import decode_address, encode_address
from node.protocol.bulletins import Ask, GetChange, GetSuccession, decode_ask
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.succession import Succession
from tests.chains import Network
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.world import World
from tests.person import Deal, Person, Wallet
from tests.successions import told_of
from tests.waiting import until

FEWER = 8
"""Nodes, of 12: as many as two committees have seats."""


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[World]:
    with closing(World(tmp_path, standby=4)) as made:
        made.start_gateway()
        yield made


def few(world: World) -> list[KeyPair]:
    return list(world.network.chains.nodes.values())[:FEWER]


def change(world: World) -> None:
    """To three shards, or back to two."""
    chains = world.network.chains
    world.network.change(few(world) if len(chains.shards) == 3 else ())


def epoch_of(world: World) -> int:
    return int(world.gateway.http.get("/v1/network").json()["epoch"])


def moving(person: Person, **amounts: str) -> Wallet:
    """A wallet with money that is in shard 0, and in the second epoch in another."""
    middle = bytes.fromhex("40") + bytes(19)
    wallet = next(made for _ in range(60) if decode_address((made := person.wallet(0))["address"]) >= middle)
    for asset, amount in amounts.items():
        assert person.faucet(wallet, amount, asset, wait=30).json()["status"] == "committed"
    return wallet


def deal(world: World) -> Deal:
    """Ann's purse moves to another shard."""
    ann, bob = world.person(), world.person()
    return Deal(ann, moving(ann, USD="10.00"), bob, bob.wallet(1))


def reached(world: World, epoch: int) -> None:
    until(lambda: epoch_of(world) == epoch, f"epoch {epoch}")


def cursors(world: World) -> dict[tuple[int, int], int]:
    with closing(sqlite3.connect(world.folder / "gateway.db")) as database:
        return {(epoch, shard): height for epoch, shard, height in database.execute("SELECT epoch, shard, height FROM cursors")}


def test_wallets_move_from_shard_to_shard_and_payments_go_on(changing: World, tmp_path: Path) -> None:
    made = deal(changing)
    homes, proofs = [], []
    for epoch in (1, 2, 3):
        paid = made.pay("1.00", wait=30)
        assert (paid["status"], paid["epoch"]) == ("committed", epoch)
        homes.append((paid["home_shard"], paid["shards"]))
        assert made.ann.get(f"/v1/wallets/{made.purse['id']}").json()["shard"] == paid["home_shard"]
        proofs.append(paid["id"])
        change(changing)
        reached(changing, epoch + 1)
    assert homes == [(0, [0, 1]), (2, [1, 2]), (0, [0, 1])]
    assert made.available() == ("7.00", "3.00")
    assert [(line["epoch"], line["balance"]) for line in made.bob.history(made.till)] == [(3, "3.00"), (2, "2.00"), (1, "1.00")]
    document = changing.network.chains.documents[0].hash.hex()
    for number, transfer in enumerate(proofs, 1):
        answer = changing.gateway.http.get(f"/v1/transactions/{transfer}/proof")
        (tmp_path / "proof.json").write_bytes(answer.content)
        assert answer.json()["claim"]["network"]["epoch"] == number
        assert len(answer.json()["successions"]) == number - 1
        assert main([f"{tmp_path}/proof.json", "--genesis", f"{changing.folder}/genesis.json", "--document-1", document]) == 0
    statement = made.bob.get(f"/v1/statements/{made.till['id']}.csv").text
    assert [row.split(",")[-1] for row in statement.split("\r\n")[2:5]] == ["1", "2", "3"]
    assert "unexplained" not in statement


def test_a_gateway_that_was_away_for_three_epochs_catches_up_by_itself_even_if_it_is_killed_on_the_way(changing: World) -> None:
    made = deal(changing)
    assert made.pay("1.00", wait=30)["status"] == "committed"
    changing.gateway.kill()
    network = changing.network
    purse = decode_address(made.purse["address"])
    for _ in range(3):
        payment = network.sign(USD_ISSUER, purse, 100)
        network.hand_in(payment)
        home = network.chains.shard_of(USD_ISSUER)
        until(partial(home.state.has_seen, payment.id, payment.order.valid_until), "in a block")
        change(changing)
    changing.gateway.start("/healthz")
    until(lambda: max(cursors(changing))[0] > 1, "it is on the way")
    changing.gateway.kill()
    changing.start_gateway()
    assert epoch_of(changing) == 4
    until(lambda: made.ann.balance(made.purse) == ("12.00", "0.00"), "all that came")
    assert made.pay("2.00", wait=30)["status"] == "committed"
    assert made.available() == ("10.00", "3.00")
    ends = {chain: len(shard.chain) for chain, shard in network.chains.chains.items() if chain.epoch < 4}
    assert {chain: height for chain, height in cursors(changing).items() if chain[0] < 4} == ends


def test_few_lists_of_blocks_are_asked_of_members_at_a_time(changing: World) -> None:
    change(changing)
    until(lambda: (2, 0) in cursors(changing), "the first epoch has been followed to its end")

    def listed(_: int) -> tuple[int, str | None]:
        answer = changing.gateway.http.get("/v1/blocks", params={"epoch": 1, "limit": 100}).json()
        return answer.get("status", 200), answer.get("code")

    with changing.network.switched(absent=set(range(4))), ThreadPoolExecutor(20) as pool:
        assert {*pool.map(listed, range(20))} == {(200, None), (503, "overloaded")}
    assert changing.gateway.http.get("/v1/blocks", params={"epoch": 1}).json()["items"], "those before have ended"


def test_what_no_block_took_in_before_the_boundary_is_sent_to_its_new_home(changing: World) -> None:
    made = deal(changing)
    network, purse = changing.network, decode_address(made.purse["address"])
    with network.switched(deaf=float("inf")):
        transfer = made.pay("3.00")["id"]
        until(lambda: network.heard[bytes.fromhex(transfer)] >= 1, "sent")
        change(changing)
        until(lambda: made.ann.transfer(transfer)["epoch"] == 2, "it has another home")
        assert made.ann.transfer(transfer)["home_shard"] == network.chains.document.shards.shard_of(purse) == 2
    paid = made.ann.transfer(transfer, wait=30)
    assert (paid["status"], paid["epoch"], paid["shards"]) == ("committed", 2, [1, 2])
    assert made.available() == ("7.00", "3.00")


def test_what_nobody_takes_in_expires_by_the_clock_of_its_new_home(tmp_path: Path) -> None:
    with closing(World(tmp_path, {"transaction_lifetime": 4000}, standby=4)) as world:
        world.start_gateway()
        made = deal(world)
        with world.network.switched(deaf=float("inf")):
            transfer = made.pay("3.00")["id"]
            change(world)
            until(lambda: made.ann.transfer(transfer)["status"] == "expired", "it is over")
            assert made.ann.transfer(transfer)["epoch"] == 2
        assert made.available() == ("10.00", "0.00")


def test_while_the_new_chains_have_no_block_it_answers_as_before(changing: World) -> None:
    made = deal(changing)
    assert made.pay("1.00", wait=30)["status"] == "committed"
    with changing.network.switched(hold=True):
        change(changing)
        reached(changing, 2)
        until(lambda: max(cursors(changing))[0] == 2, "its chains")
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert changing.gateway.http.get("/readyz").status_code == 200
            assert made.available() == ("9.00", "1.00")
    assert made.pay("1.00", wait=30)["status"] == "committed"


def test_a_forged_succession_is_refused(changing: World) -> None:
    network = changing.network
    with network._lock:
        network.chains.change()
    first, second = network.chains.successions[0].closings
    broker = redis.Redis.from_url(changing.broker.url)
    for closings in ((first,), (first, first), (second, first)):
        broker.publish(topics.bulletins_topic(network.network), told_of(Succession(closings)))
    until(lambda: "bulletin refused" in changing.gateway.log.read_text(), "it says so")
    assert epoch_of(changing) == 1
    broker.publish(topics.bulletins_topic(network.network), told_of(network.chains.successions[0]))
    reached(changing, 2)


def test_the_explorer_shows_ranges_and_blocks_of_earlier_epochs(changing: World) -> None:
    made = deal(changing)
    paid = made.pay("1.00", wait=30)
    change(changing)
    reached(changing, 2)
    http = changing.gateway.http
    seen = http.get("/v1/network").json()
    assert [(one["shard"], one["origins"]) for one in seen["committees"]] == [(0, [0]), (1, [1]), (2, [0])]
    first, last = changing.network.chains.document.shards.range_of(2)
    assert (seen["committees"][2]["first"], seen["committees"][2]["last"]) == (encode_address(first), encode_address(last))
    assert seen["began"] is not None
    hashes = [document.hash.hex() for document in changing.network.chains.documents]
    assert [seen["document_1"], seen["document"]] == hashes
    block = http.get(f"/v1/blocks/0/{paid['height']}", params={"epoch": 1}).json()
    assert (block["epoch"], [one["transaction_id"] for one in block["receipts"]]) == (1, [paid["id"]])
    end = changing.network.chains.successions[0].closings[0].header
    until(lambda: cursors(changing)[1, 0] == end.height, "the closing block")
    latest = http.get("/v1/blocks", params={"epoch": 1, "limit": 3}).json()["items"]
    assert (latest[0]["epoch"], latest[0]["hash"]) == (1, end.hash.hex())
    assert http.get("/v1/blocks", params={"epoch": 9}).status_code == 404


class Bulletins:
    """A line on which bulletins are told, and asked for."""

    def __init__(self) -> None:
        self.connected, self.asked = True, list[Ask]()
        self._handlers: dict[str, Callable[[bytes], None]] = {}

    def subscribe(self, topic: str, largest: int, handler: Callable[[bytes], None]) -> None:
        self._handlers[topic] = handler

    async def publish(self, topic: str, body: bytes) -> None:
        if not self.connected:
            raise BrokerUnavailable("not connected")
        self.asked.append(decode_ask(body))

    def tell(self, network: Network) -> None:
        """The last block of the register."""
        body = encode(network.shards[0].bulletin())
        self._handlers[topics.bulletins_topic(network.genesis.network)](body)


def make_block(network: Network, at: int) -> None:
    register = network.shards[0]
    register.add(after=at - register.head.time)


async def eventually(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110  # what others do
            await asyncio.sleep(0.01)


def epochs_of(network: Network, folder: Path) -> StoredEpochs:
    epochs = StoredEpochs(network.genesis, Database(open_engine(f"sqlite:///{folder}/gateway.db")), lambda _: None)
    epochs.restore(encode(network.opening))
    return epochs


def test_that_no_later_epoch_has_begun_is_known_by_a_block_of_the_register_made_since_and_not_by_silence(tmp_path: Path) -> None:
    async def follow() -> None:
        network, line = Network(time=now_ms() - 60_000), Bulletins()
        epochs = epochs_of(network, tmp_path)
        following = asyncio.create_task(epochs.follow(cast(Line, line)))
        await eventually(lambda: line.asked.count(GetSuccession(2)) >= 2)
        assert not epochs.is_latest, "nobody has said anything"
        assert line.asked.count(GetChange(1, 0)) >= 2
        make_block(network, now_ms() - 10_000)
        line.tell(network)
        assert not epochs.is_latest, "it may have begun after that block"
        make_block(network, now_ms() + 1)
        line.tell(network)
        assert epochs.is_latest
        line.connected = False
        await eventually(lambda: not epochs.is_latest)
        make_block(network, now_ms() - 5)
        line.connected, asked = True, len(line.asked)
        await eventually(lambda: len(line.asked) > asked)
        line.tell(network)
        assert not epochs.is_latest, "made before it was asked again"
        make_block(network, now_ms() + 1)
        line.tell(network)
        assert epochs.is_latest
        following.cancel()

    asyncio.run(follow())


def test_a_register_that_has_closed_does_not_say_that_its_epoch_goes_on(tmp_path: Path) -> None:
    async def follow() -> None:
        network, line = Network(time=now_ms() + 1_000, standby=4, epoch_pause=100, reveal_time=1000), Bulletins()
        epochs, closed = epochs_of(network, tmp_path), network
        following = asyncio.create_task(epochs.follow(cast(Line, line)))
        await eventually(lambda: bool(line.asked))
        first = network.shards
        network.change()
        closed.shards = first
        line.tell(closed)
        assert not epochs.is_latest
        assert epochs.chronicle.closings
        following.cancel()

    asyncio.run(follow())
