"""A single member of a committee for tests of ``node.consensus.simplex``: hand-made votes, and what it says."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Struct, structs

from node.consensus.journal import remembered
from node.consensus.patience import Timeouts
from node.consensus.round import Seat
from node.consensus.simplex import Execute, Finalized, Said, Simplex, Turn
from node.effects import Ban, Broadcast, Journal, Send
from node.protocol.block import Block, Header
from node.protocol.certificate import Certificate, Electorate, FinalBlock, Finality, Vote, VoteKind, make_certificate, sign_vote
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.limits import MAX_VIEWS_AHEAD
from node.protocol.merkle import EMPTY_ROOT
from node.protocol.messages import Ballot, BodyRequest, PeerMessage, Proposal
from node.protocol.reports import Notable

NOTARIZE, NULLIFY, FINALIZE = VoteKind.NOTARIZE, VoteKind.NULLIFY, VoteKind.FINALIZE
KEYS = [KeyPair(bytes([7] * 31 + [i + 1])) for i in range(7)]
TIMEOUTS = Timeouts(view=100, busy=80, retransmit=50)
DOCUMENT = bytes([7] * 32)
_ROOTS = (ZERO_HASH,) * 7
BODIES: dict[bytes, Block] = {}
"""Blocks proposed here: their transactions are there for who hears of them."""
FAR = 1 + MAX_VIEWS_AHEAD
GENESIS = Header(DOCUMENT, 3, 0, 0, ZERO_HASH, ZERO_HASH, 0, 0, *_ROOTS, bytes(8))


# -- what is heard -------------------------------------------------------------------------------------------------------


def electorate_of(size: int, document: bytes = DOCUMENT, shard: int = 3) -> Electorate:
    return Electorate(b"unittest", document, shard, tuple(key.public for key in KEYS[:size]))


FOUR = electorate_of(4)
LIAR = KEYS[3].public
"""Who brings certificates and final blocks."""


def block(view: int, parent: Header, content: bytes = b"", members: int = 4) -> Block:
    roots = (Block(GENESIS, (), (content,)).payload_root(), EMPTY_ROOT, EMPTY_ROOT, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH)
    skip = parent if parent.height % 2 == 0 else GENESIS  # right up to height 5
    place = (DOCUMENT, 3, view, parent.height + 1, parent.hash, skip.hash, 0)
    return Block(Header(*place, view % members, *roots, bytes(8)), (), (content,))


A1 = block(1, GENESIS, b"a")
B2 = block(2, A1.header)
C3 = block(3, B2.header)
OTHER = block(1, GENESIS, b"other")


def vote(kind: VoteKind, view: int, signer: int, block_hash: bytes = ZERO_HASH, electorate: Electorate = FOUR) -> Vote:
    return sign_vote(KEYS[signer], signer, electorate, kind, view, block_hash)


def certificate(
    kind: VoteKind, view: int, block_hash: bytes = ZERO_HASH, signers: Sequence[int] = (0, 1, 2), electorate: Electorate = FOUR
) -> Certificate:
    return make_certificate([vote(kind, view, signer, block_hash, electorate) for signer in signers], electorate)


def nullified(view: int, *signers: int) -> Certificate:
    return certificate(NULLIFY, view, signers=signers or (1, 2, 3))


def notarized(of: Block, *signers: int) -> Certificate:
    return certificate(NOTARIZE, of.header.view, of.header.hash, signers or (1, 2, 3))


def finalized(of: Block, *signers: int) -> Certificate:
    return certificate(FINALIZE, of.header.view, of.header.hash, signers or (1, 2, 3))


def final(of: Block, *signers: int) -> FinalBlock:
    return FinalBlock(of, Finality((), finalized(of, *signers)))


def proposal(of: Block, notarization: Certificate | None = None, *nullifications: Certificate) -> Proposal:
    header = of.header
    BODIES[header.hash] = of
    return Proposal(of.compact(), vote(NOTARIZE, header.view, header.proposer, header.hash), notarization, nullifications)


def votes(kind: VoteKind, of: Block | int, *signers: int) -> list[Vote]:
    """For a block, or to nullify a view."""
    view, block_hash = (of, ZERO_HASH) if isinstance(of, int) else (of.header.view, of.header.hash)
    return [vote(kind, view, signer, block_hash) for signer in signers or (1, 2, 3)]


QUORUMS = votes(NOTARIZE, A1) + votes(FINALIZE, A1)
FORGED_OWN = structs.replace(vote(NULLIFY, 1, 1), signer=0)


class Invalid(Struct, frozen=True):
    """The caller found the proposal of a view invalid."""

    view: int


class Restart(Struct, frozen=True):
    """With the journal as it is, on the last final block, if that was stored."""

    stored: FinalBlock | None = None


class Work(Struct, frozen=True):
    """A block would not be empty."""


class Propose(Struct, frozen=True):
    """The turn is taken."""

    block: Block


class Lacking(Struct, frozen=True):
    """A proposal of which the third and the last transaction are not here."""

    proposal: Proposal


class Complete(Struct, frozen=True):
    """They came."""

    proposal: Proposal


Heard = Proposal | Vote | Certificate | Block | FinalBlock | Invalid | Restart | Propose | Work | Lacking | Complete | int
"""A block: a body. An int: time passes until then (ms)."""

Told = tuple[VoteKind, int, bytes] | bytes
"""A vote, or the block_hash of a body asked for."""


class Bench:
    """One member, its disk, what it wants done, and the blocks it had executed. Every event is followed by what follows."""

    def __init__(
        self, member: int = 0, electorate: Electorate = FOUR, has_votes: bool = True, refused: Sequence[Block] = ()
    ) -> None:
        self.seat = Seat(KEYS[member], member, electorate)
        self.journal: dict[tuple[int, str], Journal] = {}
        self.refused = {block.header.hash for block in refused}
        self.executed: list[bytes] = []
        self.now = 0
        self.start(has_votes=has_votes)

    def start(self, stored: FinalBlock | None = None, has_votes: bool = True) -> None:
        self.effects: list[Said] = []
        self.finalized: list[FinalBlock] = []
        records = [remembered(record) for record in self.journal.values()]
        root, proof = (GENESIS, None) if stored is None else (stored.block.header, stored.finality.certificate)
        peaks = {0: GENESIS.hash, root.height: root.hash}
        self.simplex: Simplex[str] = Simplex(self.seat, root, peaks, proof, TIMEOUTS, records, self.now, has_votes)
        self.follow()

    def follow(self) -> None:
        while (effect := self.simplex.next_effect()) is not None:
            match effect:
                case Execute(block_hash):
                    self.executed.append(block_hash)
                    self.simplex.on_executed(block_hash, None if block_hash in self.refused else "executed")
                case Finalized(one):
                    self.finalized.append(one)
                case _:
                    self.effects.append(effect)

    def hear(self, *heard: Heard) -> None:
        for one in heard:
            match one:
                case Invalid(view):
                    self.simplex.on_invalid_proposal(view, self.now)
                case Restart(stored):
                    self.take()
                    self.start(stored)
                case Propose(mine):
                    self.simplex.propose(self.turn, mine, "own", self.now)
                case Work():
                    self.simplex.work_waits(self.now)
                case Lacking(welcome):
                    if self.simplex.welcomes(welcome, self.now):
                        self.simplex.lacks(welcome, (2, 4), self.now)
                case Complete(whole):
                    self.complete(whole)
                case int():
                    self.now = one
                    self.simplex.tick(one)
                case _:
                    self.receive(one)
            self.follow()

    def receive(self, message: Proposal | Vote | Certificate | Block | FinalBlock) -> None:
        match message:
            case Proposal():
                if self.simplex.welcomes(message, self.now):
                    self.complete(message)
            case Vote() if message.signer == self.seat.member:
                self.simplex.on_own_vote(LIAR, message, self.now)
            case Vote():
                self.simplex.on_vote(message, self.now)
            case Certificate():
                self.simplex.on_certificates(LIAR, (message,), self.now)
            case Block():
                self.simplex.on_block(message, self.now)
            case FinalBlock():
                self.simplex.on_final_blocks(LIAR, (message,), self.now)

    def complete(self, whole: Proposal) -> None:
        self.simplex.is_whole(whole, self.now)
        self.simplex.on_proposal(whole, BODIES[whole.vote.block], "payload", self.now)

    def wait(self) -> None:
        """Until the deadline."""
        self.hear(self.simplex.deadline)

    @property
    def view(self) -> int:
        return self.simplex.view

    @property
    def turn(self) -> Turn:
        assert self.simplex.turn is not None
        return self.simplex.turn

    @property
    def final_blocks(self) -> list[Block]:
        return [one.block for one in self.finalized]

    def take(self) -> list[PeerMessage]:
        """Persist the journal's effects, and return the messages."""
        effects, self.effects = self.effects, []
        self.journal |= {(e.view, e.slot): e for e in effects if isinstance(e, Journal)}
        return [e.message for e in effects if isinstance(e, Broadcast | Send)]

    def said(self) -> list[Told]:
        """Votes and requests for bodies among the messages, each once."""
        found: list[Told] = []
        for message in self.take():
            if isinstance(message, Ballot | Proposal):
                found.append((message.vote.kind, message.vote.view, message.vote.block))
            elif isinstance(message, BodyRequest):
                found.append(message.hash)
        return list(dict.fromkeys(found))

    def banned(self) -> list[int]:
        """Who is to be dropped."""
        return [FOUR.keys.index(effect.peer) for effect in self.effects if isinstance(effect, Ban)]

    def notables(self) -> list[str]:
        return [effect.text for effect in self.effects if isinstance(effect, Notable)]


# -- stories: what is heard, step by step, and what is said to it ----------------------------------------------------------


def yes(to: Block) -> Told:
    return NOTARIZE, to.header.view, to.header.hash


def done(to: Block) -> Told:
    return FINALIZE, to.header.view, to.header.hash


def no(view: int) -> Told:
    return NULLIFY, view, ZERO_HASH


class On:
    """A step. ``says``: all votes and requests for bodies that follow; None: whatever. ``never``: what must not be among them.
    ``view``: afterwards; 0: whichever. ``final``: since the start. ``leads``: what to build on, when it is this member's turn."""

    def __init__(
        self, *heard: Heard, says: Sequence[Told] | None = (), never: Told | None = None, view: int = 0,
        final: list[Block] | None = None, leads: Header | None = None,
    ) -> None:  # fmt: skip
        self.heard, self.says, self.never, self.view, self.final, self.leads = heard, says, never, view, final, leads


def story(name: str, *steps: On, **bench: Any) -> Any:
    return pytest.param(bench, steps, id=name)


THROUGH_B2 = FinalBlock(A1, Finality((B2.header,), finalized(B2, 0, 1, 2)))
