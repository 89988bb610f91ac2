"""The stream's end towards one page: what a slow page is sent, and that one which is stuck or gone is given up."""

import asyncio

import pytest
from starlette.types import Message

from demo import stream
from demo.collector import Collector
from demo.stream import Board, EventStream
from tests.chains import TIME, Network


def make_board() -> Board:
    board = Board(Collector(Network().genesis, "", TIME))
    board.publish(TIME)
    return board


def test_a_page_that_missed_an_update_is_sent_everything_again() -> None:
    async def story() -> list[bytes]:
        board = make_board()
        events = board.events()
        kinds = []
        for published in (0, 1, 2, 1):
            for _ in range(published):
                board.publish(TIME)
            kinds.append((await anext(events)).splitlines()[1])
        board.close()
        assert [event async for event in events] == []
        return kinds

    assert asyncio.run(story()) == [b"event: snapshot", b"event: update", b"event: snapshot", b"event: update"]


def serve(gone: bool, stuck: bool) -> int:
    """Serve a page that leaves, or takes nothing; returns how many streams that leaves, when it ends within seconds."""

    async def story() -> int:
        board, sending = make_board(), asyncio.Event()

        async def receive() -> Message:
            await (sending if gone else asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            assert board.streams == 1
            sending.set()
            if stuck:
                await asyncio.Event().wait()

        async with asyncio.timeout(20):
            await EventStream(board)({"type": "http"}, receive, send)
        return board.streams

    return asyncio.run(story())


def test_a_page_that_leaves_is_noticed_though_nothing_is_sent() -> None:
    assert serve(gone=True, stuck=False) == 0


def test_a_page_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SEND_TIMEOUT", 0.1)
    assert serve(gone=False, stuck=True) == 0
