"""How a proposer fills a block with bundles: in sequence, within limits, every channel in its turn."""

from collections.abc import Iterator
from typing import cast

import pytest
from msgspec import Struct

from node.ledger.state import State
from node.protocol.channel import Bundle, CertifiedBundle, PrepareVote
from node.protocol.codes import Code
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES, MAX_BLOCK_RECORDS, MAX_SHARDS
from node.replica.inbox import Delivery, Inbox
from node.replica.proposing import choose_bundles


class _Certified(Struct):
    bundle: Bundle


class _State(Struct):
    height: int

    def cursor(self, source: int) -> int:
        return 0


class _Inbox:
    """Each source's bundles, by (size in bytes, records)."""

    def __init__(self, channels: dict[int, list[tuple[int, int]]]) -> None:
        self._channels = channels
        self.sources = tuple(channels)

    def following(self, source: int, cursor: int) -> Iterator[Delivery]:
        for sequence, (size, records) in enumerate(self._channels[source], 1):
            bundle = Bundle(source, 0, sequence, (PrepareVote(bytes(32), Code.OK),) * records)
            yield Delivery(cast(CertifiedBundle, _Certified(bundle)), bytes(size))


def chosen(channels: dict[int, list[tuple[int, int]]], height: int = 0) -> list[tuple[int, int]]:
    """(source, sequence) of what goes into the block."""
    bundles, _ = choose_bundles(cast(State, _State(height)), cast(Inbox, _Inbox(channels)))
    return [(b.bundle.source, b.bundle.sequence) for b in bundles]


def test_no_more_bundles_than_a_block_can_hold() -> None:
    assert len(chosen({source: [(10, 1)] * 64 for source in range(1, 40)})) == MAX_SHARDS


def test_a_single_bundle_goes_in_whatever_its_size() -> None:
    assert chosen({1: [(2 * MAX_BLOCK_PAYLOAD_BYTES, 1)], 2: [(10, 1)]}) == [(1, 1)]
    assert chosen({1: [(10, 2 * MAX_BLOCK_RECORDS)], 2: [(10, 1)]}) == [(1, 1)]


@pytest.mark.parametrize("bundle", [(MAX_BLOCK_PAYLOAD_BYTES // 3, 1), (10, MAX_BLOCK_RECORDS // 3)])
def test_bytes_and_records_are_limited(bundle: tuple[int, int]) -> None:
    assert chosen({1: [bundle] * 9}) == [(1, 1), (1, 2), (1, 3)]


def test_a_busy_channel_does_not_starve_the_others() -> None:
    channels = {source: [(MAX_BLOCK_PAYLOAD_BYTES, 1)] * 5 for source in (1, 2, 3)}
    assert [chosen(channels, height) for height in range(4)] == [[(1, 1)], [(2, 1)], [(3, 1)], [(1, 1)]]


def test_a_bundle_that_does_not_fit_leaves_room_for_another_channel() -> None:
    assert chosen({1: [(10, 1), (MAX_BLOCK_PAYLOAD_BYTES, 1)], 2: [(10, 1)]}) == [(1, 1), (2, 1)]
