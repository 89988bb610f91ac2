"""One libp2p connection: TCP, Noise, Yamux, and the single stream that a pair of peers talks on.

The pieces are py-libp2p's, put together here instead of in its host and swarm: those keep a task and a slot for every
connection ever accepted, dial on their own, run protocols (identify, ping) that nobody needs here, and listen with
SO_REUSEPORT, so that two processes can share a port by mistake. Here a connection is one task and one cancel scope:
whatever goes wrong inside ends with that connection, and leaves nothing behind. On the wire it is plain libp2p.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio
from libp2p.crypto.secp256k1 import Secp256k1PublicKey
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from node.protocol.crypto import KeyPair, is_public_key

log = structlog.get_logger(__name__)

# libp2p reports what strangers do to a port as errors, in a format of its own; here each failed connection is an
# exception, and told by whoever runs the connection. Its import sets the level, so this must come after.
logging.getLogger("libp2p").setLevel(logging.CRITICAL)

PROTOCOL = TProtocol("/shardpay/1")
HANDSHAKE_SECONDS = 5
"""From a TCP connection to a stream to talk on, at most."""

WINDOW_BYTES = 1 << 20
"""Largest Yamux receive window. Yamux's own cap is 16 MiB."""
yamux.MAX_WINDOW_SIZE = WINDOW_BYTES
UNREAD_BYTES = 2 * WINDOW_BYTES
"""What one peer can make this process hold unread: its windows may overlap by as much again."""

NOISE_MESSAGE_BYTES = 65_535
NEGOTIATION_BYTES = 1024
"""Longest message while agreeing on a protocol; a name and a newline in fact."""

_SECP256K1_ID = b"\x00\x25\x08\x02\x12\x21"
"""How a libp2p peer id of a secp256k1 key begins: identity multihash of 37 bytes; key type 2; 33 bytes of key."""

Talk = Callable[[bytes, Any], Awaitable[None]]
"""Called with the peer's public key and the stream: ``await stream.read(n)``, ``await stream.write(data)``."""


class ConnectionRefused(Exception):
    """A connection did not come about: not welcome, an unusable key, or too slow."""


def peer_id_of(public_key: bytes) -> ID:
    """The libp2p peer id of a compressed secp256k1 public key. Raises ValueError when it is none."""
    if not is_public_key(public_key):
        raise ValueError("not a compressed secp256k1 public key")
    return ID.from_pubkey(Secp256k1PublicKey.from_bytes(public_key))


def public_key_of(peer_id: ID) -> bytes | None:
    """The public key a peer id holds (33 bytes); None for ids of other kinds of key, or without the key in them."""
    encoded: bytes = peer_id.to_bytes()
    key = encoded[len(_SECP256K1_ID) :]
    return key if encoded.startswith(_SECP256K1_ID) and is_public_key(key) else None


def host_and_port(address: str) -> tuple[str, int]:
    """Host (address or name) and TCP port of a multiaddr such as /ip4/10.0.0.1/tcp/8100. Raises ValueError otherwise."""
    try:
        parts = {protocol.name: value for protocol, value in Multiaddr(address).items()}
    except Exception as error:  # multiaddr's many, some of them plain LookupErrors
        raise ValueError(f"not a multiaddr: {address!r}") from error
    host = next((parts[name] for name in ("ip4", "ip6", "dns4", "dns6", "dns") if parts.get(name)), None)
    if host is None or parts.get("tcp") is None:
        raise ValueError(f"not the multiaddr of a TCP port: {address!r}")
    return host, int(parts["tcp"])


class _Muxer(yamux.Yamux):  # type: ignore[misc]
    """Yamux that ends the connection of a peer with more than ``unread`` bytes on the way; the stock one only warns."""

    def __init__(self, secured: Any, peer_id: ID, unread: int) -> None:
        super().__init__(secured, peer_id)
        self._unread = unread

    async def _read_data_body(self, length: int) -> bytes:
        if length + sum(map(len, self.stream_buffers.values())) > self._unread:
            await self._cleanup_on_error()
            raise ConnectionRefused("the peer ignores flow control")
        body: bytes = await super()._read_data_body(length)
        return body


class _Modest:
    """A stream that refuses to be asked for much at once.

    While negotiating, libp2p reads whatever length the other side announces, into memory.
    """

    def __init__(self, inner: Any, most: int) -> None:
        self._inner = inner
        self._most = most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self, n: int | None = None) -> bytes:
        if n is not None and n > self._most:
            raise ConnectionRefused(f"the peer announces a message of {n} bytes")
        data: bytes = await self._inner.read(n)
        return data


class Connector:
    """Makes authenticated streams out of TCP connections, for the owner of one key."""

    def __init__(self, key: KeyPair, unread: int = UNREAD_BYTES) -> None:
        """``unread``: bytes a peer may be ahead of what is read of it."""
        self._unread = unread
        pair = secp256k1_key_pair(key.secret)
        noise = NoiseTransport(pair, noise_privkey=x25519_key_pair().private_key)
        self._upgrader = TransportUpgrader({NOISE: noise}, {TProtocol(yamux.PROTOCOL_ID): _Muxer})

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
            ConnectionRefused: see there. Also whatever libp2p or ``talk`` raise; possibly in a group.
        """
        try:
            async with trio.open_nursery() as nursery:
                with handshake:
                    public_key, muxer = await self._secure(tcp, dialed, welcome)
                    nursery.start_soon(_run, muxer)
                    await muxer.event_started.wait()
                    stream = await (_accept_stream(muxer) if dialed is None else _open_stream(muxer))
                if handshake.cancelled_caught:
                    raise ConnectionRefused("too slow")
                await talk(public_key, stream)
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(tcp)

    async def _secure(
        self, tcp: trio.SocketStream, dialed: bytes | None, welcome: Callable[[bytes], bool]
    ) -> tuple[bytes, _Muxer]:
        expected = None if dialed is None else peer_id_of(dialed)
        raw = RawConnection(_Modest(TrioTCPStream(tcp), NOISE_MESSAGE_BYTES), dialed is not None)
        secured = await self._upgrader.upgrade_security(raw, dialed is not None, expected)
        peer_id = secured.get_remote_peer()
        public_key = public_key_of(peer_id)
        if public_key is None:
            raise ConnectionRefused("the peer's key is not a secp256k1 key")
        if not welcome(public_key):
            raise ConnectionRefused(f"{public_key.hex()} is not welcome")
        await self._upgrader.muxer_multistream.select_transport(_Modest(secured, NEGOTIATION_BYTES))  # there is only one
        return public_key, _Muxer(secured, peer_id, self._unread)


async def _run(muxer: _Muxer) -> None:
    try:
        await muxer.start()
    except* Exception as errors:
        log.debug("muxer failed", error=repr(errors.exceptions[0]))


async def _open_stream(muxer: _Muxer) -> Any:
    stream = await muxer.open_stream()
    channel = MultiselectCommunicator(_Modest(stream, NEGOTIATION_BYTES))
    await MultiselectClient().select_one_of([PROTOCOL], channel, HANDSHAKE_SECONDS)
    return stream


async def _accept_stream(muxer: _Muxer) -> Any:
    """The connection's one stream. Nobody accepts another: a peer that opens more stops its own connection."""
    stream = await muxer.accept_stream()
    channel = MultiselectCommunicator(_Modest(stream, NEGOTIATION_BYTES))
    protocol, _ = await Multiselect({PROTOCOL: None}).negotiate(channel, HANDSHAKE_SECONDS)
    if protocol != PROTOCOL:
        raise ConnectionRefused(f"the peer speaks {protocol!r}")
    return stream
