"""The network, its blocks and accounts: what anybody may see."""

from collections import Counter
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Query

from gateway.api.requests import GatewayPart, account_address
from gateway.follower import ShardFollower, summary_of
from gateway.history import legs_view
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.times import iso
from node.client.line import BrokerUnavailable
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount
from node.protocol.codec import DecodeError
from node.protocol.genesis import Asset
from node.protocol.queries import GetPending, PendingList
from node.protocol.transaction import decode_transaction

router = APIRouter(prefix="/v1", tags=["explorer"])
Limit = Annotated[int, Query(ge=1, le=100)]
Shard = Annotated[int, Query(ge=0)]
T = TypeVar("T")


@router.get("/network")
async def network(gateway: GatewayPart) -> dict[str, Any]:
    """The committees and their members, as far as they answer. `followed_by`: the gateway process that follows their chains."""
    document, notice = gateway.epochs.document, gateway.epochs.notice
    genesis = gateway.genesis
    committees = [_committee(gateway, shard) for shard in sorted(gateway.followers)]
    return {
        "network": document.network_id.hex() if document else None,
        "genesis": genesis.hash.hex(),
        "name": genesis.name,
        "epoch": document.number if document else None,
        "document": document.hash.hex() if document else None,
        "phase": notice.phase.value if notice else None,
        "assets": [_asset_view(asset) for asset in genesis.assets],
        "committees": committees,
        "followed_by": gateway.lease.holder or None,
    }


def _asset_view(asset: Asset) -> dict[str, Any]:
    terms = {name: format_amount(getattr(asset, name), asset.decimals) for name in ("fee", "smallest_balance")}
    return {"code": asset.code, "decimals": asset.decimals, "issuer": encode_address(asset.issuer_address), **terms}


@router.get("/blocks")
async def blocks(gateway: GatewayPart, shard: Shard = 0, limit: Limit = 20) -> dict[str, Any]:
    """The latest blocks of a shard, latest first."""
    follower = _follower(gateway, shard)
    known = list(follower.recent)[-limit:]
    first = max(1, follower.height - limit + 1)
    oldest = known[0].height if known else follower.height + 1
    older = await _fetch(gateway, shard, first, oldest - first) if first < oldest else []
    items = [summary for summary in older if summary["height"] < oldest] + [msgspec.to_builtins(summary) for summary in known]
    return {"items": [{**item, "time": iso(item["time"])} for item in reversed(items)]}


@router.get("/blocks/{shard}/{height}")
async def block(shard: int, height: int, gateway: GatewayPart) -> dict[str, Any]:
    """A block with its transactions and receipts, as a member gave it and its certificate proves it."""
    follower = _follower(gateway, shard)
    if not 1 <= height <= follower.height:
        raise Problem(404, "block_not_found", "there is no such block")
    proven = await follower.block(height)
    assets = gateway.payments.assets
    header, certified = proven.header, proven.certified
    return {
        **msgspec.to_builtins(summary_of(proven)),
        "time": iso(header.time),
        "parent": header.parent.hex(),
        "state_root": header.state_root.hex(),
        "signers": certified.finality.certificate.signers,
        "transactions": [
            {"id": t.id.hex(), "memo": t.order.memo, "legs": legs_view(t.order.legs, assets)} for t in proven.transactions
        ],
        "receipts": [
            {"transaction_id": r.transaction_id.hex(), "outcome": r.outcome.name.lower(), "code": r.code.value or None}
            for r in certified.effects.receipts
        ],
    }


@router.get("/accounts/{address}")
async def account(address: str, gateway: GatewayPart) -> dict[str, Any]:
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
        balances[code] = {**amounts, "frozen": balance.frozen}
    return {"address": encode_address(raw), "shard": shard, "height": found.height, "balances": balances}


@router.get("/pending")
async def pending(gateway: GatewayPart, limit: Limit = 50) -> dict[str, Any]:
    """Transactions that wait for a block. One member of each committee is asked: its word, not a proof."""
    totals: Counter[int] = Counter()
    items: list[dict[str, Any]] = []
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
            legs = legs_view(transaction.order.legs, gateway.payments.assets)
            items.append({"id": transaction.id.hex(), "shard": shard, "memo": transaction.order.memo, "legs": legs})
    return {"total": sum(totals.values()), "items": items}


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


def _committee(gateway: Gateway, shard: int) -> dict[str, Any]:
    document = gateway.epochs.require()
    committee = next(c for c in document.committees if c.shard == shard)
    members = []
    for index, registration in enumerate(committee.members):
        up, status = gateway.view.status(shard, index)
        member: dict[str, Any] = {"name": registration.name, "up": up, "public_key": registration.public_key.hex()}
        if status is not None:
            member |= {"height": status.height, "view": status.view, "state_root": status.state_root.hex()}
            member |= {"leader": status.leader, "mempool": status.mempool, "pending_commits": status.pending_commits}
        else:
            member |= {"height": None}
        members.append(member)
    return {
        "shard": shard,
        "height": gateway.followers[shard].height,
        "members": members,
        "faults_tolerated": document.electorates[shard].faults_tolerated,
    }
