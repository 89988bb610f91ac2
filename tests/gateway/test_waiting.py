"""Who waits for a transfer is told once it is final, durably; nobody is forgotten, and they are not too many."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway import ledger as module
from gateway.database import Database, open_engine
from gateway.events.outbox import Outbox
from gateway.ledger import Ledger, transfer_row
from gateway.projection import Status, Tracked, tracked_order
from gateway.statements import ADD_TRANSFER, MARK
from node.client.blocks import ProvenBlock, prove_block
from node.protocol.codec import encode
from tests.chains import Network, Shard
from tests.waiting import until


class Desk:
    """A ledger that has taken in payments, and the chain that makes them final."""

    def __init__(self, folder: Path, payments: int = 1) -> None:
        self.path = folder / "gateway.db"
        network = Network()
        payer, payee = network.person(0), network.person(0, 1)
        network.fund(payer, 100)
        self.shard: Shard = network.shards[0]
        self.database = Database(open_engine(f"sqlite:///{self.path}"))
        self.ledger = Ledger(self.database, Outbox(self.database))
        self.ledger.shards = network.document.shards
        self.made = [network.pay(payer, payee, 1) for _ in range(payments)]
        self.tracked = [tracked_order(t.order, t.id, encode(t), network.document.shards, own=True) for t in self.made]

    async def take_in(self) -> None:
        for tracked in self.tracked:
            self.ledger.track(tracked)
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


def test_all_who_wait_are_told_and_not_before_it_is_durable(told: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        async def wait(tracked: Tracked) -> str:
            await desk.ledger.wait_final(tracked.id, 30)
            assert tracked.shown is Status.COMMITTED
            return desk.stored(tracked)

        waiting = [asyncio.create_task(wait(tracked)) for tracked in desk.tracked for _ in range(3)]
        await asyncio.sleep(0)
        await desk.ledger.apply([desk.block()])
        assert await asyncio.gather(*waiting) == ["committed"] * 15

    told(story, 5)


def test_who_comes_while_it_is_being_written_is_told_too_and_who_comes_later_at_once(told: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        (tracked,) = desk.tracked
        applying = asyncio.create_task(desk.ledger.apply([desk.block()]))
        await asyncio.sleep(0)
        assert (tracked.status, tracked.shown) == (Status.COMMITTED, Status.QUEUED), "known here, but not durable yet"
        assert desk.ledger.under_way(tracked.id) is tracked
        await desk.ledger.wait_final(tracked.id, 30)
        assert desk.stored(tracked) == "committed"
        await applying
        assert desk.ledger.under_way(tracked.id) is None
        await desk.ledger.wait_final(tracked.id, 30)

    told(story)


def test_waiting_ends_after_its_time_and_at_the_end_of_the_process(told: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        (tracked,) = desk.tracked
        await desk.ledger.wait_final(tracked.id, 0.05)
        assert tracked.shown is Status.QUEUED
        waiting = asyncio.create_task(desk.ledger.wait_final(tracked.id, 1000))
        await asyncio.sleep(0)
        desk.ledger.stop_waiting()
        await waiting
        await desk.ledger.wait_final(tracked.id, 1000)

    told(story)


def test_so_many_may_wait_and_a_place_becomes_free_when_one_leaves(
    told: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITERS", 2)

    async def story(desk: Desk) -> None:
        (tracked,) = desk.tracked
        first, second = (asyncio.create_task(desk.ledger.wait_final(tracked.id, 1000)) for _ in range(2))
        await asyncio.sleep(0)
        await desk.ledger.wait_final(tracked.id, 1000)  # one too many: answered at once
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        third = asyncio.create_task(desk.ledger.wait_final(tracked.id, 1000))
        await asyncio.sleep(0)
        assert not third.done()
        await desk.ledger.apply([desk.block()])
        await asyncio.gather(second, third)

    told(story)


def test_that_it_was_published_is_told_at_once_and_reaches_the_database_unless_it_is_further_by_then(
    told: Callable[..., None],
) -> None:
    async def story(desk: Desk) -> None:
        slow, fast = desk.tracked
        desk.ledger.submitted([slow.id, fast.id])
        assert (slow.shown, desk.stored(slow)) == (Status.SUBMITTED, "queued")
        desk.made.pop(0)
        await desk.ledger.apply([desk.block()])
        marking = asyncio.create_task(desk.ledger.mark_submitted(0.01))
        await asyncio.to_thread(until, lambda: desk.stored(slow) != "queued", "marked")
        assert (desk.stored(slow), desk.stored(fast)) == ("submitted", "committed")
        marking.cancel()
        late = [{"id": fast.id, "old": "queued", "new": "submitted"}]
        await desk.database.write(lambda c: MARK.run_all(c, late))
        assert desk.stored(fast) == "committed"

    told(story, 2)
