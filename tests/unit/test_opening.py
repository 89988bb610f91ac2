"""How the chains of a later epoch begin: with all that their origins' closing blocks left, and nothing else."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from node.ledger.admission import admit
from node.ledger.opening import Origin, included, open_state, opening_header
from node.ledger.rows import ANSWERED, ISSUER, REPLAYED, Replayed, carried_key, flow_key
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.block import Balance
from node.protocol.certificate import Certificate, Finality, VoteKind
from node.protocol.change import Bulletin, Change, RegisterPhase
from node.protocol.codes import Code
from node.protocol.credits import next_credits
from node.protocol.crypto import digest
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Action, Transaction
from tests.eras import ACCOUNTS, ISSUED_BY, ISSUERS, WINDOW, Era, succession
from tests.histories import Step, first, histories
from tests.unit.changing import Changing
from tests.unit.ledger_driver import ASSETS

ONE, TWO, FOUR = first(1, 1, 1), first(2, 1, 2), first(4, 1, 4)
LOW, QUARTER, HALF = bytes(20), b"\x40" + bytes(19), b"\x80" + bytes(19)
SPLIT = succession(ONE, {0: (LOW, (0,)), 1: (HALF, (0,))})
MERGED = succession(TWO, {0: (LOW, (0, 1))})
KEPT = succession(TWO, {0: (LOW, (0,)), 1: (HALF, (1,))})
LOWER = [account for account in ACCOUNTS if account < HALF]
UPPER = [account for account in ACCOUNTS if account >= HALF]


def random_payments(era: Era, random: Random) -> list[Transaction]:
    """Carried out, whatever comes of them."""
    made = []
    for _ in range(random.randrange(8)):
        asset = random.choice(sorted(ISSUERS))
        payer, payee = random.choice([*ACCOUNTS, ISSUED_BY[asset]]), random.choice([*ACCOUNTS, ISSUED_BY[asset]])
        action = random.choice([Action.PAY] * 6 + [Action.FREEZE, Action.UNFREEZE])
        transaction = era.pay(
            *((ISSUED_BY[asset], payee, 0) if action is not Action.PAY else (payer, payee, random.randrange(1, 99))),
            asset,
            action,
        )
        home = era.shard_of(transaction.order.legs[0].payer)
        if transaction.order.legs[0].payer != transaction.order.legs[0].payee and is_admitted(era, home, transaction):
            era.do(transaction)
            made.append(transaction)
        era.now += random.randrange(400)
    return made


def is_admitted(era: Era, shard: int, transaction: Transaction) -> bool:
    return admit(era.states[shard], era.rules[shard], transaction.id, transaction, era.now) is Code.OK


@settings(max_examples=25, deadline=None)
@given(histories(), st.integers(0, 2**32))
def test_over_any_history_accounts_keep_what_they_have_and_nothing_is_paid_twice(
    history: tuple[int, list[Step]], seed: int
) -> None:
    """And what the others say of a shard is what it has; a disk gives back what was opened."""
    random, era, made = Random(seed), Era(history[1][0].previous), list[Transaction]()
    for step in history[1]:
        era.do(*(era.pay(ISSUED_BY[asset], account, 100, asset) for asset in ISSUERS for account in random.sample(ACCOUNTS, 2)))
        made += random_payments(era, random)
        before, era = era, era.next(step.document)
        assert era.balances() == before.balances()
        for asset in ISSUERS:
            totals = [total for state in era.states.values() for total in state.totals().assets if total.asset == asset]
            assert sum(total.available + total.held for total in totals) == sum(total.issued for total in totals)
            for shard in era.states:
                if shard != era.shard_of(ISSUED_BY[asset]):
                    assert era.credit.get((shard, asset), 0) == era.available(shard, asset)
        for transaction in made:
            for shard, state in era.states.items():
                if state.time <= transaction.order.valid_until and is_home(era, shard, transaction):
                    assert admit(state, era.rules[shard], transaction.id, transaction, state.time) is Code.DUPLICATE
        for shard, state in era.states.items():
            restored = era.restored(shard)
            assert (restored.checkpoint_root(), restored.totals()) == (state.checkpoint_root(), state.totals())
            assert all(set(restored.replay_set[slot]) == set(ids) for slot, ids in state.replay_set.items())


def is_home(era: Era, shard: int, transaction: Transaction) -> bool:
    return era.shard_of(transaction.order.legs[0].payer) == shard


@pytest.mark.parametrize("documents", [(TWO, KEPT), (TWO, MERGED), (ONE, SPLIT)], ids=["kept", "merged", "split"])
def test_all_that_an_account_has_can_be_paid_to_any_other_in_the_next_epoch(
    documents: tuple[EpochDocument, EpochDocument],
) -> None:
    era = Era(documents[0])
    era.do(era.pay(ISSUED_BY["USD"], LOWER[0], 70), era.pay(ISSUED_BY["USD"], UPPER[0], 30))
    era = era.next(documents[1])
    era.do(era.pay(LOWER[0], UPPER[0], 70))
    era.do(era.pay(UPPER[0], LOWER[1], 100))
    assert era.balance(LOWER[1]).available == 100
    assert {asset for _, asset in era.balances()} == {"USD"}


@pytest.mark.parametrize("documents", [(TWO, MERGED), (ONE, SPLIT)], ids=["merged", "split"])
def test_what_was_included_is_a_duplicate_until_it_expires_and_then_its_rows_are_gone(
    documents: tuple[EpochDocument, EpochDocument],
) -> None:
    era = Era(documents[0])
    era.do(era.pay(ISSUED_BY["USD"], LOWER[0], 70), era.pay(ISSUED_BY["USD"], UPPER[0], 30))
    made = [era.pay(LOWER[0], LOWER[1], 1), era.pay(UPPER[0], UPPER[1], 1)]
    era.do(*made)
    era = era.next(documents[1])
    later = era.pay(LOWER[0], LOWER[1], 1)  # in the slot of others, of the epoch before
    era.do(later)
    for shard, state in era.states.items():
        assert all(state.has_seen(one.id, one.order.valid_until) for one in made)
        assert state.has_seen(later.id, later.order.valid_until) == is_home(era, shard, later)
    era.now += WINDOW
    for shard, state in era.states.items():
        era.block(shard)
        assert not any(key.endswith(REPLAYED) for key in state.records)
        assert not any(state.has_seen(one.id, one.order.valid_until) for one in made)


def test_what_could_not_be_included_any_more_is_left_behind() -> None:
    era = Era(ONE)
    payment = era.pay(ISSUED_BY["USD"], LOWER[0], 70)
    era.do(payment)
    era.now = payment.order.valid_until + 2_000
    assert list(included([era.states[0]], era.rules[0], payment.order.valid_until))
    assert not list(included([era.states[0]], era.rules[0], era.now))


def test_answered_prepares_are_remembered_in_all_shards_that_come_from_who_answered() -> None:
    era = Era(TWO)
    one, other = digest("one") + ANSWERED, digest("other") + ANSWERED
    for shard, row, after in ((0, one, 5_000), (1, one, 3_000), (0, other, 3_000), (1, other, 9_000)):
        era.states[shard].records[row] = era.now + after
    state = merged(era)
    assert (state.record(one), state.record(other)) == (era.now + 5_000, era.now + 9_000)
    assert (era.now + 5_000, one) in state.alarms_before(era.now + 6_000)


def test_what_two_origins_both_know_is_there_once() -> None:
    era = Era(ONE)
    payment = era.pay(ISSUED_BY["USD"], LOWER[0], 70)
    era.do(payment)
    era = era.next(SPLIT).next(succession(SPLIT, {0: (LOW, (0, 1))}))
    rows = [record for record in era.states[0].records.values() if isinstance(record, Replayed)]
    assert [row.count for row in rows] == [1]


def test_an_opening_is_of_the_later_of_its_origins_times() -> None:
    era = Era(TWO)
    era.now += 500
    era.block(0)
    assert era.states[1].time < era.states[0].time == era.now
    following = era.next(MERGED)
    assert following.states[0].time == following.openings[0].time == era.now
    assert following.openings[0].document == MERGED.hash


def test_what_was_issued_goes_with_the_issuers_account() -> None:
    era = Era(ONE)
    era.do(era.pay(ISSUED_BY["USD"], LOWER[0], 70), era.pay(ISSUED_BY["USD"], UPPER[0], 30))
    era.do(era.pay(UPPER[0], ISSUED_BY["USD"], 10))
    era = era.next(SPLIT)
    home = era.shard_of(ISSUED_BY["USD"])
    (issued,), (other,) = era.states[home].totals().assets, era.states[1 - home].totals().assets
    assert (issued.minted, issued.burned, issued.issued) == (100, 10, 90)
    assert (other.minted, other.burned) == (0, 0)
    assert other.carried == other.available
    assert (issued.carried + 90 - issued.available) % 2**64 == 0
    assert era.states[1 - home].record(flow_key(ISSUER, b"USD")) is None
    era.do(era.pay(UPPER[0], ISSUED_BY["USD"], 20))
    assert era.states[home].totals().assets[0].issued == 70


def test_what_was_carried_stays_when_all_else_of_the_asset_is_gone() -> None:
    era = Era(TWO)
    near, far = (LOWER, UPPER) if ISSUED_BY["USD"] < HALF else (UPPER, LOWER)
    era.do(era.pay(ISSUED_BY["USD"], far[0], 30))
    era = era.next(KEPT)
    era.do(era.pay(far[0], near[0], 30))
    shard = era.shard_of(far[0])
    assert era.states[shard].totals().assets[0].carried == era.states[shard].record(carried_key(b"USD")) == 30
    assert era.available(shard) == 0


# -- what captured committees leave behind ---------------------------------------------------------------------------------


def merged(era: Era) -> State:
    return era.next(MERGED).states[0]


def test_of_an_origin_only_accounts_in_its_range_count() -> None:
    era = Era(TWO)
    era.states[1].balances[UPPER[0] + b"USD"] = Balance(50)
    era.states[0].balances[UPPER[0] + b"USD"] = Balance(1)
    era.states[1].balances[LOWER[0] + b"USD"] = Balance(2)
    assert dict(merged(era).balances.items()) == {UPPER[0] + b"USD": Balance(50)}


def test_what_is_held_is_available_again() -> None:
    era = Era(TWO)
    era.states[1].balances[UPPER[0] + b"USD"] = Balance(5, 7, frozen=True)
    assert merged(era).balance(UPPER[0] + b"USD") == Balance(12, 0, frozen=True)


def test_of_more_than_there_can_be_the_highest_accounts_lose_what_is_too_much() -> None:
    """A captured issuer's shard gave each of two shards as much as one can have."""
    era = Era(TWO)
    first_, second, third = sorted(UPPER)[:3]
    era.states[0].balances[LOWER[0] + b"USD"] = Balance(MAX_AMOUNT - 10)
    era.states[0].balances[LOWER[1] + b"EUR"] = Balance(5)
    era.states[1].balances[first_ + b"USD"] = Balance(8)
    era.states[1].balances[second + b"USD"] = Balance(20)
    era.states[1].balances[third + b"USD"] = Balance(3, 0, frozen=True)
    state = merged(era)
    assert [state.balance(one + b"USD") for one in (LOWER[0], first_, second, third)] == [
        Balance(MAX_AMOUNT - 10),
        Balance(8),
        Balance(2),
        Balance(0, 0, frozen=True),
    ]
    assert state.balance(LOWER[1] + b"EUR") == Balance(5)
    assert [total.available for total in state.totals().assets] == [5, MAX_AMOUNT]


def test_a_shard_is_opened_from_its_origins_in_their_order_alone() -> None:
    era = Era(TWO)
    closings = [bulletin.header for bulletin in era.closings(MERGED)]
    origins = [Origin(era.states[shard], closings[shard]) for shard in (0, 1)]
    rules = era.next(MERGED).rules[0]
    state = open_state(rules, MERGED, origins, {})
    assert opening_header(MERGED, 0, state, closings).parent == digest("opening", MERGED.hash, *(h.hash for h in closings))
    assert state.state_root == digest("opening state", MERGED.hash, *(h.hash for h in closings))
    for others in (origins[:1], origins[::-1]):
        with pytest.raises(ValueError, match="comes from"):
            open_state(rules, MERGED, others, {})


def test_the_first_checkpoint_of_a_later_epoch_comes_at_once() -> None:
    """So that who lacks the state can be handed it."""
    era = Era(TWO)
    era.do(era.pay(ISSUED_BY["USD"], LOWER[0], 70))
    era = era.next(KEPT)
    certified = []
    for height in range(1, era.rules[0].first_certified + 1):
        era.block(0)
        outline = era.states[0].certified
        certified.append((outline.height, outline.certified_at) if outline is not None else None)
        assert era.states[0].height == height
    assert certified == [None] * 16 + [(1, 17)]


# -- after whole changes ---------------------------------------------------------------------------------------------------


def closed(shards: int, more: int, gone: int) -> tuple[Changing, list[Transaction]]:
    """With payments from each shard to the next that were under way when nodes began to settle. ``more``, ``gone``: nodes that
    come and go."""
    at = Changing(shards, more)
    for shard in at.shards:
        for number in (0, 1):
            at.fund(at.account(shard, number), 100)
    leaving = at.nodes[: gone // 2] + at.nodes[len(at.nodes) - gone // 2 :]
    at.write(*map(at.farewell, leaving))
    at.nodes = [node for node in at.nodes if node not in leaving]
    at.enter(RegisterPhase.HANDOFF)
    paid = [at.pay(at.account(shard), at.account((shard + 1) % shards, 1), 30) for shard in at.shards]
    for shard in at.shards:
        at.block(shard, paid[shard])
    at.enter(RegisterPhase.CLOSED)
    return at, paid


def closings_of(at: Changing) -> list[Bulletin]:
    unsigned = Finality((), Certificate(VoteKind.FINALIZE, 0, bytes(32), (), ()))
    return [
        Bulletin(1, structs.replace(at.disks[shard].headers[at.change(shard).closed], shard=shard), unsigned, at.change(shard))
        for shard in at.shards
    ]


@pytest.mark.parametrize(("shards", "more", "gone"), [(2, 0, 0), (1, 4, 0), (2, 0, 4), (3, 4, 0), (4, 0, 8)])
def test_what_shards_closed_with_opens_with_payments_under_way_until_they_settled(shards: int, more: int, gone: int) -> None:
    at, paid = closed(shards, more, gone)
    document, closings, issuers = at.prospect, closings_of(at), {asset: at.issuer(asset) for asset in ASSETS}
    assert len(document.committees) == (shards * 4 + more - gone) // 4
    credit = next_credits({}, at.document, document, closings, issuers)
    balances: dict[bytes, Balance] = {}
    for shard in document.shards.shards:
        rules = Rules(at.genesis, at.rules[0].network, shard, document.shards, document, at.now)
        origins = document.origins_of(shard)
        state = open_state(rules, document, [Origin(at.states[origin], closings[origin].header) for origin in origins], credit)
        assert state.change == Change()
        assert all(state.has_seen(paid[origin].id, paid[origin].order.valid_until) for origin in origins)
        available = {total.asset: total.available for total in state.totals().assets}
        assert all(credit.get((shard, asset), 0) == available.get(asset, 0) for asset in ASSETS)
        balances |= dict(state.balances.items())
    assert balances == {
        at.account(shard, number) + b"USD": Balance(130 if number else 70) for shard in at.shards for number in (0, 1)
    }
