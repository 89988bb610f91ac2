"""What a replica asks its runtime to do. The runtime performs them in order: all that persist, durably, before any that send.

A replica is handed events and returns a list of these; it touches no disk, socket, clock or thread itself.
"""

from msgspec import Struct

from node.protocol.certificate import CertifiedBlock
from node.protocol.messages import PeerMessage
from node.protocol.reports import Notable as Notable
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction


class Journal(Struct, frozen=True):
    """Persist a consensus record (own vote, proposal, certificate) under (view, slot), replacing an older one there."""

    view: int
    slot: str
    data: bytes


class Commit(Struct, frozen=True):
    """Persist a final block, the bundles it sends, and forget journal records of views up to ``view``: one transaction."""

    height: int
    view: int
    block: CertifiedBlock
    encoded: bytes
    """``block``, encoded."""
    bundles: tuple[tuple[int, int, bytes], ...]
    """(destination shard, sequence, encoded ``CertifiedBundle``)."""


class Checkpoint(Struct, frozen=True):
    """Persist the state as of ``height``: rows to write, or to delete where the value is None."""

    height: int
    rows: tuple[tuple[bytes, bytes | None], ...]


class Send(Struct, frozen=True):
    """Send to one node, by public key."""

    peer: bytes
    message: PeerMessage


class Broadcast(Struct, frozen=True):
    """Send to every other member of the own committee."""

    message: PeerMessage


class SendBlocks(Struct, frozen=True):
    """Read final blocks from ``first`` on from storage, as many as fit a frame, and send them to ``peer``."""

    peer: bytes
    first: int


class SendBundles(Struct, frozen=True):
    """Read bundles to ``destination`` from ``sequence`` on from storage, a few, and send them to ``peer``."""

    peer: bytes
    destination: int
    sequence: int


class Publish(Struct, frozen=True):
    """Publish the final block on the broker (the proposer's task)."""

    encoded: bytes


class Refuse(Struct, frozen=True):
    """Tell clients over the broker which transactions were not admitted."""

    items: tuple[Refusal, ...]


class CheckSignatures(Struct, frozen=True):
    """Check the transactions' signatures off the loop; answer with ``on_signatures_checked`` under the same token.
    ``urgent``: a proposal waits for it."""

    token: int
    transactions: tuple[Transaction, ...]
    urgent: bool = False


class Mine(Struct, frozen=True):
    """Find a nonce for ``prefix`` with ``bits`` leading zero bits; answer with ``on_mined`` under the same token. A later
    ``Mine`` or ``StopMining`` cancels it."""

    token: int
    prefix: bytes
    bits: int


class StopMining(Struct, frozen=True):
    """The work under way is stale."""


class Abstain(Struct, frozen=True):
    """Persist that this member, whose earlier votes may be lost, votes in no view up to ``through``."""

    through: int


Persist = Journal | Commit | Checkpoint | Abstain
Effect = (
    Abstain
    | Journal
    | Commit
    | Checkpoint
    | Send
    | Broadcast
    | SendBlocks
    | SendBundles
    | Publish
    | Refuse
    | CheckSignatures
    | Mine
    | StopMining
    | Notable
)
