"""What becomes of orders that are accepted together: as if they came one after the other."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, select

from gateway.acceptance import Acceptance, Accepted, Offer, Short
from gateway.database import AccountBalance, Database, IdempotencyKey, Owed, Transfer, Wallet, open_engine
from gateway.events.outbox import Event, Outbox
from gateway.idempotency import Idempotency
from gateway.identity.tables import User
from gateway.owners import Owners
from gateway.problems import Problem
from gateway.projection import Status, tracked_order
from node.protocol.address import address_of
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.terms import Terms
from node.protocol.transaction import Transaction, Witness, decode_transaction
from tests.chains import Network

PATIENCE = 20.0
NETWORK = Network()
PAYER, PAYEE = NETWORK.person(0), NETWORK.person(1)
ADDRESS = address_of(PAYER.public)


class Till:
    """A gateway's acceptance, and a payer who has 10 units."""

    def __init__(self, url: str) -> None:
        engine = open_engine(url)
        self.engine, self.database = engine, Database(engine)
        self.acceptance = self.another()
        wallet = {"id": "w", "user_id": "u", "label": "", "address": ADDRESS, "public_key": b"", "archived": False}
        funds = {"address": ADDRESS, "asset": "USD", "available": 10, "held": 0, "frozen": False, "height": 1}
        with engine.begin() as connection:
            connection.execute(insert(User), {"id": "u", "email": "e", "name": "n", "password_hash": "h", "created_at": 0})
            connection.execute(insert(Wallet), {**wallet, "created_at": 0})
            connection.execute(insert(AccountBalance), funds)

    def another(self) -> Acceptance:
        """As another process has it."""
        return Acceptance(self.database, Outbox(self.database), Owners(), Terms(NETWORK.genesis))

    async def pay(
        self,
        units: int,
        *,
        user: str = "u",
        key: str = "",
        asked: bytes = b"",
        raw: Transaction | None = None,
        last: bool = True,
        also: Callable[..., None] | None = None,
        before: Callable[..., None] | None = None,
    ) -> Accepted:
        made = raw or NETWORK.pay(PAYER, PAYEE, units)
        tracked = tracked_order(made.order, made.id, encode(made), NETWORK.document, own=True)
        tracked.kind = "raw" if raw else "transfer"
        unsigned = encode(Transaction(made.order, tuple(Witness(one.public_key, bytes(64)) for one in made.witnesses)))
        once = Idempotency(key, asked) if key else None
        return await self.acceptance.accept(
            Offer(tracked, user, encode(made), None if raw else lambda: unsigned, once, last, before, also)
        )

    async def owed(self) -> int:
        return await self.database.read(lambda c: c.execute(select(Owed.units)).scalar() or 0)

    async def count(self, table: type) -> int:
        return await self.database.read(lambda c: len(c.execute(select(table)).all()))


@pytest.fixture
def till(tmp_path: Path) -> Till:
    return Till(f"sqlite:///{tmp_path}/gateway.db")


def told(till: Till, story: Callable[[], Coroutine[None, None, None]]) -> None:
    with closing(till.database):
        asyncio.run(asyncio.wait_for(story(), PATIENCE))


def test_each_takes_what_those_before_it_have_left(till: Till) -> None:
    async def story() -> None:
        done = await asyncio.gather(*(till.pay(units) for units in (6, 5, 4, 1)))
        statuses = [one.tracked.status for one in done if one.tracked is not None]
        assert statuses == [Status.QUEUED, Status.REJECTED, Status.QUEUED, Status.REJECTED]
        assert (await till.owed(), await till.count(Transfer), await till.count(Event)) == (10, 4, 2)
        rows = await till.database.read(lambda c: c.execute(select(Transfer.status, Transfer.payload)).all())
        signed = {status: decode_transaction(payload).has_valid_signatures() for status, payload in rows}
        assert signed == {"queued": True, "rejected": False}, "no block can take what was rejected"

    told(till, story)


def test_of_several_under_one_key_the_first_is_made_and_other_requests_are_refused(till: Till) -> None:
    async def story() -> None:
        asked = [("k", b"a"), ("k", b"a"), ("k", b"b"), ("l", b"b")]
        done = await asyncio.gather(*(till.pay(3, key=key, asked=what) for key, what in asked), return_exceptions=True)
        first, same, other, third = done
        assert isinstance(first, Accepted)
        assert isinstance(third, Accepted)
        assert same == (first.id, None)
        assert isinstance(other, Problem)
        assert other.code == "idempotency_conflict"
        assert (await till.owed(), await till.count(Transfer), await till.count(IdempotencyKey)) == (6, 2, 2)
        again = await till.pay(99, key="k", asked=b"a")
        assert again == (first.id, None), "whatever there is left"

    told(till, story)


def test_what_is_refused_to_try_otherwise_leaves_nothing(till: Till) -> None:
    async def story() -> None:
        with pytest.raises(Short):
            await till.pay(11, key="k", last=False)
        assert [await till.count(table) for table in (Transfer, IdempotencyKey, Owed, Event)] == [0, 0, 0, 0]
        assert (await till.pay(10, key="k")).tracked is not None

    told(till, story)


def test_what_is_signed_elsewhere_is_owed_once_however_often_it_is_handed_in(till: Till) -> None:
    async def story() -> None:
        made = NETWORK.pay(PAYER, PAYEE, 99)
        done = await asyncio.gather(*(till.pay(0, raw=made) for _ in range(3)))
        assert [one.tracked is not None for one in done] == [True, False, False]
        assert await till.pay(0, raw=made) == (made.id, None)
        assert (await till.owed(), await till.count(Transfer)) == (99, 1)
        rejected = (await till.pay(1)).tracked
        assert rejected is not None
        assert rejected.code is Code.INSUFFICIENT_FUNDS

    told(till, story)


def test_what_is_written_with_a_payment_undoes_it_when_it_fails_and_nobody_elses(till: Till) -> None:
    def fail(connection: Connection, *_: object) -> None:
        raise ArithmeticError

    async def story() -> None:
        done = await asyncio.gather(till.pay(3), till.pay(4, also=fail), till.pay(7), return_exceptions=True)
        assert isinstance(done[1], ArithmeticError)
        assert (await till.owed(), await till.count(Transfer)) == (10, 2)

    told(till, story)


@pytest.mark.parametrize("keys", [("", ""), ("k", "l")], ids=["without keys", "under keys"])
def test_what_became_durable_though_nobody_heard_of_it_is_accepted_once(till: Till, keys: tuple[str, str]) -> None:
    lost = list[str]()

    def lose(connection: Connection) -> None:
        """The first time it is durable, and then the connection breaks."""
        if not lost:
            lost.append("an answer")
            connection.exec_driver_sql("COMMIT")
            raise ConnectionError("the answer is lost")

    async def story() -> None:
        event.listen(till.engine, "commit", lose)
        done = await asyncio.gather(*(till.pay(units, key=key) for units, key in zip((6, 5), keys, strict=True)))
        assert [one.tracked.status for one in done if one.tracked is not None] == [Status.QUEUED, Status.REJECTED]
        assert (await till.owed(), await till.count(Transfer), await till.count(Event)) == (6, 2, 1)
        assert lost
        query = select(Transfer.transaction_id, Transfer.payload).where(Transfer.status == "queued")
        row = await till.database.read(lambda c: tuple(c.execute(query).one()))
        first = done[0].tracked
        assert first is not None
        assert (first.id, first.encoded) == row, "so that it is sent at once"

    told(till, story)


def test_who_comes_while_the_database_is_busy_with_others_joins_those_who_wait_for_it(till: Till) -> None:
    begun = list[object]()
    event.listen(till.engine, "begin", begun.append)

    async def story() -> None:
        arrived, later = threading.Event(), list[asyncio.Task[Accepted]]()
        loop = asyncio.get_running_loop()

        def come(units: int = 1) -> None:
            """One in each turn of the loop."""
            later.append(loop.create_task(till.pay(units)))
            loop.call_soon(come, units + 1) if units < 5 else loop.call_soon(arrived.set)

        def others(_: Connection) -> None:
            loop.call_soon_threadsafe(come)
            assert arrived.wait(10)

        await till.database.write(others)
        done = await asyncio.gather(*later)
        assert [one.tracked.status for one in done if one.tracked] == [Status.QUEUED] * 4 + [Status.REJECTED]
        assert len(begun) == 2

    told(till, story)


def test_when_the_database_is_lost_before_their_turn_all_who_wait_are_told_and_who_comes_later_is_accepted(till: Till) -> None:
    lost = [True]

    def lose(_: Connection) -> None:
        if lost[0]:
            raise ConnectionError("it is gone")

    async def story() -> None:
        event.listen(till.engine, "begin", lose)
        done = await asyncio.gather(till.pay(1), till.pay(2), return_exceptions=True)
        assert list(map(type, done)) == [ConnectionError] * 2
        lost[0] = False
        assert (await till.pay(3)).tracked is not None
        assert (await till.owed(), await till.count(Transfer)) == (3, 1)

    told(till, story)
