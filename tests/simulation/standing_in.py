"""Signatures that cost a hash instead of a curve, for both implementations: who signs what is checked as ever.

That nobody can make them without the key is not shown here, and no liar tries; ``run`` and ``test_epochs`` use the curve.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, cast

from node.protocol.crypto import KeyPair
from tests.simulation import oracle


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    return signature == 2 * sha256(public_key + message).digest()


def _sign(self: KeyPair, message: bytes) -> bytes:
    return 2 * sha256(self.public + message).digest()


@contextmanager
def standing_in() -> Iterator[None]:
    """While this lasts, key pairs sign so, and the second implementation expects it. What nodes check with is ``remembered``."""
    sign, check = KeyPair.sign, oracle.verify
    cast(Any, KeyPair).sign, cast(Any, oracle).verify = _sign, verify
    try:
        yield
    finally:
        cast(Any, KeyPair).sign, cast(Any, oracle).verify = sign, check
