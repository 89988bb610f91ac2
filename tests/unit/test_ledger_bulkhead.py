"""The bulkhead: what a captured shard can make up in others, and that honest money always gets through."""

import pytest

from node.ledger import bulkhead, two_phase_commit
from node.ledger.rows import TOLD_KEY, Prepared, Stage
from node.ledger.rules import FIGURES_PAUSE
from node.ledger.transfer import incoming, routed
from node.protocol.channel import Decision, Figure, Figures, Prepare, PrepareVote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Leg, Transaction
from tests.unit.ledger_driver import COMMITTED, EXPIRED, PREPARED, REJECTED, Ledgers

TIMEOUT = 1_000
OK = Code.OK


def ledgers(shards: int) -> Ledgers:
    """Account 0 in each shard has 100 USD, issued in shard 0; all figures are told."""
    made = Ledgers(shards)
    for shard in range(shards):
        made.fund(made.account(shard), 100)
    tell(made)
    return made


@pytest.fixture
def two() -> Ledgers:
    return ledgers(2)


@pytest.fixture
def three() -> Ledgers:
    return ledgers(3)


def tell(network: Ledgers) -> None:
    """Let all figures arrive."""
    network.now += FIGURES_PAUSE
    for shard in network.shards:
        network.block(shard)
    network.settle()


def prepare(network: Ledgers, transaction: Transaction) -> Prepare:
    return Prepare(encode(transaction), network.now + TIMEOUT)


def vote(transaction: Transaction, code: Code = OK) -> PrepareVote:
    return PrepareVote(transaction.id, code)


def export(network: Ledgers, source: int, destination: int, amount: int) -> Transaction:
    """A captured shard claims to pay that much to account 1 of the destination, and says "commit" whatever the answer."""
    made_up = network.pay(network.account(source, 5), network.account(destination, 1), amount)
    network.inject(source, destination, prepare(network, made_up), Decision(made_up.id, True))
    return made_up


def give(network: Ledgers, captured: int, amount: int) -> None:
    """The issuer pays an account of the captured shard, which answers as it should."""
    network.block(0, payment := network.pay(network.issuer("USD"), network.account(captured), amount))
    network.inject(captured, 0, vote(payment))
    assert network.outcome(0, payment) == (COMMITTED, OK)


def lie(network: Ledgers, captured: int, units: int) -> None:
    """It tells all others that it passed so many units to each."""
    others = set(network.shards) - {captured}
    for shard in others:
        network.inject(captured, shard, Figures(tuple(Figure(other, "USD", units) for other in sorted(others - {shard}))))


def tell_honest(network: Ledgers, captured: int) -> None:
    """The figures of all others arrive."""
    network.now += FIGURES_PAUSE
    for _ in range(2):
        for shard in set(network.shards) - {captured}:
            network.block(shard)


def room(network: Ledgers, here: int, source: int) -> int:
    return bulkhead.room(network.execute(here).overlay, network.rules[here], source, b"USD")


def credited(network: Ledgers, shard: int) -> int:
    return network.balance(network.account(shard, 1))[0]


# -- two shards: exact ----------------------------------------------------------------------------------------------------


def test_a_captured_home_passes_on_what_it_was_passed_and_not_a_unit_more(two: Ledgers) -> None:
    for amount in (10**12, 101, 100, 1):
        export(two, 1, 0, amount)
    assert credited(two, 0) == 100
    give(two, 1, 7)
    for amount in (8, 7, 1):
        export(two, 1, 0, amount)
    assert credited(two, 0) == 107


def test_what_is_prepared_together_is_covered_once(two: Ledgers) -> None:
    """Each would be covered alone."""
    made_up = [two.pay(two.account(1, 5), two.account(0, 1), 60) for _ in range(3)]
    assert two.inject(1, 0, *(prepare(two, t) for t in made_up)) == tuple(map(vote, made_up))
    two.inject(1, 0, *(Decision(t.id, True) for t in made_up))
    assert (credited(two, 0), [two.outcomes(0, t) for t in made_up]) == (60, [[(COMMITTED, OK)], [], []])
    two.inject(1, 0, *(Decision(t.id, False) for t in made_up))
    assert [two.outcomes(0, t) for t in made_up] == [[(COMMITTED, OK)], [], []], "what is owed is not taken back either"
    give(two, 1, 20)
    assert [two.outcomes(0, t) for t in made_up] == [[(COMMITTED, OK)], [(COMMITTED, OK)], []]
    assert credited(two, 0) == 120


def test_a_captured_participant_is_believed_what_it_can_have(two: Ledgers) -> None:
    a, b = two.account(0, 1), two.account(1, 5)
    two.fund(a, 1)
    yes, no = (two.sign(Leg(a, two.account(1), "USD", 1), Leg(b, a, "USD", amount)) for amount in (40, 62))
    two.block(0, yes)
    two.block(0, no)
    two.inject(1, 0, vote(yes), vote(no))
    assert (two.outcomes(0, yes), two.balance(a)) == ([(PREPARED, OK), (COMMITTED, OK)], (40, 0))
    assert two.outcomes(0, no) == [(REJECTED, Code.INSUFFICIENT_FUNDS)]


def test_a_home_waits_for_what_is_not_covered_and_expires_it(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1, 5)
    first, second = (two.sign(Leg(a, two.account(1), "USD", 1), Leg(b, a, "USD", amount)) for amount in (102, 100))
    two.block(0, first, second)
    two.inject(1, 0, vote(first), vote(second))
    assert [two.outcomes(0, t) for t in (first, second)] == [[(PREPARED, OK)], [(PREPARED, OK), (COMMITTED, OK)]]
    two.now += TIMEOUT + 1
    two.block(0)
    assert two.outcome(0, first) == (EXPIRED, Code.EXPIRED)
    assert two.balance(a) == (199, 0)
    assert not any(two.states[0].uncovered.values())


def test_a_home_goes_on_once_it_is_covered(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1, 5)
    short = two.sign(Leg(a, two.account(1), "USD", 1), Leg(b, a, "USD", 105))
    two.block(0, short, more := two.pay(a, two.account(1), 5))
    two.inject(1, 0, vote(short))
    assert two.outcomes(0, short) == [(PREPARED, OK)]
    two.inject(1, 0, vote(more))
    assert two.outcome(0, short) == (COMMITTED, OK)


def test_the_shard_of_the_issuer_passes_on_anything_up_to_what_can_be_held(two: Ledgers) -> None:
    """It may have minted it."""
    for _ in range(2):
        export(two, 0, 1, MAX_AMOUNT - 1000)
    assert credited(two, 1) == MAX_AMOUNT - 1000
    assert two.states[1].totals().pending == 1, "the second would not fit"


# -- three and more: by the figures of others ---------------------------------------------------------------------------------


def test_within_the_age_of_the_figures_a_captured_shard_passes_on_to_each_other_what_it_has_and_never_again() -> None:
    """With n shards that is n - 1 times what it has; what it gets later makes up for what it made up."""
    four = ledgers(4)
    for shard in (0, 2, 3):
        for amount in (101, 100):
            export(four, 1, shard, amount)
    assert [credited(four, shard) for shard in (0, 2, 3)] == [100, 100, 100]
    tell_honest(four, 1)
    assert [room(four, shard, 1) for shard in (0, 2, 3)] == [-200] * 3
    give(four, 1, 203)
    lie(four, 1, -(10**12))
    tell_honest(four, 1)
    for shard in (0, 2, 3):
        for amount in (4, 3):
            export(four, 1, shard, amount)
        tell_honest(four, 1)
    assert [credited(four, shard) for shard in (0, 2, 3)] == [103, 100, 100]


@pytest.mark.parametrize("units", [10**12, -(10**12)])
def test_what_a_shard_says_of_itself_counts_for_nothing(three: Ledgers, units: int) -> None:
    lie(three, 1, units)
    assert [room(three, here, 1) for here in (0, 2)] == [100, 100]


def fresh(network: Ledgers) -> tuple[bytes, bytes]:
    """Shard 1's account has 50 USD more, from shard 2; shard 0 has not heard of it."""
    b, c = network.account(1), network.account(2)
    network.block(2, network.pay(c, b, 50))
    for shard in (1, 2, 1):
        network.block(shard)
    assert network.balance(b) == (150, 0)
    return b, network.account(0, 1)


def stages(network: Ledgers, shard: int) -> list[Stage]:
    return [row.stage for row in network.states[shard].records.values() if isinstance(row, Prepared)]


def test_honest_money_that_is_faster_than_the_figures_waits_for_them(three: Ledgers) -> None:
    b, a = fresh(three)
    three.block(1, payment := three.pay(b, a, 120), fits := three.pay(b, a, 30))
    three.block(0, bundles=[three.channels[1, 0].popleft(), *three.channels[1, 0]], take=0)
    three.channels[1, 0].clear()
    assert three.sent(0, 1) == [vote(fits)], "what is covered does not wait for what is not"
    assert stages(three, 0) == [Stage.ASKED, Stage.VOTED] or stages(three, 0) == [Stage.VOTED, Stage.ASKED]
    begun = three.now
    three.settle()
    assert three.now - begun <= 2 * FIGURES_PAUSE
    assert [three.outcomes(0, t) for t in (payment, fits)] == [[(COMMITTED, OK)]] * 2
    assert three.balance(a) == (150, 0)
    three.assert_settled()


def test_what_is_not_covered_by_its_deadline_is_refused_as_expired(three: Ledgers) -> None:
    b, a = fresh(three)
    three.block(1, payment := three.sign(Leg(b, a, "USD", 120), Leg(three.account(0), b, "USD", 1)))
    three.channels[2, 0].clear()  # shard 2 has stopped: its figures do not come
    three.block(0)
    assert three.balance(three.account(0)) == (99, 1)
    three.now += TIMEOUT
    three.block(0)
    assert three.sent(0, 1) == []
    three.now += 1
    three.block(0)
    assert [record for record in three.sent(0, 1) if isinstance(record, PrepareVote)] == [vote(payment, Code.EXPIRED)]
    assert (three.balance(three.account(0)), three.states[0].totals().pending) == ((100, 0), 0)
    assert not any(three.states[0].uncovered.values())


@pytest.mark.parametrize("commit", [True, False])
def test_a_decision_before_the_vote(three: Ledgers, commit: bool) -> None:
    """An abort is obeyed; a commit, which no honest home sends then, is not."""
    b, a = fresh(three)
    three.channels[1, 0].clear()
    early = three.pay(b, a, 120)
    answers = [r for r in three.inject(1, 0, prepare(three, early), Decision(early.id, commit)) if isinstance(r, PrepareVote)]
    assert (answers, three.balance(a)) == ([], (0, 0))
    assert three.outcomes(0, early) == ([] if commit else [(REJECTED, OK)])
    assert stages(three, 0) == [Stage.ASKED] * commit


def test_so_many_wait_to_be_covered_and_no_more(three: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_phase_commit, "MAX_UNCOVERED", 2)
    made_up = [three.pay(three.account(1, 5), three.account(0, 1), 101) for _ in range(3)]
    fits = three.pay(three.account(1, 5), three.account(0, 1), 100)
    answers = three.inject(1, 0, *(prepare(three, t) for t in (*made_up, fits)))
    assert answers == (vote(made_up[2], Code.LIMIT_EXCEEDED), vote(fits))


def test_what_others_pay_over_a_home_that_has_nothing_arrives_after_its_decision() -> None:
    """In a circle: each of the others pays over the home what it is itself to be paid over it."""
    three = Ledgers(3)
    a, b, c = (three.account(shard) for shard in range(3))
    three.fund(b, 50)
    three.fund(c, 50)
    three.fund(a, 1, "EUR")
    tell(three)
    circle = three.sign(Leg(a, b, "EUR", 1), Leg(b, c, "USD", 50), Leg(c, b, "USD", 30))
    three.block(0, circle)
    three.settle()
    assert [three.outcome(shard, circle) for shard in range(3)] == [(COMMITTED, OK)] * 3
    assert [three.balance(x)[0] for x in (a, b, c)] == [0, 30, 70]
    three.assert_settled()


def test_a_home_that_lets_one_commit_and_another_abort_pays_for_it(three: Ledgers) -> None:
    """Shard 1, captured, has shard 0 pay to shard 2 over itself: what shard 2 takes in is its own, not shard 0's."""
    thief, accomplice = three.account(2, 1), three.account(0)
    for _ in range(3):
        theft = three.sign(Leg(three.account(1), thief, "USD", 1), Leg(accomplice, thief, "USD", 60))
        for shard, commit in ((0, False), (2, True)):
            three.inject(1, shard, prepare(three, theft), Decision(theft.id, commit))
    assert three.balance(accomplice) == (100, 0)
    assert three.balance(thief) == (61, 0), "of 100 that shard 1 had"
    assert room(three, 2, 1) == 39
    three.block(0, honest := three.pay(accomplice, thief, 100))
    for shard in (2, 0, 2):
        three.block(shard)
    assert three.outcome(2, honest) == (COMMITTED, OK)


# -- telling ----------------------------------------------------------------------------------------------------------------


def told(network: Ledgers, source: int, destination: int) -> list[Figure]:
    return [f for record in network.sent(source, destination) if isinstance(record, Figures) for f in record.figures]


def test_figures_tell_each_what_changed_between_the_others(three: Ledgers) -> None:
    before = three.states[1].record(TOLD_KEY)
    three.now += FIGURES_PAUSE
    three.block(1)
    assert not any(three.sent(1, shard) for shard in (0, 2)), "nothing changed"
    assert three.states[1].record(TOLD_KEY) == before
    three.block(1, payment := three.pay(three.account(1), three.account(2), 30))
    three.block(2)
    three.block(1)
    assert (told(three, 1, 0), told(three, 1, 2)) == ([Figure(2, "USD", 30)], [])
    assert three.outcome(1, payment) == (COMMITTED, OK)
    three.settle()


def test_figures_are_told_after_a_pause(three: Ledgers) -> None:
    three.now += 10 * FIGURES_PAUSE
    for amount in (10, 20):
        three.block(1, three.pay(three.account(1), three.account(2), amount))
        three.block(2)
        three.block(1)
    assert told(three, 1, 0) == [Figure(2, "USD", 10)]
    three.now += FIGURES_PAUSE - 1
    three.block(1)
    assert told(three, 1, 0) == [Figure(2, "USD", 10)]
    three.now += 1
    three.block(1)
    assert told(three, 1, 0) == [Figure(2, "USD", 10), Figure(2, "USD", 30)]


def test_what_is_even_again_is_told(three: Ledgers) -> None:
    three.block(2, three.pay(three.account(2), three.account(1), 30))
    three.settle()
    tell(three)
    assert room(three, 0, 1) == 130
    three.block(1, three.pay(three.account(1), three.account(2), 30))
    three.settle()
    tell(three)
    assert room(three, 0, 1) == 100


def test_two_shards_tell_nothing(two: Ledgers) -> None:
    assert all(two.states[shard].record(TOLD_KEY) is None for shard in two.shards)


@pytest.mark.parametrize("figure", [Figure(1, "USD", 5), Figure(0, "USD", 5), Figure(9, "USD", 5), Figure(2, "XYZ", 5)])
def test_figures_about_the_teller_the_receiver_and_what_is_not_there_are_ignored(three: Ledgers, figure: Figure) -> None:
    before = dict(three.states[0].records)
    three.inject(1, 0, Figures((figure,)))
    assert {key[-1:] for key, row in three.states[0].records.items() if before.get(key) != row} == {b"c"}


def test_money_that_goes_round_in_a_ring_for_ever_neither_opens_nor_closes_the_bulkhead() -> None:
    """Each figure for itself grows without end and begins again at its own time; their sum is exact."""
    network = Ledgers(4)
    ring = [network.account(shard) for shard in (1, 2, 3)]
    network.fund(ring[0], unit := 10**18)
    for _ in range(20):  # 2 * 10^19 over each boundary
        for payer, payee in zip(ring, ring[1:] + ring[:1], strict=True):
            home = network.table.shard_of(payer)
            network.block(home, payment := network.pay(payer, payee, unit))
            network.settle()
            tell(network)
            assert network.outcome(home, payment) == (COMMITTED, OK)
            rooms = [
                bulkhead.room(network.states[s], network.rules[s], q, b"USD") for s in (1, 2, 3) for q in (1, 2, 3) if s != q
            ]
            assert sorted(rooms) == [0, 0, 0, 0, unit, unit]
    network.assert_settled()


def test_what_moves_no_money_waits_for_no_figures(three: Ledgers) -> None:
    frozen = three.freeze(three.account(1), "EUR")
    assert incoming(three.rules[1], routed(three.rules[1], frozen.order.legs), home=2) == {}
    paid = three.pay(three.account(2), three.account(1), 5, "EUR")
    assert list(incoming(three.rules[1], routed(three.rules[1], paid.order.legs), home=2).values()) == [[5, 0]]


def test_what_several_shards_bring_at_once_fits_together_or_is_not_taken(three: Ledgers) -> None:
    """The captured shard of the issuer can have any amount; with what an honest one brings it would be more than can be."""
    home, payee = three.account(1), three.account(1, 1)
    most = MAX_AMOUNT - 100
    legs = [Leg(three.account(0), payee, "USD", most), Leg(three.account(2), payee, "USD", 1)]
    joint = three.sign(Leg(home, three.account(2), "USD", 1), *legs)
    three.block(1, joint)
    three.block(2)
    three.block(1)
    three.channels[1, 0].clear()
    three.inject(0, 1, vote(joint))
    assert three.outcome(1, joint) == (PREPARED, OK), "voted for by all, and not taken in"
    assert sum(three.balance(payee)) == 0
    three.now += TIMEOUT + 1
    three.block(1)
    assert three.outcome(1, joint) == (EXPIRED, Code.EXPIRED)
    three.assert_conserved()


def test_what_several_shards_bring_to_be_burned_was_issued(three: Ledgers) -> None:
    """Two captured ones say of each other that they have more than there is."""
    issuer = three.issuer("USD")
    three.inject(1, 0, Figures((Figure(2, "USD", 1_000),)))
    three.inject(2, 0, Figures((Figure(1, "USD", 1_000),)))
    payers = [three.account(shard) for shard in three.shards]
    joint = three.sign(*(Leg(payer, issuer, "USD", amount) for payer, amount in zip(payers, (100, 150, 150), strict=True)))
    three.block(0, joint)
    for source in (1, 2):
        three.channels[0, source].clear()
        three.inject(source, 0, vote(joint))
    assert three.outcome(0, joint) == (PREPARED, OK), "300 were issued"
