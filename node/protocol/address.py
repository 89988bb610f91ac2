"""Addresses: the first 20 bytes of SHA-256 of a compressed public key, shown as bech32m (BIP 350) under ``spay``."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated

from msgspec import Meta

PREFIX = "spay"
Address = Annotated[bytes, Meta(min_length=20, max_length=20)]

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_BECH32M = 0x2BC830A3
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def address_of(public_key: bytes) -> bytes:
    """The 20-byte address of a compressed public key."""
    return sha256(public_key).digest()[:20]


def encode_address(address: bytes) -> str:
    """The address as text: ``spay1`` and 38 letters and digits.

    Raises:
        ValueError: not 20 bytes.
    """
    if len(address) != 20:
        raise ValueError("an address has 20 bytes")
    data = _regroup(address, 8, 5)
    checksum = _polymod([*_expanded_prefix(), *data, 0, 0, 0, 0, 0, 0]) ^ _BECH32M
    data += [checksum >> 5 * (5 - i) & 31 for i in range(6)]
    return f"{PREFIX}1{''.join(_ALPHABET[value] for value in data)}"


def decode_address(text: str) -> bytes:
    """The 20 bytes of an address in text form.

    Raises:
        ValueError: wrong prefix, length, letter or checksum, or mixed case (BIP 173).
    """
    if text != text.lower() and text != text.upper():
        raise ValueError("an address does not mix upper and lower case")
    prefix, separator, letters = text.lower().rpartition("1")
    if not separator or prefix != PREFIX:
        raise ValueError(f"an address starts with {PREFIX}1")
    if len(letters) != 38 or any(letter not in _VALUES for letter in letters):
        raise ValueError("an address has 38 letters and digits after its prefix")
    data = [_VALUES[letter] for letter in letters]
    if _polymod([*_expanded_prefix(), *data]) != _BECH32M:
        raise ValueError("the address is mistyped: its checksum does not fit")
    return bytes(_regroup(bytes(data[:-6]), 5, 8))


def _expanded_prefix() -> list[int]:
    return [ord(c) >> 5 for c in PREFIX] + [0] + [ord(c) & 31 for c in PREFIX]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _regroup(data: bytes, width: int, new_width: int) -> list[int]:
    """Cut a bit string into words of another width; 160 bits divide evenly into both, so nothing is padded."""
    bits = int.from_bytes(data, "big") if width == 8 else sum(v << width * i for i, v in enumerate(reversed(data)))
    count = len(data) * width // new_width
    return [bits >> new_width * i & (1 << new_width) - 1 for i in reversed(range(count))]
