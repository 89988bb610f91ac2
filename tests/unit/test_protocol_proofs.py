"""Transactions' static rules, and the proofs: finality, certified blocks, certified bundles."""

from hashlib import sha256
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from node.protocol import merkle
from node.protocol.address import address_of
from node.protocol.block import (
    AssetTotal,
    Balance,
    BalanceChange,
    Block,
    Changes,
    Effects,
    Header,
    Outcome,
    PeerTotal,
    Receipt,
    Totals,
    payload_root,
)
from node.protocol.certificate import (
    Certificate,
    CertifiedBlock,
    Electorate,
    Finality,
    Vote,
    VoteKind,
    make_certificate,
    sign_vote,
)
from node.protocol.channel import Bundle, CertifiedBundle, Decision, Prepare, PrepareVote
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair, digest
from node.protocol.limits import MAX_AMOUNT, MAX_FRAME_BYTES
from node.protocol.puzzle import NONCE_BYTES
from node.protocol.transaction import Action, Leg, Order, Transaction, Witness, decode_transaction

ALICE, BOB, CAROL = (KeyPair(bytes(31) + bytes([i])) for i in (1, 2, 3))
A, B, C = (address_of(key.public) for key in (ALICE, BOB, CAROL))
MEMBERS = [KeyPair(bytes([9] * 31 + [i])) for i in range(1, 6)]
NETWORK = b"unittest"
COMMITTEE = Electorate(NETWORK, 1, 2, tuple(key.public for key in MEMBERS[:4]))


# -- transactions ----------------------------------------------------------------------------------------------------


def order(*legs: Leg, memo: str = "", **changes: Any) -> Order:
    return structs.replace(Order(NETWORK, legs or (Leg(A, B, "USD", 5),), memo, 1_000, bytes(8)), **changes)


SIGNED = order(Leg(A, B, "USD", 5), Leg(B, A, "EUR", 4), Leg(A, C, "USD", 1), memo="dinner").sign([BOB, ALICE])


def test_a_signed_transaction_decodes_to_itself_and_its_signatures_hold() -> None:
    assert decode_transaction(encode(SIGNED)) == SIGNED
    assert SIGNED.order.payers == (A, B)
    assert [witness.public_key for witness in SIGNED.witnesses] == [ALICE.public, BOB.public]
    assert SIGNED.has_valid_signatures()


def test_msgpack_reads_a_transaction() -> None:
    (network, legs, memo, valid_until, salt), witnesses = msgpack.unpackb(encode(SIGNED))
    assert (network, memo, valid_until, salt) == (NETWORK, "dinner", 1_000, bytes(8))
    assert legs[1] == [B, A, "EUR", 4, 0]
    assert witnesses[0][0] == ALICE.public
    assert msgpack.packb(msgpack.unpackb(encode(SIGNED))) == encode(SIGNED)


def test_the_id_covers_everything_that_is_signed_and_nothing_else() -> None:
    base = order()
    assert base.id == digest("transaction", encode(base))
    variants = [
        order(network=b"elsewhr_"),
        order(Leg(A, B, "USD", 6)),
        order(Leg(A, C, "USD", 5)),
        order(Leg(A, B, "EUR", 5)),
        order(memo="x"),
        order(valid_until=1_001),
        order(salt=b"saltsalt"),
    ]
    assert len({variant.id for variant in [base, *variants]}) == 8
    assert base.sign([ALICE]).id == base.id


def test_a_signature_of_another_order_or_key_is_refused() -> None:
    good = order().sign([ALICE])
    assert not Transaction(order(memo="more"), good.witnesses).has_valid_signatures()
    assert not Transaction(order(), (Witness(ALICE.public, BOB.sign(order().id)),)).has_valid_signatures()
    second = SIGNED.witnesses[1]
    assert not Transaction(
        SIGNED.order, (SIGNED.witnesses[0], structs.replace(second, signature=bytes(64)))
    ).has_valid_signatures()


def test_signing_needs_every_payers_key() -> None:
    with pytest.raises(ValueError, match="no key for 1"):
        SIGNED.order.sign([ALICE, CAROL])


def transaction(candidate: Order, *keys: KeyPair) -> bytes:
    """Encoded with a witness of each key, whatever the payers."""
    return encode(Transaction(candidate, tuple(Witness(key.public, key.sign(candidate.id)) for key in keys)))


BREAKS_A_RULE = {
    "payer is payee": transaction(order(Leg(A, A, "USD", 5)), ALICE),
    "a payment of nothing": transaction(order(Leg(A, B, "USD", 0)), ALICE),
    "a freeze with an amount": transaction(order(Leg(A, B, "USD", 1, Action.FREEZE)), ALICE),
    "an unfreeze with an amount": transaction(order(Leg(A, B, "USD", 1, Action.UNFREEZE)), ALICE),
    "a negative amount": transaction(order(Leg(A, B, "USD", -1)), ALICE),
    "too large an amount": transaction(order(Leg(A, B, "USD", MAX_AMOUNT + 1)), ALICE),
    "no such action": transaction(order(Leg(A, B, "USD", 0, 3)), ALICE),  # type: ignore[arg-type]
    "no legs": transaction(order(legs=()), ALICE),
    "too many legs": transaction(order(*[Leg(A, B, "USD", 1)] * 17), ALICE),
    "a memo of 141 letters": transaction(order(memo="x" * 141), ALICE),
    "a memo of 142 bytes in 71 letters": transaction(order(memo="é" * 71), ALICE),
    "a witness missing": transaction(order(Leg(A, B, "USD", 1), Leg(B, A, "EUR", 1)), ALICE),
    "no witness": transaction(order()),
    "a witness too many": transaction(order(), ALICE, BOB),
    "a witness twice": transaction(order(), ALICE, ALICE),
    "another's witness": transaction(order(), BOB),
    "witnesses in another order": transaction(order(Leg(A, B, "USD", 1), Leg(B, A, "EUR", 1)), BOB, ALICE),
    "a lower case asset": transaction(order(Leg(A, B, "usd", 1)), ALICE),
    "an empty asset": transaction(order(Leg(A, B, "", 1)), ALICE),
    "a long asset": transaction(order(Leg(A, B, "U" * 13, 1)), ALICE),
    "a short address": transaction(order(Leg(A, B[:-1], "USD", 1)), ALICE),
    "a short network id": transaction(order(network=b"short"), ALICE),
    "a long salt": transaction(order(salt=bytes(9)), ALICE),
    "a time before time": transaction(order(valid_until=-1), ALICE),
    "a time after time": transaction(order(valid_until=2**53 + 1), ALICE),
    "more than 4096 bytes": encode(SIGNED) + bytes(4096),
}


@pytest.mark.parametrize("data", BREAKS_A_RULE.values(), ids=BREAKS_A_RULE.keys())
def test_a_transaction_against_a_rule_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_transaction(data)


def test_an_asset_code_with_a_newline_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_transaction(transaction(order(Leg(A, B, "USD\n", 1)), ALICE))


def test_the_limits_themselves_are_allowed() -> None:
    keys = [KeyPair(bytes(30) + bytes([1, i])) for i in range(16)]
    legs = [Leg(address_of(key.public), C, "U" * 12, MAX_AMOUNT) for key in keys]
    largest = order(*legs, memo="é" * 70, valid_until=2**53).sign(keys)
    assert decode_transaction(encode(largest)) == largest
    freeze = order(Leg(A, B, "USD", 0, Action.FREEZE)).sign([ALICE])
    assert decode_transaction(encode(freeze)) == freeze


def test_every_truncation_and_bit_flip_is_refused_or_another_canonical_transaction() -> None:
    data = encode(SIGNED)
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            decode_transaction(data[:length])
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        try:
            other = decode_transaction(bytes(changed))
        except DecodeError:
            continue
        assert encode(other) == changed
        assert other != SIGNED
        assert not other.has_valid_signatures()


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_random_bytes_never_break_the_decoder(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_transaction(data)


# -- certificates ----------------------------------------------------------------------------------------------------

EFFECTS = Effects(
    (Receipt(digest("x", b"1"), Outcome.COMMITTED), Receipt(digest("x", b"2"), Outcome.REJECTED, Code.DUPLICATE)),
    Changes((BalanceChange(A, "USD", Balance(5, 1)),), ZERO_HASH),
    Totals((AssetTotal("USD", 5, 1, 6, 0, (PeerTotal(0, 3, 3),)),), 1),
)
BUNDLE = Bundle(1, 0, 7, (Prepare(b"tx", 99), PrepareVote(ZERO_HASH, Code.EXPIRED), Decision(ZERO_HASH, True)))
OTHER_BUNDLE = Bundle(1, 2, 3, (Decision(ZERO_HASH, False),))
OUTBOX = [encode(BUNDLE), encode(OTHER_BUNDLE)]


def block(height: int, parent: bytes, view: int, **changes: Any) -> Block:
    payload = (b"first", b"second")
    header = Header(
        network=NETWORK,
        shard=1,
        epoch=2,
        view=view,
        height=height,
        parent=parent,
        time=1,
        proposer=view % 4,
        payload_root=payload_root(payload[:1], payload[1:]),
        receipts_root=merkle.root([encode(receipt) for receipt in EFFECTS.receipts]),
        outbox_root=merkle.root(OUTBOX),
        changes_hash=EFFECTS.changes.hash(),
        totals_hash=EFFECTS.totals.hash(),
        state_root=ZERO_HASH,
        nonce=bytes(8),
    )
    return Block(structs.replace(header, **changes), payload[:1], payload[1:])


def certificate(
    header: Header, kind: VoteKind = VoteKind.FINALIZE, signers: tuple[int, ...] = (0, 2, 3), electorate: Electorate = COMMITTEE
) -> Certificate:
    votes = [sign_vote(MEMBERS[i], i, electorate, kind, header.view, header.hash) for i in signers]
    return make_certificate(votes, electorate)


ONE = block(1, ZERO_HASH, 3)
TWO = block(2, ONE.header.hash, 4)
THREE = block(3, TWO.header.hash, 8)


@pytest.mark.parametrize(
    ("size", "faults", "quorum"), [(1, 0, 1), (3, 0, 3), (4, 1, 3), (5, 1, 4), (6, 1, 5), (7, 2, 5), (100, 33, 67)]
)
def test_any_two_quorums_share_an_honest_member(size: int, faults: int, quorum: int) -> None:
    electorate = Electorate(NETWORK, 1, 2, tuple(bytes([i]) for i in range(size)))
    assert (electorate.faults_tolerated, electorate.quorum) == (faults, quorum)
    assert 2 * quorum - size > faults
    assert quorum <= size - faults


def test_a_vote_holds_for_its_kind_view_block_signer_and_committee_only() -> None:
    vote = sign_vote(MEMBERS[1], 1, COMMITTEE, VoteKind.NOTARIZE, 5, ONE.header.hash)
    assert vote.is_valid(COMMITTEE)
    others: list[dict[str, Any]] = [
        {"kind": VoteKind.FINALIZE},
        {"view": 6},
        {"block": ZERO_HASH},
        {"signer": 2},
        {"signer": 200},
    ]
    for change in others:
        assert not structs.replace(vote, **change).is_valid(COMMITTEE)
    elsewhere: list[dict[str, Any]] = [{"network": b"elsewhr_"}, {"shard": 0}, {"epoch": 3}, {"keys": COMMITTEE.keys[::-1]}]
    for change in elsewhere:
        assert not vote.is_valid(structs.replace(COMMITTEE, **change))


def test_a_certificate_takes_exactly_a_quorum_in_member_order() -> None:
    votes = [sign_vote(MEMBERS[i], i, COMMITTEE, VoteKind.NULLIFY, 5, ZERO_HASH) for i in (3, 1, 0, 2)]
    made = make_certificate(votes, COMMITTEE)
    assert made.signers == (0, 1, 2)
    assert made.is_valid(COMMITTEE)
    assert decode(Certificate, encode(made), 1_000) == made
    one_more = Certificate(made.kind, 5, ZERO_HASH, (0, 1, 2, 3), (*made.signatures, votes[0].signature))
    assert not one_more.is_valid(COMMITTEE)


def test_a_certificate_with_any_signature_changed_is_refused() -> None:
    good = certificate(ONE.header)
    for position in range(3):
        signatures = list(good.signatures)
        signatures[position] = MEMBERS[4].sign(COMMITTEE.statement(good.kind, good.view, good.block))
        assert not structs.replace(good, signatures=tuple(signatures)).is_valid(COMMITTEE)
    assert not structs.replace(good, signers=(0, 0, 3)).is_valid(COMMITTEE)
    assert not structs.replace(good, signers=(0, 3, 2)).is_valid(COMMITTEE)


# -- finality --------------------------------------------------------------------------------------------------------


def test_a_block_is_final_by_its_own_certificate_or_by_a_descendants() -> None:
    assert Finality((), certificate(ONE.header)).proves(ONE.header, COMMITTEE)
    assert Finality((TWO.header,), certificate(TWO.header)).proves(ONE.header, COMMITTEE)
    assert Finality((TWO.header, THREE.header), certificate(THREE.header)).proves(ONE.header, COMMITTEE)


def test_a_broken_proof_of_finality_is_refused() -> None:
    stranger = block(2, ZERO_HASH, 4)
    broken = [
        Finality((), certificate(TWO.header)),
        Finality((TWO.header,), certificate(ONE.header)),
        Finality((stranger.header,), certificate(stranger.header)),
        Finality((THREE.header,), certificate(THREE.header)),
        Finality((THREE.header, TWO.header), certificate(TWO.header)),
        Finality((TWO.header, stranger.header), certificate(stranger.header)),
        Finality((), certificate(ONE.header, VoteKind.NOTARIZE)),
        Finality((), structs.replace(certificate(ONE.header), view=4)),
        Finality((), certificate(ONE.header, electorate=structs.replace(COMMITTEE, epoch=3))),
        Finality((ONE.header,), certificate(ONE.header)),
    ]
    assert not any(finality.proves(ONE.header, COMMITTEE) for finality in broken)


@pytest.mark.parametrize("change", [{"network": b"elsewhr_"}, {"shard": 0}, {"epoch": 1}])
def test_a_header_of_another_network_shard_or_epoch_is_not_final_here(change: dict[str, Any]) -> None:
    other = block(1, ZERO_HASH, 3, **change)
    assert not Finality((), certificate(other.header)).proves(other.header, COMMITTEE)


def test_a_view_that_is_not_the_headers_is_refused() -> None:
    votes = [sign_vote(MEMBERS[i], i, COMMITTEE, VoteKind.FINALIZE, 9, ONE.header.hash) for i in range(3)]
    assert not Finality((), make_certificate(votes, COMMITTEE)).proves(ONE.header, COMMITTEE)


# -- certified blocks and bundles ------------------------------------------------------------------------------------

CERTIFIED = CertifiedBlock(ONE, Finality((), certificate(ONE.header)), EFFECTS)


def test_a_certified_block_proves_itself_after_a_round_trip() -> None:
    assert CERTIFIED.is_valid(COMMITTEE)
    assert decode(CertifiedBlock, encode(CERTIFIED), MAX_FRAME_BYTES) == CERTIFIED


def test_effects_other_than_the_headers_are_refused() -> None:
    wrong = [
        structs.replace(EFFECTS, receipts=EFFECTS.receipts[:1]),
        structs.replace(EFFECTS, receipts=EFFECTS.receipts[::-1]),
        structs.replace(EFFECTS, changes=Changes((BalanceChange(A, "USD", Balance(6, 1)),), ZERO_HASH)),
        structs.replace(EFFECTS, changes=Changes(EFFECTS.changes.balances, b"x" * 32)),
        structs.replace(EFFECTS, totals=Totals(EFFECTS.totals.assets, 0)),
    ]
    for effects in wrong:
        assert not effects.match(ONE.header)
        assert not structs.replace(CERTIFIED, effects=effects).is_valid(COMMITTEE)


def test_another_payload_is_refused() -> None:
    for change in ({"bundles": ()}, {"transactions": (b"other",)}, {"transactions": (b"second", b"third")}):
        assert not structs.replace(CERTIFIED, block=structs.replace(ONE, **change)).is_valid(COMMITTEE)
    assert not structs.replace(CERTIFIED, finality=Finality((), certificate(TWO.header))).is_valid(COMMITTEE)


def test_a_bundle_moved_to_the_transactions_changes_the_root() -> None:
    """Else a liar could hand out a block that has the right hash, and does not execute."""
    moved = Block(ONE.header, (), (*ONE.bundles, *ONE.transactions))
    assert moved.payload_root() != ONE.payload_root()


def test_the_hash_of_a_header_is_its_mining_prefix_and_nonce() -> None:
    header = structs.replace(ONE.header, nonce=b"12345678")
    assert sha256(header.mining_prefix + b"12345678").digest() == header.hash
    assert len(header.nonce) == NONCE_BYTES
    for field in header.__struct_fields__:
        value = getattr(header, field)
        other = value + 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]
        assert structs.replace(header, **{field: other}).hash != header.hash


def test_a_certified_bundle_proves_itself() -> None:
    for index, bundle in enumerate((BUNDLE, OTHER_BUNDLE)):
        certified = CertifiedBundle(bundle, ONE.header, CERTIFIED.finality, merkle.branch(OUTBOX, index))
        assert certified.is_valid(COMMITTEE)
        assert decode(CertifiedBundle, encode(certified), MAX_FRAME_BYTES) == certified
        by_descendant = structs.replace(certified, finality=Finality((TWO.header,), certificate(TWO.header)))
        assert by_descendant.is_valid(COMMITTEE)


def test_a_bundle_not_of_the_header_is_refused() -> None:
    good = CertifiedBundle(BUNDLE, ONE.header, CERTIFIED.finality, merkle.branch(OUTBOX, 0))
    for change in ({"sequence": 8}, {"destination": 3}, {"source": 0}, {"records": BUNDLE.records[:2]}):
        assert not structs.replace(good, bundle=structs.replace(BUNDLE, **change)).is_valid(COMMITTEE)
    assert not structs.replace(good, branch=merkle.branch(OUTBOX, 1)).is_valid(COMMITTEE)
    assert not structs.replace(good, header=TWO.header).is_valid(COMMITTEE)
    assert not structs.replace(good, finality=Finality((), certificate(TWO.header))).is_valid(COMMITTEE)
    assert not good.is_valid(structs.replace(COMMITTEE, shard=0))
    assert not good.is_valid(structs.replace(COMMITTEE, keys=tuple(key.public for key in MEMBERS[1:5])))


def test_a_bundle_signed_as_another_shards_is_refused() -> None:
    foreign = structs.replace(BUNDLE, source=0)
    header = structs.replace(ONE.header, outbox_root=merkle.root([encode(foreign)]))
    finality = Finality((), certificate(header))
    assert not CertifiedBundle(foreign, header, finality, merkle.branch([encode(foreign)], 0)).is_valid(COMMITTEE)


def test_votes_round_trip_as_plain_arrays() -> None:
    vote = sign_vote(MEMBERS[0], 0, COMMITTEE, VoteKind.NULLIFY, 5, ZERO_HASH)
    assert msgpack.unpackb(encode(vote)) == [2, 5, ZERO_HASH, 0, vote.signature]
    assert decode(Vote, encode(vote), 200) == vote
