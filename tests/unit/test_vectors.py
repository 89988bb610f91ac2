"""The vectors in ``tests/vectors`` are what the code makes, what the code judges, and what another implementation, which knows
nothing but their README, arrives at."""

import json
from hashlib import sha256
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest

from node.protocol.address import decode_address, encode_address
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.certificate import Certificate, CertifiedBlock, Electorate, Finality, Vote
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError, decode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair, digest, verify
from node.protocol.epoch import EpochDocument, Registration, SignedDocument, first_document
from node.protocol.genesis import Genesis
from node.protocol.merkle import Branch
from node.protocol.merkle import verify as verify_branch
from node.protocol.puzzle import is_solution
from node.protocol.transaction import decode_transaction
from tests.vectors import reference
from tests.vectors.generate import FOLDER, text, vectors
from tests.vectors.reference import unhex

FILES: dict[str, Any] = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
TAGS = {"Prepare": 1, "PrepareVote": 2, "Decision": 3}
LIMIT = 1 << 24


def test_the_files_are_what_the_generator_writes() -> None:
    """Run ``python -m tests.vectors.generate`` after a change of the protocol, and look at what changed."""
    for name, content in vectors().items():
        assert (FOLDER / name).read_text() == text(content), name
    assert set(FILES) == set(vectors())


def as_array(fields: Any) -> Any:
    """What ``fields`` says about the encoded bytes: an object is the array of its values, a type's name is its tag."""
    if isinstance(fields, dict):
        return [TAGS[value] if name == "type" else as_array(value) for name, value in fields.items()]
    return [as_array(item) for item in fields] if isinstance(fields, list) else fields


def hexed(value: Any) -> Any:
    if isinstance(value, list):
        return [hexed(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def entries(tree: Any) -> list[dict[str, Any]]:
    """Every {"fields": ..., "encoded": ...} in a file."""
    if isinstance(tree, list):
        return [entry for item in tree for entry in entries(item)]
    if not isinstance(tree, dict):
        return []
    inner = [entry for item in tree.values() for entry in entries(item)]
    return [tree, *inner] if {"fields", "encoded"} <= tree.keys() else inner


@pytest.mark.parametrize("name", ["transactions", "merkle", "epoch", "votes", "chains", "finality"])
def test_msgpack_reads_the_stated_fields_and_writes_the_stated_bytes(name: str) -> None:
    found = entries(FILES[f"{name}.json"])
    assert found
    for entry in found:
        data = unhex(entry["encoded"])
        values = msgpack.unpackb(data)
        assert hexed(values) == as_array(entry["fields"])
        assert msgpack.packb(values) == data


# -- keys, signatures, numbers ---------------------------------------------------------------------------------------


def test_keys() -> None:
    for entry in FILES["keys.json"]["valid"]:
        secret, public, address = (unhex(entry[name]) for name in ("secret", "public", "address"))
        assert public == reference.public_key(secret) == KeyPair(secret).public
        assert address == sha256(public).digest()[:20] == decode_address(entry["text"])
        assert entry["text"] == reference.bech32m("spay", address) == encode_address(address)
    for entry in FILES["keys.json"]["invalid_addresses"]:
        with pytest.raises(ValueError, match="address"):
            decode_address(entry["text"])


def test_signatures() -> None:
    secrets = {entry["public"]: unhex(entry["secret"]) for entry in FILES["keys.json"]["valid"]}
    for entry in FILES["signatures.json"]:
        public, message, signature = (unhex(entry[name]) for name in ("public", "hash", "signature"))
        assert verify(public, message, signature) == reference.verify(public, message, signature) == entry["valid"], entry["why"]
        assert (signature == reference.sign(secrets[entry["public"]], message)) == entry["valid"], entry["why"]


def test_digests() -> None:
    for entry in FILES["digests.json"]:
        domain, data = entry["domain"], unhex(entry["data"])
        assert digest(domain, data) == reference.digest(domain, data) == unhex(entry["digest"])


def test_amounts() -> None:
    amounts = FILES["amounts.json"]
    for entry in amounts["valid"] + amounts["also valid"]:
        assert parse_amount(entry["text"], entry["decimals"]) == int(entry["value"])
    for entry in amounts["valid"]:
        assert format_amount(int(entry["value"]), entry["decimals"]) == entry["text"]
    for entry in amounts["invalid"]:
        with pytest.raises(ValueError, match=r"amount|digits"):
            parse_amount(entry["text"], entry["decimals"])


def test_merkle_trees() -> None:
    for tree in FILES["merkle.json"]:
        leaves, root = [unhex(leaf) for leaf in tree["leaves"]], unhex(tree["root"])
        assert reference.root(leaves) == root
        for leaf, entry in zip(leaves, tree["branches"], strict=True):
            branch = decode(Branch, unhex(entry["encoded"]), LIMIT)
            assert verify_branch(leaf, branch, root)
            assert reference.branch_root(leaf, branch.index, branch.size, list(branch.path)) == root


def test_puzzles() -> None:
    puzzles = FILES["puzzles.json"]
    place = [unhex(puzzles["network"]), puzzles["epoch"], unhex(puzzles["challenge"])]
    for entry in puzzles["identity"]:
        prefix, nonce, bits = unhex(entry["prefix"]), unhex(entry["nonce"]), entry["bits"]
        assert prefix == reference.digest("identity puzzle", msgpack.packb([*place, unhex(entry["public"])]))
        assert is_solution(prefix, nonce, bits) == entry["valid"]
        assert (int.from_bytes(sha256(prefix + nonce).digest(), "big") >> 256 - bits == 0) == entry["valid"]
    block = puzzles["block"]
    work = sha256(unhex(block["mining_prefix"]) + unhex(block["nonce"])).digest()
    assert int.from_bytes(work, "big") >> 256 - block["bits"] == 0


# -- transactions ----------------------------------------------------------------------------------------------------


def test_transactions() -> None:
    for entry in FILES["transactions.json"]["valid"]:
        transaction = decode_transaction(unhex(entry["encoded"]))
        assert transaction.has_valid_signatures()
        order, witnesses = msgpack.unpackb(unhex(entry["encoded"]))
        transaction_id = reference.digest("transaction", msgpack.packb(order))
        assert transaction_id == transaction.id == unhex(entry["id"])
        assert all(reference.verify(public, transaction_id, signature) for public, signature in witnesses)
        payers = list(dict.fromkeys(leg[0] for leg in order[1]))
        assert [sha256(public).digest()[:20] for public, _ in witnesses] == payers


@pytest.mark.parametrize("entry", FILES["transactions.json"]["invalid"], ids=lambda entry: entry["name"])
def test_invalid_transactions(entry: dict[str, str]) -> None:
    try:
        transaction = decode_transaction(unhex(entry["encoded"]))
    except DecodeError:
        assert entry["code"] == Code.MALFORMED
    else:
        assert not transaction.has_valid_signatures()
        assert entry["code"] == Code.BAD_SIGNATURE


# -- votes, blocks, proofs -------------------------------------------------------------------------------------------


def electorate_of(entry: dict[str, Any]) -> Electorate:
    return Electorate(unhex(entry["network"]), entry["shard"], entry["epoch"], tuple(map(unhex, entry["keys"])))


JUDGED: list[tuple[str, str, Any, Any]] = [
    ("votes.json", "votes", Vote, reference.is_vote),
    ("votes.json", "certificates", Certificate, reference.is_certificate),
    ("finality.json", "certified_blocks", CertifiedBlock, reference.is_block),
    ("finality.json", "certified_bundles", CertifiedBundle, reference.is_bundle),
]


@pytest.mark.parametrize(("file", "part", "kind", "check"), JUDGED, ids=[part for _, part, _, _ in JUDGED])
def test_verdicts(file: str, part: str, kind: Any, check: Any) -> None:
    plain = FILES[file]["electorate"]
    electorate = electorate_of(plain)
    assert electorate.quorum == plain["quorum"] == len(electorate.keys) - (len(electorate.keys) - 1) // 3
    for entry in FILES[file][part]:
        data = unhex(entry["encoded"])
        values = msgpack.unpackb(data)
        assert decode(kind, data, LIMIT).is_valid(electorate) == check(plain, values) == entry["valid"], entry["name"]
        if "statement" in entry:
            assert unhex(entry["statement"]) == reference.statement(plain, *values[:3])


def test_finality() -> None:
    proofs = FILES["finality.json"]
    electorate, plain, header = electorate_of(proofs["electorate"]), proofs["electorate"], unhex(proofs["header"])
    block = decode(CertifiedBlock, unhex(proofs["certified_blocks"][0]["encoded"]), LIMIT)
    for entry in proofs["proofs"]:
        data = unhex(entry["encoded"])
        proven = decode(Finality, data, LIMIT).proves(block.block.header, electorate)
        final = reference.is_final(plain, msgpack.unpackb(header), msgpack.unpackb(data))
        assert proven == final == entry["valid"], entry["name"]


@pytest.mark.parametrize("chain", FILES["chains.json"], ids=lambda chain: f"shard {chain['electorate']['shard']}")
def test_chains(chain: dict[str, Any]) -> None:
    electorate, plain = electorate_of(chain["electorate"]), chain["electorate"]
    parent = unhex(chain["genesis_header"]["hash"])
    for height, entry in enumerate(chain["blocks"], 1):
        data, header = unhex(entry["certified_block"]), unhex(entry["header"]["encoded"])
        assert decode(CertifiedBlock, data, LIMIT).is_valid(electorate)
        certified = msgpack.unpackb(data)
        assert reference.is_block(plain, certified)
        assert msgpack.packb(certified[0][0]) == header
        block_hash = reference.digest("block", header)
        prefix = unhex(entry["header"]["mining_prefix"])
        assert block_hash == unhex(entry["header"]["hash"]) == sha256(prefix + header[-8:]).digest()
        assert 256 - int.from_bytes(block_hash, "big").bit_length() == entry["header"]["leading_zero_bits"] >= 4
        assert (certified[0][0][4], certified[0][0][5]) == (height, parent)
        assert hexed(certified[2]) == as_array(entry["effects"])
        parent = block_hash
    for entry in chain["bundles"]:
        data = unhex(entry["encoded"])
        assert decode(CertifiedBundle, data, LIMIT).is_valid(electorate)
        assert reference.is_bundle(plain, msgpack.unpackb(data))


# -- the epoch -------------------------------------------------------------------------------------------------------


def test_the_epoch_document_follows_from_the_registrations() -> None:
    epoch, verify, digest = FILES["epoch.json"], reference.verify, reference.digest
    genesis = epoch["genesis"]
    challenge = digest("genesis", msgpack.packb(list(genesis.values())))
    assert challenge == unhex(epoch["genesis_hash"])
    assert challenge[:8] == unhex(epoch["network"])
    registrations = [unhex(entry["encoded"]) for entry in epoch["registrations"]]
    randomness = digest("randomness", challenge, *sorted(sha256(data).digest() for data in registrations))
    rows = [msgpack.unpackb(data) for data in registrations]
    for row in rows:
        assert verify(row[2], digest("registration", msgpack.packb(row[:-1])), row[-1])
    seated = sorted(rows, key=lambda row: digest("seat", randomness, row[2]))
    size = genesis["parameters"]["committee_size"]
    count = min(genesis["parameters"]["committees"], len(rows) // size)
    committees = [[i, (i * 2**160 // count).to_bytes(20, "big"), seated[i * size : (i + 1) * size]] for i in range(count)]
    document = msgpack.packb([challenge[:8], 1, challenge, randomness, committees, seated[count * size :]])
    assert document == unhex(epoch["document"]["encoded"])
    assert digest("epoch document", document) == unhex(epoch["document_hash"])
    signed = msgpack.unpackb(unhex(epoch["signed_document"]))
    assert verify(unhex(genesis["coordinator"]), unhex(epoch["document_hash"]), signed[1])
    for address, shard in epoch["shard_of"].items():
        assert max(c[0] for c in committees if c[1] <= unhex(address)) == shard


def test_the_code_agrees_on_the_epoch() -> None:
    epoch = FILES["epoch.json"]
    known = msgspec.json.decode(json.dumps(epoch["genesis"]), type=Genesis)
    assert known.hash == unhex(epoch["genesis_hash"])
    registrations = [decode(Registration, unhex(entry["encoded"]), LIMIT) for entry in epoch["registrations"]]
    document = first_document(known, registrations[::-1])
    assert document == decode(EpochDocument, unhex(epoch["document"]["encoded"]), LIMIT)
    decode(SignedDocument, unhex(epoch["signed_document"]), LIMIT).check(known)
