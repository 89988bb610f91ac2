"""What follows one chain: it may learn at any moment that the chain is over."""

import asyncio
from typing import cast

import pytest

from gateway.follower import ShardFollower
from gateway.ledger import Place
from gateway.queries import Queries
from node.client.blocks import ProvenBlock
from node.client.follower import PACES
from node.protocol.block import Header
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.queries import Answer, BlockList, GetBlocks, Request
from tests.chains import Network

PATIENCE = 20.0
NETWORK = Network(standby=4, epoch_pause=100, reveal_time=1000)
NETWORK.change()
CHAIN = NETWORK.chains[Chain(1, 0)]
CLOSING = CHAIN.chain[-1].block.header


class Members:
    """They have nothing to tell until the chain is over."""

    def __init__(self) -> None:
        self.is_over = False

    async def ask_one(self, electorate: Electorate, member: int, request: Request, timeout: float) -> Answer | None:
        assert isinstance(request, GetBlocks)
        return BlockList(tuple(CHAIN.chain[request.first - 1 :][: request.count]) if self.is_over else (), 1)


@pytest.mark.parametrize("turns", range(12))
def test_a_chain_may_be_over_at_any_turn_of_the_loop_also_at_that_in_which_a_wait_has_just_ended(turns: int) -> None:
    async def follow() -> None:
        members, applied = Members(), list[ProvenBlock]()
        queries = cast(Queries, members)

        async def apply(blocks: list[ProvenBlock]) -> None:
            applied.extend(blocks)

        def place() -> Place:
            return Place(applied[-1].header.height, applied[-1].hash, 0) if applied else Place(0, b"", 0)

        def end() -> Header | None:
            return CLOSING if members.is_over else None

        follower = ShardFollower(CHAIN.electorate, queries, queries, end, place, apply)
        following = asyncio.create_task(follower.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        members.is_over = True
        follower.finish()
        await following
        assert [block.header.height for block in applied] == list(range(1, CLOSING.height + 1))

    asyncio.run(asyncio.wait_for(follow(), PATIENCE))


class Slow:
    """They answer whoever waits for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self.asked = seconds, list[tuple[int, float]]()

    async def ask_one(self, electorate: Electorate, member: int, request: Request, timeout: float) -> Answer | None:
        assert isinstance(request, GetBlocks)
        self.asked.append((request.count, timeout))
        return BlockList(tuple(CHAIN.chain[request.first - 1 :][: request.count]), 1) if timeout >= self._seconds else None


@pytest.mark.parametrize("pace", PACES, ids=str)
def test_slow_members_are_asked_for_less_and_given_more_time_until_they_answer(pace: tuple[int, float]) -> None:
    async def follow() -> None:
        members, applied = Slow(pace[1]), list[ProvenBlock]()

        async def apply(blocks: list[ProvenBlock]) -> None:
            applied.extend(blocks)

        queries = cast(Queries, members)
        follower = ShardFollower(CHAIN.electorate, queries, queries, lambda: CLOSING, lambda: Place(0, b"", 0), apply)
        await follower.run()
        assert len(applied) == CLOSING.height
        assert members.asked[: len(CHAIN.members) * PACES.index(pace) + 1][-1] == pace
        assert list(dict.fromkeys(members.asked)) == list(PACES[: PACES.index(pace) + 1])

    asyncio.run(asyncio.wait_for(follow(), PATIENCE))
