"""One bad member of four costs its shard next to nothing, once the others have found out."""

import pytest

from tests.simulation.liars import FAULTS, Committee


@pytest.mark.parametrize("kind", FAULTS)
def test_one_bad_member_costs_next_to_nothing(kind: str) -> None:
    """400 payments in the 10 s that count, after 10 s; a view that ends in time takes some 55 ms, one that does not 2000 ms."""
    found = Committee(kind, rate=40, warm_up=10_000, counted=10_000).figures()
    assert found.committed > 0.95 * 400
    assert found.p50 < 150
    assert found.blocks > 80
