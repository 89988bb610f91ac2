"""One value, one encoding; and what is signed and hashed is what other implementations make of it."""

from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import ecdsa
import msgpack  # type: ignore[import-untyped]
import pytest
from ecdsa.util import sigdecode_string, sigencode_string
from hypothesis import given
from hypothesis import strategies as st

from node.protocol import keys, merkle
from node.protocol.address import address_of, decode_address, encode_address
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.crypto import KeyPair, digest, is_public_key, verify
from node.protocol.limits import MAX_AMOUNT
from node.protocol.messages import Ballot, BodyRequest, BundleRequest, PeerMessage
from node.protocol.puzzle import is_solution, leading_zero_bits, search
from node.protocol.shards import ShardTable, equal_ranges

KEY = KeyPair(bytes(31) + b"\x05")
HASH = sha256(b"message").digest()
ORDER = ecdsa.SECP256k1.order

plain = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=40) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=30,
)


# -- codec -----------------------------------------------------------------------------------------------------------


@given(plain)
def test_msgpack_reads_what_we_write_and_writes_the_same(value: Any) -> None:
    assert msgpack.unpackb(encode(value), strict_map_key=False) == value
    assert msgpack.packb(value) == encode(value)


def test_structs_are_plain_arrays_of_their_fields() -> None:
    assert msgpack.unpackb(encode(BundleRequest(3, 300))) == [10, 3, 300]


NOT_CANONICAL = {
    "long form of a small integer": b"\x93\x04\xcd\x00\x03\x03",
    "signed form of a positive integer": b"\x93\x04\xd0\x03\x03",
    "64-bit form": b"\x93\x0a\x03\xcf" + bytes(7) + b"\x03",
    "long form of the array": b"\xdc\x00\x03\x0a\x03\x03",
    "trailing byte": b"\x93\x0a\x03\x03\x00",
    "trailing item": b"\x94\x0a\x03\x03\x00",
    "missing item": b"\x92\x0a\x03",
    "float for integer": b"\x93\x0a\x03\xcb" + b"\x40\x08" + bytes(6),
    "text for integer": b"\x93\x0a\x03\xa13",
    "boolean for integer": b"\x93\x0a\x03\xc3",
    "nil": b"\x93\x0a\x03\xc0",
    "below the bound": b"\x93\x0a\x03\xff",
    "above the bound": b"\x93\x0a\x03\xcf\x00\x20\x00\x00\x00\x00\x00\x01",
    "unknown tag": b"\x93\x63\x03\x03",
    "map": b"\x83\x0a\x03\x03\x04\x05\x06",
    "empty": b"",
    "never used byte": b"\xc1",
    "array that promises too much": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
def test_any_other_encoding_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(cast(Any, PeerMessage), data, 1 << 20)


def test_text_for_bytes_and_bytes_of_another_length_are_refused() -> None:
    good = encode(BodyRequest(1, HASH))
    assert decode(BodyRequest, good, 100) == BodyRequest(1, HASH)
    for bad in ([7, 1, "x" * 32], [7, 1, HASH[:-1]], [7, 1, HASH + b"x"], [7, 1, [1] * 32]):
        with pytest.raises(DecodeError):
            decode(BodyRequest, msgpack.packb(bad), 100)
    long_form = good.replace(b"\xc4\x20", b"\xc5\x00\x20")
    with pytest.raises(DecodeError):
        decode(BodyRequest, long_form, 100)


def test_a_message_over_the_limit_is_refused_unread() -> None:
    data = encode(BundleRequest(1, 1))
    assert decode(BundleRequest, data, len(data)) == BundleRequest(1, 1)
    with pytest.raises(DecodeError, match="at most"):
        decode(BundleRequest, data, len(data) - 1)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(cast(Any, list[Any]), b"\x91" * 100_000 + b"\xc0", 1 << 20)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_canonical(data: bytes) -> None:
    try:
        value = decode(cast(Any, PeerMessage), data, 1 << 20)
    except DecodeError:
        return
    assert encode(value) == data


@given(st.integers(0, 1023), st.integers(1, 2**53))
def test_messages_round_trip(destination: int, sequence: int) -> None:
    request = BundleRequest(destination, sequence)
    assert decode(cast(Any, PeerMessage), encode(request), 100) == request


def test_a_vote_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(Ballot, msgpack.packb([2, [4, 1, bytes(32), 0, bytes(64)]]), 1_000)


# -- hashes and signatures -------------------------------------------------------------------------------------------


def test_digests_of_different_domains_differ() -> None:
    assert digest("vote", b"x") == sha256(sha256(b"shardpay/vote").digest() + b"x").digest()
    assert digest("vote", b"x") != digest("block", b"x")
    assert digest("vote", b"ab", b"c") == digest("vote", b"abc")


@given(st.integers(1, ORDER - 1), st.binary(min_size=32, max_size=32))
def test_signatures_are_those_of_rfc_6979(secret: int, message_hash: bytes) -> None:
    key = KeyPair(secret.to_bytes(32, "big"))
    other = ecdsa.SigningKey.from_secret_exponent(secret, ecdsa.SECP256k1)
    assert key.public == other.verifying_key.to_string("compressed")
    signature = key.sign(message_hash)
    r, s = sigdecode_string(other.sign_digest_deterministic(message_hash, sha256, sigencode_string), ORDER)
    assert signature == sigencode_string(r, min(s, ORDER - s), ORDER)
    assert verify(key.public, message_hash, signature)
    assert other.verifying_key.verify_digest(signature, message_hash)


def test_a_high_s_signature_is_refused() -> None:
    signature = KEY.sign(HASH)
    r, s = sigdecode_string(signature, ORDER)
    assert s <= ORDER // 2
    high = sigencode_string(r, ORDER - s, ORDER)
    point = ecdsa.VerifyingKey.from_string(KEY.public, ecdsa.SECP256k1)
    assert point.verify_digest(high, HASH), "mathematically it signs"
    assert not verify(KEY.public, HASH, high)


def test_bad_input_never_verifies_and_never_raises() -> None:
    signature = KEY.sign(HASH)
    uncompressed = bytes(ecdsa.VerifyingKey.from_string(KEY.public, ecdsa.SECP256k1).to_string("uncompressed"))
    for public, message, proof in [
        (KEY.public, HASH, signature[:-1]),
        (KEY.public, HASH, b""),
        (KEY.public, HASH, bytes(64)),
        (KEY.public, HASH, b"\xff" * 64),
        (KEY.public, HASH[:-1], signature),
        (KEY.public, b"", signature),
        (b"", HASH, signature),
        (b"\x02" + b"\xff" * 32, HASH, signature),
        (b"\x04" + KEY.public[1:], HASH, signature),
        (uncompressed, HASH, signature),
        (KeyPair(bytes(31) + b"\x06").public, HASH, signature),
    ]:
        assert not verify(public, message, proof)


@pytest.mark.parametrize("position", range(64))
def test_a_changed_signature_is_refused(position: int) -> None:
    signature = bytearray(KEY.sign(HASH))
    signature[position] ^= 1
    assert not verify(KEY.public, HASH, bytes(signature))


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31), bytes(33), ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_numbers_that_are_no_private_key_are_refused(secret: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - coincurve's own text for some
        KeyPair(secret)


def test_a_key_pair_does_not_show_its_secret() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert KEY.public.hex() in repr(KEY)


# -- key formats -----------------------------------------------------------------------------------------------------


def test_private_keys_are_read_from_pkcs8_and_sec1_pem() -> None:
    assert keys.from_pem(keys.to_pem(KEY)).secret == KEY.secret
    sec1 = ecdsa.SigningKey.from_string(KEY.secret, ecdsa.SECP256k1).to_pem()
    assert b"EC PRIVATE KEY" in sec1
    assert keys.from_pem(sec1).secret == KEY.secret


def test_other_files_and_other_curves_are_no_private_key() -> None:
    other_curve = ecdsa.SigningKey.generate(ecdsa.NIST256p).to_pem()
    public = ecdsa.VerifyingKey.from_string(KEY.public, ecdsa.SECP256k1).to_pem()
    for pem in (other_curve, public, b"", b"hello", b"\xff\xfe", keys.to_pem(KEY)[:60]):
        with pytest.raises(ValueError, match="not a"):
            keys.from_pem(pem)


def test_public_keys_are_read_from_every_usual_form() -> None:
    point = ecdsa.VerifyingKey.from_string(KEY.public, ecdsa.SECP256k1)
    uncompressed = point.to_string("uncompressed")
    for form in (KEY.public, KEY.public.hex(), uncompressed, uncompressed.hex(), point.to_pem().decode(), point.to_string()):
        assert keys.public_key_from(form) == KEY.public


def test_what_is_no_point_is_no_public_key() -> None:
    other_curve = ecdsa.SigningKey.generate(ecdsa.NIST256p).verifying_key.to_pem().decode()
    for bad in (b"", b"\x02" + b"\xff" * 32, KEY.public[:-1], b"\x04" + b"\x01" * 64, "zz", "-----BEGIN", other_curve):
        with pytest.raises(ValueError):  # noqa: PT011 - several texts
            keys.public_key_from(bad)
    assert not is_public_key(b"\x02" + b"\xff" * 32)


def test_generated_keys_differ_and_sign() -> None:
    first, second = keys.generate(), keys.generate()
    assert first.secret != second.secret
    assert verify(first.public, HASH, first.sign(HASH))


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    keys.write_key_file(path, KEY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.read_key_file(path).secret == KEY.secret
    with pytest.raises(FileExistsError):
        keys.write_key_file(path, keys.generate())
    assert keys.read_key_file(path).secret == KEY.secret


# -- addresses -------------------------------------------------------------------------------------------------------

LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32m(prefix: str, data: bytes) -> str:
    """BIP 350 as a polynomial division over GF(32), written apart from the implementation under test."""
    exponents = [0] * 31
    value = 1
    for power in range(31):
        exponents[power] = value
        value = (value << 1) ^ (0b101001 if value & 16 else 0)

    def times(a: int, b: int) -> int:
        return exponents[(exponents.index(a) + exponents.index(b)) % 31] if a and b else 0

    bits = "".join(f"{byte:08b}" for byte in data)
    words = [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)]
    # g(x) = x^6 + 29x^5 + 22x^4 + 20x^3 + 21x^2 + 29x + 18, BIP 173
    generator = [29, 22, 20, 21, 29, 18]
    remainder = [0, 0, 0, 0, 0, 1]
    for word in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + words + [0] * 6:
        top = remainder[0]
        remainder = [a ^ times(top, g) for a, g in zip([*remainder[1:], word], generator, strict=True)]
    constant = [0x2BC830A3 >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(LETTERS[w] for w in words + [a ^ b for a, b in zip(remainder, constant, strict=True)])


def test_the_independent_bech32m_agrees_with_a_vector_of_bip_350() -> None:
    assert bech32m("a", b"") == "a1lqfn3a"


@given(st.binary(min_size=20, max_size=20))
def test_addresses_are_bech32m(address: bytes) -> None:
    text = encode_address(address)
    assert text == bech32m("spay", address)
    assert decode_address(text) == decode_address(text.upper()) == address


@given(st.binary(min_size=20, max_size=20), st.integers(5, 42), st.sampled_from(LETTERS))
def test_a_mistyped_address_is_refused(address: bytes, position: int, letter: str) -> None:
    text = encode_address(address)
    if text[position] != letter:
        with pytest.raises(ValueError, match="checksum"):
            decode_address(text[:position] + letter + text[position + 1 :])


def test_malformed_addresses_are_refused() -> None:
    text = encode_address(bytes(20))
    swapped = text[:-2] + text[-1] + text[-2]
    for bad in ("", "1", text[:-1], text + "q", text[:20] + text[20:].upper(), text.capitalize(), text.replace("spay", "span")):
        with pytest.raises(ValueError, match="address"):
            decode_address(bad)
    for bad in (swapped, text[4:], text.replace("1", ""), text[:-1] + "b", text[:-1] + "é", " " + text, text + "\n"):
        with pytest.raises(ValueError, match="address"):
            decode_address(bad)
    bech32_not_m = bech32m("spay", bytes(20))[:-6] + "".join(
        LETTERS[LETTERS.index(c) ^ (0x2BC830A3 >> 5 * (5 - i) & 31) ^ (1 if i == 5 else 0)] for i, c in enumerate(text[-6:])
    )
    with pytest.raises(ValueError, match="checksum"):
        decode_address(bech32_not_m)
    with pytest.raises(ValueError, match="20 bytes"):
        encode_address(bytes(21))


def test_an_address_is_the_start_of_the_hash_of_the_public_key() -> None:
    assert address_of(KEY.public) == sha256(KEY.public).digest()[:20]


# -- merkle ----------------------------------------------------------------------------------------------------------


def definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + definition(leaves[:split]) + definition(leaves[split:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_roots_are_those_of_rfc_6962(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == definition(leaves)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
def test_every_leaf_is_proven_at_its_place_only(size: int) -> None:
    leaves = [bytes([i]) for i in range(size)]
    root = merkle.root(leaves)
    for index, leaf in enumerate(leaves):
        proof = merkle.branch(leaves, index)
        assert merkle.verify(leaf, proof, root)
        assert not merkle.verify(leaf + b"x", proof, root)
        assert not merkle.verify(leaf, proof, sha256(root).digest())
        assert not merkle.verify(leaf, merkle.Branch(index, size, (*proof.path, bytes(32))), root)
        assert not any(
            merkle.verify(leaf, merkle.Branch(other, size, proof.path), root) for other in range(size) if other != index
        )
        if proof.path:
            assert not merkle.verify(leaf, merkle.Branch(index, size, proof.path[:-1]), root)
            assert not merkle.verify(leaf, merkle.Branch(index, size, (bytes(32), *proof.path[1:])), root)
    assert not merkle.verify(leaves[0], merkle.Branch(size, size, merkle.branch(leaves, 0).path), root)


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    leaves = [b"a", b"b", b"c", b"d"]
    inner = merkle.leaf_hash(b"a") + merkle.leaf_hash(b"b")
    right = sha256(b"\x01" + merkle.leaf_hash(b"c") + merkle.leaf_hash(b"d")).digest()
    assert not merkle.verify(inner, merkle.Branch(0, 2, (right,)), merkle.root(leaves))


def test_there_is_no_branch_outside_the_tree() -> None:
    for leaves, index in (([], 0), ([b"a"], 1), ([b"a"], -1)):
        with pytest.raises(IndexError):
            merkle.branch(leaves, index)


# -- amounts, shards, puzzles ----------------------------------------------------------------------------------------


@given(st.integers(0, MAX_AMOUNT), st.integers(0, 18))
def test_amounts_round_trip(value: int, decimals: int) -> None:
    assert parse_amount(format_amount(value, decimals), decimals) == value


@pytest.mark.parametrize(
    ("text", "decimals", "value"),
    [("12.5", 2, 1250), ("0", 0, 0), ("0.01", 2, 1), ("7", 2, 700), ("9223372036854775807", 0, MAX_AMOUNT)],
)
def test_decimal_strings_are_exact(text: str, decimals: int, value: int) -> None:
    assert parse_amount(text, decimals) == value


@pytest.mark.parametrize(
    "text", ["", "1.", ".5", "-1", "+1", "01", "1e3", "1,5", "1_000", " 1", "1\n", "nan", "0x1", "1.234", "1.230", "٣", "1" * 20]
)
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount|digits"):
        parse_amount(text, 2)


def test_amounts_have_a_largest_value() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_amount("9223372036854775808", 0)
    with pytest.raises(ValueError, match="too large"):
        parse_amount("92233720368547758.08", 2)


def test_amounts_are_shown_with_all_their_decimals() -> None:
    assert [format_amount(v, d) for v, d in ((1250, 2), (5, 2), (0, 2), (-5, 2), (12, 0))] == [
        "12.50",
        "0.05",
        "0.00",
        "-0.05",
        "12",
    ]


@given(st.integers(1, 64), st.binary(min_size=20, max_size=20))
def test_equal_ranges_cover_the_address_space(count: int, address: bytes) -> None:
    table = ShardTable(equal_ranges(count))
    shard = table.shard_of(address)
    first = {s: f for f, s in equal_ranges(count)}
    assert first[shard] <= address
    assert shard == count - 1 or address < first[shard + 1]
    assert shard == int.from_bytes(address, "big") * count >> 160 or address in first.values()
    assert table.shards == tuple(range(count))


def test_ranges_split_at_their_first_address() -> None:
    border = b"\x80" + bytes(19)
    table = ShardTable([(bytes(20), 4), (border, 2)])
    assert [table.shard_of(a) for a in (bytes(20), b"\x7f" + b"\xff" * 19, border, b"\xff" * 20)] == [4, 4, 2, 2]
    assert table.shards == (2, 4)


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [(b"\x01" * 20, 0)],
        [(bytes(20), 0), (b"\x01" * 20, 0)],
        [(bytes(20), 0), (bytes(20), 1)],
        [(bytes(20), 0), (b"\x02" * 20, 1), (b"\x01" * 20, 2)],
    ],
)
def test_tables_with_gaps_or_overlaps_are_refused(ranges: list[tuple[bytes, int]]) -> None:
    with pytest.raises(ValueError, match="ranges"):
        ShardTable(ranges)


def test_a_nonce_found_solves_the_puzzle_and_its_neighbour_does_not() -> None:
    nonce = search(b"prefix", 10, 0, 100_000)
    assert nonce is not None
    assert is_solution(b"prefix", nonce, 10)
    assert not any(is_solution(b"prefix", i.to_bytes(8, "big"), 10) for i in range(int.from_bytes(nonce, "big")))
    assert not is_solution(b"other", nonce, 10)
    assert not is_solution(b"prefix", nonce + b"\x00", 0)
    assert search(b"prefix", 64, 0, 10) is None
    assert [leading_zero_bits(h) for h in (bytes(32), b"\x01" + bytes(31), b"\x80" + bytes(31))] == [256, 7, 0]
