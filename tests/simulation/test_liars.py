"""One bad member of four costs its shard next to nothing, once the others have found out; and which rules see to that."""

from typing import Any

import pytest

from node.consensus.patience import Patience
from node.consensus.simplex import Simplex
from node.consensus.suspicion import Suspicion
from tests.simulation.liars import FAULTS, Committee


def is_well(kind: str) -> bool:
    """Of 400 payments in the 10 s that count, after 10 s of warm-up, nearly all are committed; a view takes 50 ms, not a second;
    and few wait for a view to end without a block - none if the leader's block is only withheld from the next one."""
    most = 250 if kind == "withholding" else 600
    found = Committee(kind, rate=40, warm_up=10_000, counted=10_000).figures()
    return found.committed > 0.97 * 400 and found.blocks > 90 and found.p50 < 140 and found.p99 < most


@pytest.mark.parametrize("kind", FAULTS)
def test_one_bad_member_costs_next_to_nothing(kind: str) -> None:
    assert is_well(kind)


def _for_one_turn(suspicion: Suspicion, leader: int) -> None:
    suspicion._failures[leader] = suspicion._pauses[leader] = 1


def _never_late(patience: Patience, is_notarized: bool) -> None:
    if is_notarized:
        patience.suspicion.succeeded(patience._leader)


def _in_time_without_transactions(patience: Patience, now: int) -> None:
    if patience._came_at is None:
        patience._came_at = patience._work_at or now


@pytest.mark.parametrize(
    ("kind", "owner", "rule", "without"),
    [
        ("stingy", Suspicion, "skips", lambda *_: False),
        ("tardy", Patience, "came", _in_time_without_transactions),
        ("mute", Suspicion, "skips", lambda *_: False),
        ("mute", Suspicion, "failed", _for_one_turn),
        ("slow", Patience, "ended", _never_late),
        ("withholding", Simplex, "_hand_over", lambda *_: None),
    ],
    ids=[
        "nobody is skipped, transactions are withheld",
        "transactions may be late",
        "nobody is skipped",
        "who goes on failing is tried as often",
        "slow leaders are not late",
        "no certificate is handed over",
    ],
)
def test_without_one_of_the_rules_it_costs_much(
    kind: str, owner: type[Any], rule: str, without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, rule, without)
    assert not is_well(kind)
