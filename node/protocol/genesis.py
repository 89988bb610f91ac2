"""The genesis: what everybody who takes part in a network must agree on before it starts. Its hash names the network."""

from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from node.protocol.address import address_of
from node.protocol.codec import encode
from node.protocol.crypto import digest, is_public_key
from node.protocol.limits import MAX_ASSETS, MAX_BLOCK_TRANSACTIONS, MAX_COMMITTEE, MAX_SHARDS
from node.protocol.transaction import Amount, AssetCode, Milliseconds

NetworkLabel = Annotated[bytes, Meta(min_length=8, max_length=8)]
_HASHES_PER_MS = 200
"""Of one core."""
_LONGEST_PUZZLE = 3_600_000
REPLAY_ID_BYTES = 40
"""Memory that the id of a recent transaction takes."""
_MOST_REPLAY_BYTES = 1 << 30
_Positive = Annotated[int, Meta(ge=1, le=2**53)]


class Asset(Struct, frozen=True):
    """An asset: its code, the digits after the point in its amounts, and its issuer's public key (hex).

    ``fee``: what an order pays the issuer for each payment of the asset between others. ``smallest_balance``: no payment to
    others than the issuer is of less, none leaves less to its payer, if anything. Both in smallest units; 0: none.
    """

    code: AssetCode
    decimals: Annotated[int, Meta(ge=0, le=18)]
    issuer: str
    fee: Amount = 0
    smallest_balance: Amount = 0

    @property
    def issuer_address(self) -> bytes:
        return address_of(bytes.fromhex(self.issuer))


def _mining_time(bits: int) -> float:
    """Expected, ms."""
    return float(2**bits) / _HASHES_PER_MS


class Parameters(Struct, frozen=True, kw_only=True):
    """Rules all nodes share. Times in ms, difficulties in leading zero bits."""

    committees: Annotated[int, Meta(ge=1, le=MAX_SHARDS)] = 2
    """Committees to form, if enough nodes register."""
    committee_size: Annotated[int, Meta(ge=1, le=MAX_COMMITTEE)] = 4
    """Nodes in each: 3f+1 survive f faults of any kind."""
    block_difficulty_bits: Annotated[int, Meta(ge=0, le=48)] = 6
    puzzle_difficulty_bits: Annotated[int, Meta(ge=0, le=64)] = 16
    block_interval: _Positive = 50
    """A leader waits this long after a full block, and in proportion after others: no more than so many ids have to be remembered
    as replays. Shorter pauses are paced by load."""
    heartbeat: _Positive = 1_000
    """A leader without work proposes an empty block this long after the last one."""
    view_timeout: _Positive = 2_000
    """Time a view may take, beyond the heartbeat, before members vote to skip it; doubles on failure up to 8 times."""
    block_transactions: Annotated[int, Meta(ge=1, le=MAX_BLOCK_TRANSACTIONS)] = 2_000
    validity_window: _Positive = 600_000
    """How far past block time ``valid_until`` may lie; a transaction's id is remembered until then, so at most that long."""
    commit_timeout: _Positive = 30_000
    """Block time after which a home shard aborts a cross-shard transaction some participant has not answered for."""
    clock_skew: _Positive = 5_000
    """Block time may be this far ahead of a voter's clock."""
    checkpoint_interval: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Blocks between commitments to the whole state, at least: more when very many rows were written."""
    epoch_time: _Positive = 86_400_000
    """Block time after which the next epoch is formed, if the coordinator does not call for it earlier."""
    epoch_pause: _Positive = 10_000
    """Nodes have so long to register, at least; longer after attempts that were called off: twice as long after each, up to 64
    times."""
    reveal_time: _Positive = 10_000
    """Nodes have so long to tell their secrets; twice as long after each attempt that was called off, up to 8 times."""
    handoff_time: _Positive = 300_000
    """The next epoch's committees have so long to get ready; likewise."""
    settle_time: _Positive = 90_000
    """All shards have so long to decide their payments across shards; then the attempt is called off."""

    def __post_init__(self) -> None:
        """Raises ValueError for values with which no network can work, or only with more memory than a node should need."""
        view = self.heartbeat + self.view_timeout
        for works, rule in (
            (
                self.block_interval <= min(self.heartbeat, self.view_timeout // 8),
                "block_interval is at most heartbeat and an eighth of view_timeout: after that a leader counts as late",
            ),
            (
                4 * _mining_time(self.block_difficulty_bits) <= self.view_timeout,
                "block_difficulty_bits: a block is mined in a quarter of view_timeout, else views end without one",
            ),
            (
                _mining_time(self.puzzle_difficulty_bits) <= _LONGEST_PUZZLE,
                "puzzle_difficulty_bits: a puzzle is solved within an hour",
            ),
            (
                self.commit_timeout >= view,
                "commit_timeout is at least a view (heartbeat and view_timeout), else one leader's fault expires all",
            ),
            (
                self.settle_time >= 2 * self.commit_timeout,
                "settle_time is at least twice commit_timeout, else one shard's late payment calls off every attempt",
            ),
            (self.validity_window >= view, "validity_window is at least a view (heartbeat and view_timeout)"),
            (self.clock_skew <= self.validity_window, "clock_skew is at most validity_window, else all may be expired"),
            (
                self.most_replayable * REPLAY_ID_BYTES <= _MOST_REPLAY_BYTES,
                f"validity_window / block_interval * block_transactions is at most {_MOST_REPLAY_BYTES // REPLAY_ID_BYTES}: ids "
                f"of so many transactions are kept in memory, {REPLAY_ID_BYTES} bytes each",
            ),
        ):
            if not works:
                raise ValueError(rule)

    @property
    def most_replayable(self) -> int:
        """Ids in the replay set when transactions come as fast as leaders take them."""
        return self.validity_window * self.block_transactions // self.block_interval

    def latest_valid_until(self, time: int) -> int:
        """The latest ``valid_until`` that is admitted at block time ``time``, ms. The same for all who must agree: admission,
        a participant's vote, what a restart remembers, and the gateway, which refuses before it signs."""
        return time + self.validity_window


class Genesis(Struct, frozen=True, kw_only=True, dict=True):
    """``coordinator``: the public key (hex) that signs epoch documents. ``time``: block time of height 0, ms."""

    name: Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9-]+\Z")]
    time: Milliseconds
    coordinator: str
    assets: Annotated[tuple[Asset, ...], Meta(min_length=1, max_length=MAX_ASSETS)]
    parameters: Parameters = msgspec.field(default_factory=Parameters)

    def __post_init__(self) -> None:
        keys = [self.coordinator, *(asset.issuer for asset in self.assets)]
        if not all(is_public_key(bytes.fromhex(key)) for key in keys):
            raise ValueError("coordinator and issuers are compressed public keys in hex")
        if len({asset.code for asset in self.assets}) != len(self.assets):
            raise ValueError("an asset is listed twice")

    @cached_property
    def hash(self) -> bytes:
        plain = [self.name, self.time, self.coordinator, msgspec.to_builtins(self.assets), msgspec.to_builtins(self.parameters)]
        return digest("genesis", encode(plain))

    @property
    def network(self) -> bytes:
        """Labels what belongs to the network before it has a first epoch document, and the broker's topics: the first 8 bytes of
        the genesis hash. Transactions name ``EpochDocument.network_id``."""
        return self.hash[:8]

    @property
    def coordinator_key(self) -> bytes:
        return bytes.fromhex(self.coordinator)


def read_genesis(path: Path) -> Genesis:
    """Read a genesis file (JSON). Raises OSError, or ValueError naming what is wrong in it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Genesis)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}") from None


def write_genesis(path: Path, genesis: Genesis) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(genesis), indent=2))


class Phase(StrEnum):
    """Where an epoch stands; the coordinator announces it."""

    REGISTRATION = "registration"
    REVEAL = "reveal"
    ASSIGNMENT = "assignment"
    HANDOFF = "handoff"
    MINING = "mining"
    SETTLEMENT = "settlement"
