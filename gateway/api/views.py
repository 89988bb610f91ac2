"""How the API shows what several endpoints show."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.projection import Status

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-01T09:30:00.000Z"])]
Amount = Annotated[str, Field(examples=["12.50"])]
Asset = Annotated[str, Field(examples=["USD"])]
Address = Annotated[str, Field(examples=["spay1qqqsyqcyq5rqwzqfpg9scrgwpugpzysn6e3j8p"])]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
TransferId = Annotated[
    str, Field(pattern="^[0-9a-f]{64}$", examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
]
Shard = Annotated[int, Field(ge=0, examples=[0])]
Height = Annotated[int, Field(ge=0, examples=[1024])]
Outcome = Annotated[
    str | None, Field(description="A code of the ledger, which says why; null: none.", examples=["insufficient_funds"])
]


class View(BaseModel):
    """Nothing is shown that is not described."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)


class LegView(View):
    payer: Annotated[Address, Field(alias="from")]
    to: Address
    asset: Asset
    amount: Amount


class TransferView(View):
    """Its first leg once more as `from`, `to`, `asset` and `amount`."""

    id: TransferId
    transaction_id: TransferId
    kind: Annotated[str, Field(examples=["transfer"])]
    status: Status
    code: Annotated[Outcome, Field(description="Why it was rejected or has expired.")]
    hint: Annotated[Outcome, Field(description="What members say while it is under way; no proof.")]
    epoch: Annotated[int, Field(description="In which shards and height are meant.", examples=[1])]
    home_shard: Shard
    shards: list[Shard]
    height: Annotated[Height | None, Field(description="Of the home shard's block that decided it, or holds the amount.")]
    payer: Annotated[Address, Field(alias="from")]
    to: Address
    asset: Asset
    amount: Amount
    fee: Annotated[Amount | None, Field(description="What the issuer gets beside it; null where the asset costs none.")]
    memo: Annotated[str, Field(description="Everybody can read it.", examples=["Thanks!"])]
    legs: list[LegView]
    valid_until: Annotated[Time | None, Field(description="By block time; null beyond the year 9999.")]
    created_at: Time | None
    finalized_at: Time | None


class Line(TransferView):
    """A transfer, as `GET /v1/transfers/{id}` shows it, seen from one of your wallets: one leg of it.

    `at`: when the line came to be: of what you sent when it was handed in, of what you received when it had arrived. `balance`:
    what the wallet held of the asset, reserved amounts included, right after the block that carried it out; null until then,
    and where a wallet has so many addresses that it takes long to add up.
    """

    wallet_id: str
    direction: Literal["sent", "received"]
    counterparty: Address
    at: Time | None
    balance: Amount | None
