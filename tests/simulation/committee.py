"""A committee of real ``Simplex`` members on a virtual network, clock and disk, all driven by one seed.

One heap of events; delays have heavy tails; messages are lost, repeated, reordered and cut off, also one way only; members
crash between any two effects and come back with what their disk holds; the power goes out for all; one member may lie. The
invariants are asserted as the effects are performed, so after every event. When the faults stop, everybody must move on.
"""

from collections import Counter, deque
from functools import partial
from random import Random
from typing import Any, cast

from msgspec import Struct, structs

from node.consensus.journal import remembered
from node.consensus.patience import Timeouts
from node.consensus.round import Seat
from node.consensus.simplex import Diverged, Execute, Finalized, Said, Simplex, Turn
from node.effects import Ban, Broadcast, Journal, LoseVotes, Send
from node.protocol.block import Block, Header, skip_height
from node.protocol.certificate import Electorate, FinalBlock, Vote, VoteKind, sign_vote
from node.protocol.codec import decode, encode
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.merkle import EMPTY_ROOT
from node.protocol.messages import (
    Ballot,
    BodyReply,
    BodyRequest,
    Certified,
    ChainReply,
    PeerMessage,
    Proposal,
    Standing,
    TransactionsReply,
    TransactionsRequest,
)
from tests.simulation.loop import Loop
from tests.simulation.network import arrivals
from tests.simulation.plan import Links
from tests.simulation.violation import violated
from tests.simulation.votes import Votes

NETWORK, DOCUMENT = b"simulate", bytes([1] * 32)
KEYS = [KeyPair(bytes([0] * 31 + [i + 1])) for i in range(16)]
INVALID = b"does not execute"
TIMEOUTS = Timeouts(view=150, busy=120, retransmit=100)
_CALM = Links((1, 12))
STATUS_INTERVAL = 150
BLOCKS_PER_REPLY = 10


def electorate_of(size: int, kind: type[Electorate] = Electorate) -> Electorate:
    return kind(NETWORK, DOCUMENT, 0, tuple(key.public for key in KEYS[:size]))


def make_block(view: int, height: int, parent: bytes, skip: bytes, proposer: int, *transactions: bytes) -> Block:
    """A block whose only content is opaque bytes."""
    block = Block(cast(Header, None), (), transactions)
    rest = (EMPTY_ROOT, EMPTY_ROOT, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH)
    return Block(
        Header(DOCUMENT, 0, view, height, parent, skip, height, proposer, block.payload_root(), *rest, bytes(8)), (), transactions
    )


GENESIS = make_block(0, 0, ZERO_HASH, ZERO_HASH, 0).header


class CommitteePlan(Struct, frozen=True):
    """What goes wrong in a run. Times in virtual ms."""

    members: int = 4
    faulty_until: int = 2_500
    links: Links = Links((1, 20))
    cuts: int = 0
    crashes: int = 0
    power_cuts: int = 0
    liar: str = ""
    """``""``, ``"silent"``, ``"equivocates"`` (as leader), ``"forks"`` (builds beside the last block, not on it),
    ``"votes twice"`` (and answers with junk), ``"favours"`` (speaks to one member of each view only), ``"mute"``
    (never proposes), ``"slow"`` (proposes just before the others give up), ``"withholds"`` (gives the next leader neither its
    proposal nor its votes, nor transactions), ``"frames"`` (votes for nothing but to nullify each view, and the next one)."""
    is_busy: bool = False
    """Whether there is always work."""
    building: tuple[int, int] = (1, 24)
    """How long a leader takes to make a block."""
    unheard: float = 0.1
    """Share of proposals that a member does not have the transactions of."""


def random_plan(random: Random) -> CommitteePlan:
    members = random.choices([4, 1, 5, 7], [90, 3, 4, 3])[0]
    liars = (
        ["", "silent", "equivocates", "forks", "votes twice", "favours", "mute", "slow", "withholds", "frames"]
        if members >= 4
        else [""]
    )
    return CommitteePlan(
        members=members,
        links=Links(
            (1, 20), random.choice([0.0, 0.02, 0.1]), random.choice([0.0, 0.02, 0.1, 0.3, 0.5]), random.choice([0.0, 0.1])
        ),
        cuts=random.choice([0, 0, 2, 6]),
        crashes=random.choice([0, 0, 3, 10]),
        power_cuts=random.choice([0, 0, 1, 2]),
        liar=random.choice(liars),
        is_busy=random.random() < 0.5,
    )


class Disk:
    """What survives a crash."""

    def __init__(self) -> None:
        self.journal: dict[tuple[int, str], Journal] = {}
        self.chain: list[FinalBlock] = []

    def commit(self, final: FinalBlock) -> None:
        self.chain.append(final)
        view = final.block.header.view
        self.journal = {key: record for key, record in self.journal.items() if key[0] > view}


class Member:
    """A slot of the committee: a disk, and while it is up, a Simplex."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.disk = Disk()
        self.simplex: Simplex[Header] | None = None
        self.incarnation = 0
        self.torn = False
        """Crashes while performing its next effects."""
        self.armed = -1
        self.building: tuple[int, bytes] | None = None
        self.headers: dict[bytes, Header] = {}
        self.partial: dict[bytes, Proposal] = {}
        """Proposals without their transactions."""

    @property
    def height(self) -> int:
        return len(self.disk.chain)

    def execute(self, block: Block) -> Header | None:
        """The ledger's stand-in: heights number the blocks, and what is marked invalid is."""
        parent = self.headers.get(block.header.parent)
        assert parent is not None, "executes a block before its parent"
        if block.header.height != parent.height + 1 or INVALID in block.transactions:
            return None
        if block.header.skip != self.skip_after(parent):
            return None
        self.headers[block.header.hash] = block.header
        return block.header

    def skip_after(self, parent: Header) -> bytes:
        """Found by walking down parents."""
        height, header = skip_height(parent.height + 1), parent
        while header.height > height:
            header = self.headers[header.parent]
        return header.hash

    def peaks(self, header: Header) -> dict[int, bytes]:
        found = {header.height: header.hash}
        while header.height:
            header = self.headers[header.skip]
            found[header.height] = header.hash
        return found


class Committee(Loop):
    """The simulation of one seed. ``simplex`` and ``electorate`` let mutants in."""

    def __init__(
        self,
        seed: int,
        plan: CommitteePlan | None = None,
        simplex: type[Simplex[Header]] = Simplex,
        electorate: type[Electorate] = Electorate,
    ) -> None:
        super().__init__()
        self.random = Random(seed)
        self.plan = plan or random_plan(self.random)
        self.electorate = electorate_of(self.plan.members, electorate)
        self.members = [Member(i) for i in range(self.plan.members)]
        self.liar = self.random.randrange(self.plan.members) if self.plan.liar else -1
        self.story: deque[tuple[Any, ...]] = deque(maxlen=60)
        self.counts: Counter[str] = Counter()
        self.chain: dict[int, bytes] = {}
        self.votes = [Votes(f"member {i}") for i in range(self.plan.members)]
        self._simplex = simplex
        self._cut: set[tuple[int, int]] = set()
        self._indices = {key: i for i, key in enumerate(self.electorate.keys)}
        self._seen: dict[int, dict[bytes, Proposal]] = {}
        self._forged: dict[int, Proposal] = {}
        self._bodies: dict[bytes, Block] = {}
        """All blocks there are."""
        self._heard = Random(f"{seed}/heard")
        self._faulty = True
        self._schedule_faults()
        for member in self.members:
            self.after(self.random.randrange(50), partial(self._start, member))

    # -- running ---------------------------------------------------------------------------------------------------

    def run_plan(self, blocks: int = 3, within: int = 20_000) -> None:
        """Run through the faults and then until every honest member has ``blocks`` new final blocks.

        Raises:
            ViolationError: an invariant is broken, or that did not happen ``within`` virtual ms.
        """
        self.run(self.plan.faulty_until)
        self.heal()
        target = max(self.chain, default=0) + blocks
        if not self.run(self.time + within, lambda: all(member.height >= target for member in self.honest)):
            heights = [member.height for member in self.members]
            views = [member.simplex.view if member.simplex else None for member in self.members]
            violated("liveness", f"stuck: heights {heights}, views {views}, {target} wanted")

    @property
    def honest(self) -> list[Member]:
        return [member for member in self.members if member.index != self.liar]

    def heal(self) -> None:
        """The faults stop: the network delivers, all members are up. The liar goes on lying."""
        self._faulty = False
        self._cut.clear()
        for member in self.members:
            member.torn = False
            if member.simplex is None:
                self._start(member)

    # -- faults ----------------------------------------------------------------------------------------------------

    def _schedule_faults(self) -> None:
        plan = self.plan
        for count, fault in ((plan.cuts, self._partition), (plan.crashes, self._tear), (plan.power_cuts, self._power_cut)):
            for _ in range(count):
                self.after(self.random.randrange(plan.faulty_until), fault)

    def _partition(self) -> None:
        everybody = range(len(self.members))
        side = {i for i in everybody if self.random.random() < 0.5}
        style = self.random.randrange(4)
        pairs = {(i, j) for i in everybody for j in everybody if i != j}
        if style == 0:
            self._cut = {(i, j) for i, j in pairs if (i in side) != (j in side)}
        elif style == 1:
            self._cut = {(i, j) for i, j in pairs if i in side and j not in side}
        elif style == 2:
            self._cut = {pair for pair in pairs if self.random.random() < 0.4}
        else:
            self._cut = set()
        self.story.append((self.time, "cut", sorted(self._cut)))

    def _tear(self) -> None:
        if self._faulty:
            self.random.choice(self.members).torn = True

    def _power_cut(self) -> None:
        self.story.append((self.time, "power cut"))
        for member in self.members:
            self._crash(member)

    def _crash(self, member: Member) -> None:
        if member.simplex is None or not self._faulty:
            return
        self.story.append((self.time, member.index, "crash"))
        self.counts["crashes"] += 1
        member.simplex, member.torn, member.partial = None, False, {}
        self.after(self.random.randrange(20, 800), partial(self._start, member))

    # -- members ---------------------------------------------------------------------------------------------------

    def _start(self, member: Member) -> None:
        if member.simplex is not None:
            return
        member.incarnation += 1
        member.building, member.armed = None, -1
        member.headers = {GENESIS.hash: GENESIS} | {f.block.header.hash: f.block.header for f in member.disk.chain}
        final, certificate = GENESIS, None
        if member.disk.chain:
            last = member.disk.chain[-1]
            final = last.block.header
            certificate = None if last.finality.path else last.finality.certificate
        records = [remembered(member.disk.journal[key]) for key in sorted(member.disk.journal)]
        seat = Seat(KEYS[member.index], member.index, self.electorate)
        member.simplex = self._simplex(seat, final, member.peaks(final), certificate, TIMEOUTS, records, self.time)
        self.story.append((self.time, member.index, "start", final.height, member.simplex.view, len(records)))
        self._settle(member)
        self.after(self.random.randrange(STATUS_INTERVAL), partial(self._say_status, member, member.incarnation))

    def _say_status(self, member: Member, incarnation: int) -> None:
        if member.simplex is not None and member.incarnation == incarnation:
            for other in self.members:
                if other is not member:
                    self._send(member, other.index, Standing(member.height, member.simplex.view))
            self.after(STATUS_INTERVAL, partial(self._say_status, member, incarnation))

    def _wake(self, member: Member, incarnation: int) -> None:
        if member.simplex is not None and member.incarnation == incarnation:
            member.simplex.tick(self.time)
            self._settle(member)

    def _build(self, member: Member, incarnation: int, turn: Turn) -> None:
        if member.simplex is None or member.incarnation != incarnation:
            return
        parent = member.headers[turn.parent]
        content = self.random.randbytes(8)
        block = make_block(turn.view, parent.height + 1, turn.parent, member.skip_after(parent), member.index, content)
        member.headers[block.header.hash] = block.header
        self._bodies[block.header.hash] = block
        member.simplex.propose(turn, block, block.header, self.time)
        self._settle(member)

    def _deliver(self, receiver: Member, sender: int, message: PeerMessage) -> None:
        simplex = receiver.simplex
        if simplex is None:
            return
        self.story.append((self.time, sender, "to", receiver.index, message))
        match message:
            case Proposal():
                self._propose_to(receiver, simplex, message)
            case Ballot(vote):
                simplex.on_vote(vote, self.time)
            case Certified(certificates):
                simplex.on_certificates(self.electorate.keys[sender], certificates, self.time)
            case BodyRequest() | TransactionsRequest() | TransactionsReply():
                self._on_bodies(receiver, simplex, sender, message)
            case BodyReply(block):
                simplex.on_block(block, self.time)
            case Standing(height, view):
                self._help(receiver, sender, height, view)
            case ChainReply(blocks):
                height = receiver.height
                simplex.on_final_blocks(self.electorate.keys[sender], blocks, self.time)
                self._settle(receiver)
                self.counts["adopted"] += receiver.height - height
        self._settle(receiver)

    def _on_bodies(
        self,
        receiver: Member,
        simplex: Simplex[Header],
        sender: int,
        message: BodyRequest | TransactionsRequest | TransactionsReply,
    ) -> None:
        peer = self.electorate.keys[sender]
        match message:
            case BodyRequest(_, hash) if (body := simplex.body(hash)) is not None:
                self._perform(receiver, simplex, Send(peer, BodyReply(body)))
            case TransactionsRequest(hash) if simplex.body(hash) is not None or receiver.index == self.liar:
                self._perform(receiver, simplex, Send(peer, TransactionsReply(hash, self._bodies[hash].transactions)))
            case TransactionsReply(hash, transactions) if simplex.awaits(hash) and hash in receiver.partial:
                if transactions == self._bodies[hash].transactions:
                    self._complete(simplex, receiver.partial.pop(hash))

    def _propose_to(self, receiver: Member, simplex: Simplex[Header], proposal: Proposal) -> None:
        if receiver.index == self.liar:
            self._seen.setdefault(proposal.vote.view, {})[proposal.vote.block] = proposal
        if not simplex.welcomes(proposal, self.time):
            return
        if self._heard.random() < self.plan.unheard:
            receiver.partial[proposal.vote.block] = proposal
            simplex.lacks(proposal, (0,), self.time)
        else:
            self._complete(simplex, proposal)

    def _complete(self, simplex: Simplex[Header], proposal: Proposal) -> None:
        """Its transactions are all there."""
        simplex.is_whole(proposal, self.time)
        simplex.on_proposal(proposal, self._bodies[proposal.vote.block], None, self.time)

    def _help(self, member: Member, behind: int, height: int, view: int) -> None:
        assert member.simplex is not None
        if blocks := member.disk.chain[height : height + BLOCKS_PER_REPLY]:
            self._send(member, behind, ChainReply(tuple(blocks)))
        if (certified := member.simplex.catch_up_help(view)) is not None:
            self._send(member, behind, certified)

    def _settle(self, member: Member) -> None:
        """Perform what the last call asked for, one by one, then see what comes next. Torn: crash after some of it."""
        budget = self.random.randrange(4) if member.torn else -1
        try:
            while budget and (simplex := member.simplex) is not None and (effect := simplex.next_effect()) is not None:
                self._perform(member, simplex, effect)
                budget -= 1
        except Diverged as error:
            violated("committee", f"member {member.index} stops: {error}")
        if member.torn:
            self._crash(member)
        simplex = member.simplex
        if simplex is None:
            return
        if self.plan.is_busy and not simplex.knows_of_work:
            simplex.work_waits(self.time)
        turn = simplex.turn
        if turn is not None and member.building != (turn.view, turn.parent):
            member.building = (turn.view, turn.parent)
            self.after(self.random.randint(*self.plan.building), partial(self._build, member, member.incarnation, turn))
        if simplex.deadline != member.armed:
            member.armed = simplex.deadline
            self.after(max(0, simplex.deadline - self.time), partial(self._wake, member, member.incarnation))

    def _perform(self, member: Member, simplex: Simplex[Header], effect: Said | Execute[Header] | Finalized[Header]) -> None:
        match effect:
            case Execute(block_hash, block):
                simplex.on_executed(block_hash, member.execute(block))
            case Finalized(final):
                self._finalize(member, final)
            case Journal(view, slot):
                member.disk.journal[(view, slot)] = effect
                self.votes[member.index].wrote(effect)
            case Ban(peer, reason):
                self._ban(member, self._indices[peer], reason)
            case LoseVotes() if member.index != self.liar:
                violated("votes", f"member {member.index} takes its disk for another's")
            case Broadcast(message):
                self._broadcast(member, message)
            case Send(peer, message):
                index = self._indices[peer]
                if member.index == self.liar:
                    self._lie_to(member, index, message)
                else:
                    self._send(member, index, message)

    # -- invariants ------------------------------------------------------------------------------------------------

    def _finalize(self, member: Member, final: FinalBlock) -> None:
        header = final.block.header
        if member.index != self.liar:
            agreed = self.chain.get(header.height)
            if agreed is None or final.finality.path:
                strict = Electorate(NETWORK, DOCUMENT, 0, self.electorate.keys)
                if not final.finality.proves(header, strict):
                    violated("committee", f"member {member.index} holds no proof for height {header.height}")
                self.counts["by descendant" if final.finality.path else "own certificate"] += 1
            if self.chain.setdefault(header.height, header.hash) != header.hash:
                violated("committee", f"two final blocks at height {header.height}")
        parent = member.disk.chain[-1].block.header if member.disk.chain else GENESIS
        if header.height != member.height + 1 or header.parent != parent.hash:
            violated("committee", f"member {member.index} finalizes height {header.height} on height {member.height}")
        self.story.append((self.time, member.index, "final", header.height, header.view))
        member.disk.commit(final)

    def _ban(self, member: Member, other: int, reason: str) -> None:
        """Only a liar is ever dropped."""
        if other != self.liar and member.index != self.liar:
            violated("ban", f"member {member.index} drops honest member {other}: {reason}")
        self.story.append((self.time, member.index, "drops", other, reason))
        self.counts["bans"] += 1

    # -- the network -----------------------------------------------------------------------------------------------

    def _broadcast(self, member: Member, message: PeerMessage) -> None:
        others = [other.index for other in self.members if other is not member]
        if member.index == self.liar:
            for other in others:
                self._lie_to(member, other, message)
            return
        # What is sent fits the wire. Any: a union is no type for mypy.
        message = decode(cast(Any, PeerMessage), encode(message), MAX_FRAME_BYTES)
        for other in others:
            self._send(member, other, message)

    def _send(self, sender: Member, receiver: int, message: PeerMessage) -> None:
        if sender.index != self.liar:
            self.votes[sender.index].sends(sender.index, message)
        self.counts["messages"] += 1
        is_liars = sender.index == self.liar
        if self._faulty and (sender.index, receiver) in self._cut and not is_liars:
            return
        links = self.plan.links if self._faulty else _CALM
        if is_liars:
            links = structs.replace(links, loss=0.0)
        for delay in arrivals(links, self.random):
            self.after(delay, partial(self._deliver, self.members[receiver], sender.index, message))

    # -- the liar --------------------------------------------------------------------------------------------------

    def _lie_to(self, member: Member, receiver: int, message: PeerMessage) -> None:
        """What the liar sends to one member in place of an honest message."""
        style = self.plan.liar
        is_favourite = member.simplex is not None and receiver == (member.simplex.view * 7 // 3) % len(self.members)
        if style == "silent" or (style == "favours" and not is_favourite) or self._keeps_back(receiver, message):
            return
        if style == "slow" and isinstance(message, Proposal):
            self.after(TIMEOUTS.busy - 10, partial(self._send, member, receiver, message))
            return
        if style == "frames" and isinstance(message, Ballot):
            for view in (message.vote.view, message.vote.view + 1):
                self._send(member, receiver, Ballot(self._vote(VoteKind.NULLIFY, view, ZERO_HASH)))
            return
        if isinstance(message, Proposal) and (style == "forks" or (style == "equivocates" and receiver % 2)):
            if style == "equivocates" and self.random.random() < 0.5:
                self._send(member, receiver, message)
            message = self._other_proposal(member, message)
        if style == "votes twice" and isinstance(message, BodyReply):
            message = BodyReply(Block(message.block.header, (), (b"junk",)))
        if style == "votes twice" and isinstance(message, TransactionsReply):
            message = TransactionsReply(message.block, (b"junk",))
        self._send(member, receiver, message)
        if isinstance(message, Ballot | Proposal):
            self._vote_for_all(member, receiver, message.vote.view)

    def _keeps_back(self, receiver: int, message: PeerMessage) -> bool:
        """What a liar that means to be waited for, or others to be, does not send."""
        style, members = self.plan.liar, len(self.members)
        if style in ("mute", "frames"):
            return isinstance(message, Proposal)
        is_of_own_view = isinstance(message, Proposal | Ballot) and message.vote.view % members == self.liar
        is_withheld = is_of_own_view or isinstance(message, BodyReply | TransactionsReply)
        return style == "withholds" and receiver == (self.liar + 1) % members and is_withheld

    def _other_proposal(self, member: Member, proposal: Proposal) -> Proposal:
        """A second block for the same view: sound, not executable, or built where none may be."""
        header = proposal.block.header
        if header.view in self._forged:
            return self._forged[header.view]
        content = INVALID if self.random.random() < 0.2 else self.random.randbytes(8)
        parent = member.headers.get(header.parent)
        if parent is None:  # executed before a restart
            return proposal
        if self.plan.liar == "forks":
            parent = member.headers.get(parent.parent, parent)
        block = make_block(header.view, parent.height + 1, parent.hash, member.skip_after(parent), member.index, content)
        vote = self._vote(VoteKind.NOTARIZE, header.view, block.header.hash)
        self._bodies[vote.block] = block
        other = self._forged[header.view] = Proposal(block.compact(), vote, proposal.notarization, proposal.nullifications)
        self._seen.setdefault(header.view, {}).update({vote.block: other, header.hash: proposal})
        return other

    def _vote_for_all(self, member: Member, receiver: int, view: int) -> None:
        """Votes of every kind for every block of the view, so that any other two honest votes complete a quorum."""
        for block in list(self._seen.get(view, ()))[:2]:
            for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
                if self.random.random() < 0.4:
                    self._send(member, receiver, Ballot(self._vote(kind, view, block)))
        if self.random.random() < 0.4:
            self._send(member, receiver, Ballot(self._vote(VoteKind.NULLIFY, view, ZERO_HASH)))

    def _vote(self, kind: VoteKind, view: int, block: bytes) -> Vote:
        return sign_vote(KEYS[self.liar], self.liar, self.electorate, kind, view, block)
