"""What a node's shell tells its mind: what came in, and the answers to effects. Peers coming and going, and their frames, are
``node.network.events``."""

from typing import NamedTuple

from msgspec import Struct

from node.consensus.journal import JournalRecord
from node.effects import Pledge
from node.ledger.checkpoint import Slice
from node.ledger.state import State
from node.network.events import Message, PeerDown, PeerUp
from node.protocol.block import Header
from node.protocol.certificate import CertifiedHeader
from node.protocol.chain import Chain
from node.protocol.epoch import Opening, SignedDocument
from node.protocol.queries import Query
from node.protocol.succession import Succession


class Instant(NamedTuple):
    """A moment, ms: ``now`` on a monotonic clock, for timers; ``wall`` since the Unix epoch, for block time."""

    now: int
    wall: int


class Stored(Struct, frozen=True):
    """What a node has when it starts: 32 random bytes, new each time, and what it remembers of its part in the network.

    ``accepted``: from ``AcceptDocument``. ``pledges``: for epochs that have not begun, one each. ``begun``: from ``Begin``, one
    after the other. ``chains``: of which something is stored.
    """

    entropy: bytes
    accepted: SignedDocument | Opening | None = None
    pledges: tuple[Pledge, ...] = ()
    begun: tuple[Succession, ...] = ()
    chains: frozenset[Chain] = frozenset()


class Transactions(Struct, frozen=True):
    """Encoded transactions from clients."""

    batch: tuple[bytes, ...]


class Entries(Struct, frozen=True):
    """Encoded entries for the register."""

    batch: tuple[bytes, ...]


class Asked(Struct, frozen=True):
    """A client's question, to this member or to each of its committee."""

    query: Query


class Recovered(Struct, frozen=True):
    """The answer to ``Recover``: the ledger after ``last``, the last final block (None: height 0), the consensus records of later
    views, the peaks of the last block (``Tree``), the rows of checkpoints that came up again, to be stored again, and by
    destination the number of the first bundle that is stored. ``pledge``: None in a database that has no votes, or has lost
    them. ``opening``: the header at height 0 of a chain that follows on others, as long as there is no block; None: the
    genesis'. ``is_handed_over``: whether the state was handed over, and no block came since."""

    state: State
    last: CertifiedHeader | None
    records: tuple[JournalRecord, ...]
    peaks: dict[int, bytes] = {}
    slices: tuple[Slice, ...] = ()
    kept: dict[int, int] = {}
    pledge: Pledge | None = None
    opening: Header | None = None
    is_handed_over: bool = False


class Missing(Struct, frozen=True):
    """The answer to ``Recover``: nothing is stored, and what it is to be opened from is not all here."""


class SignaturesChecked(Struct, frozen=True):
    """The answer to ``CheckSignatures``: whether each transaction's are valid."""

    token: int
    verdicts: tuple[bool, ...]


class Mined(Struct, frozen=True):
    """The answer to ``Mine``."""

    token: int
    nonce: bytes


ChainEvent = Transactions | Entries | Asked | Recovered | Missing | SignaturesChecked | Mined


class For(Struct, frozen=True):
    """What comes from clients for one chain, or answers what was asked for in it."""

    chain: Chain
    event: ChainEvent


class Bulletined(Struct, frozen=True):
    """A message of the bulletins topic."""

    body: bytes


class AskedAbout(Struct, frozen=True):
    """A message of the asks topic."""

    body: bytes


class Tick(Struct, frozen=True):
    """Time passed; due at the mind's ``deadline`` at the latest."""


Event = PeerUp | PeerDown | Message | For | Bulletined | AskedAbout | Mined | Tick
