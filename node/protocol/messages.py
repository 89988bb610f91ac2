"""What nodes say to each other, one ``Frame`` each."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from node.protocol.block import Block, CompactBlock, Height, ShardNumber, View
from node.protocol.certificate import Certificate, FinalBlock, Vote
from node.protocol.channel import CertifiedBundle, SequenceNumber
from node.protocol.checkpoint import CertifiedCheckpoint, Part, Place
from node.protocol.crypto import Hash
from node.protocol.epoch import EpochNumber
from node.protocol.limits import MAX_BLOCK_TRANSACTIONS, MAX_NULLIFICATIONS, MAX_PLACES


class Proposal(Struct, array_like=True, frozen=True, tag=1):
    """The leader's block for a view, without the bodies of its transactions; its own notarize vote, and what justifies building
    on the parent: the parent's notarization or finalization (None for genesis) and the nullifications of the views between the
    two, the last ones."""

    block: CompactBlock
    vote: Vote
    notarization: Certificate | None
    nullifications: Annotated[tuple[Certificate, ...], Meta(max_length=MAX_NULLIFICATIONS)]


class Ballot(Struct, array_like=True, frozen=True, tag=2):
    """One vote."""

    vote: Vote


class Certified(Struct, array_like=True, frozen=True, tag=3):
    """Certificates the sender holds, for who may have missed the votes."""

    certificates: Annotated[tuple[Certificate, ...], Meta(max_length=8)]


class Standing(Struct, array_like=True, frozen=True, tag=4):
    """Where the sender stands. Sent every heartbeat and on connecting."""

    height: Height
    view: View


class ChainRequest(Struct, array_like=True, frozen=True, tag=5):
    """Final blocks from height ``first`` on, please."""

    first: Height


class ChainReply(Struct, array_like=True, frozen=True, tag=6):
    """Consecutive final blocks, as many as fit a frame."""

    blocks: Annotated[tuple[FinalBlock, ...], Meta(max_length=256)]


class StoredChainReply(Struct, array_like=True, frozen=True, tag=6):
    """A ``ChainReply`` made of the (block, finality) pairs that storage holds encoded; to be sent, never to be read."""

    blocks: tuple[tuple[Raw, Raw], ...]


class BodyRequest(Struct, array_like=True, frozen=True, tag=7):
    """The proposed block with this hash, please; not final yet, so it may exist nowhere."""

    view: View
    hash: Hash


class BodyReply(Struct, array_like=True, frozen=True, tag=8):
    block: Block


class BundleDelivery(Struct, array_like=True, frozen=True, tag=9):
    """A bundle for the receiver's shard."""

    bundle: CertifiedBundle


class StoredBundleDelivery(Struct, array_like=True, frozen=True, tag=9):
    """A ``BundleDelivery`` of what storage holds encoded; to be sent, never to be read."""

    bundle: Raw


class BundleRequest(Struct, array_like=True, frozen=True, tag=10):
    """Bundles of your shard's channel to ``destination`` from ``sequence`` on, please; final blocks here have those before.
    ``is_claim``: only that; what follows is here."""

    destination: ShardNumber
    sequence: SequenceNumber
    is_claim: bool = False


class TransactionsRequest(Struct, array_like=True, frozen=True, tag=11):
    """Those transactions of the block you proposed, please, by their places in it, ascending."""

    block: Hash
    places: Annotated[tuple[Annotated[int, Meta(ge=0, lt=MAX_BLOCK_TRANSACTIONS)], ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)]


class TransactionsReply(Struct, array_like=True, frozen=True, tag=12):
    """All those that were asked for, encoded, in that order."""

    block: Hash
    transactions: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)]


class CheckpointRequest(Struct, array_like=True, frozen=True, tag=13):
    """A checkpoint above this height that you have, with what proves it, please."""

    above: Height


class CheckpointReply(Struct, array_like=True, frozen=True, tag=14):
    checkpoint: CertifiedCheckpoint


class PartsRequest(Struct, array_like=True, frozen=True, tag=15):
    """These parts of the checkpoint at ``height``, please."""

    height: Height
    places: Annotated[tuple[Place, ...], Meta(min_length=1, max_length=MAX_PLACES)]


class PartsReply(Struct, array_like=True, frozen=True, tag=16):
    """The first of those that were asked for, as many as fit; none, if the sender does not have that checkpoint."""

    height: Height
    parts: Annotated[tuple[Part, ...], Meta(max_length=MAX_PLACES)]


class BundleName(Struct, array_like=True, frozen=True, tag=17):
    """The sender has this bundle of the channel from ``source`` to your shard, and gives it to who wants it."""

    source: ShardNumber
    sequence: SequenceNumber


class BundleWanted(Struct, array_like=True, frozen=True, tag=18):
    """The bundle that you named, please: of your shard's channel to ``destination``, or between members of that."""

    source: ShardNumber
    destination: ShardNumber
    sequence: SequenceNumber


PeerMessage = (
    Proposal
    | Ballot
    | Certified
    | Standing
    | ChainRequest
    | ChainReply
    | BodyRequest
    | BodyReply
    | BundleDelivery
    | BundleRequest
    | TransactionsRequest
    | TransactionsReply
    | CheckpointRequest
    | CheckpointReply
    | PartsRequest
    | PartsReply
    | BundleName
    | BundleWanted
)


class Frame(Struct, array_like=True, frozen=True):
    """A message, and for which chain of the receiver it is: the one that it keeps, or observes."""

    epoch: EpochNumber
    shard: ShardNumber
    message: PeerMessage


class StoredFrame(Struct, array_like=True, frozen=True):
    """A ``Frame`` of what storage holds encoded; to be sent, never to be read."""

    epoch: int
    shard: int
    message: StoredChainReply | StoredBundleDelivery
