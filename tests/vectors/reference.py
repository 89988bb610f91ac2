"""Another implementation of what the README of this folder says, on ``hashlib``, ``ecdsa`` and ``msgpack`` alone.

It knows nothing of the code under test: messages are plain lists, an electorate is an object of ``votes.json``.
"""

from hashlib import sha256
from typing import Any

import ecdsa
import msgpack  # type: ignore[import-untyped]

ORDER: int = ecdsa.SECP256k1.order
LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def unhex(value: str) -> bytes:
    return bytes.fromhex(value)


def digest(domain: str, *parts: bytes) -> bytes:
    return sha256(sha256(b"shardpay/" + domain.encode()).digest() + b"".join(parts)).digest()


def public_key(secret: bytes) -> bytes:
    key: bytes = ecdsa.SigningKey.from_string(secret, ecdsa.SECP256k1).verifying_key.to_string("compressed")
    return key


def sign(secret: bytes, message: bytes) -> bytes:
    """RFC 6979, with low S."""
    key = ecdsa.SigningKey.from_string(secret, ecdsa.SECP256k1)
    signature: bytes = key.sign_digest_deterministic(message, sha256, ecdsa.util.sigencode_string_canonize)
    return signature


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    if int.from_bytes(signature[32:], "big") > ORDER // 2:
        return False
    try:
        return bool(ecdsa.VerifyingKey.from_string(public, ecdsa.SECP256k1).verify_digest(signature, message))
    except (ecdsa.BadSignatureError, ecdsa.keys.BadDigestError):
        return False


def bech32m(prefix: str, data: bytes) -> str:
    """BIP 350 as a polynomial division over GF(32)."""
    powers = [1]
    while len(powers) < 31:
        powers.append((powers[-1] << 1) ^ (0b101001 if powers[-1] & 16 else 0))

    def times(a: int, b: int) -> int:
        return powers[(powers.index(a) + powers.index(b)) % 31] if a and b else 0

    bits = "".join(f"{byte:08b}" for byte in data)
    words = [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)]
    generator = [29, 22, 20, 21, 29, 18]  # g(x) = x^6 + 29x^5 + 22x^4 + 20x^3 + 21x^2 + 29x + 18, BIP 173
    remainder = [0, 0, 0, 0, 0, 1]
    for word in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + words + [0] * 6:
        top = remainder[0]
        remainder = [a ^ times(top, g) for a, g in zip([*remainder[1:], word], generator, strict=True)]
    constant = [0x2BC830A3 >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(LETTERS[w] for w in words + [a ^ b for a, b in zip(remainder, constant, strict=True)])


def root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if len(leaves) <= 1:
        return sha256(b"\x00" + leaves[0] if leaves else b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def branch_root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """The root that a branch leads to, from the top down; None when it leads nowhere."""
    if size == 1 or not path:
        return None if size != 1 or path else sha256(b"\x00" + leaf).digest()
    split = 1 << (size - 1).bit_length() - 1
    right = index >= split
    below = branch_root(leaf, index - split, size - split, path[:-1]) if right else branch_root(leaf, index, split, path[:-1])
    return below and sha256(b"\x01" + (path[-1] + below if right else below + path[-1])).digest()


def statement(electorate: dict[str, Any], kind: int, view: int, block: bytes) -> bytes:
    place = [unhex(electorate["network"]), electorate["shard"], electorate["epoch"]]
    return digest("vote", msgpack.packb([*place, kind, view, block]))


def is_vote(electorate: dict[str, Any], vote: list[Any]) -> bool:
    kind, view, block, signer, signature = vote
    keys = electorate["keys"]
    return signer < len(keys) and verify(unhex(keys[signer]), statement(electorate, kind, view, block), signature)


def is_certificate(electorate: dict[str, Any], certificate: list[Any]) -> bool:
    kind, view, block, signers, signatures = certificate
    return (
        len(signers) == len(signatures) == electorate["quorum"]
        and signers == sorted(set(signers))
        and all(is_vote(electorate, [kind, view, block, i, s]) for i, s in zip(signers, signatures, strict=True))
    )


def is_final(electorate: dict[str, Any], header: list[Any], finality: list[Any]) -> bool:
    descendants, certificate = finality
    if header[:3] != [unhex(electorate["network"]), electorate["shard"], electorate["epoch"]]:
        return False
    for child in descendants:
        if child[5] != digest("block", msgpack.packb(header)):
            return False
        header = child
    return certificate[:3] == [3, header[3], digest("block", msgpack.packb(header))] and is_certificate(electorate, certificate)


def is_block(electorate: dict[str, Any], certified: list[Any]) -> bool:
    (header, bundles, transactions), finality, (receipts, changes, totals) = certified
    return (
        is_final(electorate, header, finality)
        and header[8] == root([root(bundles), root(transactions)])
        and header[9] == root([msgpack.packb(receipt) for receipt in receipts])
        and header[11] == digest("changes", msgpack.packb(changes))
        and header[12] == digest("totals", msgpack.packb(totals))
    )


def is_bundle(electorate: dict[str, Any], certified: list[Any]) -> bool:
    bundle, header, finality, branch = certified
    proven = branch_root(msgpack.packb(bundle), *branch)
    return bundle[0] == header[1] and is_final(electorate, header, finality) and header[10] == proven
