"""A key as words on paper: BIP-39 words, from which BIP-32 derives the key (docs/signing.md)."""

import hmac

from coincurve import PrivateKey
from mnemonic import Mnemonic

from node.protocol.crypto import KeyPair

PATH = "m/44'/1'/0'/0/0"
"""As BIP-44 has it, with the coin type of SLIP-44 that belongs to no coin: 1, test networks."""
MAX_WORDS = 500
"""Characters that are looked at."""
_ENTROPY = 256
"""Bits: 24 words."""
_HARDENED = 1 << 31
_english = Mnemonic("english")


def new_words() -> str:
    """24 words, from the operating system's randomness."""
    return _english.generate(_ENTROPY)


def key_of(words: str) -> KeyPair:
    """The key pair of 12 to 24 English words, without a BIP-39 passphrase. Raises ValueError when they are none."""
    words = " ".join(words[: MAX_WORDS + 1].lower().split())
    if len(words) > MAX_WORDS or not _english.check(words):
        raise ValueError("these are not words of BIP-39, or one of them is mistyped: their checksum does not fit")
    return derive(Mnemonic.to_seed(words), PATH)


def derive(seed: bytes, path: str) -> KeyPair:
    """The key pair at a path of BIP-32, such as ``m/44'/0/1``. Raises ValueError, for one seed in 2^127."""
    secret, chain = _halves(b"Bitcoin seed", seed)
    for step in path.split("/")[1:]:
        index = int(step.rstrip("'")) + (_HARDENED if step.endswith("'") else 0)
        parent = b"\0" + secret if index >= _HARDENED else KeyPair(secret).public
        tweak, chain = _halves(chain, parent + index.to_bytes(4, "big"))
        secret = PrivateKey(secret).add(tweak).secret
    return KeyPair(secret)


def _halves(key: bytes, data: bytes) -> tuple[bytes, bytes]:
    both = hmac.digest(key, data, "sha512")
    return both[:32], both[32:]
