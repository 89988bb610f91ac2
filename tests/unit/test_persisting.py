"""What is stored at once, and what may wait for it."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec import structs

from node.effects import (
    ChainEffect,
    Checkpoint,
    Commit,
    In,
    Journal,
    LoseVotes,
    Pledge,
    Publish,
    Recover,
    ReplyBlocks,
    Retire,
    Row,
    SendBlocks,
    SendBundles,
)
from node.ledger.opening import Origin
from node.persisting import Persisting
from node.protocol.chain import Chain
from node.protocol.queries import GetBlocks, Query
from tests.chains import Network

NETWORK = Network(committees=1)
FINAL = NETWORK.shards[0].add()
VOTE = Journal(2, "notarize", b"vote")
SAID = Publish("topic", b"")
CHAIN, OTHER = Chain(1, 0), Chain(2, 0)
QUERY = Query(b"", "", 0, GetBlocks(1, 1))


def take(persisting: Persisting, effects: Sequence[ChainEffect], now: int) -> list[Row]:
    """Of one chain."""
    due = persisting.take([In(CHAIN, effect) for effect in effects], now)
    assert [chain for chain, _ in due] == [CHAIN] * len(due)
    return [row for _, rows in due for row in rows]


def commit(height: int, size: int = 10) -> Commit:
    return Commit(height, height, FINAL, bytes(size), ())


@pytest.mark.parametrize("record", [VOTE, Pledge(1, b"secret"), LoseVotes()])
def test_what_binds_is_stored_at_once_and_what_waited_before_it(record: Journal | Pledge | LoseVotes) -> None:
    persisting = Persisting()
    assert take(persisting, [commit(1), SAID], 0) == []
    assert take(persisting, [SAID, Checkpoint(1, (), 2)], 5) == []
    assert take(persisting, [commit(2), record, SAID], 6) == [commit(1), Checkpoint(1, (), 2), commit(2), record]
    assert take(persisting, [SAID], 7) == []


@pytest.mark.parametrize("read", [SendBlocks(b"peer", 1), SendBundles(b"peer", 1, 1), ReplyBlocks(QUERY)])
def test_what_somebody_is_to_be_sent_from_storage_is_there(read: ChainEffect) -> None:
    persisting = Persisting()
    assert take(persisting, [commit(1)], 0) == []
    assert take(persisting, [read], 0) == [commit(1)]


def test_nothing_waits_for_longer_than_a_second_while_there_are_events() -> None:
    persisting = Persisting()
    assert take(persisting, [commit(1)], 10) == []
    assert take(persisting, [], 1_009) == []
    assert take(persisting, [commit(2)], 1_010) == [commit(1), commit(2)]
    assert take(persisting, [commit(3)], 2_009) == []


@pytest.mark.parametrize(
    "large", [commit(2, 2 << 20), Checkpoint(1, ((b"key", bytes(2 << 20)), (b"gone", None)), None)], ids=["block", "rows"]
)
def test_what_waits_is_bounded_in_bytes(large: Commit | Checkpoint) -> None:
    persisting = Persisting()
    assert take(persisting, [commit(1)], 0) == []
    assert take(persisting, [large], 0) == [commit(1), large]
    assert take(persisting, [commit(3)], 0) == []


def test_a_vote_in_one_chain_stores_nothing_of_another() -> None:
    persisting = Persisting()
    assert persisting.take([In(CHAIN, commit(1)), In(OTHER, commit(2))], 0) == []
    assert persisting.take([In(OTHER, VOTE)], 1) == [(OTHER, [commit(2), VOTE])]
    assert persisting.flush() == [(CHAIN, [commit(1)])]


def test_what_a_chain_opens_from_is_stored() -> None:
    """Before there is no way back."""
    shard, nothing = NETWORK.shards[0], cast(Any, None)
    electorate, opened = shard.electorate, structs.replace(shard.electorate, epoch=2)
    persisting = Persisting()
    assert persisting.take([In(electorate.chain, commit(1)), In(OTHER, commit(2))], 0) == []
    opening = Recover(nothing, opened, (Origin(shard.state, nothing),))
    assert persisting.take([In(Chain(2, 1), opening)], 1) == [(electorate.chain, [commit(1)])]


def test_what_waits_of_a_chain_that_is_over_is_stored_before_it_is_closed() -> None:
    persisting = Persisting()
    assert persisting.take([In(CHAIN, commit(1)), In(OTHER, commit(1))], 0) == []
    assert persisting.take([Retire(CHAIN)], 1) == [(CHAIN, [commit(1)])]
    assert persisting.take([Retire(CHAIN)], 2) == []
