"""Follows one shard's chain: every block proven by its certificate, linked to the last, none left out."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from msgspec import Struct

from gateway.broker import BrokerUnavailable
from gateway.projection import Facts, Seen
from gateway.queries import Queries
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.channel import CertifiedBundle, Prepare
from node.protocol.codec import DecodeError, decode
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.queries import BlockList, GetBlocks
from node.protocol.transaction import Transaction

log = structlog.get_logger()

STALL = 2.5
"""Seconds without a block after which the members are asked: an idle shard makes one a second."""
_REORDERING = 0.1
"""Seconds a missing block is given to arrive late before it is asked for."""
_REPLY_TIMEOUT = 1.5
_MAX_UNREAD = 256
_MAX_AHEAD = 256
_REFILL = 128
_RECENT = 100

_transaction = msgspec.msgpack.Decoder(Transaction)  # canonical already: a committee has certified the bytes
_bundle = msgspec.msgpack.Decoder(CertifiedBundle)


class BlockSummary(Struct, frozen=True):
    """A line of the block explorer. Times in ms."""

    shard: int
    height: int
    hash: str
    time: int
    epoch: int
    view: int
    proposer: int
    transactions: int
    bundles: int
    receipts: int


def facts_of(certified: CertifiedBlock) -> Facts:
    """What a verified block says, decoded. Raises msgspec.MsgspecError on a payload no honest committee certifies."""
    header, block = certified.block.header, certified.block
    seen = [Seen(_transaction.decode(data).order, data, header.shard, None) for data in block.transactions]
    for data in block.bundles:
        bundle = _bundle.decode(data)
        for record in bundle.bundle.records:
            if isinstance(record, Prepare):
                order = _transaction.decode(record.transaction).order
                seen.append(Seen(order, record.transaction, bundle.header.shard, bundle.header.height))
    effects = certified.effects
    place = (header.shard, header.height, header.hash, header.parent, header.time)
    return Facts(*place, effects.receipts, effects.changes.balances, tuple(seen))


def summary_of(certified: CertifiedBlock) -> BlockSummary:
    block = certified.block
    h = block.header
    counts = (len(block.transactions), len(block.bundles), len(certified.effects.receipts))
    return BlockSummary(h.shard, h.height, h.hash.hex(), h.time, h.epoch, h.view, h.proposer, *counts)


class Follower:
    """One shard's chain from ``height`` on. ``apply`` is awaited with runs of consecutive verified blocks.

    Attributes:
        height, hash: of the last block applied; 0 and empty before the first.
        known: the greatest height of a verified block seen.
        recent: summaries of the latest blocks applied.
    """

    def __init__(self, electorate: Electorate, queries: Queries, apply: Callable[[list[Facts]], Awaitable[None]]) -> None:
        self._electorate = electorate
        self._queries = queries
        self._apply = apply
        self._unread: asyncio.Queue[bytes] = asyncio.Queue(_MAX_UNREAD)
        self._ahead: dict[int, CertifiedBlock] = {}
        self._next_member = 0
        self.height, self.hash, self.known = 0, b"", 0
        self.caught_up = False
        self.recent: deque[BlockSummary] = deque(maxlen=_RECENT)
        self.refused = 0

    def hear(self, body: bytes) -> None:
        """Take in a published block; it is checked later. When too many wait it is dropped, and asked for later."""
        if not self._unread.full():
            self._unread.put_nowait(body)

    async def run(self) -> None:
        """Follow, until cancelled."""
        await self._refill()
        gap_since = None
        while True:
            bodies = await self._published(_REORDERING if self._ahead else STALL)
            await self._take(await asyncio.to_thread(self._verify_bodies, bodies))
            now = asyncio.get_running_loop().time()
            gap_since = (gap_since or now) if self._ahead else None
            if not bodies or (gap_since and now - gap_since > _REORDERING):
                await self._refill()
                gap_since = None

    async def fetch(self, first: int, count: int) -> list[CertifiedBlock] | None:
        """Up to ``count`` proven blocks from height ``first`` on, from the next member in turn; None when it does not answer.

        Raises:
            BrokerUnavailable: the question could not be sent.
        """
        member, self._next_member = self._next_member, (self._next_member + 1) % len(self._electorate.keys)
        answer = await self._queries.ask_one(self._electorate, member, GetBlocks(first, count), _REPLY_TIMEOUT)
        return await asyncio.to_thread(self._verify, answer.blocks) if isinstance(answer, BlockList) else None

    async def _published(self, timeout: float) -> list[bytes]:
        try:
            async with asyncio.timeout(timeout):
                bodies = [await self._unread.get()]
        except TimeoutError:
            return []
        while not self._unread.empty():
            bodies.append(self._unread.get_nowait())
        return bodies

    async def _refill(self) -> None:
        """Ask member after member for what follows the last block, until f+1 in a row have nothing: one of them is honest."""
        fruitless, answered = 0, False
        while fruitless <= self._electorate.faults_tolerated:
            try:
                blocks = await self.fetch(self.height + 1, _REFILL)
            except BrokerUnavailable:
                return
            before = self.height
            await self._take(blocks or [])
            answered = answered or blocks is not None
            fruitless = 0 if self.height > before else fruitless + 1
            if self.height > before and self.height >= self.known and blocks and len(blocks) < _REFILL:
                break
        self.caught_up = self.caught_up or (answered and self.height >= self.known)

    async def _take(self, blocks: list[CertifiedBlock]) -> None:
        """Apply what links to the last block; keep what is ahead of it."""
        for candidate in blocks:
            height = candidate.block.header.height
            self.known = max(self.known, height)
            if self.height < height <= self.height + _MAX_AHEAD:
                self._ahead[height] = candidate
        run: list[CertifiedBlock] = []
        height, hash = self.height, self.hash
        while (block := self._ahead.pop(height + 1, None)) is not None:
            header = block.block.header
            if height and header.parent != hash:
                # Two certified chains: more than f members lie. Nothing that could be believed is left to follow.
                log.error("a certified block does not link to the last one", shard=header.shard, height=header.height)
                break
            run.append(block)
            height, hash = header.height, header.hash
        if run:
            facts = await asyncio.to_thread(lambda: [facts_of(block) for block in run])
            await self._apply(facts)
            self._ahead = {h: ahead for h, ahead in self._ahead.items() if h > height}
            self.height, self.hash = height, hash
            self.recent.extend(summary_of(block) for block in run)
            self.caught_up = self.caught_up or self.height >= self.known

    def _verify_bodies(self, bodies: list[bytes]) -> list[CertifiedBlock]:
        blocks = []
        for body in bodies:
            try:
                blocks.append(decode(CertifiedBlock, body, MAX_BROKER_BODY_BYTES))
            except DecodeError:
                self.refused += 1
        return self._verify(blocks)

    def _verify(self, blocks: Sequence[CertifiedBlock]) -> list[CertifiedBlock]:
        valid = [block for block in blocks if block.is_valid(self._electorate)]
        if len(valid) < len(blocks):
            self.refused += len(blocks) - len(valid)
            log.warning("unproven blocks refused", shard=self._electorate.shard, count=len(blocks) - len(valid))
        return valid
