"""Private keys on their way out and in, and the proof that somebody has one.

A key leaves and enters as PKCS #8 PEM, encrypted under a passphrase (PBES2 of RFC 8018: PBKDF2 with HMAC-SHA-512, AES-256-CBC),
which OpenSSL reads and writes, too.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from Crypto.IO import PEM, PKCS8
from Crypto.Util.asn1 import DerObject, DerObjectId, DerSequence

from node.protocol.crypto import KeyPair, digest, verify
from node.protocol.keys import from_pem, to_pem

MAX_PEM = 4000
_LABEL = "ENCRYPTED PRIVATE KEY"
_PROTECTION = "PBKDF2WithHMAC-SHA512AndAES256-CBC"
_ITERATIONS = 210_000
_MOST_ITERATIONS = 2_000_000
_ONE = ThreadPoolExecutor(1, "keys")
"""A thread beside those that everybody shares: who sends a key says how long it takes to open it."""
_PBES2, _PBKDF2 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.12"


def ownership(network_id: bytes, user_id: str) -> bytes:
    """What the owner of a key signs (32 bytes) so that a user of a gateway may register it: good for no other user or network."""
    return digest("wallet-ownership", network_id, user_id.encode())


def proves_ownership(public_key: bytes, signature: bytes, network_id: bytes, user_id: str) -> bool:
    """Whether ``signature`` (64 bytes) shows that a user has the private half of ``public_key``."""
    return len(signature) == 64 and verify(public_key, ownership(network_id, user_id), signature)


def encrypt_key(pair: KeyPair, passphrase: str) -> str:
    """A private key as encrypted PEM. Takes tenths of a second."""
    plain, _, _ = PEM.decode(to_pem(pair).decode("ascii"))
    key = PKCS8.unwrap(plain)
    curve = _decoded(key.params)
    wrapped = PKCS8.wrap(
        key.private_key, key.oid, passphrase.encode(), _PROTECTION, {"iteration_count": _ITERATIONS}, key_params=curve
    )
    return str(PEM.encode(wrapped, _LABEL))


def decrypt_key(pem: str, passphrase: str) -> KeyPair:
    """The private key in encrypted PEM. May take a second. Raises ValueError when it is none, or the passphrase is another."""
    try:
        wrapped, label, _ = PEM.decode(pem)
    except ValueError:
        raise ValueError("not PEM") from None
    if label != _LABEL or _iterations(wrapped) > _MOST_ITERATIONS:
        raise ValueError(f"an encrypted PKCS #8 key is needed, PBKDF2 with at most {_MOST_ITERATIONS} iterations")
    try:
        key = PKCS8.unwrap(wrapped, passphrase.encode())
    except (ValueError, IndexError, KeyError, TypeError):
        raise ValueError("another passphrase, or a damaged file") from None
    plain = PKCS8.wrap(key.private_key, key.oid, key_params=_decoded(key.params))
    return from_pem(PEM.encode(plain, "PRIVATE KEY").encode())


async def open_key(pem: str, passphrase: str) -> KeyPair:
    """``decrypt_key`` of one after the other. Raises ValueError."""
    return await asyncio.get_running_loop().run_in_executor(_ONE, decrypt_key, pem, passphrase)


def _decoded(der: bytes | None) -> DerObject:
    return DerObject().decode(der or b"")


def _iterations(wrapped: bytes) -> int:
    """How often PBKDF2 runs, looked up before it does. Raises ValueError when it is not PBKDF2."""
    try:
        algorithm = DerSequence().decode(DerSequence().decode(wrapped)[0])
        scheme = DerSequence().decode(algorithm[1])
        derivation = DerSequence().decode(scheme[0])
        names = [DerObjectId().decode(one[0]).value for one in (algorithm, derivation)]
        count = DerSequence().decode(derivation[1])[1]
    except (ValueError, IndexError, TypeError):
        raise ValueError("not an encrypted PKCS #8 key") from None
    if names != [_PBES2, _PBKDF2] or not isinstance(count, int):
        raise ValueError("not encrypted with PBES2 and PBKDF2")
    return count
