"""A second network of the same nodes, under another document of the same genesis, as of an attempt that was called off.

A liar has been there, too, and brings what all of them signed there. Nothing of it may count here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from node.effects import Broadcast, Effect, Send
from node.protocol import merkle
from node.protocol.block import Header
from node.protocol.certificate import (
    Certificate,
    CertifiedBlock,
    Electorate,
    FinalBlock,
    Finality,
    VoteKind,
    make_certificate,
    sign_vote,
)
from node.protocol.channel import Bundle, CertifiedBundle
from node.protocol.codec import decode, encode
from node.protocol.crypto import ZERO_HASH, digest
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Ballot, BundleDelivery, Certified, ChainReply, ChainRequest, PeerMessage

if TYPE_CHECKING:
    from tests.simulation.adversary import Adversary

_DOCUMENT = digest("epoch document", b"of the twin")


def _electorate(liar: "Adversary") -> Electorate:
    """Its committee, there."""
    return structs.replace(liar.electorate, document=_DOCUMENT)


def _certificate(liar: "Adversary", kind: VoteKind, view: int, block: bytes) -> Certificate:
    """Which its committee made there."""
    electorate = _electorate(liar)
    keys = [node.key for node in liar.node.world.committee(electorate.shard)]
    return make_certificate([sign_vote(key, i, electorate, kind, view, block) for i, key in enumerate(keys)], electorate)


def _final(liar: "Adversary", header: Header) -> tuple[Header, Finality]:
    """A header as it was there, and what made it final there."""
    header = structs.replace(header, document=_DOCUMENT)
    return header, Finality((), _certificate(liar, VoteKind.FINALIZE, header.view, header.hash))


def bring_what_was_signed_there(liar: "Adversary", effect: Effect) -> Sequence[Effect]:
    """Certificates and bundles."""
    if not isinstance(effect, Broadcast) or not isinstance(effect.message, Ballot) or liar.chance.random() < 0.7:
        return [effect]
    vote, replica = effect.message.vote, liar.replica
    block = liar.chance.choice((vote.block, liar.chance.randbytes(32)))
    statements = [(VoteKind.NOTARIZE, block), (VoteKind.FINALIZE, block), (VoteKind.NULLIFY, ZERO_HASH)]
    found: list[Effect] = [effect, Broadcast(Certified(tuple(_certificate(liar, k, vote.view, b) for k, b in statements)))]
    for shard, electorate in replica.document.electorates.items():
        if shard != replica.shard:
            number = replica.state.sequence(shard) + 1
            bundle = Bundle(replica.shard, shard, number, tuple(liar.made_up_records()))
            root = merkle.root([encode(bundle)])
            header, finality = _final(liar, structs.replace(replica.consensus.tree.root, view=vote.view, outbox_root=root))
            certified = CertifiedBundle(bundle, header, finality, merkle.branch([encode(bundle)], 0))
            found += [Send(key, BundleDelivery(certified)) for key in electorate.keys]
    return found


def serve_blocks_of_there(liar: "Adversary", peer: bytes, message: PeerMessage) -> None:
    """To who asks for blocks: the block that was made there at that height."""
    if isinstance(message, ChainRequest) and peer in liar.electorate.keys:
        for data in liar.node.disk.blocks(message.first, 1 << 20, 1):
            block = decode(CertifiedBlock, data, MAX_FRAME_BYTES).block
            header, finality = _final(liar, block.header)
            liar.node.send(peer, ChainReply((FinalBlock(structs.replace(block, header=header), finality),)))
