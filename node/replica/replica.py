"""One member of one committee: it hands each event to whom it concerns, and does what consensus says, in order.

Pure: each method is one event and returns the effects to perform, in order (see ``node.effects``).
"""

from collections.abc import Sequence
from functools import partial

from node.consensus.adopting import are_final
from node.consensus.catching_up import CatchingUp
from node.consensus.patience import Timeouts
from node.consensus.round import Seat
from node.consensus.simplex import Execute, Finalized, Simplex
from node.effects import Ban, Broadcast, Checkpoint, Commit, Effect, FinishHandoff, Publish, Send, SendBundles
from node.events import Instant, Recovered
from node.ledger.admission import admit
from node.ledger.execution import InvalidBlock, execute, genesis_header
from node.ledger.rules import Rules
from node.ledger.settlement import is_closed
from node.ledger.transfer import is_inside
from node.protocol.block import Block, Header
from node.protocol.certificate import CertifiedBlock, CertifiedHeader
from node.protocol.change import Bulletin
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.messages import (
    Ballot,
    BodyReply,
    BodyRequest,
    BundleDelivery,
    BundleName,
    BundleRequest,
    BundleWanted,
    Certified,
    ChainReply,
    ChainRequest,
    CheckpointReply,
    CheckpointRequest,
    PartsReply,
    PartsRequest,
    PeerMessage,
    Proposal,
    Standing,
    TransactionsReply,
    TransactionsRequest,
)
from node.protocol.puzzle import leading_zero_bits
from node.protocol.queries import EVERYONE, Query
from node.protocol.topics import Refusal, blocks_topic
from node.protocol.transaction import Transaction
from node.replica.answering import Answering
from node.replica.assembling import Assembled, Assembling, Misnamed
from node.replica.checking import Checked, Checking
from node.replica.collecting import Collecting
from node.replica.counters import Counters
from node.replica.delivering import Delivering, certify_bundles
from node.replica.desk import Desk
from node.replica.drafts import Branches, Draft, Payload
from node.replica.inbox import Inbox, Unproven
from node.replica.mempool import Mempool, Pooled
from node.replica.observer import LAG
from node.replica.pace import Pace
from node.replica.payloads import may_fill, read_bundles, read_entries, read_payload
from node.replica.proposing import Proposing
from node.replica.refusing import Refusing
from node.replica.retention import Retention
from node.replica.serving import Serving
from node.replica.taking_over import Forged, TakingOver
from node.replica.telling import Telling
from node.replica.witnesses import Verdicts, join, judge

_FAR_AWAY = 1 << 62
_MAX_REMEMBERED = 1024
"""Blocks from other members whose checks are remembered until they are executed; what is forgotten is checked again."""


class Replica:
    """``recovered``: what storage held. ``has_votes``: whether its records are all that this member ever signed in the epoch. If
    not, it follows: it executes, commits, catches up and serves, but signs nothing. ``keep_blocks``: see ``Retention``.

    With the closing block its part in the chain ends: it votes, proposes and executes no more. But it goes on to serve who is
    behind, be it a member or a guest, and to deliver what its shard sent. No more is needed for all others to close: who has the
    closing block final gives it, proven, to any who asks, and all know of its height by its standing.

    Attributes:
        last: the last final block; None: there is none after height 0. closing: the same, if it is the closing block.
        guests: public keys of others who may ask what members may, for blocks, checkpoints and heights.

    Raises:
        Diverged: from any method: this node must stop, its state differs from what its committee made final.
    """

    def __init__(
        self,
        genesis: Genesis,
        document: EpochDocument,
        key: KeyPair,
        name: str,
        recovered: Recovered,
        at: Instant,
        has_votes: bool = True,
        keep_blocks: int = 0,
    ) -> None:
        place = document.seat_of(key.public)
        if place is None:
            raise ValueError("this node has no seat in the epoch")
        self.shard, self.member = place
        self.document = document
        self.electorate = document.electorates[self.shard]
        self.seat = Seat(key, self.member, self.electorate)
        self.parameters = genesis.parameters
        self.state = state = recovered.state
        self.rules: Rules = state.rules
        self.last = recovered.last
        self.closing = recovered.last if is_closed(state) else None
        self.guests: frozenset[bytes] = frozenset()
        self.mempool = Mempool(partial(_is_inside, self.rules))
        self.desk = Desk(state, self.rules)
        self.inbox = Inbox(self.shard, document.electorates)
        self.counters = Counters()
        self.consensus = self._make_consensus(genesis, recovered, at, has_votes)
        self.branches = Branches(state, self.consensus.tree)
        self.catching_up = CatchingUp(state.height, at.now)
        has_opening, is_handed_over = self.rules.is_later, recovered.is_handed_over
        self.taking_over = TakingOver(self.electorate, state.height, self.rules.first_certified, has_opening, is_handed_over)
        self._members = {public_key: i for i, public_key in enumerate(self.electorate.keys)}
        self.assembling = Assembling(self.mempool, self.consensus.awaits)
        self._checking = Checking(self.rules, self.mempool, self.inbox, at.now << 20)
        self._verdicts: dict[bytes, Verdicts] = {}
        """Of blocks from other members that consensus may have executed, by hash: what came of checking what they prepare."""
        self._refusing = Refusing(self.seat)
        pace = Pace(self.parameters)
        self._proposing = Proposing(self.rules, self.consensus, self.branches, self.mempool, self.inbox, self.desk, pace, at.now)
        beat = max(1, self.parameters.heartbeat // 2)
        self._delivering = Delivering(self.shard, self.member, document.electorates, state, recovered.kept, beat)
        self._collecting = Collecting(self.shard, self.member, document.electorates, self.inbox, pace, beat)
        self._serving = Serving(self.shard, document.electorates, state, self.consensus, self.inbox)
        self._answering = Answering(name, self.seat, state, self.consensus, self.mempool)
        self._telling = Telling(self.member, self.electorate)
        self._retention = Retention(keep_blocks, self.parameters.validity_window)
        self._half_beat = beat
        self._next_standing = at.now - beat
        self._at = at
        self._effects: list[Effect] = [Checkpoint(*part) for part in recovered.slices]

    def _make_consensus(self, genesis: Genesis, recovered: Recovered, at: Instant, has_votes: bool) -> Simplex[Draft]:
        last = recovered.last
        opening = recovered.opening or genesis_header(genesis, self.shard, recovered.state)
        final = last.header if last is not None else opening
        peaks = recovered.peaks if last is not None else {0: final.hash}
        certificate = last.finality.certificate if last is not None and not last.finality.path else None
        heartbeat, timeout = self.parameters.heartbeat, self.parameters.view_timeout
        busy = max(timeout, heartbeat + timeout // 4)  # a leader that knows of no work proposes at the heartbeat
        timeouts = Timeouts(view=heartbeat + timeout, busy=busy, retransmit=timeout)
        return Simplex(self.seat, final, peaks, certificate, timeouts, recovered.records, at.now, has_votes)

    # -- events ----------------------------------------------------------------------------------------------------

    def start(self, at: Instant) -> list[Effect]:
        """First event after construction."""
        return self._finish(at)

    def on_message(self, peer: bytes, message: PeerMessage, at: Instant) -> list[Effect]:
        """A decoded message from a node of the network, authenticated by its public key."""
        self._at = at
        member = self._members.get(peer)
        match message:
            case BundleDelivery() | BundleName() | BundleRequest() | BundleWanted():
                self._effects += self._on_channel(peer, message)
            case _ if self.is_closed or member is None:
                self._on_request(peer, member, message)
            case CheckpointReply():
                self._on_offer(peer, message)
            case PartsReply():
                self._on_parts(peer, message)
            case _:
                self._on_member_message(peer, member, message)
        return self._finish(at)

    def on_peer_up(self, peer: bytes, at: Instant) -> list[Effect]:
        """A node is connected."""
        if peer in self._members or peer in self.guests:
            self._effects.append(Send(peer, self._serving.standing))
        return self._finish(at)

    def on_peer_down(self, peer: bytes, at: Instant) -> list[Effect]:
        self.catching_up.lost(peer)
        self.taking_over.lost(peer)
        return self._finish(at)

    def on_closed(self, height: int, at: Instant) -> list[Effect]:
        """The closing block is known to be at this height, and the votes for it may never come."""
        self.catching_up.hurry(height)
        return self._finish(at)

    def on_transactions(self, batch: Sequence[bytes], at: Instant) -> list[Effect]:
        """Encoded transactions from clients."""
        self._at = at
        if self.is_closed:
            return self._finish(at)
        candidates, refusals = self.mempool.screen(batch)
        time = max(self.state.time, at.wall)
        admitted = []
        for pooled in candidates:
            code = admit(self.state, self.rules, pooled.id, pooled.transaction, time)
            if code is Code.OK:
                admitted.append(pooled)
            else:
                refusals.append(Refusal(pooled.id, code))
        self._effects += self._checking.transactions(admitted)
        self._refusing.add(refusals)
        for assembled in self.assembling.offer(candidates):
            self._on_whole(assembled)
        return self._finish(at)

    def on_entries(self, batch: Sequence[bytes], at: Instant) -> list[Effect]:
        """Encoded entries for the register, from whomever."""
        if not self.is_closed:
            self.desk.offer(batch)
        return self._finish(at)

    def on_query(self, query: Query, at: Instant) -> list[Effect]:
        """A client's question."""
        if query.member == self.member or (query.member == EVERYONE and query.is_small):
            self._effects.append(self._answering.answer(query))
        return self._finish(at)

    def on_signatures_checked(self, token: int, verdicts: Sequence[bool], at: Instant) -> list[Effect]:
        """The answer to ``CheckSignatures``."""
        self._at = at
        if not self.is_closed and (settled := self._checking.settle(token, verdicts)) is not None:
            checked, more = settled
            self._refusing.add(checked.refusals)
            self._effects += more
            self._forget_final(checked.transactions)
            self._go_on(checked)
        return self._finish(at)

    def _go_on(self, checked: Checked) -> None:
        """With what waited for signatures."""
        match checked.waiting:
            case Assembled(proposal, block) if checked.draft is not None:
                self.consensus.on_proposal(proposal, block, checked.draft, self._at.now)
            case Assembled(block=block):
                self.consensus.on_invalid_proposal(block.header.view, self._at.now)
            case ChainReply(blocks):
                self._remember([final.block for final in blocks], checked.verdicts)
                self.consensus.on_final_blocks(checked.peer, blocks, self._at.now)
            case BodyReply(block):
                self._remember([block], checked.verdicts)
                self.consensus.on_block(block, self._at.now)

    def _remember(self, blocks: Sequence[Block], verdicts: Verdicts) -> None:
        if verdicts:
            self._verdicts |= {block.header.hash: verdicts for block in blocks}
            for block_hash in list(self._verdicts)[:-_MAX_REMEMBERED]:
                del self._verdicts[block_hash]

    def _forget_final(self, transactions: Sequence[Pooled]) -> None:
        """While transactions were being checked here, blocks may have become final with them, or after their time."""
        for pooled in transactions:
            valid_until = pooled.transaction.order.valid_until
            if valid_until < self.state.time or self.state.has_seen(pooled.id, valid_until):
                self.mempool.remove([pooled.id])

    def on_mined(self, token: int, nonce: bytes, at: Instant) -> list[Effect]:
        """The answer to ``Mine``."""
        self._at = at
        self._proposing.on_mined(token, nonce, at)
        return self._finish(at)

    def on_tick(self, at: Instant) -> list[Effect]:
        """Time passed; to be called at ``deadline`` at the latest."""
        return self._finish(at)

    @property
    def deadline(self) -> int:
        """When the next ``on_tick`` is due (ms, monotonic)."""
        if self.is_closed:
            return min(self._latest_standing, self._refusing.deadline, self._delivering.deadline)
        is_waiting = self.taking_over.waits(self._at.now)
        fetching = self.taking_over.deadline if is_waiting else min(self.catching_up.deadline, self.taking_over.deadline)
        channels = min(self._delivering.deadline, self._collecting.deadline)
        own = min(self._proposing.deadline, self._refusing.deadline, self._latest_standing)
        return min(self.consensus.deadline, own, fetching, channels)

    @property
    def is_handed_over(self) -> bool:
        """Whether another state than this replica's is stored: it is to be brought back, and this replica told nothing more."""
        return self.taking_over.is_whole

    @property
    def is_closed(self) -> bool:
        """Whether the closing block is final: the chain has come to its end."""
        return self.closing is not None

    @property
    def is_current(self) -> bool:
        """Whether it is at most a few blocks behind: a quorum, with it, tells how high it is, one above is honest."""
        told, electorate = self.catching_up.told, self.electorate
        are_enough = len(told) + 1 >= electorate.quorum
        return self.is_closed or (are_enough and self.state.height >= [*told, 0][electorate.faults_tolerated] - LAG)

    @property
    def bulletin(self) -> Bulletin | None:
        """How far the shard is with the change to the next epoch, as the last final block proves it; None before there is one."""
        return self._telling.bulletin(self.last, self.state.change) if self.last is not None else None

    # -- messages of members ---------------------------------------------------------------------------------------

    def _on_member_message(self, peer: bytes, member: int, message: PeerMessage) -> None:
        now = self._at.now
        match message:
            case Ballot(vote) if vote.signer == member:
                self.consensus.on_vote(vote, now)
            case Ballot(vote) if vote.signer == self.member:
                self.consensus.on_own_vote(peer, vote, now)
            case Proposal(_, vote) if vote.signer == member:
                self._on_proposal(message)
            case Certified(certificates):
                self.consensus.on_certificates(peer, certificates, now)
            case Standing():
                self._on_standing(peer, message)
            case ChainReply(blocks) if blocks and self.catching_up.answered(peer, blocks[0].block.header.height, now):
                self._on_reply(peer, message, [final.block for final in blocks])
            case BodyReply(block) if self.consensus.wants(block.header.hash):
                self._on_reply(peer, message, [block])
            case ChainRequest() | BodyRequest() | TransactionsRequest() | CheckpointRequest() | PartsRequest():
                self._effects += self._serving.answer(peer, message, now)
            case TransactionsReply():
                self._on_transactions_reply(peer, member, message)

    def _on_request(self, peer: bytes, member: int | None, message: PeerMessage) -> None:
        """Of a guest; or of anybody, when the chain is closed."""
        if member is None and peer not in self.guests:
            return
        match message:
            case Standing() if member is not None:
                self.catching_up.heard(peer, message.height)
                if message.height < self.state.height:
                    self._next_standing = min(self._next_standing, self._at.now + self.parameters.heartbeat)
                self._effects += self._serving.help(peer, member, message, self._at.now)
            case Standing():
                self._effects += self._serving.tell(peer, self._at.now)
            case ChainRequest() | CheckpointRequest() | PartsRequest():
                self._effects += self._serving.answer(peer, message, self._at.now)

    def _on_channel(
        self, peer: bytes, message: BundleDelivery | BundleName | BundleRequest | BundleWanted
    ) -> Sequence[Send | SendBundles | Ban]:
        """Of a channel from or to this shard, from a member of either of the two."""
        now = self._at.now
        match message:
            case BundleDelivery(certified) if not self.is_closed:
                return self._on_bundle(peer, certified)
            case BundleName(source) if not self.is_closed:
                self._collecting.named(peer, message, self.state.cursor(source), now)
            case BundleDelivery(CertifiedBundle(bundle)) if bundle.destination == self.shard:
                return self._collecting.decline(peer, bundle.source, bundle.sequence)
            case BundleName(source, sequence):
                return self._collecting.decline(peer, source, sequence)
            case BundleWanted():
                return self._serving.named(peer, message, now)
            case BundleRequest():
                self._delivering.asked(peer, message)
                if self._delivering.is_due(message, now):
                    return self._serving.bundles(peer, message, now)
        return []

    def _on_bundle(self, peer: bytes, certified: CertifiedBundle) -> Sequence[Send | Ban]:
        cursor = self.state.cursor(certified.bundle.source)
        try:
            delivery = self.inbox.receive(certified, cursor)
        except Unproven:
            return [Ban(peer, "it sent a bundle that does not prove itself")]
        if delivery is not None:
            self.counters.bundles_in += 1
            self._effects += self._checking.delivery(delivery)
        return self._collecting.received(peer, certified, delivery is not None, cursor)

    def _on_offer(self, peer: bytes, message: CheckpointReply) -> None:
        try:
            self.taking_over.offered(peer, message.checkpoint, self._at.now)
        except Forged as error:
            self._effects.append(Ban(peer, f"it sent {error}"))

    def _on_parts(self, peer: bytes, message: PartsReply) -> None:
        try:
            self._effects += self.taking_over.received(peer, message, self._at.now)
        except Forged as error:
            self._effects.append(Ban(peer, f"it sent {error}"))

    def _on_proposal(self, proposal: Proposal) -> None:
        """Consensus checks who sent it and what justifies it; then come its bundles, then transactions that are not here, then
        signatures that were not checked before."""
        now, block = self._at.now, proposal.block
        if not self.consensus.welcomes(proposal, now):
            return
        is_late = block.header.view < self.consensus.view
        bundles = None
        if is_late or (self._is_timely(block.header) and self._is_mined(block.header)):
            bundles = read_bundles(block.bundles, self.inbox)
        if bundles is None or len(block.leaves) > self.parameters.block_transactions:
            self.consensus.on_invalid_proposal(block.header.view, now)
            return
        begun = self.assembling.begin(proposal, bundles)
        if isinstance(begun, Assembled):
            self._on_whole(begun)
        else:
            self.consensus.lacks(proposal, begun, now)

    def _on_transactions_reply(self, peer: bytes, member: int, reply: TransactionsReply) -> None:
        try:
            assembled = self.assembling.answered(member, reply)
        except Misnamed as error:
            self._effects.append(Ban(peer, "it sent other transactions than it proposed"))
            self.consensus.on_invalid_proposal(error.view, self._at.now)
            return
        if assembled is not None:
            self._on_whole(assembled)

    def _on_whole(self, assembled: Assembled) -> None:
        """All transactions of a proposal are here."""
        proposal, block, bundles, transactions = assembled.proposal, assembled.block, assembled.bundles, assembled.transactions
        self.consensus.is_whole(proposal, self._at.now)
        if block.header.view < self.consensus.view:
            self.consensus.on_proposal(proposal, block, None, self._at.now)
            return
        entries = read_entries(block.entries)
        if entries is None or not may_fill(block.transactions, self.parameters):
            self.consensus.on_invalid_proposal(block.header.view, self._at.now)
            return
        payload = Payload(bundles, transactions, join(map(self.inbox.verdicts, block.bundles)), entries)
        checks = self._checking.proposal(assembled, payload)
        if checks is None:
            self.consensus.on_proposal(proposal, block, Draft(payload), self._at.now)
        else:
            self._effects += checks

    def _on_reply(self, peer: bytes, reply: ChainReply | BodyReply, blocks: Sequence[Block]) -> None:
        """Blocks that this member asked for: consensus sees them once the witnesses of what they prepare are checked."""
        if not self._may_be_worked_on(reply):
            self._effects.append(Ban(peer, "it sent a block that does not prove itself"))
            return
        checks = self._checking.reply(peer, reply, blocks)
        if checks is None:
            self._go_on(Checked([], reply, peer))
        else:
            self._effects += checks

    def _may_be_worked_on(self, reply: ChainReply | BodyReply) -> bool:
        """Whether the blocks are what they say, if they have bundles, which cost time."""
        match reply:
            case ChainReply(blocks):
                return not any(final.block.bundles for final in blocks) or are_final(blocks, self.electorate)
            case BodyReply(block):
                return block.payload_root() == block.header.payload_root

    def _is_timely(self, header: Header) -> bool:
        return header.time <= self._at.wall + self.parameters.clock_skew

    def _is_linked(self, header: Header) -> bool:
        """Its parent is ready."""
        return header.skip == self.consensus.tree.skip_after(header.parent)

    def _is_mined(self, header: Header) -> bool:
        return leading_zero_bits(header.hash) >= self.parameters.block_difficulty_bits

    def _on_standing(self, peer: bytes, standing: Standing) -> None:
        self.catching_up.heard(peer, standing.height)
        self.taking_over.heard(peer, standing.height)
        if standing.view:  # an observer has none: it does not vote yet
            self.consensus.suspicion.came(self._members[peer])
        self._effects += self._serving.help(peer, self._members[peer], standing, self._at.now)

    # -- what consensus says ---------------------------------------------------------------------------------------

    def _follow_consensus(self) -> None:
        """Do what follows from the events it was told of, step by step. What comes after the closing block does not count."""
        while not self.is_closed and (effect := self.consensus.next_effect()) is not None:
            match effect:
                case Execute():
                    self.consensus.on_executed(effect.block_hash, self._execute(effect))
                case Finalized():
                    self._commit(effect)
                case _:
                    self._effects.append(effect)

    def _execute(self, wanted: Execute[Draft]) -> Draft | None:
        """Is the block valid on its parent, and are its header's roots what executing it gives?"""
        block, header = wanted.block, wanted.block.header
        parent = self.branches.after(header.parent)
        place = (self.electorate.document, self.shard)
        if parent is None or (header.document, header.shard) != place or not self._is_mined(header):
            return None
        if not self._is_linked(header):
            return None
        payload = wanted.draft.payload if wanted.draft is not None else self._read_payload(block)
        if payload is None:
            return None
        transactions = [(pooled.id, pooled.transaction) for pooled in payload.transactions]
        bundles = [certified.bundle for certified in payload.bundles]
        verdicts = join((payload.verdicts, self._verdicts.pop(header.hash, None)))
        try:
            execution = execute(
                parent, self.rules, header.height, header.time, bundles, transactions, judge(verdicts), payload.entries
            )
        except InvalidBlock:
            return None
        if not execution.gives(block.header):
            return None
        self._proposing.on_block(block, self._at.now)
        return Draft(payload, execution, self._at.now)

    def _read_payload(self, block: Block) -> Payload | None:
        return read_payload(block, self.mempool, self.inbox, self.parameters)

    def _commit(self, finalized: Finalized[Draft]) -> None:
        """A block is final: change the state, store; publish it and deliver its bundles, if that is news. What is adopted from a
        peer others have sent already, and after a new disk it is the whole chain."""
        final, draft = finalized.final, finalized.draft
        header, execution = final.block.header, draft.execution
        assert execution is not None, "consensus had it executed"
        before, included = self.state.change, execution.overlay.included
        rows = self.state.commit(execution.overlay)
        self.last = CertifiedHeader(header, final.finality)
        certified = CertifiedBlock(final.block, final.finality, execution.effects)
        encoded = encode(certified)
        bundles = certify_bundles(execution, final)
        stored = tuple((b.bundle.destination, b.bundle.sequence, encode(b)) for b in bundles)
        forgotten = self._delivering.newly_taken()
        certified_checkpoint = self.state.certified.height if self.state.certified is not None else 0
        past = self._retention.past(header.height, header.time, certified_checkpoint)
        self._effects.append(Commit(header.height, header.view, certified, encoded, stored, forgotten, included, past))
        self._effects.append(Checkpoint(*rows))
        if header.proposer == self.member and not finalized.is_adopted:
            self._effects.append(Publish(blocks_topic(self.electorate.network, self.electorate.chain), encoded))
        self._effects += self._telling.news(self.last, before, self.state.change, finalized.is_adopted)
        sent = self._delivering.deliver(bundles, header.height, not finalized.is_adopted, self._at.now)
        self._effects += sent
        self.counters.bundles_out += len(bundles) if sent else 0
        for taken in draft.payload.bundles:
            self.inbox.prune(taken.bundle.source, self.state.cursor(taken.bundle.source))
            self._collecting.took(taken.bundle.source)
        self.mempool.remove([pooled.id for pooled in draft.payload.transactions])
        self.desk.took(draft.payload.entries)
        took = None if finalized.is_adopted else self._at.now - draft.executed_at
        if took is not None:
            self._proposing.on_final(took)
        self.counters.count(execution, took if header.proposer == self.member else None)
        self.catching_up.moved(header.height, self._at.now)
        self.taking_over.moved(header.height)
        if is_closed(self.state):
            self.closing = self.last
            self._effects += self._proposing.stop()

    # -- after every event -----------------------------------------------------------------------------------------

    def _finish(self, at: Instant) -> list[Effect]:
        """What may follow from any event: timers, blocks that became final, a proposal, a request; then hand it all over."""
        self._at = at
        if not self.is_closed:
            self.consensus.tick(at.now)
            self._follow_consensus()
        if not self.is_closed:
            self._work(at)
        if at.now >= self._next_standing:
            self._tell_standing(at.now)
        self._effects += self._delivering.poll(at.now)
        self._effects += self._refusing.publish(at.now)
        self._effects += self._serving.handing_over.poll(at.now)
        effects, self._effects = self._effects, []
        return effects

    def _work(self, at: Instant) -> None:
        """Propose, and ask for what is missing."""
        mining, refused = self._proposing.work(at)
        self._effects += mining
        self._refusing.add(refused)
        self._follow_consensus()
        self._effects += self._collecting.ask_for_more(self.state)
        self._effects += self._collecting.poll(self.state, at.now)
        if not self.consensus.knows_of_work and self._proposing.waiting(self.consensus.head):
            self.consensus.work_waits(at.now)
        self._fetch(at.now)

    def _fetch(self, now: int) -> None:
        """Ask for what others have: blocks, or, far behind, the state."""
        self._effects += self.taking_over.next_requests(now)
        self._effects += self.taking_over.news()
        if not self.taking_over.waits(now) and (request := self.catching_up.next_request(now)) is not None:
            peer, first = request
            self._effects.append(Send(peer, ChainRequest(first)))
        if self.taking_over.chosen is not None and self.is_handed_over:
            self._effects.append(FinishHandoff(self.taking_over.chosen))

    def _tell_standing(self, now: int) -> None:
        """Together with something else for all members, which is to wake them anyway; or alone, if nothing comes in time."""
        if now >= self._latest_standing or any(isinstance(effect, Broadcast) for effect in self._effects):
            self._next_standing = _FAR_AWAY if self._are_all_closed() else now + self.parameters.heartbeat
            self._effects.append(Broadcast(self._serving.standing))

    @property
    def _latest_standing(self) -> int:
        return self._next_standing + (0 if self.is_closed else self._half_beat)

    def _are_all_closed(self) -> bool:
        """Whether all members have the closing block: nobody needs to be told of it any more, but who comes back."""
        told = self.catching_up.told
        return self.is_closed and len(told) == len(self._members) - 1 and told[-1] >= self.state.height


def _is_inside(rules: Rules, transaction: Transaction) -> bool:
    return is_inside(rules, transaction.order.legs)
