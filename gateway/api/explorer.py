"""The network, its blocks and accounts: what anybody may see."""

from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field

from gateway.api.errors import errors
from gateway.api.requests import GatewayPart, account_address
from gateway.api.views import Address, Amount, Hash, Height, LegView, Outcome, Time, TransferId, View
from gateway.api.views import Asset as AssetCode
from gateway.api.views import Shard as ShardNumber
from gateway.follower import ShardFollower, summary_of
from gateway.history import legs_view
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.times import iso
from node.client.line import BrokerUnavailable
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount
from node.protocol.codec import DecodeError
from node.protocol.epoch import Registration
from node.protocol.genesis import Asset
from node.protocol.queries import GetPending, PendingList
from node.protocol.transaction import Leg, decode_transaction

router = APIRouter(prefix="/v1", tags=["explorer"])
Limit = Annotated[int, Query(ge=1, le=100)]
Shard = Annotated[int, Query(ge=0)]
T = TypeVar("T")


class AssetTerms(View):
    code: AssetCode
    decimals: Annotated[int, Field(examples=[2])]
    issuer: Address
    fee: Annotated[Amount, Field(description="Of each payment.")]
    smallest_balance: Annotated[Amount, Field(description="What an account holds at least, or nothing.")]


class MemberView(View):
    """What a member said last of itself; nothing but its `height`, null, before it has."""

    name: str
    up: Annotated[bool, Field(description="Whether it has answered within three seconds.")]
    public_key: Annotated[str, Field(pattern="^[0-9a-f]{66}$")]
    height: Height | None
    view: int | None = None
    state_root: Hash | None = None
    leader: int | None = None
    mempool: int | None = None
    pending_commits: int | None = None


class CommitteeView(View):
    shard: ShardNumber
    height: Height
    members: list[MemberView]
    faults_tolerated: int


class NetworkView(View):
    """`document` and what follows from it is null until the network has formed its committees."""

    network: str | None
    genesis: Hash
    name: str
    epoch: int | None
    document: Hash | None
    phase: str | None
    assets: list[AssetTerms]
    committees: list[CommitteeView]
    followed_by: Annotated[str | None, Field(description="The gateway process that follows their chains.")]


class BlockLine(View):
    """`time`: null beyond the year 9999."""

    shard: ShardNumber
    height: Height
    hash: Hash
    time: Time | None
    view: int
    proposer: int
    transactions: int
    bundles: int
    receipts: int


class BlockLines(View):
    items: list[BlockLine]


class OrderView(View):
    id: TransferId
    memo: str
    legs: list[LegView]


class ReceiptView(View):
    transaction_id: TransferId
    outcome: Annotated[str, Field(examples=["committed"])]
    code: Outcome


class BlockView(View):
    shard: ShardNumber
    height: Height
    hash: Hash
    time: Time | None
    view: int
    proposer: int
    bundles: int
    parent: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
    state_root: Hash
    signers: list[int]
    transactions: list[OrderView]
    receipts: list[ReceiptView]


class AccountAmounts(View):
    available: Amount
    held: Amount
    frozen: bool


class AccountView(View):
    address: Address
    shard: ShardNumber
    height: Height
    balances: dict[str, AccountAmounts]


class PendingOrder(OrderView):
    shard: ShardNumber


class PendingOrders(View):
    total: int
    items: list[PendingOrder]


@router.get("/network", response_model_exclude_unset=True)
async def network(gateway: GatewayPart) -> NetworkView:
    """The committees and their members, as far as they answer."""
    document, notice = gateway.epochs.document, gateway.epochs.notice
    genesis = gateway.genesis
    committees = [_committee(gateway, shard) for shard in sorted(gateway.followers)]
    return NetworkView(
        network=document.network_id.hex() if document else None,
        genesis=genesis.hash.hex(),
        name=genesis.name,
        epoch=document.number if document else None,
        document=document.hash.hex() if document else None,
        phase=notice.phase.value if notice else None,
        assets=[_asset_view(asset) for asset in genesis.assets],
        committees=committees,
        followed_by=gateway.lease.holder or None,
    )


def _asset_view(asset: Asset) -> AssetTerms:
    terms = {name: format_amount(getattr(asset, name), asset.decimals) for name in ("fee", "smallest_balance")}
    return AssetTerms(code=asset.code, decimals=asset.decimals, issuer=encode_address(asset.issuer_address), **terms)


@router.get("/blocks", responses=errors("404 shard_not_found", "503 not_ready"))
async def blocks(gateway: GatewayPart, shard: Shard = 0, limit: Limit = 20) -> BlockLines:
    """The latest blocks of a shard, latest first."""
    follower = _follower(gateway, shard)
    known = list(follower.recent)[-limit:]
    first = max(1, follower.height - limit + 1)
    oldest = known[0].height if known else follower.height + 1
    older = await _fetch(gateway, shard, first, oldest - first) if first < oldest else []
    items = [summary for summary in older if summary["height"] < oldest] + [msgspec.to_builtins(summary) for summary in known]
    return BlockLines(items=[BlockLine(**{**item, "time": iso(item["time"])}) for item in reversed(items)])


@router.get(
    "/blocks/{shard}/{height}", responses=errors("404 shard_not_found", "404 block_not_found", "503 not_ready", "503 no_answer")
)
async def block(shard: int, height: int, gateway: GatewayPart) -> BlockView:
    """A block with its transactions and receipts, as a member gave it and its certificate proves it."""
    follower = _follower(gateway, shard)
    if not 1 <= height <= follower.height:
        raise Problem(404, "block_not_found", "there is no such block")
    proven = await follower.block(height)
    header, certified = proven.header, proven.certified
    transactions = [OrderView(id=t.id.hex(), memo=t.order.memo, legs=_legs(t.order.legs, gateway)) for t in proven.transactions]
    receipts = [
        ReceiptView(transaction_id=r.transaction_id.hex(), outcome=r.outcome.name.lower(), code=r.code.value or None)
        for r in certified.effects.receipts
    ]
    more = {
        "time": iso(header.time),
        "parent": header.parent.hex(),
        "state_root": header.state_root.hex(),
        "signers": certified.finality.certificate.signers,
        "transactions": transactions,
        "receipts": receipts,
    }
    return BlockView(**{**msgspec.to_builtins(summary_of(proven)), **more})


def _legs(legs: Sequence[Leg], gateway: Gateway) -> list[LegView]:
    return [LegView(**leg) for leg in legs_view(legs, gateway.payments.assets)]


@router.get("/accounts/{address}", responses=errors("422 invalid_address", "503 not_ready", "503 no_agreement"))
async def account(address: str, gateway: GatewayPart) -> AccountView:
    """Any account's balances, as more than f members of its committee tell alike."""
    raw = account_address(address)
    document = gateway.epochs.require()
    shard = document.shards.shard_of(raw)
    gateway.wallets.balance_reads += 1
    found = await _ask(gateway.queries.account(document.electorates[shard], raw))
    balances = {}
    for code, balance in found.balances:
        decimals = gateway.payments.assets[code].decimals if code in gateway.payments.assets else 0
        amounts = {name: format_amount(getattr(balance, name), decimals) for name in ("available", "held")}
        balances[code] = AccountAmounts(**amounts, frozen=balance.frozen)
    return AccountView(address=encode_address(raw), shard=shard, height=found.height, balances=balances)


@router.get("/pending", responses=errors("503 not_ready"))
async def pending(gateway: GatewayPart, limit: Limit = 50) -> PendingOrders:
    """Transactions that wait for a block. One member of each committee is asked: its word, not a proof."""
    totals: Counter[int] = Counter()
    items: list[PendingOrder] = []
    for shard, electorate in gateway.epochs.require().electorates.items():
        up = [m for m in range(len(electorate.keys)) if gateway.view.status(shard, m)[0]]
        answer = await _ask(gateway.queries.ask_one(electorate, up[0] if up else 0, GetPending(limit), timeout=1.0))
        if not isinstance(answer, PendingList):
            continue
        totals[shard] = answer.total
        for _, encoded in answer.transactions[: limit - len(items)]:
            try:
                transaction = decode_transaction(encoded)
            except DecodeError:
                continue
            legs = _legs(transaction.order.legs, gateway)
            items.append(PendingOrder(id=transaction.id.hex(), shard=shard, memo=transaction.order.memo, legs=legs))
    return PendingOrders(total=sum(totals.values()), items=items)


async def _fetch(gateway: Gateway, shard: int, first: int, count: int) -> list[dict[str, Any]]:
    found = await _ask(gateway.followers[shard].fetch(first, count))
    return [msgspec.to_builtins(summary_of(proven)) for proven in found or []]


async def _ask(question: Awaitable[T]) -> T:
    try:
        return await question
    except BrokerUnavailable:
        raise Problem(503, "not_ready", "the broker cannot be reached", retry_after=2) from None


def _follower(gateway: Gateway, shard: int) -> ShardFollower:
    gateway.epochs.require()
    if shard not in gateway.followers:
        raise Problem(404, "shard_not_found", "there is no such shard")
    return gateway.followers[shard]


def _committee(gateway: Gateway, shard: int) -> CommitteeView:
    document = gateway.epochs.require()
    committee = next(c for c in document.committees if c.shard == shard)
    return CommitteeView(
        shard=shard,
        height=gateway.followers[shard].height,
        members=[_member(gateway, shard, index, one) for index, one in enumerate(committee.members)],
        faults_tolerated=document.electorates[shard].faults_tolerated,
    )


def _member(gateway: Gateway, shard: int, index: int, registration: Registration) -> MemberView:
    up, status = gateway.view.status(shard, index)
    said: dict[str, Any] = {"height": None}
    if status is not None:
        said = {name: getattr(status, name) for name in ("height", "view", "leader", "mempool", "pending_commits")}
        said["state_root"] = status.state_root.hex()
    return MemberView(name=registration.name, up=up, public_key=registration.public_key.hex(), **said)
