"""The vectors in ``tests/vectors`` are what the code makes, what the code judges, and what an implementation that knows nothing
but their README, ``hashlib``, ``ecdsa`` and ``msgpack`` arrives at."""

import json
from hashlib import sha256
from typing import Any

import ecdsa
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
from tests.vectors.generate import FOLDER, text, vectors

FILES: dict[str, Any] = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
TAGS = {"Prepare": 1, "PrepareVote": 2, "Decision": 3}
LIMIT = 1 << 24


def unhex(value: str) -> bytes:
    return bytes.fromhex(value)


def test_the_files_are_what_the_generator_writes() -> None:
    """Run ``python -m tests.vectors.generate`` after a change of the protocol, and look at what changed."""
    for name, content in vectors().items():
        assert (FOLDER / name).read_text() == text(content), name
    assert set(FILES) == set(vectors())


# -- an implementation from the README, with other libraries ---------------------------------------------------------


def readme_digest(domain: str, *parts: bytes) -> bytes:
    return sha256(sha256(b"shardpay/" + domain.encode()).digest() + b"".join(parts)).digest()


def readme_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    order = ecdsa.SECP256k1.order
    if int.from_bytes(signature[32:], "big") > order // 2:
        return False
    try:
        return bool(ecdsa.VerifyingKey.from_string(public, ecdsa.SECP256k1).verify_digest(signature, message))
    except (ecdsa.BadSignatureError, ecdsa.keys.BadDigestError):
        return False


def readme_root(leaves: list[bytes]) -> bytes:
    if len(leaves) <= 1:
        return sha256(b"\x00" + leaves[0] if leaves else b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + readme_root(leaves[:split]) + readme_root(leaves[split:])).digest()


def readme_branch_root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that a branch leads to, from the top down."""
    if size == 1:
        assert not path
        return sha256(b"\x00" + leaf).digest()
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return sha256(b"\x01" + readme_branch_root(leaf, index, split, path[:-1]) + path[-1]).digest()
    return sha256(b"\x01" + path[-1] + readme_branch_root(leaf, index - split, size - split, path[:-1])).digest()


def readme_certificate(electorate: dict[str, Any], certificate: list[Any]) -> bool:
    kind, view, block, signers, signatures = certificate
    statement = readme_statement(electorate, kind, view, block)
    return (
        len(signers) == len(signatures) == electorate["quorum"]
        and signers == sorted(set(signers))
        and signers[-1] < len(electorate["keys"])
        and all(readme_verify(unhex(electorate["keys"][i]), statement, s) for i, s in zip(signers, signatures, strict=True))
    )


def readme_statement(electorate: dict[str, Any], kind: int, view: int, block: bytes) -> bytes:
    place = [unhex(electorate["network"]), electorate["shard"], electorate["epoch"]]
    return readme_digest("vote", msgpack.packb([*place, kind, view, block]))


def readme_final(electorate: dict[str, Any], header: list[Any], finality: list[Any]) -> bool:
    descendants, certificate = finality
    if header[:3] != [unhex(electorate["network"]), electorate["shard"], electorate["epoch"]]:
        return False
    for child in descendants:
        if child[5] != readme_digest("block", msgpack.packb(header)):
            return False
        header = child
    kind, view, block = certificate[:3]
    hash = readme_digest("block", msgpack.packb(header))
    return (kind, view, block) == (3, header[3], hash) and readme_certificate(electorate, certificate)


def readme_block(electorate: dict[str, Any], certified: list[Any]) -> bool:
    (header, bundles, transactions), finality, (receipts, changes, totals) = certified
    return (
        readme_final(electorate, header, finality)
        and header[8] == readme_root([readme_root(bundles), readme_root(transactions)])
        and header[9] == readme_root([msgpack.packb(receipt) for receipt in receipts])
        and header[11] == readme_digest("changes", msgpack.packb(changes))
        and header[12] == readme_digest("totals", msgpack.packb(totals))
    )


def readme_bundle(electorate: dict[str, Any], certified: list[Any]) -> bool:
    bundle, header, finality, (index, size, path) = certified
    try:
        root = readme_branch_root(msgpack.packb(bundle), index, size, path)
    except (AssertionError, IndexError):
        return False
    return bundle[0] == header[1] and readme_final(electorate, header, finality) and header[10] == root


def readme_array(fields: Any) -> Any:
    """What ``fields`` says about the encoded bytes: an object is the array of its values, a type's name is its tag."""
    if isinstance(fields, dict):
        return [TAGS[value] if name == "type" else readme_array(value) for name, value in fields.items()]
    return [readme_array(item) for item in fields] if isinstance(fields, list) else fields


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


@pytest.mark.parametrize("name", FILES)
def test_msgpack_reads_the_stated_fields_and_writes_the_stated_bytes(name: str) -> None:
    for entry in entries(FILES[name]):
        data = unhex(entry["encoded"])
        values = msgpack.unpackb(data)
        assert hexed(values) == readme_array(entry["fields"])
        assert msgpack.packb(values) == data


def test_there_is_something_to_read() -> None:
    assert {name: len(entries(content)) for name, content in FILES.items() if entries(content)}.keys() >= {
        "transactions.json",
        "merkle.json",
        "epoch.json",
        "votes.json",
        "chains.json",
        "finality.json",
    }


# -- keys, signatures, numbers ---------------------------------------------------------------------------------------


def test_keys() -> None:
    for entry in FILES["keys.json"]["valid"]:
        other = ecdsa.SigningKey.from_string(unhex(entry["secret"]), ecdsa.SECP256k1).verifying_key.to_string("compressed")
        assert entry["public"] == other.hex() == KeyPair(unhex(entry["secret"])).public.hex()
        assert entry["address"] == sha256(other).digest()[:20].hex()
        assert encode_address(unhex(entry["address"])) == entry["text"]
        assert decode_address(entry["text"]).hex() == entry["address"]
    for entry in FILES["keys.json"]["invalid_addresses"]:
        with pytest.raises(ValueError, match="address"):
            decode_address(entry["text"])


def test_signatures() -> None:
    secrets = {entry["public"]: entry["secret"] for entry in FILES["keys.json"]["valid"]}
    for entry in FILES["signatures.json"]:
        public, message, signature = (unhex(entry[name]) for name in ("public", "hash", "signature"))
        assert verify(public, message, signature) == readme_verify(public, message, signature) == entry["valid"], entry["why"]
        if entry["valid"]:
            signer = ecdsa.SigningKey.from_string(unhex(secrets[entry["public"]]), ecdsa.SECP256k1)
            made = signer.sign_digest_deterministic(message, sha256, ecdsa.util.sigencode_string_canonize)
            assert made == signature


def test_digests() -> None:
    for entry in FILES["digests.json"]:
        data = unhex(entry["data"])
        assert digest(entry["domain"], data) == readme_digest(entry["domain"], data) == unhex(entry["digest"])


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
        assert readme_root(leaves) == root
        for leaf, entry in zip(leaves, tree["branches"], strict=True):
            branch = decode(Branch, unhex(entry["encoded"]), LIMIT)
            assert verify_branch(leaf, branch, root)
            assert readme_branch_root(leaf, branch.index, branch.size, list(branch.path)) == root
            assert not verify_branch(leaf + b"x", branch, root)


def test_puzzles() -> None:
    puzzles = FILES["puzzles.json"]
    place = [unhex(puzzles["network"]), puzzles["epoch"], unhex(puzzles["challenge"])]
    for entry in puzzles["identity"]:
        prefix, nonce, bits = unhex(entry["prefix"]), unhex(entry["nonce"]), entry["bits"]
        assert prefix == readme_digest("identity puzzle", msgpack.packb([*place, unhex(entry["public"])]))
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
        id = readme_digest("transaction", msgpack.packb(order))
        assert id == transaction.id == unhex(entry["id"])
        assert all(readme_verify(public, id, signature) for public, signature in witnesses)
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


def test_votes_and_certificates() -> None:
    votes = FILES["votes.json"]
    electorate = electorate_of(votes["electorate"])
    assert electorate.quorum == votes["electorate"]["quorum"] == len(electorate.keys) - (len(electorate.keys) - 1) // 3
    for entry in votes["votes"]:
        assert decode(Vote, unhex(entry["encoded"]), LIMIT).is_valid(electorate) == entry["valid"], entry["name"]
        kind, view, block, signer, signature = msgpack.unpackb(unhex(entry["encoded"]))
        statement = readme_statement(votes["electorate"], kind, view, block)
        known = signer < len(electorate.keys)
        assert (known and readme_verify(electorate.keys[signer], statement, signature)) == entry["valid"]
        assert unhex(entry.get("statement", statement.hex())) == statement
    for entry in votes["certificates"]:
        data = unhex(entry["encoded"])
        assert decode(Certificate, data, LIMIT).is_valid(electorate) == entry["valid"], entry["name"]
        assert readme_certificate(votes["electorate"], msgpack.unpackb(data)) == entry["valid"], entry["name"]


def test_chains() -> None:
    for chain in FILES["chains.json"]:
        electorate = electorate_of(chain["electorate"])
        parent = unhex(chain["genesis_header"]["hash"])
        for height, entry in enumerate(chain["blocks"], 1):
            data, header = unhex(entry["certified_block"]), unhex(entry["header"]["encoded"])
            assert decode(CertifiedBlock, data, LIMIT).is_valid(electorate)
            certified = msgpack.unpackb(data)
            assert readme_block(chain["electorate"], certified)
            assert msgpack.packb(certified[0][0]) == header
            hash = readme_digest("block", header)
            prefix = unhex(entry["header"]["mining_prefix"])
            assert hash == unhex(entry["header"]["hash"]) == sha256(prefix + header[-8:]).digest()
            assert 256 - int.from_bytes(hash, "big").bit_length() == entry["header"]["leading_zero_bits"] >= 4
            assert (certified[0][0][4], certified[0][0][5]) == (height, parent)
            assert hexed(certified[2]) == readme_array(entry["effects"])
            parent = hash
        for entry in chain["bundles"]:
            data = unhex(entry["encoded"])
            assert decode(CertifiedBundle, data, LIMIT).is_valid(electorate)
            assert readme_bundle(chain["electorate"], msgpack.unpackb(data))


def test_finality() -> None:
    proofs = FILES["finality.json"]
    electorate, plain = electorate_of(proofs["electorate"]), proofs["electorate"]
    block = decode(CertifiedBlock, unhex(proofs["certified_blocks"][0]["encoded"]), LIMIT)
    for entry in proofs["proofs"]:
        data = unhex(entry["encoded"])
        assert decode(Finality, data, LIMIT).proves(block.block.header, electorate) == entry["valid"], entry["name"]
        assert readme_final(plain, msgpack.unpackb(unhex(proofs["header"])), msgpack.unpackb(data)) == entry["valid"], entry[
            "name"
        ]
    for entry in proofs["certified_blocks"]:
        data = unhex(entry["encoded"])
        assert decode(CertifiedBlock, data, LIMIT).is_valid(electorate) == entry["valid"], entry["name"]
        assert readme_block(plain, msgpack.unpackb(data)) == entry["valid"], entry["name"]
    for entry in proofs["certified_bundles"]:
        data = unhex(entry["encoded"])
        assert decode(CertifiedBundle, data, LIMIT).is_valid(electorate) == entry["valid"], entry["name"]
        assert readme_bundle(plain, msgpack.unpackb(data)) == entry["valid"], entry["name"]


# -- the epoch -------------------------------------------------------------------------------------------------------


def test_the_epoch_document_follows_from_the_registrations() -> None:
    epoch = FILES["epoch.json"]
    genesis = json.loads(json.dumps(epoch["genesis"]))
    plain = [genesis["name"], genesis["time"], genesis["coordinator"], genesis["assets"], genesis["parameters"]]
    challenge = readme_digest("genesis", msgpack.packb(plain))
    assert challenge == unhex(epoch["genesis_hash"])
    assert challenge[:8] == unhex(epoch["network"])
    registrations = [unhex(entry["encoded"]) for entry in epoch["registrations"]]
    hashes = sorted(sha256(data).digest() for data in registrations)
    randomness = readme_digest("randomness", challenge, *hashes)
    rows = [msgpack.unpackb(data) for data in registrations]
    for row in rows:
        assert readme_verify(row[2], readme_digest("registration", msgpack.packb(row[:-1])), row[-1])
    seated = sorted(rows, key=lambda row: readme_digest("seat", randomness, row[2]))
    size = genesis["parameters"]["committee_size"]
    count = min(genesis["parameters"]["committees"], len(rows) // size)
    committees = [[i, (i * 2**160 // count).to_bytes(20, "big"), seated[i * size : (i + 1) * size]] for i in range(count)]
    document = msgpack.packb([challenge[:8], 1, challenge, randomness, committees, seated[count * size :]])
    assert document == unhex(epoch["document"]["encoded"])
    assert readme_digest("epoch document", document) == unhex(epoch["document_hash"])
    signed = msgpack.unpackb(unhex(epoch["signed_document"]))
    assert readme_verify(unhex(genesis["coordinator"]), unhex(epoch["document_hash"]), signed[1])
    for address, shard in epoch["shard_of"].items():
        assert max(c[0] for c in committees if c[1] <= unhex(address)) == shard


def test_the_code_agrees_on_the_epoch() -> None:
    epoch = FILES["epoch.json"]
    genesis = json.dumps(epoch["genesis"]).encode()
    known = msgspec.json.decode(genesis, type=Genesis)
    assert known.hash == unhex(epoch["genesis_hash"])
    registrations = [decode(Registration, unhex(entry["encoded"]), LIMIT) for entry in epoch["registrations"]]
    document = first_document(known, registrations[::-1])
    assert document == decode(EpochDocument, unhex(epoch["document"]["encoded"]), LIMIT)
    decode(SignedDocument, unhex(epoch["signed_document"]), LIMIT).check(known)
