"""The stream's end towards one page: what a slow page is sent, and that one which is stuck or gone is given up."""

import asyncio

import pytest
from starlette.types import Message

from demo import stream
from demo.collector import Collector
from demo.stream import Board, EventStream
from tests.chains import TIME, Network


@pytest.fixture
def board() -> Board:
    board = Board(Collector(Network().genesis, "", TIME))
    board.publish(TIME)
    return board


def test_a_page_that_missed_an_update_is_sent_everything_again(board: Board) -> None:
    async def story() -> list[bytes]:
        events, kinds = board.events(), []
        for published in (0, 1, 2, 1):
            for _ in range(published):
                board.publish(TIME)
            kinds.append((await anext(events)).splitlines()[1])
        board.close()
        assert [event async for event in events] == []
        return kinds

    assert asyncio.run(story()) == [b"event: snapshot", b"event: update", b"event: snapshot", b"event: update"]


@pytest.mark.parametrize("page", ["leaves", "takes nothing"])
def test_a_page_that_leaves_or_takes_nothing_is_given_up(board: Board, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        sending, never = asyncio.Event(), asyncio.Event()

        async def receive() -> Message:
            await (sending if page == "leaves" else never).wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            assert board.streams == 1
            sending.set()
            if page == "takes nothing":
                await never.wait()

        async with asyncio.timeout(20):
            await EventStream(board)({"type": "http"}, receive, send)

    monkeypatch.setattr(stream, "SEND_TIMEOUT", 0.1 if page == "takes nothing" else 10)
    asyncio.run(story())
    assert board.streams == 0
