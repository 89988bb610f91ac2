"""What has been accepted without a look at whether it can be paid has bounds: in units, and of one user in number."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from gateway import acceptance
from gateway.acceptance import Accepted
from gateway.database import IdempotencyKey, Owed, Transfer
from gateway.events.outbox import Outbox
from gateway.ledger import Ledger
from gateway.owners import Owners
from gateway.problems import Problem
from gateway.projection import tracked_order
from gateway.rows import owed_rows, transfer_row
from gateway.statements import ADD_TRANSFER, MARK, OWE
from node.client.blocks import prove_block
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Transaction
from tests.chains import Network, key, leg
from tests.gateway.test_acceptance import Till, told

EMPTY, PAYEE = key("has nothing"), key("payee of nothing")


def signed(network: Network, *amounts: int, **order: Any) -> Transaction:
    """By one who has nothing."""
    return network.sign([EMPTY], *(leg(EMPTY, PAYEE, "USD", amount) for amount in amounts), **order)


@pytest.fixture(params=["sqlite", "postgresql"])
def till(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]) -> Till:
    return Till(f"sqlite:///{tmp_path}/gateway.db" if request.param == "sqlite" else new_database())


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one after the other"])
def test_a_payer_cannot_owe_more_than_there_can_be(till: Till, at_once: bool) -> None:
    network = Network()
    first, second = signed(network, MAX_AMOUNT - 1), signed(network, 2)

    async def story() -> None:
        asked = [till.pay(0, raw=first), till.pay(0, raw=second, key="k")]
        if at_once:
            results = await asyncio.gather(*asked, return_exceptions=True)
        else:
            results = [(await asyncio.gather(one, return_exceptions=True))[0] for one in asked]
        refused = results[1]
        assert isinstance(refused, Problem)
        assert (refused.status, refused.code) == (422, Code.LIMIT_EXCEEDED)
        assert [await till.count(table) for table in (Transfer, IdempotencyKey)] == [1, 0], "nothing is left of it"
        assert await till.pay(0, raw=first) == (first.id, None), "it is there already"
        await till.pay(0, raw=signed(network, 1), key="k")
        assert await till.owed() == MAX_AMOUNT

    told(till, story)


def test_the_legs_of_one_order_count_together(till: Till) -> None:
    async def story() -> None:
        with pytest.raises(Problem, match="more than there can be"):
            await till.pay(0, raw=signed(Network(), MAX_AMOUNT, MAX_AMOUNT))
        assert [await till.count(table) for table in (Transfer, Owed)] == [0, 0]

    told(till, story)


def test_nothing_stays_of_what_was_done_before_such_an_order_was_refused(till: Till) -> None:
    def release(connection: Connection, _: bytes) -> None:
        OWE.run_all(connection, owed_rows([((bytes(20), "USD"), 5)]))

    async def story() -> None:
        with pytest.raises(Problem):
            await till.pay(0, raw=signed(Network(), MAX_AMOUNT, 1), before=release)
        assert await till.count(Owed) == 0

    told(till, story)


def test_a_user_has_so_many_under_way_that_were_signed_elsewhere_and_pays_as_ever(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "MAX_HANDED_IN", 3)
    network = Network()
    first, *others = (signed(network, 1) for _ in range(6))

    async def story() -> None:
        await till.pay(0, raw=first)
        results = await asyncio.gather(*(till.pay(0, raw=one) for one in others[:3]), return_exceptions=True)
        assert [isinstance(one, Accepted) for one in results] == [True, True, False]
        till.acceptance = till.another()
        with pytest.raises(Problem) as refused:
            await till.pay(0, raw=others[2], key="k")
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "too_many_under_way", 10)
        assert await till.pay(0, raw=first) == (first.id, None), "it is there already"
        assert (await till.pay(3)).tracked is not None
        assert (await till.pay(0, raw=others[3], user="v")).tracked is not None

        taken_in = {"id": first.id, "old": "queued", "new": "prepared"}
        await till.database.write(lambda c: MARK.run(c, taken_in) and None)
        assert (await till.pay(0, raw=others[2], key="k")).tracked is not None
        with pytest.raises(Problem):
            await till.pay(0, raw=others[4])

    told(till, story)


def test_what_sqlite_accepted_before_there_was_a_limit_ends_and_holds_nothing_up(tmp_path: Path) -> None:
    till = Till(f"sqlite:///{tmp_path}/gateway.db")
    network = Network()
    shard = network.shard_of(EMPTY)
    made = [signed(network, MAX_AMOUNT, valid_until=network.genesis.time + 1000) for _ in range(2)]
    ledger = Ledger(till.database, Outbox(till.database), Owners(), network.genesis.parameters.validity_window)
    ledger.documents = [network.document]

    def accept_all(connection: Connection) -> None:
        for one in made:
            tracked = tracked_order(one.order, one.id, encode(one), network.document, own=True)
            ADD_TRANSFER.run(connection, transfer_row(tracked, "u"))
            OWE.run_all(connection, owed_rows(tracked.due().items()))

    async def story() -> None:
        await till.database.write(accept_all)
        block = prove_block(shard.add(after=2000), shard.electorate)
        assert block is not None
        await ledger.apply(Chain(1, shard.number), [block])
        ends = await till.database.read(lambda c: list(c.execute(select(Transfer.status)).scalars()))
        assert ends == ["expired", "expired"]
        assert await till.owed() == 0
        assert (await till.pay(10)).tracked is not None

    told(till, story)
