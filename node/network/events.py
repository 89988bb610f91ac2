"""What comes out of the network: peers, and the frames they send."""

from msgspec import Struct


class Message(Struct, frozen=True, gc=False):
    """A frame from a connected peer."""

    peer: bytes
    """Its public key (33 bytes)."""
    frame: bytes


class PeerUp(Struct, frozen=True, gc=False):
    """A connection to this peer is there: frames can be sent."""

    peer: bytes


class PeerDown(Struct, frozen=True, gc=False):
    """The connection is gone, with whatever was queued or on its way."""

    peer: bytes


Inbound = Message | PeerUp | PeerDown
