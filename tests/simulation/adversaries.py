"""Members that lie. Each wraps a real replica and changes or adds to what it sends, signed with its real key.

A behaviour is a function of the adversary and one effect about to be performed; it returns what is sent instead. They may
ask the replica anything, and know what was sent to it; they cannot forge others' signatures.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from coincurve import PrivateKey
from coincurve.ecdsa import der_to_cdata, ffi, serialize_compact
from msgspec import structs

from node.consensus.simplex import Turn
from node.effects import Broadcast, Commit, Effect, Publish, Send, SendBlocks, SendBundles, SendCheckpoint, SendParts
from node.handing_over import read_block, read_checkpoint, read_parts, read_skipped
from node.ledger.checkpoint import Outline
from node.ledger.execution import InvalidBlock
from node.protocol import merkle, puzzle
from node.protocol.address import address_of
from node.protocol.block import Balance, Block, Header
from node.protocol.certificate import Certificate, CertifiedBlock, Electorate, FinalBlock, Finality, Vote, VoteKind, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle, Decision, Prepare, PrepareVote, Record
from node.protocol.checkpoint import Branching, Ids, Part, Rows
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.limits import MAX_FRAME_BYTES
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
    PartsReply,
    PeerMessage,
    Proposal,
    Standing,
    TransactionsReply,
    TransactionsRequest,
)
from node.protocol.transaction import Transaction, Witness, decode_transaction
from node.replica.mempool import Pooled, read_pooled
from node.replica.proposing import build_block
from node.replica.replica import Replica
from tests.simulation.clients import ISSUERS
from tests.simulation.nonsense import NONSENSE
from tests.simulation.twin import bring_what_was_signed_there, serve_blocks_of_there

if TYPE_CHECKING:
    from tests.simulation.host import Host

_MEMORY = 200


def sign_again(key: KeyPair, message_hash: bytes, nonce: bytes) -> bytes:
    """A signature like ``KeyPair.sign``'s, with 32 other bytes in the derivation of its nonce."""
    custom_nonce = (ffi.NULL, ffi.new("unsigned char[32]", nonce))
    der = PrivateKey(key.secret).sign(message_hash, hasher=None, custom_nonce=custom_nonce)
    signature: bytes = serialize_compact(der_to_cdata(der))
    return signature


class Adversary:
    """A member under somebody else's control."""

    def __init__(self, node: "Host", behaviours: Sequence[str]) -> None:
        self.node, self.chance = node, node.chance
        self._behaviours = [BEHAVIOURS[name] for name in behaviours]
        self._reactions = [REACTIONS[name] for name in behaviours if name in REACTIONS]
        self.flattered: set[tuple[bytes, int, bytes]] = set()
        self.heard: list[PeerMessage] = []
        self._made: dict[bytes, Block] = {}
        """What it proposed in place of its replica's blocks."""
        self.first: Outline | None = None
        """The first checkpoint whose root was certified here."""
        self.transactions: list[bytes] = []
        """Final ones, to include again."""
        self.friends = frozenset(key for key in node.world.by_key if self.chance.random() < 0.6)

    @property
    def replica(self) -> Replica:
        assert self.node.replica is not None
        return self.node.replica

    @property
    def electorate(self) -> Electorate:
        return self.replica.electorate

    @property
    def others(self) -> list[bytes]:
        return [key for key in self.electorate.keys if key != self.node.key.public]

    @property
    def strangers(self) -> list[bytes]:
        """Members of other committees."""
        return [key for key in self.node.world.by_key if key not in self.electorate.keys]

    def vote(self, kind: VoteKind, view: int, block: bytes) -> Ballot:
        return Ballot(self.replica.seat.vote(kind, view, block))

    def hears(self, peer: bytes, message: PeerMessage) -> None:
        """What arrived, before the replica sees it."""
        self.heard.append(message)
        del self.heard[:-_MEMORY]
        if isinstance(message, TransactionsRequest) and (block := self._made.get(message.block)) is not None:
            asked = tuple(block.transactions[place] for place in message.places)
            for effect in self.tamper([Send(peer, TransactionsReply(message.block, asked))]):
                if isinstance(effect, Send):
                    self.node.send(effect.peer, effect.message)
        for reaction in self._reactions if self.node.replica is not None else ():
            reaction(self, peer, message)

    def stored(self, commit: Commit) -> None:
        """A block became final."""
        self.transactions += commit.block.block.transactions
        del self.transactions[:-_MEMORY]

    def tamper(self, effects: list[Effect]) -> list[Effect]:
        """What is sent instead of what the replica would send. Until there is one, it behaves: it wants a seat."""
        for behaviour in self._behaviours if self.node.replica is not None else ():
            changed: list[Effect] = []
            for effect in effects:
                changed += behaviour(self, effect) if self.node.replica is not None else ()
            effects = changed
        return effects

    def answers(self, blocks: list[bytes]) -> list[bytes]:
        """What a client is told instead of the final blocks it asked for."""
        if not blocks or self.chance.random() < 0.5:
            return blocks
        forged = decode(CertifiedBlock, blocks[0], MAX_FRAME_BYTES)
        header = structs.replace(forged.block.header, state_root=bytes(32))
        return [encode(structs.replace(forged, block=structs.replace(forged.block, header=header))), blocks[0][:-1]]

    # -- own proposals, otherwise ------------------------------------------------------------------------------------

    def rival(
        self,
        proposal: Proposal,
        entries: Sequence[Pooled],
        later: int = 1,
        bundles: bool = True,
        taken: tuple[Sequence[CertifiedBundle], Sequence[bytes]] | None = None,
    ) -> Block | None:
        """Another block for the same view with these transactions, if execution lets it be built. ``taken``: its bundles, instead
        of the proposal's."""
        header = proposal.block.header
        parent = self.replica.branches.after(header.parent)
        if parent is None:
            return None
        turn = Turn(header.view, header.parent, proposal.notarization, proposal.nullifications)
        pending = self.replica.consensus.tree.get(header.hash)
        draft = pending.draft if pending is not None else None
        if taken is None:
            own = draft.payload.bundles if draft is not None and bundles else ()
            taken = own, proposal.block.bundles if own else ()
        time = header.time + later
        try:
            seat, rules = self.replica.seat, self.replica.rules
            candidate = build_block(parent, turn, header.skip, seat, rules, time, taken, entries)
        except (InvalidBlock, KeyError, ValueError):
            return None
        return self.mined(candidate.block)

    def mined(self, block: Block) -> Block:
        bits = self.replica.parameters.block_difficulty_bits
        nonce = puzzle.search(block.header.mining_prefix, bits, 0, 1 << 20) if bits else bytes(8)
        assert nonce is not None
        return structs.replace(block, header=structs.replace(block.header, nonce=nonce))

    def signed_again(self, encoded: bytes) -> bytes | None:
        """The same order under other signatures of its payers, who help: another transaction with the same id."""
        order = decode_transaction(encoded).order
        gateways = self.node.world.gateways
        keys = [*ISSUERS.values(), *(key for gateway in gateways for own in gateway.accounts.values() for key in own)]
        by_address = {address_of(key.public): key for key in keys}
        if any(payer not in by_address for payer in order.payers):
            return None
        signers = [by_address[payer] for payer in order.payers]
        signed = [Witness(key.public, sign_again(key, order.id, self.chance.randbytes(32))) for key in signers]
        return encode(Transaction(order, tuple(signed)))

    def with_hidden(self, proposal: Proposal) -> Proposal:
        """The proposal with transactions that nobody else has, if there are any."""
        again = list(map(self.signed_again, self.block_of(proposal).transactions))
        if not again or None in again:
            return proposal
        block = self.rival(proposal, [read_pooled(encoded) for encoded in again if encoded is not None])
        return self.proposing(proposal, self.mined(block)) if block is not None else proposal

    def falsified(self, part: Part) -> Part:
        """The part with something changed."""
        match part:
            case Branching(place, children):
                return Branching(place, children[32:] + children[:32])
            case Ids(place, ids):
                return Ids(place, self.chance.choice((ids[:-32], self.chance.randbytes(len(ids)))))
            case Rows(place, rows) if rows:
                at = self.chance.randrange(len(rows))
                other = self.chance.choice((encode(Balance(self.chance.randrange(1 << 40))), rows[0][1]))
                changed = (*rows[:at], (rows[at][0], other), *rows[at + 1 :])
                return Rows(place, self.chance.choice((changed, rows[:at] + rows[at + 1 :])))
        return part

    def unmined(self, block: Block) -> Block:
        """The block with a nonce that is no work."""
        bits = self.replica.parameters.block_difficulty_bits
        for number in range(1 << 16 if bits else 0):
            header = structs.replace(block.header, nonce=number.to_bytes(8, "big"))
            if puzzle.leading_zero_bits(header.hash) < bits:
                return structs.replace(block, header=header)
        return block

    def signed_for_all(self, kind: VoteKind, view: int, block: bytes) -> Certificate:
        """A certificate in which it signs in the name of a whole quorum."""
        signature = self.vote(kind, view, block).vote.signature
        signers = tuple(range(self.electorate.quorum))
        return Certificate(kind, view, block, signers, (signature,) * len(signers))

    def certified_by_itself(self, bundle: Bundle, header: Header) -> CertifiedBundle:
        """A bundle with a proof of its own making."""
        header = structs.replace(header, outbox_root=merkle.root([encode(bundle)]))
        finality = Finality((), self.signed_for_all(VoteKind.FINALIZE, header.view, header.hash))
        return CertifiedBundle(bundle, header, finality, merkle.branch([encode(bundle)], 0))

    def made_up_records(self) -> list[Record]:
        """Decisions and votes on what is open, and a payment to prepare."""
        state = self.replica.state
        ids = [key[:-1] for key in sorted(state.records) if key[-1:] in (b"w", b"p")][:3] or [bytes(32)]
        records: list[Record] = [
            *(Decision(transaction_id, True) for transaction_id in ids),
            *(PrepareVote(transaction_id, Code.OK) for transaction_id in ids),
        ]
        if self.transactions:
            records.append(Prepare(self.chance.choice(self.transactions), state.time + 4_000))
        return records

    def find_block(self, proposal: Proposal) -> Block | None:
        """The whole block of an own proposal, unless that is final for long."""
        return self._made.get(proposal.vote.block) or self.replica.consensus.body(proposal.vote.block)

    def block_of(self, proposal: Proposal) -> Block:
        """The same, if it was there."""
        block = self.find_block(proposal)
        assert block is not None
        return block

    def proposing(self, proposal: Proposal, block: Block) -> Proposal:
        """The proposal with another block, signed."""
        vote = self.vote(VoteKind.NOTARIZE, block.header.view, block.header.hash).vote
        self._made[vote.block] = block
        self._made = dict(list(self._made.items())[-_MEMORY:])
        return structs.replace(proposal, block=block.compact(), vote=vote)


Behaviour = Callable[[Adversary, Effect], Sequence[Effect]]
Reaction = Callable[[Adversary, bytes, PeerMessage], None]
"""Of an adversary to what a peer sends it, before its replica sees it."""


def _own_proposal(liar: Adversary, effect: Effect) -> Proposal | None:
    """Only what the leader broadcasts as its own, while it has the block."""
    message = effect.message if isinstance(effect, Broadcast) else None
    return message if isinstance(message, Proposal) and liar.find_block(message) is not None else None


def _ballot(effect: Effect) -> Vote | None:
    return effect.message.vote if isinstance(effect, Broadcast) and isinstance(effect.message, Ballot | Proposal) else None


def equivocate(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Two blocks in one view, each to one half of the committee."""
    proposal = _own_proposal(liar, effect)
    if proposal is None or (block := liar.rival(proposal, [])) is None:
        return [effect]
    others = liar.others
    liar.chance.shuffle(others)
    half, rival = len(others) // 2, liar.proposing(proposal, block)
    return [Send(key, proposal if i < half else rival) for i, key in enumerate(others)]


def vote_twice(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes for all blocks of a view, to nullify it, and to finalize what it nullified."""
    vote = _ballot(effect)
    if vote is None:
        return [effect]
    rivals = {vote.block} | {m.vote.block for m in liar.heard if isinstance(m, Proposal) and m.vote.view == vote.view}
    found: list[Effect] = [effect, Broadcast(liar.vote(VoteKind.NULLIFY, vote.view, ZERO_HASH))]
    for block in sorted(rivals - {ZERO_HASH}):
        found += [Broadcast(liar.vote(kind, vote.view, block)) for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE)]
    return found


def vote_for_everything(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Signs whatever anybody votes for, whether valid, conflicting or late."""
    if not isinstance(effect, Broadcast):
        return [effect]
    statements = {(m.vote.view, m.vote.block) for m in liar.heard[-20:] if isinstance(m, Ballot | Proposal)}
    found: list[Effect] = [effect]
    for view, block in sorted(statements):
        kinds = (VoteKind.NULLIFY,) if block == ZERO_HASH else (VoteKind.NOTARIZE, VoteKind.FINALIZE)
        found += [Broadcast(liar.vote(kind, view, block)) for kind in kinds]
    return found


def flatter(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Tells each member, and it alone, that it votes for what that one voted for; and nobody anything else."""
    return [] if isinstance(effect, Broadcast) and isinstance(effect.message, Ballot) else [effect]


def agree_with(liar: Adversary, peer: bytes, message: PeerMessage) -> None:
    """The flattery. Once each: two flatterers would never come to an end."""
    if not isinstance(message, Ballot) or message.vote.block == ZERO_HASH or peer not in liar.electorate.keys:
        return
    view, block = message.vote.view, message.vote.block
    if (peer, view, block) not in liar.flattered:
        liar.flattered.add((peer, view, block))
        for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
            liar.node.send(peer, liar.vote(kind, view, block))


def keep_silent(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Says nothing, and is not dead."""
    return [] if isinstance(effect, Send | Broadcast | Publish | SendBlocks | SendBundles) else [effect]


def select(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Speaks to its friends only."""
    if isinstance(effect, Broadcast):
        return [Send(key, effect.message) for key in liar.others if key in liar.friends]
    return [] if isinstance(effect, Send) and effect.peer not in liar.friends else [effect]


def propose_nonsense(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Own proposals break a rule: each time another one. Where it can, their roots are those of executing them."""
    proposal = _own_proposal(liar, effect)
    if proposal is None or liar.chance.random() < 0.3:
        return [effect]
    if liar.replica.parameters.block_difficulty_bits and liar.chance.random() < 0.5:
        return [Broadcast(liar.proposing(proposal, liar.unmined(liar.block_of(proposal))))]
    wrong = liar.chance.choice(NONSENSE)(liar, proposal)
    return [effect] if wrong is None else [Broadcast(liar.proposing(proposal, liar.mined(wrong)))]


def propose_out_of_turn(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes the block after the one it votes for, as early as can be and once the view has come: whoever leads, in its own
    name, or in the leader's."""
    vote = _ballot(effect)
    if vote is None or vote.kind is VoteKind.NULLIFY or liar.replica.consensus.leader_of(vote.view + 1) == vote.signer:
        return [effect]
    parent = liar.replica.branches.after(vote.block)
    if parent is None:
        return [effect]
    turn = Turn(vote.view + 1, vote.block, None, ())
    seat, rules, skip = liar.replica.seat, liar.replica.rules, liar.replica.consensus.tree.skip_after(vote.block)
    block = build_block(parent, turn, skip, seat, rules, parent.time + 1, ((), ()), ()).block
    leaders = structs.replace(block, header=structs.replace(block.header, proposer=liar.replica.consensus.leader_of(turn.view)))
    found: list[Effect] = [effect]
    for mined in map(liar.mined, (block, leaders)):
        vote = liar.vote(VoteKind.NOTARIZE, turn.view, mined.header.hash).vote
        found.append(Broadcast(Proposal(mined.compact(), vote, None, ())))
    return found


def sign_badly(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Its votes come with signatures that are none first."""
    vote = _ballot(effect)
    return [effect] if vote is None else [Broadcast(Ballot(structs.replace(vote, signature=liar.chance.randbytes(64)))), effect]


def flood(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Much of everything that a member may send, all of it useless, to one other at a time."""
    if not isinstance(effect, Broadcast) or liar.chance.random() < 0.6:
        return [effect]
    chance, replica, peer = liar.chance, liar.replica, liar.chance.choice(liar.others)
    view, height, size = replica.consensus.view, replica.state.height, len(liar.electorate.keys)
    junk = Block(replica.consensus.tree.root, (), tuple(chance.randbytes(4_000) for _ in range(8)))
    messages: list[PeerMessage] = [
        Certified(tuple(liar.signed_for_all(kind, view + i, chance.randbytes(32)) for i in (0, 1) for kind in VoteKind)),
        Standing(height + chance.randrange(100), view + chance.randrange(100)),
        ChainRequest(chance.randrange(1, height + 10)),
        BodyRequest(view, chance.randbytes(32)),
        BodyReply(junk),
        *(BundleRequest(shard, 1) for shard in replica.document.electorates),
        *(BundleWanted(shard, replica.shard, sequence) for shard in replica.document.electorates for sequence in (1, height)),
    ]
    for later in range(1, 60, 7):
        messages.append(liar.vote(chance.choice(list(VoteKind)), view + later, chance.randbytes(32)))
        turn = view + later + (replica.member - view - later) % size
        header = structs.replace(junk.header, view=turn, proposer=replica.member, payload_root=junk.payload_root())
        ahead = liar.mined(structs.replace(junk, header=header))
        messages.append(Proposal(ahead.compact(), liar.vote(VoteKind.NOTARIZE, turn, ahead.header.hash).vote, None, ()))
    return [effect, *(Send(peer, message) for message in messages)]


def boast(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Says that it is ahead, so that it is asked for blocks."""
    if isinstance(effect, Broadcast) and isinstance(effect.message, Standing):
        return [Broadcast(structs.replace(effect.message, height=effect.message.height + 9))]
    return [] if isinstance(effect, SendBlocks) else [effect]


def boast_in_silence(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Says that it is far ahead, and answers nobody who asks for blocks."""
    if isinstance(effect, Broadcast) and isinstance(effect.message, Standing):
        return [Broadcast(structs.replace(effect.message, height=effect.message.height + 1_000))]
    if isinstance(effect, Send) and isinstance(effect.message, Standing):
        return [Send(effect.peer, structs.replace(effect.message, height=effect.message.height + 1_000))]
    return [] if isinstance(effect, SendBlocks) else [effect]


def serve_forged_finality(liar: Adversary, peer: bytes, message: PeerMessage) -> None:
    """Answers who asks for blocks with others than the final ones: signed by itself in the name of all, under the certificate of
    another block, or of another kind."""
    if not isinstance(message, ChainRequest) or peer not in liar.electorate.keys:
        return
    stored = [decode(CertifiedBlock, data, MAX_FRAME_BYTES) for data in liar.node.disk.blocks(message.first, 1 << 20, 2)]
    forged: list[FinalBlock] = []
    if stored:
        block, finality = stored[0].block, stored[0].finality
        other = liar.mined(structs.replace(block, header=structs.replace(block.header, time=block.header.time + 1)))
        header = other.header
        relabelled = structs.replace(finality.certificate, block=header.hash)
        after = stored[-1].block.header
        forged = [
            FinalBlock(other, Finality((), liar.signed_for_all(VoteKind.FINALIZE, header.view, header.hash))),
            FinalBlock(other, finality),
            FinalBlock(other, Finality((), relabelled)),
            FinalBlock(other, Finality((after,), stored[-1].finality.certificate)),
        ]
    elif message.first == liar.replica.state.height + 1:
        forged = _notarized(liar)
    if forged:
        liar.node.send(peer, ChainReply((liar.chance.choice(forged),)))


def _notarized(liar: Adversary) -> list[FinalBlock]:
    """Blocks after the last final one, under the certificate that they were notarized with."""
    root = liar.replica.consensus.tree.root_hash
    hashes = [m.vote.block for m in liar.heard if isinstance(m, Proposal) and m.block.header.parent == root]
    proposed = {one: block for one in hashes if (block := liar.replica.consensus.body(one)) is not None}
    held = [m.notarization for m in liar.heard if isinstance(m, Proposal) and m.notarization is not None]
    held += [c for m in liar.heard if isinstance(m, Certified) for c in m.certificates if c.kind is VoteKind.NOTARIZE]
    relabelled = [structs.replace(certificate, kind=VoteKind.FINALIZE) for certificate in held if certificate.block in proposed]
    both = [certificate for certificate in held if certificate.block in proposed] + relabelled
    return [FinalBlock(proposed[certificate.block], Finality((), certificate)) for certificate in both]


def swap_bodies(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """One header, two payloads: the wrong one first, to some; or first the one that executes, then the one in the header."""
    proposal = _own_proposal(liar, effect)
    if proposal is None:
        return [effect]
    block = liar.block_of(proposal)
    other = Block(block.header, (), tuple(liar.chance.sample(liar.transactions, min(1, len(liar.transactions)))))
    if (other.bundles, other.transactions) == (block.bundles, block.transactions):
        return [effect]
    if liar.chance.random() < 0.5:
        swapped = structs.replace(proposal, block=other.compact())
        return [*(Send(key, swapped) for key in liar.others if key in liar.friends), effect]
    header = structs.replace(block.header, payload_root=other.payload_root())
    second = liar.proposing(proposal, liar.mined(structs.replace(other, header=header)))
    first = structs.replace(second, block=structs.replace(block, header=second.block.header).compact())
    return [Broadcast(first), Broadcast(second)]


def withhold_transactions(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes what only it has, and gives it to its friends alone."""
    if (proposal := _own_proposal(liar, effect)) is not None:
        return [Broadcast(liar.with_hidden(proposal))]
    is_reply = isinstance(effect, Send) and isinstance(effect.message, TransactionsReply)
    return [] if is_reply and isinstance(effect, Send) and effect.peer not in liar.friends else [effect]


def give_other_transactions(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes what only it has, and gives others in its place: the same orders signed otherwise, final ones, junk, too few, too
    many, some of another place."""
    if (proposal := _own_proposal(liar, effect)) is not None:
        return [Broadcast(liar.with_hidden(proposal))]
    if not isinstance(effect, Send) or not isinstance(effect.message, TransactionsReply):
        return [effect]
    asked = effect.message.transactions
    wrong: list[Sequence[bytes | None]] = [
        [liar.signed_again(encoded) for encoded in asked],
        [liar.signed_again(encoded) for encoded in asked],
        [liar.chance.choice(liar.transactions or asked) for _ in asked],
        [liar.chance.randbytes(len(encoded)) for encoded in asked],
        asked[1:],
        [*asked, asked[0]],
        [*asked[1:], asked[0]],
    ]
    sent = tuple(encoded for encoded in liar.chance.choice(wrong) if encoded is not None)
    return [structs.replace(effect, message=structs.replace(effect.message, transactions=sent))]


def withhold_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Carries nothing to other shards."""
    return [] if _is_of_bundle(effect) else [effect]


def _is_of_bundle(effect: Effect) -> TypeGuard[Send | SendBundles]:
    return isinstance(effect, SendBundles) or (
        isinstance(effect, Send) and isinstance(effect.message, BundleDelivery | BundleName)
    )


def hoard_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Keeps to itself what other shards bring to it."""
    return [] if _is_of_bundle(effect) and effect.peer in liar.electorate.keys else [effect]


def deliver_to_liars(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Carries bundles to liars only."""
    return [] if _is_of_bundle(effect) and liar.node.world.by_key[effect.peer].is_honest else [effect]


def name_bundles_only(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Names what it should bring, and gives it to nobody who asks."""
    if isinstance(effect, Send) and isinstance(effect.message, BundleDelivery):
        bundle = effect.message.bundle.bundle
        return [structs.replace(effect, message=BundleName(bundle.source, bundle.sequence))]
    return [] if isinstance(effect, SendBundles) else [effect]


def name_what_nobody_has(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Names many bundles, the next ones and far ones, before anybody has them, of all channels and to all who hear it."""
    if not isinstance(effect, Commit) or liar.chance.random() < 0.8:
        return [effect]
    state, own, world = liar.replica.state, liar.replica.shard, liar.node.world
    far = (1, 2, 3, 30, 64, 65, 1 << 40)
    found = [Send(key, BundleName(s, state.cursor(s) + i)) for key in liar.others for s in world.shards for i in far]
    for shard in world.shards:
        keys = [node.key.public for node in world.committee(shard)]
        found += [Send(key, BundleName(own, state.sequence(shard) + i), shard) for key in keys for i in far if shard != own]
    return [effect, *found]


def claim_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Says that it has taken the next bundles that it never saw, so that their source may forget them; and carries none."""
    if not isinstance(effect, Commit):
        return withhold_bundles(liar, effect)
    own, state = liar.replica.shard, liar.replica.state
    asked = [(s, BundleRequest(own, state.cursor(s) + 4)) for s in liar.node.world.shards if s != own]
    return [effect, *(Send(node.key.public, request) for s, request in asked for node in liar.node.world.committee(s))]


def never_propose(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes, and does not lead."""
    return [] if _own_proposal(liar, effect) is not None else [effect]


def propose_late(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes when the others are about to give up."""
    proposal = _own_proposal(liar, effect)
    if proposal is None:
        return [effect]
    parameters = liar.replica.parameters
    delay = parameters.heartbeat + liar.chance.choice((-50, parameters.view_timeout // 4 - 50, parameters.view_timeout - 50))
    for key in liar.others:
        liar.node.later(max(0, delay), partial(liar.node.send, key, proposal))
    return []


def withhold_from_the_next(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """What it says in its own view does not reach the leader of the next one, nor do blocks: that one shall be late."""
    keys, me = liar.electorate.keys, liar.replica.member
    after = keys[(me + 1) % len(keys)]
    if isinstance(effect, Send) and isinstance(effect.message, BodyReply) and effect.peer == after:
        return []
    if not isinstance(effect, Broadcast) or not isinstance(effect.message, Ballot | Proposal):
        return [effect]
    is_of_own_view = effect.message.vote.view % len(keys) == me
    return [Send(key, effect.message) for key in liar.others if not is_of_own_view or key != after]


def nullify_everything(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes to nullify each view at once, and the next one: whoever nullifies an honest leader's view is joined."""
    vote = _ballot(effect)
    if vote is None:
        return [effect]
    return [Broadcast(liar.vote(VoteKind.NULLIFY, view, ZERO_HASH)) for view in (vote.view, vote.view + 1)]


def forge_certificates(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Certificates signed by too few, by itself for others, or for another statement; old ones and those of other shards."""
    vote = _ballot(effect)
    if vote is None or liar.chance.random() < 0.5:
        return [effect]
    electorate = liar.electorate
    signers = tuple(range(electorate.quorum))
    kind = liar.chance.choice(list(VoteKind))
    block = ZERO_HASH if kind is VoteKind.NULLIFY else liar.chance.randbytes(32) if liar.chance.random() < 0.5 else vote.block
    signature = liar.vote(kind, vote.view, block).vote.signature
    me = liar.replica.member
    forged = [
        Certificate(kind, vote.view, block, signers, (signature,) * len(signers)),
        Certificate(kind, vote.view, block, (me,) * len(signers), (signature,) * len(signers)),
        Certificate(kind, vote.view, block, (me,), (signature,)),
    ]
    heard = [c for m in liar.heard if isinstance(m, Certified) for c in m.certificates]
    forged += [structs.replace(c, view=vote.view) for c in heard[-1:]] + heard[:1]
    foreign = [m.bundle.finality.certificate for m in liar.heard if isinstance(m, BundleDelivery)]
    return [effect, Broadcast(Certified(tuple(forged + foreign[-2:])))]


def forge_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Bundles nobody sent: right header and wrong records, wrong sequence, or all of it made up."""
    if not isinstance(effect, Broadcast) or liar.chance.random() < 0.8:
        return [effect]
    found: list[Effect] = [effect]
    replica, state = liar.replica, liar.replica.state
    for destination, electorate in replica.document.electorates.items():
        if destination == replica.shard:
            continue
        bundle = Bundle(replica.shard, destination, state.sequence(destination) + 1, tuple(liar.made_up_records()))
        forged = liar.certified_by_itself(
            bundle, structs.replace(replica.consensus.tree.root, document=replica.electorate.document)
        )
        found += [Send(key, BundleDelivery(forged)) for key in electorate.keys]
    for message in liar.heard[-50:]:  # what others sent, with other records or another number
        if isinstance(message, BundleDelivery):
            known = message.bundle.bundle
            number = structs.replace(known, sequence=known.sequence + 1)
            for changed in (number, structs.replace(number, records=tuple(liar.made_up_records()))):
                delivery = BundleDelivery(structs.replace(message.bundle, bundle=changed))
                found += [Send(key, delivery) for key in liar.others]
    return found


def deliver_late(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Bundles again and again, later ones before earlier ones."""
    if isinstance(effect, Send) and isinstance(effect.message, BundleDelivery):
        bundle = effect.message.bundle.bundle
        return [effect, effect, SendBundles(effect.peer, bundle.destination, max(1, bundle.sequence - 2))]
    return [effect]


def live_by_another_document(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes and proposals signed by other epoch documents, beside the right ones."""
    vote = _ballot(effect)
    if vote is None:
        return [effect]
    found: list[Effect] = [effect]
    for document in (ZERO_HASH, liar.chance.randbytes(32)):
        other = structs.replace(liar.electorate, document=document)
        found.append(Broadcast(Ballot(sign_vote(liar.node.key, vote.signer, other, vote.kind, vote.view, vote.block))))
    proposal = _own_proposal(liar, effect)
    if proposal is not None:
        header = structs.replace(proposal.block.header, document=liar.chance.randbytes(32))
        found.append(Broadcast(liar.proposing(proposal, liar.mined(structs.replace(liar.block_of(proposal), header=header)))))
    return found


def repeat_old_messages(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """What others said before, to everybody, also in other committees."""
    if not isinstance(effect, Broadcast) or not liar.heard:
        return [effect]
    old = liar.chance.choice(liar.heard)
    return [effect, Broadcast(old), Send(liar.chance.choice(liar.strangers or liar.others), old)]


def mislead_who_is_behind(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Boasts of a height nobody has, and answers requests for blocks with altered ones."""
    if isinstance(effect, Broadcast) and isinstance(effect.message, Standing):
        return [Broadcast(Standing(effect.message.height + 1_000, effect.message.view + 7))]
    if isinstance(effect, SendBlocks):
        data = liar.node.disk.blocks(effect.first, 1 << 20)[:3]
        stored = [decode(CertifiedBlock, block, MAX_FRAME_BYTES) for block in data]
        blocks = [FinalBlock(block.block, block.finality) for block in stored]
        changed = tuple(structs.replace(b, block=structs.replace(b.block, transactions=())) for b in blocks)
        return [Send(effect.peer, ChainReply(changed)), Send(effect.peer, ChainReply(tuple(blocks[1:])))]
    if isinstance(effect, Send) and isinstance(effect.message, BodyReply):
        block = effect.message.block
        return [Send(effect.peer, BodyReply(structs.replace(block, transactions=(*block.transactions, b"x"))))]
    return [effect]


def hand_over_false_parts(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Of the state it is asked for, parts with something changed, missing, or in another order; or one of them twice."""
    if not isinstance(effect, SendParts):
        return [effect]
    parts = read_parts(cast(Any, liar.node.disk), effect.height, effect.parts)
    if liar.chance.random() < 0.3:
        return [Send(effect.peer, PartsReply(effect.height, (*parts, *parts[:1])))]
    return [Send(effect.peer, PartsReply(effect.height, tuple(map(liar.falsified, parts))))]


def hand_over_nothing(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Offers a checkpoint, and is silent when it is asked for its parts."""
    return [] if isinstance(effect, SendParts) else [effect]


def offer_an_old_checkpoint(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """The first that it had: proven, and nobody else has its rows any more."""
    liar.first = liar.first or liar.replica.state.certified
    if isinstance(effect, SendCheckpoint) and liar.first is not None:
        return [SendCheckpoint(effect.peer, liar.first.height, liar.first.certified_at, liar.first.root)]
    return [effect]


def offer_another_checkpoint(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """With the root of its own choice, or that of another block; each with what proofs it has."""
    if not isinstance(effect, SendCheckpoint):
        return [effect]
    disk = cast(Any, liar.node.disk)
    proof = read_checkpoint(disk, effect.height, effect.certified_at, effect.root)
    after = proof.header.height + 1
    if liar.chance.random() < 0.5 or not disk.blocks(after, 1):
        forged = structs.replace(proof, root=liar.chance.randbytes(32))
    else:
        other = read_block(disk, after)
        linked = read_skipped(disk, other.block.header)
        forged = structs.replace(proof, header=other.block.header, finality=other.finality, skipped=linked)
    return [Send(effect.peer, CheckpointReply(forged))]


BEHAVIOURS: dict[str, Behaviour] = {
    "equivocating proposer": equivocate,
    "double voter": vote_twice,
    "voter for everything": vote_for_everything,
    "two-faced voter": flatter,
    "silent": keep_silent,
    "selective sender": select,
    "invalid blocks": propose_nonsense,
    "swapped bodies": swap_bodies,
    "withheld transactions": withhold_transactions,
    "other transactions": give_other_transactions,
    "withheld bundles": withhold_bundles,
    "late bundles": deliver_late,
    "claimed bundles": claim_bundles,
    "hoarded bundles": hoard_bundles,
    "bundles to liars": deliver_to_liars,
    "bundles only named": name_bundles_only,
    "names of nothing": name_what_nobody_has,
    "mute leader": never_propose,
    "slow leader": propose_late,
    "withheld from the next": withhold_from_the_next,
    "nullifies everything": nullify_everything,
    "forged certificates": forge_certificates,
    "forged bundles": forge_bundles,
    "another document": live_by_another_document,
    "replayed messages": repeat_old_messages,
    "misleading catch-up": mislead_who_is_behind,
    "forged finality": boast,
    "out of turn": propose_out_of_turn,
    "bad signatures": sign_badly,
    "flood": flood,
    "silent boaster": boast_in_silence,
    "twin network": bring_what_was_signed_there,
    "false parts": hand_over_false_parts,
    "withheld parts": hand_over_nothing,
    "old checkpoint": offer_an_old_checkpoint,
    "another checkpoint": offer_another_checkpoint,
}
HANDOFF_LIES = {
    "false parts": "it sent a part that is another",
    "another checkpoint": "it sent a checkpoint that does not prove itself",
}
"""Why those are dropped that hand over something else, once somebody asks."""
DROPPED_FOR = {
    "bad signatures": "it sent a vote it did not sign",
    "another document": "it sent a vote it did not sign",
    "forged certificates": "it sent a certificate that is not valid",
    "twin network": "it sent a certificate that is not valid",
    "forged bundles": "it sent a bundle that does not prove itself",
    "other transactions": "it sent other transactions than it proposed",
    "swapped bodies": "it sent a proposal with another payload than it says",
    "out of turn": "it sent a proposal that is not the leader's",
}
"""Why liars that can be told from others by what they send are dropped."""
REACTIONS: dict[str, Reaction] = {
    "two-faced voter": agree_with,
    "forged finality": serve_forged_finality,
    "twin network": serve_blocks_of_there,
}
