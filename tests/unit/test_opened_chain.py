"""The chain of a later epoch at one node: opened from what is stored of its origins, and brought back wherever it stopped."""

from contextlib import closing as closed
from pathlib import Path
from sqlite3 import connect

import pytest

from node.database import StorageDamaged
from node.effects import Checkpoint, Commit, Recover, Send
from node.events import Missing, Recovered
from node.handing_over import read_checkpoint
from node.ledger.opening import Origin
from node.ledger.rules import Rules
from node.protocol.address import address_of
from node.protocol.certificate import CertifiedBlock
from node.protocol.change import Bulletin, Change
from node.protocol.codec import encode
from node.protocol.epoch import EpochDocument
from node.protocol.messages import ChainRequest, CheckpointRequest, PeerMessage, Standing
from node.protocol.transaction import decode_transaction
from node.recovery import bring_back, open_chain, recover
from node.replica.replica import Replica
from node.storage import Storage
from tests.chains import Network, Shard, key
from tests.eras import succession
from tests.simulation.disk import Disk
from tests.unit.replicas import at, make_final

INTERVAL, CLOSED, BLOCKS = 5, 12, 14
HALF = b"\x80" + bytes(19)


def closed_network() -> Network:
    """Somebody in each shard has 100 USD; after the closing blocks came empty ones."""
    network = Network(committees=2, checkpoint_interval=INTERVAL)
    for number in (0, 1):
        network.fund(network.person(number), 100)
    for shard in network.shards:
        while len(shard.chain) < CLOSED + 2:
            shard.add()
    return network


NETWORK = closed_network()
INCLUDED = [
    (shard.number, transaction.id, transaction.order.valid_until)
    for shard in NETWORK.shards
    for certified in shard.chain
    for transaction in map(decode_transaction, certified.block.transactions)
]
KEPT = succession(NETWORK.document, {0: (bytes(20), (0,)), 1: (HALF, (1,))})
MERGED = succession(NETWORK.document, {0: (bytes(20), (0, 1))})
SPLIT = succession(NETWORK.document, {0: (bytes(20), (0,)), 2: (b"\x40" + bytes(19), (0,)), 1: (HALF, (1,))})


def closing(shard: Shard) -> Bulletin:
    certified = shard.chain[CLOSED - 1]
    return Bulletin(1, certified.block.header, certified.finality, Change())


def stored(shard: Shard, certified: CertifiedBlock) -> list[Commit | Checkpoint]:
    header = certified.block.header
    included = shard.included.get(header.height, ())
    commit = Commit(header.height, header.view, certified, encode(certified), (), included=included)
    return [commit, Checkpoint(*shard.slices[header.height - 1])]


class Opened:
    """One shard of the next epoch: its database, and its origins, brought back from theirs."""

    def __init__(self, path: Path, document: EpochDocument, shard: int = 0) -> None:
        origins = [NETWORK.shards[number] for number in document.origins_of(shard)]
        time = max(closing(origin).header.time for origin in origins)
        self.document, self.shard = document, shard
        self.rules = Rules(NETWORK.genesis, document.network_id, shard, document.shards, document, time)
        self.storage = Storage(path / "opened.db", NETWORK.genesis.network)
        self.origins = []
        for origin in origins:
            storage = Storage(path / f"origin-{origin.number}.db", NETWORK.genesis.network)
            storage.write([effect for certified in origin.chain[: CLOSED + 2] for effect in stored(origin, certified)])
            state = recover(storage, origin.rules, origin.electorate).state
            self.origins.append(Origin(state, closing(origin).header))

    def brought_back(self) -> Recovered:
        return recover(self.storage, self.rules, self.document.electorates[self.shard])

    def chain(self, storage: Storage | None = None) -> Shard:
        """Opened now."""
        credit = {(0, "USD"): 5, (1, "USD"): 7}
        recovered = open_chain(storage or self.storage, self.rules, self.document, credit, self.origins)
        assert recovered.opening is not None
        return Shard(NETWORK, self.shard, self.document, (recovered.state, recovered.opening))

    def grow(self, shard: Shard, blocks: int) -> None:
        for _ in range(blocks):
            self.storage.write(stored(shard, shard.add()))


def test_what_is_abandoned_while_it_is_read_is_missing_and_ends_no_node(tmp_path: Path) -> None:
    opened = Opened(tmp_path, KEPT)
    wanted = Recover(opened.rules, KEPT.electorates[0], tuple(opened.origins), KEPT)
    assert isinstance(bring_back(wanted, lambda _: opened.storage), Recovered)
    opened.storage.close()
    assert bring_back(wanted, lambda _: opened.storage) == Missing()


@pytest.mark.parametrize("document", [KEPT, MERGED, SPLIT], ids=["kept", "merged", "split"])
def test_an_opened_chain_comes_back_wherever_it_stopped(tmp_path: Path, document: EpochDocument) -> None:
    opened = Opened(tmp_path, document)
    shard = opened.chain()
    people = [NETWORK.person(number) for number in (0, 1)]
    payer = next(one for one in people if opened.rules.first <= address_of(one.public) <= opened.rules.last)
    for height in range(BLOCKS + 1):
        for _ in range(2):  # what the first start writes serves the second
            recovered = opened.brought_back()
            opened.storage.write([Checkpoint(*part) for part in recovered.slices])
            state = recovered.state
            assert (state.height, state.state_root, state.totals()) == (height, shard.roots[height], shard.state.totals())
            assert recovered.last == shard.last(height)
            assert recovered.opening == (None if height else shard.genesis)
            assert recovered.peaks == (shard.peaks(height) if height else {})
            included = [(id_, until) for origin, id_, until in INCLUDED if origin in document.origins_of(0)]
            assert included or document is not MERGED
            assert all(state.has_seen(*one) for one in included)
        block = shard.add(*([NETWORK.pay(payer, key(f"payee {height}"), 1)] if height % 3 else []))
        opened.storage.write(stored(shard, block))
    assert opened.storage.checkpoint() == (6, 11)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM meta WHERE key = ':beginning'",
        "UPDATE meta SET value = x'00' WHERE key = ':beginning'",
        "DELETE FROM state WHERE key = (SELECT key FROM state WHERE substr(hex(key), -2) = '67')",
        "DELETE FROM state WHERE key = (SELECT key FROM state WHERE length(key) = 23)",
        "DELETE FROM replay",
    ],
)
def test_what_a_chain_began_with_is_believed_only_whole(tmp_path: Path, damage: str) -> None:
    opened = Opened(tmp_path, KEPT, shard=1)
    opened.chain()
    with closed(connect(tmp_path / "opened.db")) as database, database:
        assert database.execute(damage).rowcount
    with pytest.raises(StorageDamaged):
        recover(opened.storage, opened.rules, KEPT.electorates[1])


def test_a_member_that_lacks_the_state_can_be_handed_the_first_checkpoint_soon(tmp_path: Path) -> None:
    opened = Opened(tmp_path, MERGED)
    shard = opened.chain()
    opened.grow(shard, opened.rules.first_certified)
    outline = shard.state.certified
    assert outline is not None
    assert (outline.height, outline.certified_at) == (1, 6) == (1, opened.rules.first_certified)
    proof = read_checkpoint(opened.storage, outline.height, outline.certified_at, outline.root)
    assert proof.is_valid(shard.electorate)


def test_a_member_builds_on_the_opening(tmp_path: Path) -> None:
    opened = Opened(tmp_path, MERGED)
    shard = opened.chain()
    recovered = opened.brought_back()
    member = Replica(NETWORK.genesis, MERGED, shard.members[0], "n", recovered, at(0))
    assert member.consensus.head == shard.genesis.hash
    shard.add()
    make_final(member, shard)
    assert member.state.height == 1


def asked_by(opened: Opened, height: int, closes: bool = False) -> list[PeerMessage]:
    """What a member that has just opened the chain asks another one for that says it is so high."""
    shard = opened.chain()
    member = Replica(NETWORK.genesis, opened.document, shard.members[0], "n", opened.brought_back(), at(0))
    effects = member.on_message(shard.members[1].public, Standing(height, height), at(0))
    effects = member.on_closed(height, at(0)) if closes else effects
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, ChainRequest | CheckpointRequest)]


def test_a_member_that_opened_its_chain_asks_for_blocks_and_not_for_the_state_again(tmp_path: Path) -> None:
    """All members hand over large states to none while their epoch begins."""
    assert asked_by(Opened(tmp_path, MERGED), 50) == [ChainRequest(1)]


@pytest.mark.parametrize("closes", [False, True])
def test_a_member_that_lacks_the_closing_block_asks_for_it_at_once(tmp_path: Path, closes: bool) -> None:
    """Its next shard waits for it. Any other block comes by itself."""
    assert asked_by(Opened(tmp_path, KEPT), 1, closes) == [ChainRequest(1)] * closes


def test_a_simulated_disk_gives_back_the_same(tmp_path: Path) -> None:
    opened, disk = Opened(tmp_path, MERGED), Disk()
    shard = opened.chain(storage=disk)  # type: ignore[arg-type]
    opened.storage = disk  # type: ignore[assignment]
    for height in range(BLOCKS):
        assert opened.brought_back().state.state_root == shard.roots[height]
        opened.grow(shard, 1)
