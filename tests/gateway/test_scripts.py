"""The scripts that are clients of the network, too: audit, status and bench, whatever somebody else publishes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from node.protocol.address import address_of
from node.protocol.block import Outcome, Receipt, Totals
from node.protocol.channel import Decision
from node.protocol.codec import encode
from node.protocol.genesis import Phase, write_genesis
from node.protocol.topics import epoch_topic
from scripts import audit_money
from scripts.benchmark import gateway, load
from scripts.benchmark.client import LoadClient
from scripts.benchmark.http_client import Plan, closed_loop
from scripts.devnet.client import Client, ClientError
from scripts.devnet.folder import DevnetState, write_state
from scripts.devnet.layout import Folder
from scripts.devnet.status import ask_nodes, epoch_of, hear_nodes, silent
from tests.gateway.fake_network import USD_ISSUER, FakeNetwork
from tests.gateway.world import World
from tests.processes import free_port
from tests.unit.replicas import forge_bundle
from tests.waiting import until

LIED = bytes([7] * 32)
"""A transaction that a captured home shard decides both ways."""


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world()


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Folder:
    """As ``up`` would have made it."""
    made = Folder(tmp_path / "data")
    made.run.mkdir(parents=True)
    write_genesis(made.genesis, world.network.genesis)
    write_state(made, DevnetState(25_000, broker=world.broker.url))
    return made


@contextmanager
def junk(world: World) -> Iterator[None]:
    """Somebody publishes on the coordinator's topic what the coordinator never signed."""
    genuine = world.network.chains.announcement(Phase.REGISTRATION)
    forged = structs.replace(genuine, notice=genuine.notice.signed(USD_ISSUER))
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.01):
            for body in (b"", b"junk", encode([1, 2, 3]), encode(forged)):
                world.broker.client.publish(epoch_topic(world.network.network), body)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def spend(network: FakeNetwork, *, across: bool) -> None:
    """Mint to somebody in the issuer's shard, or in the other."""
    home = network.chains.shard_of(USD_ISSUER).number
    payee = network.chains.person(1 - home if across else home)
    network.hand_in(network.sign(USD_ISSUER, address_of(payee.public), 5))
    height = network.height(home)
    until(lambda: network.height(home) > height + 1, "in a block")


def audit(folder: Folder, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = audit_money.main(["--data", str(folder.data), "--json", "--wait", "1"])
    shown = capsys.readouterr()
    assert shown.out, shown.err
    return code, json.loads(shown.out)


def test_audit_is_not_confused_by_what_others_publish(world: World, folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    spend(world.network, across=True)
    with junk(world):
        until(lambda: audit(folder, capsys)[0] == 0, "conserved")
        code, result = audit(folder, capsys)
    assert (code, result["conserved"], result["pending"]) == (0, True, 0)


def test_audit_tells_what_it_cannot_tell_and_money_that_nobody_issued(
    world: World, folder: Folder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    network, arguments = world.network, ["--data", str(folder.data), "--wait", "0"]
    with network.switched(slow_commit=True):
        spend(network, across=True)
        code, result = audit(folder, capsys)
        assert (code, result["conserved"], result["settled"], result["pending"]) == (2, None, False, 1)
        assert audit_money.main(arguments) == 2
        assert "cannot be told now. Not settled: 1 transactions" in capsys.readouterr().out
    until(lambda: audit(folder, capsys)[0] == 0, "settled")
    shard = network.chains.shard_of(USD_ISSUER)
    with network.switched(hold=True):
        tip = shard.chain[-1]
        rich = tuple(structs.replace(total, available=total.available + 1) for total in tip.effects.totals.assets)
        both_ways = Receipt(LIED, Outcome.PREPARED), Receipt(LIED, Outcome.REJECTED)
        lying = structs.replace(tip.effects, totals=Totals(rich, 0), receipts=both_ways)
        shard.chain[-1] = shard.forge(tip, effects=lying)
        other = network.chains.shards[1 - shard.number]
        commit = forge_bundle(shard, other.number, 1, (Decision(LIED, True),))
        other.chain[-1] = other.forge(other.chain[-1], bundles=[encode(commit)])
        code, result = audit(folder, capsys)
        assert (code, result["conserved"]) == (1, False)
        (text,) = result["contradictions"]
        assert f"shard {shard.number} decided transaction {LIED.hex()} both ways" in text
        assert f"commit in block {len(other.chain)} of shard {other.number}" in text
    assert audit_money.main(["--data", str(tmp_path / "nowhere")]) == 2
    world.broker.kill()
    assert audit_money.main(arguments) == 2


def test_status_asks_every_node_and_remembers_the_committees(world: World, folder: Folder) -> None:
    genesis = world.network.genesis
    names = {f"node-{i}" for i in range(8)}
    with junk(world):
        seats, statuses = ask_nodes(folder, world.broker.url, genesis, names)
    assert seats.keys() == statuses.keys() == names
    assert {status.name for status in statuses.values()} == names
    world.network.announcing = False
    assert ask_nodes(folder, world.broker.url, genesis, names)[1].keys() == names
    assert epoch_of(hear_nodes(folder, world.broker.url, genesis, names))["phase"] == "mining", "a document in force is mined by"
    world.broker.kill()
    assert ask_nodes(folder, world.broker.url, genesis, names) == (seats, {})


def test_status_tells_the_epoch_which_committees_are_ready_and_who_is_waited_for(world: World, folder: Folder) -> None:
    chains, names = world.network.chains, {f"node-{i}" for i in range(8)}
    document = chains.document
    with world.network.switched(absent={0}):
        heard = hear_nodes(folder, world.broker.url, world.network.genesis, names)
    told = epoch_of(heard)
    assert (told["epoch"], told["attempt"], told["phase"], told["document"]) == (1, 1, "mining", document.hash.hex())
    for committee, known in zip(told["committees"], document.committees, strict=True):
        assert (committee["shard"], committee["members"]) == (known.shard, [member.name for member in known.members])
        assert committee["ready"] is True
        assert 0 <= committee["height"] <= world.network.height(known.shard)
    first, second = told["committees"]
    assert (first["first"], second["last"]) == ("00" * 20, "ff" * 20)
    assert int(first["last"], 16) + 1 == int(second["first"], 16)
    away = sorted(known.members[0].name for known in document.committees)
    assert silent(heard, names) == [f"an answer of {name}" for name in away]
    with world.network.switched(absent={0, 1}):
        heard = hear_nodes(folder, world.broker.url, world.network.genesis, names - heard.statuses.keys())
    assert [(committee["ready"], committee["height"]) for committee in epoch_of(heard)["committees"]] == [(False, None)] * 2


def test_before_the_first_epoch_status_says_what_the_coordinator_waits_for(world: World, tmp_path: Path) -> None:
    with world.network.switched(announcing=False):
        heard = hear_nodes(Folder(tmp_path), world.broker.url, world.network.genesis, {"node-0"})
    told = epoch_of(heard)
    assert (told["epoch"], told["phase"], told["document"], told["committees"]) == (None, None, None, [])
    assert silent(heard, {"node-0"}) == ["the first epoch"]


def test_a_load_that_nobody_heard_is_sent_again_and_lost_blocks_are_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "RESEND_SECONDS", 0.3)
    network = world.network
    with junk(world), Client(world.broker.url, network.genesis) as client:
        bench = LoadClient(client, 10.0)
        payers = load.Payers(bench, 8, seed=1)
        network.deaf = 1
        payers.fund(USD_ISSUER, "USD", 100)
        network.lose_blocks = 6
        sample = load.run_load(bench, payers.payments(20, 0.5, "USD"), 20)
    assert (sample.committed, dict(sample.failed)) == (20, {})
    assert sample.cross > 0


def test_a_load_goes_on_from_one_epoch_to_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RESEND_SECONDS", 0.3)
    network = world.network
    with Client(world.broker.url, network.genesis) as client:
        bench = LoadClient(client, 10.0)
        payers = load.Payers(bench, 8, seed=1)
        payers.fund(USD_ISSUER, "USD", 100)
        made = payers.payments(60, 0.5, "USD")
        changing = threading.Timer(0.3, network.change)
        changing.start()
        sample = load.run_load(bench, made, 5)
        assert (sample.committed, dict(sample.failed)) == (60, {})
        changing.join()
        sample = load.run_load(bench, payers.payments(20, 0.5, "USD"), 5)
        assert bench.document.number == 2
    assert (sample.committed, dict(sample.failed)) == (20, {})


def test_a_load_begins_when_its_client_follows_every_shard(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "STALL_SECONDS", 3.0)
    network = world.network
    with Client(world.broker.url, network.genesis) as client:
        network.lose_blocks = 4
        bench = LoadClient(client, 10.0)
        assert network.lose_blocks == 0, "it has heard of a block"
        load.Payers(bench, 8, seed=2).fund(USD_ISSUER, "USD", 100)
        with network.switched(hold=True), pytest.raises(ClientError, match="no block of shard"):
            LoadClient(client, 0.5)


def test_http_clients_pay_in_a_closed_loop_and_name_what_goes_wrong(world: World) -> None:
    world.start_gateway()
    wallets = gateway.open_wallets(world.gateway.url, 2)
    stranger = [wallet._replace(authorization="Bearer nobody") for wallet in wallets]
    port = int(world.gateway.url.rpartition(":")[2])
    made = gateway.payments(wallets, 0.5, port, "?wait=30")
    wrong = gateway.payments(stranger, 0.5, port, "?wait=30")
    seen = closed_loop(Plan(port, 2.0, [*made[:4], wrong[0]]))
    assert {text for text in seen.answers if text != "committed"} == {"401 invalid_token"}
    assert len(seen.intra) + len(seen.cross) == seen.in_time["committed"] > 4
    assert seen.intra
    assert seen.cross
    assert 0 < seen.cpu < 2


def test_a_broker_that_is_not_up_yet_is_waited_for(world: World) -> None:
    with Client(f"redis://127.0.0.1:{free_port()}", world.network.genesis) as client:
        with pytest.raises(ClientError):
            LoadClient(client, 0.5)
        with pytest.raises(ClientError):
            client.document(0.5)
    world.broker.kill()
    with Client(world.broker.url, world.network.genesis) as client:
        client.poll(0.0)
        world.broker.start()
        assert LoadClient(client, 20.0).document == world.network.chains.document
