"""Members that lie. Each wraps a real replica and changes or adds to what it sends, signed with its real key.

A behaviour is a function of the adversary and one effect about to be performed; it returns what is sent instead. They may
ask the replica anything, and know what was sent to it; they cannot forge others' signatures.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from coincurve import PrivateKey
from coincurve.ecdsa import der_to_cdata, ffi, serialize_compact
from msgspec import structs

from node.consensus.simplex import Turn
from node.effects import Broadcast, Commit, Effect, Send
from node.ledger.checkpoint import Outline
from node.ledger.execution import InvalidBlock
from node.protocol import merkle, puzzle
from node.protocol.address import address_of
from node.protocol.block import Balance, Block, Header
from node.protocol.certificate import Certificate, CertifiedBlock, Electorate, Finality, Vote, VoteKind
from node.protocol.channel import Bundle, CertifiedBundle, Decision, Prepare, PrepareVote, Record
from node.protocol.checkpoint import Branching, Ids, Part, Rows
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Ballot, PeerMessage, Proposal, TransactionsReply, TransactionsRequest
from node.protocol.transaction import Transaction, Witness, decode_transaction
from node.replica.mempool import Pooled, read_pooled
from node.replica.proposing import build_block
from node.replica.replica import Replica
from tests.simulation.clients import ISSUERS

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

    def __init__(self, node: "Host", behaviours: Sequence["Behaviour"] = (), reactions: Sequence["Reaction"] = ()) -> None:
        self.node, self.chance = node, node.chance
        self._behaviours, self._reactions = behaviours, reactions
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


def own_proposal(liar: Adversary, effect: Effect) -> Proposal | None:
    """Only what the leader broadcasts as its own, while it has the block."""
    message = effect.message if isinstance(effect, Broadcast) else None
    return message if isinstance(message, Proposal) and liar.find_block(message) is not None else None


def vote_in(effect: Effect) -> Vote | None:
    return effect.message.vote if isinstance(effect, Broadcast) and isinstance(effect.message, Ballot | Proposal) else None
