"""The two-phase commit between shards: both state machines of one shard.

A transaction's home shard (its first payer's) decides; every other shard it touches is a participant. Each step is taken in
some shard's block, each message travels in a channel bundle: in order, exactly once. So neither side times out on the other
except by the home chain's block time.

    HOME                 on                                       then       it does
    -                    transaction, holds taken                 WAITING    Prepare to all participants; receipt PREPARED
    -                    transaction, cannot                      -          receipt REJECTED, reason
    WAITING              vote yes, others still missing           WAITING
    WAITING              vote yes, the last one                   -          apply; Decision commit to all; receipt COMMITTED
    WAITING              vote no                                  -          release; Decision abort to all but the one that
                                                                             refused; receipt REJECTED, its reason
                                                                             (EXPIRED when that is the reason)
    WAITING              block time past the deadline             -          release; Decision abort to all; receipt EXPIRED
    WAITING              vote of no participant, or a second one  WAITING    (nothing)
    -                    vote                                     -          (nothing)

    PARTICIPANT          on                                       then       it does
    -                    Prepare, holds taken                     PREPARED   vote yes
    -                    Prepare, cannot                          -          vote no, reason
    PREPARED             Prepare again, or once its holds were    the same   vote no, duplicate
    PREPARED             Decision commit of its home              -          apply; receipt COMMITTED
    PREPARED             Decision abort of its home               -          release; receipt REJECTED (the reason is in the
                                                                             home shard's)
    -, other home's      Decision                                 the same   (nothing)

What a captured committee can send but an honest one never does is answered with a vote no, or ignored, and changes nothing. It
cannot make a participant spend: the participant checks its own payers' signatures, and remembers what they had once prepared for
as long as a Prepare could be in time, so that a signature is good for one payment.
"""

from collections.abc import Callable
from typing import NamedTuple

from node.ledger.channels import Outbox
from node.ledger.rows import ANSWERED, PREPARED, WAITING, Prepared, Waiting
from node.ledger.rules import MAX_WAITING, MAX_WOKEN, Rules
from node.ledger.state import Overlay, queue_of
from node.ledger.transfer import apply, legs_here, release, reserve, shards_of
from node.protocol.block import Outcome, Receipt
from node.protocol.channel import Decision, Prepare, PrepareVote, Record
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_TRANSACTION_BYTES
from node.protocol.transaction import Transaction, decode_transaction


class TwoPhaseCommit(NamedTuple):
    """Both state machines, at work in one block: they change ``overlay`` and add to ``receipts`` and ``outbox``."""

    overlay: Overlay
    rules: Rules
    receipts: list[Receipt]
    outbox: Outbox
    has_valid_signatures: Callable[[Transaction], bool]

    def begin(self, transaction_id: bytes, transaction: Transaction) -> None:
        """Home: a transaction that touches other shards."""
        overlay, rules = self.overlay, self.rules
        legs = transaction.order.legs
        participants = tuple(sorted(shards_of(rules, legs) - {rules.shard}))
        queue = queue_of(rules, participants)
        undecided = overlay.waiting_for.get(queue, 0)
        code = Code.LIMIT_EXCEEDED if undecided >= MAX_WAITING else reserve(overlay, rules, legs)
        if code is not Code.OK:
            self.receipts.append(Receipt(transaction_id, Outcome.REJECTED, code))
            return
        deadline = overlay.time + rules.parameters.commit_timeout
        overlay.records[transaction_id + WAITING] = Waiting(legs_here(rules, legs), deadline, participants, participants)
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
        else:
            self._obey(source, record)

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
            self.overlay.records[transaction_id + WAITING] = Waiting(
                waiting.legs, waiting.deadline, waiting.participants, awaiting
            )
        else:
            self._decide(transaction_id, waiting, Code.OK)

    def _decide(self, transaction_id: bytes, waiting: Waiting, code: Code, refused_by: int | None = None) -> None:
        if code is Code.OK:
            outcome = Outcome.COMMITTED
            apply(self.overlay, self.rules, waiting.legs)
        else:
            outcome = Outcome.EXPIRED if code is Code.EXPIRED else Outcome.REJECTED
            release(self.overlay, self.rules, waiting.legs)
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
        transaction_id = transaction.id
        code = self._refusal(source, prepare.deadline, transaction_id, transaction)
        if code is Code.OK:
            code = reserve(self.overlay, self.rules, transaction.order.legs)
        if code is Code.OK:
            legs = legs_here(self.rules, transaction.order.legs)
            self.overlay.records[transaction_id + PREPARED] = Prepared(legs, source)
            self.overlay.prepared_for[source] = self.overlay.prepared_for.get(source, 0) + 1
            if self._own_witnesses(transaction):
                until = transaction.order.valid_until + self.rules.parameters.commit_timeout
                self.overlay.records[transaction_id + ANSWERED] = until
                self.overlay.alarms.append((until, transaction_id + ANSWERED))
        self.outbox.send(source, PrepareVote(transaction_id, code))

    def _refusal(self, source: int, deadline: int, transaction_id: bytes, transaction: Transaction) -> Code:
        """Why not even to look at the legs. An honest home's Prepare passes: it included the transaction by ``valid_until``,
        at most a validity window after a block time that ours may lag behind."""
        overlay, rules, order = self.overlay, self.rules, transaction.order
        timeout, latest = rules.parameters.commit_timeout, rules.parameters.latest_valid_until(overlay.time)
        if order.network != rules.network:
            return Code.WRONG_NETWORK
        if rules.shards.shard_of(order.legs[0].payer) != source or not legs_here(rules, order.legs):
            return Code.WRONG_SHARD
        if (code := rules.terms.breach(order.legs)) is not Code.OK:
            return code
        if overlay.time > deadline or deadline > order.valid_until + timeout:
            return Code.EXPIRED
        if order.valid_until > latest + timeout or overlay.prepared_for.get(source, 0) >= 2 * MAX_WAITING:
            return Code.LIMIT_EXCEEDED
        if overlay.record(transaction_id + PREPARED) is not None or overlay.record(transaction_id + ANSWERED) is not None:
            return Code.DUPLICATE
        own = self._own_witnesses(transaction)
        if own and not self.has_valid_signatures(own):
            return Code.BAD_SIGNATURE
        return Code.OK

    def _own_witnesses(self, transaction: Transaction) -> Transaction | None:
        """The transaction with only the witnesses of the payers kept here; None when there are none."""
        shard_of, here = self.rules.shards.shard_of, self.rules.shard
        pairs = zip(transaction.order.payers, transaction.witnesses, strict=True)
        own = tuple(witness for payer, witness in pairs if shard_of(payer) == here)
        return Transaction(transaction.order, own) if own else None

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
        if decision.commit:
            apply(self.overlay, self.rules, prepared.legs)
        else:
            release(self.overlay, self.rules, prepared.legs)
        self._forget(transaction_id + PREPARED, self.overlay.prepared_for, source)
        self.receipts.append(Receipt(transaction_id, Outcome.COMMITTED if decision.commit else Outcome.REJECTED))

    def _forget(self, key: bytes, queue: dict[int, int], shard: int) -> None:
        self.overlay.records[key] = None
        queue[shard] -= 1
