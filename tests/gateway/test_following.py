"""What follows the chains, from epoch to epoch: nothing of a chain before all of those that it comes from."""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, event, update

from gateway.database import FENCE, Database, Transfer, open_engine
from gateway.epochs import StoredEpochs
from gateway.events.outbox import Outbox
from gateway.following import Following
from gateway.lease import Lease, Lost
from gateway.ledger import Ledger
from gateway.owners import Owners
from gateway.projection import tracked_order
from gateway.queries import Queries
from gateway.relay import Relay
from gateway.rows import transfer_row, waiting_rows
from gateway.statements import ADD_TRANSFER
from node.client.blocks import ProvenBlock, prove_block
from node.client.line import Line
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.queries import Answer, BlockList, GetBlocks, Request
from tests.chains import Network

PATIENCE = 20.0
NETWORK = Network(standby=4, epoch_pause=100, reveal_time=1000)
"""Two shards; then three, as the first is split; then two, as its halves merge."""
NETWORK.change()
NETWORK.change(list(NETWORK.nodes.values())[:8])
for _shard in NETWORK.shards:
    _shard.add()
ALL = sorted(NETWORK.chains)


class Committees:
    """Members that answer for their blocks, but for those of ``silent`` chains."""

    def __init__(self) -> None:
        self.silent: set[Chain] = set()

    async def ask_one(self, electorate: Electorate, member: int, request: Request, timeout: float) -> Answer | None:
        await asyncio.sleep(0)
        assert isinstance(request, GetBlocks)
        if electorate.chain in self.silent:
            return None
        blocks = NETWORK.chains[electorate.chain].chain[request.first - 1 :][: request.count]
        return BlockList(tuple(blocks), 1)


class Process:
    """A gateway's following half, on a database in a folder; it knows all epochs."""

    def __init__(self, folder: Path) -> None:
        self.engine, line = open_engine(f"sqlite:///{folder}/gateway.db"), Line("redis://localhost")
        self.database = Database(self.engine)
        self.committees = Committees()
        self.epochs = StoredEpochs(NETWORK.genesis, self.database, lambda _: None)
        self.ledger = Ledger(self.database, Outbox(self.database), Owners(), NETWORK.genesis.parameters.validity_window)
        self.relay = Relay(self.database, line, NETWORK.genesis.network)
        parts = Lease(self.database, "here"), self.ledger, self.relay
        self.following = Following(self.database, line, self.epochs, NETWORK.genesis.network, *parts)
        queries = cast(Queries, self.committees)
        for body in (NETWORK.opening, *NETWORK.successions):
            self.epochs.restore(encode(body))
            self.following.form(self.epochs.require(), queries, queries)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with closing(self.database):
            async with self.leading():
                yield

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """For a while."""
        task = asyncio.create_task(self.following.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def heights(self) -> dict[Chain, int]:
        return {chain: self.ledger.place(chain).height for chain in ALL}

    def first_blocks(self) -> Mapping[Chain, ProvenBlock]:
        """Of the chains of epoch 1."""
        found = {chain: prove_block(NETWORK.chains[chain].chain[0], NETWORK.chains[chain].electorate) for chain in ALL[:2]}
        return {chain: block for chain, block in found.items() if block is not None}

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():  # noqa: ASYNC110  # what others do
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("late", [Chain(1, 0), Chain(1, 1), Chain(2, 0), Chain(2, 1), Chain(2, 2)], ids=str)
def test_no_chain_is_followed_before_all_that_it_comes_from_are_in_the_database(tmp_path: Path, late: Chain) -> None:
    ends = {chain: len(NETWORK.chains[chain].chain) for chain in ALL}

    async def follow() -> None:
        process, waiting = Process(tmp_path), {late}
        for chain in ALL:
            if not waiting.isdisjoint(process.epochs.origins(chain)):
                waiting.add(chain)
        process.committees.silent = {late}
        async with process.running():
            await process.until(lambda: all(process.heights()[chain] == ends[chain] for chain in ALL if chain not in waiting))
            await asyncio.sleep(0.2)
            assert {chain: process.heights()[chain] for chain in waiting} == dict.fromkeys(waiting, 0)
            process.committees.silent = set()
            await process.until(lambda: process.heights() == ends)

    asyncio.run(follow())


def test_a_start_does_not_do_again_what_was_done_for_chains_that_are_over(tmp_path: Path) -> None:
    async def follow() -> set[Chain]:
        """The chains that are begun or left."""
        process, touched = Process(tmp_path), set[Chain]()
        begin, leave = process.ledger.begin, process.ledger.leave

        async def begun(chain: Chain, time: int) -> None:
            touched.add(chain)
            await begin(chain, time)

        async def left(chain: Chain) -> None:
            touched.add(chain)
            await leave(chain)

        process.ledger.begin, process.ledger.leave = begun, left  # type: ignore[method-assign]
        async with process.running():
            await process.until(lambda: not process.following.missing())
        return touched

    assert asyncio.run(follow()) == set(ALL)
    assert {chain.epoch for chain in asyncio.run(follow())} == {2, 3}, "of the last but one what is left may still be handed in"


def test_what_was_handed_in_for_a_chain_after_it_was_left_finds_its_new_home_with_the_next_start(tmp_path: Path) -> None:
    payer = NETWORK.person(0)
    payment = NETWORK.pay(payer, NETWORK.person(1), 1)
    tracked = tracked_order(payment.order, payment.id, encode(payment), NETWORK.documents[0], own=True)

    async def follow() -> Chain:
        process = Process(tmp_path)
        async with process.running():
            await process.until(lambda: not process.following.missing())
            await process.database.write(lambda c: ADD_TRANSFER.run(c, transfer_row(tracked, "ann")) and None)
        return tracked.home

    async def home() -> Chain:
        process = Process(tmp_path)
        async with process.running():
            await process.until(lambda: not process.following.missing())
            ((row,), _) = await process.database.read(lambda c: waiting_rows(c, (0, b""), 1 << 60, 1, ()))
        return row.home

    assert asyncio.run(follow()).epoch == 1
    assert asyncio.run(home()).epoch == 3


def put_waiting(process: Process, count: int) -> Awaitable[None]:
    """Transfers that no block has taken in, by sevens valid as long as each other."""
    payer = NETWORK.person(0)
    payment = NETWORK.pay(payer, NETWORK.person(1), 1)
    row = transfer_row(tracked_order(payment.order, payment.id, encode(payment), NETWORK.documents[0], own=True), "ann")
    times = ((payment.order.valid_until + number // 7, row["created_at"] - 60_000 + number) for number in range(count))
    rows = [{**row, "transaction_id": secrets.token_bytes(32), "valid_until": until, "created_at": at} for until, at in times]
    return process.database.write(lambda c: ADD_TRANSFER.run_all(c, rows))


def test_all_that_waits_is_sent_again_by_who_takes_over_however_much_it_is(tmp_path: Path) -> None:
    async def follow() -> None:
        process = Process(tmp_path)
        await put_waiting(process, 4500)
        async with process.running():
            await process.until(lambda: len(process.relay) == 4500)

    asyncio.run(follow())


def test_no_more_is_sent_again_than_there_is_room_for_and_the_rest_once_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.following.MAX_PENDING", 3000)

    async def follow() -> None:
        process, sent = Process(tmp_path), set[bytes]()
        await put_waiting(process, 4500)
        with closing(process.database):
            for most in (3000, 1500):
                async with process.leading():
                    await process.until(lambda most=most: len(process.relay) >= most)  # type: ignore[misc]
                assert len(process.relay) == most
                sent.update(process.relay)
                taken_in = update(Transfer).where(Transfer.transaction_id.in_(sent)).values(status="prepared")
                await process.database.write(lambda c, taken_in=taken_in: c.execute(taken_in) and None)  # type: ignore[misc]
                for transaction_id in sent:
                    process.relay.forget(transaction_id)
        assert len(sent) == 4500

    asyncio.run(follow())


def test_who_looks_for_what_waits_reads_what_is_sent_already_no_further_than_its_id_and_sorts_nothing(tmp_path: Path) -> None:
    async def look() -> None:
        process, plans = Process(tmp_path), list[str]()

        def explain(connection: Connection, cursor: Any, text: str, parameters: Any, *_: object) -> None:
            if "FROM transfers" in text:
                plans.extend(row[3] for row in connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {text}", parameters))

        await put_waiting(process, 30)
        event.listen(process.engine, "before_cursor_execute", explain)
        with closing(process.database):
            rows, place = await process.database.read(lambda c: waiting_rows(c, (0, b""), 1 << 60, 10, ()))
            assert place is not None
            known = {tracked.id for tracked in rows}
            again, same = await process.database.read(lambda c: waiting_rows(c, (0, b""), 1 << 60, 10, known))
            rest, _ = await process.database.read(lambda c: waiting_rows(c, place, 1 << 60, 100, known))
        assert (len(rows), again, same) == (10, [], place)
        assert len({tracked.id for tracked in rest} - known) == 20
        assert any("transfers_under_way (valid_until>" in plan for plan in plans), plans
        assert not any(plan.startswith(("SCAN", "USE TEMP B-TREE FOR ORDER BY")) for plan in plans), plans

    asyncio.run(look())


def test_it_says_which_block_of_a_chain_that_is_over_nobody_gives_any_more_and_goes_on_once_somebody_does(tmp_path: Path) -> None:
    async def follow() -> None:
        process = Process(tmp_path)
        process.committees.silent = {Chain(1, 1)}
        async with process.running():
            await process.until(lambda: process.following.missing() == ["shard 1 of epoch 1: no node keeps block 1 any more"])
            process.committees.silent = set()
            await process.until(lambda: not process.following.missing())

    asyncio.run(follow())


def test_blocks_that_come_while_the_database_is_busy_are_written_with_those_that_wait_for_it(tmp_path: Path) -> None:
    async def follow() -> None:
        process, begun, loop = Process(tmp_path), list[object](), asyncio.get_running_loop()
        arrived, later, blocks = threading.Event(), list[asyncio.Task[None]](), list(process.first_blocks().items())

        def come() -> None:
            """One in each turn of the loop."""
            if blocks:
                chain, block = blocks.pop()
                later.append(loop.create_task(process.ledger.apply(chain, [block])))
                loop.call_soon(come)
            else:
                arrived.set()

        def others(_: Connection) -> None:
            loop.call_soon_threadsafe(come)
            assert arrived.wait(10)

        with closing(process.database):
            await process.ledger.lead()
            event.listen(process.engine, "begin", begun.append)
            await process.database.write(others)
            await asyncio.gather(*later)
        assert len(begun) == 2
        assert {process.heights()[chain] for chain in process.first_blocks()} == {1}

    asyncio.run(asyncio.wait_for(follow(), PATIENCE))


def test_when_the_database_is_lost_before_their_turn_all_blocks_that_wait_are_refused(tmp_path: Path) -> None:
    async def follow() -> None:
        process = Process(tmp_path)

        def lose(_: Connection) -> None:
            raise ConnectionError("it is gone")

        def take_in() -> Awaitable[list[BaseException | None]]:
            runs = (process.ledger.apply(chain, [block]) for chain, block in process.first_blocks().items())
            return asyncio.gather(*runs, return_exceptions=True)

        with closing(process.database):
            event.listen(process.engine, "begin", lose)
            assert list(map(type, await take_in())) == [ConnectionError] * 2
            event.remove(process.engine, "begin", lose)
            assert await take_in() == [None, None]

    asyncio.run(asyncio.wait_for(follow(), PATIENCE))


def test_blocks_that_wait_when_the_lease_is_lost_are_forgotten(tmp_path: Path) -> None:
    async def follow() -> None:
        process, other = Process(tmp_path), Process(tmp_path)
        blocks = process.first_blocks()

        def refuse(_: Connection) -> None:
            raise Lost("another process has the lease")

        with closing(process.database), closing(other.database):
            await process.ledger.lead()
            FENCE.set(refuse)
            tasks = [asyncio.create_task(process.ledger.apply(chain, [block])) for chain, block in blocks.items()]
            await asyncio.sleep(0)  # both have come
            for task in tasks:
                task.cancel()
            assert list(map(type, await asyncio.gather(*tasks, return_exceptions=True))) == [asyncio.CancelledError] * 2
            FENCE.set(None)
            for chain, block in blocks.items():
                await other.ledger.apply(chain, [block])
            await process.ledger.lead()
            assert {process.heights()[chain] for chain in blocks} == {1}
            chain = next(iter(blocks))
            second = prove_block(NETWORK.chains[chain].chain[1], NETWORK.chains[chain].electorate)
            assert second is not None
            await process.ledger.apply(chain, [second])
            assert process.heights()[chain] == 2

    asyncio.run(asyncio.wait_for(follow(), PATIENCE))
