"""Streams and the fan-out of events, without HTTP: who is slow, who dies, and how little is kept."""

import asyncio
import json
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from starlette.types import Message

from gateway.database import Database, insert, now_ms, open_engine
from gateway.events import deliveries, fanout, stream
from gateway.events.deliveries import Deliveries
from gateway.events.fanout import FanOut
from gateway.events.outbox import KEPT_MS, Outbox
from gateway.events.posting import Outcome, Poster
from gateway.events.shown import Shower
from gateway.events.stream import Streams
from gateway.events.tables import Attempt, Consumer, Delivery, WebhookEndpoint
from gateway.events.targets import Targets
from gateway.events.webhooks import Webhooks
from gateway.problems import Problem
from gateway.vault import Vault

Story = Callable[[Database, Outbox], Awaitable[None]]
SHOWER = Shower(lambda _: {})
SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


def told(folder: Path, story: Story) -> None:
    """Run a story on a database of its own."""

    async def tell() -> None:
        database = Database(open_engine(f"sqlite:///{folder}/gateway.db"))
        try:
            async with asyncio.timeout(30):
                await story(database, Outbox(database))
        finally:
            database.close()

    asyncio.run(tell())


async def emit(outbox: Outbox, user: str, count: int = 1, kind: str = "refund.failed") -> None:
    def change(connection: Connection) -> None:
        for _ in range(count):
            outbox.emit(connection, user, kind, {"id": "r"})

    await outbox.write(change)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - whatever the condition is about
        await asyncio.sleep(0.005)


class Client:
    """Takes what a stream sends, unless it is ``stuck``."""

    def __init__(self, streams: Streams, user: str, after: int | None = 0, still_good: Callable[[], bool] = lambda: True) -> None:
        self.ids: list[int] = []
        self.comments = 0
        self.taking = asyncio.Event()
        self.taking.set()
        self._response = streams.open(user, after, still_good)
        self.task = asyncio.create_task(self._response(SCOPE, self._receive, self._send))

    async def _receive(self) -> Message:
        await asyncio.Event().wait()
        return {}

    async def _send(self, message: Message) -> None:
        await self.taking.wait()
        for line in message.get("body", b"").splitlines():
            if line.startswith(b"id: "):
                self.ids.append(int(line[4:]))
            self.comments += line.startswith(b":")


async def with_streams(database: Database, outbox: Outbox, story: Callable[[Streams], Awaitable[None]]) -> None:
    streams = Streams(database, outbox, SHOWER)
    running = asyncio.create_task(streams.run())
    try:
        await story(streams)
    finally:
        streams.close()
        running.cancel()
        await asyncio.wait({running})


def test_who_is_slow_only_falls_behind_and_holds_up_nobody(tmp_path: Path) -> None:
    given = 0

    class Counting(Shower):
        def show(self, *arguments: Any) -> Any:
            nonlocal given
            shown = super().show(*arguments)
            given += len(shown)
            return shown

    async def story(database: Database, outbox: Outbox) -> None:
        streams = Streams(database, outbox, Counting(lambda _: {}))
        running = asyncio.create_task(streams.run())
        slow, quick = Client(streams, "ann"), Client(streams, "bob")
        await until(lambda: slow.comments and quick.comments)
        slow.taking.clear()
        for _ in range(5):
            await emit(outbox, "ann", 30)
            await emit(outbox, "bob", 30)
        await until(lambda: len(quick.ids) == 150)
        assert not slow.ids
        assert given <= 150 + 2 * 20  # of what the slow one has not taken, at most a batch is in memory
        slow.taking.set()
        await until(lambda: len(slow.ids) == 150)
        assert slow.ids == sorted(set(slow.ids))
        assert not set(slow.ids) & set(quick.ids)
        running.cancel()

    told(tmp_path, story)


def test_who_takes_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SEND_TIMEOUT", 0.05)

    async def story(streams: Streams) -> None:
        client = Client(streams, "ann")
        client.taking.clear()
        assert len(streams) == 1
        await client.task
        assert len(streams) == 0

    told(tmp_path, lambda database, outbox: with_streams(database, outbox, story))


def test_silence_is_broken_by_a_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT", 0.02)
    monkeypatch.setattr(stream, "_LOOK_EVERY", 0.01)

    async def story(streams: Streams) -> None:
        client = Client(streams, "ann")
        await until(lambda: client.comments >= 4)
        assert not client.ids

    told(tmp_path, lambda database, outbox: with_streams(database, outbox, story))


def test_nothing_is_given_once_the_session_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nobody has looked yet whether it is."""
    monkeypatch.setattr(stream, "_LOOK_EVERY", 3600)

    async def story(database: Database, outbox: Outbox) -> None:
        async def listen(streams: Streams) -> None:
            over = asyncio.Event()
            client = Client(streams, "ann", None, lambda: not over.is_set())
            await until(lambda: client.comments)
            await emit(outbox, "ann")
            await until(lambda: client.ids == [1])
            over.set()
            await emit(outbox, "ann")
            await client.task
            assert client.ids == [1]

        await with_streams(database, outbox, listen)

    told(tmp_path, story)


def test_there_are_so_many_streams_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 20)

    async def story(streams: Streams) -> None:
        with monkeypatch.context() as few_files:
            few_files.setattr(resource, "getrlimit", lambda _: (1, 1))
            with pytest.raises(Problem, match="no room"):
                streams.open("ann", None, lambda: True)
        clients = [Client(streams, f"user {number}") for number in range(20)]
        with pytest.raises(Problem, match="no room") as refused:
            streams.open("one more", None, lambda: True)
        assert (refused.value.status, refused.value.code) == (503, "overloaded")
        streams.close()
        await asyncio.wait({client.task for client in clients})
        assert len(streams) == 0
        with pytest.raises(Problem, match="no room"):  # the process ends
            streams.open("one more", None, lambda: True)

    told(tmp_path, lambda database, outbox: with_streams(database, outbox, story))


def endpoint(user: str, name: str, events: str = "*", **values: Any) -> dict[str, Any]:
    row = {"id": name, "user_id": user, "url": "http://localhost/", "events": events, "after_event": 0, "secret": b""}
    return row | {"disabled": "", "deleted": False, "created_at": now_ms()} | values


async def add(database: Database, model: Any, *rows: dict[str, Any]) -> None:
    await database.write(lambda c: c.execute(insert(c, model), list(rows)) and None)


async def pairs(database: Database) -> list[tuple[str, int, str]]:
    query = select(Delivery.endpoint_id, Delivery.event_id, Delivery.status).order_by(Delivery.id)
    return await database.read(lambda c: [(row[0], row[1], row[2]) for row in c.execute(query)])


async def fanned_out(database: Database, outbox: Outbox, position: int) -> None:
    """A new process reads the events until the end."""
    fan = FanOut(database, outbox, lambda: None)
    running = asyncio.create_task(fan.run())
    await until(lambda: running.done() or fan.position >= position)
    running.cancel()


def test_each_event_becomes_one_delivery_for_each_endpoint_that_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "_MAX_READ", 3)

    async def story(database: Database, outbox: Outbox) -> None:
        await emit(outbox, "ann", 2)
        await add(database, WebhookEndpoint, endpoint("ann", "all", after_event=2), endpoint("ann", "paid", "payout.paid"))
        await add(database, WebhookEndpoint, endpoint("bob", "of bob"), endpoint("ann", "off", disabled="by_owner"))
        await add(database, WebhookEndpoint, endpoint("ann", "gone", deleted=True))
        await emit(outbox, "ann", 3)
        await emit(outbox, "bob")
        await emit(outbox, "ann", kind="payout.paid")
        await emit(outbox, "carl", 2)
        await fanned_out(database, outbox, 9)
        expected = [("all", 3), ("all", 4), ("all", 5), ("of bob", 6), ("all", 7), ("paid", 7)]
        assert sorted(await pairs(database)) == sorted((*pair, "pending") for pair in expected)
        await database.write(lambda c: c.execute(update(Consumer).values(position=0)) and None)
        await fanned_out(database, outbox, 9)  # and once more, all of it
        assert len(await pairs(database)) == len(expected)

    told(tmp_path, story)


def test_a_process_that_dies_between_deliveries_and_cursor_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = fanout._deliver

    def dies(connection: Connection, *arguments: int) -> int:
        deliver(connection, *arguments)
        raise SystemError("died")

    async def story(database: Database, outbox: Outbox) -> None:
        await add(database, WebhookEndpoint, endpoint("ann", "all"))
        await emit(outbox, "ann", 5)
        monkeypatch.setattr(fanout, "_deliver", dies)
        await fanned_out(database, outbox, 5)
        assert await pairs(database) == []
        monkeypatch.setattr(fanout, "_deliver", deliver)
        await fanned_out(database, outbox, 5)
        assert await pairs(database) == [("all", number, "pending") for number in range(1, 6)]

    told(tmp_path, story)


def test_an_endpoint_gets_nothing_from_before_it_was_made_or_enabled_however_late_the_events_are_read(tmp_path: Path) -> None:
    async def story(database: Database, outbox: Outbox) -> None:
        webhooks = Webhooks(database, Vault(bytes(32)), Targets(insecure=True, private=True))
        await emit(outbox, "ann")
        made, _ = await webhooks.create("ann", "http://127.0.0.1/", ["*"])
        await webhooks.change("ann", made.id, None, None, False)
        await emit(outbox, "ann")
        await webhooks.change("ann", made.id, None, None, True)
        await emit(outbox, "ann")
        await webhooks.change("ann", made.id, None, None, True)  # which it was
        await fanned_out(database, outbox, 3)
        assert await pairs(database) == [(made.id, 3, "pending")]

    told(tmp_path, story)


def test_too_many_deliveries_on_their_way_to_one_endpoint_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "MAX_PENDING", 3)

    async def story(database: Database, outbox: Outbox) -> None:
        await add(database, WebhookEndpoint, endpoint("ann", "all"), endpoint("bob", "of bob"))
        await emit(outbox, "ann", 2)
        await fanned_out(database, outbox, 2)
        await emit(outbox, "ann", 2)
        await emit(outbox, "bob", 1)
        await fanned_out(database, outbox, 5)
        assert [status for _, _, status in await pairs(database)] == ["pending"] * 3 + ["failed", "pending"]

    told(tmp_path, story)


def test_old_deliveries_and_deleted_endpoints_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_REMOVED_AT_ONCE", 2)
    now = now_ms()

    def delivery(number: int, name: str, created_at: int) -> dict[str, Any]:
        row = {"id": number, "endpoint_id": name, "user_id": "ann", "event_id": number, "type": "refund.failed"}
        return row | {"status": "failed", "tries": 1, "next_attempt_at": None, "created_at": created_at}

    async def story(database: Database, outbox: Outbox) -> None:
        await add(database, WebhookEndpoint, endpoint("ann", "kept"), endpoint("ann", "gone", deleted=True))
        old = [delivery(number, "kept", now - KEPT_MS - 1) for number in range(1, 6)]
        await add(database, Delivery, *old, delivery(6, "kept", now), *(delivery(n, "gone", now) for n in range(7, 12)))
        await add(database, Attempt, *({"delivery_id": n, "at": now, "error": "", "ms": 1} for n in range(1, 12)))
        await Deliveries(database, SHOWER, Poster(Targets()), lambda _: [], False).purge()
        assert await pairs(database) == [("kept", 6, "failed")]
        assert await database.read(lambda c: c.execute(select(Attempt.delivery_id)).scalars().all()) == [6]
        assert await database.read(lambda c: c.execute(select(WebhookEndpoint.id)).scalars().all()) == ["kept"]

    told(tmp_path, story)


class Posts(Poster):
    """Ann's receiver hangs, Bob's does not."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    async def post(self, url: str, body: bytes, secrets: list[str]) -> Outcome:
        self.begun.append(secrets[0])
        if secrets[0] == "ann":
            await asyncio.Event().wait()
        return Outcome(200, None, 1)


def test_a_long_queue_to_a_receiver_that_hangs_holds_up_nobody_else(tmp_path: Path) -> None:
    async def story(database: Database, outbox: Outbox) -> None:
        poster = Posts()
        sending = Deliveries(database, SHOWER, poster, lambda row: [row.user_id], False)
        await add(database, WebhookEndpoint, endpoint("ann", "of ann"), endpoint("bob", "of bob"))
        await emit(outbox, "ann", 3 * deliveries.AT_ONCE)
        await emit(outbox, "bob", 3 * deliveries.AT_ONCE_OF_USER)
        await fanned_out(database, outbox, 3 * deliveries.AT_ONCE + 3 * deliveries.AT_ONCE_OF_USER)
        running = asyncio.create_task(sending.run())
        await until(lambda: poster.begun.count("bob") == 3 * deliveries.AT_ONCE_OF_USER)
        assert poster.begun.count("ann") == deliveries.AT_ONCE_OF_USER
        running.cancel()

    told(tmp_path, story)


def test_retries_end_after_three_days(tmp_path: Path) -> None:
    assert sum(deliveries.PAUSES) <= 3 * 24 * 3600
    assert list(deliveries.PAUSES) == sorted(deliveries.PAUSES)
    assert json.dumps(deliveries.PAUSES[:6]) == "[60, 300, 1800, 7200, 21600, 43200]"
