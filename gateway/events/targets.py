"""Which addresses webhooks may reach: those of the Internet, not those inside.

A name is resolved here, all its addresses are looked at, and the connection is made to exactly those. So a name that means
another address a moment later (DNS rebinding) changes nothing.
"""

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore
import httpx

MAX_URL = 500
_MAX_LOOKUPS = 64
"""At once: each has a thread for as long as the system's resolver takes, which is longer than anybody waits here."""
_MAX_TRIED = 4
"""Addresses of one name."""
_HTTPS_PORTS, _HTTP_PORTS = {443, 8443}, {80, 8080}
_HOST = re.compile(r"[a-z0-9._:-]{1,253}")
PRIVATE = [ip_network(text) for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""Of IPv6, all that is given out: the rest is local, reserved, or another way to write an IPv4 address."""
_NAT64 = IPv6Network("64:ff9b::/96")
_ASSIGNMENTS = IPv4Network("192.0.0.0/24")
"""IETF protocol assignments; Python 3.11 takes most of them for global, and a cloud keeps its secrets there."""

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], list[str]]


class BadUrl(ValueError):
    """Not a URL that webhooks are sent to; the text says why."""


class Refused(httpcore.ConnectError):
    """The name has an address that webhooks must not reach."""


class NotFound(httpcore.ConnectError):
    """The name has no address."""


def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of a name or of an address in any of its forms; blocks. Raises OSError or UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Targets:
    """The rules of this gateway.

    ``insecure``: plain http is allowed, too. ``private``: loopback and private networks (RFC 1918, RFC 4193) are allowed, too,
    and with them any port; link-local addresses, where clouds keep their secrets, never are.
    """

    def __init__(self, insecure: bool = False, private: bool = False, resolve: Resolve = system_resolve) -> None:
        self._insecure, self._private, self._resolve = insecure, private, resolve
        self._lookups = asyncio.Semaphore(_MAX_LOOKUPS)

    def check_form(self, text: str) -> httpx.URL:
        """The URL, in its usual form. Raises BadUrl."""
        if len(text) > MAX_URL:
            raise BadUrl(f"a URL has at most {MAX_URL} characters")
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, ValueError):
            raise BadUrl("not a URL") from None
        schemes = {"https", "http"} if self._insecure else {"https"}
        if url.scheme not in schemes:
            raise BadUrl("the URL must begin with https://")
        if not _HOST.fullmatch(url.raw_host.decode("ascii")):
            raise BadUrl("the URL names no host")
        if url.userinfo:
            raise BadUrl("no user name or password in a URL: the signature tells who sends")
        if url.fragment:
            raise BadUrl("no fragment in a URL: it would not be sent")
        ports = _HTTPS_PORTS if url.scheme == "https" else _HTTP_PORTS
        if url.port is not None and url.port not in (range(1, 1 << 16) if self._private else ports):
            raise BadUrl("no such port" if self._private else f"the port must be one of {', '.join(map(str, sorted(ports)))}")
        return url

    async def addresses(self, host: str, port: int) -> list[str]:
        """All addresses of ``host``, each of them allowed. Raises Refused or NotFound."""
        await self._lookups.acquire()
        try:
            found = await self._lookup(host, port)
        except (OSError, UnicodeError):
            raise NotFound("the name has no address") from None
        if not found:
            raise NotFound("the name has no address")
        if not all(self.allows(address) for address in found):
            raise Refused("webhooks do not reach this address")
        return found

    def allows(self, text: str) -> bool:
        """Whether a webhook may go to this address."""
        address = _meant(ip_address(text))
        if self._private and any(address in network for network in PRIVATE):
            return True
        if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
            return False
        return address.is_global and not address.is_multicast and address not in _ASSIGNMENTS

    def _lookup(self, host: str, port: int) -> "asyncio.Future[list[str]]":
        """In a thread of its own, which gives back its place when it ends: one that hangs holds up no other work."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[str]] = loop.create_future()

        def settle(addresses: list[str], error: Exception | None) -> None:
            self._lookups.release()
            if done.cancelled():
                return
            if error is None:
                done.set_result(addresses)
            else:
                done.set_exception(error)

        def run() -> None:
            addresses, error = list[str](), None
            try:
                addresses = self._resolve(host, port)
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
                loop.call_soon_threadsafe(settle, addresses, error)

        threading.Thread(target=run, name="resolver", daemon=True).start()
        return done


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, NAT64), or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """What httpcore connects with: to addresses that ``targets`` allows, looked up at each connection."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(await self._targets.addresses(host, port), port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("no connection in time") from None

    async def _connect(self, addresses: list[str], port: int) -> httpcore.AsyncNetworkStream:
        failed: httpcore.ConnectError = NotFound("the name has no address")
        for address in addresses[:_MAX_TRIED]:
            try:
                return await self._network.connect_tcp(address, port)
            except httpcore.ConnectError as error:
                failed = error
        raise failed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
