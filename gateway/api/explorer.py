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
from gateway.at_once import AtOnce
from gateway.follower import ShardFollower, summary_of
from gateway.history import legs_view
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.times import iso
from node.client.line import BrokerUnavailable
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError
from node.protocol.epoch import Committee, EpochDocument, Registration
from node.protocol.genesis import Asset
from node.protocol.queries import GetPending, PendingList
from node.protocol.transaction import Leg, decode_transaction

router = APIRouter(prefix="/v1", tags=["explorer"])
Limit = Annotated[int, Query(ge=1, le=100)]
Shard = Annotated[int, Query(ge=0)]
Epoch = Annotated[int, Field(ge=1, examples=[1])]
EpochAsked = Annotated[int | None, Query(ge=1, le=2**53, description="This one by default.")]
T = TypeVar("T")
_lists = AtOnce(4, "too many lists of blocks are being asked of members")
"""Each has members read, and this process check, up to 100."""
_blocks = AtOnce(4, "too many blocks are being asked of members")
_pending = AtOnce(4, "members are being asked too often for what waits")


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
    """`first` and `last`: of the addresses that the shard keeps. `origins`: the shards of the epoch before that it comes from."""

    shard: ShardNumber
    first: Address
    last: Address
    origins: list[ShardNumber]
    height: Height
    members: list[MemberView]
    faults_tolerated: int


class ChangeView(View):
    """How far the change to the next epoch is, as the register's committee has certified."""

    attempt: int
    phase: Annotated[str, Field(examples=["registration"])]
    since: Annotated[Time | None, Field(description="Block time.")]
    registered: int


class NetworkView(View):
    """`document` and what follows from it is null until the network has formed its committees; `change` until the register has
    written something down."""

    network: str | None
    genesis: Hash
    name: str
    epoch: int | None
    document: Hash | None
    document_1: Annotated[Hash | None, Field(description="Of epoch 1: all later ones follow from it.")]
    phase: str | None
    began: Annotated[Time | None, Field(description="When the epoch began, by block time; null in the first.")]
    change: ChangeView | None
    assets: list[AssetTerms]
    committees: list[CommitteeView]
    followed_by: Annotated[str | None, Field(description="The gateway process that follows their chains.")]


class BlockLine(View):
    """`time`: null beyond the year 9999."""

    epoch: Epoch
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
    epoch: Epoch
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
    epoch: Epoch
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
    return NetworkView(
        network=document.network_id.hex() if document else None,
        genesis=genesis.hash.hex(),
        name=genesis.name,
        epoch=document.number if document else None,
        document=document.hash.hex() if document else None,
        document_1=gateway.epochs.documents[0].hash.hex() if document else None,
        phase=notice.phase.value if notice else None,
        began=iso(_began(gateway) or None),
        change=_change(gateway),
        assets=[_asset_view(asset) for asset in genesis.assets],
        committees=[_committee(gateway, document, one) for one in document.committees] if document else [],
        followed_by=gateway.lease.holder or None,
    )


def _began(gateway: Gateway) -> int:
    return max((gateway.epochs.opened(electorate.chain) for electorate in gateway.epochs.current.values()), default=0)


def _change(gateway: Gateway) -> ChangeView | None:
    bulletin = gateway.epochs.chronicle.register
    if bulletin is None or (register := bulletin.change.register) is None:
        return None
    since, registered = iso(register.since), len(register.registrations)
    return ChangeView(attempt=bulletin.change.attempt, phase=register.phase.name.lower(), since=since, registered=registered)


def _asset_view(asset: Asset) -> AssetTerms:
    terms = {name: format_amount(getattr(asset, name), asset.decimals) for name in ("fee", "smallest_balance")}
    return AssetTerms(code=asset.code, decimals=asset.decimals, issuer=encode_address(asset.issuer_address), **terms)


@router.get("/blocks", responses=errors("404 shard_not_found", "503 not_ready"))
async def blocks(gateway: GatewayPart, shard: Shard = 0, limit: Limit = 20, epoch: EpochAsked = None) -> BlockLines:
    """The latest blocks of a shard in this epoch, or an earlier one, latest first."""
    chain, follower = _follower(gateway, epoch, shard)
    known = list(follower.recent)[-limit:]
    first = max(1, follower.height - limit + 1)
    oldest = known[0].height if known else follower.height + 1
    older = await _fetch(gateway, chain, first, oldest - first) if first < oldest else []
    items = [summary for summary in older if summary["height"] < oldest] + [msgspec.to_builtins(summary) for summary in known]
    return BlockLines(items=[BlockLine(**{**item, "time": iso(item["time"])}) for item in reversed(items)])


@router.get(
    "/blocks/{shard}/{height}", responses=errors("404 shard_not_found", "404 block_not_found", "503 not_ready", "503 no_answer")
)
async def block(shard: int, height: int, gateway: GatewayPart, epoch: EpochAsked = None) -> BlockView:
    """A block with its transactions and receipts, as a member gave it and its certificate proves it: of this epoch, or an earlier
    one."""
    chain, follower = _follower(gateway, epoch, shard)
    if not 1 <= height <= follower.height:
        raise Problem(404, "block_not_found", "there is no such block")
    with _blocks:
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
    return BlockView(**{**msgspec.to_builtins(summary_of(chain.epoch, proven)), **more})


def _legs(legs: Sequence[Leg], gateway: Gateway) -> list[LegView]:
    return [LegView(**leg) for leg in legs_view(legs, gateway.payments.assets)]


@router.get("/accounts/{address}", responses=errors("422 invalid_address", "503 not_ready", "503 no_agreement"))
async def account(address: str, gateway: GatewayPart) -> AccountView:
    """Any account's balances, as more than f members of its committee tell alike."""
    raw = account_address(address)
    home = gateway.epochs.home_of(raw)
    gateway.wallets.balance_reads += 1
    found = await _ask(gateway.lookups.account(gateway.epochs.electorates[home], raw))
    balances = {}
    for code, balance in found.balances:
        decimals = gateway.payments.assets[code].decimals if code in gateway.payments.assets else 0
        amounts = {name: format_amount(getattr(balance, name), decimals) for name in ("available", "held")}
        balances[code] = AccountAmounts(**amounts, frozen=balance.frozen)
    return AccountView(**home._asdict(), address=encode_address(raw), height=found.height, balances=balances)


@router.get("/pending", responses=errors("503 not_ready"))
async def pending(gateway: GatewayPart, limit: Limit = 50) -> PendingOrders:
    """Transactions that wait for a block. One member of each committee is asked: its word, not a proof."""
    with _pending:
        return await _waiting(gateway, limit)


async def _waiting(gateway: Gateway, limit: int) -> PendingOrders:
    totals: Counter[int] = Counter()
    items: list[PendingOrder] = []
    for shard, electorate in gateway.epochs.require().electorates.items():
        up = [m for m in range(len(electorate.keys)) if gateway.view.status(electorate.chain, m)[0]]
        answer = await _ask(gateway.lookups.ask_one(electorate, up[0] if up else 0, GetPending(limit), timeout=1.0))
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


async def _fetch(gateway: Gateway, chain: Chain, first: int, count: int) -> list[dict[str, Any]]:
    with _lists:
        found = await _ask(gateway.followers[chain].fetch(first, count))
    return [msgspec.to_builtins(summary_of(chain.epoch, proven)) for proven in found or []]


async def _ask(question: Awaitable[T]) -> T:
    try:
        return await question
    except BrokerUnavailable:
        raise Problem(503, "not_ready", "the broker cannot be reached", retry_after=2) from None


def _follower(gateway: Gateway, epoch: int | None, shard: int) -> tuple[Chain, ShardFollower]:
    latest = gateway.epochs.require().number
    chain = Chain(latest if epoch is None else epoch, shard)
    if chain not in gateway.followers:
        raise Problem(404, "shard_not_found", "there is no such shard")
    return chain, gateway.followers[chain]


def _committee(gateway: Gateway, document: EpochDocument, committee: Committee) -> CommitteeView:
    electorate = document.electorates[committee.shard]
    first, last = map(encode_address, document.shards.range_of(committee.shard))
    return CommitteeView(
        shard=committee.shard,
        first=first,
        last=last,
        origins=list(document.origins_of(committee.shard)),
        height=gateway.followers[electorate.chain].height,
        members=[_member(gateway, electorate.chain, index, one) for index, one in enumerate(committee.members)],
        faults_tolerated=electorate.faults_tolerated,
    )


def _member(gateway: Gateway, chain: Chain, index: int, registration: Registration) -> MemberView:
    up, status = gateway.view.status(chain, index)
    said: dict[str, Any] = {"height": None}
    if status is not None:
        said = {name: getattr(status, name) for name in ("height", "view", "leader", "mempool", "pending_commits")}
        said["state_root"] = status.state_root.hex()
    return MemberView(name=registration.name, up=up, public_key=registration.public_key.hex(), **said)
