"""Secrets: the ones the process is given, and the users' private keys, encrypted at rest with AES-256-GCM."""

import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from Crypto.Cipher import AES
from Crypto.Cipher._mode_gcm import GcmMode

from node.protocol.crypto import KeyPair

KEY_ENCRYPTION_KEY = "SHARDPAY_KEY_ENCRYPTION_KEY"
TOKEN_SECRET = "SHARDPAY_TOKEN_SECRET"

MAX_KEYS = 2
ID_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16
_FEWEST_DISTINCT_BYTES = 16
"""32 random bytes hold about 30 distinct values; fewer than this many happens once in 10^15."""


class SecretError(ValueError):
    """A secret in the environment is missing, malformed or weak; the text says which."""


class WrongKey(ValueError):
    """The sealed bytes were not sealed with this key for this owner, or were changed since."""


def read_secrets(name: str, devnet: bool) -> tuple[bytes, ...]:
    """The 32-byte secrets the environment holds under ``name``, as hex: the one in use, and after a comma, while it is changed,
    another one that is accepted, too. A devnet may go without: it has a well-known one.

    Raises:
        SecretError: missing, too many, not 32 bytes of hex, or (outside a devnet) plainly not random.
    """
    text = os.environ.get(name, "")
    if not text:
        if devnet:
            return (sha256(b"shardpay devnet " + name.encode()).digest(),)
        raise SecretError(f"{name} is not set: it takes 32 random bytes in hex")
    found = tuple(_secret(name, part, devnet) for part in text.split(","))
    if len(found) > MAX_KEYS or len(set(found)) < len(found):
        raise SecretError(f"{name} holds one secret, or two different ones with a comma between them")
    return found


def _secret(name: str, text: str, devnet: bool) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        raise SecretError(f"{name} is not hex") from None
    if len(secret) != 32:
        raise SecretError(f"{name} has {len(secret)} bytes, 32 are needed")
    if not devnet and len(set(secret)) < _FEWEST_DISTINCT_BYTES:
        raise SecretError(f"{name} is weak: it takes 32 random bytes")
    return secret


class Vault:
    """Seals small secrets under one key; opens also what was sealed under the others it is given. A sealed secret opens only
    together with the same ``owner``.

    A sealed secret is key id || nonce || tag || ciphertext; ``owner`` is authenticated, not stored. The id tells the key, not
    what it is.

    Attributes:
        key_id: of the key that seals.
    """

    def __init__(self, key: bytes, *others: bytes) -> None:
        self._keys = {_key_id(one): one for one in (key, *others)}
        self.key_id = _key_id(key)

    def seal(self, secret: bytes, owner: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        ciphertext, tag = self._cipher(self.key_id, nonce, owner).encrypt_and_digest(secret)
        return self.key_id + nonce + tag + ciphertext

    def open(self, sealed: bytes, owner: bytes) -> bytes:
        """The secret. Raises WrongKey."""
        key_id, rest = sealed[:ID_BYTES], sealed[ID_BYTES:]
        nonce, tag, ciphertext = (
            rest[:_NONCE_BYTES],
            rest[_NONCE_BYTES : _NONCE_BYTES + _TAG_BYTES],
            rest[_NONCE_BYTES + _TAG_BYTES :],
        )
        try:
            return self._cipher(key_id, nonce, owner).decrypt_and_verify(ciphertext, tag)
        except (KeyError, ValueError):
            raise WrongKey("a stored key does not open: another key-encryption key, or a damaged database") from None

    def _cipher(self, key_id: bytes, nonce: bytes, owner: bytes) -> GcmMode:
        cipher = AES.new(self._keys[key_id], AES.MODE_GCM, nonce=nonce, mac_len=_TAG_BYTES)
        cipher.update(owner)
        return cipher


def _key_id(key: bytes) -> bytes:
    return sha256(b"shardpay key-encryption key " + key).digest()[:ID_BYTES]


class _Held(NamedTuple):
    pair: KeyPair
    owner: str
    until: float


class Keyring:
    """Key pairs of users who pay right now, so that paying often opens the vault once.

    In memory only, at most ``capacity``, each for ``lifetime`` seconds since it was opened, used or not.
    """

    def __init__(
        self, vault: Vault, lifetime: float = 60.0, capacity: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._vault, self._lifetime, self._capacity, self._clock = vault, lifetime, capacity, clock
        self._held: OrderedDict[bytes, _Held] = OrderedDict()  # in the order in which they were opened

    def __len__(self) -> int:
        return len(self._held)

    def open(self, owner: str, sealed: bytes, address: bytes) -> KeyPair:
        """The key pair of ``address``, a wallet of user ``owner``. Raises WrongKey."""
        self.drop_old()
        if (held := self._held.get(address)) is not None:
            return held.pair
        pair = KeyPair(self._vault.open(sealed, address))
        self._held[address] = _Held(pair, owner, self._clock() + self._lifetime)
        if len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return pair

    def forget(self, owner: str) -> None:
        """A user is gone: so are the keys."""
        for address in [address for address, held in self._held.items() if held.owner == owner]:
            del self._held[address]

    def drop_old(self) -> None:
        """Forget those whose time is over."""
        now = self._clock()
        while self._held and next(iter(self._held.values())).until <= now:
            self._held.popitem(last=False)
