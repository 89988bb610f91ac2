"""Who may begin a handshake: what strangers cost a process is bounded before any of them has proved a key.

Each source address has a share of its own. One that has used it up has a part in what all others leave, so that a few that call
all the time keep nobody out; and when too many handshakes are under way, the oldest of the address with the most is ended.
"""

from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address

import trio

from node.network.pacing import Bucket

MAX_HANDSHAKES = 128
"""Inbound connections without a stream yet: an honest one takes milliseconds."""
CALLS_PER_SECOND, CALLS_AT_ONCE = 20.0, 300.0
"""Handshakes begun, from all addresses. One costs five to ten milliseconds of CPU."""
ADDRESS_CALLS_PER_SECOND, ADDRESS_CALLS_AT_ONCE = 1.0, 8.0
"""One address's own share."""
KEPT = CALLS_AT_ONCE / 2
"""Of those from all addresses for who has some of its own share left. The rest one address may use: all nodes of a small network
may share it."""
MAX_ADDRESSES = 1024


class Callers:
    """Inbound handshakes under way. Its user ends each, and each must be ended."""

    def __init__(self) -> None:
        self._all = Bucket(CALLS_PER_SECOND, CALLS_AT_ONCE)
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()
        self._handshakes: dict[trio.CancelScope, str] = {}

    def begin(self, host: str, handshake: trio.CancelScope, now: float) -> bool:
        """Whether this caller is heard; if so, a handshake that takes too much room is cancelled. ``host``: an IP address."""
        address = source_of(host)
        bucket = self._bucket(address)
        has_own = bucket.has_any(now)
        if not self._all.has_any(now, beyond=0 if has_own else KEPT):
            return False
        self._all.take(1, now)
        bucket.take(has_own, now)
        self._handshakes[handshake] = address
        if len(self._handshakes) > MAX_HANDSHAKES:
            (most, _), *_ = Counter(self._handshakes.values()).most_common(1)
            oldest = next(scope for scope, source in self._handshakes.items() if source == most)
            self.end(oldest)
            oldest.cancel()
        return True

    def end(self, handshake: trio.CancelScope) -> None:
        """It is over, one way or the other."""
        self._handshakes.pop(handshake, None)

    def _bucket(self, address: str) -> Bucket:
        """The address's; of too many the one that called least recently is forgotten."""
        bucket = self._addresses.get(address)
        if bucket is None:
            bucket = self._addresses[address] = Bucket(ADDRESS_CALLS_PER_SECOND, ADDRESS_CALLS_AT_ONCE)
            if len(self._addresses) > MAX_ADDRESSES:
                self._addresses.popitem(last=False)
        self._addresses.move_to_end(address)
        return bucket


def source_of(host: str) -> str:
    """The address, of an IPv6 one the first 64 bits: the rest is its owner's to choose."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return address.packed[:8].hex()
    return str(address)
