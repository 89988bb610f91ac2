"""Proposing: when this member, if it leads, makes a block, and what goes into it."""

from collections.abc import Sequence
from types import MappingProxyType

from msgspec import Struct, structs

from node.consensus.round import Seat
from node.consensus.simplex import MAX_VOTED_BYTES, Simplex, Turn
from node.effects import Mine, StopMining
from node.events import Instant
from node.ledger.admission import admit, is_funded, suits
from node.ledger.execution import execute
from node.ledger.rules import Rules
from node.ledger.settlement import is_closed, may_begin
from node.ledger.state import Overlay, State
from node.protocol.block import Block, Header, payload_root
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.entries import Entry
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES, MAX_SHARDS
from node.protocol.topics import Refusal
from node.replica.desk import Desk
from node.replica.drafts import Branches, Draft, Payload
from node.replica.inbox import Inbox
from node.replica.mempool import Mempool, Pooled
from node.replica.pace import Pace
from node.replica.payloads import fits
from node.replica.witnesses import Verdicts, join, judge

_MAX_UNFINALIZED = 64
MAX_IN_VAIN = 4096
"""Waiting transactions that may be looked at for one block and go into none: looking at all of them could take too long."""


class Candidate(Struct, frozen=True):
    """A block all but for its nonce, and what executing it gives."""

    turn: Turn
    block: Block
    draft: Draft


class Proposing:
    """Reads the mempool, the inbox, the desk and the ledger, and hands blocks to consensus."""

    def __init__(
        self,
        rules: Rules,
        consensus: Simplex[Draft],
        branches: Branches,
        mempool: Mempool,
        inbox: Inbox,
        desk: Desk,
        pace: Pace,
        now: int,
    ) -> None:
        self._rules, self._parameters = rules, rules.parameters
        self._consensus, self._branches, self._mempool, self._inbox, self._desk = consensus, branches, mempool, inbox, desk
        self._mining: Candidate | None = None
        self._token = now << 20  # as ``Checking``: a late answer is not to this one
        self._at = Instant(now, 0)
        self._nothing_at: Instant | None = None
        self._last_block_at = now
        self._pace = pace

    @property
    def deadline(self) -> int:
        """When this member, if it leads, shall propose (ms, monotonic): after a pause with work, else at the heartbeat. ``work``
        is to be called then."""
        turn = self._consensus.turn
        if turn is None or self._mining is not None:
            return self._consensus.deadline
        pause = self._parameters.heartbeat
        base = self._branches.after(turn.parent)
        if base is not None and base.height - self._branches.state.height > _MAX_UNFINALIZED:
            return self._last_block_at + pause  # finality has to catch up: until then all members keep these blocks in memory
        if self._nothing_at != self._at and (waiting := self.waiting(turn.parent)):
            pause = self._pace.pause(waiting)
        return self._last_block_at + pause

    def waiting(self, parent: bytes) -> int:
        """How many transactions and entries wait for a block on ``parent``, and records of the bundles that come next."""
        if not self._mempool and not self._inbox and not self._desk:
            return 0
        base = self._branches.after(parent)
        if base is None or is_closed(base):
            return 0
        crossing = 0 if may_begin(base) else len(self._mempool.crossing)
        count = max(0, len(self._mempool) - crossing - self._branches.in_flight(parent))
        count += max(0, len(self._desk) - self._branches.entries_in_flight(parent))
        for source in self._inbox.sources:
            if (delivery := self._inbox.next(source, base.cursor(source))) is not None:
                count += len(delivery.certified.bundle.records)
        return count

    def work(self, at: Instant) -> tuple[list[Mine | StopMining], list[Refusal]]:
        """Build a proposal and have its nonce mined, when it is this member's turn and time. Returns what to do, and refusals of
        what can go into no block any more."""
        self._at = at
        effects: list[Mine | StopMining] = []
        if self._mining is not None and self._mining.turn.view != self._consensus.view:
            self._mining = None
            effects.append(StopMining())
        turn = self._consensus.turn
        if turn is None or self._mining is not None or at.now < self.deadline:
            return effects, []
        parent = self._branches.after(turn.parent)
        if parent is None:
            return effects, []
        time = max(parent.time, at.wall)
        transactions, stale, refused = choose_transactions(self._branches.state, parent, self._rules, self._mempool, time)
        self._mempool.remove(stale)
        bundles, entries = choose_bundles(parent, self._inbox), self._desk.choose(parent)
        if self._must_be_empty() or is_closed(parent):
            transactions, bundles, entries = [], ([], []), []
        elif not (transactions or bundles[0] or entries) and at.now < self._last_block_at + self._parameters.heartbeat:
            self._nothing_at = at  # what waits can go in no block yet: nothing to do before the next event
            return effects, refused
        skip = self._consensus.tree.skip_after(turn.parent)
        verdicts = join(map(self._inbox.verdicts, bundles[1]))
        seat, rules = self._consensus.seat, self._rules
        candidate = build_block(parent, turn, skip, seat, rules, time, bundles, transactions, verdicts, entries)
        bits = self._parameters.block_difficulty_bits
        if bits == 0:
            self._propose(candidate, bytes(8), at)
        else:
            self._token += 1
            self._mining = candidate
            effects.append(Mine(self._token, candidate.block.header.mining_prefix, bits))
        return effects, refused

    def _must_be_empty(self) -> bool:
        """Whether blocks have to become final before another one that is not empty would find votes."""
        return self._consensus.is_patient or self._consensus.voted_bytes > MAX_VOTED_BYTES // 2

    def stop(self) -> list[StopMining]:
        """Nothing more is proposed."""
        was_mining, self._mining = self._mining is not None, None
        return [StopMining()] if was_mining else []

    def on_block(self, block: Block, now: int) -> None:
        """A block was executed here: the pause before the next one begins."""
        self._last_block_at = now
        self._pace.on_block(len(block.transactions))

    def on_final(self, took: int) -> None:
        """A block became final ``took`` ms after it was executed here."""
        self._pace.on_final(took)

    def on_mined(self, token: int, nonce: bytes, at: Instant) -> None:
        """The answer to ``Mine``."""
        if self._mining is not None and token == self._token:
            candidate, self._mining = self._mining, None
            self._propose(candidate, nonce, at)

    def _propose(self, candidate: Candidate, nonce: bytes, at: Instant) -> None:
        block = candidate.block
        mined = structs.replace(block, header=structs.replace(block.header, nonce=nonce))
        draft = structs.replace(candidate.draft, executed_at=at.now)
        if self._consensus.propose(candidate.turn, mined, draft, at.now):
            self.on_block(block, at.now)


def choose_transactions(
    state: State, parent: State | Overlay, rules: Rules, mempool: Mempool, time: int
) -> tuple[list[Pooled], list[bytes], list[Refusal]]:
    """What a block on ``parent`` may take from the mempool, payers in turn; the ids that are to be forgotten, and of these,
    refusals for those that are in no block.

    Forgotten is what no later block can take, and whose payer has nothing left once all that is final is counted. Who will
    have nothing only after blocks that are not final yet is passed over; so is what touches other shards while none begins.
    """
    chosen: list[Pooled] = []
    stale: list[bytes] = []
    refused: list[Refusal] = []
    size = in_vain = 0
    ok, most = Code.OK, rules.parameters.block_transactions
    waits = frozenset() if may_begin(parent) else mempool.crossing

    def is_new(pooled: Pooled) -> bool:
        if pooled.id in waits:
            return False
        valid_until = pooled.transaction.order.valid_until
        if not parent.has_seen(pooled.id, valid_until):
            return True
        if state.has_seen(pooled.id, valid_until):
            stale.append(pooled.id)
        return False

    for pooled in mempool.in_turn(is_new):  # one looked at in vain costs its payer the turn: the others have theirs
        transaction = pooled.transaction
        if suits(rules, transaction, time) is ok and is_funded(parent, rules, transaction.order.legs):
            size += len(pooled.encoded)
            if size > MAX_BLOCK_PAYLOAD_BYTES or len(chosen) >= most:
                break
            chosen.append(pooled)
            continue
        in_vain += 1
        code = admit(state, rules, pooled.id, transaction, state.time)
        if code is not ok:
            stale.append(pooled.id)
            refused.append(Refusal(pooled.id, code))
        if in_vain == MAX_IN_VAIN:
            break
    return chosen, stale, refused


def choose_bundles(parent: State | Overlay, inbox: Inbox) -> tuple[list[CertifiedBundle], list[bytes]]:
    """The bundles whose turn it is, as many as fit; one goes in whatever its size. Channels take turns at being first."""
    bundles: list[CertifiedBundle] = []
    encoded: list[bytes] = []
    size = records = 0
    first = parent.height % max(1, len(inbox.sources))
    for source in inbox.sources[first:] + inbox.sources[:first]:
        for delivery in inbox.following(source, parent.cursor(source)):
            size += len(delivery.encoded)
            records += len(delivery.certified.bundle.records)
            if encoded and (not fits(size, records) or len(encoded) >= MAX_SHARDS):
                size -= len(delivery.encoded)
                records -= len(delivery.certified.bundle.records)
                break
            bundles.append(delivery.certified)
            encoded.append(delivery.encoded)
    return bundles, encoded


def build_block(
    parent: State | Overlay,
    turn: Turn,
    skip: bytes,
    seat: Seat,
    rules: Rules,
    time: int,
    bundles: tuple[Sequence[CertifiedBundle], Sequence[bytes]],
    transactions: Sequence[Pooled],
    verdicts: Verdicts = MappingProxyType({}),
    entries: Sequence[Entry] = (),
) -> Candidate:
    """Execute a payload on ``parent`` and write the header that commits to all of it; the nonce is left at zero. ``verdicts``:
    as in ``Payload``."""
    certified, encoded_bundles = bundles
    height = parent.height + 1
    pairs = [(pooled.id, pooled.transaction) for pooled in transactions]
    sent = [bundle.bundle for bundle in certified]
    execution = execute(parent, rules, height, time, sent, pairs, judge(verdicts), entries)
    content = tuple(encoded_bundles), tuple(pooled.encoded for pooled in transactions), tuple(map(encode, entries))
    leaves = [pooled.leaf for pooled in transactions]
    header = Header(
        document=seat.electorate.document,
        shard=rules.shard,
        view=turn.view,
        height=height,
        parent=turn.parent,
        skip=skip,
        time=time,
        proposer=seat.member,
        payload_root=payload_root(content[0], leaves, content[2]),
        receipts_root=execution.receipts_root,
        outbox_root=execution.outbox_root,
        changes_hash=execution.changes_hash,
        totals_hash=execution.totals_hash,
        change_hash=execution.change_hash,
        state_root=execution.state_root,
        nonce=bytes(8),
    )
    payload = Payload(tuple(certified), tuple(transactions), verdicts, tuple(entries))
    return Candidate(turn, Block(header, *content), Draft(payload, execution))
