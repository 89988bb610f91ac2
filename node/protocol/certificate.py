"""Votes and certificates: 2f+1 signatures of a committee over one statement."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import Block, Effects, Header, MemberIndex, View, skip_height
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.crypto import Hash, KeyPair, Signature, digest, verify
from node.protocol.limits import MAX_COMMITTEE, MAX_FINALITY_PATH


class VoteKind(IntEnum):
    NOTARIZE = 1
    """This block is valid and the first I saw in this view."""
    NULLIFY = 2
    """This view took too long; its block hash is all zeros."""
    FINALIZE = 3
    """I saw this block notarized and never nullified its view."""


class Electorate(Struct, frozen=True):
    """Who may sign for a shard: the committee's public keys, in member order. ``document``: hash of the epoch document that says
    so. ``network``: the label of the network's topics. ``epoch``: the document's number."""

    network: bytes
    document: bytes
    shard: int
    keys: tuple[bytes, ...]
    epoch: int = 1

    @property
    def chain(self) -> Chain:
        return Chain(self.epoch, self.shard)

    @property
    def faults_tolerated(self) -> int:
        """f: how many of the n members may fail in any way."""
        return (len(self.keys) - 1) // 3

    @property
    def quorum(self) -> int:
        """n - f signatures: 2f+1 of n = 3f+1."""
        return len(self.keys) - self.faults_tolerated

    def statement(self, kind: VoteKind, view: int, block: bytes) -> bytes:
        """The 32 bytes a vote signs."""
        return digest("vote", encode([self.document, self.shard, kind, view, block]))


class Vote(Struct, array_like=True, frozen=True):
    kind: VoteKind
    view: View
    block: Hash
    signer: MemberIndex
    signature: Signature

    def is_valid(self, electorate: Electorate) -> bool:
        return self.signer < len(electorate.keys) and verify(
            electorate.keys[self.signer], electorate.statement(self.kind, self.view, self.block), self.signature
        )


def sign_vote(key: KeyPair, signer: int, electorate: Electorate, kind: VoteKind, view: int, block: bytes) -> Vote:
    return Vote(kind, view, block, signer, key.sign(electorate.statement(kind, view, block)))


class Certificate(Struct, array_like=True, frozen=True):
    """A quorum's signatures over one statement; ``signers`` ascend and match ``signatures``."""

    kind: VoteKind
    view: View
    block: Hash
    signers: Annotated[tuple[MemberIndex, ...], Meta(max_length=MAX_COMMITTEE)]
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MAX_COMMITTEE)]

    def is_valid(self, electorate: Electorate) -> bool:
        """Whether exactly a quorum of distinct members signed, each validly."""
        if len(self.signers) != electorate.quorum or len(self.signatures) != len(self.signers):
            return False
        if any(a >= b for a, b in zip(self.signers, self.signers[1:], strict=False)):
            return False
        if self.signers[-1] >= len(electorate.keys):
            return False
        statement = electorate.statement(self.kind, self.view, self.block)
        pairs = zip(self.signers, self.signatures, strict=True)
        return all(verify(electorate.keys[signer], statement, signature) for signer, signature in pairs)


def make_certificate(votes: Sequence[Vote], electorate: Electorate) -> Certificate:
    """Combine at least a quorum of valid votes of one statement by distinct members."""
    chosen = sorted(votes, key=lambda vote: vote.signer)[: electorate.quorum]
    first = chosen[0]
    signers, signatures = zip(*((vote.signer, vote.signature) for vote in chosen), strict=True)
    return Certificate(first.kind, first.view, first.block, signers, signatures)


def path_heights(low: int, high: int) -> list[int]:
    """The heights from ``high`` down to just above ``low`` by which the one links to the other, ascending: each step goes to
    the skip height, or, where that is below ``low``, to the parent's. At most k(k + 1)/2 for a difference below 2^k."""
    heights = []
    while high > low:
        heights.append(high)
        high = skip_height(high) if skip_height(high) >= low else high - 1
    return heights[::-1]


class Finality(Struct, array_like=True, frozen=True):
    """Proves a block final: by its own finalize certificate, or by that of a descendant with the headers on the one path that
    leads to it (``path_heights``)."""

    path: Annotated[tuple[Header, ...], Meta(max_length=MAX_FINALITY_PATH)]
    certificate: Certificate

    def proves(self, header: Header, electorate: Electorate) -> bool:
        """Whether this makes ``header`` final in the electorate's shard, by its document."""
        if (header.document, header.shard) != (electorate.document, electorate.shard):
            return False
        low = header.height
        for following in self.path:
            link = following.skip if skip_height(following.height) >= low else following.parent
            if link != header.hash:
                return False
            header = following
        certificate = self.certificate
        return (
            certificate.kind == VoteKind.FINALIZE
            and certificate.block == header.hash
            and certificate.view == header.view
            and certificate.is_valid(electorate)
        )


class CertifiedHeader(Struct, frozen=True):
    """A final block's header with the proof that it is."""

    header: Header
    finality: Finality


class FinalBlock(Struct, array_like=True, frozen=True):
    """A final block and what proves it; its effects are for the receiver to find out."""

    block: Block
    finality: Finality


class CertifiedBlock(Struct, array_like=True, frozen=True):
    """A final block with the proof that it is, and its effects. What nodes store, publish, and send to who is behind."""

    block: Block
    finality: Finality
    effects: Effects

    def is_valid(self, electorate: Electorate) -> bool:
        """Whether the block is final and the payload and effects are the ones its header commits to."""
        header = self.block.header
        return (
            self.finality.proves(header, electorate)
            and self.block.payload_root() == header.payload_root
            and self.effects.match(header)
        )
