"""Keeps up with one shard's chain: reads what is published, asks for what is missing, hands on what follows."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from msgspec import Struct

from gateway.ledger import Place
from gateway.problems import Problem
from gateway.queries import Queries
from gateway.seldom import Seldom
from node.client.blocks import ProvenBlock, prove_block, read_block
from node.client.follower import Follower, Progress
from node.client.line import BrokerUnavailable
from node.client.unread import Unread
from node.protocol.block import Header
from node.protocol.certificate import Electorate
from node.protocol.queries import BlockList, GetBlocks

_REPLY_TIMEOUT = 1.5
"""Seconds that a member has for blocks that a person wants to see."""
_TRIES = 3
_RECENT = 100
_SMALL = 8 << 10
"""Bytes of blocks that are read without a thread: some ten payments and the certificate."""


class BlockSummary(Struct, frozen=True):
    """A line of the block explorer. Times in ms."""

    epoch: int
    shard: int
    height: int
    hash: str
    time: int
    view: int
    proposer: int
    transactions: int
    bundles: int
    receipts: int


def summary_of(epoch: int, proven: ProvenBlock) -> BlockSummary:
    block, h = proven.certified.block, proven.header
    counts = (len(block.transactions), len(block.bundles), len(proven.certified.effects.receipts))
    return BlockSummary(epoch, h.shard, h.height, proven.hash.hex(), h.time, h.view, h.proposer, *counts)


class ShardFollower:
    """``end`` is the chain's closing block, once it is known. ``place`` tells how far the chain has been followed, by whichever
    process. ``apply`` is awaited with runs of consecutive blocks. ``queries`` are for following, ``lookups`` for all else.

    Attributes:
        recent: summaries of the latest blocks applied here.
    """

    def __init__(
        self,
        electorate: Electorate,
        queries: Queries,
        lookups: Queries,
        end: Callable[[], Header | None],
        place: Callable[[], Place],
        apply: Callable[[list[ProvenBlock]], Awaitable[None]],
    ) -> None:
        self._electorate = electorate
        self._queries, self._lookups = queries, lookups
        self._end, self._place, self._apply = end, place, apply
        self._chain: Follower | None = None
        self._unread, self._seldom = Unread(), Seldom()
        self._next_member = 0
        self._before = (0, 0)
        self._pause: asyncio.Timeout | None = None
        self.recent: deque[BlockSummary] = deque(maxlen=_RECENT)

    @property
    def height(self) -> int:
        """Of the last block applied; 0 before the first."""
        return self._place().height

    @property
    def has_ended(self) -> bool:
        """Whether the next epoch has begun."""
        return self._end() is not None

    @property
    def is_complete(self) -> bool:
        """Whether it has been followed to its closing block."""
        end = self._end()
        return end is not None and self.height >= end.height

    @property
    def caught_up(self) -> bool:
        """Whether it is followed here, and its end has been reached; or its closing block has."""
        return self.is_complete or (self._chain is not None and self._chain.caught_up)

    @property
    def missing(self) -> str:
        """Why its end has not been reached, in words."""
        shard = f"shard {self._electorate.shard}" + (f" of epoch {self._electorate.epoch}" if self.has_ended else "")
        return f"{shard}: no node keeps block {self.height + 1} any more" if self.is_cut_off else f"{shard} not caught up"

    @property
    def is_cut_off(self) -> bool:
        """Whether it goes on only once somebody has a block again that nobody gives."""
        return self._chain is not None and self._chain.is_cut_off

    @property
    def refused(self) -> int:
        return self._before[0] + (self._chain.refused if self._chain is not None else 0)

    @property
    def nonsense(self) -> int:
        """Blocks followed whose content makes no sense, and certified ones that contradict the chain."""
        return self._before[1] + (self._chain.nonsense + self._chain.forks if self._chain is not None else 0)

    def hear(self, body: bytes) -> None:
        """Take in a published block; it is checked later. When too much waits it is dropped, and asked for later."""
        if self._chain is not None:
            self._unread.put(body)

    def finish(self) -> None:
        """Its closing block is known now."""
        if (end := self._end()) is not None and self._chain is not None:
            self._chain.finish(end)
            if self._pause is not None and not self._pause.expired():  # else it ends in the next turn anyway, and refuses this
                self._pause.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Follow to the chain's end, or until cancelled."""
        place = self._place()
        self._chain = chain = Follower(self._electorate, place.height, place.hash)
        self.finish()
        clock = asyncio.get_running_loop().time
        try:
            while not chain.is_complete:
                if bodies := await self._published(chain.due - clock()):
                    await self._keep(chain.published(await self._read(bodies), clock()))
                if (asked := chain.ask(clock())) is not None:
                    try:
                        blocks, oldest = await self._ask(self._queries, asked.member, asked.request, asked.patience) or (None, 1)
                    except BrokerUnavailable:
                        await self._keep(chain.answered(None, clock(), is_sent=False))
                    else:
                        await self._keep(chain.answered(blocks, clock(), oldest))
        finally:
            self._before = (self.refused, self.nonsense)
            self._chain = None
            self.recent.clear()

    async def fetch(self, first: int, count: int) -> list[ProvenBlock] | None:
        """Up to ``count`` proven blocks from height ``first`` on, from the next member in turn; None when it does not answer.

        Raises:
            BrokerUnavailable: the question could not be sent.
        """
        member, self._next_member = self._next_member, (self._next_member + 1) % len(self._electorate.keys)
        answer = await self._ask(self._lookups, member, GetBlocks(first, count), _REPLY_TIMEOUT)
        return None if answer is None else [block for block in answer[0] if block is not None]

    async def block(self, height: int) -> ProvenBlock:
        """One proven block that is final. Raises Problem (503): no member gives it now."""
        try:
            for _ in range(_TRIES):
                found = await self.fetch(height, 1)
                if found and found[0].header.height == height:
                    return found[0]
        except BrokerUnavailable:
            raise Problem(503, "not_ready", "the broker cannot be reached", retry_after=2) from None
        raise Problem(503, "no_answer", "no member gives this block now", retry_after=2)

    async def _ask(
        self, queries: Queries, member: int, request: GetBlocks, timeout: float
    ) -> tuple[list[ProvenBlock | None], int] | None:
        """The blocks, and the height of the first that the member keeps."""
        answer = await queries.ask_one(self._electorate, member, request, timeout)
        if not isinstance(answer, BlockList):
            return None
        blocks = await asyncio.to_thread(lambda: [prove_block(block, self._electorate) for block in answer.blocks])
        return blocks, answer.oldest

    async def _read(self, bodies: list[bytes]) -> list[ProvenBlock | None]:
        """In a thread, if it takes longer than to get there and back."""

        def read() -> list[ProvenBlock | None]:
            return [read_block(body, self._electorate) for body in bodies]

        return read() if sum(map(len, bodies)) <= _SMALL else await asyncio.to_thread(read)

    async def _published(self, seconds: float) -> list[bytes]:
        try:
            async with asyncio.timeout(max(0.0, seconds)) as self._pause:
                return await self._unread.take()
        except TimeoutError:
            return []
        finally:
            self._pause = None

    async def _keep(self, progress: Progress) -> None:
        for text in progress.notables:
            self._seldom.warn(text)
        if progress.blocks:
            await self._apply(list(progress.blocks))
            self.recent.extend(summary_of(self._electorate.epoch, block) for block in progress.blocks)
