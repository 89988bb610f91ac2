"""Random histories of several ledgers, shrunk to the shortest when one breaks: whatever is submitted, delivered late, forked
or restarted, no unit appears or is lost, no figure is negative, nothing is executed twice, and holds end."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.ledger import replay
from node.ledger.admission import admit
from node.ledger.execution import Execution, InvalidBlock, execute
from node.ledger.reader import NO_SUPPLY
from node.ledger.rows import Flow
from node.ledger.rules import FIGURES_PAUSE
from node.ledger.state import State
from node.protocol.block import Outcome
from node.protocol.channel import Bundle
from node.protocol.codes import Code
from node.protocol.transaction import Action, Leg, Transaction
from tests.unit.ledger_driver import COMMITTED, EXPIRED, PREPARED, REJECTED, Ledgers

SHARDS, PER_SHARD = 3, 2
ASSETS = ("USD", "EUR", "XXX")
ISSUER = -1
"""Instead of an account's number: the issuer of the leg's asset."""


class LegPlan(NamedTuple):
    payer: int
    payee: int
    asset: str
    amount: int
    action: Action


class Submit(NamedTuple):
    """Execute and commit a block: transactions of legs, and up to ``takes[source]`` waiting bundles of each source."""

    shard: int
    transactions: list[list[LegPlan]]
    takes: list[int]
    wait: int


class Fork(NamedTuple):
    """Execute two blocks on top of each other, and the first anew: what is executed on a block before and after it is
    committed is the same; the executions that were not committed are void."""

    shard: int
    block: list[LegPlan]
    next: list[LegPlan]


class Restart(NamedTuple):
    """Throw the memory away: last checkpoint's rows, then the blocks after it."""

    shard: int


accounts = st.integers(ISSUER, SHARDS * PER_SHARD - 1)
actions = st.sampled_from([Action.PAY] * 8 + [Action.FREEZE, Action.UNFREEZE, Action.UNFREEZE])
amounts = st.integers(1, 60) | st.sampled_from([400, 2**62, 2**63 - 1])
assets = st.sampled_from(ASSETS[:2] * 6 + ASSETS[2:])
legs = st.lists(st.builds(LegPlan, accounts, accounts, assets, amounts, actions), min_size=1, max_size=4)
submits = st.builds(
    Submit,
    st.integers(0, SHARDS - 1),
    st.lists(legs, max_size=3),
    st.lists(st.sampled_from([0, 1, 9]), min_size=SHARDS, max_size=SHARDS),
    st.sampled_from([0, 0, 1, 40, 700, 1_100]),
)
steps = st.one_of(
    submits, submits, submits, st.builds(Fork, st.integers(0, 2), legs, legs), st.builds(Restart, st.integers(0, 2))
)
histories = st.lists(steps, min_size=5, max_size=30)


class Stored(NamedTuple):
    """A block as storage has it."""

    time: int
    bundles: tuple[Bundle, ...]
    transactions: tuple[Transaction, ...]
    execution: Execution


class History:
    """Three ledgers with a disk each. Every step checks what must hold after any. ``worn``: so much of each asset was once
    minted, sent to and fro between each two shards, and burned, twice."""

    def __init__(self, checkpoint_interval: int, worn: int = 0) -> None:
        self.ledgers = Ledgers(SHARDS, checkpoint_interval)
        self.shard_of = self.ledgers.table.shard_of
        self.accounts = [self.ledgers.account(shard, number) for shard in range(SHARDS) for number in range(PER_SHARD)]
        self.blocks: list[list[Stored]] = [[] for _ in range(SHARDS)]
        self.taken: list[dict[int, int]] = [{} for _ in range(SHARDS)]
        self.homes: dict[bytes, tuple[int, Transaction]] = {}
        for _ in range(2 if worn else 0):
            for asset in ASSETS[:2]:
                self._wear_out(asset, worn)
        for account in self.accounts:
            for asset in ASSETS[:2]:
                issuer = self.ledgers.issuer(asset)
                self._submit(self.shard_of(issuer), [self.ledgers.pay(issuer, account, 200, asset)])
        self.settle()

    def _wear_out(self, asset: str, amount: int) -> None:
        issuer, (a, b, c) = self.ledgers.issuer(asset), self.accounts[::PER_SHARD]
        for payer, payee in pairwise((issuer, a, b, a, c, b, c, a, issuer)):
            self._submit(self.shard_of(payer), [self.ledgers.pay(payer, payee, amount, asset)])
            self.settle()

    def play(self, steps: Sequence[Submit | Fork | Restart]) -> None:
        for step in steps:
            match step:
                case Submit(shard, plans, takes, wait):
                    self.ledgers.now += wait
                    self._submit(shard, [t for plan in plans if (t := self.transaction(shard, plan))], takes)
                case Fork(shard, first, second):
                    self._fork(shard, *([t] if (t := self.transaction(shard, plan)) else [] for plan in (first, second)))
                case Restart(shard):
                    self.restart(shard)
            self.check()

    def transaction(self, shard: int, plan: list[LegPlan]) -> Transaction | None:
        """A signed transaction of the legs that are statically valid, from the first one whose payer ``shard`` can keep on;
        None when there are none."""
        legs: list[Leg] = []
        for leg in plan:
            asset = leg.asset if leg.asset != "XXX" else "USD"
            payer, payee = (self.ledgers.issuer(asset) if n == ISSUER else self.accounts[n] for n in (leg.payer, leg.payee))
            if leg.action is not Action.PAY and leg.amount % 5:
                payer = self.ledgers.issuer(asset)  # else mostly refused: only the issuer may
            if not legs and self.shard_of(payer) != shard and leg.payer != ISSUER:
                payer = self.accounts[shard * PER_SHARD + leg.payer % PER_SHARD]
            if payer != payee and (legs or self.shard_of(payer) == shard):
                legs.append(Leg(payer, payee, leg.asset, leg.amount if leg.action is Action.PAY else 0, leg.action))
        validity = (5_000, 900, 300)[len(plan) % 3]
        return self.ledgers.sign(*legs, valid_until=self.ledgers.now + validity) if legs else None

    def _submit(self, shard: int, transactions: Sequence[Transaction], takes: Sequence[int] = ()) -> None:
        bundles = []
        for source, take in enumerate(takes):
            queue = self.ledgers.channels.get((source, shard))
            while queue and take:
                bundles.append(queue.popleft())
                take -= 1
        for bundle in bundles:  # exactly once, in order
            assert bundle.sequence == self.taken[shard].get(bundle.source, 0) + 1
            self.taken[shard][bundle.source] = bundle.sequence
        execution = self.ledgers.block(shard, *transactions, take=0, bundles=bundles)
        self.homes |= {transaction.id: (shard, transaction) for transaction in transactions}
        self.blocks[shard].append(Stored(self.ledgers.now, tuple(bundles), tuple(transactions), execution))

    def _fork(self, shard: int, transactions: list[Transaction], following: list[Transaction]) -> None:
        before = self._figures(self.ledgers.states[shard])
        parent = self.ledgers.execute(shard, *transactions)
        child = self.ledgers.execute(shard, *following, parent=parent)
        for again in transactions:
            with pytest.raises(InvalidBlock):
                self.ledgers.execute(shard, again, parent=parent)
        assert self._figures(self.ledgers.states[shard]) == before, "executing changes nothing"
        self._submit(shard, transactions)
        after = self.ledgers.execute(shard, *following)
        assert (child.state_root, child.effects, child.outbox) == (after.state_root, after.effects, after.outbox)
        for void in (parent, child):
            with pytest.raises(ValueError, match="does not stand on"):
                self.ledgers.states[shard].commit(void.overlay)

    def restart(self, shard: int) -> None:
        rules, old = self.ledgers.rules[shard], self.ledgers.states[shard]
        disk = self.ledgers.disks[shard]
        state = disk.restored(rules) if disk.whole else State.genesis(rules)
        for stored in self.blocks[shard][state.height :]:
            pairs = [(transaction.id, transaction) for transaction in stored.transactions]
            valid = Transaction.has_valid_signatures
            again = execute(state, rules, state.height + 1, stored.time, stored.bundles, pairs, valid)
            before = stored.execution
            assert (again.state_root, again.effects, again.outbox) == (before.state_root, before.effects, before.outbox)
            state.commit(again.overlay)
        assert self._figures(state) == self._figures(old)
        self.ledgers.states[shard] = state

    def _figures(self, state: State) -> tuple[Any, ...]:
        queues = state.waiting_for, state.prepared_for
        undecided = [{shard: number for shard, number in queue.items() if number} for queue in queues]
        supply = {asset: sums for asset, sums in state.supply.items() if sums != NO_SUPPLY}
        alarms = [alarm for alarm in state.alarms_before(1 << 60) if state.record(alarm[1]) is not None]
        return (
            state.height, state.time, state.state_root, state.totals(), dict(state.balances), dict(state.records),
            undecided, supply, alarms, {home: entries for home, entries in state.uncovered.items() if entries},
            state.checkpoint_root(), state.next_checkpoint,
        )  # fmt: skip

    def check(self) -> None:
        self.ledgers.assert_conserved()
        for state in self.ledgers.states:
            for record in state.records.values():
                assert not isinstance(record, Flow) or min(record.entered, record.left, record.entering, record.leaving) >= 0
        for transaction_id, (home, transaction) in list(self.homes.items())[-6:]:
            code = admit(self.ledgers.states[home], self.ledgers.rules[home], transaction_id, transaction, self.ledgers.now)
            assert code in (Code.DUPLICATE, Code.EXPIRED)
            with pytest.raises(InvalidBlock):
                self.ledgers.execute(home, transaction)

    def settle(self) -> None:
        while any(self.ledgers.channels.values()) or any(state.uncovered for state in self.ledgers.states):
            if not any(self.ledgers.channels.values()):
                self.ledgers.now += FIGURES_PAUSE
            for shard in range(SHARDS):
                self._submit(shard, [], [9] * SHARDS)

    def end(self) -> set[tuple[Outcome, ...]]:
        """Everything is delivered: decided everywhere, the same way, once; no hold is left. The ways transactions went."""
        self.settle()
        self.check()
        self.ledgers.assert_settled()
        ways = set()
        for transaction_id, (home, transaction) in self.homes.items():
            steps = tuple(receipt.outcome for receipt in self.ledgers.receipts[home][transaction_id])
            assert steps in {steps[-1:], (PREPARED, *steps[-1:])} - {(PREPARED,)}
            ways.add(steps)
            touched = {self.shard_of(address) for leg in transaction.order.legs for address in (leg.payer, leg.payee)}
            for shard in set(range(SHARDS)) - {home}:
                there = [receipt.outcome for receipt in self.ledgers.receipts[shard].get(transaction_id, [])]
                commits = steps[-1] is COMMITTED and shard in touched
                assert there in ([[COMMITTED]] if commits else [[], [REJECTED]])
        for state in self.ledgers.states:
            assert all(flow.entering == flow.leaving == 0 for flow in state.records.values() if isinstance(flow, Flow))
        return ways


@pytest.mark.long
def test_any_history_conserves_money_and_ends_without_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAY_PART", 3)
    ways: set[tuple[Outcome, ...]] = set()

    @settings(max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 5), histories)
    def check(checkpoint_interval: int, steps: list[Submit | Fork | Restart]) -> None:
        history = History(checkpoint_interval)
        history.play(steps)
        ways.update(history.end())
        for shard in range(SHARDS):
            history.restart(shard)

    check()
    final = {(outcome,) for outcome in (COMMITTED, REJECTED)}
    assert ways >= final | {(PREPARED, outcome) for outcome in (COMMITTED, REJECTED, EXPIRED)}, "else the histories are too tame"


@pytest.mark.long
def test_any_history_conserves_money_while_the_tallies_begin_again() -> None:
    """Two round trips of almost 2^63 - 1 leave each tally some hundred units below 2^64."""

    @settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(2**63 - 200, 2**63 - 2), histories)
    def check(worn: int, steps: list[Submit | Fork | Restart]) -> None:
        history = History(5, worn)
        history.play(steps)
        history.end()
        for shard in range(SHARDS):
            history.restart(shard)
        assert any(total.minted < 2**62 for state in history.ledgers.states for total in state.totals().assets)

    check()
