"""Hashes and secp256k1 signatures.

Signatures are ECDSA (SEC 1) with deterministic nonces (RFC 6979) and low S (BIP 62), in the 64-byte compact form r || s.
libsecp256k1, through coincurve, makes and checks them: in constant time, and without holding the interpreter lock.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Annotated

from coincurve import PrivateKey
from coincurve import PublicKey as _Point
from coincurve.context import GLOBAL_CONTEXT
from coincurve.ecdsa import der_to_cdata, ffi, lib, serialize_compact
from msgspec import Meta

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
PublicKey = Annotated[bytes, Meta(min_length=33, max_length=33)]
"""A compressed SEC 1 point."""
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]

HASH_BYTES = 32
ZERO_HASH = bytes(HASH_BYTES)


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 of ``parts`` under a domain name, so that no signed or hashed thing can pass for one of another kind."""
    h = sha256(domain_prefix(domain))
    for part in parts:
        h.update(part)
    return h.digest()


@lru_cache(maxsize=64)
def domain_prefix(domain: str) -> bytes:
    """The 32 bytes that come before all that is hashed under ``domain``."""
    return sha256(b"shardpay/" + domain.encode()).digest()


class KeyPair:
    """A secp256k1 key pair. ``public`` is the compressed public key (33 bytes)."""

    __slots__ = ("_private", "public")

    def __init__(self, secret: bytes) -> None:
        """``secret``: 32 bytes, big-endian, in [1, n-1]. Raises ValueError otherwise."""
        if len(secret) != 32:
            raise ValueError("a private key has 32 bytes")
        self._private = PrivateKey(secret)
        self.public: bytes = self._private.public_key.format()

    @property
    def secret(self) -> bytes:
        """The private key's 32 bytes."""
        secret: bytes = self._private.secret
        return secret

    def sign(self, message_hash: bytes) -> bytes:
        """The 64-byte signature of a 32-byte hash."""
        signature: bytes = serialize_compact(der_to_cdata(self._private.sign(message_hash, hasher=None)))
        return signature

    def __repr__(self) -> str:
        return f"KeyPair({self.public.hex()})"


@lru_cache(maxsize=1 << 16)
def _parse(public_key: bytes) -> _Point | None:
    if public_key[:1] not in (b"\x02", b"\x03") or len(public_key) != 33:
        return None
    try:
        return _Point(public_key)
    except ValueError:
        return None


def is_public_key(data: bytes) -> bool:
    """Whether ``data`` is a point of the curve in compressed form."""
    return _parse(data) is not None


def verify(public_key: bytes, message_hash: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes, low S) over ``message_hash`` (32 bytes) is the key's. Never raises on bad input."""
    point = _parse(public_key)
    if point is None or len(signature) != 64 or len(message_hash) != 32:
        return False
    parsed = ffi.new("secp256k1_ecdsa_signature *")
    if not lib.secp256k1_ecdsa_signature_parse_compact(GLOBAL_CONTEXT.ctx, parsed, signature):
        return False
    return bool(lib.secp256k1_ecdsa_verify(GLOBAL_CONTEXT.ctx, parsed, message_hash, point.public_key))
