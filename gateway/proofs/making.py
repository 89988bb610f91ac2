"""Makes proofs out of blocks that members still have. Each is checked here as anybody would check it, before it is handed out."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import select

from gateway.at_once import AtOnce
from gateway.database import AccountBalance, Database, Transfer
from gateway.epochs import StoredEpochs
from gateway.follower import ShardFollower
from gateway.problems import Problem
from gateway.projection import Status
from gateway.proofs.checking import Refused, prove_account, prove_transaction
from gateway.proofs.form import MAX_EPOCHS, AccountProof, CertifiedChanges, CertifiedReceipt, TransactionProof
from gateway.rows import read_heights
from node.client.blocks import ProvenBlock
from node.protocol import merkle
from node.protocol.address import encode_address
from node.protocol.block import Outcome
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.epoch import EpochDocument, Opening
from node.protocol.genesis import Genesis
from node.protocol.succession import Succession
from node.protocol.transaction import decode_transaction

T = TypeVar("T")
MAX_AT_ONCE = 16
"""Proofs made at the same time: each asks members for up to 64 blocks."""


class Lineage(NamedTuple):
    """What leads from the genesis to an epoch: its document is the last."""

    opening: Opening
    successions: Sequence[Succession]
    documents: Sequence[EpochDocument]

    @property
    def shown(self) -> dict[str, Any]:
        """As parts of a proof."""
        return {"opening": encode(self.opening).hex(), "successions": tuple(encode(one).hex() for one in self.successions)}


class Proofs:
    """``followers``: of each chain, which ask its members for blocks."""

    def __init__(
        self, genesis: Genesis, database: Database, epochs: StoredEpochs, followers: Mapping[Chain, ShardFollower]
    ) -> None:
        self._genesis, self._database, self._epochs, self._followers = genesis, database, epochs, followers
        self._making = AtOnce(MAX_AT_ONCE, "too many proofs are being made")

    async def of_transaction(self, transaction_id: bytes) -> TransactionProof:
        """What became of a transaction that is final.

        Raises:
            Problem: 404 not known here; 409 not final yet, or nothing in a block says so; 503.
        """
        query = select(Transfer.__table__).where(Transfer.transaction_id == transaction_id)
        row = await self._database.read(lambda c: c.execute(query).mappings().first())
        if row is None:
            raise Problem(404, "transfer_not_found", "there is no such transfer")
        status = Status(row["status"])
        if not status.is_final:
            raise Problem(409, "not_final", "what becomes of this transfer is not decided yet", retry_after=1)
        if row["height"] is None:
            raise Problem(409, "not_in_a_block", "no block took this transfer, and that it took none cannot be proven by one")
        epoch, home, committed = row["epoch"], row["home_shard"], read_heights(row["committed_in"])
        places = [(Chain(epoch, home), row["height"])]
        if status is Status.COMMITTED:
            places += sorted((Chain(epoch, shard), height) for shard, height in committed.items() if shard != home)
        with self._making:
            blocks = await self._blocks(places)
            return await self._made(epoch, lambda lineage: transaction_proof(self._genesis, lineage, row["payload"], blocks))

    async def of_account(self, address: bytes) -> AccountProof:
        """The latest change of each asset's balance that this gateway has seen.

        Raises:
            Problem: 404 no wallet here has the account; 409 no block seen here changed it; 503.
        """
        query = select(AccountBalance.epoch, AccountBalance.height).where(AccountBalance.address == address)
        places = await self._database.read(lambda c: sorted({(epoch, height) for epoch, height in c.execute(query)}))
        if not places:
            raise Problem(
                404, "account_not_followed", "this gateway has seen no change of this account: it follows its wallets only"
            )
        shards = {epoch: self._epochs.table(epoch).shard_of(address) for epoch, _ in places}
        with self._making:
            followed = await self._blocks((Chain(epoch, shards[epoch]), height) for epoch, height in places if height)
            blocks = [block for block in followed if _changes_account(block, address)]
            if not blocks:
                raise Problem(409, "not_in_a_block", "this account was last changed before this gateway followed it")
            return await self._made(places[-1][0], lambda lineage: account_proof(self._genesis, lineage, address, blocks))

    async def _blocks(self, places: Iterable[tuple[Chain, int]]) -> list[ProvenBlock]:
        return await asyncio.gather(*(self._followers[chain].block(height) for chain, height in places))

    async def _made(self, epoch: int, make: Callable[[Lineage], T]) -> T:
        """In a thread: a block may have megabytes."""
        if epoch > MAX_EPOCHS:
            raise Problem(409, "not_provable", f"a proof goes through {MAX_EPOCHS} epochs at most")
        self._epochs.table(epoch)
        assert self._epochs.opening is not None
        lineage = Lineage(self._epochs.opening, self._epochs.chronicle.successions[: epoch - 1], self._epochs.documents[:epoch])
        try:
            return await asyncio.to_thread(make, lineage)
        except Refused as refused:
            raise Problem(409, "not_provable", f"what the committees have certified does not prove it: {refused}") from None


def transaction_proof(genesis: Genesis, lineage: Lineage, transaction: bytes, blocks: Sequence[ProvenBlock]) -> TransactionProof:
    """``transaction``: encoded, with its signatures; ``blocks``: with its verdicts, the home shard's first. Raises Refused."""
    transaction_id, payload = decode_transaction(transaction).id, transaction.hex()
    receipts = tuple(_certified_receipt(block, transaction_id) for block in blocks)
    claim = prove_transaction(lineage.documents, genesis, payload, receipts)
    parts: dict[str, Any] = {"claim": claim, "transaction": payload, "receipts": receipts}
    return TransactionProof(kind="transaction", version=1, **lineage.shown, **parts)


def account_proof(genesis: Genesis, lineage: Lineage, address: bytes, blocks: Sequence[ProvenBlock]) -> AccountProof:
    """``blocks``: of the account's shard, which changed it. Raises Refused."""
    changes = tuple(_certified_changes(block) for block in blocks)
    claim = prove_account(lineage.documents, genesis, encode_address(address), changes)
    return AccountProof(kind="account", version=1, **lineage.shown, claim=claim, changes=changes)


def _certified_receipt(block: ProvenBlock, transaction_id: bytes) -> CertifiedReceipt:
    """The block's verdict about a transaction. Raises Refused when it has none."""
    receipts = block.certified.effects.receipts
    for index, receipt in enumerate(receipts):
        verdict = receipt.outcome is not Outcome.PREPARED and receipt.code is not Code.DUPLICATE
        if receipt.transaction_id == transaction_id and verdict:
            branch = merkle.branch([encode(one) for one in receipts], index)
            header, finality = _proven(block)
            return CertifiedReceipt(header=header, finality=finality, receipt=encode(receipt).hex(), branch=encode(branch).hex())
    raise Refused(f"shard {block.header.shard}: no verdict about it in block {block.header.height}")


def _certified_changes(block: ProvenBlock) -> CertifiedChanges:
    header, finality = _proven(block)
    return CertifiedChanges(header=header, finality=finality, changes=encode(block.certified.effects.changes).hex())


def _changes_account(block: ProvenBlock, address: bytes) -> bool:
    return any(change.address == address for change in block.certified.effects.changes.balances)


def _proven(block: ProvenBlock) -> tuple[str, str]:
    """Header and finality."""
    return encode(block.header).hex(), encode(block.certified.finality).hex()
