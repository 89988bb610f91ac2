"""Who waits for a transfer is told once it is final, durably; nobody is forgotten, and they are not too many."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway import waiting as module
from gateway.database import Database, open_engine
from gateway.events.outbox import Outbox
from gateway.ledger import Ledger, Superseded
from gateway.owners import Owners
from gateway.projection import Status, Tracked, tracked_order
from gateway.rows import transfer_row
from gateway.statements import ADD_TRANSFER
from gateway.waiting import End, Waiting
from node.client.blocks import ProvenBlock, prove_block
from node.protocol.chain import Chain
from node.protocol.codec import encode
from tests.chains import Network, Shard

CHAIN = Chain(1, 0)


class Desk:
    """A ledger that has taken in payments, the chain that makes them final, and those who wait; ``elsewhere``: in another
    process, which is told of nothing."""

    def __init__(self, folder: Path, payments: int = 1) -> None:
        self.path = folder / "gateway.db"
        network = Network()
        payer, payee = network.person(0), network.person(0, 1)
        network.fund(payer, 100)
        self.shard: Shard = network.shards[0]
        self.database = Database(open_engine(f"sqlite:///{self.path}"))
        self.ledger = Ledger(self.database, Outbox(self.database), Owners(), network.genesis.parameters.validity_window)
        self.ledger.documents = [network.document]
        self.waiting, self.elsewhere = Waiting(self.database), Waiting(self.database)
        self.ledger.on_final = self.waiting.tell
        self.made = [network.pay(payer, payee, 1) for _ in range(payments)]
        self.tracked = [tracked_order(t.order, t.id, encode(t), network.document, own=True) for t in self.made]

    async def take_in(self) -> None:
        for tracked in self.tracked:
            row = transfer_row(tracked, "ann")
            await self.database.write(lambda c, row=row: ADD_TRANSFER.run(c, row) and None)  # type: ignore[misc]

    def block(self) -> ProvenBlock:
        block = prove_block(self.shard.add(*self.made), self.shard.electorate)
        assert block is not None
        return block

    def stored(self, tracked: Tracked) -> str:
        with sqlite3.connect(self.path) as other:
            found = other.execute("SELECT status FROM transfers WHERE transaction_id = ?", (tracked.id,)).fetchone()
        return str(found[0])


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., None]:
    """Runs a story on asyncio, at a desk with so many payments taken in."""

    def tell(story: Callable[[Desk], Awaitable[None]], payments: int = 1) -> None:
        desk = Desk(tmp_path, payments)

        async def run() -> None:
            with closing(desk.database):
                await desk.take_in()
                await asyncio.wait_for(story(desk), 20)

        asyncio.run(run())

    return tell


def status(end: End | None) -> Status | None:
    return None if end is None else end.status


def test_all_who_wait_are_told_and_not_before_it_is_durable(told: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        async def wait(tracked: Tracked) -> tuple[Status | None, str]:
            return status(await desk.waiting.end(tracked.id, 30, fresh=True)), desk.stored(tracked)

        waiting = [asyncio.create_task(wait(tracked)) for tracked in desk.tracked for _ in range(3)]
        await asyncio.sleep(0)
        await desk.ledger.apply(CHAIN, [desk.block()])
        assert await asyncio.gather(*waiting) == [(Status.COMMITTED, "committed")] * 15

    told(story, 5)


def test_where_nobody_tells_the_database_does_and_who_comes_later_hears_at_once(told: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        (tracked,) = desk.tracked
        waiting = asyncio.create_task(desk.elsewhere.end(tracked.id, 1000))
        await asyncio.sleep(0)
        await desk.ledger.apply(CHAIN, [desk.block()])
        await desk.elsewhere.look()
        assert status(await waiting) is Status.COMMITTED
        assert status(await desk.elsewhere.end(tracked.id, 1000)) is Status.COMMITTED

    told(story)


def test_waiting_ends_after_its_time_and_at_the_end_of_the_process(told: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        (tracked,) = desk.tracked
        assert await desk.waiting.end(tracked.id, 0.05) is None
        waiting = asyncio.create_task(desk.waiting.end(tracked.id, 1000))
        await asyncio.sleep(0)
        desk.waiting.stop()
        assert await waiting is None
        assert await desk.waiting.end(tracked.id, 1000) is None

    told(story)


def test_so_many_may_wait_and_a_place_becomes_free_when_one_leaves(
    told: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITERS", 2)

    async def story(desk: Desk) -> None:
        (tracked,) = desk.tracked
        first, second = (asyncio.create_task(desk.waiting.end(tracked.id, 1000, fresh=True)) for _ in range(2))
        await asyncio.sleep(0)
        await desk.waiting.end(tracked.id, 1000, fresh=True)  # one too many: answered at once
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        third = asyncio.create_task(desk.waiting.end(tracked.id, 1000, fresh=True))
        await asyncio.sleep(0)
        assert not third.done()
        await desk.ledger.apply(CHAIN, [desk.block()])
        await asyncio.gather(second, third)

    told(story)


def test_a_block_that_somebody_else_has_taken_in_changes_nothing(told: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        block = desk.block()
        await desk.ledger.apply(CHAIN, [block])
        with pytest.raises(Superseded):
            await desk.ledger.apply(CHAIN, [block])

    told(story)
