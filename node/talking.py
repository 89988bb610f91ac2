"""A node's lines to other nodes and to the coordinator: whom it is connected with and lets in, and the frames it sends."""

from collections.abc import Iterable

import structlog

from config.settings import NodeSettings
from node.effects import Meet
from node.network.links import VISITS
from node.network.transport import Transport
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import ToCoordinator
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Frame, PeerMessage

log = structlog.get_logger(__name__)


class Talking:
    """``versions``: of the protocol, that are spoken with others.

    Raises:
        ValueError: from the constructor, when the settings' address to listen on is none.
    """

    def __init__(self, settings: NodeSettings, key: KeyPair, coordinator: bytes, versions: frozenset[int]) -> None:
        self._key, self._coordinator, self._address = key, coordinator, settings.coordinator
        self.transport = Transport(key, settings.listen, self._accepts, known=self._stays, visits=VISITS, versions=versions)
        self._own: frozenset[bytes] = frozenset()
        """The public keys of the own committees."""
        self._known: frozenset[bytes] = frozenset()
        """Those of all committees."""
        self._encoded: tuple[PeerMessage | None, Chain | None, bytes] = (None, None, b"")

    def start(self) -> None:
        """Connect with the coordinator, and stay connected."""
        self.transport.connect(self._coordinator, [self._address])

    def meet(self, wanted: Meet) -> None:
        """Of each pair in an own committee, the one with the greater key dials."""
        others = {member.public_key: member.addresses for other in wanted.others for member in other.members}
        own = {member.public_key: member.addresses for committee in wanted.own for member in committee.members}
        self.transport.reach({public_key: addresses for public_key, addresses in others.items() if public_key not in own})
        before, self._own, self._known = self._own, frozenset(own), frozenset(own.keys() | others.keys())
        for peer in before - self._own:
            self.transport.disconnect(peer)
        for public_key, addresses in own.items():
            if public_key < self._key.public:
                self.transport.connect(public_key, addresses)

    def ban(self, peer: bytes) -> None:
        """Drop it."""
        self.transport.ban(peer)

    def tell(self, message: ToCoordinator) -> None:
        self.transport.send(self._coordinator, encode(message))

    def send(self, chain: Chain, message: PeerMessage, peers: Iterable[bytes]) -> None:
        """``chain``: of the receivers."""
        frame = self._frame(chain, message)
        for peer in peers:
            if peer != self._key.public:
                self.pass_on(frame, peer)

    def pass_on(self, frame: bytes, peer: bytes) -> None:
        """An encoded frame, to one node."""
        if len(frame) <= MAX_FRAME_BYTES:
            self.transport.send(peer, frame)
        else:
            log.error("a message is too large to be sent", bytes=len(frame))

    def _frame(self, chain: Chain, message: PeerMessage) -> bytes:
        """A message goes to several peers in a row: it is encoded once."""
        if self._encoded[0] is not message or self._encoded[1] != chain:
            self._encoded = (message, chain, encode(Frame(chain.epoch, chain.shard, message)))
        return self._encoded[2]

    def _accepts(self, public_key: bytes) -> bool:
        return public_key in self._known

    def _stays(self, public_key: bytes) -> bool:
        """Whether a connection with this peer is kept, used or not."""
        return public_key in self._own or public_key == self._coordinator
