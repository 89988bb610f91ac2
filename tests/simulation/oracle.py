"""A second opinion on the ledger: balances and holds recomputed from the chains alone, in the plainest way.

It reads each final block once, in order: which transactions it includes, which bundles it takes and sends, and what its
receipts claim. From these it works out what the balances must be, and compares.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from node.protocol.block import Outcome, Receipt
from node.protocol.certificate import CertifiedBlock
from node.protocol.channel import Bundle, CertifiedBundle, Prepare, PrepareVote
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.shards import ShardTable
from node.protocol.transaction import Action, Leg, Transaction, decode_transaction

Row = tuple[bytes, str]
Complain = Callable[[str, str], None]


class _Open(Struct):
    """A cross-shard transaction that holds something in a shard."""

    legs: tuple[Leg, ...]
    deadline: int
    missing: set[int]
    refused: Code = Code.OK


class Book:
    """One shard as the oracle sees it."""

    def __init__(self, time: int) -> None:
        self.time = time
        self.height = 0
        self.cursors: dict[int, int] = {}
        self.owned: dict[Row, int] = {}
        """Available and held together."""
        self.held: dict[Row, int] = {}
        self.frozen: dict[Row, bool] = {}
        self.minted: dict[str, int] = {}
        self.waiting: dict[bytes, _Open] = {}
        self.prepared: dict[bytes, _Open] = {}
        self.included: set[bytes] = set()
        self.answered: set[bytes] = set()
        self.final: dict[bytes, Outcome] = {}
        self.touched: set[Row] = set()


class Oracle:
    """All shards. ``complain(kind, text)`` is called for what must not be."""

    def __init__(self, genesis: Genesis, network: bytes, shards: ShardTable, complain: Complain) -> None:
        self._genesis, self._network, self._shards, self._complain = genesis, network, shards, complain
        self._issuers = {asset.code: asset.issuer_address for asset in genesis.assets}
        self.books = {shard: Book(genesis.time) for shard in shards.shards}
        self.transactions: dict[bytes, Transaction] = {}
        self._sent: dict[tuple[int, int, int], bytes] = {}
        self._taken: dict[tuple[int, int, int], bytes] = {}
        self._signed: dict[bytes, bool] = {}

    # -- reading a block -------------------------------------------------------------------------------------------

    def read(self, certified: CertifiedBlock, sent: Iterable[Bundle]) -> None:
        """The next final block of a shard and the bundles it sends."""
        block, header = certified.block, certified.block.header
        shard, book, parameters = header.shard, self.books[header.shard], self._genesis.parameters
        book.height += 1
        if header.time < book.time:
            self._complain("time", f"block {header.height} of shard {shard} goes back in time")
        book.time, book.touched = header.time, set()
        transactions = {t.id: t for t in map(decode_transaction, block.transactions)}
        self.transactions |= transactions
        if len(transactions) != len(block.transactions) or len(transactions) > parameters.block_transactions:
            self._complain("limit", f"block {header.height} of shard {shard} has too many transactions, or one twice")
        frozen: dict[bytes, list[Row]] = {}
        votes: dict[bytes, Code] = {}
        for data in block.bundles:
            self._take(shard, book, decode(CertifiedBundle, data, MAX_FRAME_BYTES).bundle, votes)
        for bundle in sent:
            self._send(shard, book, bundle, frozen)
        for receipt in certified.effects.receipts:
            self._settle(shard, book, receipt, transactions)
        silent = transactions.keys() - {receipt.transaction_id for receipt in certified.effects.receipts}
        if silent:
            self._complain("receipts", f"block {header.height} of shard {shard} has no receipt for {_short(min(silent))}")
        for transaction_id, transaction in transactions.items():
            self._include(shard, book, transaction_id, transaction)
        for (
            transaction_id,
            rows,
        ) in frozen.items():  # an account may have been unfrozen earlier in the block: not if it still is frozen
            if any(book.frozen.get(row) for row in rows):
                self._complain("frozen", f"shard {shard} prepares {_short(transaction_id)} for a frozen account")
        for transaction_id, open_ in book.waiting.items():
            if open_.deadline < header.time:
                self._complain("deadline", f"shard {shard} still waits for {_short(transaction_id)} after its deadline")
        self._compare(shard, book, certified)

    def _take(self, shard: int, book: Book, bundle: Bundle, votes: dict[bytes, Code]) -> None:
        source = bundle.source
        if bundle.destination != shard or bundle.sequence != book.cursors.get(source, 0) + 1:
            self._complain("channel", f"shard {shard} takes bundle {bundle.sequence} of shard {source} out of sequence")
        book.cursors[source] = bundle.sequence
        self._match(self._taken, (source, shard, bundle.sequence), bundle)
        for record in bundle.records:
            if isinstance(record, Prepare):
                transaction = decode_transaction(record.transaction)
                self.transactions[transaction.id] = transaction
            elif isinstance(record, PrepareVote):
                waiting = book.waiting.get(record.transaction_id)
                if waiting is not None and source in waiting.missing:
                    waiting.missing.discard(source)
                    if record.code is not Code.OK:
                        waiting.refused = record.code

    def _send(self, shard: int, book: Book, bundle: Bundle, frozen: dict[bytes, list[Row]]) -> None:
        self._match(self._sent, (shard, bundle.destination, bundle.sequence), bundle)
        for record in bundle.records:
            if isinstance(record, PrepareVote) and record.code is Code.OK:
                transaction_id = record.transaction_id
                if transaction_id in book.answered:
                    self._complain("twice", f"shard {shard} prepares {_short(transaction_id)} a second time")
                book.answered.add(transaction_id)
                legs = self.transactions[transaction_id].order.legs
                frozen[transaction_id] = [row for row in self._rows(shard, legs) if book.frozen.get(row)]
                book.prepared[transaction_id] = _Open(legs, 0, set())
                self._hold(shard, book, legs, 1)

    def _match(self, into: dict[tuple[int, int, int], bytes], key: tuple[int, int, int], bundle: Bundle) -> None:
        """What is taken must be what was sent; a bundle may be known before the block that sent it."""
        data = encode(bundle)
        other = (self._sent if into is self._taken else self._taken).get(key, data)
        if other != data:
            self._complain("channel", f"bundle {key[2]} from shard {key[0]} to {key[1]} is not what was sent")
        into[key] = data

    def _include(self, shard: int, book: Book, transaction_id: bytes, transaction: Transaction) -> None:
        order = transaction.order
        if transaction_id in book.included:
            self._complain("twice", f"shard {shard} includes {_short(transaction_id)} a second time")
        book.included.add(transaction_id)
        if self._shards.shard_of(order.legs[0].payer) != shard or order.network != self._network:
            self._complain("admission", f"{_short(transaction_id)} does not belong into shard {shard}")
        window = self._genesis.parameters.validity_window
        if not book.time <= order.valid_until <= book.time + window:
            self._complain("admission", f"shard {shard} includes {_short(transaction_id)} outside of its validity")
        if not transaction.has_valid_signatures():
            self._complain("signature", f"shard {shard} includes {_short(transaction_id)}, which its payers did not sign")

    def _settle(self, shard: int, book: Book, receipt: Receipt, transactions: dict[bytes, Transaction]) -> None:
        transaction_id, outcome = receipt.transaction_id, receipt.outcome
        if transaction_id in book.final:
            self._complain("twice", f"shard {shard} decides {_short(transaction_id)} a second time")
        if outcome is Outcome.PREPARED:
            if transaction_id in book.waiting or transaction_id not in transactions:
                self._complain("twice", f"shard {shard} begins {_short(transaction_id)} a second time")
            legs = self.transactions[transaction_id].order.legs
            others = self.shards_of(legs) - {shard}
            self._check_thawed(shard, book, transaction_id, legs)
            book.waiting[transaction_id] = _Open(legs, book.time + self._genesis.parameters.commit_timeout, others)
            self._hold(shard, book, legs, 1)
            return
        book.final[transaction_id] = outcome
        self._check_same_end(transaction_id)
        open_ = book.waiting.pop(transaction_id, None)
        if open_ is not None:
            if outcome is Outcome.COMMITTED and (open_.missing or open_.refused is not Code.OK):
                self._complain("atomicity", f"shard {shard} commits {_short(transaction_id)} without everybody's yes")
            if outcome is Outcome.EXPIRED and open_.refused is not Code.EXPIRED and open_.deadline >= book.time:
                self._complain("deadline", f"shard {shard} expires {_short(transaction_id)} before its deadline")
        else:
            open_ = book.prepared.pop(transaction_id, None)
        if open_ is not None:
            self._hold(shard, book, open_.legs, -1)
            if outcome is Outcome.COMMITTED:
                self._apply(shard, book, open_.legs)
        elif transaction_id not in transactions:
            self._complain("receipts", f"shard {shard} decides {_short(transaction_id)}, of which it knows nothing")
        elif outcome is Outcome.COMMITTED:
            legs = transactions[transaction_id].order.legs
            if self.shards_of(legs) != {shard}:
                self._complain("atomicity", f"shard {shard} commits {_short(transaction_id)} alone")
            self._check_thawed(shard, book, transaction_id, legs)
            self._apply(shard, book, legs)

    def _check_thawed(self, shard: int, book: Book, transaction_id: bytes, legs: Sequence[Leg]) -> None:
        if any(book.frozen.get(row) for row in self._rows(shard, legs)):
            self._complain("frozen", f"shard {shard} lets {_short(transaction_id)} use a frozen account")

    def _check_same_end(self, transaction_id: bytes) -> None:
        transaction = self.transactions.get(transaction_id)
        if transaction is None:
            return
        ends = {
            s: self.books[s].final[transaction_id]
            for s in self.shards_of(transaction.order.legs)
            if transaction_id in self.books[s].final
        }
        if len({outcome is Outcome.COMMITTED for outcome in ends.values()}) > 1:
            said = ", ".join(f"{outcome.name} in shard {s}" for s, outcome in ends.items())
            self._complain("atomicity", f"{_short(transaction_id)} ends differently: {said}")

    # -- money -----------------------------------------------------------------------------------------------------

    def shards_of(self, legs: Iterable[Leg]) -> set[int]:
        return {self._shards.shard_of(address) for leg in legs for address in (leg.payer, leg.payee)}

    def _rows(self, shard: int, legs: Iterable[Leg]) -> list[Row]:
        """The accounts here that payments of ``legs`` use."""
        pays = [leg for leg in legs if leg.action is Action.PAY]
        used = [(address, leg.asset) for leg in pays for address in (leg.payer, leg.payee)]
        return [row for row in used if self._is_account(shard, *row)]

    def _is_account(self, shard: int, address: bytes, asset: str) -> bool:
        return self._shards.shard_of(address) == shard and address != self._issuers[asset]

    def _hold(self, shard: int, book: Book, legs: Iterable[Leg], sign: int) -> None:
        for leg in legs:
            if leg.action is Action.PAY and self._is_account(shard, leg.payer, leg.asset):
                row = leg.payer, leg.asset
                book.held[row] = book.held.get(row, 0) + sign * leg.amount
                book.touched.add(row)

    def _apply(self, shard: int, book: Book, legs: Iterable[Leg]) -> None:
        for leg in legs:
            if leg.action is not Action.PAY:
                if self._shards.shard_of(leg.payee) == shard:
                    book.frozen[(leg.payee, leg.asset)] = leg.action is Action.FREEZE
                    book.touched.add((leg.payee, leg.asset))
                continue
            for address, amount in ((leg.payer, -leg.amount), (leg.payee, leg.amount)):
                if self._is_account(shard, address, leg.asset):
                    book.owned[(address, leg.asset)] = book.owned.get((address, leg.asset), 0) + amount
                    book.touched.add((address, leg.asset))
                elif self._shards.shard_of(address) == shard:
                    book.minted[leg.asset] = book.minted.get(leg.asset, 0) - amount

    def _compare(self, shard: int, book: Book, certified: CertifiedBlock) -> None:
        height = certified.block.header.height
        for change in certified.effects.changes.balances:
            row, balance = (change.address, change.asset), change.balance
            book.touched.discard(row)
            expected = book.owned.get(row, 0) - book.held.get(row, 0), book.held.get(row, 0), book.frozen.get(row, False)
            if (balance.available, balance.held, balance.frozen) != expected or min(expected[:2]) < 0:
                text = f"block {height} of shard {shard}: {row[0].hex()[:8]} has {balance}, should have {expected} {row[1]}"
                self._complain("balance", text)
        if unchanged := [row for row in book.touched if book.owned.get(row, 0) or book.held.get(row, 0)]:
            # a hold that was taken and released in one block leaves the row as it was, and still touches it
            self._complain("balance", f"block {height} of shard {shard} does not change {min(unchanged)[0].hex()[:8]}")
        totals = certified.effects.totals
        if totals.pending != len(book.waiting) + len(book.prepared):
            expected_ = len(book.waiting) + len(book.prepared)
            self._complain("pending", f"block {height} of shard {shard} counts {totals.pending} undecided, not {expected_}")
        for total in totals.assets:
            inside = _signed(total.minted - total.burned + sum(peer.imported - peer.exported for peer in total.peers))
            held = sum(amount for (_, asset), amount in book.held.items() if asset == total.asset)
            owned = sum(amount for (_, asset), amount in book.owned.items() if asset == total.asset)
            minted = book.minted.get(total.asset, 0)
            if (total.available + total.held, total.held, _signed(total.minted - total.burned)) != (
                owned,
                held,
                minted,
            ) or owned != inside:
                self._complain("conservation", f"block {height} of shard {shard}: {total}, should have {owned} with {held} held")

    def final_at_home(self, transaction_id: bytes) -> Outcome | None:
        """What the home shard made of a transaction."""
        transaction = self.transactions.get(transaction_id)
        if transaction is None:
            return None
        return self.books[self._shards.shard_of(transaction.order.legs[0].payer)].final.get(transaction_id)

    # -- the end ---------------------------------------------------------------------------------------------------

    def check_drained(self) -> None:
        """Nothing is held or on its way; each transaction ended in every shard it touches as it did at home."""
        for shard, book in self.books.items():
            if book.waiting or book.prepared or any(book.held.values()):
                self._complain("holds", f"shard {shard} still holds {len(book.waiting)} waiting, {len(book.prepared)} prepared")
        for key in self._taken:
            if key not in self._sent:
                self._complain("channel", f"shard {key[1]} took bundle {key[2]} of shard {key[0]}, which never sent it")
        for transaction_id, transaction in self.transactions.items():
            shards = self.shards_of(transaction.order.legs)
            home = self.books[self._shards.shard_of(transaction.order.legs[0].payer)]
            for shard in shards if home.final.get(transaction_id) is Outcome.COMMITTED else ():
                if self.books[shard].final.get(transaction_id) is not Outcome.COMMITTED:
                    self._complain("atomicity", f"{_short(transaction_id)} is committed at home, but not in shard {shard}")
            self._check_same_end(transaction_id)
        for asset in self._issuers:
            owned = sum(amount for book in self.books.values() for row, amount in book.owned.items() if row[1] == asset)
            if owned != sum(book.minted.get(asset, 0) for book in self.books.values()):
                self._complain("conservation", f"all shards together own {owned} {asset}, which is not what was minted")


def _signed(difference: int) -> int:
    """Of counts modulo 2^64."""
    return (difference + 2**63) % 2**64 - 2**63


def _short(transaction_id: bytes) -> str:
    return f"transaction {transaction_id.hex()[:8]}"
