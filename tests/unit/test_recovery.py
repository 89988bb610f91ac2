"""A node's ledger after a start: what was stored comes back, and nothing is believed that does not prove itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from node.effects import Checkpoint, Commit, Journal
from node.ledger.admission import admit
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.transaction import decode_transaction
from node.recovery import recover
from node.storage import Storage, StorageDamaged
from tests.chains import Network, key

Effects = list[Commit | Checkpoint | Journal]

NETWORK = Network(committees=1, checkpoint_interval=4)
SHARD = NETWORK.shards[0]


def committed(certified: CertifiedBlock) -> Commit:
    header = certified.block.header
    return Commit(header.height, header.view, certified, encode(certified), ())


def history() -> Effects:
    """Six blocks with a payment each, and the checkpoint at height 4."""
    found: Effects = []
    for height in range(1, 7):
        found.append(committed(SHARD.add(NETWORK.pay(NETWORK.issuers["USD"], key("payee"), height))))
        if height == 4:
            found.append(Checkpoint(4, SHARD.state.checkpoint()))
    return found


STORED = history()
CHECKPOINT = STORED[4]
assert isinstance(CHECKPOINT, Checkpoint)
FIFTH = SHARD.chain[4]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "node.db", NETWORK.genesis.network)


@pytest.mark.parametrize("kept", [[*STORED[:4], *STORED[5:]], STORED], ids=["from the genesis", "from the checkpoint"])
def test_the_ledger_comes_back_with_what_it_refuses_as_duplicate(storage: Storage, kept: Effects) -> None:
    storage.write(kept)
    recovered = recover(storage, SHARD.rules, SHARD.electorate)
    assert (recovered.state.height, recovered.state.state_root) == (6, SHARD.roots[6])
    assert recovered.last == SHARD.chain[-1]
    for certified in SHARD.chain:
        transaction = decode_transaction(certified.block.transactions[0])
        assert admit(recovered.state, SHARD.rules, transaction.id, transaction, recovered.state.time) is Code.DUPLICATE


def replaced(forged: CertifiedBlock) -> Callable[[], Effects]:
    return lambda: [*STORED[:5], committed(forged)]


@pytest.mark.parametrize(
    "stored",
    [
        lambda: STORED[:3] + STORED[4:],
        lambda: STORED[4:5],
        lambda: [*STORED[:4], Checkpoint(4, CHECKPOINT.rows[1:])],
        lambda: [*STORED[:3], committed(SHARD.forge(SHARD.chain[3], state_root=bytes(32))), CHECKPOINT],
        replaced(SHARD.forge(FIFTH, parent=bytes(32))),
        replaced(SHARD.forge(FIFTH, keys=[key(f"stranger {i}") for i in range(4)])),
        replaced(SHARD.forge(FIFTH, state_root=bytes(32))),
        lambda: [*STORED, Journal(9, "sonnet", b"")],
    ],
    ids=[
        "the checkpoint's block is missing",
        "no block at all",
        "other rows than the checkpoint's",
        "another block than the checkpoint's",
        "a block that follows on another",
        "a block others certified",
        "a block that does not give its state",
        "an unknown journal record",
    ],
)
def test_what_does_not_prove_itself_is_damage(storage: Storage, stored: Callable[[], Effects]) -> None:
    storage.write(stored())
    with pytest.raises(StorageDamaged):
        recover(storage, SHARD.rules, SHARD.electorate)


def test_what_the_last_block_skips_to_is_read_back(tmp_path: Path) -> None:
    """From blocks long before the checkpoint; of one that is missing or another, the links of later blocks cannot be told."""
    network = Network(committees=1, checkpoint_interval=4)
    shard = network.shards[0]
    effects: Effects = []
    for height in range(1, 15):
        effects.append(committed(shard.add()))
        if height % 4 == 0:
            effects.append(Checkpoint(height, shard.state.checkpoint()))
    whole = Storage(tmp_path / "whole.db", network.genesis.network)
    whole.write(effects)
    peaks = recover(whole, shard.rules, shard.electorate).peaks
    assert peaks == {height: shard.header(height).hash for height in (14, 12, 8, 0)}
    another: Effects = [committed(shard.forge(shard.chain[7], time=1))]
    for name, change in (("missing", Effects()), ("another", another)):
        damaged = Storage(tmp_path / f"{name}.db", network.genesis.network)
        damaged.write([effect for effect in effects if not (isinstance(effect, Commit) and effect.height == 8)] + change)
        with pytest.raises(StorageDamaged, match="block 8"):
            recover(damaged, shard.rules, shard.electorate)
