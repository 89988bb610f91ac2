"""The most memory that others can make a node keep: every cap of the process, in bytes, and their sum.

What grows with the ledger itself - accounts, undecided transactions, ids of the validity window - is not in it: it costs whoever
makes it grow money or work, and is said in docs/threat-model.md.
"""

from node.consensus.simplex import JUST_FINAL, MAX_PROPOSALS, MAX_VOTED_BYTES
from node.intake import MAX_NEWS, MAX_NEWS_BYTES, MAX_TRANSACTION_BYTES
from node.network.broker import MAX_QUEUED_BYTES, MAX_UNREAD_BYTES
from node.network.callers import MAX_HANDSHAKES
from node.network.connection import UNREAD_BYTES
from node.network.framing import MIN_FRAME_BYTES
from node.network.inbox import INBOX_BYTES, ITEM_BYTES
from node.network.link import PART_BYTES
from node.network.links import HELD_BYTES, MAX_EARLY_BYTES, VISITS
from node.network.secured import NOISE_MESSAGE_BYTES
from node.network.transport import QUEUE_BYTES
from node.network.yamux import MAX_ANSWERS
from node.protocol.limits import (
    MAX_BLOCK_PAYLOAD_BYTES,
    MAX_BROKER_BODY_BYTES,
    MAX_BUNDLE_BYTES,
    MAX_ENTRY_BYTES,
    MAX_FRAME_BYTES,
    MAX_QUERY_BYTES,
)
from node.replica import desk
from node.replica.checking import MAX_PROPOSAL_BYTES
from node.replica.inbox import MAX_CHANNEL_BYTES
from node.replica.mempool import MAX_BYTES, MAX_CHECKING_BYTES

DECODED = 6
"""Memory of a transaction or a record, its encoding included, in lengths of its encoding: 3.9 to 5.7 were measured."""
FRAME_DECODED = 13
"""The same of a whole frame of the most wasteful form there is: 12.9 were measured."""
_BLOCK = MAX_BLOCK_PAYLOAD_BYTES + MAX_BUNDLE_BYTES
"""The largest payload. Of blocks not final a member has those it voted for, the last of which may pass the cap; those that
quorums notarized, twice that at most, since f + 1 honest members of the n - f voted for each; two of the current view, and
the two that became final last."""
COPIES = 3
"""Of what is read from storage, encoded and sent."""


def bounds(nodes: int, shards: int) -> dict[str, int]:
    """Bytes by what holds them, for a node of a network with so many nodes and shards."""
    peers = min(nodes, nodes // shards + VISITS.most)  # other members, the coordinator, and members of other shards
    return {
        "unread bytes of peers": peers * (UNREAD_BYTES + NOISE_MESSAGE_BYTES),
        "handshakes": MAX_HANDSHAKES * 2 * NOISE_MESSAGE_BYTES,
        "unfinished frames": HELD_BYTES + MAX_FRAME_BYTES,
        "frames in the inbox": INBOX_BYTES + MAX_FRAME_BYTES + PART_BYTES // MIN_FRAME_BYTES * ITEM_BYTES,
        "the frame that is handled": FRAME_DECODED * MAX_FRAME_BYTES,
        "frames that peers have not taken": peers * (QUEUE_BYTES + NOISE_MESSAGE_BYTES + MAX_ANSWERS),
        "frames for peers that are called": MAX_EARLY_BYTES + MAX_FRAME_BYTES,
        "messages from the broker": 2 * MAX_UNREAD_BYTES,  # transactions, and queries
        "messages to the broker": MAX_QUEUED_BYTES + MAX_BROKER_BODY_BYTES,
        "transactions not looked at": MAX_TRANSACTION_BYTES,
        "bulletins not looked at": MAX_NEWS_BYTES + MAX_FRAME_BYTES,
        "asks and entries not looked at": MAX_NEWS * (MAX_QUERY_BYTES + MAX_ENTRY_BYTES),
        "entries for the register": DECODED * desk.MAX_BYTES,
        "transactions under check": DECODED * MAX_CHECKING_BYTES,
        "mempool": DECODED * MAX_BYTES,
        "proposals under check": DECODED * MAX_PROPOSAL_BYTES,
        "blocks that are not final, or just became so": DECODED
        * (3 * (MAX_VOTED_BYTES + _BLOCK) + (MAX_PROPOSALS + JUST_FINAL) * _BLOCK),
        "bundles of other shards": DECODED * (shards - 1) * (MAX_CHANNEL_BYTES + MAX_BUNDLE_BYTES),
        "blocks read for clients and peers": COPIES * MAX_BROKER_BODY_BYTES,
    }
