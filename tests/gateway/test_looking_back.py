"""What is handed in after blocks that speak of it have been followed ends as if it had been here before."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import func, insert, select

from gateway.acceptance import Acceptance, Accepted, Offer
from gateway.database import BlockReceipts, Database, Owed, Posting, Transfer, Wallet, open_engine
from gateway.events.outbox import Event, Outbox
from gateway.identity.tables import User
from gateway.ledger import Ledger
from gateway.owners import Owners
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.projection import Tracked, tracked_order
from node.client.blocks import prove_block
from node.protocol.address import address_of
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.terms import Terms
from node.protocol.transaction import Transaction
from tests.chains import Network, Shard

WINDOW = 600_000


class Desk:
    """A gateway's ledger, which follows a network, and what hands transactions in. ``ends``: of those whose end was told."""

    def __init__(self, url: str, network: Network | None = None) -> None:
        self.network = network or Network()
        self.payer, self.payee = self.network.person(0), self.network.person(1)
        self.engine = open_engine(url)
        self.database, owners = Database(self.engine), Owners()
        self.outbox = Outbox(self.database)
        self.ledger = Ledger(self.database, self.outbox, owners, WINDOW)
        self.ledger.documents = self.network.documents
        self.acceptance = Acceptance(self.database, self.outbox, owners, Terms(self.network.genesis))
        self.ends: dict[bytes, str] = {}
        self.ledger.on_final = self._note
        with self.engine.begin() as connection:
            connection.execute(insert(User), {"id": "u", "email": "e", "name": "n", "password_hash": "h", "created_at": 0})

    def _note(self, tracked: Tracked) -> None:
        self.ends[tracked.id] = tracked.status.value

    async def follow(self, *only: Shard) -> None:
        """All blocks that there are, or those of some chains."""
        for chain, shard in sorted(self.network.chains.items()):
            if only and shard not in only:
                continue
            if chain.epoch > 1 and not self.ledger.has_begun(chain):
                await self.ledger.begin(chain, shard.genesis.time)
            for certified in shard.chain[self.ledger.place(chain).height :]:
                block = prove_block(certified, shard.electorate)
                assert block is not None
                await self.ledger.apply(chain, [block])

    async def hand_in(self, transaction: Transaction) -> Accepted:
        document = self.network.document
        tracked = tracked_order(transaction.order, transaction.id, encode(transaction), document, own=True)
        tracked.kind = "raw"
        return await self.acceptance.accept(Offer(tracked, "u", encode(transaction)))

    async def register(self, owner: KeyPair, name: str) -> None:
        row = {"id": name, "user_id": "u", "label": "", "address": address_of(owner.public), "public_key": b"", "archived": False}
        await self.database.write(lambda c: c.execute(insert(Wallet), {**row, "created_at": 0}) and None)

    async def rows(self, *columns: Any) -> list[Any]:
        return await self.database.read(lambda c: [tuple(row) for row in c.execute(select(*columns))])

    async def state(self) -> Any:
        """Of the only transfer."""
        (row,) = await self.rows(Transfer.epoch, Transfer.status, Transfer.code)
        return row

    async def owed(self) -> int:
        return sum([units for (units,) in await self.rows(Owed.units)])


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    if request.param == "sqlite":
        return Desk(f"sqlite:///{tmp_path}/gateway.db")
    return Desk(request.getfixturevalue("new_database")())


def told(desk: Desk, story: Callable[[], Awaitable[None]]) -> None:
    async def tell() -> None:
        await desk.ledger.lead()
        await asyncio.wait_for(story(), 20)

    with closing(desk.database):
        asyncio.run(tell())


def played(network: Network, payment: Transaction) -> None:
    """It is in a block, and all that follows from that has happened."""
    network.shards[0].add(payment)
    network.exchange()


@pytest.mark.parametrize("payee", [0, 1], ids=["inside a shard", "across shards"])
@pytest.mark.parametrize("amount", [40, 101], ids=["committed", "rejected"])
def test_it_ends_as_its_blocks_say_with_its_event_lines_and_nothing_owed(desk: Desk, payee: int, amount: int) -> None:
    network, status = desk.network, "committed" if amount == 40 else "rejected"
    network.fund(desk.payer, 100)
    payment = network.pay(desk.payer, network.person(payee, 7), amount)
    played(network, payment)

    async def story() -> None:
        await desk.follow()
        await desk.register(desk.payer, "purse")
        await desk.register(network.person(payee, 7), "till")
        await desk.hand_in(payment)
        assert await desk.owed() == amount
        await desk.ledger.look_back()
        assert await desk.state() == (1, status, "" if amount == 40 else "insufficient_funds")
        assert (await desk.owed(), desk.ends) == (0, {payment.id: status})
        lines = await desk.rows(Posting.wallet_id, Posting.direction)
        assert sorted(lines) == [("purse", "sent"), ("till", "received")][: 2 if amount == 40 else 1]
        events = {kind for (kind,) in await desk.rows(Event.type)}
        assert events == {f"transfer.{status}"} | ({"transfer.received"} if amount == 40 else set())
        (height,) = (row[0] for row in await desk.rows(Transfer.height))
        receipts = network.shards[0].chain[height - 1].effects.receipts
        assert payment.id in {one.transaction_id for one in receipts}, "its proof is made from there"

    told(desk, story)


def test_it_is_found_in_the_epoch_that_had_it(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db", Network(standby=4, epoch_pause=100, reveal_time=1000))
    network = desk.network
    network.fund(desk.payer, 100)
    payment = network.pay(desk.payer, desk.payee, 40)
    played(network, payment)
    network.change()
    for shard in network.shards:
        shard.add()

    async def story() -> None:
        await desk.follow()
        await desk.hand_in(payment)
        assert (await desk.state())[:2] == (2, "queued")
        await desk.ledger.look_back()
        assert await desk.state() == (1, "committed", "")
        assert (await desk.owed(), desk.ends) == (0, {payment.id: "committed"})

    told(desk, story)


def test_when_some_of_its_blocks_come_before_and_some_after_it_was_handed_in_it_ends_all_the_same(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db")
    network = desk.network
    network.fund(desk.payer, 100)
    payment = network.pay(desk.payer, desk.payee, 40)
    played(network, payment)

    async def story() -> None:
        await desk.follow(network.shards[1])
        await desk.hand_in(payment)
        await desk.follow()
        assert (await desk.state())[1] == "prepared", "that the other shard has it was said before"
        await desk.ledger.look_back()
        assert ((await desk.state())[1], await desk.owed()) == ("committed", 0)

    told(desk, story)


def test_it_does_not_expire_before_it_was_looked_for_and_then_only_if_no_block_had_it(desk: Desk) -> None:
    network = desk.network
    network.fund(desk.payer, 100)
    soon = network.shards[0].head.time + 1000
    had, missed = (network.pay(desk.payer, desk.payee, 5, valid_until=soon) for _ in range(2))
    played(network, had)

    async def statuses() -> dict[bytes, str]:
        return {bytes(one): status for one, status in await desk.rows(Transfer.transaction_id, Transfer.status)}

    async def story() -> None:
        await desk.follow()
        for one in (had, missed):
            await desk.hand_in(one)
        network.shards[0].add(after=5000)
        await desk.follow()
        assert await statuses() == {had.id: "queued", missed.id: "queued"}
        await desk.ledger.look_back()
        assert await statuses() == {had.id: "committed", missed.id: "queued"}
        network.shards[0].add()
        await desk.follow()
        assert await statuses() == {had.id: "committed", missed.id: "expired"}
        assert (await desk.owed(), desk.ends) == (0, await statuses())

    told(desk, story)


def test_one_pass_serves_all_and_nothing_is_looked_for_twice(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db")
    network, statements = desk.network, list[str]()
    network.fund(desk.payer, 100)
    had = [network.pay(desk.payer, network.person(0, 1), 1) for _ in range(50)]
    others = [network.pay(desk.payer, network.person(0, 1), 1) for _ in range(50)]
    network.shards[0].add(*had)

    async def looked_back() -> int:
        """How many statements read or removed receipts, or read transfers."""
        statements.clear()
        await desk.ledger.look_back()
        return sum("FROM receipts" in one or "transfers AS t" in one for one in statements)

    async def story() -> None:
        await desk.follow()
        for one in (*had, *others):
            await desk.hand_in(one)
        await desk.database.write(lambda c: c.connection.driver_connection.set_trace_callback(statements.append))  # type: ignore[union-attr]
        await desk.database.read(lambda c: c.connection.driver_connection.set_trace_callback(statements.append))  # type: ignore[union-attr]
        passes = await looked_back(), await looked_back(), await looked_back()
        assert desk.ends == {one.id: "committed" for one in had}
        removing = passes[-1]
        assert removing == passes[1] <= 3, "one for each chain, one for those that are over"
        assert passes[0] - removing <= 4

    told(desk, story)


async def kept(desk: Desk) -> set[tuple[int, int, int]]:
    return set(await desk.rows(BlockReceipts.epoch, BlockReceipts.shard, BlockReceipts.height))


def paid_in(network: Network, shards: Iterable[int], after: int = 100) -> None:
    """A block with a receipt in each of these shards."""
    for shard in shards:
        payer = network.person(shard)
        network.shards[shard].add(network.pay(payer, network.person(shard, 1), 1), after=after)


def test_receipts_are_kept_for_twice_the_window_by_each_chains_own_time(desk: Desk) -> None:
    network = desk.network
    for shard in (0, 1):
        network.fund(network.person(shard), 100)

    async def story() -> None:
        first = {shard.number: len(shard.chain) + 1 for shard in network.shards}
        paid_in(network, (0, 1))
        network.shards[0].add(after=2 * WINDOW)
        network.shards[1].add(after=2 * WINDOW - 1)
        await desk.follow()
        await desk.ledger.look_back()
        assert {(1, shard, height) for shard, height in first.items()} <= await kept(desk), "just"
        assert await kept(desk) == {(1, shard, height) for shard, height in first.items()}
        network.shards[0].add(after=1)
        await desk.follow()
        await desk.ledger.look_back()
        assert await kept(desk) == {(1, 1, first[1])}, "what stands still is kept, and holds up nobody else"
        assert await desk.rows(func.count(Transfer.transaction_id)) == [(0,)]

    told(desk, story)


def test_receipts_of_chains_that_are_over_are_kept_until_all_that_follow_have_gone_beyond(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db", Network(standby=4, epoch_pause=100, reveal_time=1000))
    network = desk.network
    network.fund(network.person(0), 100)
    network.change()
    late, *others = network.shards

    async def story() -> None:
        await desk.follow()
        for shard in others:
            shard.add(after=3 * WINDOW)
        await desk.follow()
        await desk.ledger.look_back()
        assert {chain[0] for chain in await kept(desk)} == {1}
        late.add(after=3 * WINDOW)
        await desk.follow()
        await desk.ledger.look_back()
        assert await kept(desk) == set()

    told(desk, story)


def test_who_catches_up_through_epochs_forgets_on_the_way(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db", Network(standby=4, epoch_pause=100, reveal_time=1000))
    network = desk.network
    network.fund(network.person(0), 100)
    for shard in network.shards:
        shard.add(after=3 * WINDOW)
    first = network.shards
    network.change()

    async def story() -> None:
        await desk.follow(*first)
        await desk.ledger.look_back()
        assert await kept(desk) == set(), "though no chain of the latest epoch has begun"

    told(desk, story)


class Epochs:
    def __init__(self, network: Network) -> None:
        self._network = network

    def require(self) -> EpochDocument:
        return self._network.document


class Relay:
    def __init__(self) -> None:
        self.added = list[bytes]()

    def check_room(self) -> None:
        pass

    def add(self, tracked: Tracked) -> None:
        self.added.append(tracked.id)


def payments(desk: Desk, acceptance: Any = None) -> Payments:
    """As far as transactions are handed in that were signed elsewhere."""
    nobody, epochs = cast(Any, None), cast(Any, Epochs(desk.network))
    parts = desk.database, acceptance or desk.acceptance, nobody, nobody, epochs, desk.ledger, cast(Any, Relay())
    return Payments(desk.network.genesis, *parts, {}, 60_000)


def test_a_block_that_has_it_before_its_acceptance_is_heard_of_pays_off_what_is_owed_once(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db")
    network = desk.network
    network.fund(desk.payer, 100)
    payment = network.pay(desk.payer, desk.payee, 40, valid_until=network.genesis.time + 60_000)

    class Slow:
        async def accept(self, offer: Offer) -> Accepted:
            accepted = await desk.acceptance.accept(offer)
            network.shards[0].add(payment)
            await desk.follow()
            return accepted

    async def story() -> None:
        await desk.follow()
        await payments(desk, Slow()).hand_in("u", encode(payment), None)
        assert (await desk.state(), await desk.owed()) == ((1, "prepared", ""), 0)
        network.exchange()
        await desk.follow()
        assert (await desk.state(), await desk.owed()) == ((1, "committed", ""), 0)

    told(desk, story)


def test_what_is_over_by_the_time_of_its_shards_is_refused_though_their_next_chains_have_not_begun(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db", Network(standby=4, epoch_pause=100, reveal_time=1000))
    network = desk.network
    desk.ledger.documents = network.documents[:]  # it hears of the next epoch below
    network.change()

    async def story() -> None:
        await desk.follow(*(shard for chain, shard in network.chains.items() if chain.epoch == 1))
        over = min(desk.ledger.place(Chain(1, shard)).time for shard in (0, 1)) - 1
        desk.ledger.documents = network.documents
        with pytest.raises(Problem) as refused:
            await payments(desk).hand_in("u", encode(network.pay(desk.payer, desk.payee, 1, valid_until=over)), None)
        assert (refused.value.status, refused.value.code) == (422, "expired")

    told(desk, story)


def test_it_waits_for_its_home_shard_when_it_is_over_by_the_time_of_another_that_it_touches(tmp_path: Path) -> None:
    desk = Desk(f"sqlite:///{tmp_path}/gateway.db")
    network = desk.network
    for shard, after in ((0, 1000), (1, 5000)):
        network.shards[shard].add(after=after)

    async def story() -> None:
        await desk.follow()
        until = network.genesis.time + 3000
        with pytest.raises(Problem) as refused:
            await payments(desk).hand_in("u", encode(network.pay(desk.payer, desk.payee, 1, valid_until=until)), None)
        assert (refused.value.status, refused.value.code) == (503, "not_ready")
        await payments(desk).hand_in("u", encode(network.pay(desk.payer, network.person(0, 1), 1, valid_until=until)), None)

    told(desk, story)
