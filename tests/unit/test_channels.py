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
    first = three.block(0, *(three.pay(a, three.account(shard), 1) for shard in (2, 1, 2)))
    assert [(b.source, b.destination, b.sequence, len(b.records)) for b in first.outbox] == [(0, 1, 1, 1), (0, 2, 1, 2)]
    assert first.outbox_root == merkle.root([encode(bundle) for bundle in first.outbox])
    second = three.block(0, three.pay(a, three.account(2), 1), take=0)
    assert [(b.destination, b.sequence) for b in second.outbox] == [(2, 2)]
    assert (three.states[0].sequence(1), three.states[0].sequence(2), three.states[1].sequence(2)) == (1, 2, 0)


def test_the_cursor_follows_what_was_taken_and_anything_but_the_next_makes_a_block_invalid(three: Ledgers) -> None:
    assert three.execute(1).state_root != three.execute(1, bundles=[Bundle(0, 1, 1, NOTHING)]).state_root
    three.block(1, bundles=[Bundle(0, 1, 1, NOTHING), Bundle(2, 1, 1, NOTHING), Bundle(0, 1, 2, NOTHING)])
    for bad in (Bundle(0, 1, 2, NOTHING), Bundle(0, 1, 4, NOTHING), Bundle(0, 2, 3, NOTHING), Bundle(1, 1, 1, NOTHING)):
        with pytest.raises(InvalidBlock):
            three.execute(1, bundles=[bad])
    with pytest.raises(InvalidBlock, match="unknown shard"):
        three.execute(1, bundles=[Bundle(3, 1, 1, NOTHING)])
    execution = three.execute(1, bundles=[Bundle(0, 1, 3, NOTHING)])
    assert (execution.overlay.cursor(0), [three.states[1].cursor(source) for source in (0, 2)]) == (3, [2, 1])
