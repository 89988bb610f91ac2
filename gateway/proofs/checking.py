"""What a proof proves. Pure: no network, no clock, no database; all it needs to be told is the genesis.

The first epoch document follows from the genesis by rules anybody can apply, each later one from the one before and what its
committees have certified; each names the members of its committees; n - f of them have signed each block; the block's header
commits to its receipts and to its changes. So what is proven holds unless more than f members of one of those committees lie.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from gateway.proofs.form import (
    AccountClaim,
    AccountProof,
    CertifiedChanges,
    CertifiedReceipt,
    ClaimedBalance,
    ClaimedBlock,
    ClaimedLeg,
    ClaimedNetwork,
    ClaimedReceipt,
    TransactionClaim,
    TransactionProof,
)
from gateway.times import iso
from node.protocol import merkle
from node.protocol.address import decode_address, encode_address
from node.protocol.amounts import format_amount
from node.protocol.block import BalanceChange, Changes, Header, Outcome, Receipt, skip_height
from node.protocol.certificate import Electorate, Finality, VoteKind
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import verify
from node.protocol.epoch import EpochDocument, InvalidDocument, Opening
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_FRAME_BYTES
from node.protocol.succession import Succession
from node.protocol.transaction import Transaction, decode_transaction

T = TypeVar("T")


class Refused(Exception):
    """The proof does not prove what it claims; the text says which part of it is wrong."""


Documents = Sequence[EpochDocument]
"""From the first on."""


def check(proof: TransactionProof | AccountProof, genesis: Genesis, document_hash: str | None = None) -> Documents:
    """Whether what a proof claims is exactly what it proves; returns the epoch documents it is proven under.

    ``document_hash``: of the document of epoch 1, in hex, by who knows it: another one is refused.

    Raises:
        Refused: no; or it is of another network.
    """
    if proof.claim.network.genesis != genesis.hash.hex():
        raise Refused(f"genesis: the proof is of {proof.claim.network.genesis}, the one given is {genesis.hash.hex()}")
    documents = read_documents(proof.opening, proof.successions, genesis)
    first = documents[0].hash.hex()
    if document_hash is not None and first != document_hash:
        raise Refused(f"epoch document: it is {first}, not {document_hash}")
    if isinstance(proof, TransactionProof):
        proven: TransactionClaim | AccountClaim = prove_transaction(documents, genesis, proof.transaction, proof.receipts)
    else:
        proven = prove_account(documents, genesis, proof.claim.address, proof.changes)
    for name, value in proven:
        if value != getattr(proof.claim, name):
            raise Refused(f"claim: {name} is not what is proven")
    return documents


def read_documents(opening: str, successions: Sequence[str], genesis: Genesis) -> Documents:
    """The epoch documents, recomputed from the genesis and what the committees certified. Raises Refused."""
    found = _read("epoch document", lambda data: decode(Opening, data, MAX_FRAME_BYTES), opening)
    try:
        found.check(genesis)
    except InvalidDocument as error:
        raise Refused(f"epoch document: {error}") from None
    documents = [found.document]
    for number, encoded in enumerate(successions):
        place = f"successions[{number}]"
        succession = _read(place, lambda data: decode(Succession, data, MAX_FRAME_BYTES), encoded)
        try:
            documents.append(succession.next_document(documents[-1], genesis.parameters))
        except InvalidDocument as error:
            raise Refused(f"{place}: {error}") from None
    return documents


def prove_transaction(
    documents: Documents, genesis: Genesis, encoded: str, certified: Sequence[CertifiedReceipt]
) -> TransactionClaim:
    """What the certified receipts say became of a transaction, in the last epoch. Raises Refused."""
    document = documents[-1]
    transaction = _read("transaction", decode_transaction, encoded)
    if transaction.order.network != document.network_id:
        raise Refused("transaction: it is signed for another network")
    if not transaction.has_valid_signatures():
        raise Refused("transaction: a payer's signature does not fit")
    receipts: dict[int, ClaimedReceipt] = {}
    for number, one in enumerate(certified):
        claimed = _receipt(f"receipts[{number}]", one, transaction.id, documents[-1:])
        if receipts.setdefault(claimed.block.shard, claimed) is not claimed:
            raise Refused(f"receipts[{number}]: a second one of shard {claimed.block.shard}")
    verdict = _verdict(transaction, document, receipts)
    return TransactionClaim(
        network=_network(document, genesis),
        transaction_id=transaction.id.hex(),
        status=verdict.outcome,
        code=verdict.code,
        legs=tuple(_legs(transaction, genesis)),
        memo=transaction.order.memo,
        receipts=tuple(receipts.values()),
    )


def prove_account(documents: Documents, genesis: Genesis, address: str, certified: Sequence[CertifiedChanges]) -> AccountClaim:
    """What the certified changes say an account held, of each asset in the latest of the blocks. Raises Refused."""
    try:
        raw = decode_address(address)
    except ValueError as error:
        raise Refused(f"claim: address: {error}") from None
    balances: dict[str, ClaimedBalance] = {}
    for number, one in enumerate(certified):
        place = f"changes[{number}]"
        header, block = _block(place, one.header, one.finality, documents)
        if header.shard != (shard := documents[block.epoch - 1].shards.shard_of(raw)):
            raise Refused(f"{place}.header: shard {header.shard} does not keep this account, shard {shard} does")
        changes = _read(f"{place}.changes", lambda data: decode(Changes, data, MAX_BROKER_BODY_BYTES), one.changes)
        if changes.hash() != header.changes_hash:
            raise Refused(f"{place}.changes: they are not those that the header commits to")
        mine = [change for change in changes.balances if change.address == raw]
        if not mine:
            raise Refused(f"{place}.changes: none of them is of this account")
        for change in mine:
            before = balances.get(change.asset)
            if before is None or (before.block.epoch, before.block.height) < (block.epoch, block.height):
                balances[change.asset] = _balance(change, block, genesis)
    found = tuple(balances[asset] for asset in sorted(balances))
    shard = documents[-1].shards.shard_of(raw)
    return AccountClaim(network=_network(documents[-1], genesis), address=encode_address(raw), shard=shard, balances=found)


def _receipt(place: str, one: CertifiedReceipt, transaction_id: bytes, documents: Documents) -> ClaimedReceipt:
    header, block = _block(place, one.header, one.finality, documents)
    receipt = _read(f"{place}.receipt", lambda data: decode(Receipt, data, MAX_FRAME_BYTES), one.receipt)
    if receipt.transaction_id != transaction_id:
        raise Refused(f"{place}.receipt: it is of another transaction, {receipt.transaction_id.hex()}")
    branch = _read(f"{place}.branch", lambda data: decode(merkle.Branch, data, MAX_FRAME_BYTES), one.branch)
    if not merkle.verify(encode(receipt), branch, header.receipts_root):
        raise Refused(f"{place}: its receipt and its branch do not lead to the header's receipts root, so one of them is false")
    if receipt.outcome is Outcome.PREPARED or receipt.code is Code.DUPLICATE:
        raise Refused(f"{place}.receipt: it is no verdict ({receipt.outcome.name.lower()} {receipt.code})".rstrip())
    outcome = receipt.outcome.name.lower()
    return ClaimedReceipt.model_validate({"outcome": outcome, "code": receipt.code.value or None, "block": block})


def _verdict(transaction: Transaction, document: EpochDocument, receipts: dict[int, ClaimedReceipt]) -> ClaimedReceipt:
    """The home shard's, if the others' do not contradict it, and are all there when it is to commit."""
    shard_of, legs = document.shards.shard_of, transaction.order.legs
    home = shard_of(legs[0].payer)
    touched = {shard_of(address) for leg in legs for address in (leg.payer, leg.payee)}
    if strange := receipts.keys() - touched:
        raise Refused(f"receipts: the transaction does not touch shard {min(strange)}")
    if next(iter(receipts)) != home:
        raise Refused(f"receipts: the first one is not of the home shard, {home}")
    verdict = receipts[home]
    if verdict.outcome == "committed" and (missing := touched - receipts.keys()):
        raise Refused(f"receipts: that of shard {min(missing)} is missing, so it may not have arrived there yet")
    if any((one.outcome == "committed") != (verdict.outcome == "committed") for one in receipts.values()):
        raise Refused("receipts: the shards say different things, so more than f members of one of them lie")
    return verdict


def _block(place: str, header_hex: str, finality_hex: str, documents: Documents) -> tuple[Header, ClaimedBlock]:
    """A header, and that its committee made it final."""
    header = _read(f"{place}.header", lambda data: decode(Header, data, MAX_FRAME_BYTES), header_hex)
    finality = _read(f"{place}.finality", lambda data: decode(Finality, data, MAX_FRAME_BYTES), finality_hex)
    document = next((one for one in documents if one.hash == header.document), None)
    electorate = document.electorates.get(header.shard) if document is not None else None
    if electorate is None:
        raise Refused(f"{place}.header: it is of a shard or an epoch that this epoch document does not know")
    if not finality.proves(header, electorate):
        raise Refused(f"{place}.finality: {_why_not_final(header, finality, electorate)}")
    signed = finality.path[-1] if finality.path else header
    return header, ClaimedBlock(
        epoch=electorate.epoch,
        shard=header.shard,
        height=header.height,
        hash=header.hash.hex(),
        time=iso(header.time),
        signed_height=signed.height,
        signers=finality.certificate.signers,
        members=len(electorate.keys),
    )


def _why_not_final(header: Header, finality: Finality, electorate: Electorate) -> str:
    """In words, why ``Finality.proves`` says no."""
    certificate, last, low = finality.certificate, header, header.height
    for following in finality.path:
        link = following.skip if skip_height(following.height) >= low else following.parent
        if link != last.hash:
            return f"the header at height {following.height} does not link to the one at {last.height}: one of them is false"
        last = following
    if certificate.block != last.hash:
        return f"the committee signed block {certificate.block.hex()}, and the header is of {last.hash.hex()}: it is false"
    if certificate.kind != VoteKind.FINALIZE or certificate.view != last.view:
        return "the certificate does not make the block final"
    if len(certificate.signers) != electorate.quorum or len(certificate.signatures) != electorate.quorum:
        return f"{len(certificate.signers)} members signed, {electorate.quorum} of {len(electorate.keys)} are needed"
    statement = electorate.statement(certificate.kind, certificate.view, certificate.block)
    for signer, signature in zip(certificate.signers, certificate.signatures, strict=True):
        if signer >= len(electorate.keys) or not verify(electorate.keys[signer], statement, signature):
            return f"the signature of member {signer} does not fit"
    return "the signers are not distinct members in their order"


def _network(document: EpochDocument, genesis: Genesis) -> ClaimedNetwork:
    return ClaimedNetwork(
        name=genesis.name,
        genesis=genesis.hash.hex(),
        id=document.network_id.hex(),
        epoch=document.number,
        document=document.hash.hex(),
    )


def _legs(transaction: Transaction, genesis: Genesis) -> list[ClaimedLeg]:
    return [
        ClaimedLeg.model_validate(
            {
                "action": leg.action.name.lower(),
                "payer": encode_address(leg.payer),
                "payee": encode_address(leg.payee),
                "asset": leg.asset,
                "amount": _amount(leg.amount, leg.asset, genesis),
            }
        )
        for leg in transaction.order.legs
    ]


def _balance(change: BalanceChange, block: ClaimedBlock, genesis: Genesis) -> ClaimedBalance:
    balance = change.balance
    available, held = (_amount(units, change.asset, genesis) for units in (balance.available, balance.held))
    return ClaimedBalance(asset=change.asset, available=available, held=held, frozen=balance.frozen, block=block)


def _amount(units: int, asset: str, genesis: Genesis) -> str:
    """A decimal string; in smallest units of an asset that the genesis does not know, which only a captured committee does."""
    return format_amount(units, next((known.decimals for known in genesis.assets if known.code == asset), 0))


def _read(place: str, read: Callable[[bytes], T], text: str) -> T:
    try:
        return read(bytes.fromhex(text))
    except (DecodeError, msgspec.MsgspecError) as error:
        raise Refused(f"{place}: it cannot be read: {error}") from None
