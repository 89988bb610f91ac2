"""Signatures, keys, addresses, Merkle trees, amounts, shards, puzzles: equal to another implementation's for any input, and what
is malformed is refused. Single cases with their bytes are in ``tests/vectors``."""

import itertools
from hashlib import sha256
from pathlib import Path
from typing import Any

import ecdsa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from node.protocol import keys, merkle
from node.protocol.address import decode_address, encode_address
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.crypto import KeyPair, digest, is_public_key, verify
from node.protocol.limits import MAX_AMOUNT
from node.protocol.puzzle import is_solution, leading_zero_bits, search
from node.protocol.shards import ShardTable, equal_ranges
from tests.vectors import reference
from tests.vectors.reference import LETTERS, ORDER

KEY, OTHER = KeyPair(bytes(31) + b"\x05"), KeyPair(bytes(31) + b"\x06")
POINT = ecdsa.VerifyingKey.from_string(KEY.public, ecdsa.SECP256k1)
OTHER_CURVE = ecdsa.SigningKey.from_secret_exponent(7, ecdsa.NIST256p)
HASH = sha256(b"message").digest()
SIGNATURE = KEY.sign(HASH)
NO_POINT = b"\x02" + b"\xff" * 32
addresses = st.binary(min_size=20, max_size=20)


# -- hashes, signatures, keys ----------------------------------------------------------------------------------------


@given(st.text(max_size=20), st.lists(st.binary(max_size=40), max_size=4))
def test_digests_separate_their_domains(domain: str, parts: list[bytes]) -> None:
    assert digest(domain, *parts) == reference.digest(domain, *parts) == digest(domain, b"".join(parts))
    assert digest(domain, *parts) != digest(domain + "x", *parts)


@given(st.integers(1, ORDER - 1), st.binary(min_size=32, max_size=32))
def test_signatures_are_those_of_rfc_6979_with_low_s(secret: int, message: bytes) -> None:
    key = KeyPair(secret.to_bytes(32, "big"))
    assert key.public == reference.public_key(key.secret)
    signature = key.sign(message)
    assert signature == reference.sign(key.secret, message)
    assert verify(key.public, message, signature)
    high = signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    assert not verify(key.public, message, high)


@pytest.mark.parametrize(
    ("public", "message", "signature"),
    [
        (KEY.public, HASH, SIGNATURE[:-1]),
        (KEY.public, HASH, SIGNATURE + b"\x00"),
        (KEY.public, HASH, b""),
        (KEY.public, HASH, b"\xff" * 64),
        (KEY.public, HASH[:-1], SIGNATURE),
        (KEY.public, b"", SIGNATURE),
        (b"", HASH, SIGNATURE),
        (NO_POINT, HASH, SIGNATURE),
        (b"\x04" + KEY.public[1:], HASH, SIGNATURE),
        (POINT.to_string("uncompressed"), HASH, SIGNATURE),
    ],
)
def test_bad_input_never_verifies_and_never_raises(public: bytes, message: bytes, signature: bytes) -> None:
    assert not verify(public, message, signature)


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31), b"\x01" * 31, bytes(33), ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_numbers_that_are_no_private_key_are_refused(secret: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - coincurve's own text for some
        KeyPair(secret)


def test_a_key_pair_does_not_show_its_secret() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert KEY.public.hex() in repr(KEY)


@pytest.mark.parametrize("pem", [keys.to_pem(KEY), ecdsa.SigningKey.from_string(KEY.secret, ecdsa.SECP256k1).to_pem()])
def test_private_keys_are_read_from_pkcs8_and_sec1_pem(pem: bytes) -> None:
    assert keys.from_pem(pem).secret == KEY.secret


@pytest.mark.parametrize("pem", [OTHER_CURVE.to_pem(), POINT.to_pem(), b"", b"hello", b"\xff\xfe", keys.to_pem(KEY)[:60]])
def test_other_files_and_other_curves_are_no_private_key(pem: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        keys.from_pem(pem)


@pytest.mark.parametrize("form", [KEY.public, *(POINT.to_string(form) for form in ("raw", "uncompressed", "hybrid"))])
def test_public_keys_are_read_from_every_usual_form(form: bytes) -> None:
    assert keys.public_key_from(form) == keys.public_key_from(form.hex()) == KEY.public
    assert keys.public_key_from(POINT.to_pem().decode()) == KEY.public


@pytest.mark.parametrize(
    "form",
    [b"", NO_POINT, KEY.public[:-1], b"\x04" + b"\x01" * 64, "zz", "-----BEGIN", OTHER_CURVE.verifying_key.to_pem().decode()],
)
def test_what_is_no_point_is_no_public_key(form: bytes | str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several texts
        keys.public_key_from(form)
    assert not is_public_key(form if isinstance(form, bytes) else form.encode())


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = keys.generate()
    keys.write_key_file(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        keys.write_key_file(path, keys.generate())
    assert keys.read_key_file(path).secret == key.secret


def test_a_key_file_is_there_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that ended before would find one without a key, and never start."""
    path, seen = tmp_path / "key.pem", list[bool]()
    monkeypatch.setattr("os.fsync", lambda _: seen.append(path.exists()))
    keys.write_key_file(path, keys.generate())
    assert (seen, list(tmp_path.iterdir())) == ([False], [path])


# -- addresses -------------------------------------------------------------------------------------------------------


@given(addresses)
def test_addresses_are_bech32m(address: bytes) -> None:
    text = encode_address(address)
    assert reference.bech32m("a", b"") == "a1lqfn3a", "a vector of BIP 350"
    assert text == reference.bech32m("spay", address)
    assert decode_address(text) == decode_address(text.upper()) == address


@given(addresses, st.integers(5, 42), st.sampled_from(LETTERS))
def test_a_mistyped_address_is_refused(address: bytes, position: int, letter: str) -> None:
    text = encode_address(address)
    assume(text[position] != letter)
    with pytest.raises(ValueError, match="checksum"):
        decode_address(text[:position] + letter + text[position + 1 :])


ADDRESS = encode_address(bytes(20))
PLAIN_BECH32 = ADDRESS[:-6] + "".join(
    LETTERS[LETTERS.index(c) ^ (0x2BC830A3 >> 5 * (5 - i) & 31) ^ (i == 5)] for i, c in enumerate(ADDRESS[-6:])
)
"""With BIP 173's checksum instead of BIP 350's."""


OTHERS = (" " + ADDRESS, ADDRESS + "\n", ADDRESS[4:], ADDRESS[:4] + ADDRESS[5:], ADDRESS[:-1] + "é", ADDRESS[:-1], ADDRESS + "q")


@pytest.mark.parametrize("text", ["1", PLAIN_BECH32, *OTHERS])
def test_malformed_addresses_are_refused(text: str) -> None:
    """More are in the vectors."""
    with pytest.raises(ValueError, match="address"):
        decode_address(text)
    with pytest.raises(ValueError, match="20 bytes"):
        encode_address(bytes(21))


# -- merkle trees ----------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_roots_are_those_of_rfc_6962(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == reference.root(leaves)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
def test_every_leaf_is_proven_at_its_place_only(size: int) -> None:
    leaves = [bytes([i]) for i in range(size)]
    root = merkle.root(leaves)
    for index, leaf in enumerate(leaves):
        path = merkle.branch(leaves, index).path
        paths = {path, path[:-1], path[1:], (*path, bytes(32)), (bytes(32), *path[1:]), path[::-1]}
        for place in range(size + 2):
            for tried in paths:
                proven = merkle.verify(leaf, merkle.Branch(place, size, tried), root)
                assert proven == (place == index and tried == path)
        assert not merkle.verify(leaf + b"x", merkle.Branch(index, size, path), root)
        assert not merkle.verify(leaf, merkle.Branch(index, size, path), sha256(root).digest())


@pytest.mark.parametrize(("leaves", "index"), [([], 0), ([b"a"], 1), ([b"a"], -1)])
def test_there_is_no_branch_outside_the_tree(leaves: list[bytes], index: int) -> None:
    with pytest.raises(IndexError):
        merkle.branch(leaves, index)


# -- amounts, shards, puzzles ----------------------------------------------------------------------------------------


@given(st.integers(0, MAX_AMOUNT), st.integers(0, 18))
def test_amounts_are_exact_decimals(value: int, decimals: int) -> None:
    text = format_amount(value, decimals)
    assert parse_amount(text, decimals) == value
    whole, point, fraction = text.partition(".")
    assert (len(fraction), point) == (decimals, "." if decimals else "")
    assert int(whole) * 10**decimals + int(fraction or 0) == value
    assert format_amount(-value, decimals) == (f"-{text}" if value else text)
    shortened = text.rstrip("0").rstrip(".") if decimals else text
    assert parse_amount(shortened, decimals) == value
    if decimals and fraction[-1] != "0":
        with pytest.raises(ValueError, match="digits"):
            parse_amount(text, decimals - 1)


@given(st.text("0123456789.-+e, _xn٣\n", max_size=24) | st.integers(MAX_AMOUNT - 3, MAX_AMOUNT + 3).map(str), st.integers(0, 3))
def test_what_reads_as_an_amount_is_written_as_one(text: str, decimals: int) -> None:
    try:
        value = parse_amount(text, decimals)
    except ValueError:
        return
    assert 0 <= value <= MAX_AMOUNT
    assert format_amount(value, decimals).startswith(text)


@given(st.integers(1, 64), addresses)
def test_equal_ranges_cover_the_address_space(count: int, address: bytes) -> None:
    table, ranges = ShardTable(equal_ranges(count)), equal_ranges(count)
    assert table.shards == tuple(range(count))
    assert table.shard_of(address) == max(shard for first, shard in ranges if first <= address)
    widths = [int.from_bytes(b, "big") - int.from_bytes(a, "big") for (a, _), (b, _) in itertools.pairwise(ranges)]
    assert not widths or max(widths) - min(widths) <= 1


def test_ranges_split_at_their_first_address() -> None:
    border = b"\x80" + bytes(19)
    table = ShardTable([(bytes(20), 4), (border, 2)])
    assert [table.shard_of(a) for a in (bytes(20), b"\x7f" + b"\xff" * 19, border, b"\xff" * 20)] == [4, 4, 2, 2]
    assert table.shards == (2, 4)
    assert table.range_of(4) == (bytes(20), b"\x7f" + b"\xff" * 19)
    assert table.range_of(2) == (border, b"\xff" * 20)
    with pytest.raises(ValueError, match="not in"):
        table.range_of(0)


@pytest.mark.parametrize(
    "ranges",
    [[], [(1, 0)], [(0, 0), (1, 0)], [(0, 0), (0, 1)], [(0, 0), (2, 1), (1, 2)]],
    ids=["empty", "a gap", "a shard twice", "a border twice", "descending"],
)
def test_tables_with_gaps_or_overlaps_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="ranges"):
        ShardTable([(bytes([first]) * 20, shard) for first, shard in ranges])


@given(st.binary(max_size=8), st.integers(0, 10))
def test_the_nonce_found_is_the_first_that_solves_the_puzzle(prefix: bytes, bits: int) -> None:
    nonce = search(prefix, bits, 0, 1 << 17)
    assert nonce is not None
    solves: list[Any] = [is_solution(prefix, i.to_bytes(8, "big"), bits) for i in range(int.from_bytes(nonce, "big") + 1)]
    assert solves == [False] * (len(solves) - 1) + [True]
    found = leading_zero_bits(sha256(prefix + nonce).digest())
    assert is_solution(prefix, nonce, found)
    assert not is_solution(prefix, nonce, found + 1)
    assert not is_solution(prefix, nonce + b"\x00", 0)
    assert search(prefix, 64, 0, 10) is None
