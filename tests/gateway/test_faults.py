"""Lies, losses and crashes around the gateway: nothing is lost or doubled, and nothing unproven is believed."""

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path

import httpx
import pytest
import redis
from msgspec import structs

from gateway.__main__ import main
from gateway.vault import Vault
from node.protocol import topics
from node.protocol.address import decode_address
from node.protocol.block import Balance, BalanceChange
from node.protocol.certificate import CertifiedBlock
from node.protocol.chain import Chain
from node.protocol.channel import Prepare
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from tests.chains import key
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.world import World
from tests.person import PASSWORD
from tests.unit.replicas import forge_bundle
from tests.waiting import until

MakeWorld = Callable[..., World]


def rich(block: CertifiedBlock, address: str, asset: str, balance: Balance) -> CertifiedBlock:
    """A block whose effects give somebody a fortune; its certificate does not fit any more."""
    changes = block.effects.changes
    fortune = BalanceChange(decode_address(address), asset, balance)
    changed = structs.replace(changes, balances=(*changes.balances, fortune))
    return structs.replace(block, effects=structs.replace(block.effects, changes=changed))


def _counted(world: World, name: str) -> float:
    """A metric, over all shards."""
    lines = [line.split() for line in world.gateway.http.get("/metrics").text.splitlines()]
    return sum(float(line[1]) for line in lines if line[0].startswith(f"{name}{{"))


def test_lost_blocks_are_asked_for_and_forged_ones_are_not_believed(world: World) -> None:
    made = world.deal(0, 1)
    impostors = [key(f"impostor {i}") for i in range(4)]

    def forge(block: CertifiedBlock) -> CertifiedBlock:
        """Consistent in itself, certified by the wrong keys."""
        effects = rich(block, made.till["address"], "USD", Balance(10**12, 0)).effects
        return world.network.chains.shards[block.block.header.shard].forge(block, effects=effects, keys=impostors)

    def refused() -> float:
        return _counted(world, "shardpay_gateway_unproven_blocks_total")

    with world.network.switched(lose_blocks=inf):
        assert made.pay("2.00", wait=15)["status"] == "committed"
    with world.network.switched(forge=forge):
        before = refused()
        assert made.pay("1.00", wait=15)["status"] == "committed"
        until(lambda: refused() > before, "forged blocks refused")
    assert made.available() == ("7.00", "3.00")


def test_nonsense_that_a_captured_committee_certifies_holds_up_no_other_shard(new_world: MakeWorld) -> None:
    world = new_world()
    world.start_gateway()
    home = world.network.chains.shard_of(USD_ISSUER).number
    shard = world.network.chains.shards[1 - home]
    made, http = world.deal(home, home), world.gateway.http
    captured = made.bob.wallet(shard.number)
    prepares = (Prepare(b"\xc1junk", 2**53), Prepare(b"", 0))
    bundle = encode(forge_bundle(world.network.chains.shards[home], shard.number, 1, prepares))

    def nonsense(block: CertifiedBlock) -> CertifiedBlock:
        if block.block.header.shard == home:
            return block
        richer = rich(block, captured["address"], "NONSENSE", Balance(2**63 - 1, 2**63 - 1))
        effects = rich(richer, captured["address"], "USD", Balance(100, 0)).effects
        return shard.forge(block, effects=effects, transactions=[b"?"], bundles=[b"?", bundle], time=2**53, proposer=99)

    def believed() -> bool:
        items = http.get("/v1/blocks", params={"shard": shard.number, "limit": 1}).json()["items"]
        return bool(items) and items[0]["proposer"] == 99

    world.network.forge = nonsense
    until(believed, "believed, because certified")
    assert made.pay("2.00", wait=15)["status"] == "committed"
    assert set(made.bob.get(f"/v1/wallets/{captured['id']}").json()["balances"]) == {"USD"}
    lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if not line.startswith("#"))
    counted = {number: float(lines[f'shardpay_gateway_nonsense_blocks_total{{shard="{number}"}}']) for number in (0, 1)}
    assert (counted[home], counted[shard.number] > 0) == (0, True)
    assert made.bob.pay(captured, made.till["address"], "1.00").status_code == 202, "taken in, whatever becomes of it"
    world.gateway.kill()
    world.start_gateway("/healthz")
    assert made.pay("3.00", wait=15)["status"] == "committed"
    assert made.available() == ("5.00", "5.00")


def test_refusals_are_hints_if_two_say_so_and_the_payment_may_still_be_made(world: World) -> None:
    """Whoever took them for a verdict would pay again, and both payments could be made."""
    made = world.deal()
    with world.network.switched(deaf=inf, refusing={2: Code.UNKNOWN_ASSET}):
        transfer_id = made.pay("2.00")["id"]
        until(lambda: world.network.heard[bytes.fromhex(transfer_id)] >= 2, "sent again")
        assert made.ann.transfer(transfer_id)["hint"] is None
        world.network.refusing = dict.fromkeys(range(4), Code.UNKNOWN_ASSET)
        until(lambda: made.ann.transfer(transfer_id)["hint"] == "unknown_asset", "two say the same")
        shown = made.ann.transfer(transfer_id)
        assert (shown["status"], shown["code"]) == ("submitted", None)
    paid = made.ann.transfer(transfer_id, wait=15)
    assert (paid["status"], paid["code"]) == ("committed", None)


def test_forged_blocks_without_end_are_two_lines_a_minute_of_the_log(world: World) -> None:
    """One of each shard; others, of one test before this, may be there already."""

    def lines() -> int:
        return world.gateway.log.read_text().count("unproven blocks refused")

    before = lines()
    anybody = redis.Redis.from_url(world.broker.url)
    blocks = [topics.blocks_topic(world.network.network, Chain(1, shard)) for shard in (0, 1)]
    for number in range(2000):
        anybody.publish(blocks[number % 2], b"nonsense")
    until(lambda: _counted(world, "shardpay_gateway_unproven_blocks_total") >= 2000, "all are refused")
    assert lines() - before <= 2


def test_a_gateway_that_lacks_blocks_which_nobody_keeps_says_which_and_goes_on_once_somebody_does(world: World) -> None:
    late = world.another("late", database=f"sqlite:///{world.folder / 'late.db'}")
    with world.network.switched(oldest=1 << 40):
        late.start("/healthz")
        try:
            lacking = {f"shard {shard}: no node keeps block 1 any more" for shard in (0, 1)}
            until(lambda: lacking <= set(late.http.get("/readyz").json()["missing"]), "it says so")
            world.network.oldest = 1
            until(lambda: late.http.get("/readyz").status_code == 200, "it has caught up")
        finally:
            late.kill()


def test_a_shard_without_a_quorum_makes_the_gateway_not_ready_and_it_says_which(world: World) -> None:
    def ready() -> tuple[int, list[str]]:
        answer = world.gateway.http.get("/readyz")
        return answer.status_code, answer.json()["missing"]

    def up() -> list[bool]:
        committees = world.gateway.http.get("/v1/network").json()["committees"]
        return [committee["members"][0]["up"] for committee in committees]

    with world.network.switched(absent={0}, hold=False):
        until(lambda: not any(up()), "one member of each shard is missed")
        assert ready() == (200, [])
        world.network.absent, world.network.hold = {0, 1}, True
        missing = [f"shard {shard} has no quorum: 2 of 4 members answer" for shard in (0, 1)]
        until(lambda: ready() == (503, missing), "not ready without a quorum")
    until(lambda: ready() == (200, []), "ready again")


def test_what_no_block_takes_is_sent_again_until_it_expires(new_world: MakeWorld) -> None:
    world = new_world({"transaction_lifetime": 4000})
    world.start_gateway()
    made = world.deal()
    with world.network.switched(deaf=inf, refusing=dict.fromkeys(range(4), Code.INSUFFICIENT_FUNDS)):
        lost = made.pay("2.00", wait=15)
        taken = made.pay("3.00")["id"]
        until(lambda: world.network.heard[bytes.fromhex(taken)], "sent")
    assert (lost["status"], lost["code"], lost["hint"]) == ("expired", "expired", "insufficient_funds")
    assert made.ann.transfer(taken, wait=15)["status"] == "committed"
    assert made.available() == ("7.00", "3.00")


def test_a_killed_gateway_resumes_without_the_coordinator_and_nothing_is_lost_or_doubled(new_world: MakeWorld) -> None:
    world = new_world()
    world.start_gateway()
    ann, purse, bob, far = made = world.deal(0, 1)
    near = bob.wallet(0)
    with world.network.switched(slow_commit=True):
        half_done = made.pay("1.00")["id"]
        until(lambda: ann.transfer(half_done)["status"] == "prepared", "prepared")
        world.broker.kill()
        queued = [ann.pay(purse, to["address"], "0.50", key=to["id"]) for to in (near, far)]
        assert {answer.status_code for answer in queued} == {202}
        until(lambda: world.gateway.http.get("/readyz").status_code == 503, "not ready without a broker")
        world.gateway.kill()
    height = world.network.height(0)
    until(lambda: world.network.height(0) > height + 2, "the pending commit goes through meanwhile")
    world.network.announcing = False
    world.broker.start()
    world.start_gateway()
    for transfer_id in [half_done, *(answer.json()["id"] for answer in queued)]:
        assert ann.transfer(transfer_id, wait=15)["status"] == "committed"
    assert ann.pay(purse, near["address"], "0.50", key=near["id"]).json()["id"] == queued[0].json()["id"]
    assert (made.available(), bob.balance(near)) == (("8.00", "1.50"), ("0.50", "0.00"))
    assert len(bob.history(far)) == 2


def test_what_is_acknowledged_under_load_outlives_a_kill(new_world: MakeWorld) -> None:
    world = new_world()
    world.start_gateway()
    made = world.deal(0, 1)
    acknowledged: dict[str, str] = {}

    def pay(client: int) -> None:
        with suppress(httpx.TransportError):
            for number in range(40):
                intent = f"{client} {number}"
                acknowledged[intent] = made.ann.pay(made.purse, made.till["address"], "0.01", key=intent).json()["id"]

    with world.network.switched(hold=True), ThreadPoolExecutor(24) as pool:
        clients = [pool.submit(pay, client) for client in range(24)]
        until(lambda: len(acknowledged) > 100, "some are acknowledged, many under way")
        world.gateway.kill()
        for client in clients:
            client.result(30)
    before = dict(acknowledged)
    assert len(before) < 24 * 40, "it was killed in the midst of it"
    world.start_gateway()
    for intent, transfer_id in before.items():
        assert made.ann.transfer(transfer_id, wait=15)["status"] == "committed"
        again = made.ann.pay(made.purse, made.till["address"], "0.01", key=intent).json()["id"]
        assert again == transfer_id, "its key is there, too"
    lines = made.ann.history(made.purse)
    assert {line["id"] for line in lines} >= set(before.values())


def test_keys_and_passwords_are_not_in_the_database_in_clear(world: World) -> None:
    alice = world.person()
    purse = alice.wallet()
    address = decode_address(purse["address"])
    with sqlite3.connect(world.folder / "gateway.db") as connection:
        (sealed,) = connection.execute("SELECT sealed_key FROM wallets WHERE address = ?", (address,)).fetchone()
    secret = Vault(bytes.fromhex(world.gateway.environment["SHARDPAY_KEY_ENCRYPTION_KEY"])).open(sealed, address)
    assert KeyPair(secret).public.hex() == purse["public_key"]
    written = b"".join(path.read_bytes() for path in world.folder.glob("gateway.*"))
    for private in (secret, secret.hex().encode(), PASSWORD.encode(), alice.refresh_token.encode()):
        assert private not in written


def test_sigterm_ends_it_quickly_even_while_somebody_waits(new_world: MakeWorld) -> None:
    world = new_world()
    world.start_gateway()
    made = world.deal()
    world.network.deaf = inf
    batches, statuses = world.network.batches, list[str]()
    waiter = threading.Thread(target=lambda: statuses.append(made.pay("1", wait=30)["status"]))
    waiter.start()
    until(lambda: world.network.batches > batches, "the transfer is under way")
    begun = time.monotonic()
    assert world.gateway.stop() == 0
    waiter.join()
    assert time.monotonic() - begun < 10.0, "long before the 30 s somebody waits for"
    assert statuses == ["submitted"], "whoever waits is told what is known"


@pytest.mark.parametrize(
    ("setting", "environment", "complaint"),
    [
        ({"devnet": False}, ("SHARDPAY_KEY_ENCRYPTION_KEY", ""), "SHARDPAY_KEY_ENCRYPTION_KEY is not set"),
        ({"devnet": False}, ("SHARDPAY_KEY_ENCRYPTION_KEY", "00" * 32), "is weak"),
        ({}, ("SHARDPAY_TOKEN_SECRET", "abc"), "SHARDPAY_TOKEN_SECRET is not hex"),
        ({"genesis": "/nowhere/genesis.json"}, None, "No such file"),
        ({"port": 99999}, None, "port"),
        ({"database": "sqlite:////nowhere/gateway.db"}, None, "unable to open database"),
        ({"broker": "http://localhost"}, None, "redis://"),
    ],
)
def test_wrong_settings_end_it_with_one_clear_line(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: dict[str, object],
    environment: tuple[str, str] | None,
    complaint: str,
) -> None:
    gateway = world.gateway_in(tmp_path, setting)
    for name, value in (*gateway.environment.items(), *([environment] if environment else [])):
        monkeypatch.setenv(name, value)
    assert main(["--config", str(gateway.config)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert complaint in told
