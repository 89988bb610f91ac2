"""The two-phase commit between shards: both state machines of one shard.

A transaction's home shard (its first payer's) decides; every other shard it touches is a participant. Each step is taken in
some shard's block, each message travels in a channel bundle: in order, exactly once. So neither side times out on the other
except by the home chain's block time.

    HOME                 on                                       then       it does
    -                    transaction, holds taken                 WAITING    Prepare to all participants; receipt PREPARED
    -                    transaction, cannot                      -          receipt REJECTED, reason
    WAITING              vote yes, others still missing           WAITING
    WAITING              vote yes, the last one, or later: and    -          apply; Decision commit to all; receipt COMMITTED
                         what it takes in is covered
    WAITING              vote no                                  -          release; Decision abort to all but the one that
                                                                             refused; receipt REJECTED, its reason
                                                                             (EXPIRED when that is the reason)
    WAITING              block time past the deadline             -          release; Decision abort to all; receipt EXPIRED
    WAITING              vote of no participant, or a second one  WAITING    (nothing)
    -                    vote                                     -          (nothing)

    PARTICIPANT          on                                       then       it does
    -                    Prepare, holds taken; what the home's    VOTED      vote yes
                         own payers send is covered
    -                    Prepare, holds taken; it is not          ASKED
    -                    Prepare, cannot                          -          vote no, reason
    ASKED                now it is covered                        VOTED      vote yes
    ASKED                block time past the deadline             -          release; vote no, expired
    any                  Prepare again, or once its signatures    the same   vote no, duplicate
                         were checked
    -                    Prepare, but this shard is settled       -          vote no, expired
                         (``settlement``)
    VOTED                Decision commit; all that it takes in    -          apply; receipt COMMITTED
                         is covered
    VOTED                Decision commit; it is not               OWED       make its own payments
    OWED                 now it is covered                        -          take it in; receipt COMMITTED
    ASKED, VOTED         Decision abort                           -          release; receipt REJECTED (the reason is in the
                                                                             home shard's)
    any                  another Decision, or another home's      the same   (nothing)

Covered is what its sender can have by all figures: see ``bulkhead``. Of an honest home only what is younger than the figures on
their way is not; so neither ASKED nor OWED last.

What a captured committee can send but an honest one never does is answered with a vote no, or ignored, and changes nothing. A
participant believes the home about the home's own payers alone. It checks every other signature that gives it something to do,
and remembers what it relied on for as long as a Prepare could be in time, so that a signature is good for one payment.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from node.ledger import bulkhead
from node.ledger.channels import Outbox
from node.ledger.reader import queue_of
from node.ledger.rows import ANSWERED, PREPARED, WAITING, Prepared, Stage, Waiting
from node.ledger.rules import MAX_UNCOVERED, MAX_WAITING, MAX_WOKEN, Rules
from node.ledger.settlement import Settlement
from node.ledger.state import Overlay
from node.ledger.transfer import Route, apply, legs_here, release, reserve, routed, shards_of
from node.protocol.block import Outcome, Receipt
from node.protocol.channel import Decision, Figures, Prepare, PrepareVote, Record
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_TRANSACTION_BYTES
from node.protocol.transaction import Action, Leg, Transaction, decode_transaction


def relied_on(rules: Rules, home: int, transaction: Transaction) -> Transaction | None:
    """The transaction with only the witnesses that this shard checks when ``home`` prepares it; None when there are none.

    That is each payer of a leg that concerns an account here, but for those kept by the home, whose word is the proof that they
    signed: it can do what it likes with its own accounts. An issuer can do something to the accounts of all: always checked.
    """
    shard_of, here = rules.shards.shard_of, rules.shard
    payers = set()
    for leg in transaction.order.legs:
        payer_shard = shard_of(leg.payer)
        if (payer_shard != home or leg.payer == rules.issuers.get(leg.asset)) and here in (payer_shard, shard_of(leg.payee)):
            payers.add(leg.payer)
    if not payers:
        return None
    pairs = zip(transaction.order.payers, transaction.witnesses, strict=True)
    return Transaction(transaction.order, tuple(witness for payer, witness in pairs if payer in payers))


class TwoPhaseCommit(NamedTuple):
    """Both state machines, at work in one block: they change ``overlay`` and add to ``receipts`` and ``outbox``. ``settlement``
    takes the records that have to do with the change of epochs."""

    overlay: Overlay
    rules: Rules
    receipts: list[Receipt]
    outbox: Outbox
    has_valid_signatures: Callable[[Transaction], bool]
    settlement: Settlement

    def begin(self, transaction_id: bytes, transaction: Transaction, routes: Sequence[Route]) -> None:
        """Home: a transaction that touches other shards. ``routes``: of its legs."""
        overlay, rules = self.overlay, self.rules
        participants = tuple(sorted(shards_of(routes) - {rules.shard}))
        queue = queue_of(rules, participants)
        undecided = overlay.waiting_for.get(queue, 0)
        code = Code.LIMIT_EXCEEDED if undecided >= MAX_WAITING else reserve(overlay, rules, routes)
        if code is not Code.OK:
            self.receipts.append(Receipt(transaction_id, Outcome.REJECTED, code))
            return
        deadline = overlay.time + rules.parameters.commit_timeout
        overlay.records[transaction_id + WAITING] = Waiting(
            legs_here(rules, routes, rules.shard), deadline, participants, participants
        )
        overlay.alarms.append((deadline, transaction_id + WAITING))
        overlay.waiting_for[queue] = undecided + 1
        prepare = Prepare(encode(transaction), deadline)
        for shard in participants:
            self.outbox.send(shard, prepare)
        self.receipts.append(Receipt(transaction_id, Outcome.PREPARED))

    def receive(self, source: int, record: Record) -> None:
        """A record of a bundle from ``source``."""
        if isinstance(record, Prepare):
            self._prepare(source, record)
        elif isinstance(record, PrepareVote):
            self._count_vote(source, record)
        elif isinstance(record, Decision):
            self._obey(source, record)
        elif isinstance(record, Figures):
            bulkhead.hear(self.overlay, self.rules, source, record)
        else:
            self.settlement.receive(source, record)

    def look_again(self) -> None:
        """Go on with what waited to be covered and is now."""
        for home in sorted(self.overlay.uncovered):
            for _, transaction_id in self.overlay.uncovered[home][:MAX_UNCOVERED]:
                if home == self.rules.shard:
                    waiting = self.overlay.waiting(transaction_id)
                    if waiting is not None and self._is_covered(waiting.legs, home):
                        self._decide(transaction_id, waiting, Code.OK)
                elif (prepared := self.overlay.prepared(transaction_id)) is not None:
                    self._go_on(transaction_id, prepared)

    def wake(self) -> None:
        """Block time is here: expire what has waited too long, forget answers that no Prepare in time can ask for again."""
        woken = 0
        for _, key in self.overlay.alarms_before(self.overlay.time):
            record = self.overlay.record(key)
            if record is None:
                continue
            if woken == MAX_WOKEN:
                return  # the next block goes on
            woken += 1
            if isinstance(record, Waiting):
                self._decide(key[: -len(WAITING)], record, Code.EXPIRED)
            else:
                self.overlay.records[key] = None

    def _count_vote(self, source: int, vote: PrepareVote) -> None:
        transaction_id = vote.transaction_id
        waiting = self.overlay.waiting(transaction_id)
        if waiting is None or source not in waiting.awaiting:
            return
        awaiting = tuple(shard for shard in waiting.awaiting if shard != source)
        if vote.code is not Code.OK:
            self._decide(transaction_id, waiting, vote.code, refused_by=source)
        elif awaiting:
            self._await(transaction_id, waiting, awaiting)
        elif self._is_covered(waiting.legs, self.rules.shard):
            self._decide(transaction_id, waiting, Code.OK)
        else:
            self._await(transaction_id, waiting, ())
            self.overlay.put_off(self.rules.shard, waiting.deadline, transaction_id)

    def _await(self, transaction_id: bytes, waiting: Waiting, awaiting: tuple[int, ...]) -> None:
        record = Waiting(waiting.legs, waiting.deadline, waiting.participants, awaiting)
        self.overlay.records[transaction_id + WAITING] = record

    def _decide(self, transaction_id: bytes, waiting: Waiting, code: Code, refused_by: int | None = None) -> None:
        if code is Code.OK:
            outcome = Outcome.COMMITTED
            apply(self.overlay, self.rules, routed(self.rules, waiting.legs), self.rules.shard)
        else:
            outcome = Outcome.EXPIRED if code is Code.EXPIRED else Outcome.REJECTED
            release(self.overlay, self.rules, routed(self.rules, waiting.legs))
        if not waiting.awaiting:
            self.overlay.take_up(self.rules.shard, waiting.deadline, transaction_id)
        for shard in waiting.participants:
            if shard != refused_by:
                self.outbox.send(shard, Decision(transaction_id, code is Code.OK))
        self._forget(transaction_id + WAITING, self.overlay.waiting_for, queue_of(self.rules, waiting.participants))
        self.receipts.append(Receipt(transaction_id, outcome, code))

    def _prepare(self, source: int, prepare: Prepare) -> None:
        try:
            transaction = decode_transaction(prepare.transaction)
        except DecodeError:
            self._refuse_malformed(source, prepare.transaction)
            return
        transaction_id, routes = transaction.id, routed(self.rules, transaction.order.legs)
        legs, relied = legs_here(self.rules, routes, source), relied_on(self.rules, source, transaction)
        code = self._refusal(source, prepare.deadline, transaction_id, transaction, relied, is_concerned=bool(legs))
        if code is Code.OK:
            code = reserve(self.overlay, self.rules, routes)
        stage = Stage.VOTED if code is not Code.OK or self._is_sent(source, routes) else Stage.ASKED
        if stage is Stage.ASKED and len(self.overlay.uncovered.get(source, ())) >= MAX_UNCOVERED:
            release(self.overlay, self.rules, routes)
            stage, code = Stage.VOTED, Code.LIMIT_EXCEEDED
        if code is Code.OK:
            self.overlay.prepared_for[source] = self.overlay.prepared_for.get(source, 0) + 1
            if relied is not None:
                until = transaction.order.valid_until + self.rules.parameters.commit_timeout
                self.overlay.records[transaction_id + ANSWERED] = until
                self.overlay.alarms.append((until, transaction_id + ANSWERED))
            self.overlay.records[transaction_id + PREPARED] = Prepared(legs, source, prepare.deadline, stage)
            if stage is Stage.ASKED:
                self.overlay.put_off(source, prepare.deadline, transaction_id)
        if stage is Stage.VOTED:
            self.outbox.send(source, PrepareVote(transaction_id, code))

    def _is_sent(self, home: int, routes: Iterable[Route]) -> bool:
        """Whether what the home's own payers send is covered. What others pay over it comes there with the decision only."""
        return bulkhead.covers(self.overlay, self.rules, [route for route in routes if route[1] == home], home)

    def _is_covered(self, legs: Iterable[Leg], home: int) -> bool:
        return bulkhead.covers(self.overlay, self.rules, routed(self.rules, legs), home)

    def _go_on(self, transaction_id: bytes, prepared: Prepared) -> None:
        """With what is ASKED or OWED."""
        home = prepared.home
        if prepared.stage is Stage.OWED:
            if self._is_covered(prepared.legs, home):
                self._commit(transaction_id, prepared)
        elif self.overlay.time > prepared.deadline:
            release(self.overlay, self.rules, routed(self.rules, prepared.legs))
            self._forget_prepared(transaction_id, prepared)
            self.outbox.send(home, PrepareVote(transaction_id, Code.EXPIRED))
        elif self._is_sent(home, routed(self.rules, prepared.legs)):
            self.overlay.take_up(home, prepared.deadline, transaction_id)
            self._keep(transaction_id, prepared, prepared.legs, Stage.VOTED)
            self.outbox.send(home, PrepareVote(transaction_id, Code.OK))

    def _keep(self, transaction_id: bytes, prepared: Prepared, legs: tuple[Leg, ...], stage: Stage) -> None:
        kept = Prepared(legs, prepared.home, prepared.deadline, stage)
        self.overlay.records[transaction_id + PREPARED] = kept

    def _commit(self, transaction_id: bytes, prepared: Prepared) -> None:
        apply(self.overlay, self.rules, routed(self.rules, prepared.legs), prepared.home)
        self._forget_prepared(transaction_id, prepared)
        self.receipts.append(Receipt(transaction_id, Outcome.COMMITTED))

    def _refusal(
        self,
        source: int,
        deadline: int,
        transaction_id: bytes,
        transaction: Transaction,
        relied: Transaction | None,
        is_concerned: bool,
    ) -> Code:
        """Why not even to look at the legs. ``is_concerned``: whether one concerns this shard. An honest home's Prepare passes:
        it included the transaction by ``valid_until``, at most a validity window after a block time that ours may lag behind."""
        overlay, rules, order = self.overlay, self.rules, transaction.order
        timeout, latest = rules.parameters.commit_timeout, rules.parameters.latest_valid_until(overlay.time)
        if order.network != rules.network:
            return Code.WRONG_NETWORK
        if rules.shards.shard_of(order.legs[0].payer) != source or not is_concerned:
            return Code.WRONG_SHARD
        if (code := rules.terms.breach(order.legs)) is not Code.OK:
            return code
        if overlay.time > deadline or deadline > order.valid_until + timeout or self.settlement.is_settled:
            return Code.EXPIRED
        if order.valid_until > latest + timeout or overlay.prepared_for.get(source, 0) >= 2 * MAX_WAITING:
            return Code.LIMIT_EXCEEDED
        if overlay.record(transaction_id + PREPARED) is not None or overlay.record(transaction_id + ANSWERED) is not None:
            return Code.DUPLICATE
        if relied is not None and not self.has_valid_signatures(relied):
            return Code.BAD_SIGNATURE
        return Code.OK

    def _refuse_malformed(self, source: int, data: bytes) -> None:
        try:
            transaction_id = decode(Transaction, data, MAX_TRANSACTION_BYTES).id
        except DecodeError:
            return
        self.outbox.send(source, PrepareVote(transaction_id, Code.MALFORMED))

    def _obey(self, source: int, decision: Decision) -> None:
        transaction_id = decision.transaction_id
        prepared = self.overlay.prepared(transaction_id)
        if prepared is None or prepared.home != source:
            return
        if not decision.commit and prepared.stage is not Stage.OWED:
            release(self.overlay, self.rules, routed(self.rules, prepared.legs))
            self._forget_prepared(transaction_id, prepared)
            self.receipts.append(Receipt(transaction_id, Outcome.REJECTED))
        elif decision.commit and prepared.stage is Stage.VOTED:
            if self._is_covered(prepared.legs, source):
                self._commit(transaction_id, prepared)
            else:
                self._owe(transaction_id, prepared)

    def _owe(self, transaction_id: bytes, prepared: Prepared) -> None:
        """Make the payments of accounts here, whose figures others may wait for; what comes in for them comes later."""
        routes, here = routed(self.rules, prepared.legs), self.rules.shard
        incoming = tuple(leg for leg, source, _ in routes if source != here and leg.action is Action.PAY)
        apply(self.overlay, self.rules, [route for route in routes if route[0] not in incoming], prepared.home)
        self._keep(transaction_id, prepared, incoming, Stage.OWED)
        self.overlay.put_off(prepared.home, prepared.deadline, transaction_id)

    def _forget_prepared(self, transaction_id: bytes, prepared: Prepared) -> None:
        self._forget(transaction_id + PREPARED, self.overlay.prepared_for, prepared.home)
        if prepared.stage is not Stage.VOTED:
            self.overlay.take_up(prepared.home, prepared.deadline, transaction_id)

    def _forget(self, key: bytes, queue: dict[int, int], shard: int) -> None:
        self.overlay.records[key] = None
        queue[shard] -= 1
