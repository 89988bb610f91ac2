"""Scheduled payments and payment files at the worst moments: clocks that jump, gateways that die, wallets that are empty."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from gateway import jobs
from gateway.database import Transfer, now_ms
from gateway.events.outbox import Event
from gateway.identity.tables import User
from gateway.plans import running, scheduled
from gateway.plans.calendar import Rule
from gateway.plans.restoring import stop_all
from gateway.plans.scheduled import NewSchedule
from gateway.problems import Problem
from gateway.times import iso, read_time
from tests.gateway.test_money_crashes import Desk, Died, eventually, opened
from tests.gateway.world import World

View = dict[str, Any]
HOUR, DAY = 3_600_000, 86_400_000
Story = Callable[[Desk], Awaitable[None]]


class Clock:
    """What time it is for plans and jobs; it goes on by itself, too."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return now_ms() + self.ahead

    def jump_to(self, moment: int) -> None:
        self.ahead += moment - self.now()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """And what died is taken up again at once."""
    clock = Clock()
    for module in (jobs, running, scheduled):
        monkeypatch.setattr(module, "now_ms", clock.now)
    monkeypatch.setattr(jobs, "_LONGEST_SLEEP", 0.02)
    monkeypatch.setattr(jobs, "_LONGEST_PAUSE_MS", 10)
    return clock


class Deadly:
    """Payments that are cut off twice each: before anything was done, and when it was done and nobody knows."""

    def __init__(self, desk: Desk) -> None:
        self._pay, self.calls = desk.gateway.batches.pay, Counter[str]()

    async def pay(self, user: str, wallet: str, parts: Any, memo: str, key: Any, also: Any) -> Any:
        self.calls[memo] += 1
        if self.calls[memo] == 1:
            raise Died(f"before {memo}")
        accepted = await self._pay(user, wallet, parts, memo, key, also)
        if self.calls[memo] == 2:
            raise Died(f"after {memo}")
        return accepted


class Two:
    """Ann, with 10.00 USD, and Bob's wallet."""

    def __init__(self, desk: Desk, ann: str, purse: str, till: str) -> None:
        self.desk, self.ann, self.purse, self.till = desk, ann, purse, till
        self.plans = desk.gateway.plans

    @classmethod
    async def at(cls, desk: Desk, amount: str = "10.00") -> "Two":
        (ann, purse), (_, till) = await desk.customer(), await desk.customer()
        two = cls(desk, ann, purse, till)
        await two.fill(amount)
        return two

    async def fill(self, amount: str) -> None:
        given = await self.desk.money.faucet.give(self.ann, self.purse, "USD", amount, None)
        await self.desk.gateway.waiting.end(given.id, 20)

    async def plan(self, clock: Clock, amount: str = "1.00", memo: str = "rent", **rule: Any) -> View:
        """Weekly, from a minute from now on, or as ``rule`` says."""
        start = datetime.fromisoformat((iso(clock.now() + 60_000) or "")[:19])
        new = NewSchedule(self.purse, self.till, "USD", amount, memo, "", Rule(start, "UTC", **{"repeat": "weekly"} | rule))
        return await self.plans.schedules.plan(self.ann, new, None)

    async def paid(self) -> Counter[str]:
        """What was taken of Ann's, by memo."""
        query = select(Transfer.text).where(
            Transfer.user_id == self.ann, Transfer.status == "committed", Transfer.kind == "transfer"
        )
        return Counter(await self.desk.gateway.database.read(lambda c: list(c.execute(query).scalars())))

    async def runs(self, view: View, count: int, *ends: str) -> list[View]:
        """Its runs, the first one first, once there are so many and the last has one of these statuses."""

        async def look() -> list[View] | None:
            found, _ = await self.plans.schedules.runs(self.ann, view["id"], None, 100)
            return found[::-1] if len(found) == count and found[0]["status"] in (ends or ("paid", "failed")) else None

        return await eventually(look)

    async def told(self) -> list[str]:
        """Kinds of events about what was planned, with the status of the run."""
        query = select(Event.type, Event.data).where(Event.user_id == self.ann, Event.type.like("scheduled%")).order_by(Event.id)
        rows = await self.desk.gateway.database.read(lambda c: c.execute(query).all())
        assert all(row.type == f"scheduled_payment.{json.loads(row.data)['last_run']['status']}" for row in rows)
        return [row.type.partition(".")[2] for row in rows]


def tell(world: World, folder: Path, story: Callable[[Two], Awaitable[None]]) -> None:
    async def told() -> None:
        async with opened(world, folder) as desk:
            await story(await Two.at(desk))

    asyncio.run(told())


def due(view: View) -> int:
    return read_time(view["next_run_at"])


def test_it_is_paid_at_each_of_its_times_and_then_it_is_over(world: World, tmp_path: Path, clock: Clock) -> None:
    async def story(two: Two) -> None:
        view = await two.plan(clock, times=3)
        assert due(view) > clock.now()
        first = due(view)
        for number in range(3):
            clock.jump_to(first + 7 * number * DAY + 1000)
            assert (await two.runs(view, number + 1))[-1]["due_at"] == iso(first + 7 * number * DAY)
        after = await two.plans.schedules.get(two.ann, view["id"])
        assert (after["status"], after["next_run_at"], after["last_run"]["status"]) == ("completed", None, "paid")
        assert (await two.told(), await two.paid()) == (["paid"] * 3, {"rent": 3})

    tell(world, tmp_path, story)


def test_a_wallet_with_too_little_is_tried_every_hour_for_a_day(world: World, tmp_path: Path, clock: Clock) -> None:
    async def story(two: Two) -> None:
        view = await two.plan(clock, "11.00")
        first = due(view)
        clock.jump_to(first)
        (run,) = await two.runs(view, 1, "retrying")
        assert (run["code"], run["attempts"], run["transfer_id"]) == ("insufficient_funds", 1, None)
        clock.jump_to(first + HOUR + 2000)
        await eventually(lambda: _tried(two, view, 2))
        await two.fill("1.00")
        clock.jump_to(first + 23 * HOUR)
        assert [(run["status"], run["attempts"]) for run in await two.runs(view, 1)] == [("paid", 3)]
        clock.jump_to(first + 7 * DAY)
        await eventually(lambda: _tried(two, view, 1))
        clock.jump_to(first + 7 * DAY + 23 * HOUR + 5000)
        assert [(run["status"], run["code"]) for run in (await two.runs(view, 2))[1:]] == [("failed", "insufficient_funds")]
        assert await two.told() == ["retrying", "paid", "retrying", "failed"]
        assert due(await two.plans.schedules.get(two.ann, view["id"])) == first + 14 * DAY

    tell(world, tmp_path, story)


async def _tried(two: Two, view: View, attempts: int) -> bool | None:
    found, _ = await two.plans.schedules.runs(two.ann, view["id"], None, 1)
    return True if found and found[0]["attempts"] == attempts else None


def test_a_gateway_that_was_away_pays_what_is_a_day_late_and_misses_the_rest(world: World, tmp_path: Path, clock: Clock) -> None:
    async def story() -> None:
        async with opened(world, tmp_path) as desk:
            two = await Two.at(desk)
            view = await two.plan(clock)
        clock.jump_to(due(view) + 14 * DAY + 20 * HOUR)
        async with opened(world, tmp_path) as desk:
            back = Two(desk, two.ann, two.purse, two.till)
            runs = await back.runs(view, 3)
            assert [(run["status"], run["code"]) for run in runs] == [("failed", "missed")] * 2 + [("paid", None)]
            assert (await back.told(), await back.paid()) == (["failed", "failed", "paid"], {"rent": 1})

    asyncio.run(story())


def test_what_is_cut_off_before_or_after_its_payment_is_paid_once(
    world: World, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(two: Two) -> None:
        deadly = Deadly(two.desk)
        monkeypatch.setattr(two.plans.payer, "_batches", deadly)
        lines = b"".join(b"%b,USD,0.01,line %d\n" % (two.till.encode(), number) for number in range(40))
        files = two.plans.files
        file = await files.check(two.ann, two.purse, "", b"to,asset,amount,memo\n" + lines, None)
        view = await two.plan(clock)
        clock.jump_to(due(view))
        await files.confirm(two.ann, file["id"])
        await two.runs(view, 1)
        done = await eventually(lambda: _finished(two, file))
        assert (done["status"], done["lines"]["paid"]) == ("completed", 40)
        assert await two.paid() == {"rent": 1} | {f"line {number}": 1 for number in range(40)}
        assert min(deadly.calls.values()) == 2, "each was cut off twice"

    tell(world, tmp_path, story)


async def _finished(two: Two, file: View) -> View | None:
    found = await two.plans.files.get(two.ann, file["id"])
    return found if found["finished_at"] else None


def test_who_is_suspended_pays_nothing_that_was_planned(world: World, tmp_path: Path, clock: Clock) -> None:
    async def story(two: Two) -> None:
        files, view = two.plans.files, await two.plan(clock)
        file = await files.check(two.ann, two.purse, "", f"to,asset,amount\n{two.till},USD,1.00\n".encode(), None)
        suspended = update(User).where(User.id == two.ann).values(suspended_at=1)
        await two.desk.gateway.database.write(lambda c: c.execute(suspended) and None)
        clock.jump_to(due(view))
        await files.confirm(two.ann, file["id"])
        assert [run["code"] for run in await two.runs(view, 1)] == ["suspended"]
        assert (await eventually(lambda: _finished(two, file)))["failures"] == {"suspended": 1}
        assert await two.paid() == {}

    tell(world, tmp_path, story)


def test_nothing_pays_by_itself_after_an_old_copy_of_the_database_was_put_back(
    world: World, tmp_path: Path, clock: Clock
) -> None:
    async def story(two: Two) -> None:
        files, view = two.plans.files, await two.plan(clock)
        lines = b"".join(b"%b,USD,0.01,%d\n" % (two.till.encode(), number) for number in range(200))
        begun, checked = [await files.check(two.ann, two.purse, "", b"to,asset,amount,memo\n" + lines, None) for _ in "ab"]
        await files.confirm(two.ann, begun["id"])
        await two.desk.gateway.database.write(stop_all)
        clock.jump_to(due(view) + HOUR)
        done = [await eventually(lambda file=file: _finished(two, file)) for file in (begun, checked)]  # type: ignore[misc]
        assert [(one["status"], one["lines"]["waiting"]) for one in done] == [("canceled", 0)] * 2
        assert done[0]["lines"]["canceled"] > 0
        assert (await two.plans.schedules.get(two.ann, view["id"]))["status"] == "paused"
        assert sum((await two.paid()).values()) == done[0]["lines"]["paid"]

    tell(world, tmp_path, story)


def test_what_is_paused_or_canceled_pays_nothing_more(world: World, tmp_path: Path, clock: Clock) -> None:
    async def story(two: Two) -> None:
        schedules = two.plans.schedules
        paused, canceled, empty = await two.plan(clock), await two.plan(clock, memo="no"), await two.plan(clock, "11.00")
        first = due(paused)
        assert (await schedules.pause(two.ann, paused["id"]))["next_run_at"] is None
        assert (await schedules.cancel(two.ann, canceled["id"]))["status"] == "canceled"
        clock.jump_to(first)
        await two.runs(empty, 1, "retrying")
        assert (await schedules.pause(two.ann, empty["id"]))["last_run"]["code"] == "paused"
        clock.jump_to(first + 8 * DAY)
        resumed = await schedules.resume(two.ann, paused["id"])
        assert (resumed["status"], due(resumed), resumed["last_run"]) == ("active", first + 14 * DAY, None)
        clock.jump_to(first + 14 * DAY)
        await two.runs(paused, 1)
        assert await two.paid() == {"rent": 1}
        for act in (schedules.pause, schedules.resume, schedules.cancel):
            with pytest.raises(Problem, match="canceled"):
                await act(two.ann, canceled["id"])

    tell(world, tmp_path, story)


def test_a_payment_under_way_when_it_is_canceled_ends_as_it_ends(world: World, tmp_path: Path, clock: Clock) -> None:
    async def story(two: Two) -> None:
        view = await two.plan(clock)
        with world.network.switched(hold=True):
            clock.jump_to(due(view))
            await two.runs(view, 1, "processing")
            await two.plans.schedules.cancel(two.ann, view["id"])
        (run,) = await two.runs(view, 1)
        after = await two.plans.schedules.get(two.ann, view["id"])
        assert (run["status"], after["status"], await two.paid()) == ("paid", "canceled", {"rent": 1})

    tell(world, tmp_path, story)
