"""What a node's mind asks its shell to do. The shell performs effects in order: all that persist, durably, before any other.

The mind is handed events and returns a list of these; it touches no disk, socket, clock or thread itself. What concerns one
chain - its rows on disk, its peers, work asked for - comes from whoever keeps or observes it, and goes out ``In`` that chain.
"""

from msgspec import Struct

from node.ledger.opening import Origin
from node.ledger.rules import Rules
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.chain import Chain
from node.protocol.checkpoint import Branching, CertifiedCheckpoint, Ids, Rows
from node.protocol.credits import Credits
from node.protocol.epoch import Committee, EpochDocument, Opening, SignedDocument, ToCoordinator
from node.protocol.messages import PeerMessage
from node.protocol.queries import Query
from node.protocol.reports import Notable
from node.protocol.succession import Succession
from node.protocol.transaction import Transaction

# -- persist ---------------------------------------------------------------------------------------------------------------


class Journal(Struct, frozen=True):
    """A consensus record (own vote, proposal, certificate) under (view, slot), replacing an older one there."""

    view: int
    slot: str
    data: bytes


class Commit(Struct, frozen=True):
    """A final block, the bundles it sends; and forget bundles that were taken and journal records of views up to ``view``: one
    transaction."""

    height: int
    view: int
    block: CertifiedBlock
    encoded: bytes
    """``block``, encoded."""
    bundles: tuple[tuple[int, int, bytes], ...]
    """(destination shard, sequence, encoded ``CertifiedBundle``)."""
    taken: tuple[tuple[int, int], ...] = ()
    """(destination shard, sequence): bundles up to there are forgotten, these included."""
    included: tuple[tuple[bytes, int, bytes], ...] = ()
    """What it adds to the replay set, as ``ledger.replay.Piece``."""
    past: int = 0
    """Blocks up to this height need not be kept, but for those that a checkpoint or a skip of a later one leads to."""


class Checkpoint(Struct, frozen=True):
    """Rows of the state as of ``height``, kept beside those of the checkpoint before; None: no such row any more."""

    height: int
    rows: tuple[tuple[bytes, bytes | None], ...]
    certified_at: int | None
    """With the last rows: the height of the header that has their root. From now on this is what a restart begins with."""


class Hold(Struct, frozen=True):
    """Keep the rows as of the last whole checkpoint, which is at ``height``, until another one is to be held; None: no longer."""

    height: int | None


class BeginHandoff(Struct, frozen=True):
    """A checkpoint is to be fetched: forget what was fetched of another one."""


class StoreParts(Struct, frozen=True):
    """Parts of that checkpoint, proven."""

    parts: tuple[Rows | Ids, ...]


class FinishHandoff(Struct, frozen=True):
    """All parts of this checkpoint are stored: the ledger begins anew with it."""

    checkpoint: CertifiedCheckpoint


class LoseVotes(Struct, frozen=True):
    """The votes stored here are not all that this member signed: delete them, and the pledge, without which no restart votes. It
    signs nothing in this epoch any more."""


class Pledge(Struct, array_like=True, frozen=True):
    """What this node has bound itself to in an attempt to form ``epoch``: ``secret``, which its registration commits to, and
    ``roll``, the hash of the only roll to which it tells it; empty before there is one. Takes the place of an earlier attempt's.

    Of the node until the epoch begins. Then it moves: in the database of the chain first, before any vote there; from the node's
    with the epoch's beginning. Who does not have it in the same database as its votes has lost them, and does not vote.
    """

    attempt: int
    secret: bytes
    roll: bytes = b""
    epoch: int = 1


Row = Journal | Commit | Checkpoint | Hold | BeginHandoff | StoreParts | FinishHandoff | Pledge | LoseVotes
"""In the database of a chain."""


class AcceptDocument(Struct, frozen=True):
    """The first epoch document this node believes; apart from the rest, so that it outlives a damaged database. An ``Opening``:
    the epoch has begun, and after a restart this node starts without asking the coordinator."""

    accepted: SignedDocument | Opening


class Begin(Struct, frozen=True):
    """This node goes on to the epoch of this succession; it cannot be taken back."""

    succession: Succession


class Abandon(Struct, frozen=True):
    """What is stored of this chain is not needed any more."""

    chain: Chain


class Retire(Struct, frozen=True):
    """This chain is over: nothing is written of it any more, and of what clients send to it only questions are taken in."""

    chain: Chain


Persist = Pledge | AcceptDocument | Begin | Abandon | Retire
"""What the node itself remembers, whatever its chains. In a batch of effects the chains' rows are stored before these."""

# -- say -------------------------------------------------------------------------------------------------------------------


class Send(Struct, frozen=True):
    """Send to one node, by public key. ``shard``: of the receiver's chain in this epoch; None: the own."""

    peer: bytes
    message: PeerMessage
    shard: int | None = None


class Broadcast(Struct, frozen=True):
    """Send to every other member of the own committee."""

    message: PeerMessage


class SendBlocks(Struct, frozen=True):
    """Read final blocks from ``first`` on from storage, as many as fit a frame, and send them to ``peer``."""

    peer: bytes
    first: int


class SendBundles(Struct, frozen=True):
    """Read bundles to ``destination`` from ``sequence`` on from storage, a few, and send them to ``peer``. ``is_alone``: only the
    first."""

    peer: bytes
    destination: int
    sequence: int
    is_alone: bool = False


class SendCheckpoint(Struct, frozen=True):
    """Read from storage what proves the checkpoint at ``height``, whose root the header at ``certified_at`` has, and send it."""

    peer: bytes
    height: int
    certified_at: int
    root: bytes


class SendParts(Struct, frozen=True):
    """Read parts of the checkpoint at ``height`` from storage, as many of the first as fit, and send them. ``parts``: in their
    order those that need not be read, and the places of the others."""

    peer: bytes
    height: int
    parts: tuple[Branching | bytes, ...]


class Tell(Struct, frozen=True):
    """Send to the coordinator; lost if it is not connected."""

    message: ToCoordinator


class Meet(Struct, frozen=True):
    """Connect with the members of the own committees, and stay connected; with those of others only when there is something to
    send. Nobody else is let in."""

    own: tuple[Committee, ...]
    others: tuple[Committee, ...]


class Ban(Struct, frozen=True):
    """A peer sent what no honest one sends: drop it. ``reason``: for the log."""

    peer: bytes
    reason: str


class Subscribe(Struct, frozen=True):
    """Take in from the broker what clients send to this chain: transactions and queries. ``entries``: and those for the register,
    which it is."""

    chain: Chain
    entries: bool = False


class Unsubscribe(Struct, frozen=True):
    """Of this chain no more."""

    chain: Chain


class Publish(Struct, frozen=True):
    """Publish on the broker."""

    topic: str
    body: bytes


class ReplyBlocks(Struct, frozen=True):
    """Read the final blocks that ``query`` asks for from storage; ``sign_blocks`` makes the reply of them."""

    query: Query


# -- work that takes long --------------------------------------------------------------------------------------------------


class Recover(Struct, frozen=True):
    """Bring the stored ledger back; or, if nothing is stored, open it from its origins, whose states do not change any more.
    Answer with ``Recovered``, or with ``Missing``, if it cannot be done. ``document``, ``credits``: of the epoch, if there are
    origins."""

    rules: Rules
    electorate: Electorate
    origins: tuple[Origin, ...] = ()
    document: EpochDocument | None = None
    credits: Credits = {}


class CheckSignatures(Struct, frozen=True):
    """Check the transactions' signatures off the loop; answer with ``SignaturesChecked`` under the same token.
    ``urgent``: a proposal waits for it."""

    token: int
    transactions: tuple[Transaction, ...]
    urgent: bool = False


class Mine(Struct, frozen=True):
    """Find a nonce for ``prefix`` with ``bits`` leading zero bits; answer with ``Mined`` under the same token. A later
    ``Mine`` or ``StopMining`` cancels it."""

    token: int
    prefix: bytes
    bits: int


class StopMining(Struct, frozen=True):
    """The work under way is stale."""


ChainEffect = (
    Row
    | Send
    | Broadcast
    | SendBlocks
    | SendBundles
    | SendCheckpoint
    | SendParts
    | Ban
    | Publish
    | ReplyBlocks
    | Recover
    | CheckSignatures
    | Mine
    | StopMining
    | Notable
)
"""Of who keeps or observes one chain."""
Effect = ChainEffect


class In(Struct, frozen=True):
    """What concerns one chain."""

    chain: Chain
    effect: ChainEffect


NodeEffect = In | Persist | Tell | Meet | Ban | Subscribe | Unsubscribe | Publish | Mine | StopMining | Notable
