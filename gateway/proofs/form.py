"""A proof as JSON: the one definition of what ``/v1/.../proof`` answers and ``python -m gateway verify`` reads.

``claim`` says in plain values what the rest proves. Whoever has checked a proof may rely on it: a claim that is not exactly what
is proven is refused. The rest are canonical MessagePack encodings (``docs/protocol.md``) in hex.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from node.protocol.limits import MAX_ASSETS, MAX_COMMITTEE, MAX_LEGS, MAX_SHARDS

MAX_PROOF_BYTES = 64 << 20
"""The largest file that is looked at."""
MAX_BLOCKS = 64
"""In one proof: a transaction touches 32 shards at most, and there are 64 assets."""
MAX_EPOCHS = 10_000
"""That one proof goes through."""

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Encoded = Annotated[str, Field(pattern="^([0-9a-f]{2})+$", max_length=MAX_PROOF_BYTES)]
Successions = Annotated[tuple[Encoded, ...], Field(max_length=MAX_EPOCHS)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ClaimedNetwork(_Form):
    """Which network: ``genesis`` and ``document`` (of ``epoch``, the last of the proof) are hashes, ``id`` is what
    its transactions name."""

    name: Annotated[str, Field(max_length=32)]
    genesis: Hash
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    epoch: int
    document: Hash


class ClaimedBlock(_Form):
    """A final block of a shard in ``epoch``. ``signers``: members of the shard's committee, by index, who signed the block at
    ``signed_height``, which is this one or one built on it; ``members``: how many there are. ``time``: block time; null beyond
    the year 9999."""

    epoch: int = 1
    shard: int
    height: int
    hash: Hash
    time: Annotated[str | None, Field(max_length=24)]
    signed_height: int
    signers: Annotated[tuple[int, ...], Field(max_length=MAX_COMMITTEE)]
    members: int


class ClaimedReceipt(_Form):
    """What became of the transaction in a shard, in which block."""

    outcome: Literal["committed", "rejected", "expired"]
    code: Annotated[str | None, Field(max_length=32)]
    block: ClaimedBlock


class ClaimedLeg(_Form):
    """What a leg does: ``pay``, or an issuer's ``freeze`` and ``unfreeze``."""

    action: Literal["pay", "freeze", "unfreeze"]
    payer: Annotated[str, Field(max_length=64)]
    payee: Annotated[str, Field(max_length=64)]
    asset: Annotated[str, Field(max_length=12)]
    amount: Annotated[str, Field(max_length=40)]


class TransactionClaim(_Form):
    """What became of a transaction. ``receipts``: the home shard's first; all shards' when it is committed."""

    network: ClaimedNetwork
    transaction_id: Hash
    status: Literal["committed", "rejected", "expired"]
    code: Annotated[str | None, Field(max_length=32)]
    legs: Annotated[tuple[ClaimedLeg, ...], Field(max_length=MAX_LEGS)]
    memo: Annotated[str, Field(max_length=140)]
    receipts: Annotated[tuple[ClaimedReceipt, ...], Field(max_length=MAX_BLOCKS)]


class ClaimedBalance(_Form):
    """An asset's balance right after ``block``, which changed it."""

    asset: Annotated[str, Field(max_length=12)]
    available: Annotated[str, Field(max_length=40)]
    held: Annotated[str, Field(max_length=40)]
    frozen: bool
    block: ClaimedBlock


class AccountClaim(_Form):
    """An account's balances, each as of its block: of later blocks, and of other assets, it says nothing."""

    network: ClaimedNetwork
    address: Annotated[str, Field(max_length=64)]
    shard: Annotated[int, Field(lt=MAX_SHARDS)]
    balances: Annotated[tuple[ClaimedBalance, ...], Field(max_length=MAX_ASSETS)]


class CertifiedReceipt(_Form):
    """A block's ``Header``, the ``Finality`` that makes it final, a ``Receipt`` and the ``Branch`` to its receipts root."""

    header: Encoded
    finality: Encoded
    receipt: Encoded
    branch: Encoded


class CertifiedChanges(_Form):
    """A block's ``Header``, the ``Finality`` that makes it final, and its ``Changes``."""

    header: Encoded
    finality: Encoded
    changes: Encoded


class TransactionProof(_Form):
    """``opening``: the first epoch document, an ``Opening``. ``successions``: what led from each epoch to the next, up to that
    in which the transaction happened, each a ``Succession``. ``transaction``: a ``Transaction`` with its signatures."""

    kind: Literal["transaction"]
    version: Literal[1]
    claim: TransactionClaim
    opening: Encoded
    successions: Successions = ()
    transaction: Encoded
    receipts: Annotated[tuple[CertifiedReceipt, ...], Field(min_length=1, max_length=MAX_BLOCKS)]


class AccountProof(_Form):
    """``opening``, ``successions``: as in the proof of a transaction, up to the epoch of the latest change."""

    kind: Literal["account"]
    version: Literal[1]
    claim: AccountClaim
    opening: Encoded
    successions: Successions = ()
    changes: Annotated[tuple[CertifiedChanges, ...], Field(min_length=1, max_length=MAX_BLOCKS)]


Proof = Annotated[TransactionProof | AccountProof, Field(discriminator="kind")]
