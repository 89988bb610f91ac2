"""What liars tell those who are behind, or have nothing: blocks, heights, checkpoints and their parts."""

from collections.abc import Sequence
from typing import Any, cast

from msgspec import structs

from node.effects import Broadcast, Effect, Send, SendBlocks, SendCheckpoint, SendParts
from node.handing_over import read_block, read_checkpoint, read_parts, read_skipped
from node.protocol.certificate import CertifiedBlock, FinalBlock, Finality, VoteKind
from node.protocol.codec import decode
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import (
    BodyReply,
    Certified,
    ChainReply,
    ChainRequest,
    CheckpointReply,
    PartsReply,
    PeerMessage,
    Proposal,
    Standing,
)
from tests.simulation.adversary import Adversary


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
