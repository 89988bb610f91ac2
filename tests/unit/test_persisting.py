"""What is stored at once, and what may wait for it."""

import pytest

from node.effects import Checkpoint, Commit, Effect, Journal, LoseVotes, Pledge, Publish, ReplyBlocks, SendBlocks, SendBundles
from node.persisting import Persisting
from node.protocol.queries import GetBlocks, Query
from tests.chains import Network

FINAL = Network(committees=1).shards[0].add()
VOTE = Journal(2, "notarize", b"vote")
SAID = Publish("topic", b"")
QUERY = Query(b"", "", 0, GetBlocks(1, 1))


def commit(height: int, size: int = 10) -> Commit:
    return Commit(height, height, FINAL, bytes(size), ())


@pytest.mark.parametrize("record", [VOTE, Pledge(1, b"secret"), LoseVotes()])
def test_what_binds_is_stored_at_once_and_what_waited_before_it(record: Journal | Pledge | LoseVotes) -> None:
    persisting = Persisting()
    assert persisting.take([commit(1), SAID], 0) == []
    assert persisting.take([SAID, Checkpoint(1, (), 2)], 5) == []
    assert persisting.take([commit(2), record, SAID], 6) == [commit(1), Checkpoint(1, (), 2), commit(2), record]
    assert persisting.take([SAID], 7) == []


@pytest.mark.parametrize("read", [SendBlocks(b"peer", 1), SendBundles(b"peer", 1, 1), ReplyBlocks(QUERY)])
def test_what_somebody_is_to_be_sent_from_storage_is_there(read: Effect) -> None:
    persisting = Persisting()
    assert persisting.take([commit(1)], 0) == []
    assert persisting.take([read], 0) == [commit(1)]


def test_nothing_waits_for_longer_than_a_second_while_there_are_events() -> None:
    persisting = Persisting()
    assert persisting.take([commit(1)], 10) == []
    assert persisting.take([], 1_009) == []
    assert persisting.take([commit(2)], 1_010) == [commit(1), commit(2)]
    assert persisting.take([commit(3)], 2_009) == []


@pytest.mark.parametrize(
    "large", [commit(2, 2 << 20), Checkpoint(1, ((b"key", bytes(2 << 20)), (b"gone", None)), None)], ids=["block", "rows"]
)
def test_what_waits_is_bounded_in_bytes(large: Commit | Checkpoint) -> None:
    persisting = Persisting()
    assert persisting.take([commit(1)], 0) == []
    assert persisting.take([large], 0) == [commit(1), large]
    assert persisting.take([commit(3)], 0) == []
