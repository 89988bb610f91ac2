"""The vectors in ``tests/vectors`` are what the code makes, what the code judges, and what the second implementation, which knows
nothing but the documents, arrives at."""

from decimal import Decimal
from hashlib import pbkdf2_hmac, sha256
from typing import Any

import base58
import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.client.words import derive
from node.protocol.address import decode_address
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.certificate import Certificate, CertifiedBlock, Electorate, Finality, Vote
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import verify
from node.protocol.epoch import EpochDocument, Opening, SignedRoll, first_document
from node.protocol.genesis import Genesis
from node.protocol.merkle import Branch
from node.protocol.merkle import verify as verify_branch
from node.protocol.puzzle import is_solution
from node.protocol.transaction import decode_transaction
from tests.vectors import reference
from tests.vectors.generate import FOLDER, text, vectors
from tests.vectors.reference import EPOCH, FILES, PARAMETERS, unhex

TAGS = {"Prepare": 1, "PrepareVote": 2, "Decision": 3, "Figures": 4}
LIMIT = 1 << 24


def test_the_files_are_what_the_generator_writes() -> None:
    """Run ``python -m tests.vectors.generate`` after a change of the protocol, and look at what changed."""
    for name, content in vectors().items():
        assert (FOLDER / name).read_text() == text(content), name
    assert {f"{name}.json" for name in FILES} == set(vectors())


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
    if not isinstance(tree, list | dict):
        return []
    inner = [entry for item in (tree.values() if isinstance(tree, dict) else tree) for entry in entries(item)]
    return [tree, *inner] if isinstance(tree, dict) and {"fields", "encoded"} <= tree.keys() else inner


@pytest.mark.parametrize("name", ["transactions", "merkle", "epoch", "votes", "chains", "finality"])
def test_msgpack_reads_the_stated_fields_and_writes_the_stated_bytes(name: str) -> None:
    found = entries(FILES[name])
    assert found
    for entry in found:
        values = msgpack.unpackb(unhex(entry["encoded"]))
        assert (hexed(values), msgpack.packb(values).hex()) == (as_array(entry["fields"]), entry["encoded"])


def test_keys_digests_and_amounts() -> None:
    for entry in FILES["keys"]["valid"]:
        secret, public, address = (unhex(entry[name]) for name in ("secret", "public", "address"))
        assert (public, address) == (reference.public_key(secret), reference.address_of(public))
        assert entry["text"] == reference.bech32m("spay", address)
    for entry in FILES["keys"]["invalid_addresses"]:
        with pytest.raises(ValueError, match="address"):
            decode_address(entry["text"])
    for entry in FILES["digests"]:
        assert unhex(entry["digest"]) == reference.digest(entry["domain"], unhex(entry["data"]))
    amounts = FILES["amounts"]
    for entry in amounts["valid"] + amounts["also valid"]:
        assert int(entry["value"]) == Decimal(entry["text"]).scaleb(entry["decimals"])
    for entry in amounts["valid"]:
        assert format_amount(int(entry["value"]), entry["decimals"]) == entry["text"]
    for entry in amounts["invalid"]:
        with pytest.raises(ValueError, match=r"amount|digits"):
            parse_amount(entry["text"], entry["decimals"])


def test_signatures() -> None:
    secrets = {entry["public"]: unhex(entry["secret"]) for entry in FILES["keys"]["valid"]}
    for entry in FILES["signatures"]:
        public, message, signature = (unhex(entry[name]) for name in ("public", "hash", "signature"))
        assert verify(public, message, signature) == reference.verify(public, message, signature) == entry["valid"], entry["why"]
        assert (signature == reference.sign(secrets[entry["public"]], message)) == entry["valid"], entry["why"]


def test_merkle_trees() -> None:
    for tree in FILES["merkle"]:
        leaves, root = [unhex(leaf) for leaf in tree["leaves"]], unhex(tree["root"])
        assert reference.root(leaves) == root
        for leaf, entry in zip(leaves, tree["branches"], strict=True):
            branch = decode(Branch, unhex(entry["encoded"]), LIMIT)
            assert verify_branch(leaf, branch, root)
            assert reference.branch_root(leaf, branch.index, branch.size, list(branch.path)) == root


def test_puzzles() -> None:
    puzzles = FILES["puzzles"]
    place = [unhex(puzzles["network"]), puzzles["epoch"], unhex(puzzles["challenge"])]
    for entry in puzzles["identity"]:
        prefix, nonce, bits = unhex(entry["prefix"]), unhex(entry["nonce"]), entry["bits"]
        assert prefix == reference.digest("identity puzzle", [*place, unhex(entry["public"])])
        solves = int.from_bytes(sha256(prefix + nonce).digest(), "big") >> 256 - bits == 0
        assert is_solution(prefix, nonce, bits) == solves == entry["valid"]
    work = sha256(unhex(puzzles["block"]["mining_prefix"]) + unhex(puzzles["block"]["nonce"])).digest()
    assert int.from_bytes(work, "big") >> 256 - puzzles["block"]["bits"] == 0


def test_transactions() -> None:
    for entry in FILES["transactions"]["valid"]:
        assert decode_transaction(unhex(entry["encoded"])).has_valid_signatures()
        order, witnesses = msgpack.unpackb(unhex(entry["encoded"]))
        transaction_id = reference.digest("transaction", order)
        assert transaction_id.hex() == entry["id"]
        assert all(reference.verify(public, transaction_id, signature) for public, signature in witnesses)
        assert [reference.address_of(public) for public, _ in witnesses] == list(dict.fromkeys(leg[0] for leg in order[1]))


def test_words_become_the_stated_keys() -> None:
    signing = FILES["signing"]
    for entry in signing["words"]:
        seed = pbkdf2_hmac("sha512", entry["words"].encode(), b"mnemonic", 2048)
        secret = reference.derived(seed, signing["path"])
        public = reference.public_key(secret)
        address = reference.bech32m("spay", reference.address_of(public))
        assert (seed.hex(), secret.hex(), public.hex(), address) == tuple(
            entry[name] for name in ("seed", "secret", "public", "address")
        )
    kept = signing["key_file"]
    opened = load_pem_private_key(kept["pem"].encode(), kept["passphrase"].encode())
    assert isinstance(opened, EllipticCurvePrivateKey)
    assert opened.private_numbers().private_value == int(kept["secret"], 16)


def test_derivation_is_the_standards() -> None:
    """BIP-32, test vector 1."""
    seed, path = bytes(range(16)), "m/0'/1/2'/2/1000000000"
    extended = "xprvA41z7zogVVwxVSgdKUHDy1SKmdb533PjDz7J6N6mV6uS3ze1ai8FHa8kmHScGpWmj4WggLyQjgPie1rFSruoUihUZREPSL39UNdE3BBDu76"
    secret = base58.b58decode_check(extended)[-32:]
    assert derive(seed, path).secret == reference.derived(seed, path) == secret


def test_what_a_wallet_elsewhere_signs() -> None:
    for entry in FILES["signing"]["ownership"]:
        signed = reference.digest("wallet-ownership", unhex(entry["network"]) + entry["user"].encode())
        assert (signed.hex(), reference.sign(unhex(entry["secret"]), signed).hex()) == (entry["hash"], entry["signature"])
    for entry in FILES["signing"]["payments"]:
        secret = unhex(entry["secret"])
        public = reference.public_key(secret)
        payer, payee, issuer = (decode_address(entry[name]) for name in ("payer", "payee", "issuer"))
        amount, fee = (int(Decimal(entry[name]).scaleb(entry["decimals"])) for name in ("amount", "fee"))
        legs = [[payer, payee, entry["asset"], amount, 0]] + ([[payer, issuer, entry["asset"], fee, 0]] if fee else [])
        order = [unhex(entry["network"]), legs, entry["memo"], entry["valid_until"], unhex(entry["salt"])]
        transaction_id = reference.digest("transaction", order)
        signature = reference.sign(secret, transaction_id)
        made = (msgpack.packb(order), transaction_id, signature, msgpack.packb([order, [[public, signature]]]))
        assert tuple(part.hex() for part in made) == tuple(entry[n] for n in ("order", "id", "signature", "transaction"))


@pytest.mark.parametrize("entry", FILES["transactions"]["invalid"], ids=lambda entry: entry["name"])
def test_invalid_transactions(entry: dict[str, str]) -> None:
    try:
        code = Code.OK if decode_transaction(unhex(entry["encoded"])).has_valid_signatures() else Code.BAD_SIGNATURE
    except DecodeError:
        code = Code.MALFORMED
    assert code == entry["code"]


def electorate_of(entry: dict[str, Any]) -> Electorate:
    return Electorate(unhex(entry["network"]), unhex(entry["document"]), entry["shard"], tuple(map(unhex, entry["keys"])))


JUDGED: list[tuple[str, str, Any, Any]] = [
    ("votes", "votes", Vote, reference.is_vote),
    ("votes", "certificates", Certificate, reference.is_certificate),
    ("finality", "certified_blocks", CertifiedBlock, reference.is_block),
    ("finality", "certified_bundles", CertifiedBundle, reference.is_bundle),
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
        assert "statement" not in entry or unhex(entry["statement"]) == reference.statement(plain, *values[:3])


def test_finality() -> None:
    proofs = FILES["finality"]
    plain, header = proofs["electorate"], unhex(proofs["header"])
    block = decode(CertifiedBlock, unhex(proofs["certified_blocks"][0]["encoded"]), LIMIT).block
    for entry in proofs["proofs"]:
        data = unhex(entry["encoded"])
        proven = decode(Finality, data, LIMIT).proves(block.header, electorate_of(plain))
        final = reference.is_final(plain, msgpack.unpackb(header), msgpack.unpackb(data))
        assert proven == final == entry["valid"], entry["name"]


@pytest.mark.parametrize("chain", FILES["chains"], ids=lambda chain: f"shard {chain['electorate']['shard']}")
def test_chains_are_valid_and_executing_them_gives_their_roots_and_bundles(chain: dict[str, Any]) -> None:
    plain, sent, hashes = chain["electorate"], [], [unhex(chain["genesis_header"]["hash"])]
    electorate, ledger, parent = electorate_of(plain), reference.Ledger(plain["shard"]), unhex(chain["genesis_header"]["hash"])
    for height, entry in enumerate(chain["blocks"], 1):
        data, encoded_header = unhex(entry["certified_block"]), unhex(entry["header"]["encoded"])
        assert decode(CertifiedBlock, data, LIMIT).is_valid(electorate)
        certified = msgpack.unpackb(data)
        assert reference.is_block(plain, certified)
        (header, bundles, transactions, _), _, effects = certified
        assert msgpack.packb(header) == encoded_header
        block_hash = reference.digest("block", header)
        prefix = unhex(entry["header"]["mining_prefix"])
        assert block_hash == unhex(entry["header"]["hash"]) == sha256(prefix + encoded_header[-8:]).digest()
        assert 256 - int.from_bytes(block_hash, "big").bit_length() == entry["header"]["leading_zero_bits"] >= 4
        assert (header[3], header[4], hexed(effects)) == (height, parent, as_array(entry["effects"]))
        assert header[5] == hashes[reference.skipped(height)]
        hashes.append(block_hash)
        roots, outbox = ledger.execute(height, header[6], [msgpack.unpackb(bundle)[0] for bundle in bundles], transactions)
        assert roots == header[9:15], f"height {height}"
        sent += outbox
        parent = block_hash
    for entry, bundle in zip(chain["bundles"], sent, strict=True):
        certified = msgpack.unpackb(unhex(entry["encoded"]))
        assert certified[0] == bundle
        assert decode(CertifiedBundle, unhex(entry["encoded"]), LIMIT).is_valid(electorate)
        assert reference.is_bundle(plain, certified)
    assert len(chain["blocks"]) >= 2 * PARAMETERS["checkpoint_interval"], "else no header has the root of any rows"


def test_the_epoch_follows_from_roll_and_secrets() -> None:
    genesis, verify = EPOCH["genesis"], reference.verify
    coordinator = unhex(genesis["coordinator"])
    registrations = [unhex(entry["encoded"]) for entry in EPOCH["registrations"]]
    secrets = {unhex(entry["public"]): unhex(entry["secret"]) for entry in EPOCH["secrets"]}
    for row in map(msgpack.unpackb, registrations):
        assert verify(row[3], reference.digest("registration", row[:-1]), row[-1])
    document = reference.epoch_of(genesis, registrations, secrets)
    assert document[3][:8].hex() == EPOCH["network"]
    assert (document[3].hex(), msgpack.packb(document).hex()) == (EPOCH["genesis_hash"], EPOCH["document"]["encoded"])
    silent = unhex(EPOCH["document_without_a_secret"]["encoded"])
    (left_out,) = msgpack.unpackb(silent)[7]
    fewer = {public: secret for public, secret in secrets.items() if public != left_out[3]}
    assert msgpack.packb(reference.epoch_of(genesis, registrations, fewer)) == silent
    document_hash = reference.digest("epoch document", document)
    assert document_hash.hex() == EPOCH["document_hash"]
    assert reference.digest("network", document[3], document_hash)[:16].hex() == EPOCH["network_id"]
    assert verify(coordinator, document_hash, msgpack.unpackb(unhex(EPOCH["signed_document"]))[2])
    assert verify(coordinator, unhex(EPOCH["roll_hash"]), msgpack.unpackb(unhex(EPOCH["signed_roll"]))[2])
    for committee, (signers, signatures) in zip(document[5], msgpack.unpackb(unhex(EPOCH["opening"]))[2], strict=True):
        for signer, signature in zip(signers, signatures, strict=True):
            assert verify(committee[2][signer][3], reference.digest("readiness", document_hash), signature)
    assert all(reference.VECTORS.shard_of(unhex(address)) == shard for address, shard in EPOCH["shard_of"].items())

    known = msgspec.convert(genesis, Genesis)
    roll = decode(SignedRoll, unhex(EPOCH["signed_roll"]), LIMIT)
    roll.check(known)
    assert {encode(registration) for registration in roll.roll.registrations} == set(registrations)
    assert first_document(known, roll.roll, secrets) == decode(EpochDocument, unhex(EPOCH["document"]["encoded"]), LIMIT)
    decode(Opening, unhex(EPOCH["opening"]), LIMIT).check(known)
