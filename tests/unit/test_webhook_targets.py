"""Which addresses webhooks may reach, and that they reach no other."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext

import httpcore
import pytest

from config.settings import GatewaySettings
from gateway.events.targets import BadUrl, CheckedNetwork, NotFound, Refused, Targets
from gateway.serve import _targets

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]
OUTSIDE = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", INSIDE)
def test_no_inside_address_is_allowed_in_any_of_its_forms(address: str) -> None:
    assert not Targets(insecure=True).allows(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_those_of_the_internet_are_allowed(address: str) -> None:
    assert Targets().allows(address)


def test_private_networks_are_allowed_where_the_settings_say_so_but_not_those_of_clouds_secrets() -> None:
    private = Targets(private=True)
    for address in ("127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.0.1", "fd12::1", "::ffff:127.0.0.1", "8.8.8.8"):
        assert private.allows(address)
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "100.64.0.1"):
        assert not private.allows(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "ftp://shop.example/",
        "shop.example",
        "//shop.example/",
        "https:///x",
        "https://user@shop.example/",
        "https://user:word@shop.example/",
        "https://shop.example\\@inside.example/",
        "https://shop.example/#part",
        "https://shop.example:22/",
        "https://shop.example:0/",
        "https://shop.example:65536/",
        "https://shop.example:port/",
        "https://shop%00.example/",
        "https://[fe80::1%25eth0]/",
        "https://shop.example/\r\nHost: inside",
        "https://shop.example/" + "x" * 500,
        "",
    ],
)
def test_urls_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        Targets().check_form(url)


def test_urls_are_kept_in_their_usual_form() -> None:
    assert str(Targets().check_form("HTTPS://BÜCHER.example/a?b=c")) == "https://xn--bcher-kva.example/a?b=c"
    assert str(Targets().check_form("https://shop.example:8443/")) == "https://shop.example:8443/"
    assert str(Targets(insecure=True, private=True).check_form("http://localhost:8081/x")) == "http://localhost:8081/x"
    with pytest.raises(BadUrl, match="port"):
        Targets(insecure=True).check_form("http://shop.example:8081/")


def connected(targets: Targets, host: str, port: int) -> None:
    async def connect() -> None:
        stream = await CheckedNetwork(targets).connect_tcp(host, port, timeout=2)
        await stream.aclose()

    asyncio.run(connect())


def test_a_name_with_one_inside_address_among_others_is_refused() -> None:
    with pytest.raises(Refused):
        connected(Targets(resolve=lambda host, port: ["8.8.8.8", "10.0.0.1"]), "shop.example", 443)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "::1", "0.0.0.0"])
def test_the_machine_itself_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises((Refused, NotFound)):
        connected(Targets(), host, 443)


def test_a_name_is_looked_up_once_and_the_connection_is_made_to_what_was_looked_at() -> None:
    """A name server that says something harmless when it is asked, and something else when it is asked again."""
    answers = iter([["127.0.0.2"], ["169.254.169.254"]])
    reached = []

    async def connect() -> None:
        async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached.append(writer.get_extra_info("sockname")[0])
            writer.close()

        async with await asyncio.start_server(taken, "127.0.0.2", 0) as server:
            network = CheckedNetwork(Targets(private=True, resolve=lambda host, port: next(answers)))
            port = server.sockets[0].getsockname()[1]
            stream = await network.connect_tcp("rebinding.example", port, timeout=2)
            assert await stream.read(1) == b""
            await stream.aclose()
            with pytest.raises(Refused):
                await network.connect_tcp("rebinding.example", port, timeout=2)

    asyncio.run(connect())
    assert reached == ["127.0.0.2"]


def fails() -> list[str]:
    raise OSError("no such name")


@pytest.mark.parametrize("resolve", [fails, list])
def test_a_name_without_an_address_is_told_from_one_that_is_refused(resolve: Callable[[], list[str]]) -> None:
    with pytest.raises(NotFound):
        connected(Targets(resolve=lambda host, port: resolve()), "nowhere.example", 443)


def test_a_resolver_that_hangs_takes_no_longer_than_a_connection_may() -> None:
    given_up, late = threading.Event(), list[bool]()

    def hangs(host: str, port: int) -> list[str]:
        late.append(not given_up.wait(30))
        return ["8.8.8.8"]

    async def connect() -> None:
        await CheckedNetwork(Targets(resolve=hangs)).connect_tcp("slow.example", 443, timeout=0.05)

    with pytest.raises(httpcore.ConnectTimeout):
        asyncio.run(connect())
    assert late == [], "nobody waits for the resolver"
    given_up.set()


@pytest.mark.parametrize(
    ("settings", "insecure", "private"),
    [
        ({}, False, False),
        ({"devnet": True}, True, True),
        ({"devnet": True, "webhook_allow_private": False}, True, False),
        ({"webhook_allow_private": True}, False, True),
    ],
)
def test_only_a_devnet_is_open_unless_the_settings_say_otherwise(
    settings: dict[str, bool], insecure: bool, private: bool
) -> None:
    targets = _targets(GatewaySettings(genesis="", database="", broker="", **settings))  # type: ignore[arg-type]
    assert targets.allows("127.0.0.1") is private
    for url, fine in (("http://shop.example/", insecure), ("https://shop.example:9/", private)):
        with nullcontext() if fine else pytest.raises(BadUrl):
            targets.check_form(url)
