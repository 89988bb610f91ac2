"""libp2p's Noise handshake: each side proves a secp256k1 key, and they agree on keys for what follows. No I/O.

The pattern is XX; its arithmetic is noiseprotocol's. With its second and third message each side sends its libp2p key and a
signature over the other key that it uses here: protobuf, fields 1 and 2. Source:
https://github.com/libp2p/specs/blob/master/noise/README.md and, for the keys, ../peer-ids/peer-ids.md
"""

import os
from typing import Any

from coincurve import PrivateKey, PublicKey
from noise.connection import Keypair, NoiseConnection

from node.protocol.crypto import KeyPair, is_public_key

NOISE = "/noise"
_PATTERN = b"Noise_XX_25519_ChaChaPoly_SHA256"
_SIGNED = b"noise-libp2p-static-key:"
_SECP256K1 = b"\x08\x02\x12\x21"
"""How libp2p's encoding of a key begins: field 1, the kind, is 2; field 2 has 33 bytes."""


class NotProven(Exception):
    """The other side does not speak Noise, or has not proved a secp256k1 key."""


class Identity:
    """A key pair, and a second one that it vouches for: that of this process's handshakes."""

    def __init__(self, key: KeyPair) -> None:
        self.secret = os.urandom(32)
        signature = PrivateKey(key.secret).sign(_SIGNED + _public(_connection(self.secret).noise_protocol.keypairs["s"]))
        self.proof = b"".join(
            tag + bytes([len(field)]) + field for tag, field in ((b"\x0a", _SECP256K1 + key.public), (b"\x12", signature))
        )


class Handshake:
    """One side of it: messages are written and read in turn until ``is_done``."""

    def __init__(self, identity: Identity, dialed: bool) -> None:
        """``dialed``: this side did, and writes first."""
        self._noise = _connection(identity.secret)
        self._proof = identity.proof
        if dialed:
            self._noise.set_as_initiator()
        else:
            self._noise.set_as_responder()
        self._noise.start_handshake()
        self._state = self._noise.noise_protocol.handshake_state
        self._messages = 0
        self.writes_next = dialed
        self.peer = b""
        """The other side's public key, once it is proved: 33 bytes."""

    @property
    def is_done(self) -> bool:
        return self._messages == 3

    @property
    def keys(self) -> tuple[bytes, bytes]:
        """Of what is written and of what is read from now on."""
        protocol = self._noise.noise_protocol
        return protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k

    def write(self) -> bytes:
        message = bytes(self._noise.write_message(self._proof if self._messages else b""))
        self._turn()
        return message

    def read(self, message: bytes) -> None:
        """Raises NotProven."""
        try:
            payload = bytes(self._noise.read_message(message))
        except Exception as error:  # noiseprotocol's and cryptography's many
            raise NotProven(f"not a message of the handshake: {error!r}") from error
        if self._messages:
            self.peer = _proven(payload, _public(self._state.rs))
        self._turn()

    def _turn(self) -> None:
        self._messages += 1
        self.writes_next = not self.writes_next


def _connection(secret: bytes) -> Any:
    noise = NoiseConnection.from_name(_PATTERN)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, secret)
    return noise


def _public(pair: Any) -> bytes:
    public: bytes = pair.public_bytes
    return public


def _proven(payload: bytes, noise_key: bytes) -> bytes:
    """The public key that vouches for ``noise_key``. Raises NotProven."""
    fields = _fields(payload)
    encoded, signature = fields.get(1, b""), fields.get(2, b"")
    key = encoded[len(_SECP256K1) :]
    if not encoded.startswith(_SECP256K1) or not is_public_key(key):
        raise NotProven("the peer's key is not a secp256k1 key")
    try:
        is_valid = PublicKey(key).verify(signature, _SIGNED + noise_key)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise NotProven("the signature is not the peer's")
    return key


def _fields(data: bytes) -> dict[int, bytes]:
    """The fields of a protobuf message that have a length; what else there is is passed over. Raises NotProven."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, at = _varint(data, at)
        elif not size:
            raise NotProven(f"a field of kind {kind}")
        if at + size > len(data):
            raise NotProven("a field that is cut off")
        if kind == 2:
            found[tag >> 3] = data[at : at + size]
        at += size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises NotProven."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise NotProven("a number that does not end")
