"""Money in and out when the gateway dies at the worst moments, and how reconciliation sees it: each step is cut off before and
after every call it makes; what one gateway leaves undone the next one does."""

import asyncio
import json
import secrets
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Row, select, update

from gateway import jobs
from gateway.__main__ import main
from gateway.acceptance import Accepted
from gateway.database import AccountBalance, Transfer, Wallet, insert, now_ms, open_engine
from gateway.events.targets import Targets
from gateway.idempotency import Idempotency
from gateway.identity.tables import User
from gateway.identity.throttle import Counts, Limit, SharedCounts, Throttle
from gateway.money import coins, command, payouts, purchases, refunds, tables, testbank
from gateway.money.cards import Card, ChargeState
from gateway.money.limits import DAY_MS, Limits
from gateway.money.refunds import Refunds
from gateway.money.tables import Payout, Purchase, Refund, StatusChange
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.vault import Vault
from node.client.line import Line
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.test_money import path_of
from tests.gateway.world import World
from tests.waiting import until

T = TypeVar("T")
PAID, RETURNED = "DE89370400440532013000", "DE40370400440532010002"
SLOW, DISPUTED = "4000000000000077", "4000000000000259"
ENDS = {"completed", "declined", "failed", "refunded", "paid", "returned", "succeeded", "disputed"}


class Died(Exception):
    """The process was killed here."""


class Deadly:
    """Each call of what it stands for is cut off twice: before anything was done, and when all was done and nobody knows."""

    def __init__(self, living: Any, *deadly: str) -> None:
        self._living, self._deadly, self.deaths = living, deadly, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._living, name)
        if name not in self._deadly:
            return method

        async def call(*arguments: Any, **more: Any) -> Any:
            what = f"{name}{arguments}"
            self.deaths[what] += 1
            if self.deaths[what] == 1:
                raise Died(f"before {name}")
            result = await method(*arguments, **more)
            if self.deaths[what] == 2:
                raise Died(f"after {name}")
            return result

        return call


class Desk:
    """A gateway in this process, on the world's network, and its customers, each with a wallet."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.money = gateway, gateway.money

    async def customer(self) -> tuple[str, str]:
        user = secrets.token_hex(8)
        row = {"id": user, "email": f"{user}@example.org", "name": user, "password_hash": "", "created_at": 1}
        await self.gateway.database.write(lambda c: c.execute(insert(c, User).values(**row)) and None)
        return user, (await self.gateway.wallets.create(user, "", None)).id

    async def buy(self, user: str, wallet: str, number: str = "4242424242424242", amount: str = "10.00") -> str:
        return await self.money.purchases.begin(user, wallet, "USD", amount, Card(number, 1, 2040, "123"), None)

    async def pay_out(self, user: str, wallet: str, amount: str, iban: str) -> dict[str, Any]:
        made = await self.money.payouts.begin(user, wallet, "USD", amount, iban, "Ann Example", None)
        return await self.end(Payout, user, made)

    async def end(self, model: Any, user: str, record_id: str) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            view = await self.money.records.view(model, user, record_id)
            return view if view["status"] in ENDS else None

        return await eventually(look)

    async def minted_and_burned(self, user: str) -> Counter[str]:
        """The user's payments that took place, by kind."""
        query = select(Transfer.kind).where(Transfer.user_id == user, Transfer.status == "committed")
        return Counter(await self.gateway.database.read(lambda c: list(c.execute(query).scalars())))

    async def held_by_card(self, purchase_id: str) -> int:
        return (await self.money.purchases.require().states([purchase_id]))[purchase_id].kept


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """What ``look`` finds, as soon as it finds something."""
    async with asyncio.timeout(30):
        while (found := await look()) is None:  # noqa: ASYNC110 - other tasks' work, of which no event tells
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def opened(world: World, folder: Path, lifetime: int = 60_000) -> AsyncIterator[Desk]:
    engine, started = open_engine(f"sqlite:///{folder}/gateway.db"), asyncio.Event()
    vault, limits = Vault(bytes(range(32))), Limits(1_000, 10_000, 10_000)
    parts = (world.network.genesis, engine, Line(world.broker.url), vault, secrets.token_bytes(32), {"USD": USD_ISSUER})
    throttle = Throttle(Counts(), SharedCounts(world.broker.url, world.network.network, bytes(32)))
    gateway = Gateway(
        "inside",
        *parts,
        900,
        lifetime,
        True,
        limits=limits,
        public_url="",
        mailer=None,
        must_verify=False,
        throttle=throttle,
        from_client=Limit("client", 100, 60.0),
        targets=Targets(),
    )
    running = asyncio.create_task(gateway.run(started))
    try:
        await asyncio.wait_for(started.wait(), 30)
        await eventually(lambda: _ready(gateway))
        yield Desk(gateway)
    finally:
        running.cancel()
        await asyncio.wait({running})


async def _ready(gateway: Gateway) -> bool | None:
    return None if gateway.missing() else True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What died is taken up again at once, and the bank takes no time."""
    monkeypatch.setattr(jobs, "_LONGEST_PAUSE_MS", 10)
    monkeypatch.setattr(testbank, "_SETTLES_AFTER_MS", 0)


Story = Callable[[Desk], Awaitable[None]]


async def _bought(desk: Desk) -> None:
    user, wallet = await desk.customer()
    bought = await desk.end(Purchase, user, await desk.buy(user, wallet))
    assert (bought["status"], await desk.held_by_card(bought["id"])) == ("completed", 1000)
    assert await desk.minted_and_burned(user) == {"purchase": 1}


async def _refunded(desk: Desk) -> None:
    user, wallet = await desk.customer()
    bought = await desk.end(Purchase, user, await desk.buy(user, wallet))
    made = await desk.money.refunds.begin(user, "purchase_id", bought["id"], "4.00", None)
    assert (await desk.end(Refund, user, made))["status"] == "succeeded"
    assert await desk.held_by_card(bought["id"]) == 600
    assert await desk.minted_and_burned(user) == {"purchase": 1, "refund": 1}


async def _refused(desk: Desk) -> None:
    user, wallet = await desk.customer()
    bought = await desk.end(Purchase, user, await desk.buy(user, wallet, "4000000000005126"))
    made = await desk.money.refunds.begin(user, "purchase_id", bought["id"], None, None)
    refund = await desk.end(Refund, user, made)
    assert (refund["status"], refund["code"], await desk.held_by_card(bought["id"])) == ("failed", "card_refused", 1000)
    assert await desk.minted_and_burned(user) == {"purchase": 1, "refund": 1, "reversal": 1}


async def _paid_out(desk: Desk) -> None:
    await _cashed_out(desk, PAID, "paid", {"purchase": 1, "payout": 1})


async def _returned(desk: Desk) -> None:
    await _cashed_out(desk, RETURNED, "returned", {"purchase": 1, "payout": 1, "reversal": 1})


async def _cashed_out(desk: Desk, iban: str, status: str, payments: dict[str, int]) -> None:
    user, wallet = await desk.customer()
    await desk.end(Purchase, user, await desk.buy(user, wallet))
    assert (await desk.pay_out(user, wallet, "3.00", iban))["status"] == status
    assert await desk.minted_and_burned(user) == payments


def test_every_step_can_be_cut_off_before_and_after_each_of_its_calls(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stories() -> None:
        async with opened(world, tmp_path) as desk:
            money = desk.money
            processor = Deadly(money.purchases.require(), "states", "capture", "cancel", "refund")
            monkeypatch.setattr(money.purchases, "_processor", processor)
            monkeypatch.setattr(money.payouts, "_rail", Deadly(money.payouts.require(), "send", "states"))
            monkeypatch.setattr(money.coins, "_payments", Deadly(desk.gateway.payments, "mint"))
            await asyncio.gather(*(story(desk) for story in (_bought, _refunded, _refused, _paid_out, _returned) for _ in "ab"))
            assert len(processor.deaths) == 24, "states and capture of ten charges, four refunds"
            report = await money.reconciliation.run()
            assert [text for text in report.differences if "by no payment of this gateway" not in text] == []

    asyncio.run(stories())


def test_a_request_cut_off_at_the_processor_ends_as_that_has_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with opened(world, tmp_path) as desk:
            processor = desk.money.purchases.require()
            authorize, asked = processor.authorize, list[tuple[Any, ...]]()

            async def cut_off_before(*arguments: Any) -> None:
                asked.append(arguments)
                raise Died

            async def cut_off_after(*arguments: Any) -> None:
                await authorize(*arguments)
                await cut_off_before(*arguments)

            user, wallet = await desk.customer()
            lost_after_ms = {cut_off_before: 0, cut_off_after: 2_000}  # what the second does, it may do slowly
            for cut_off, lost_after in lost_after_ms.items():
                monkeypatch.setattr(processor, "authorize", cut_off)
                monkeypatch.setattr(purchases, "_LOST_AFTER_MS", lost_after)
                with pytest.raises(Died):
                    await desk.buy(user, wallet)
            ends = [(await desk.end(Purchase, user, one))["status"] for one, *_ in asked]
            await authorize(*asked[0])  # it arrives after all
            charges = await processor.states([one for one, *_ in asked])
            found = list(zip(ends, [charge.state for charge in charges.values()], strict=True))
            assert found == [("failed", "canceled"), ("completed", "captured")]

    asyncio.run(story())


def test_a_card_gets_its_money_back_when_no_coins_can_be_minted(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purchases, "MAX_MINTS", 2)

    async def story() -> None:
        async with opened(world, tmp_path, lifetime=100) as desk:
            user, wallet = await desk.customer()
            with world.network.switched(deaf=10**9):
                bought = await desk.end(Purchase, user, await desk.buy(user, wallet))
            assert (bought["status"], bought["decline_code"]) == ("failed", "expired")
            assert (await desk.held_by_card(bought["id"]), await desk.minted_and_burned(user)) == (0, {})
            tried = select(Transfer.status).where(Transfer.user_id == user)
            assert await desk.gateway.database.read(lambda c: list(c.execute(tried).scalars())) == ["expired"] * 2

    asyncio.run(story())


def test_burned_coins_are_minted_again_however_often_that_expires(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coins, "_MINT_AGAIN", 0.0)

    async def story() -> None:
        async with opened(world, tmp_path) as desk:
            payments, reversals = desk.gateway.payments, 0
            mint, lifetime = payments.mint, payments._lifetime

            async def lost_at_first(user: str, kind: str, *arguments: Any, **more: Any) -> Any:
                nonlocal reversals
                reversals += kind == "reversal"
                payments._lifetime, world.network.deaf = (100, 10**9) if reversals == 1 else (lifetime, 0)
                return await mint(user, kind, *arguments, **more)

            monkeypatch.setattr(payments, "mint", lost_at_first)
            user, wallet = await desk.customer()
            await desk.end(Purchase, user, await desk.buy(user, wallet))
            assert (await desk.pay_out(user, wallet, "3.00", RETURNED))["status"] == "returned"
            query = select(Transfer.status).where(Transfer.kind == "reversal").order_by(Transfer.created_at)
            assert await desk.gateway.database.read(lambda c: list(c.execute(query).scalars())) == ["expired", "committed"]
            await eventually(lambda: _has(desk, wallet, 1000))

    with world.network.switched(deaf=0):
        asyncio.run(story())


def test_a_refund_asked_for_twice_at_once_under_one_key_is_one_though_the_first_leaves_nothing(
    world: World, tmp_path: Path
) -> None:
    class Overtaken:
        """Before it begins, the same request that came at the same time has been answered."""

        def __init__(self, refunds: Refunds, key: Idempotency) -> None:
            self._refunds, self._key, self._source = refunds, key, refunds.sources["purchase_id"]
            self.first = ""

        async def begin(self, user_id: str, source_id: str, amount: str | None, key: Idempotency | None) -> Accepted:
            self._refunds.sources["purchase_id"] = self._source
            self.first = await self._refunds.begin(user_id, "purchase_id", source_id, amount, self._key)
            return await self._source.begin(user_id, source_id, amount, key)

        async def settle(self, refund: Row[Any]) -> float | None:
            return await self._source.settle(refund)

    async def story() -> None:
        async with opened(world, tmp_path) as desk:
            user, wallet = await desk.customer()
            bought = await desk.end(Purchase, user, await desk.buy(user, wallet))
            overtaken = Overtaken(desk.money.refunds, Idempotency("all of it", bytes(32)))
            desk.money.refunds.sources["purchase_id"] = overtaken
            key = Idempotency("all of it", bytes(32))
            second = await desk.money.refunds.begin(user, "purchase_id", bought["id"], None, key)
            assert (second, key.replayed) == (overtaken.first, True)
            with pytest.raises(Problem, match="all of this purchase is refunded"):
                await desk.money.refunds.begin(user, "purchase_id", bought["id"], None, Idempotency("more", bytes(32)))

    asyncio.run(story())


def test_a_purchase_that_was_disputed_days_before_it_could_be_minted_is_told_as_disputed(world: World, tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(world, tmp_path) as desk:
            database, now = desk.gateway.database, now_ms()
            user, wallet = await desk.customer()
            with world.network.switched(deaf=float("inf")):
                bought = await desk.buy(user, wallet, DISPUTED)

                async def is_disputed() -> bool | None:
                    return (await desk.money.purchases.require().states([bought]))[bought].state is ChargeState.DISPUTED or None

                await eventually(is_disputed)
                earlier = update(tables.TestCharge).where(tables.TestCharge.id == bought).values(disputed_at=now - 2 * DAY_MS)
                await database.write(lambda c: c.execute(earlier) and None)
                other = {"kind": "purchase", "subject": secrets.token_hex(16), "status": "disputed", "at": now}
                await database.write(lambda c: c.execute(insert(c, StatusChange).values(**other)) and None)

            async def told() -> list[str] | None:
                history = (await desk.money.records.view(Purchase, user, bought))["history"]
                return [line["status"] for line in history] if history[-1]["status"] == "disputed" else None

            assert (await eventually(told))[-3:] == ["minting", "completed", "disputed"]

    asyncio.run(story())


def test_the_next_gateway_goes_on_and_reconciliation_names_each_difference(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_CONNECTED_WITHIN", 0.5)
    monkeypatch.setattr(command, "configure", lambda *_: None)
    monkeypatch.setattr(payouts, "MAX_PAYOUTS", 2)
    monkeypatch.setattr(refunds, "MAX_REFUNDS", 1)
    world = new_world(terms={"USD": (0, 50)})

    def reconciled() -> tuple[int, dict[str, Any]]:
        """Exit code and report."""
        code = main(["reconcile", "--json", "--config", str(world.gateway.config)])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    async def begin() -> tuple[str, str, str]:
        async with opened(world, world.folder) as desk:
            user, wallet = await desk.customer()
            return user, wallet, await desk.buy(user, wallet, SLOW, "3.00")

    async def go_on(user: str, wallet: str, slow: str) -> tuple[str, str]:
        async with opened(world, world.folder) as desk:
            assert path_of(await desk.end(Purchase, user, slow)) == ["processing", "minting", "completed"]
            bought = await desk.end(Purchase, user, await desk.buy(user, wallet))
            made = await desk.money.refunds.begin(user, "purchase_id", bought["id"], "4.00", None)
            assert (await desk.end(Refund, user, made))["status"] == "succeeded"
            with pytest.raises(Problem, match=r"at least 0.50 USD"):
                await desk.pay_out(user, wallet, "0.49", PAID)
            done = [await desk.pay_out(user, wallet, *order) for order in (("2.00", PAID), ("1.00", RETURNED))]
            assert [one["status"] for one in done] == ["paid", "returned"]
            with pytest.raises(Problem, match=r"at most 2 payouts"):
                await desk.pay_out(user, wallet, "1.00", PAID)
            with pytest.raises(Problem, match=r"at most 1 refunds"):
                await desk.money.refunds.begin(user, "purchase_id", bought["id"], "4.00", None)
            await desk.money.faucet.give(user, wallet, "USD", "10.00", None)
            await eventually(lambda: _has(desk, wallet, 1700))
            return bought["id"], done[0]["id"]

    user, wallet, slow = asyncio.run(begin())
    bought, paid = asyncio.run(go_on(user, wallet, slow))
    code, report = reconciled()
    assert (code, report["balanced"], report["differences"], report["unknown"]) == (0, True, [], [])
    minted = {"purchases": "13.00", "faucet": "10.00", "returned_payouts": "1.00", "refused_refunds": "0.00"}
    burned = {"payouts": "3.00", "refunds": "4.00", "certified_minted": "24.00", "certified_burned": "7.00"}
    others = {"held_by_cards": "9.00", "disputed": "0.00", "paid_by_bank": "2.00"}
    assert report["assets"]["USD"] == minted | burned | others

    world.broker.kill()
    code, report = reconciled()
    assert (code, report["balanced"], report["differences"]) == (2, None, [])
    world.broker.start()

    world.network.hand_in(world.network.sign(USD_ISSUER, bytes(20), 500))
    until(lambda: _minted(world) == 2900, "what is minted elsewhere")
    with sqlite3.connect(world.folder / "gateway.db") as connection:
        connection.execute("DELETE FROM test_charges WHERE id = ?", (slow,))
        connection.execute("UPDATE purchases SET refunded = 0 WHERE id = ?", (bought,))
        connection.execute("DELETE FROM payouts WHERE id = ?", (paid,))
    code, report = reconciled()
    assert (code, report["balanced"]) == (1, False)
    assert report["differences"] == [
        f"card: of purchase {slow} (completed) 0.00 USD is held, and should be 3.00 USD",
        f"card: of purchase {bought} (completed) 6.00 USD is held, and should be 10.00 USD",
        f"bank: 2.00 USD was paid under {paid}, which no payout knows",
        "USD: 5.00 USD minted with the issuer's key, but by no payment of this gateway",
    ]


def _minted(world: World) -> int:
    """Of USD, by the latest blocks."""
    totals = [total for shard in world.network.chains.shards for total in shard.state.totals().assets]
    return sum(total.minted for total in totals if total.asset == "USD")


async def _has(desk: Desk, wallet: str, units: int) -> bool | None:
    query = select(AccountBalance.available).join(Wallet, Wallet.address == AccountBalance.address).where(Wallet.id == wallet)
    return await desk.gateway.database.read(lambda c: c.execute(query).scalar()) == units or None
