"""From a TCP connection to the single stream that a pair of peers talks on: multistream-select, Noise, Yamux.

On the wire it is plain libp2p. A connection is one task and one cancel scope: whatever goes wrong inside ends with that
connection, and leaves nothing behind.
"""

import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import trio

from node.network.multistream import Negotiation
from node.network.noise import NOISE, Handshake, Identity
from node.network.secured import Secured
from node.network.stream import Stream
from node.network.wire import READ_BYTES, Wire
from node.network.yamux import Yamux
from node.protocol.crypto import KeyPair

YAMUX = "/yamux/1.0.0"
PROTOCOL = "/shardpay/1"
HANDSHAKE_SECONDS = 5
"""From a TCP connection to a stream to talk on, at most."""
HANDSHAKE_MESSAGE_BYTES = 4096
"""Longest message of the Noise handshake that is read; some two hundred in fact."""

UNREAD_BYTES = 1 << 20
"""What one peer can make this process hold unread: its Yamux window. Yamux's own cap is 16 MiB."""

Talk = Callable[[bytes, Stream], Awaitable[None]]
"""Called with the peer's public key and the stream."""


class ConnectionRefused(Exception):
    """A connection did not come about: not welcome, not who was called, or too slow."""


def host_and_port(address: str) -> tuple[str, int]:
    """Host (address or name) and TCP port of a multiaddr such as /ip4/10.0.0.1/tcp/8100. Raises ValueError otherwise."""
    match address.split("/"):
        case ["", kind, host, "tcp", port] | ["", kind, host, "tcp", port, "p2p", _] if (
            host and port.isdecimal() and int(port) < 1 << 16
        ):
            if kind in ("dns", "dns4", "dns6") or (kind in ("ip4", "ip6") and ip_address(host).version == int(kind[-1])):
                return host, int(port)
    raise ValueError(f"not the multiaddr of a TCP port: {address!r}")


class Connector:
    """Makes authenticated streams out of TCP connections, for the owner of one key."""

    def __init__(self, key: KeyPair, unread: int = UNREAD_BYTES) -> None:
        """``unread``: bytes a peer may be ahead of what is consumed of it."""
        self._unread = unread
        self._identity = Identity(key)

    async def converse(
        self,
        tcp: trio.SocketStream,
        handshake: trio.CancelScope,
        talk: Talk,
        *,
        dialed: bytes | None = None,
        welcome: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        """Turn ``tcp`` into a stream, ``talk`` on it until that returns, and close everything in any case.

        ``handshake`` bounds the time until the stream is there. ``dialed`` is whom this side called, None when it was
        called; ``welcome`` is asked once the peer has proved its key.

        Raises:
            ConnectionRefused, NoAgreement, NotProven, ConnectionEnded, YamuxBroken: see there.
            OSError: the connection broke. Also whatever ``talk`` raises.
        """
        with socket.socket(fileno=tcp.socket.detach()) as plain:
            plain.setblocking(False)
            with handshake:
                public_key, stream = await self._open(Wire(plain), dialed, welcome)
            if handshake.cancelled_caught:
                raise ConnectionRefused("too slow")
            await talk(public_key, stream)

    async def _open(self, wire: Wire, dialed: bytes | None, welcome: Callable[[bytes], bool]) -> tuple[bytes, Stream]:
        is_dialer = dialed is not None
        await _agree(wire, Negotiation(NOISE, is_dialer))
        handshake = Handshake(self._identity, is_dialer)
        await _shake_hands(wire, handshake)
        if dialed not in (None, handshake.peer):
            raise ConnectionRefused(f"{handshake.peer.hex()} answers")
        if not welcome(handshake.peer):
            raise ConnectionRefused(f"{handshake.peer.hex()} is not welcome")
        secured = Secured(wire, handshake.keys)
        await _agree(secured, Negotiation(YAMUX, is_dialer))
        stream = Stream(secured, Yamux(is_dialer, self._unread))
        await stream.open()
        stream.consumed(await _agree(stream, Negotiation(PROTOCOL, is_dialer)))
        wire.read_bytes = READ_BYTES
        return handshake.peer, stream


async def _agree(channel: Wire | Secured | Stream, negotiation: Negotiation) -> int:
    """Agree on a protocol; how many bytes of the other side that took."""
    channel.send(negotiation.hello)
    size = 0
    while not negotiation.is_done:
        data = await channel.receive()
        size += len(data)
        if answer := negotiation.receive(data):
            channel.send(answer)
    channel.put_back(negotiation.rest)
    return size - len(negotiation.rest)


async def _shake_hands(wire: Wire, handshake: Handshake) -> None:
    """Each message has its length before it, 2 bytes."""
    while not handshake.is_done:
        if handshake.writes_next:
            message = handshake.write()
            wire.send(len(message).to_bytes(2, "big") + message)
            continue
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            data += await wire.receive()
            if len(data) > 1 and int.from_bytes(data[:2], "big") > HANDSHAKE_MESSAGE_BYTES:
                raise ConnectionRefused("a handshake that is too long")
        end = 2 + int.from_bytes(data[:2], "big")
        wire.put_back(data[end:])
        handshake.read(data[2:end])
