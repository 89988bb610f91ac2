"""Who holds a connection for nothing loses it; who sends too much is told so; who only waits for an answer gets it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from gateway import server
from gateway.server import MAX_HEAD_BYTES, Connection, Places

LONG = 30.0
"""Seconds after which a test fails."""
SHORT = 0.8
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Story = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body; at the path /slow after longer than any time that is limited here."""
    body = await Request(scope, receive).body()
    if scope["path"] == "/slow":
        await asyncio.sleep(SHORT * 2)
    await PlainTextResponse(body or b"nothing")(scope, receive, send)


@asynccontextmanager
async def _serving(places: Places) -> AsyncIterator[int]:
    config = uvicorn.Config(_echo, log_config=None, ws="none", timeout_keep_alive=1)
    config.load()
    loop = asyncio.get_running_loop()
    made = partial(Connection, places, config=config, server_state=ServerState(), app_state={})
    listening = await loop.create_server(made, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def play(*stories: Story, places: Places | None = None) -> None:
    """Run clients side by side, each with a connection of its own."""

    async def client(port: int, story: Story) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await story(reader, writer)
        finally:
            writer.close()

    async def main() -> None:
        async with _serving(places or Places(())) as port, asyncio.timeout(LONG), asyncio.TaskGroup() as clients:
            for story in stories:
                clients.create_task(client(port, story))

    asyncio.run(main())


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def code_of(answer: bytes) -> str:
    assert b"content-type: application/problem+json" in answer
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["code"])


def ends_with(sent: bytes, expected: tuple[int, str] | None) -> Story:
    """The server hangs up on who sends this and no more, with a problem document or with nothing."""

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        answer = await reader.read()
        assert (None if not answer else (status_of(answer), code_of(answer))) == expected, sent[:40]

    return story


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(server, name, SHORT)


@pytest.mark.usefixtures("impatient")
def test_half_a_request_is_not_waited_for() -> None:
    slow = (408, "request_timeout")
    play(
        ends_with(b"", None),
        ends_with(b"\r\n\r\n", None),
        ends_with(b"GE", slow),
        ends_with(GET[:-2] + b"x-more: ", slow),
        ends_with(POST + b"bod", slow),
        ends_with(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", slow),
    )


@pytest.mark.usefixtures("impatient")
def test_drops_of_a_request_do_not_buy_time() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def drops() -> None:
            while not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(SHORT / 10)

        writer.write(b"GET / HTTP/1.1\r\nx-endless: ")
        dripping = asyncio.create_task(drops())
        try:
            answer = await reader.read()
        except ConnectionResetError:  # what was sent after the answer may cut it off
            answer = b""
        finally:
            dripping.cancel()
        assert not answer or status_of(answer) == 408

    play(drip)


@pytest.mark.usefixtures("impatient")
def test_who_waits_for_an_answer_or_asks_again_in_time_is_served() -> None:
    async def slow_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST.replace(b"/ ", b"/slow ", 1) + b"body")
        assert status_of(await reader.readuntil(b"body")) == 200

    async def again_and_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(15):  # longer than one request may take
            writer.write(POST[:20])
            await asyncio.sleep(SHORT / 10)
            writer.write(POST[20:] + b"body")
            assert status_of(await reader.readuntil(b"body")) == 200

    async def half_after_a_whole_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST.replace(b"/ ", b"/slow ", 1) + b"body" + GET[:10])
        assert b"408" not in await reader.read(), "the first answer is not the second request's"

    play(slow_answer, again_and_again, half_after_a_whole_one)


def test_a_connection_that_asks_nothing_more_ends() -> None:
    async def one_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        assert status_of(await reader.read()) == 200  # read to the end

    play(one_request)


def test_headers_have_a_limit_and_what_is_no_request_is_said_to_be_none() -> None:
    large = (431, "headers_too_large")
    fits = GET[:-2] + b"x-long: " + b"x" * (MAX_HEAD_BYTES - 100) + b"\r\nconnection: close\r\n\r\n"

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(fits)
        assert status_of(await reader.read()) == 200

    play(
        served,
        ends_with(GET[:-2] + b"x-long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", large),
        ends_with(b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", large),
        ends_with(GET[:-2] + b"a: b\r\n" * 20_000, large),
        ends_with(b"\x16\x03\x01\x02\x00", (400, "bad_request")),
        ends_with(b"GET http://[ HTTP/1.1\r\n\r\n", (400, "bad_request")),
    )


def test_connections_are_counted_for_each_client_and_given_back() -> None:
    places = Places([ip_network("10.0.0.0/8")])
    places.most = 4
    assert [places.take("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [places.take("10.1.1.1") for _ in range(3)] == [True, True, False], "a proxy may have all, no more"
    places.give_back("192.0.2.1")
    assert [places.take(address) for address in ("10.1.1.1", "198.51.100.7")] == [True, False]
    neighbours = Places(())
    neighbours.most = 4
    assert [neighbours.take(f"2001:db8::{number}") for number in range(3)] == [True, True, False], "one network, one client"


def test_who_finds_no_place_is_told_so() -> None:
    places = Places(())
    places.most = 0
    play(ends_with(b"", (503, "overloaded")), places=places)
    assert places.take("127.0.0.1") is False
