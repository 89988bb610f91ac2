"""Proofs of transactions and accounts: what is proven, and that whatever is changed in one is refused by its name."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from gateway.proofs.checking import Refused, check
from gateway.proofs.command import main
from gateway.proofs.form import AccountProof, CertifiedReceipt, TransactionProof
from gateway.proofs.making import Lineage, account_proof, transaction_proof
from gateway.proofs.words import in_words
from node.client.blocks import ProvenBlock, prove_block
from node.protocol.address import address_of, encode_address
from node.protocol.block import Header, Outcome, Receipt
from node.protocol.certificate import CertifiedBlock, Finality, path_heights
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.epoch import Opening
from node.protocol.genesis import write_genesis
from node.protocol.merkle import Branch, branch
from node.protocol.transaction import Transaction
from tests.chains import Network

LIMIT = 1 << 24


class Story(NamedTuple):
    """Ann, in shard 0, has paid Bob, in shard 1, 2.50 of her 10.00 USD; there was more in the block."""

    network: Network
    paid: Transaction
    home: CertifiedBlock
    there: CertifiedBlock

    def proven(self, block: CertifiedBlock) -> ProvenBlock:
        found = prove_block(block, self.network.document.electorates[block.block.header.shard])
        assert found is not None
        return found

    @property
    def lineage(self) -> Lineage:
        return Lineage(self.network.opening, (), (self.network.document,))

    def proof(self, *blocks: CertifiedBlock) -> TransactionProof:
        proven = [self.proven(block) for block in blocks or (self.home, self.there)]
        return transaction_proof(self.network.genesis, self.lineage, encode(self.paid), proven)

    def account(self, *blocks: CertifiedBlock) -> AccountProof:
        address = address_of(self.network.person(0).public)
        proven = [self.proven(block) for block in blocks or (self.home,)]
        return account_proof(self.network.genesis, self.lineage, address, proven)


def told(network: Network) -> Story:
    ann, bob = network.person(0), network.person(1)
    network.fund(ann, 1000)
    paid = network.pay(ann, bob, 250, memo="for the book")
    home, there = network.shards
    home.add(paid)
    there.add(bundles=network.waiting(1))
    others = [network.pay(ann, network.person(0, 1), 1) for _ in range(4)]
    home.add(*others, bundles=network.waiting(0))
    network.exchange()
    blocks = {block.block.header.shard: block for s in network.shards for block in s.chain if verdict_in(block, paid.id)}
    return Story(network, paid, blocks[0], blocks[1])


def verdict_in(block: CertifiedBlock, transaction_id: bytes) -> bool:
    return any(r.transaction_id == transaction_id and r.outcome.name == "COMMITTED" for r in block.effects.receipts)


@pytest.fixture(scope="module")
def story() -> Story:
    return told(Network())


def refusal(network: Network, proof: TransactionProof | AccountProof, document: str | None = None) -> str:
    with pytest.raises(Refused) as refused:
        check(proof, network.genesis, document)
    return str(refused.value)


def changed(proof: Any, place: str, kind: Any, change: Callable[[Any], Any]) -> Any:
    """The proof with one of its parts changed: ``opening``, or ``receipts.0.header`` and so on."""
    plain: Any = json.loads(proof.model_dump_json())
    *path, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    target = plain
    for step in path:
        target = target[step]
    target[last] = encode(change(decode(kind, bytes.fromhex(target[last]), LIMIT))).hex()
    return type(proof).model_validate_json(json.dumps(plain))


def flipped(value: bytes, at: int = 0) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def test_a_payment_across_shards_is_proven_in_both_in_words(story: Story) -> None:
    proof = story.proof()
    lines = in_words(proof, check(proof, story.network.genesis, story.network.document.hash.hex()))
    names = ", ".join(member.name for member in story.network.document.committees[1].members[:3])
    there = story.there.block.header
    assert lines[0] == f"Proven: transaction {story.paid.id.hex()} is committed, for good."
    assert "2.50 USD from spay1" in lines[1]
    assert "memo: 'for the book'" in lines[2]
    place = f"in shard 1, block {there.height} ({there.hash.hex()}) at {proof.claim.receipts[1].block.time}"
    assert f"Committed {place}, signed by 3 of the 4 members ({names})." in lines


def test_a_rejection_is_proven_by_the_home_shard(story: Story) -> None:
    network = story.network
    ann, bob = network.person(0), network.person(1)
    paid = network.pay(ann, bob, 10_000)
    block = network.shards[0].add(paid)
    proof = transaction_proof(network.genesis, story.lineage, encode(paid), [story.proven(block)])
    check(proof, network.genesis)
    assert (proof.claim.status, proof.claim.code) == ("rejected", "insufficient_funds")


def test_a_block_made_final_by_a_descendant_is_proven_with_the_headers_between(story: Story) -> None:
    network = story.network
    shard, height = network.shards[0], story.home.block.header.height
    later = height + 3
    while len(shard.chain) < later:
        shard.add()
    path = tuple(map(shard.header, path_heights(height, later)))
    assert len(path) > 1
    descendant = structs.replace(story.home, finality=Finality(path, shard.chain[later - 1].finality.certificate))
    proof = story.proof(descendant, story.there)
    check(proof, network.genesis)
    assert f"signed at height {later}, which builds on it, by 3" in "\n".join(in_words(proof, [network.document]))
    broken = changed(proof, "receipts.0.finality", Finality, lambda f: structs.replace(f, path=f.path[1:]))
    assert "does not link" in refusal(network, broken)


def test_an_account_is_proven_as_of_the_latest_of_the_blocks(story: Story) -> None:
    funded = next(
        b for b in story.network.shards[0].chain if any(c.balance.available == 1000 for c in b.effects.changes.balances)
    )
    proof = story.account(story.home, funded)
    lines = in_words(proof, check(proof, story.network.genesis))
    assert [(b.asset, b.available, b.block.height) for b in proof.claim.balances] == [
        ("USD", "7.46", story.home.block.header.height)
    ]
    assert lines[0].startswith(f"Proven: account {encode_address(address_of(story.network.person(0).public))} of shard 0 held")
    assert any(line.startswith("Not proven: that no later block changed it") for line in lines)


FLIPS: list[tuple[str, Any, Callable[[Any], Any], str]] = [
    (
        "opening",
        Opening,
        lambda o: structs.replace(o, signed=structs.replace(o.signed, signature=flipped(o.signed.signature))),
        "epoch document: ",
    ),
    (
        "receipts.0.header",
        Header,
        lambda h: structs.replace(h, time=h.time + 1),
        "receipts[0].finality: the committee signed block",
    ),
    ("receipts.1.header", Header, lambda h: structs.replace(h, shard=0), "receipts[1].finality: the committee signed block"),
    ("receipts.1.header", Header, lambda h: structs.replace(h, document=flipped(h.document)), "receipts[1].header: "),
    (
        "receipts.1.finality",
        Finality,
        lambda f: structs.replace(
            f,
            certificate=structs.replace(
                f.certificate, signatures=(*f.certificate.signatures[:2], flipped(f.certificate.signatures[2]))
            ),
        ),
        "receipts[1].finality: the signature of member 2 does not fit",
    ),
    (
        "receipts.1.finality",
        Finality,
        lambda f: structs.replace(
            f,
            certificate=structs.replace(
                f.certificate, signers=f.certificate.signers[:2], signatures=f.certificate.signatures[:2]
            ),
        ),
        "receipts[1].finality: 2 members signed, 3 of 4 are needed",
    ),
    (
        "receipts.1.finality",
        Finality,
        lambda f: structs.replace(f, certificate=structs.replace(f.certificate, signers=(0, 0, 1))),
        "receipts[1].finality: ",
    ),
    (
        "receipts.0.branch",
        Branch,
        lambda b: structs.replace(b, path=(flipped(b.path[0]), *b.path[1:])),
        "receipts[0]: its receipt and its branch",
    ),
    ("receipts.0.receipt", Receipt, lambda r: structs.replace(r, code="expired"), "receipts[0]: its receipt and its branch"),
    (
        "receipts.0.receipt",
        Receipt,
        lambda r: structs.replace(r, transaction_id=bytes(32)),
        "receipts[0].receipt: it is of another",
    ),
    (
        "transaction",
        Transaction,
        lambda t: structs.replace(t, order=structs.replace(t.order, memo="for nothing")),
        "transaction: a payer's signature",
    ),
    (
        "transaction",
        Transaction,
        lambda t: structs.replace(t, witnesses=(structs.replace(t.witnesses[0], signature=flipped(t.witnesses[0].signature)),)),
        "transaction: a payer's signature",
    ),
    (
        "transaction",
        Transaction,
        lambda t: structs.replace(t, order=structs.replace(t.order, network=bytes(16))),
        "transaction: it is signed for another",
    ),
]


@pytest.mark.parametrize(("place", "kind", "change", "reason"), FLIPS, ids=[f"{i} {flip[0]}" for i, flip in enumerate(FLIPS)])
def test_what_was_changed_is_refused_by_its_name(story: Story, place: str, kind: Any, change: Any, reason: str) -> None:
    assert refusal(story.network, changed(story.proof(), place, kind, change)).startswith(reason)


def test_no_byte_of_a_proof_can_be_changed(story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_genesis(tmp_path / "genesis.json", story.network.genesis)
    drawn = random.Random(10)
    for proof in (story.proof(), story.account()):
        text = proof.model_dump_json().encode()
        assert verify(tmp_path, text) == 0
        for at in drawn.sample(range(len(text)), 60):
            for other in {text[at] ^ 1, ord("0") if text[at] != ord("0") else ord("1")}:
                assert verify(tmp_path, text[:at] + bytes([other]) + text[at + 1 :]) in (1, 2), (at, other)
    capsys.readouterr()


def verify(folder: Path, text: bytes, *more: str) -> int:
    (folder / "proof.json").write_bytes(text)
    return main([f"{folder}/proof.json", "--genesis", f"{folder}/genesis.json", *more])


def test_the_claim_says_what_is_proven_or_is_refused(story: Story) -> None:
    proof = story.proof()
    for name, value in (("status", "rejected"), ("memo", "another"), ("receipts", proof.claim.receipts[:1])):
        claim = proof.claim.model_copy(update={name: value})
        assert refusal(story.network, proof.model_copy(update={"claim": claim})) == f"claim: {name} is not what is proven"
    account = story.account()
    other = account.claim.model_copy(update={"address": encode_address(address_of(story.network.person(0, 3).public))})
    assert "none of them is of this account" in refusal(story.network, account.model_copy(update={"claim": other}))


def test_a_network_with_another_genesis_or_another_document_is_refused(story: Story) -> None:
    other = Network(name="other")
    assert refusal(other, story.proof()).startswith("genesis: the proof is of ")
    known = "00" * 32
    assert refusal(story.network, story.proof(), known) == (
        f"epoch document: it is {story.network.document.hash.hex()}, not {known}"
    )
    relabelled = story.proof().claim.network.model_copy(update={"genesis": other.genesis.hash.hex()})
    lying = story.proof().model_copy(update={"claim": story.proof().claim.model_copy(update={"network": relabelled})})
    assert refusal(other, lying).startswith("epoch document: ")


def test_half_of_a_payment_and_what_is_no_verdict_prove_nothing(story: Story) -> None:
    with pytest.raises(Refused, match=r"that of shard 1 is missing"):
        story.proof(story.home)
    with pytest.raises(Refused, match=r"the first one is not of the home shard, 0"):
        story.proof(story.there, story.home)
    with pytest.raises(Refused, match=r"a second one of shard 0"):
        story.proof(story.home, story.home)
    prepared = next(
        b for b in story.network.shards[0].chain if any(r.transaction_id == story.paid.id for r in b.effects.receipts)
    )
    assert not verdict_in(prepared, story.paid.id)
    with pytest.raises(Refused, match="no verdict about it"):
        story.proof(prepared, story.there)


def test_shards_that_contradict_each_other_prove_nothing(story: Story) -> None:
    receipt = Receipt(story.paid.id, Outcome.REJECTED, Code.INSUFFICIENT_FUNDS)
    other = story.network.shards[1].forge(effects=structs.replace(story.there.effects, receipts=(receipt,)))
    with pytest.raises(Refused, match="the shards say different things"):
        story.proof(story.home, other)


@pytest.mark.parametrize("said", [(Outcome.PREPARED, Code.OK), (Outcome.REJECTED, Code.DUPLICATE)])
def test_a_certified_receipt_that_is_no_verdict_is_refused(story: Story, said: tuple[Outcome, Code]) -> None:
    receipt = Receipt(story.paid.id, *said)
    block = story.network.shards[0].forge(effects=structs.replace(story.home.effects, receipts=(receipt,)))
    parts = (block.block.header, block.finality, receipt, branch([encode(receipt)], 0))
    named = dict(zip(("header", "finality", "receipt", "branch"), (encode(part).hex() for part in parts), strict=True))
    proof = story.proof().model_copy(update={"receipts": (CertifiedReceipt(**named),)})
    assert refusal(story.network, proof).startswith("receipts[0].receipt: it is no verdict")


def test_a_shard_proves_nothing_about_accounts_and_payments_of_others(story: Story) -> None:
    """A captured committee can certify anything: receipts of payments elsewhere, balances of accounts that it does not keep."""
    network = story.network
    forged = network.shards[1].forge(effects=story.home.effects)
    with pytest.raises(Refused, match=r"shard 1 does not keep this account, shard 0 does"):
        story.account(forged)
    inside = network.pay(network.person(0), network.person(0, 1), 1)
    receipt = structs.replace(story.home.effects.receipts[0], transaction_id=inside.id)
    said = network.shards[1].forge(effects=structs.replace(story.home.effects, receipts=(receipt,)))
    with pytest.raises(Refused, match=r"does not touch shard 1|no verdict"):
        transaction_proof(network.genesis, story.lineage, encode(inside), [story.proven(said)])


def test_the_command_says_proven_refused_or_no_proof_and_why(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_genesis(tmp_path / "genesis.json", story.network.genesis)
    text = story.proof().model_dump_json().encode()
    document = story.network.document.hash.hex()
    assert verify(tmp_path, text, "--document-1", document) == 0
    assert "is committed, for good." in capsys.readouterr().out
    assert verify(tmp_path, text, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["result"], said["claim"]["status"]) == ("proven", "committed")
    assert verify(tmp_path, text, "--document-1", "ab" * 32, "--json") == 1
    assert json.loads(capsys.readouterr().out)["reason"].startswith("epoch document: it is ")
    assert verify(tmp_path, text.replace(b'"status":"committed"', b'"status":"expired"')) == 1
    assert capsys.readouterr().err == "Refused: claim: status is not what is proven.\n"
    for nothing in (b"", b"{}", b"[]", text[:-1], text.replace(b'"version":1', b'"version":2'), b'{"kind":"account"}', b"\xff"):
        assert verify(tmp_path, nothing) == 2
        assert capsys.readouterr().err.startswith("Not a proof: ")
    assert main([f"{tmp_path}/none.json", "--genesis", f"{tmp_path}/genesis.json"]) == 2
    assert main([f"{tmp_path}/proof.json", "--genesis", f"{tmp_path}/none.json"]) == 2
    assert verify(tmp_path, text, "--document-1", "?") == 2
