"""What the audit makes of the totals that shards have proven."""

from typing import Any

import pytest

from node.protocol.block import AssetTotal, PeerTotal, Totals
from scripts.audit_money import Shards, ShardTotals, audit, table


def seen(*shards: tuple[int, int, int, list[PeerTotal]], pending: int = 0) -> Shards:
    """Of each shard: available, minted, burned, peers."""
    totals = [AssetTotal("USD", available, 0, minted, burned, 0, tuple(peers)) for available, minted, burned, peers in shards]
    return {number: ShardTotals(1, Totals((total,), pending)) for number, total in enumerate(totals)}


def judged(shards: Shards, before: Shards | None = None) -> dict[str, Any]:
    return audit(shards, {"USD": 2}, before)


SENT, TAKEN = [PeerTotal(1, 30, 0)], [PeerTotal(0, 0, 30)]


def test_what_is_under_way_has_to_arrive_and_what_arrived_to_have_left() -> None:
    assert judged(seen((70, 100, 0, SENT), (30, 0, 0, TAKEN)))["conserved"] is True
    assert judged(seen((70, 100, 0, SENT), (0, 0, 0, [])))["conserved"] is None
    assert judged(seen((100, 100, 0, []), (30, 0, 0, TAKEN)))["conserved"] is None, "the shards are not seen at one instant"


def test_what_had_arrived_before_and_has_not_left_yet_was_made_up() -> None:
    """However long one waits, it would look like something under way."""
    made_up = seen((100, 100, 0, []), (30, 0, 0, TAKEN))
    result = judged(made_up, made_up)
    assert result["conserved"] is False
    assert result["assets"]["USD"]["never_left"] == {"0 -> 1": "0.30"}
    shown = table({**result, "epoch": 1, "boundaries": [], "contradictions": []})
    assert "0.30 USD arrived that never left: shard 0 -> 1" in shown
    assert judged(seen((70, 100, 0, SENT), (30, 0, 0, TAKEN)), made_up)["conserved"] is True, "only seen late"


@pytest.mark.parametrize(("more", "conserved"), [(0, True), (1, False)])
def test_tallies_that_have_begun_again_are_compared_all_the_same(more: int, conserved: bool) -> None:
    """10^20 went to and fro; 2^64 + 5 were minted and 2^64 - 95 burned before."""
    there, back = [PeerTotal(1, (10**20 + 30) % 2**64, 10**20 % 2**64)], [PeerTotal(0, 10**20 % 2**64, (10**20 + 30) % 2**64)]
    result = judged(seen((70 + more, 5, 2**64 - 95, there), (30, 0, 0, back)))
    assert result["conserved"] is conserved
    assert result["assets"]["USD"]["issued"] == "1.00"
