"""Blocks that break a rule, each another one. Where it can be, their roots are those of executing them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from node.consensus.simplex import Turn
from node.protocol.address import address_of
from node.protocol.block import Block
from node.protocol.channel import Bundle
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.messages import BundleDelivery, Proposal
from node.protocol.transaction import Leg, Order, Transaction, decode_transaction
from node.replica.mempool import read_pooled
from node.replica.proposing import build_block

if TYPE_CHECKING:
    from tests.simulation.adversary import Adversary


def _with_header(**changes: object) -> Callable[["Adversary", Proposal], Block | None]:
    def change(liar: "Adversary", proposal: Proposal) -> Block:
        return structs.replace(liar.block_of(proposal), header=structs.replace(proposal.block.header, **changes))

    return change


def _with_transactions(liar: "Adversary", proposal: Proposal, transactions: Sequence[bytes]) -> Block:
    """Built as the rules have it if possible; else with the roots of another block."""
    try:
        if (block := liar.rival(proposal, list(map(read_pooled, transactions)))) is not None:
            return block
    except ValueError:
        pass
    return _sealed(structs.replace(liar.block_of(proposal), transactions=tuple(transactions)))


def _sealed(block: Block) -> Block:
    """Its header names what is in it."""
    return structs.replace(block, header=structs.replace(block.header, payload_root=block.payload_root()))


def _again(liar: "Adversary", proposal: Proposal) -> Block | None:
    """A final transaction a second time."""
    if not liar.transactions:
        return None
    return _with_transactions(liar, proposal, [*liar.block_of(proposal).transactions, liar.chance.choice(liar.transactions)])


def _twice(liar: "Adversary", proposal: Proposal) -> Block | None:
    transactions = liar.block_of(proposal).transactions
    return _with_transactions(liar, proposal, [*transactions, transactions[0]]) if transactions else None


def _unsigned(liar: "Adversary", proposal: Proposal) -> Block | None:
    """A payment its payer signed for another amount."""
    source = [*liar.block_of(proposal).transactions, *liar.transactions]
    if not source:
        return None
    transaction = decode_transaction(liar.chance.choice(source))
    order = structs.replace(
        transaction.order,
        salt=liar.chance.randbytes(8),
        valid_until=proposal.block.header.time + 5_000,
        legs=tuple(structs.replace(leg, amount=leg.amount and leg.amount + 1) for leg in transaction.order.legs),
    )
    return _with_transactions(liar, proposal, [encode(Transaction(order, transaction.witnesses))])


def _too_many(liar: "Adversary", proposal: Proposal) -> Block | None:
    if not liar.transactions:
        return None
    limit = liar.replica.parameters.block_transactions
    return _with_transactions(liar, proposal, (liar.transactions * (limit + 1))[: limit + 1])


def _too_early(liar: "Adversary", proposal: Proposal) -> Block | None:
    """Far in the future."""
    return liar.rival(proposal, [], later=60_000, bundles=False)


def _backwards(liar: "Adversary", proposal: Proposal) -> Block | None:
    block = liar.rival(proposal, [], later=-3_600_000, bundles=False)
    return block or _with_header(time=1)(liar, proposal)


def _out_of_turn(liar: "Adversary", proposal: Proposal) -> Block | None:
    """A bundle is left out, or taken again."""
    bundles = proposal.block.bundles
    if len(bundles) < 1:
        return None
    wrong = bundles[1:] if liar.chance.random() < 0.5 else (*bundles, bundles[0])
    return _sealed(structs.replace(liar.block_of(proposal), bundles=wrong))


def _forged_bundle(liar: "Adversary", proposal: Proposal) -> Block | None:
    """Takes a bundle that its source never sent: other records under a real proof, or a proof of its own making."""
    heard = [m.bundle for m in liar.heard if isinstance(m, BundleDelivery)]
    parent = liar.replica.branches.after(proposal.block.header.parent)
    if not heard or parent is None:
        return None
    certified = liar.chance.choice(heard)
    source = certified.bundle.source
    records = liar.made_up_records()
    bundle = Bundle(source, liar.replica.shard, parent.cursor(source) + 1, tuple(records))
    forged = structs.replace(certified, bundle=bundle)
    if liar.chance.random() < 0.5:
        forged = liar.certified_by_itself(bundle, certified.header)
    return liar.rival(proposal, [], taken=((forged,), (encode(forged),)))


def _spoiled(liar: "Adversary", proposal: Proposal) -> Block | None:
    """A payment as it was ordered, with a witness that does not sign it."""
    waiting = [entry.encoded for entry in liar.replica.mempool] or liar.block_of(proposal).transactions
    if not waiting:
        return None
    transaction = decode_transaction(liar.chance.choice(waiting))
    *others, last = transaction.witnesses
    spoiled = structs.replace(last, signature=last.signature[:-1] + bytes([last.signature[-1] ^ 1]))
    return _with_transactions(liar, proposal, [encode(Transaction(transaction.order, (*others, spoiled)))])


def _without_justification(liar: "Adversary", proposal: Proposal) -> Block | None:
    """On the last final block, whatever was notarized since."""
    replica = liar.replica
    turn = Turn(proposal.block.header.view, replica.consensus.tree.root_hash, None, ())
    if proposal.block.header.parent == turn.parent:
        return None
    time = max(proposal.block.header.time, replica.state.time)
    skip = replica.consensus.tree.skip_after(turn.parent)
    candidate = build_block(replica.state, turn, skip, replica.seat, replica.rules, time, ((), ()), ())
    return candidate.block


def _unfunded(liar: "Adversary", proposal: Proposal) -> Block | None:
    """A payment of somebody who holds nothing."""
    payer, payee = (liar.node.world.key_in(liar.replica.shard, liar.chance) for _ in range(2))
    return _paying(liar, proposal, payer, Leg(address_of(payer.public), address_of(payee.public), "USD", 1))


def _without_fee(liar: "Adversary", proposal: Proposal) -> Block | None:
    """A payment that costs a fee, and does not pay it."""
    accounts = liar.node.world.gateways[0].accounts[liar.replica.shard]
    payer, payee = liar.chance.sample(accounts, 2)
    return _paying(liar, proposal, payer, Leg(address_of(payer.public), address_of(payee.public), "EUR", 10))


def _paying(liar: "Adversary", proposal: Proposal, payer: KeyPair, leg: Leg) -> Block:
    """The block with one payment more, well signed."""
    until = proposal.block.header.time + 5_000
    order = Order(liar.replica.document.network_id, (leg,), "", until, liar.chance.randbytes(8))
    return _with_transactions(liar, proposal, [*liar.block_of(proposal).transactions, encode(order.sign([payer]))])


NONSENSE: list[Callable[["Adversary", Proposal], Block | None]] = [
    _with_header(state_root=b"\x01" * 32),
    _with_header(skip=b"\x01" * 32),
    _with_header(totals_hash=b"\x01" * 32),
    _with_header(receipts_root=b"\x01" * 32),
    _with_header(outbox_root=b"\x01" * 32),
    _with_header(payload_root=b"\x01" * 32),
    _with_header(parent=b"\x01" * 32),
    _with_header(height=1_000_000),
    _with_header(shard=1_000),
    _again,
    _again,
    _twice,
    _unsigned,
    _unsigned,
    _unfunded,
    _unfunded,
    _without_fee,
    _too_many,
    _too_early,
    _backwards,
    _out_of_turn,
    _forged_bundle,
    _forged_bundle,
    _spoiled,
    _spoiled,
    _without_justification,
]
