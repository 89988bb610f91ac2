"""Proof of work: a nonce that gives a hash a number of leading zero bits.

Proposals carry one over their header; a node mines one over its identity for each epoch it wants to take part in, which
is what keeps one machine from registering as a thousand nodes.
"""

from hashlib import sha256

from node.protocol.codec import encode
from node.protocol.crypto import digest

NONCE_BYTES = 8


def leading_zero_bits(hashed: bytes) -> int:
    return len(hashed) * 8 - int.from_bytes(hashed, "big").bit_length()


def search(prefix: bytes, bits: int, start: int, count: int) -> bytes | None:
    """Try nonces ``start`` to ``start + count - 1``: the first with ``bits`` leading zero bits in
    SHA-256(prefix || nonce as 8 bytes), or None."""
    midstate, limit = sha256(prefix), 1 << 256 - bits
    for number in range(start, start + count):
        attempt = midstate.copy()
        nonce = number.to_bytes(NONCE_BYTES, "big")
        attempt.update(nonce)
        if int.from_bytes(attempt.digest(), "big") < limit:
            return nonce
    return None


def identity_prefix(network: bytes, epoch: int, challenge: bytes, public_key: bytes) -> bytes:
    """What an identity puzzle is mined over. ``challenge``: the hash of the previous epoch document (of the genesis for
    epoch 1), so no solution can be prepared before it exists."""
    return digest("identity puzzle", encode([network, epoch, challenge, public_key]))


def is_solution(prefix: bytes, nonce: bytes, bits: int) -> bool:
    return len(nonce) == NONCE_BYTES and leading_zero_bits(sha256(prefix + nonce).digest()) >= bits
