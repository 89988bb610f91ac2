"""Channels between shards: bundles are taken in order, exactly once, and sent numbered without gaps."""

import pytest

from node.ledger.execution import InvalidBlock
from node.protocol import merkle
from node.protocol.channel import Bundle, Decision
from node.protocol.codec import encode
from tests.unit.ledger_driver import Ledgers

NOTHING = (Decision(bytes(32), True),)


@pytest.fixture
def three() -> Ledgers:
    ledgers = Ledgers(3)
    ledgers.fund(ledgers.account(0), 100)
    return ledgers


def test_bundles_are_numbered_per_destination_and_listed_by_shard(three: Ledgers) -> None:
    a = three.account(0)
    first = three.block(
        0, three.pay(a, three.account(2), 1), three.pay(a, three.account(1), 1), three.pay(a, three.account(2), 1)
    )
    assert [(b.source, b.destination, b.sequence, len(b.records)) for b in first.outbox] == [(0, 1, 1, 1), (0, 2, 1, 2)]
    assert first.outbox_root == merkle.root([encode(bundle) for bundle in first.outbox])
    second = three.block(0, three.pay(a, three.account(2), 1), take=0)
    assert [(b.destination, b.sequence) for b in second.outbox] == [(2, 2)]
    assert (three.states[0].sequence(1), three.states[0].sequence(2), three.states[1].sequence(2)) == (1, 2, 0)


def test_sequence_goes_on_over_blocks_not_committed_yet(three: Ledgers) -> None:
    a, b = three.account(0), three.account(1)
    parent = three.execute(0, three.pay(a, b, 1))
    child = three.execute(0, three.pay(a, b, 1), parent=parent)
    assert child.outbox[0].sequence == 2
    assert (parent.overlay.sequence(1), child.overlay.sequence(1), three.states[0].sequence(1)) == (1, 2, 0)


def test_the_cursor_follows_what_was_taken_and_anything_but_the_next_makes_a_block_invalid(three: Ledgers) -> None:
    """A property test offers random bundles; here are those of no channel to this shard."""
    three.block(1, bundles=[Bundle(0, 1, 1, NOTHING), Bundle(2, 1, 1, NOTHING), Bundle(0, 1, 2, NOTHING)])
    for bad in (Bundle(0, 1, 2, NOTHING), Bundle(0, 1, 4, NOTHING), Bundle(0, 2, 3, NOTHING), Bundle(1, 1, 1, NOTHING)):
        with pytest.raises(InvalidBlock):
            three.execute(1, bundles=[bad])
    with pytest.raises(InvalidBlock, match="unknown shard"):
        three.execute(1, bundles=[Bundle(3, 1, 1, NOTHING)])
    execution = three.execute(1, bundles=[Bundle(0, 1, 3, NOTHING)])
    assert (execution.overlay.cursor(0), [three.states[1].cursor(source) for source in (0, 2)]) == (3, [2, 1])


def test_bundle_is_part_of_the_state_even_when_its_records_do_nothing(three: Ledgers) -> None:
    empty, taken = three.execute(1), three.execute(1, bundles=[Bundle(0, 1, 1, NOTHING)])
    assert empty.effects.changes.records_hash != taken.effects.changes.records_hash
    assert empty.state_root != taken.state_root
