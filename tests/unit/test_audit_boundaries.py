"""The audit over epochs: what there was when an epoch ended is what the next one began with."""

from collections.abc import Sequence

from msgspec import structs

from node.protocol.block import Totals, tally
from node.protocol.succession import Succession
from scripts.audit_boundaries import differences
from tests.chains import Network

DECIMALS = {"USD": 2}
NETWORK = Network(standby=4, epoch_pause=100, reveal_time=1000)
NETWORK.fund(NETWORK.person(0), 1_000)
NETWORK.fund(NETWORK.person(1), 500)
NETWORK.shards[0].add(NETWORK.pay(NETWORK.person(0), NETWORK.person(1), 30))
NETWORK.change()
NETWORK.fund(NETWORK.person(2), 7)
NETWORK.change(list(NETWORK.nodes.values())[:8])
LATEST = {shard.number: shard.state.totals() for shard in NETWORK.shards}


def found(successions: Sequence[Succession] = NETWORK.successions, latest: dict[int, Totals] = LATEST) -> list[str]:
    return differences(NETWORK.documents, successions, latest, DECIMALS)


def richer(totals: Totals, units: int) -> Totals:
    """A chain that says it began with so much more USD."""
    first, *others = totals.assets
    return structs.replace(totals, assets=(structs.replace(first, carried=tally(first.carried + units)), *others))


def test_what_is_carried_over_a_split_and_a_merger_adds_up() -> None:
    assert NETWORK.documents[1].origins == ((0,), (1,), (0,))
    assert NETWORK.documents[2].origins == ((0, 2), (1,))
    assert found() == []


def test_money_made_or_lost_at_a_boundary_is_named_with_the_shards_and_the_epoch() -> None:
    made = LATEST | {0: richer(LATEST[0], 250)}
    assert found(latest=made) == ["2.50 USD made on the way from shard 0 and 2 to shard 0, as epoch 3 began"]
    lost = LATEST | {1: richer(LATEST[1], -1)}
    assert found(latest=lost) == ["0.01 USD lost on the way from shard 1 to shard 1, as epoch 3 began"]


def test_a_boundary_long_past_is_looked_at_by_what_the_epoch_after_it_closed_with() -> None:
    first, second = NETWORK.successions
    totals = second.closings[0].change.totals
    assert totals is not None
    told = structs.replace(second.closings[0], change=structs.replace(second.closings[0].change, totals=richer(totals, 100)))
    lied = structs.replace(second, closings=(told, *second.closings[1:]))
    assert "1.00 USD made on the way from shard 0 to shard 0 and 2, as epoch 2 began" in found([first, lied])
