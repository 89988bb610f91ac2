"""What a node's shell tells its mind: what came in, and the answers to effects. Peers coming and going, and their frames, are
``node.network.events``."""

from typing import NamedTuple

from msgspec import Struct

from node.consensus.journal import JournalRecord
from node.ledger.state import State
from node.network.events import Message, PeerDown, PeerUp
from node.protocol.certificate import CertifiedBlock
from node.protocol.epoch import SignedDocument
from node.protocol.queries import Query


class Instant(NamedTuple):
    """A moment, ms: ``now`` on a monotonic clock, for timers; ``wall`` since the Unix epoch, for block time."""

    now: int
    wall: int


class Stored(Struct, frozen=True):
    """What a node remembers of its part in the network when it starts.

    ``document``: the epoch document it accepted. ``begun``: whether mining had begun. ``abstain_through``: from ``Abstain``;
    None in a database that took no part in the epoch so far.
    """

    document: SignedDocument | None = None
    begun: bool = False
    abstain_through: int | None = None


class Transactions(Struct, frozen=True):
    """Encoded transactions from clients."""

    batch: tuple[bytes, ...]


class Asked(Struct, frozen=True):
    """A client's question, to this member or to each of its committee."""

    query: Query


class Recovered(Struct, frozen=True):
    """The answer to ``Recover``: the ledger after ``last``, the last final block (None: genesis), the consensus records of later
    views, and the peaks of the last block (``Tree``)."""

    state: State
    last: CertifiedBlock | None
    records: tuple[JournalRecord, ...]
    peaks: dict[int, bytes] = {}


class SignaturesChecked(Struct, frozen=True):
    """The answer to ``CheckSignatures``: whether each transaction's are valid."""

    token: int
    verdicts: tuple[bool, ...]


class Mined(Struct, frozen=True):
    """The answer to ``Mine``."""

    token: int
    nonce: bytes


class Tick(Struct, frozen=True):
    """Time passed; due at the mind's ``deadline`` at the latest."""


Event = PeerUp | PeerDown | Message | Transactions | Asked | Recovered | SignaturesChecked | Mined | Tick
