"""Writes the vectors in this folder, the same bytes each time: ``python -m tests.vectors.generate``.

``README.md`` says what is in them.

``vectors()`` gives them without writing, for the test that holds the files against the code.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from mnemonic import Mnemonic
from msgspec import Struct, structs, to_builtins

from gateway.client.orders import order_of
from gateway.client.words import PATH, key_of
from gateway.keystore import decrypt_key, ownership
from node.protocol import merkle
from node.protocol.address import address_of, encode_address
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.block import Block, Header, Outcome, Receipt
from node.protocol.certificate import Certificate, Electorate, Finality, VoteKind, sign_vote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair, digest, domain_prefix
from node.protocol.epoch import PhaseNotice, first_document
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_AMOUNT
from node.protocol.puzzle import identity_prefix, is_solution, leading_zero_bits
from node.protocol.transaction import Action, Leg, Transaction, Witness
from tests.chains import TIME, Shard, key, leg
from tests.vectors.network import COORDINATOR, DOCUMENT, DOLLAR, GENESIS, NETWORK, NODES, REGISTRATIONS, SIGNED, person, play

FOLDER = Path(__file__).parent
ALICE, BOB, CAROL = person(0, 0), person(0, 1), person(1, 0)
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
DOMAINS = [
    *("transaction", "block", "vote", "totals", "changes", "records", "state", "row", "leaf", "node", "replay", "genesis"),
    *("epoch document", "registration", "seat secret", "roll", "readiness", "phase", "randomness", "seat", "identity puzzle"),
    *("change", "farewell", "call", "opening", "opening state", "refusals", "reply"),
]
sign = partial(NETWORK.sign, salt=0)
WORDS = [
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
    "void come effort suffer camp survey warrior heavy shoot primary clutch crush"
    " open amazing screen patrol group space point ten exist slush involve unfold",
]
KEY_FILE = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHrMFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAiFOOneZKLBMgIDAzRQ
MAoGCCqGSIb3DQILMB0GCWCGSAFlAwQBKgQQ2l4vtEHysXPIZ0mxE+d5ngSBkIGt
pYNcUrENkOne4jkxTWvavUNF/IF1YdKKvGtA1A1nstM0RODV0o8sR8qZDadfdrUt
HfVj3WGy5qyAR/kKe1qwlOsl5MguJpAaBUBdDKjIHvF9d6oroxZlyIz9EWp0oJeY
5zwwJkpkmNtYY6WW7Cvn00xvdeXovz6YIGBVl4YuLODxBJq2bGDiv2jnm65QRA==
-----END ENCRYPTED PRIVATE KEY-----
"""
KEY_PASSPHRASE = "a passphrase of the vectors"


def plain(value: Any) -> Any:
    """A message as JSON: a struct is an object of its fields (a tagged one has ``"type"`` too), bytes are hex."""
    if isinstance(value, Struct):
        tag = {} if value.__struct_config__.tag is None else {"type": type(value).__name__}
        return tag | {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else to_builtins(value)


def encoded(value: Any) -> dict[str, Any]:
    return {"fields": value, "encoded": encode(value)}


def judged(valid: bool, entries: Mapping[str, Any], fields: bool = True) -> list[dict[str, Any]]:
    """Encoded values by name, with the verdict on them."""
    shown = encoded if fields else lambda value: {"encoded": encode(value)}
    return [{"name": name, **shown(value), "valid": valid} for name, value in entries.items()]


def table(names: str, rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


def high_s(signature: bytes) -> bytes:
    return signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def _keys() -> list[dict[str, Any]]:
    special = [KeyPair(n.to_bytes(32, "big")) for n in (1, 2, ORDER - 1)]
    pairs = [(pair, address_of(pair.public)) for pair in [*special, ALICE, BOB, CAROL, COORDINATOR, DOLLAR, *NODES.values()]]
    return table("secret public address text", ((pair.secret, pair.public, a, encode_address(a)) for pair, a in pairs))


def _bad_addresses() -> list[dict[str, str]]:
    good = encode_address(address_of(ALICE.public))
    wrong = "q" if good[-1] != "q" else "p"
    bad = {"checksum": good[:-1] + wrong, "too short": good[:-1], "too long": good + "q", "prefix": "span" + good[4:]}
    bad |= {"mixed case": good[:10] + good[10:].upper(), "a letter that is not used": good[:-1] + "b", "empty": ""}
    return table("text why", ((text, why) for why, text in bad.items()))


def _signatures() -> list[dict[str, Any]]:
    hello = sha256(b"hello").digest()
    signature = ALICE.sign(hello)
    r, s = signature[:32], signature[32:]
    signers = (KeyPair((1).to_bytes(32, "big")), ALICE, COORDINATOR)
    found = [(pair.public, data, pair.sign(data), True, "") for pair in signers for data in (bytes(32), b"\xff" * 32, hello)]
    broken = [
        (ALICE, hello, high_s(signature), "high s"),
        (ALICE, hello, s + r, "r and s exchanged"),
        (ALICE, hello, bytes(64), "zeros"),
        (ALICE, hello, ORDER.to_bytes(32, "big") + s, "r is not below the order"),
        (BOB, hello, signature, "another key"),
        (ALICE, bytes(32), signature, "another hash"),
    ]
    found += [(pair.public, data, made, False, why) for pair, data, made, why in broken]
    return table("public hash signature valid why", found)


def _digests() -> list[dict[str, Any]]:
    return table("domain prefix data digest", ((d, domain_prefix(d), b"abc", digest(d, b"abc")) for d in DOMAINS))


def _amounts() -> dict[str, Any]:
    pairs = [("0", 0), ("0.00", 2), ("12.50", 2), ("0.01", 2), ("7", 0), ("0.000000000000000001", 18)]
    pairs += [(format_amount(MAX_AMOUNT, decimals), decimals) for decimals in (0, 2, 18)]
    bad = ["", "-1", "+1", "01", "1.", ".5", "1e3", "1,5", " 1", "1\n", "nan", "1.234", "92233720368547758.08", "٣"]
    valid, also_valid = (
        table("text decimals value", ((text, decimals, str(parse_amount(text, decimals))) for text, decimals in some))
        for some in (pairs, [("12.5", 2), ("7", 2)])
    )
    return {"valid": valid, "also valid": also_valid, "invalid": table("text decimals", ((text, 2) for text in bad))}


def _transactions() -> dict[str, Any]:
    pay = leg(ALICE, BOB, "USD", 1_250)
    exchange = sign([ALICE, CAROL], leg(ALICE, CAROL, "USD", 1_000), leg(CAROL, ALICE, "VND", 25_000), memo="exchange", salt=2)
    payers = [key(f"payer {i}") for i in range(16)]
    largest = [leg(payer, BOB, "A" * 12, MAX_AMOUNT) for payer in payers]
    one = sign([ALICE], pay, memo="Lunch, café", salt=1)
    valid = {
        "a payment": one,
        "the smallest numbers": sign([ALICE], leg(ALICE, BOB, "U", 1), valid_until=0),
        "an exchange over two payers": exchange,
        "a freeze": sign([DOLLAR], leg(DOLLAR, BOB, "USD", 0, Action.FREEZE)),
        "an unfreeze": sign([DOLLAR], leg(DOLLAR, BOB, "USD", 0, Action.UNFREEZE)),
        "the largest of everything": sign(payers, *largest, memo="é" * 70, valid_until=2**53, salt=2**64 - 1),
    }
    entries = [{"name": name, **encoded(transaction), "id": transaction.id} for name, transaction in valid.items()]
    return {"valid": entries, "invalid": _invalid_transactions(one, exchange)}


def _invalid_transactions(one: Transaction, exchange: Transaction) -> list[dict[str, Any]]:
    pay = one.order.legs[0]

    def with_legs(*legs: Leg, keys: tuple[KeyPair, ...] = (ALICE,), **changes: Any) -> bytes:
        order = structs.replace(one.order, legs=legs, **changes)
        return encode(Transaction(order, tuple(Witness(pair.public, pair.sign(order.id)) for pair in keys)))

    data = encode(one)
    malformed = {
        "payer is payee": with_legs(structs.replace(pay, payee=pay.payer)),
        "a payment of nothing": with_legs(structs.replace(pay, amount=0)),
        "a freeze with an amount": with_legs(structs.replace(pay, action=Action.FREEZE)),
        "amount above the largest": with_legs(structs.replace(pay, amount=MAX_AMOUNT + 1)),
        "negative amount": with_legs(structs.replace(pay, amount=-1)),
        "no legs": with_legs(keys=()),
        "seventeen legs": with_legs(*[pay] * 17),
        "asset code in lower case": with_legs(structs.replace(pay, asset="usd")),
        "asset code with a newline": with_legs(structs.replace(pay, asset="USD\n")),
        "asset code of thirteen letters": with_legs(structs.replace(pay, asset="A" * 13)),
        "memo of 142 bytes": with_legs(pay, memo="é" * 71),
        "address of 19 bytes": with_legs(structs.replace(pay, payee=bytes(19))),
        "a witness missing": encode(Transaction(exchange.order, exchange.witnesses[:1])),
        "witnesses in another order": encode(Transaction(exchange.order, exchange.witnesses[::-1])),
        "another's witness": with_legs(pay, keys=(BOB,)),
        "trailing byte": data + b"\x00",
        "last byte missing": data[:-1],
        "a number in its long form": data.replace(encode(1_250), b"\xce" + (1_250).to_bytes(4, "big"), 1),
        "bytes as text": data.replace(b"\xc4\x10" + DOCUMENT.network_id, b"\xb0" + DOCUMENT.network_id, 1),
    }
    forged = structs.replace(one.witnesses[0], signature=BOB.sign(one.id))
    high = high_s(one.witnesses[0].signature)
    badly_signed = {
        "another key's signature": Transaction(one.order, (forged,)),
        "signature of another order": Transaction(structs.replace(one.order, memo="more"), one.witnesses),
        "high s": Transaction(one.order, (structs.replace(one.witnesses[0], signature=high),)),
    }
    refused = [(Code.MALFORMED, malformed), (Code.BAD_SIGNATURE, {n: encode(t) for n, t in badly_signed.items()})]
    return table("name encoded code", ((name, data, code) for code, some in refused for name, data in some.items()))


def _signing() -> dict[str, Any]:
    """What a wallet outside a gateway does (docs/signing.md)."""
    found = [
        (words, Mnemonic.to_seed(words), pair.secret, pair.public, _text(pair)) for words in WORDS for pair in [key_of(words)]
    ]
    user, signed = "0f" * 16, ownership(DOCUMENT.network_id, "0f" * 16)
    proof = (DOCUMENT.network_id, user, ALICE.secret, ALICE.public, signed, ALICE.sign(signed))
    return {
        "path": PATH,
        "words": table("words seed secret public address", found),
        "key_file": {"pem": KEY_FILE, "passphrase": KEY_PASSPHRASE, "secret": decrypt_key(KEY_FILE, KEY_PASSPHRASE).secret},
        "ownership": table("network user secret public hash signature", [proof]),
        "payments": [_payment("USD", "12.50", "", 0), _payment("VND", "25000", "Lunch, café", 2**64 - 1)],
    }


def _payment(asset: str, amount: str, memo: str, salt: int) -> dict[str, Any]:
    terms = next(one for one in GENESIS.assets if one.code == asset)
    order = order_of(GENESIS, DOCUMENT.network_id, address_of(ALICE.public), _text(CAROL), asset, amount, memo, TIME)
    order = structs.replace(order, salt=salt.to_bytes(8, "big"))
    asked: dict[str, Any] = {"secret": ALICE.secret, "payer": _text(ALICE), "payee": _text(CAROL), "asset": asset}
    asked |= {"amount": amount, "memo": memo, "decimals": terms.decimals, "fee": format_amount(terms.fee, terms.decimals)}
    asked |= {"issuer": encode_address(terms.issuer_address), "network": order.network, "valid_until": order.valid_until}
    transaction = order.sign([ALICE])
    made = {"order": encode(order), "id": order.id, "signature": transaction.witnesses[0].signature}
    return {**asked, "salt": order.salt, **made, "transaction": encode(transaction)}


def _text(pair: KeyPair) -> str:
    return encode_address(address_of(pair.public))


def _merkle() -> list[dict[str, Any]]:
    trees = [[bytes([i]) * (i % 4) for i in range(size)] for size in (0, 1, 2, 3, 4, 5, 7, 8, 13)]
    branches = [[encoded(merkle.branch(leaves, i)) for i in range(len(leaves))] for leaves in trees]
    return table("leaves root branches", zip(trees, map(merkle.root, trees), branches, strict=True))


def _header(header: Header) -> dict[str, Any]:
    bits = leading_zero_bits(header.hash)
    return {**encoded(header), "mining_prefix": header.mining_prefix, "hash": header.hash, "leading_zero_bits": bits}


def _chain(shard: Shard) -> dict[str, Any]:
    blocks = ((_header(c.block.header), encode(c), c.effects, c.block.payload_root(), True) for c in shard.chain)
    return {
        "electorate": _electorate(shard.electorate),
        "genesis_header": _header(shard.genesis),
        "blocks": table("header certified_block effects payload_root valid", blocks),
        "bundles": [{**encoded(bundle), "valid": True} for outbox in shard.outboxes for bundle in outbox],
    }


def _electorate(electorate: Electorate) -> dict[str, Any]:
    return structs.asdict(electorate) | {"quorum": electorate.quorum}


def _votes(shard: Shard) -> dict[str, Any]:
    electorate, block = shard.electorate, shard.head.hash
    votes = [sign_vote(shard.members[i], i, electorate, kind, 9, block if kind != VoteKind.NULLIFY else ZERO_HASH)
             for i, kind in enumerate((*VoteKind, VoteKind.NOTARIZE))]  # fmt: skip
    good = shard.certificate(VoteKind.FINALIZE, 9, block, (0, 2, 3))
    one, two, three = good.signatures
    all_four = [sign_vote(member, i, electorate, VoteKind.FINALIZE, 9, block) for i, member in enumerate(shard.members)]
    four = Certificate(VoteKind.FINALIZE, 9, block, (0, 1, 2, 3), tuple(vote.signature for vote in all_four))

    signed = [(v.kind.name, v, encode(v), electorate.statement(v.kind, v.view, v.block), True) for v in votes]
    broken_votes = {
        "signed for another view": structs.replace(votes[0], view=10),
        "signed for another kind": structs.replace(votes[0], kind=VoteKind.FINALIZE),
        "signed by another member": structs.replace(votes[0], signer=1),
        "no such member": structs.replace(votes[0], signer=4),
    }
    broken = {
        "one signature too few": structs.replace(good, signers=good.signers[:2], signatures=good.signatures[:2]),
        "more than a quorum": four,
        "signers do not ascend": structs.replace(good, signers=(2, 0, 3), signatures=(two, one, three)),
        "a member twice": structs.replace(good, signers=(0, 0, 3), signatures=(one, one, three)),
        "another block": structs.replace(good, block=ZERO_HASH),
        "another view": structs.replace(good, view=8),
        "no such member": structs.replace(good, signers=(0, 2, 4)),
    }
    return {
        "electorate": _electorate(electorate),
        "votes": table("name fields encoded statement valid", signed) + judged(False, broken_votes),
        "certificates": judged(True, {"a quorum": good}) + judged(False, broken),
    }


def _finality(shard: Shard) -> dict[str, Any]:
    """A block finalized by the certificate of one five higher, and what does not prove it."""
    first, last = shard.chain[2], shard.chain[7]
    header, h4, h5, h6, h7, h8 = (certified.block.header for certified in shard.chain[2:8])
    certificate = last.finality.certificate
    by_last = Finality((h4, h6, h7, h8), certificate)
    notarized = shard.certificate(VoteKind.NOTARIZE, h8.view, h8.hash)
    later = shard.certificate(VoteKind.FINALIZE, header.view + 1, header.hash)
    proofs = {
        "its own certificate": first.finality,
        "its child's": Finality((h4,), shard.chain[3].finality.certificate),
        "of height 8: its parent 7, which skips to 6, which skips to 4, whose parent it is": by_last,
    }
    no_proofs = {
        "all headers up to height 8": Finality((h4, h5, h6, h7, h8), certificate),
        "a header missing": Finality((h4, h7, h8), certificate),
        "the first header missing": Finality((h6, h7, h8), certificate),
        "headers in another order": Finality((h6, h4, h7, h8), certificate),
        "certificate of another block": Finality((), certificate),
        "only notarized": Finality((h4, h6, h7, h8), notarized),
        "certificate with another view": Finality((), later),
    }
    rich = shard.chain[5]
    effects, totals = rich.effects, rich.effects.totals
    assert rich.block.bundles
    assert effects.changes.balances
    fewer = structs.replace(effects.changes, balances=effects.changes.balances[1:])
    other_effects: dict[str, dict[str, Any]] = {
        "a receipt more": {"receipts": (*effects.receipts, Receipt(ZERO_HASH, Outcome.COMMITTED))},
        "a balance less": {"changes": fewer},
        "other totals": {"totals": structs.replace(totals, pending=totals.pending + 1)},
    }
    blocks = {name: structs.replace(rich, effects=structs.replace(effects, **other)) for name, other in other_effects.items()}
    moved = Block(rich.block.header, (), rich.block.bundles + rich.block.transactions)
    blocks["bundles among the transactions"] = structs.replace(rich, block=moved)
    bundle = next(bundle for outbox in shard.outboxes for bundle in outbox)
    bundles = {
        "another sequence": structs.replace(bundle, bundle=structs.replace(bundle.bundle, sequence=9)),
        "another branch": structs.replace(bundle, branch=merkle.branch([b"a", b"b"], 0)),
        "another block's header": structs.replace(bundle, header=shard.head),
    }
    good_block = {"proven by height 8": structs.replace(first, finality=by_last)}
    return {
        "electorate": _electorate(shard.electorate),
        "header": encode(header),
        "proofs": judged(True, proofs) + judged(False, no_proofs),
        "certified_blocks": judged(True, good_block, fields=False) + judged(False, blocks, fields=False),
        "certified_bundles": judged(True, {"a bundle": bundle}, fields=False) + judged(False, bundles, fields=False),
    }


def _puzzles() -> dict[str, Any]:
    bits, found = GENESIS.parameters.puzzle_difficulty_bits, []
    for registration in REGISTRATIONS:
        prefix = identity_prefix(GENESIS.network, 1, GENESIS.hash, registration.public_key)
        wrong = next(n for i in range(256) if not is_solution(prefix, n := i.to_bytes(8, "big"), bits))
        found += [(registration.public_key, prefix, n, bits, n != wrong) for n in (registration.nonce, wrong)]
    header = play()[0].chain[0].block.header
    return {
        "network": GENESIS.network,
        "epoch": 1,
        "challenge": GENESIS.hash,
        "identity": table("public prefix nonce bits valid", found),
        "block": {"mining_prefix": header.mining_prefix, "nonce": header.nonce, "bits": 4},
    }


def _epoch() -> dict[str, Any]:
    notice = PhaseNotice(GENESIS.network, 1, 1, Phase.MINING, TIME, len(REGISTRATIONS)).signed(COORDINATOR)
    fewer = {public: secret for public, secret in NETWORK.secrets.items() if public != REGISTRATIONS[3].public_key}
    addresses = [address_of(pair.public) for pair in (ALICE, BOB, CAROL)]
    return {
        "genesis": to_builtins(GENESIS),
        "genesis_hash": GENESIS.hash,
        "network": GENESIS.network,
        "registrations": [encoded(registration) for registration in REGISTRATIONS],
        "secrets": table("public secret", sorted(NETWORK.secrets.items())),
        "roll_hash": NETWORK.roll.hash,
        "signed_roll": encode(NETWORK.sign_roll(NETWORK.roll)),
        "document": encoded(DOCUMENT),
        "document_without_a_secret": encoded(first_document(GENESIS, NETWORK.roll, fewer)),
        "document_hash": DOCUMENT.hash,
        "network_id": DOCUMENT.network_id,
        "signed_document": encode(SIGNED),
        "opening": encode(NETWORK.opening),
        "notice": encoded(notice),
        "shard_of": {address.hex(): DOCUMENT.shards.shard_of(address) for address in addresses},
    }


def vectors() -> dict[str, Any]:
    """Content by file name."""
    shards = play()
    return {
        "keys.json": {"valid": _keys(), "invalid_addresses": _bad_addresses()},
        "digests.json": _digests(),
        "signatures.json": _signatures(),
        "amounts.json": _amounts(),
        "transactions.json": _transactions(),
        "signing.json": _signing(),
        "merkle.json": _merkle(),
        "puzzles.json": _puzzles(),
        "epoch.json": _epoch(),
        "votes.json": _votes(shards[1]),
        "chains.json": [_chain(shard) for shard in shards],
        "finality.json": _finality(shards[1]),
    }


def text(content: Any) -> str:
    return json.dumps(plain(content), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    for name, content in vectors().items():
        (FOLDER / name).write_text(text(content))
        print(name, (FOLDER / name).stat().st_size, "bytes")
