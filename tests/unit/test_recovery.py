"""A node's ledger after a start: what was stored comes back, and nothing is believed that does not prove itself."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from node.consensus.journal import journaled
from node.database import StorageDamaged, StorageError
from node.effects import Checkpoint, Commit, Journal, Pledge
from node.ledger.admission import admit
from node.protocol.certificate import CertifiedBlock, VoteKind, sign_vote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.transaction import decode_transaction
from node.recovery import recover
from node.storage import Storage
from tests.chains import Network, key

Effects = list[Commit | Checkpoint | Journal]

INTERVAL = 3
NETWORK = Network(committees=1, checkpoint_interval=INTERVAL)
SHARD = NETWORK.shards[0]


def committed(certified: CertifiedBlock) -> Commit:
    header = certified.block.header
    return Commit(header.height, header.view, certified, encode(certified), (), included=SHARD.included.get(header.height, ()))


def history() -> list[Effects]:
    """What eleven blocks with a payment each write. The checkpoint at height 6 is whole with block 9."""
    found: list[Effects] = []
    for height in range(1, 12):
        block = SHARD.add(NETWORK.pay(NETWORK.issuers["USD"], key(f"payee {height % 4}"), height))
        found.append([committed(block), Checkpoint(*SHARD.slices[-1])])
    return found


HISTORY = history()
STORED = [effect for effects in HISTORY for effect in effects]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "node.db", NETWORK.genesis.network)


@pytest.mark.parametrize("blocks", range(1, len(HISTORY) + 1))
@pytest.mark.parametrize("kept", [Commit, Commit | Checkpoint], ids=["from the genesis", "from the checkpoint"])
def test_the_ledger_comes_back_wherever_it_stopped(storage: Storage, blocks: int, kept: type) -> None:
    storage.write([effect for effects in HISTORY[:blocks] for effect in effects if isinstance(effect, kept)])
    for _ in range(2):  # what the first start writes serves the second
        recovered = recover(storage, SHARD.rules, SHARD.electorate)
        storage.write([Checkpoint(*part) for part in recovered.slices])
        assert (recovered.state.height, recovered.state.state_root) == (blocks, SHARD.roots[blocks])
        assert recovered.last == SHARD.last(blocks)
        for certified in SHARD.chain[:blocks]:
            transaction = decode_transaction(certified.block.transactions[0])
            assert admit(recovered.state, SHARD.rules, transaction.id, transaction, recovered.state.time) is Code.DUPLICATE
    whole = blocks // INTERVAL * INTERVAL
    assert storage.checkpoint() == ((whole - INTERVAL, whole) if whole > INTERVAL else None)


def test_what_a_restart_hashes_again_is_stored_again(storage: Storage) -> None:
    """Rows of the next checkpoint that were hashed before the stop, but lost, are not missing in it."""
    storage.write([part for part in STORED if not isinstance(part, Checkpoint) or part.height <= 6][:-1])
    again = [Checkpoint(*part) for part in recover(storage, SHARD.rules, SHARD.electorate).slices]
    storage.write([*again, *HISTORY[-1], *next_blocks(1)])
    recovered = recover(storage, SHARD.rules, SHARD.electorate)
    assert storage.checkpoint() == (9, 12)
    assert recovered.state.height == 12


def next_blocks(count: int) -> Effects:
    """More blocks, as a member that never stopped has them."""
    found: Effects = []
    for _ in range(count):
        block = SHARD.add()
        found += [committed(block), Checkpoint(*SHARD.slices[-1])]
    return found


def without(*unwanted: Commit | Checkpoint | Journal) -> Effects:
    return [effect for effect in STORED if effect not in unwanted]


def instead_of(height: int, forged: CertifiedBlock) -> Effects:
    return [committed(forged) if isinstance(e, Commit) and e.height == height else e for e in STORED]


def block(height: int) -> CertifiedBlock:
    return SHARD.chain[height - 1]


def blocks_up_to(height: int) -> Effects:
    return [effect for effect in STORED if not isinstance(effect, Commit) or effect.height <= height]


ROWS = next(part for part in STORED if isinstance(part, Checkpoint) and part.height == 6 and part.rows)
STRANGERS = [key(f"stranger {i}") for i in range(4)]


@pytest.mark.parametrize(
    "stored",
    [
        lambda: without(committed(block(6))),
        lambda: without(committed(block(9))),
        lambda: blocks_up_to(8),
        lambda: blocks_up_to(0),
        lambda: without(ROWS),
        lambda: [*STORED, Checkpoint(5, ROWS.rows, 10)],
        lambda: [*STORED, Checkpoint(6, (), 8)],
        lambda: instead_of(6, SHARD.forge(block(6), state_root=bytes(32))),
        lambda: instead_of(9, SHARD.forge(block(9), state_root=bytes(32))),
        lambda: instead_of(9, SHARD.forge(block(9), keys=STRANGERS)),
        lambda: instead_of(8, SHARD.forge(block(8), keys=STRANGERS)),
        lambda: instead_of(10, SHARD.forge(block(10), parent=bytes(32))),
        lambda: instead_of(10, SHARD.forge(block(10), keys=STRANGERS)),
        lambda: instead_of(10, SHARD.forge(block(10), state_root=bytes(32))),
        lambda: instead_of(10, SHARD.forge(block(10), effects=block(9).effects)),
        lambda: [*STORED, Journal(9, "sonnet", b"")],
    ],
    ids=[
        "the checkpoint's block is missing",
        "the block with the checkpoint's root is missing",
        "no block has the root of the rows",
        "no block at all",
        "rows are missing",
        "another checkpoint than there was",
        "another block is said to have the root",
        "another block than the checkpoint's",
        "another root than the rows'",
        "a root that others certified",
        "a block before the root's that others certified",
        "a block that follows on another",
        "a block others certified",
        "a block that does not give its state",
        "a block that does not give its effects",
        "an unknown journal record",
    ],
)
def test_what_does_not_prove_itself_is_damage(storage: Storage, stored: Callable[[], Effects]) -> None:
    storage.write(stored())
    with pytest.raises(StorageDamaged):
        recover(storage, SHARD.rules, SHARD.electorate)


def test_what_the_last_block_skips_to_is_read_back(tmp_path: Path) -> None:
    """From blocks long before the checkpoint; of one that is missing or another, the links of later blocks cannot be told."""
    network = Network(committees=1, checkpoint_interval=2)
    shard = network.shards[0]
    effects: Effects = []
    for _ in range(14):
        effects += [committed(shard.add()), Checkpoint(*shard.slices[-1])]
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


def keys_of(database: sqlite3.Connection, table: str) -> list[str]:
    """The columns of the primary key."""
    return [name for _, name, *_, place in database.execute(f"PRAGMA table_info({table})") if place]


def altered(value: object) -> object:
    """Another value that could stand there, too."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return bytes([value[0] ^ 1]) + value[1:] if isinstance(value, bytes) and value else b"x"


def believed(path: Path) -> list[object]:
    """All that a node reads when it starts."""
    with closing(Storage(path, NETWORK.genesis.network)) as storage:
        recovered = recover(storage, SHARD.rules, SHARD.electorate)
        return [recovered.state.height, recovered.state.state_root, recovered.last, recovered.records, storage.pledge()]


def test_each_stored_fact_altered_is_damage_or_not_believed(tmp_path: Path) -> None:
    """Whichever it is. One whose name is altered is missing: without its pledge a node does not vote."""
    path, noticed = tmp_path / "node.db", 0
    with closing(Storage(path, NETWORK.genesis.network)) as storage:
        vote = sign_vote(SHARD.members[0], 0, SHARD.electorate, VoteKind.NOTARIZE, 40, bytes(32))
        storage.write([*STORED, Pledge(1, b"secret"), journaled(40, vote)])
    right, original = believed(path), path.read_bytes()
    with closing(sqlite3.connect(path)) as reader:
        tables = [name for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert set(tables) == {
            "meta", "journal", "blocks", "bundles", "state", "recent", "kept", "replay", "fetched", "fetched_replay"
        }  # fmt: skip
        places = [
            (table, column, place)
            for table in tables
            for place in reader.execute(f"SELECT {', '.join(keys_of(reader, table))} FROM {table}")
            for _, column, *_ in reader.execute(f"PRAGMA table_info({table})")
        ]
    for table, column, place in places:
        path.write_bytes(original)
        with closing(sqlite3.connect(path)) as vandal, vandal:
            names = keys_of(vandal, table)
            where = " AND ".join(f"{name} = ?" for name in names)
            (old,) = vandal.execute(f"SELECT {column} FROM {table} WHERE {where}", place).fetchone()
            vandal.execute(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {where}", (altered(old), *place))
        try:
            found = believed(path)
        except StorageError:
            noticed += 1
            continue
        if (table, column) == ("meta", "key"):
            found[-1] = right[-1]
        assert found == right, (table, column, place)
    assert noticed > len(places) // 2
