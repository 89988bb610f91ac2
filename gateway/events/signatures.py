"""Signatures of webhooks: HMAC-SHA256 over the time and the body, in one header."""

import hmac
import secrets as random
from collections.abc import Iterable
from hashlib import sha256

HEADER = "Shardpay-Signature"
TOLERANCE = 300
"""Seconds a receiver's clock may differ from ours, the way of the request included."""
_MAX_HEADER = 1000


class BadSignature(ValueError):
    """Not signed with this secret, changed since, or too old; the text says which, as far as can be told."""


def new_secret() -> str:
    """Of an endpoint: ``whsec_`` and 32 random bytes."""
    return "whsec_" + random.token_urlsafe(32)


def sign(body: bytes, secrets: Iterable[str], at: int) -> str:
    """The header's value. ``at``: seconds since the Unix epoch. One ``v1`` for each secret that is good right now."""
    return ",".join([f"t={at}", *(f"v1={_mac(secret, str(at), body)}" for secret in secrets)])


def verify(body: bytes, header: str, secret: str, now: float, tolerance: float = TOLERANCE) -> None:
    """What a receiver does, with the body as it came, byte for byte, before it is read.

    Raises:
        BadSignature: the body is not one that was signed with ``secret`` in the last ``tolerance`` seconds.
    """
    if len(header) > _MAX_HEADER:
        raise BadSignature("the header is too long")
    parts = [part.split("=", 1) for part in header.split(",")]
    times = [part[1] for part in parts if len(part) == 2 and part[0] == "t"]
    given = [part[1] for part in parts if len(part) == 2 and part[0] == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit()) or not given:
        raise BadSignature("the header does not have the form t=...,v1=...")
    expected = _mac(secret, times[0], body)
    # bytes: compare_digest refuses strings that are not ASCII
    if not any(hmac.compare_digest(expected.encode(), one.encode(errors="replace")) for one in given):
        raise BadSignature("no signature in the header is of this body with this secret")
    if abs(now - int(times[0])) > tolerance:
        raise BadSignature("signed too long ago, or the clocks differ")


def _mac(secret: str, at: str, body: bytes) -> str:
    """The key is the secret as it was shown, ``whsec_`` and all."""
    return hmac.new(secret.encode(), at.encode() + b"." + body, sha256).hexdigest()
