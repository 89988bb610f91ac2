"""Whether money in and out adds up: this gateway's records against the card processor's, the bank's, and the certified ledger.

Three questions, each answered item by item or within bounds, so that what is under way meanwhile is no difference:

1. Is every purchase's money where its status says, and every payout's? (``purchase_keeps``, ``payout_pays``)
2. Do processor and bank know anything that this gateway does not?
3. Did the issuer's key mint and burn what this gateway's payments say, and nobody else with it? (``compare_ledger``)
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog
from sqlalchemy import Connection, Row, func, select

from gateway.database import Cursor, Database, Transfer, now_ms
from gateway.epochs import StoredEpochs
from gateway.jobs import Jobs
from gateway.money.banks import BankRail, BankState, BankTransfer, BankUnavailable
from gateway.money.cards import CardProcessor, Charge, ProcessorUnavailable
from gateway.money.tables import FaucetGrant, Payout, Purchase, Refund
from gateway.problems import Problem
from gateway.projection import Status
from gateway.queries import Queries
from node.client.blocks import prove_block
from node.client.line import BrokerUnavailable
from node.protocol.amounts import format_amount
from node.protocol.block import AssetTotal
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.genesis import Asset
from node.protocol.queries import BlockList, GetBlocks, GetStatus

log = structlog.get_logger()
T = TypeVar("T")
STUCK_MS = 3_600_000
"""What is under way for so long is a difference, too."""
_EVERY = 300.0
_FIRST_MS = 60_000
_SHARE = 100
"""It takes at most one part in so many of the time."""
_PAGE = 500
_ASK_SECONDS = 2.0
_ROUNDS = 5
_RETRY = 0.2
_AGAIN = 1.0
_UNDER_WAY = tuple(status.value for status in Status if not status.is_final)
SOURCES: dict[str, tuple[Any, Any]] = {
    "purchases": (Purchase, Purchase.transfer_id),
    "faucet": (FaucetGrant, FaucetGrant.transaction_id),
    "returned_payouts": (Payout, Payout.return_transfer_id),
    "refused_refunds": (Refund, Refund.return_transfer_id),
    "payouts": (Payout, Payout.transfer_id),
    "refunds": (Refund, Refund.transfer_id),
}
"""Which records' payments mint and burn, and the column that names the payment."""
MINTING = ("purchases", "faucet", "returned_payouts", "refused_refunds")
BURNING = ("payouts", "refunds")


class CannotTell(Exception):
    """Somebody did not answer; the text says who."""


class Moved(NamedTuple):
    """Units that this gateway's payments minted or burned, and that those under way may yet."""

    done: int = 0
    under_way: int = 0


Books = Mapping[str, Mapping[str, Moved]]
"""By source and asset."""


class Report(NamedTuple):
    """``balanced``: None when that cannot be told, for the reasons in ``unknown``. Amounts are decimal strings."""

    balanced: bool | None
    assets: dict[str, dict[str, Any]]
    differences: list[str]
    unknown: list[str]


def purchase_keeps(purchase: Row[Any]) -> range:
    """What the processor may hold of a purchase, in units, if all is well: one value once it has ended."""
    if purchase.status in ("processing", "requires_action", "minting"):
        return range(purchase.units + 1)
    if purchase.status in ("completed", "refunded"):
        left = purchase.units - purchase.refunded
        return range(left - int(purchase.refunding), left + 1)
    return range(1)


def payout_pays(payout: Row[Any], state: BankState) -> range:
    """What the bank may have paid of a payout, in units, if all is well."""
    if payout.status == "processing":  # burned, and the bank may know
        return range(payout.units + 1)
    if payout.status == "paid" or (payout.status == "sent" and state is not BankState.RETURNED):
        return range(payout.units, payout.units + 1)
    return range(1)


def compare_ledger(asset: str, before: Books, certified: AssetTotal | None, after: Books) -> Iterator[tuple[str, int]]:
    """What the ledger's figures lack of this gateway's as of before, and what they have beyond those of after, in units."""
    minted, burned = (certified.minted, certified.burned) if certified is not None else (0, 0)
    for verb, figure, sources in (("minted", minted, MINTING), ("burned", burned, BURNING)):
        least = sum(before[source].get(asset, Moved()).done for source in sources)
        most = sum(sum(after[source].get(asset, Moved())) for source in sources)
        if figure < least:
            yield f"this gateway's payments {verb} more than the ledger has certified", least - figure
        elif figure > most and verb == "minted":  # burning is everybody's right, and fees are burned, too
            yield "minted with the issuer's key, but by no payment of this gateway", figure - most


class Reconciliation:
    """``run`` makes a report; the job does every few minutes.

    Attributes:
        latest: the job's last report.
    """

    def __init__(
        self,
        database: Database,
        assets: Mapping[str, Asset],
        epochs: StoredEpochs,
        queries: Queries,
        processor: CardProcessor | None,
        rail: BankRail | None,
    ) -> None:
        self._database, self._assets, self._epochs, self._queries = database, assets, epochs, queries
        self._processor, self._rail = processor, rail
        self.latest: Report | None = None

    async def keep(self, jobs: Jobs) -> None:
        """Have it done from now on."""
        jobs.handle("reconcile", self._step)
        await jobs.write(lambda c: jobs.add(c, "reconcile", "all", now_ms() + _FIRST_MS))

    async def _step(self, _: str) -> float:
        begun = now_ms()
        report = self.latest = await self.run()
        for text in report.differences[:20]:
            log.error("money does not add up", difference=text)
        return max(_EVERY, _SHARE * (now_ms() - begun) / 1000)

    async def run(self) -> Report:
        """Ask everybody."""
        unknown, figures = list[str](), defaultdict[str, dict[str, Any]](dict)
        differences = await self._told(self._items(figures), unknown)
        differences += await self._told(self._ledger(figures), unknown)
        balanced = False if differences else None if unknown else True
        return Report(balanced, dict(sorted(figures.items())), differences, unknown)

    async def _told(self, question: Awaitable[list[str]], unknown: list[str]) -> list[str]:
        try:
            return await question
        except (CannotTell, ProcessorUnavailable, BankUnavailable, BrokerUnavailable) as error:
            unknown.append(str(error))
        except Problem as problem:
            unknown.append(problem.detail)
        return []

    # -- cards and banks, item by item

    async def _items(self, figures: dict[str, dict[str, Any]]) -> list[str]:
        """A difference counts when it is still there a moment later: what moves in between is none."""
        suspects = await self._look(None, figures)
        if not suspects:
            return []
        await asyncio.sleep(_AGAIN)
        again = await self._look(set(suspects), None)
        return [again[one] for one in suspects if one in again]

    async def _look(self, only: set[str] | None, figures: dict[str, dict[str, Any]] | None) -> dict[str, str]:
        """What is wrong with which record: of all, or of ``only`` those."""
        wrong: dict[str, str] = {}
        sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        if (processor := self._processor) is not None:
            async for charge_id, charge, purchase in self._pairs(_purchases, processor.states, processor.statement, only):
                sums[charge.asset, "held_by_cards"] += charge.kept
                sums[charge.asset, "disputed"] += charge.lost
                if (text := self._purchase_wrong(charge_id, charge, purchase)) is not None:
                    wrong[charge_id] = text
        if (rail := self._rail) is not None:
            async for payout_id, transfer, payout in self._pairs(_payouts, rail.states, rail.statement, only):
                sums[transfer.asset, "paid_by_bank"] += transfer.paid
                if (text := self._payout_wrong(payout_id, transfer, payout)) is not None:
                    wrong[payout_id] = text
        if figures is not None:
            for (asset, name), units in sums.items():
                if asset:
                    figures[asset][name] = self._amount(asset, units)
        return wrong

    async def _pairs(
        self,
        rows_of: Callable[[Connection, int, set[str] | None], Sequence[Row[Any]]],
        states: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        statement: Callable[[str], Awaitable[Sequence[tuple[str, T]]]],
        only: set[str] | None,
    ) -> Any:
        """Each record here with what the other side says of it, then what only the other side knows."""

        async def recorded(after: int, ids: set[str] | None) -> Sequence[Row[Any]]:
            return await self._database.read(lambda c: rows_of(c, after, ids))

        number = 0
        while rows := await recorded(number, only):
            number = rows[-1].number
            theirs = await states([row.id for row in rows])
            for row in rows:
                yield row.id, theirs[row.id], row
        after = ""
        while page := await statement(after):
            after = page[-1][0]
            ids = [one for one, _ in page if only is None or one in only]
            ours = {row.id for row in await recorded(0, set(ids))}
            for one, state in page:
                if one in ids and one not in ours:
                    yield one, state, None

    def _purchase_wrong(self, charge_id: str, charge: Charge, purchase: Row[Any] | None) -> str | None:
        if purchase is None:
            shown = self._shown(charge.asset, charge.kept) if charge.kept else ""
            return (shown and f"card: {shown} is held for a charge {charge_id} that no purchase knows") or None
        if charge.kept not in (allowed := purchase_keeps(purchase)):
            held, meant = (self._shown(purchase.asset, units) for units in (charge.kept, allowed[-1]))
            return f"card: of purchase {purchase.id} ({purchase.status}) {held} is held, and should be {meant}"
        return self._stuck("purchase", purchase, ("processing", "minting"))

    def _payout_wrong(self, payout_id: str, transfer: BankTransfer, payout: Row[Any] | None) -> str | None:
        if payout is None:
            shown = self._shown(transfer.asset, transfer.paid) if transfer.paid else ""
            return (shown and f"bank: {shown} was paid under {payout_id}, which no payout knows") or None
        if transfer.paid not in (allowed := payout_pays(payout, transfer.state)):
            paid, meant = (self._shown(payout.asset, units) for units in (transfer.paid, allowed[-1]))
            return f"bank: of payout {payout.id} ({payout.status}) {paid} was paid, and should be {meant}"
        returned = payout.status == "sent" and transfer.state is BankState.RETURNED
        return self._stuck("payout", payout, ("processing", "sent") if returned else ("processing",))

    def _stuck(self, kind: str, row: Row[Any], passing: tuple[str, ...]) -> str | None:
        old = row.status in passing and now_ms() - row.created_at > STUCK_MS
        return f"{kind} {row.id} of {self._shown(row.asset, row.units)} is {row.status} for more than an hour" if old else None

    # -- the ledger

    async def _ledger(self, figures: dict[str, dict[str, Any]]) -> list[str]:
        """The books are read before and after the ledger is asked: what becomes final in between is in one of them."""
        before, heights = await self._database.read(lambda c: (_books(c), _heights(c)))
        certified = await self._certified(heights)
        after = await self._database.read(_books)
        differences = []
        for code in sorted(self._assets):
            total = certified.get(code)
            wrong = [f"{code}: {self._shown(code, units)} {text}" for text, units in compare_ledger(code, before, total, after)]
            differences += wrong
            figures[code] |= {source: self._amount(code, after[source].get(code, Moved()).done) for source in SOURCES}
            for name in ("minted", "burned"):
                figures[code][f"certified_{name}"] = self._amount(code, getattr(total, name) if total is not None else 0)
        return differences

    async def _certified(self, heights: Mapping[Chain, int]) -> dict[str, AssetTotal]:
        """Each asset's totals in its issuer's shard, at the height up to which this gateway has followed it or a later one. In a
        chain that has no block yet nothing can be told."""
        document = self._epochs.require()
        homes: dict[int, list[str]] = {}
        for code, asset in self._assets.items():
            homes.setdefault(document.shards.shard_of(asset.issuer_address), []).append(code)
        found: dict[str, AssetTotal] = {}
        for shard, codes in homes.items():
            electorate = document.electorates[shard]
            totals = await self._totals(electorate, heights.get(electorate.chain, 0))
            found |= {total.asset: total for total in totals if total.asset in codes}
        return found

    async def _totals(self, electorate: Electorate, not_before: int) -> Sequence[AssetTotal]:
        """Of a block that the committee made final. Raises CannotTell, BrokerUnavailable."""

        for _ in range(_ROUNDS):
            question = await self._queries.ask(electorate, GetStatus(), _ASK_SECONDS)
            height = question.quorum_height()
            if height is None or height < max(not_before, 1):
                await asyncio.sleep(_RETRY)
                continue
            for member in question.answers:
                answer = await self._queries.ask_one(electorate, member, GetBlocks(height, 1), _ASK_SECONDS)
                for certified in answer.blocks if isinstance(answer, BlockList) else ():
                    proven = await asyncio.to_thread(prove_block, certified, electorate)
                    if proven is not None and proven.header.height == height:
                        return certified.effects.totals.assets
        raise CannotTell(f"shard {electorate.shard}: no quorum proves a block at height {not_before} or above")

    def _amount(self, asset: str, units: int) -> str:
        return format_amount(units, self._assets[asset].decimals)

    def _shown(self, asset: str, units: int) -> str:
        return f"{self._amount(asset, units)} {asset}"


def _heights(connection: Connection) -> dict[Chain, int]:
    rows = connection.execute(select(Cursor.epoch, Cursor.shard, Cursor.height))
    return {Chain(row.epoch, row.shard): row.height for row in rows}


def _books(connection: Connection) -> Books:
    books: dict[str, dict[str, Moved]] = {}
    for source, (model, transfer_id) in SOURCES.items():
        sums = [_sums(connection, model, transfer_id, states) for states in (("committed",), _UNDER_WAY)]
        books[source] = {asset: Moved(*(some.get(asset, 0) for some in sums)) for asset in {*sums[0], *sums[1]}}
    return books


def _sums(connection: Connection, model: Any, transfer_id: Any, states: tuple[str, ...]) -> dict[str, int]:
    query = select(model.asset, func.sum(model.units)).join(Transfer, Transfer.transaction_id == transfer_id)
    query = query.where(Transfer.status.in_(states))
    if model is Refund:
        query = query.where(Refund.purchase_id.is_not(None))
    return {asset: int(units) for asset, units in connection.execute(query.group_by(model.asset))}


def _purchases(connection: Connection, after: int, only: set[str] | None) -> Sequence[Row[Any]]:
    """With ``refunding``: the units of their refunds under way."""
    under_way = (Refund.purchase_id == Purchase.id, Refund.status == "processing")
    refunding = select(func.coalesce(func.sum(Refund.units), 0)).where(*under_way).scalar_subquery().label("refunding")
    return _page(connection, select(Purchase.__table__, refunding), Purchase, after, only)


def _payouts(connection: Connection, after: int, only: set[str] | None) -> Sequence[Row[Any]]:
    return _page(connection, select(Payout.__table__), Payout, after, only)


def _page(connection: Connection, query: Any, model: Any, after: int, only: set[str] | None) -> Sequence[Row[Any]]:
    query = query.where(model.number > after).order_by(model.number).limit(_PAGE)
    if only is not None:
        query = query.where(model.id.in_(only))
    return list(connection.execute(query).all())
