"""One attempt to deliver a webhook, to receivers of all kinds."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import trustme

from gateway.events import posting
from gateway.events.posting import Outcome, Poster
from gateway.events.signatures import HEADER, verify
from gateway.events.targets import Targets
from tests.processes import free_port
from tests.receiver import Receiver
from tests.waiting import until

LOCAL = Targets(insecure=True, private=True)
SECRET = "whsec_of_a_test"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as shop:
        yield shop


def post(url: str, targets: Targets = LOCAL, trusted: ssl.SSLContext | None = None) -> Outcome:
    return asyncio.run(Poster(targets, trusted).post(url, b'{"id":"1"}', [SECRET]))


def test_the_body_arrives_signed(receiver: Receiver) -> None:
    outcome = post(receiver.url + "?shop=1")
    assert (outcome.status_code, outcome.error) == (200, None)
    (got,) = receiver.got
    assert (got.path, got.body, got.headers["Content-Type"]) == ("/hook?shop=1", b'{"id":"1"}', "application/json")
    assert got.headers["Host"] == f"localhost:{receiver.port}"
    verify(got.body, got.headers[HEADER], SECRET, time.time())


@pytest.mark.parametrize(("status", "error"), [(204, None), (307, "redirect"), (400, "status"), (503, "status")])
def test_only_a_2xx_is_a_delivery_and_redirects_are_not_followed(receiver: Receiver, status: int, error: str | None) -> None:
    receiver.status, receiver.headers = status, {"Location": receiver.url}
    assert post(receiver.url)[:2] == (status, error)
    assert len(receiver.got) == 1


def test_of_an_answer_no_more_is_read_than_a_little(receiver: Receiver) -> None:
    receiver.body = bytes(50 << 20)
    outcome = post(receiver.url)
    assert (outcome.status_code, outcome.error) == (200, None)
    until(lambda: receiver.broken, "the receiver hears that nobody reads")


def test_a_body_that_does_not_end_does_not_undo_the_answer(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_ANSWER_TIMEOUT", 0.05)
    receiver.headers = {"Content-Length": "100"}
    assert post(receiver.url)[:2] == (200, None)


def test_who_does_not_answer_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "TOTAL_TIMEOUT", 0.2)
    receiver.released.clear()
    outcome = post(receiver.url)
    assert outcome[:2] == (None, "timeout")
    assert 200 <= outcome.ms < 2000


def test_an_answer_that_comes_byte_by_byte_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "TOTAL_TIMEOUT", 0.3)

    async def run() -> Outcome:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for byte in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            return await Poster(LOCAL).post(f"http://localhost:{server.sockets[0].getsockname()[1]}/", b"{}", [SECRET])

    assert asyncio.run(run())[:2] == (None, "timeout")


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000])
def test_an_answer_that_is_none_is_a_failure(answer: bytes) -> None:
    async def run() -> Outcome:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
            return await Poster(LOCAL).post(f"http://localhost:{server.sockets[0].getsockname()[1]}/", b"{}", [SECRET])

    assert asyncio.run(run())[:2] == (None, "no_answer")


def test_nobody_there_and_addresses_inside_are_told_apart(receiver: Receiver) -> None:
    assert post(f"http://localhost:{free_port()}/")[1] == "connect_failed"
    assert post("https://nowhere.example/", Targets(resolve=lambda host, port: []))[1] == "name_not_found"
    for url in ("https://localhost/", "https://[::1]/", "https://169.254.169.254/latest/meta-data", "https://2130706433/"):
        assert post(url, Targets())[1] == "address_refused"
    assert post(receiver.url, Targets())[1] == "address_refused"  # http, where it is not allowed
    assert not receiver.got


def test_the_certificate_of_https_is_checked() -> None:
    authority, served = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with closing(Receiver(served)) as shop:
        assert post(shop.url, trusted=trusted)[:2] == (200, None)
        assert post(shop.url)[1] == "tls_failed"
        assert post(shop.url.replace("localhost", "127.0.0.1"), trusted=trusted)[1] == "tls_failed"
        assert len(shop.got) == 1


def test_no_proxy_of_the_environment_gets_to_see_webhooks(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert post(receiver.url)[:2] == (200, None)


def test_what_is_our_own_fault_is_not_taken_for_the_receivers(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(posting, "sign", broken)
    with pytest.raises(ZeroDivisionError):
        post(receiver.url)
