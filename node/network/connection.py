"""One libp2p connection: TCP, Noise, Yamux, and the single stream that a pair of peers talks on.

The pieces are py-libp2p's, put together here instead of in its host and swarm: those keep a task and a slot for every
connection ever accepted, dial on their own, run protocols (identify, ping) that nobody needs here, and listen with
SO_REUSEPORT, so that two processes can share a port by mistake. Here a connection is one task and one cancel scope:
whatever goes wrong inside ends with that connection, and leaves nothing behind. On the wire it is plain libp2p.
"""

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import trio
from libp2p.crypto.secp256k1 import Secp256k1PublicKey
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from node.network.multistream import Negotiation, NoAgreement
from node.network.secured import NOISE_MESSAGE_BYTES, READ_BYTES, Secured
from node.network.stream import Stream
from node.network.yamux import Yamux
from node.protocol.crypto import KeyPair, is_public_key

# libp2p reports what strangers do to a port as errors, in a format of its own; here each failed connection is an
# exception, and told by whoever runs the connection. Its import sets the level, so this must come after.
logging.getLogger("libp2p").setLevel(logging.CRITICAL)

YAMUX = "/yamux/1.0.0"
VERSIONS = frozenset({1})
"""Of the protocol between nodes, as spoken here."""
MAX_VERSIONS = 8
"""That one side speaks: how many proposals of a protocol are heard."""
HANDSHAKE_SECONDS = 5
"""From a TCP connection to a stream to talk on, at most."""

UNREAD_BYTES = 1 << 20
"""What one peer can make this process hold unread: its Yamux window. Yamux's own cap is 16 MiB."""

_SECP256K1_ID = b"\x00\x25\x08\x02\x12\x21"
"""How a libp2p peer id of a secp256k1 key begins: identity multihash of 37 bytes; key type 2; 33 bytes of key."""

Talk = Callable[[bytes, Stream], Awaitable[None]]
"""Called with the peer's public key and the stream."""


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


class NoCommonVersion(ConnectionRefused):
    """The two sides speak no version of the protocol that both know."""


def protocol_of(version: int) -> str:
    """The libp2p protocol that two sides of this version speak on their stream."""
    return f"/shardpay/{version}"


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

    def __init__(self, key: KeyPair, unread: int = UNREAD_BYTES, versions: frozenset[int] = VERSIONS) -> None:
        """``unread``: bytes a peer may be ahead of what is consumed of it. ``versions``: of the protocol, that are spoken.

        Raises:
            ValueError: no versions, or too many.
        """
        if not 0 < len(versions) <= MAX_VERSIONS:
            raise ValueError(f"1 to {MAX_VERSIONS} protocol versions, not {len(versions)}")
        self._protocols = [protocol_of(version) for version in sorted(versions, reverse=True)]
        self._unread = unread
        pair = secp256k1_key_pair(key.secret)
        noise = NoiseTransport(pair, noise_privkey=x25519_key_pair().private_key)
        self._upgrader = TransportUpgrader({NOISE: noise}, {})

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
            ConnectionRefused: see there. Also whatever libp2p, the stream or ``talk`` raise; possibly in a group.
        """
        with ExitStack() as opened:
            try:
                with handshake:
                    public_key, keys = await self._secure(tcp, dialed, welcome)
                    plain = opened.enter_context(socket.socket(fileno=tcp.socket.detach()))
                    plain.setblocking(False)
                    stream = await self._open(Secured(plain, *keys), dialed is not None)
                if handshake.cancelled_caught:
                    raise ConnectionRefused("too slow")
                await talk(public_key, stream)
            finally:
                await trio.aclose_forcefully(tcp)

    async def _secure(
        self, tcp: trio.SocketStream, dialed: bytes | None, welcome: Callable[[bytes], bool]
    ) -> tuple[bytes, tuple[bytes, bytes]]:
        """The peer's public key, and the keys of what is written and of what is read."""
        expected = None if dialed is None else peer_id_of(dialed)
        raw = RawConnection(_Modest(TrioTCPStream(tcp), NOISE_MESSAGE_BYTES), dialed is not None)
        secured = await self._upgrader.upgrade_security(raw, dialed is not None, expected)
        public_key = public_key_of(secured.get_remote_peer())
        if public_key is None:
            raise ConnectionRefused("the peer's key is not a secp256k1 key")
        if not welcome(public_key):
            raise ConnectionRefused(f"{public_key.hex()} is not welcome")
        agreed = secured.conn.noise_state.noise_protocol
        return public_key, (agreed.cipher_state_encrypt.k, agreed.cipher_state_decrypt.k)

    async def _open(self, secured: Secured, dialed: bool) -> Stream:
        """The connection's one stream."""
        await _agree(secured, Negotiation([YAMUX], dialed))
        stream = Stream(secured, Yamux(dialed, self._unread))
        await stream.open()
        await self._agree_on_version(stream, Negotiation(self._protocols, dialed))
        secured.read_bytes = READ_BYTES
        return stream

    async def _agree_on_version(self, stream: Stream, negotiation: Negotiation) -> None:
        """The greatest that both speak. Nobody else can change what is said: the connection is secured."""
        try:
            stream.consumed(await _agree(stream, negotiation))
        except NoAgreement as error:
            raise NoCommonVersion(f"here {self._protocols}, {error}") from None
        except Exception:
            if not negotiation.refused:
                raise
            raise NoCommonVersion(f"here {self._protocols}, there {negotiation.refused}") from None


async def _agree(channel: Secured | Stream, negotiation: Negotiation) -> int:
    """Agree on a protocol; how many bytes of the other side that took."""
    channel.send(negotiation.hello)
    size = 0
    while not negotiation.is_done:
        data = await channel.receive()
        size += len(data)
        if answer := negotiation.receive(data):
            if channel.is_blocked:
                raise ConnectionRefused("the peer asks and does not listen")
            channel.send(answer)
    channel.put_back(negotiation.rest)
    return size - len(negotiation.rest)
