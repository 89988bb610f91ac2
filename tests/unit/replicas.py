"""Replicas for tests of their parts: a committee of four in a small network, and what their effects say."""

from collections.abc import Iterable

from msgspec import structs

from node.effects import Broadcast, CheckSignatures, Effect, Publish, Send
from node.events import Instant, Recovered
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.block import Block
from node.protocol.certificate import FinalBlock, Finality, VoteKind, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle, Record
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.messages import (
    Ballot,
    BodyReply,
    Certified,
    ChainReply,
    Proposal,
    Standing,
    TransactionsReply,
    TransactionsRequest,
)
from node.protocol.topics import Refusals, refusals_topic
from node.protocol.transaction import Transaction
from node.replica.replica import Replica
from tests.chains import TIME, Network, Shard


def at(now: int) -> Instant:
    return Instant(now, TIME + now)


def replica_of(network: Network, member: int, has_votes: bool = True, number: int = 0) -> Replica:
    """A member of a shard at height 0."""
    shard = network.shards[number]
    recovered = Recovered(State.genesis(shard.rules), None, ())
    return Replica(network.genesis, network.document, shard.members[member], "n", recovered, at(0), has_votes)


def take_in(replica: Replica, transaction: Transaction) -> list[Effect]:
    """Hand over a transaction and the verdict on its signatures."""
    effects = replica.on_transactions([encode(transaction)], at(1))
    return effects + settle(replica, effects, 2)


def checks(effects: Iterable[Effect]) -> list[CheckSignatures]:
    return [effect for effect in effects if isinstance(effect, CheckSignatures)]


def proposals(effects: Iterable[Effect]) -> list[Proposal]:
    return [effect.message for effect in effects if isinstance(effect, Broadcast) and isinstance(effect.message, Proposal)]


def votes(effects: Iterable[Effect]) -> list[VoteKind]:
    found = [effect.message for effect in effects if isinstance(effect, Broadcast)]
    return [message.vote.kind for message in found if isinstance(message, Ballot)]


def refusals(replica: Replica, effects: Iterable[Effect]) -> list[Code]:
    topic = refusals_topic(replica.electorate.network, replica.electorate.chain)
    bodies = [effect.body for effect in effects if isinstance(effect, Publish) and effect.topic == topic]
    messages = [decode(Refusals, body, MAX_BROKER_BODY_BYTES) for body in bodies]
    assert all(message.is_valid(replica.electorate) for message in messages)
    return [item.code for message in messages for item in message.items]


def catch_up(replica: Replica, shard: Shard, start: int = 1) -> list[Effect]:
    """Tell it that others are far ahead, and answer its question with the shard's chain."""
    peer = shard.electorate.keys[(replica.member + 1) % 4]
    replica.on_message(peer, Standing(1_000, 1), at(start))
    effects = replica.on_message(peer, ChainReply(tuple(FinalBlock(c.block, c.finality) for c in shard.chain)), at(start + 1))
    return effects + settle(replica, effects, start + 1)


def make_final(replica: Replica, shard: Shard, now: int = 1) -> list[Effect]:
    """Tell it, block after block of the shard's chain, that a quorum has just made it final, and hand it the body it asks for."""
    peer, found = shard.electorate.keys[(replica.member + 1) % 4], list[Effect]()
    for certified in shard.chain:
        effects = replica.on_message(peer, Certified((certified.finality.certificate,)), at(now))
        effects += replica.on_message(peer, BodyReply(certified.block), at(now))
        found += effects + settle(replica, effects, now)
    return found


def settle(replica: Replica, effects: Iterable[Effect], now: int, verdict: bool | None = None) -> list[Effect]:
    """Answer its checks of signatures, truly or all with ``verdict``, until it has no more."""
    found: list[Effect] = []
    for check in checks(effects):
        verdicts = [t.has_valid_signatures() if verdict is None else verdict for t in check.transactions]
        answer = replica.on_signatures_checked(check.token, verdicts, at(now))
        found += answer + settle(replica, answer, now, verdict)
    return found


def signed(shard: Shard, block: Block, member: int | None = None) -> Proposal:
    """The block proposed by its proposer, or by ``member``."""
    header = block.header
    signer = header.proposer if member is None else member
    vote = sign_vote(shard.members[signer], signer, shard.electorate, VoteKind.NOTARIZE, header.view, header.hash)
    return Proposal(block.compact(), vote, None, ())


def asked(effects: Iterable[Effect]) -> list[TransactionsRequest]:
    messages = (effect.message for effect in effects if isinstance(effect, Send))
    return [message for message in messages if isinstance(message, TransactionsRequest)]


def hear(replica: Replica, proposal: Proposal, block: Block, now: int) -> list[Effect]:
    """A proposal, and of its block what the member asks for."""
    leader = replica.electorate.keys[proposal.vote.signer]
    effects = replica.on_message(leader, proposal, at(now))
    for request in asked(effects):
        reply = TransactionsReply(request.block, tuple(block.transactions[place] for place in request.places))
        effects = effects + replica.on_message(leader, reply, at(now))
    return effects


def forge_bundle(source: Shard, destination: int, sequence: int, records: tuple[Record, ...]) -> CertifiedBundle:
    """A bundle that ``source``'s committee certified, whatever is in it."""
    bundle = Bundle(source.number, destination, sequence, records)
    head = source.head
    place = {"document": source.electorate.document, "view": head.view + sequence, "height": head.height + sequence}
    header = structs.replace(head, outbox_root=merkle.root([encode(bundle)]), **place)
    certificate = source.certificate(VoteKind.FINALIZE, header.view, header.hash)
    return CertifiedBundle(bundle, header, Finality((), certificate), merkle.branch([encode(bundle)], 0))
