"""The projection on its own: whatever order the shards' chains are seen in, a transfer ends the same way, and once."""

from itertools import permutations

import pytest

from gateway.projection import Facts, Projection, Seen, Status, Tracked, tracked_order
from node.protocol.block import Outcome, Receipt
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.shards import ShardTable, equal_ranges
from node.protocol.transaction import Leg, Order

SHARDS = ShardTable(equal_ranges(2))
PAYER, PAYEE = b"\x01" * 20, b"\xf1" * 20  # shards 0 and 1
ORDER = Order(bytes(8), (Leg(PAYER, PAYEE, "USD", 5),), "memo", 1000, bytes(8))
ID = ORDER.id
HOME = Seen(ORDER, encode(ORDER), 0, None)
THERE = Seen(ORDER, encode(ORDER), 0, 1)
PREPARED, COMMITTED = Receipt(ID, Outcome.PREPARED), Receipt(ID, Outcome.COMMITTED)
REJECTED = Receipt(ID, Outcome.REJECTED, Code.ACCOUNT_FROZEN)


def block(shard: int, height: int, receipts: tuple[Receipt, ...] = (), seen: tuple[Seen, ...] = (), time: int = 10) -> Facts:
    return Facts(shard, height, b"", b"", time, receipts, (), seen)


def chains(verdict: Receipt) -> dict[int, list[Facts]]:
    home = [block(0, 1, (PREPARED,), (HOME,)), block(0, 2, (verdict,))]
    released = Receipt(ID, verdict.outcome, verdict.code)
    return {0: home, 1: [block(1, 1, (PREPARED,), (THERE,)), block(1, 2, (released,))]}


def status_of(tracked: Tracked) -> Status:
    return tracked.status


INTERLEAVINGS = sorted(set(permutations([0, 0, 1, 1])))


def follow(projection: Projection, order: tuple[int, ...], verdict: Receipt) -> tuple[list[Tracked], int]:
    """Apply both chains in an interleaving: what was found, and how many history lines that made."""
    blocks = {shard: iter(facts) for shard, facts in chains(verdict).items()}
    found, lines = [], 0
    for shard in order:
        update = projection.apply([next(blocks[shard])], SHARDS)
        found += update.found
        lines += len(update.postings)
    return found, lines


@pytest.mark.parametrize("interleaving", INTERLEAVINGS)
@pytest.mark.parametrize(("verdict", "status"), [(COMMITTED, Status.COMMITTED), (REJECTED, Status.REJECTED)])
def test_an_own_transfer_ends_as_its_home_shard_says(interleaving: tuple[int, ...], verdict: Receipt, status: Status) -> None:
    projection = Projection()
    projection.wallets = {PAYER: "a", PAYEE: "b"}
    tracked = tracked_order(ORDER, ID, encode(ORDER), SHARDS, own=True)
    projection.track(tracked)
    found, lines = follow(projection, interleaving, verdict)
    assert tracked.status == status
    assert lines == (2 if status == Status.COMMITTED else 0)
    assert (found, projection.active) == ([], {})


@pytest.mark.parametrize("interleaving", INTERLEAVINGS)
@pytest.mark.parametrize("verdict", [COMMITTED, REJECTED])
def test_a_payment_signed_elsewhere_is_found_once_and_nothing_is_left_behind(
    interleaving: tuple[int, ...], verdict: Receipt
) -> None:
    projection = Projection()
    projection.wallets = {PAYEE: "b"}
    found, lines = follow(projection, interleaving, verdict)
    assert lines == (1 if verdict is COMMITTED else 0)
    assert projection.active == {}
    if verdict is COMMITTED:
        assert [tracked.status for tracked in found] == [Status.COMMITTED]


def test_committed_is_not_said_before_every_shard_has_applied_it() -> None:
    projection = Projection()
    tracked = tracked_order(ORDER, ID, encode(ORDER), SHARDS, own=True)
    projection.track(tracked)
    projection.apply([block(0, 1, (PREPARED,)), block(0, 2, (COMMITTED,))], SHARDS)
    assert status_of(tracked) == Status.PREPARED
    projection.apply([block(1, 1, (COMMITTED,))], SHARDS)
    assert status_of(tracked) == Status.COMMITTED


def test_a_transfer_expires_only_after_valid_until_and_never_once_prepared() -> None:
    projection = Projection()
    tracked = tracked_order(ORDER, ID, encode(ORDER), SHARDS, own=True)
    projection.track(tracked)
    projection.apply([block(0, 1, time=1000), block(1, 1, time=5000)], SHARDS)
    assert status_of(tracked) == Status.QUEUED, "neither at that time nor by another shard's clock"
    projection.apply([block(0, 2, (PREPARED,), time=1001)], SHARDS)
    assert status_of(tracked) == Status.PREPARED
    projection.apply([block(0, 3, time=9999)], SHARDS)
    assert tracked.status == Status.PREPARED

    other = tracked_order(ORDER, ID, encode(ORDER), SHARDS, own=True)
    projection = Projection()
    projection.track(other)
    projection.apply([block(0, 1, time=1001)], SHARDS)
    assert (other.status, other.code) == (Status.EXPIRED, Code.EXPIRED)


def test_what_members_gave_as_reason_is_told_when_it_expires() -> None:
    projection = Projection()
    tracked = tracked_order(ORDER, ID, encode(ORDER), SHARDS, own=True)
    tracked.reason = Code.ACCOUNT_FROZEN
    projection.track(tracked)
    projection.apply([block(0, 1, time=1001)], SHARDS)
    assert (tracked.status, tracked.code) == (Status.REJECTED, Code.ACCOUNT_FROZEN)


def test_a_duplicate_in_a_block_changes_nothing() -> None:
    projection = Projection()
    tracked = tracked_order(ORDER, ID, encode(ORDER), SHARDS, own=True)
    projection.track(tracked)
    projection.apply([block(0, 1, (PREPARED, Receipt(ID, Outcome.REJECTED, Code.DUPLICATE)))], SHARDS)
    assert tracked.status == Status.PREPARED
