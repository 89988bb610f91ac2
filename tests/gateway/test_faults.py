"""Lies, losses and crashes around the gateway: nothing is lost or doubled, and nothing unproven is believed."""

import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.__main__ import main
from gateway.vault import Vault
from node.protocol.address import decode_address
from node.protocol.block import Balance, BalanceChange
from node.protocol.certificate import CertifiedBlock
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from tests.chains import key
from tests.gateway.conftest import World
from tests.gateway.fake_network import USD_ISSUER, FakeNetwork
from tests.gateway.harness import GatewayProcess
from tests.person import PASSWORD
from tests.waiting import until

MakeWorld = Callable[..., World]


def test_blocks_whose_publication_is_lost_are_asked_for(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(1)
    alice.fund(purse, "10.00")
    with world.network.switched(lose_blocks=True):
        assert alice.pay(purse, till["address"], "2.00", wait=15).json()["status"] == "committed"
    assert bob.balance(till) == ("2.00", "0.00")


def test_one_lost_block_is_noticed_by_the_next(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(0)
    alice.fund(purse, "10.00")
    with world.network.switched(lose_blocks=True):
        transfer_id = alice.pay(purse, till["address"], "2.00").json()["id"]
        until(lambda: world.network.balance(decode_address(till["address"])) == (200, 0), "in a block")
    begun = time.monotonic()
    assert alice.get(f"/v1/transfers/{transfer_id}", wait=10).json()["status"] == "committed"
    assert time.monotonic() - begun < 2.0, "by the next block, not by a timeout"


def generous(network: FakeNetwork, address: bytes) -> Callable[[CertifiedBlock], CertifiedBlock]:
    """Forges blocks that give ``address`` a fortune: consistent in themselves, certified by the wrong keys."""
    impostors = [key(f"impostor {i}") for i in range(4)]

    def forge(block: CertifiedBlock) -> CertifiedBlock:
        fortune = BalanceChange(address, "USD", Balance(10**12, 0))
        changes = structs.replace(block.effects.changes, balances=(*block.effects.changes.balances, fortune))
        shard = network.chains.shards[block.block.header.shard]
        return shard.forge(block, effects=structs.replace(block.effects, changes=changes), keys=impostors)

    return forge


def test_a_forged_block_is_not_believed_and_the_true_one_is(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(0)
    alice.fund(purse, "10.00")
    with world.network.switched(forge=generous(world.network, decode_address(till["address"]))):
        assert alice.pay(purse, till["address"], "2.00", wait=15).json()["status"] == "committed"
    assert bob.balance(till) == ("2.00", "0.00")
    assert "shardpay_gateway_unproven_blocks_total" in world.gateway.http.get("/metrics").text


def test_nonsense_that_a_captured_committee_certifies_holds_up_no_other_shard(new_world: MakeWorld) -> None:
    world = new_world()
    world.gateway.start()
    shard = next(s for s in world.network.chains.shards if s is not world.network.chains.shard_of(USD_ISSUER))
    alice, bob = world.person(), world.person()
    purse, till, captured = alice.wallet(1 - shard.number), bob.wallet(1 - shard.number), bob.wallet(shard.number)
    fortune = BalanceChange(decode_address(captured["address"]), "NONSENSE", Balance(2**63 - 1, 2**63 - 1))

    def nonsense(block: CertifiedBlock) -> CertifiedBlock:
        if block.block.header.shard != shard.number:
            return block
        effects = structs.replace(block.effects, changes=structs.replace(block.effects.changes, balances=(fortune,)))
        return shard.forge(block, effects=effects, transactions=[b"?"], bundles=[b"?"], time=2**53, proposer=99)

    world.network.forge = nonsense
    http = world.gateway.http

    def latest() -> bool:
        items = http.get("/v1/blocks", params={"shard": shard.number, "limit": 1}).json()["items"]
        return bool(items) and items[0]["proposer"] == 99

    until(latest, "believed, because certified")
    alice.fund(purse, "10.00")
    assert alice.pay(purse, till["address"], "2.00", wait=15).json()["status"] == "committed"
    assert bob.get(f"/v1/wallets/{captured['id']}").json()["balances"] == {}
    assert bob.pay(captured, till["address"], "1.00").status_code == 202, "taken in, whatever becomes of it"
    world.gateway.kill()
    world.gateway.start(ready=False)
    assert alice.pay(purse, till["address"], "3.00", wait=15).json()["status"] == "committed"
    assert bob.balance(till) == ("5.00", "0.00")


def test_one_lying_refusal_is_not_believed_and_two_are(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(0)
    alice.fund(purse, "10.00")
    with world.network.switched(deaf=True, refusing={2: Code.UNKNOWN_ASSET}):
        transfer_id = alice.pay(purse, till["address"], "2.00").json()["id"]
        until(lambda: world.network.heard[bytes.fromhex(transfer_id)] >= 2, "sent again")
        assert alice.get(f"/v1/transfers/{transfer_id}").json()["status"] == "submitted"
        world.network.refusing = {0: Code.UNKNOWN_ASSET, 2: Code.UNKNOWN_ASSET}
        refused = alice.get(f"/v1/transfers/{transfer_id}", wait=15).json()
    assert (refused["status"], refused["code"]) == ("rejected", "unknown_asset")


@pytest.mark.parametrize("code", [Code.DUPLICATE, Code.INSUFFICIENT_FUNDS, Code.BAD_SIGNATURE])
def test_refusals_that_time_or_a_spoiled_copy_explain_are_no_verdict(world: World, code: Code) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(0)
    alice.fund(purse, "10.00")
    with world.network.switched(deaf=True, refusing=dict.fromkeys(range(4), code)):
        transfer_id = alice.pay(purse, till["address"], "2.00").json()["id"]
        until(lambda: world.network.heard[bytes.fromhex(transfer_id)] >= 2, "sent again")
        assert alice.get(f"/v1/transfers/{transfer_id}").json()["status"] == "submitted"
    assert alice.get(f"/v1/transfers/{transfer_id}", wait=15).json()["status"] == "committed"


def test_what_no_block_takes_in_time_expires(new_world: MakeWorld) -> None:
    world = new_world(transaction_lifetime=2000)
    world.gateway.start()
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(0)
    alice.fund(purse, "10.00")
    with world.network.switched(deaf=True):
        lost = alice.pay(purse, till["address"], "2.00", wait=15).json()
    assert (lost["status"], lost["code"]) == ("expired", "expired")
    assert alice.balance(purse) == ("10.00", "0.00")


def test_a_killed_gateway_resumes_and_nothing_is_lost_or_doubled(new_world: MakeWorld) -> None:
    world = new_world()
    world.gateway.start()
    alice, bob = world.person(), world.person()
    purse, near, far = alice.wallet(0), bob.wallet(0), bob.wallet(1)
    alice.fund(purse, "10.00")
    with world.network.switched(slow_commit=True):
        half_done = alice.pay(purse, far["address"], "1.00").json()["id"]
        until(lambda: alice.get(f"/v1/transfers/{half_done}").json()["status"] == "prepared", "prepared")
        world.broker.kill()
        queued = [alice.pay(purse, to, "0.50", key=to) for to in (near["address"], far["address"])]
        assert {answer.status_code for answer in queued} == {202}
        until(lambda: world.gateway.http.get("/readyz").status_code == 503, "not ready without a broker")
        world.gateway.kill()
        # What happens while it is away: the pending commit goes through.
    height = world.network.height(0)
    until(lambda: world.network.height(0) > height + 2, "more blocks")
    world.network.announcing = False  # a restart needs no coordinator
    world.broker.start()
    world.gateway.start()

    for transfer_id in [half_done, *(answer.json()["id"] for answer in queued)]:
        assert alice.get(f"/v1/transfers/{transfer_id}", wait=15).json()["status"] == "committed"
    again = alice.pay(purse, near["address"], "0.50", key=near["address"])
    assert again.json()["id"] == queued[0].json()["id"]
    assert alice.balance(purse) == ("8.00", "0.00")
    assert (bob.balance(near), bob.balance(far)) == (("0.50", "0.00"), ("1.50", "0.00"))
    assert len(bob.get(f"/v1/wallets/{far['id']}/transfers").json()["items"]) == 2


def test_payments_survive_a_broker_that_dies_under_load(new_world: MakeWorld) -> None:
    world = new_world()
    world.gateway.start()
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(1)
    alice.fund(purse, "100.00")
    ids: list[str] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            answer = alice.pay(purse, till["address"], "0.01")
            assert answer.status_code == 202
            ids.append(answer.json()["id"])

    payer = threading.Thread(target=load)
    payer.start()
    until(lambda: len(ids) > 20, "load")
    world.broker.kill()
    before = len(ids)
    until(lambda: len(ids) > before + 20, "accepted while the broker is away")
    world.broker.start()
    before = len(ids)
    until(lambda: len(ids) > before + 20, "load again")
    done.set()
    payer.join()
    assert {alice.get(f"/v1/transfers/{transfer_id}", wait=20).json()["status"] for transfer_id in ids} == {"committed"}
    assert bob.balance(till)[0] == f"{len(ids) / 100:.2f}"


def test_keys_and_passwords_are_not_in_the_database_in_clear(world: World) -> None:
    alice = world.person()
    purse = alice.wallet()
    with sqlite3.connect(world.gateway.database) as connection:
        address = decode_address(purse["address"])
        (sealed,) = connection.execute("SELECT sealed_key FROM wallets WHERE address = ?", (address,)).fetchone()
    vault = Vault(bytes.fromhex(world.gateway.environment["SHARDPAY_KEY_ENCRYPTION_KEY"]))
    secret = vault.open(sealed, address)
    assert KeyPair(secret).public.hex() == purse["public_key"]
    written = b"".join(path.read_bytes() for path in world.gateway.folder.glob("gateway.*"))
    for private in (secret, secret.hex().encode(), PASSWORD.encode(), alice.refresh_token.encode()):
        assert private not in written
    assert purse["address"].encode() not in sealed


def test_sigterm_ends_it_quickly_even_while_somebody_waits(new_world: MakeWorld) -> None:
    world = new_world()
    world.gateway.start()
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(0)
    world.network.deaf = True
    answers: list[int] = []
    waiter = threading.Thread(target=lambda: answers.append(alice.pay(purse, till["address"], "1", wait=30).status_code))
    waiter.start()
    until(lambda: world.network.batches > 0, "the transfer is under way")
    begun = time.monotonic()
    assert world.gateway.stop() == 0
    assert time.monotonic() - begun < 10.0, "long before the 30 s somebody waits for"
    waiter.join()
    assert answers == [202], "whoever waits is told what is known"


@pytest.mark.parametrize(
    ("settings", "environment", "complaint"),
    [
        ({"devnet": False}, {"SHARDPAY_KEY_ENCRYPTION_KEY": ""}, "SHARDPAY_KEY_ENCRYPTION_KEY is not set"),
        ({"devnet": False}, {"SHARDPAY_KEY_ENCRYPTION_KEY": "00" * 32}, "is weak"),
        ({}, {"SHARDPAY_TOKEN_SECRET": "abc"}, "SHARDPAY_TOKEN_SECRET is not hex"),
        ({"genesis": "/nowhere/genesis.json"}, {}, "No such file"),
        ({"port": 99999}, {}, "port"),
        ({"database": "sqlite:////nowhere/gateway.db"}, {}, "unable to open database"),
        ({"broker": "http://localhost"}, {}, "Redis URL"),
    ],
)
def test_wrong_settings_end_it_with_one_clear_line(
    tmp_path: Path,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    environment: dict[str, str],
    complaint: str,
) -> None:
    process = GatewayProcess(tmp_path, world.broker.url, world.network, **settings)
    for name, value in {**process.environment, **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["gateway", "--config", str(process.config)])
    assert main() == 2
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == 1
    assert complaint in complaints[0]
