"""What a proof proves, in words, and what it does not."""

from collections.abc import Iterator

from gateway.proofs.checking import Documents
from gateway.proofs.form import AccountClaim, AccountProof, ClaimedBlock, ClaimedLeg, TransactionClaim, TransactionProof
from node.protocol.epoch import EpochDocument


def in_words(proof: TransactionProof | AccountProof, documents: Documents) -> list[str]:
    """Lines of text about a proof that was checked, under the epoch documents it was checked with."""
    claim = proof.claim
    lines = list(_transaction(claim, documents) if isinstance(claim, TransactionClaim) else _account(claim, documents))
    network, document = claim.network, documents[-1]
    first = documents[0].hash.hex()
    later = [
        f"The committees are those of epoch {network.epoch}: document {network.document}, which follows from that",
        "of epoch 1 by what the committees of all epochs between have certified.",
    ]
    return [
        *lines,
        f"Network {network.id} ({network.name}): genesis {network.genesis}.",
        *(later if len(documents) > 1 else ()),
        f"The committees of epoch 1 are those of document {first}, recomputed from the genesis; its",
        "coordinator and a quorum of each committee signed it. Compare the hash with one you know (--document-1): a dishonest",
        "coordinator could have made another.",
        f"This holds unless more than f members of a committee lie: {_faults(document)}.",
    ]


def _transaction(claim: TransactionClaim, documents: Documents) -> Iterator[str]:
    because = f" ({claim.code})" if claim.code else ""
    yield f"Proven: transaction {claim.transaction_id} is {claim.status}{because}, for good."
    yield from map(_leg, claim.legs)
    if claim.memo:
        yield f"  memo: {claim.memo!r}"
    yield "Every payer signed it."
    for receipt in claim.receipts:
        yield f"{receipt.outcome.capitalize()} {_place(receipt.block, documents)}."


def _account(claim: AccountClaim, documents: Documents) -> Iterator[str]:
    yield f"Proven: account {claim.address} of shard {claim.shard} held"
    for balance in claim.balances:
        amounts = f"{balance.available} {balance.asset} available, {balance.held} held"
        yield f"  {amounts}{', frozen' if balance.frozen else ''}: right after the change {_place(balance.block, documents)}."
    yield "Not proven: that no later block changed it, and what it holds of other assets."


def _leg(leg: ClaimedLeg) -> str:
    if leg.action == "pay":
        return f"  {leg.amount} {leg.asset} from {leg.payer} to {leg.payee}"
    return f"  {leg.payer} {leg.action}s the {leg.asset} of {leg.payee}"


def _place(block: ClaimedBlock, documents: Documents) -> str:
    """Shard, height, time, and who says so."""
    committee = next(one for one in documents[block.epoch - 1].committees if one.shard == block.shard)
    names = ", ".join(committee.members[signer].name for signer in block.signers)
    later = "" if block.signed_height == block.height else f" at height {block.signed_height}, which builds on it,"
    signed = f"signed{later} by {len(block.signers)} of the {block.members} members ({names})"
    epoch = f" of epoch {block.epoch}" if len(documents) > 1 else ""
    return f"in shard {block.shard}, block {block.height}{epoch} ({block.hash}) at {block.time or 'no sensible time'}, {signed}"


def _faults(document: EpochDocument) -> str:
    return ", ".join(
        f"shard {shard}: {electorate.faults_tolerated} of {len(electorate.keys)}"
        for shard, electorate in document.electorates.items()
    )
