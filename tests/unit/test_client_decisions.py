"""A home shard that tells one side of a payment commit and the other abort is found out by whoever reads both sides' blocks."""

import pytest
from msgspec import structs

from node.client import decisions
from node.client.decisions import Contradiction, Decisions, Place
from node.protocol.block import Outcome, Receipt
from node.protocol.certificate import CertifiedBlock
from node.protocol.channel import CertifiedBundle, Decision
from node.protocol.codec import encode
from tests.chains import Network, leg
from tests.unit.replicas import forge_bundle

NETWORK = Network(committees=3)
HOME, LEFT, RIGHT = NETWORK.shards
ID, OTHER = bytes([1] * 32), bytes([2] * 32)


def told(destination: int, commit: bool, transaction_id: bytes = ID, sequence: int = 1) -> CertifiedBundle:
    """What the captured home shard certifies for a participant."""
    return forge_bundle(HOME, destination, sequence, (Decision(transaction_id, commit),))


def took(shard: int, *bundles: CertifiedBundle) -> CertifiedBlock:
    """A participant's certified block."""
    return NETWORK.shards[shard].forge(bundles=[encode(bundle) for bundle in bundles])


def wrote(*receipts: Receipt) -> CertifiedBlock:
    """A certified block of the home shard."""
    base = HOME.build().execution.effects
    return HOME.forge(effects=structs.replace(base, receipts=receipts))


def found(*blocks: CertifiedBlock) -> list[Contradiction]:
    reader = Decisions(NETWORK.document.electorates)
    return [contradiction for block in blocks for contradiction in reader.read(block)]


COMMIT_LEFT, ABORT_RIGHT = took(1, told(1, True)), took(2, told(2, False))
EVIDENCE = Contradiction(0, ID, Place(1, 1), Place(2, 1))


def test_two_participants_told_two_things_are_evidence_whichever_is_read_first() -> None:
    assert found(COMMIT_LEFT, ABORT_RIGHT) == found(ABORT_RIGHT, COMMIT_LEFT) == [EVIDENCE]
    assert found(COMMIT_LEFT, ABORT_RIGHT, ABORT_RIGHT, COMMIT_LEFT) == [EVIDENCE], "told once"
    text = str(EVIDENCE)
    assert all(part in text for part in ("shard 0", "commit in block 1 of shard 1", "abort in block 1 of shard 2", ID.hex()))


def test_the_home_shards_own_receipt_counts_as_what_it_said() -> None:
    """A payment between two shards has one participant only."""
    begun, kept = wrote(Receipt(ID, Outcome.PREPARED)), wrote(Receipt(ID, Outcome.REJECTED))
    expected = [Contradiction(0, ID, Place(1, 1), Place(0, 1))]
    assert found(begun, kept, COMMIT_LEFT) == found(COMMIT_LEFT, begun, kept) == expected
    assert found(begun, wrote(Receipt(ID, Outcome.COMMITTED)), COMMIT_LEFT) == []


def test_what_agrees_or_is_of_another_transaction_or_home_is_none() -> None:
    assert found(COMMIT_LEFT, took(2, told(2, True))) == []
    assert found(COMMIT_LEFT, took(2, told(2, False, OTHER))) == []
    other_home = forge_bundle(LEFT, 2, 1, (Decision(ID, False),))
    assert found(COMMIT_LEFT, took(2, other_home)) == []
    assert found(wrote(Receipt(ID, Outcome.REJECTED)), COMMIT_LEFT) == [], "a participant's receipt, or of a payment inside"


def test_a_participant_cannot_frame_a_home_shard() -> None:
    """It certifies a block with a bundle that the home never sent; or with one that is none."""
    honest = told(2, True)
    altered = structs.replace(honest, bundle=structs.replace(honest.bundle, records=(Decision(ID, False),)))
    assert found(COMMIT_LEFT, took(2, altered)) == []
    assert found(COMMIT_LEFT, RIGHT.forge(bundles=[b"junk"])) == []


def test_no_honest_payment_is_taken_for_a_contradiction() -> None:
    network = Network(committees=3)
    payer = network.person(0)
    network.fund(payer, 100)
    for shard, amount in ((1, 5), (2, 1_000), (2, 7)):
        network.shards[0].add(network.pay(payer, network.person(shard), amount))
        network.exchange()
    both = leg(payer, network.person(1), "USD", 1), leg(payer, network.person(2), "USD", 1)
    network.shards[0].add(network.sign([payer], *both))
    network.exchange()
    reader = Decisions(network.document.electorates)
    assert [said for shard in network.shards for block in shard.chain for said in reader.read(block)] == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_DECISIONS", 2)
    many = [told(1, True, bytes([i] * 32), i) for i in range(3, 6)]
    assert found(COMMIT_LEFT, *(took(1, bundle) for bundle in many), ABORT_RIGHT) == []
    assert found(COMMIT_LEFT, *(took(1, bundle) for bundle in many[:1]), ABORT_RIGHT) == [EVIDENCE]
