"""Private keys in files and key formats (PEM, DER, SEC 1), handled by the ``ecdsa`` package."""

import os
import secrets
from pathlib import Path

import ecdsa

from node.protocol.crypto import KeyPair, is_public_key


def generate() -> KeyPair:
    """A fresh key pair from the operating system's randomness."""
    return KeyPair((1 + secrets.randbelow(ecdsa.SECP256k1.order - 1)).to_bytes(32, "big"))


def to_pem(key: KeyPair) -> bytes:
    """The private key as PKCS #8 PEM."""
    pem: bytes = ecdsa.SigningKey.from_string(key.secret, ecdsa.SECP256k1).to_pem(format="pkcs8")
    return pem


def from_pem(pem: bytes) -> KeyPair:
    """Read a private key from PEM (PKCS #8 or SEC 1). Raises ValueError when it is not a secp256k1 private key."""
    try:
        key = ecdsa.SigningKey.from_pem(pem.decode("ascii"))
    except Exception as error:  # the package raises many kinds, none of them documented
        raise ValueError("not a private key in PEM form") from error
    if key.curve != ecdsa.SECP256k1:
        raise ValueError("not a secp256k1 key")
    return KeyPair(key.to_string())


def public_key_from(data: bytes | str) -> bytes:
    """Compressed public key (33 bytes) from SEC 1 bytes or hex, compressed or not, or from PEM.

    Raises:
        ValueError: not a point of the curve.
    """
    try:
        if isinstance(data, str) and data.lstrip().startswith("-----"):
            key = ecdsa.VerifyingKey.from_pem(data)
            if key.curve != ecdsa.SECP256k1:
                raise ValueError("not a secp256k1 key")
        else:
            raw = bytes.fromhex(data) if isinstance(data, str) else data
            if len(raw) == 33 and is_public_key(raw):
                return raw
            key = ecdsa.VerifyingKey.from_string(raw, ecdsa.SECP256k1)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError("not a secp256k1 public key") from error
    compressed: bytes = key.to_string("compressed")
    return compressed


def write_key_file(path: Path, key: KeyPair) -> None:
    """Write the key as PEM, readable by its owner only, whole or not at all. Raises FileExistsError rather than replace a key."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(to_pem(key))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_key_file(path: Path) -> KeyPair:
    """Read a key file. Raises OSError, or ValueError when the content is not a key."""
    return from_pem(path.read_bytes())
