"""The rules one shard's ledger is run by: the network's genesis, and which part of the address space is its own."""

from node.protocol.chain import Chain
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis, Parameters
from node.protocol.shards import ShardTable
from node.protocol.terms import Terms

MAX_WAITING = 1 << 15
"""Cross-shard transactions a home shard keeps undecided with one participant, and as many with several: so one that stands still
stops nothing but what touches it. A participant has both prepared for one home shard at most. All of them decided in one block
still fit the largest bundle."""

MAX_UNCOVERED = 1024
"""Transactions of one home shard that a participant keeps without having voted, since they are not covered; and how many of one
home shard a block looks at again."""

FIGURES_PAUSE = 250
"""Block time between figures that a shard tells others, ms."""

COUNT_TIME = 1_000
"""Block time in which a shard counts its transactions for the register, ms."""

MAX_WOKEN = 4096
"""Records whose time has come that one block deals with: expired transactions, answers that need not be remembered."""

HASHED_ROWS = 2048
"""Rows of the commitment a block may have to bring up to date, on average between two checkpoints."""

FIRST_INTERVAL = 16
"""Blocks from block 1 of a chain that follows on others, its first checkpoint, to the block with its root, at most: soon, so that
a member that lacks the state can be handed it."""


class Rules:
    """What execution needs to know beside the state. Immutable.

    Attributes:
        genesis: the network's. parameters: the genesis'.
        network: the network id.
        document: of this epoch; None: the shard takes part in no change to another one.
        chain: this shard's in this epoch. opened: block time of its height 0, ms.
        is_register: whether it is the register of the change.
        shard: the shard whose ledger this is.
        shards: which shard keeps which address. first, last: the addresses that this one keeps, from the one to the other.
        issuers: each known asset's issuer address, by code, in the order of the codes.
        suffixes: each asset's code as the bytes that end its balances' row keys.
        issued_in: the shard that keeps each asset's issuer account, by suffix.
        terms: the assets' fees and smallest balances.
        peers: the other shards.
    """

    __slots__ = (
        "chain",
        "document",
        "first",
        "genesis",
        "is_register",
        "issued_in",
        "issuers",
        "last",
        "network",
        "opened",
        "parameters",
        "peers",
        "shard",
        "shards",
        "suffixes",
        "terms",
    )

    def __init__(
        self,
        genesis: Genesis,
        network: bytes,
        shard: int,
        shards: ShardTable,
        document: EpochDocument | None = None,
        opened: int | None = None,
    ) -> None:
        """``network``: the id that transactions name. ``opened``: None: the genesis time. Raises ValueError when ``shard`` is not
        in the table."""
        self.first, self.last = shards.range_of(shard)
        self.genesis = genesis
        self.network = network
        self.document = document
        self.chain = Chain(document.number if document is not None else 1, shard)
        self.opened: int = genesis.time if opened is None else opened
        self.is_register = document is not None and shard == document.register
        self.shard = shard
        self.shards = shards
        self.parameters: Parameters = genesis.parameters
        self.terms = Terms(genesis)
        self.issuers: dict[str, bytes] = self.terms.issuers
        self.suffixes: dict[str, bytes] = {code: code.encode() for code in self.issuers}
        self.issued_in: dict[bytes, int] = {code.encode(): shards.shard_of(issuer) for code, issuer in self.issuers.items()}
        self.peers: frozenset[int] = frozenset(shards.shards) - {shard}

    @property
    def is_later(self) -> bool:
        """Whether the chain follows on those of an epoch before."""
        return self.chain.epoch > 1

    @property
    def first_certified(self) -> int:
        """The least height at which there may be a certified checkpoint."""
        first = self.checkpoint_gap(0, 0)
        return first + self.checkpoint_gap(first, 0)

    def checkpoint_gap(self, height: int, rows: int) -> int:
        """Blocks from the checkpoint at ``height`` to the next one; ``rows``: written since the one before."""
        interval = self.parameters.checkpoint_interval
        if self.is_later and height <= 1:
            interval = min(interval, FIRST_INTERVAL) if height else 1
        return interval * max(1, -(-rows // (interval * HASHED_ROWS)))
