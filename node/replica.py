"""One member of one committee: consensus, ledger, mempool, channels and catch-up, wired together.

Pure: each method is one event and returns the effects to perform, in order (see ``node.effects``). The same class runs on
libp2p and in the simulator.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct, structs

from node.blocks import (
    Body,
    BodyError,
    Candidate,
    build_block,
    choose_bundles,
    choose_transactions,
    genesis_header,
    read_body,
    roots_match,
)
from node.consensus.catch_up import CatchUp
from node.consensus.simplex import Diverged, Simplex, Timeouts, Turn
from node.effects import (
    Abstain,
    Broadcast,
    Checkpoint,
    CheckSignatures,
    Commit,
    Effect,
    Journal,
    Mine,
    Notable,
    Publish,
    Refuse,
    Send,
    SendBlocks,
    SendBundles,
    StopMining,
)
from node.inbox import Inbox
from node.ledger.execution import Execution, InvalidBlock, admit, execute
from node.ledger.state import State
from node.mempool import Entry, Mempool
from node.protocol import merkle
from node.protocol.block import Block, Outcome
from node.protocol.certificate import CertifiedBlock, FinalBlock
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis, Parameters
from node.protocol.messages import (
    Ballot,
    BodyReply,
    BodyRequest,
    BundleDelivery,
    BundleRequest,
    Certified,
    ChainReply,
    ChainRequest,
    PeerMessage,
    Proposal,
    Standing,
)
from node.protocol.puzzle import leading_zero_bits
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction

_SERVE_INTERVAL = 100
_MAX_UNFINALIZED = 64
_MAX_CLAIM = 1_000
_MAX_BODIES = 128
_NEVER = 1 << 62


class Instant(NamedTuple):
    """A moment, ms: ``now`` on a monotonic clock, for timers; ``wall`` since the Unix epoch, for block time."""

    now: int
    wall: int


class Counters(Struct):
    """Totals since the start."""

    committed: int = 0
    rejected: int = 0
    expired: int = 0
    blocks: int = 0
    bundles_in: int = 0
    bundles_out: int = 0
    proposals: int = 0
    proposal_latency: int = 0
    """Sum over own proposals that became final, ms."""


class _Checking(Struct, frozen=True):
    """Signatures under check: new transactions, and the proposal that waits for them, if one does."""

    entries: tuple[Entry, ...]
    proposal: Proposal | None


class _Building(Struct, frozen=True):
    """A proposal whose nonce is being mined."""

    token: int
    turn: Turn
    candidate: Candidate


class Replica:
    """``state`` is the ledger after ``last``, the last final block stored (None: genesis); ``journal`` the consensus
    records stored for later views. ``abstain_through``: the view stored with ``Abstain``; None when this member's votes may
    be lost and it is not known yet which: then it follows, and votes in no view that it may have voted in.

    Raises:
        Diverged: from any method: this node must stop, its state differs from what its committee made final.
    """

    def __init__(
        self,
        genesis: Genesis,
        document: EpochDocument,
        key: KeyPair,
        state: State,
        last: CertifiedBlock | None,
        journal: Sequence[Journal],
        at: Instant,
        abstain_through: int | None = 0,
    ) -> None:
        seat = document.seat_of(key.public)
        if seat is None:
            raise ValueError("this node has no seat in the epoch")
        self.shard, self.member = seat
        self.document = document
        self.electorate = document.electorates[self.shard]
        self.parameters: Parameters = genesis.parameters
        self.rules = state.rules
        self.state = state
        self.mempool = Mempool()
        self.counters = Counters()
        self._at = at
        self._members = {public_key: i for i, public_key in enumerate(self.electorate.keys)}
        self._bodies: dict[bytes, Body] = {}
        self._executions: dict[bytes, Execution] = {}
        self._proposed_at: dict[bytes, int] = {}
        self._inbox = Inbox(self.shard, document.electorates)
        self._checks: dict[int, _Checking] = {}
        self._building: _Building | None = None
        self._token = 0
        self._nothing_at: Instant | None = None
        self._last_block_at = at.now
        self._next_status = at.now
        self._polled = 0
        self._served: dict[tuple[bytes, type], int] = {}
        self._effects: list[Effect] = []
        final = last.block.header if last is not None else genesis_header(genesis, self.shard, state)
        certificate = last.finality.certificate if last is not None and not last.finality.descendants else None
        self._committed = final.hash
        """The block whose effects ``state`` holds: consensus may be ahead of it within one event."""
        self.catch_up = CatchUp(final.height, at.now)
        view = self.parameters.heartbeat + self.parameters.view_timeout
        timeouts = Timeouts(view=view, retransmit=self.parameters.view_timeout, skip=view)
        self.consensus = Simplex(
            key,
            self.member,
            self.electorate,
            final,
            certificate,
            timeouts,
            self._execute,
            journal,
            at.now,
            _NEVER if abstain_through is None else abstain_through,
        )
        self._voted_views: dict[bytes, int] | None = {} if abstain_through is None else None
        self._learn_abstention()

    # -- events ----------------------------------------------------------------------------------------------------

    def start(self, at: Instant) -> list[Effect]:
        """First event after construction."""
        return self._finish(at)

    def on_message(self, peer: bytes, message: PeerMessage, at: Instant) -> list[Effect]:
        """A decoded message from a node of the network, authenticated by its public key."""
        self._at = at
        member = self._members.get(peer)
        if isinstance(message, BundleDelivery):
            self._on_bundle(message.bundle)
        elif isinstance(message, BundleRequest):
            self._on_bundle_request(peer, message)
        elif member is not None:
            self._on_member_message(peer, member, message)
        return self._finish(at)

    def on_peer_up(self, peer: bytes, at: Instant) -> list[Effect]:
        """A node is connected."""
        if peer in self._members:
            self._effects.append(Send(peer, self._status()))
        return self._finish(at)

    def on_peer_down(self, peer: bytes, at: Instant) -> list[Effect]:
        self.catch_up.lost(peer)
        return self._finish(at)

    def on_transactions(self, batch: Sequence[bytes], at: Instant) -> list[Effect]:
        """Encoded transactions from clients."""
        candidates, refusals = self.mempool.screen(batch)
        time = max(self.state.time, at.wall)
        entries = []
        for entry in candidates:
            code = admit(self.state, self.rules, entry.id, entry.transaction, time)
            if code is Code.OK:
                entries.append(entry)
            else:
                refusals.append(Refusal(entry.id, code))
        if entries:
            self._check(tuple(entries), None)
        self._refuse(refusals)
        return self._finish(at)

    def on_signatures_checked(self, token: int, verdicts: Sequence[bool], at: Instant) -> list[Effect]:
        """The answer to ``CheckSignatures``."""
        self._at = at
        checking = self._checks.pop(token, None)
        if checking is not None:
            refusals = self.mempool.settle(checking.entries, verdicts)
            if checking.proposal is None:
                self._refuse(refusals)
            elif all(verdicts):
                self.consensus.on_proposal(checking.proposal, at.now)
            else:
                self.consensus.on_invalid_proposal(checking.proposal.block.header.view, at.now)
        return self._finish(at)

    def on_mined(self, token: int, nonce: bytes, at: Instant) -> list[Effect]:
        """The answer to ``Mine``."""
        self._at = at
        building = self._building
        if building is not None and building.token == token:
            self._building = None
            self._propose(building.turn, building.candidate, nonce)
        return self._finish(at)

    def on_tick(self, at: Instant) -> list[Effect]:
        """Time passed; to be called at ``deadline`` at the latest."""
        return self._finish(at)

    @property
    def deadline(self) -> int:
        """When the next ``on_tick`` is due (ms, monotonic)."""
        return min(self.consensus.deadline, self._next_status, self._proposal_due(), self.catch_up.deadline)

    # -- messages --------------------------------------------------------------------------------------------------

    def _on_member_message(self, peer: bytes, member: int, message: PeerMessage) -> None:
        """A message only members of this committee send."""
        now = self._at.now
        if isinstance(message, Ballot):
            if message.vote.signer == member:
                self.consensus.on_vote(message.vote, now)
        elif isinstance(message, Proposal):
            if message.vote.signer == member:
                self._on_proposal(message)
        elif isinstance(message, Certified):
            self.consensus.on_certificates(message.certificates, now)
        elif isinstance(message, Standing):
            self._on_status(peer, message)
        elif isinstance(message, ChainRequest):
            if message.first <= self.state.height and self._may_serve(peer, ChainRequest):
                self._effects.append(SendBlocks(peer, message.first))
        elif isinstance(message, ChainReply):
            if self.catch_up.answered(peer):
                self._adopt(message)
        elif isinstance(message, BodyRequest) and self._may_serve(peer, BodyRequest):
            self.consensus.on_block_request(peer, message.hash)
        elif isinstance(message, BodyReply) and self.consensus.wants(message.block.header.hash):
            self.consensus.on_block(message.block, now)

    def _on_proposal(self, proposal: Proposal) -> None:
        """Check what is cheap, then its bundles, then the signatures not checked before; then consensus sees it."""
        header = proposal.block.header
        if not self.consensus.expects(proposal):
            return
        is_timely = header.time <= self._at.wall + self.parameters.clock_skew
        is_mined = leading_zero_bits(header.hash) >= self.parameters.block_difficulty_bits
        body = self._body_of(proposal.block) if is_timely and is_mined else None
        if body is None:
            self.consensus.on_invalid_proposal(header.view, self._at.now)
            return
        unknown = tuple(entry for entry in body.entries if self.mempool.find(entry.encoded) is None)
        if not unknown:
            self.consensus.on_proposal(proposal, self._at.now)
        elif sum(c.proposal is not None and c.proposal.vote.view == header.view for c in self._checks.values()) < 2:
            self._check(unknown, proposal)

    def _on_status(self, peer: bytes, status: Standing) -> None:
        self.catch_up.heard(peer, status.height)
        if self._voted_views is not None:
            self._voted_views[peer] = max(status.view, status.voted)
            self._learn_abstention()
        help = self.consensus.catch_up_help(status.view)
        if help is not None and self._may_serve(peer, Standing):
            self._effects.append(Send(peer, help))

    def _learn_abstention(self) -> None:
        """A member whose votes are lost may have voted in the view after the greatest one it could have left. It left none
        without a quorum's votes, and of 2f+1 other members one at least is honest and was of that quorum. Claims are not
        proven, so one far beyond the views this member has come to know counts for no more than ``_MAX_CLAIM`` of them."""
        others = len(self.electorate.keys) - 1
        heard = self._voted_views
        if heard is None or len(heard) < min(2 * self.electorate.faults_tolerated + 1, others):
            return
        through = min(max(heard.values(), default=-1), self.consensus.view + _MAX_CLAIM) + 1
        self._voted_views = None
        self.consensus.abstain_through = through
        self._effects += [Abstain(through), Notable(f"its earlier votes may be lost: no vote before view {through + 1}")]

    def _on_bundle(self, certified: CertifiedBundle) -> None:
        source = certified.bundle.source
        if self._inbox.receive(certified, self.state.cursor(source)):
            self.counters.bundles_in += 1

    def _on_bundle_request(self, peer: bytes, request: BundleRequest) -> None:
        electorate = self.document.electorates.get(request.destination)
        if electorate is None or peer not in electorate.keys or request.destination == self.shard:
            return
        if request.sequence <= self.state.sequence(request.destination) and self._may_serve(peer, BundleRequest):
            self._effects.append(SendBundles(peer, request.destination, request.sequence))

    def _may_serve(self, peer: bytes, kind: type) -> bool:
        """Whether a peer may cost us another answer of this kind yet: requests must not amplify."""
        last = self._served.get((peer, kind))
        if last is not None and self._at.now - last < _SERVE_INTERVAL:
            return False
        self._served[(peer, kind)] = self._at.now
        return True

    # -- blocks ----------------------------------------------------------------------------------------------------

    def _body_of(self, block: Block) -> Body | None:
        """The payload, decoded and its bundles verified, or None when it breaks a rule."""
        hash = block.header.hash
        body = self._bodies.get(hash)
        if body is None:
            try:
                body = read_body(block, self.mempool, self._inbox, self.parameters)
            except BodyError:
                return None
            self._keep_body(hash, body)
        return body

    def _keep_body(self, hash: bytes, body: Body) -> None:
        """Remember a decoded payload; the oldest gives way, and is read again should it be needed."""
        if len(self._bodies) >= _MAX_BODIES:
            del self._bodies[next(iter(self._bodies))]
        self._bodies[hash] = body

    def _execute(self, block: Block) -> bool:
        """Consensus asks: is this block valid on its parent, and are its header's roots what executing it gives?"""
        header = block.header
        hash = header.hash
        if hash in self._executions:
            return True
        parent = self._on_top_of(header.parent)
        body = self._body_of(block)
        if parent is None or body is None or header.height != parent.height + 1:
            return False
        if (header.network, header.shard, header.epoch) != (
            self.electorate.network,
            self.shard,
            self.electorate.epoch,
        ) or leading_zero_bits(hash) < self.parameters.block_difficulty_bits:
            return False
        try:
            execution = self._run(parent, header.height, header.time, body)
        except InvalidBlock:
            return False
        if not roots_match(header, execution):
            return False
        self._executions[hash] = execution
        self._last_block_at = self._at.now
        return True

    def _run(self, parent: State | Execution, height: int, time: int, body: Body) -> Execution:
        transactions = [(entry.id, entry.transaction) for entry in body.entries]
        bundles = [certified.bundle for certified in body.bundles]
        return execute(parent, self.rules, height, time, bundles, transactions, Transaction.has_valid_signatures)

    def _on_top_of(self, hash: bytes) -> State | Execution | None:
        """The ledger after the block with this hash: the last committed one or an executed descendant."""
        if hash == self._committed:
            return self.state
        return self._executions.get(hash)

    # -- proposing -------------------------------------------------------------------------------------------------

    def _proposal_due(self) -> int:
        """When this member, if it leads, shall propose: at once or after a pause with work, else at the heartbeat."""
        turn = self.consensus.turn()
        if turn is None or self._building is not None:
            return self.consensus.deadline
        pause = self.parameters.heartbeat
        base = self._on_top_of(turn.parent)
        if base is not None and base.height - self.state.height > _MAX_UNFINALIZED:
            return self._last_block_at + pause  # finality has to catch up: its proof holds a header for each block
        if self._nothing_at != self._at and self._has_work(turn.parent):
            is_full = len(self.mempool) >= self.parameters.block_transactions
            pause = 0 if is_full else self.parameters.block_interval
        return self._last_block_at + pause

    def _has_work(self, parent: bytes) -> bool:
        """Whether a block on ``parent`` would not be empty."""
        in_flight = 0
        base = self._on_top_of(parent)
        if base is None:
            return False
        view: State | Execution = base
        while isinstance(view, Execution):
            body = self._bodies.get(parent)
            if body is None:
                break
            in_flight += len(body.entries)
            parent = body.parent
            view = self._on_top_of(parent) or self.state
        if len(self.mempool) > in_flight:
            return True
        reader = base.overlay if isinstance(base, Execution) else base
        return any(self._inbox.has_next(source, reader.cursor(source)) for source in self._inbox.sources)

    def _build(self) -> None:
        """Build a proposal and have its nonce mined, when it is this member's turn and time."""
        if self._building is not None and self._building.turn.view != self.consensus.view:
            self._building = None
            self._effects.append(StopMining())
        turn = self.consensus.turn()
        if turn is None or self._building is not None or self._at.now < self._proposal_due():
            return
        parent = self._on_top_of(turn.parent)
        if parent is None:
            return
        time = max(parent.time, self._at.wall)
        entries, stale, expired = choose_transactions(self.state, parent, self.rules, self.mempool, time)
        self.mempool.remove(stale)
        self._refuse(expired)
        bundles = choose_bundles(parent, self._inbox)
        if not entries and not bundles[0] and self._at.now < self._last_block_at + self.parameters.heartbeat:
            self._nothing_at = self._at  # what waits can go in no block yet: nothing to do before the next event
            return
        candidate = build_block(parent, turn, self.member, self.electorate, self.rules, time, bundles, entries)
        bits = self.parameters.block_difficulty_bits
        if bits == 0:
            self._propose(turn, candidate, bytes(8))
            return
        self._token += 1
        self._building = _Building(self._token, turn, candidate)
        self._effects.append(Mine(self._token, candidate.block.header.mining_prefix, bits))

    def _propose(self, turn: Turn, candidate: Candidate, nonce: bytes) -> None:
        block = structs.replace(candidate.block, header=structs.replace(candidate.block.header, nonce=nonce))
        hash = block.header.hash
        if turn.view != self.consensus.view or self._on_top_of(turn.parent) is None:
            return
        self._keep_body(hash, candidate.body)
        self._executions[hash] = candidate.execution
        self._proposed_at[hash] = self._last_block_at = self._at.now
        self.consensus.propose(turn, block, self._at.now)

    # -- finality --------------------------------------------------------------------------------------------------

    def _adopt(self, message: ChainReply) -> None:
        """Final blocks from a peer: each must prove itself and follow on the last one."""
        for final in message.blocks:
            block, header = final.block, final.block.header
            if header.height <= self.state.height:
                continue
            is_proven = header.parent == self.consensus.final_hash and final.finality.proves(header, self.electorate)
            if not is_proven or block.payload_root() != header.payload_root:
                return
            if not self._execute(block):
                raise Diverged(f"final block {header.height} of shard {self.shard} does not execute here")
            self._commit(FinalBlock(block, final.finality))
            self.consensus.adopt(header, final.finality, self._at.now)
            self._commit_finalized()

    def _commit_finalized(self) -> None:
        for final in self.consensus.finalized:
            self._commit(final)
        self.consensus.finalized.clear()

    def _commit(self, final: FinalBlock) -> None:
        """A block is final: change the state, store, publish, deliver its bundles."""
        header, hash = final.block.header, final.block.header.hash
        execution, body = self._executions.pop(hash), self._body_of(final.block)
        assert body is not None, "it was executed"
        self.state.commit(execution)
        self._committed = hash
        certified = CertifiedBlock(final.block, final.finality, execution.effects)
        encoded = encode(certified)
        bundles = self._certify_bundles(execution, final)
        stored = tuple((b.bundle.destination, b.bundle.sequence, encode(b)) for b in bundles)
        self._effects.append(Commit(header.height, header.view, certified, encoded, stored))
        if header.height % self.parameters.checkpoint_interval == 0:
            self._effects.append(Checkpoint(header.height, self.state.checkpoint()))
        if header.proposer == self.member:
            self._effects.append(Publish(encoded))
        self._deliver(bundles, header.height)
        for bundle in body.bundles:
            self._inbox.prune(bundle.bundle.source, self.state.cursor(bundle.bundle.source))
        self.mempool.remove([entry.id for entry in body.entries])
        self._count(execution, hash)
        self._forget_forks(header.height)
        self.catch_up.moved(header.height, self._at.now)

    def _certify_bundles(self, execution: Execution, final: FinalBlock) -> list[CertifiedBundle]:
        if not execution.outbox:
            return []
        leaves = [encode(bundle) for bundle in execution.outbox]
        return [
            CertifiedBundle(bundle, final.block.header, final.finality, merkle.branch(leaves, i))
            for i, bundle in enumerate(execution.outbox)
        ]

    def _deliver(self, bundles: Sequence[CertifiedBundle], height: int) -> None:
        """f+1 members, in turn, send a bundle to all of its destination: one of them at least is honest. Should all of
        them fail, the destination asks."""
        size = len(self.electorate.keys)
        if (self.member - height) % size > self.electorate.faults_tolerated:
            return
        for certified in bundles:
            delivery = BundleDelivery(certified)
            for key in self.document.electorates[certified.bundle.destination].keys:
                self._effects.append(Send(key, delivery))
            self.counters.bundles_out += 1

    def _count(self, execution: Execution, hash: bytes) -> None:
        counters = self.counters
        counters.blocks += 1
        for receipt in execution.effects.receipts:
            if receipt.outcome is Outcome.COMMITTED:
                counters.committed += 1
            elif receipt.outcome is Outcome.REJECTED:
                counters.rejected += 1
            elif receipt.outcome is Outcome.EXPIRED:
                counters.expired += 1
        proposed_at = self._proposed_at.pop(hash, None)
        if proposed_at is not None:
            counters.proposals += 1
            counters.proposal_latency += self._at.now - proposed_at

    def _forget_forks(self, height: int) -> None:
        """Drop what was prepared for blocks that can no longer become final."""
        for hash in [hash for hash, e in self._executions.items() if e.height <= height]:
            del self._executions[hash]
        for hash in [hash for hash, body in self._bodies.items() if body.height <= height]:
            del self._bodies[hash]
            self._proposed_at.pop(hash, None)

    # -- after every event -----------------------------------------------------------------------------------------

    def _finish(self, at: Instant) -> list[Effect]:
        """What may follow from any event: timers, blocks that became final, a proposal, a request; then hand it all over."""
        self._at = at
        self.consensus.tick(at.now)
        self._commit_finalized()
        if at.now >= self._next_status:
            self._next_status = at.now + self.parameters.heartbeat
            self._effects.append(Broadcast(self._status()))
            self._poll_channel()
        self._build()
        self._commit_finalized()
        peer = self.catch_up.next_request(at.now)
        if peer is not None:
            self._effects.append(Send(peer, ChainRequest(self.state.height + 1)))
        return self._take_effects()

    def _take_effects(self) -> list[Effect]:
        """All effects; consensus' records and votes first, since a commit forgets the records of its views."""
        effects = self.consensus.effects + self._effects
        self.consensus.effects, self._effects = [], []
        return effects

    def _status(self) -> Standing:
        return Standing(self.state.height, self.consensus.view, self.consensus.voted)

    def _poll_channel(self) -> None:
        """Ask one source shard, each in turn, for what follows the cursor: what was lost on the way comes again."""
        sources = self._inbox.sources
        if not sources:
            return
        self._polled += 1
        source = sources[self._polled % len(sources)]
        keys = self.document.electorates[source].keys
        target = keys[(self.member + self._polled // len(sources)) % len(keys)]
        cursor = self.state.cursor(source)
        if not self._inbox.has_next(source, cursor):
            self._effects.append(Send(target, BundleRequest(self.shard, cursor + 1)))

    def _check(self, entries: tuple[Entry, ...], proposal: Proposal | None) -> None:
        self._token += 1
        self.mempool.expect(entries)
        self._checks[self._token] = _Checking(entries, proposal)
        self._effects.append(CheckSignatures(self._token, tuple(entry.transaction for entry in entries), proposal is not None))

    def _refuse(self, refusals: Sequence[Refusal]) -> None:
        if refusals:
            self._effects.append(Refuse(tuple(refusals)))
