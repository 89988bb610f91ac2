"""Long histories: a request looks at so many lines and goes on where it stopped, along an index."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert
from sqlalchemy.dialects import sqlite

from gateway.database import Database, Wallet, open_engine
from gateway.history import History
from gateway.identity.tables import User
from gateway.projection import Status, lines_of, tracked_order
from gateway.reads import lines
from gateway.reads.lines import Lines, Wanted
from gateway.reads.statement import _account, _Found
from gateway.rows import put_postings, searched, transfer_row
from gateway.statements import ADD_TRANSFER
from node.protocol.address import address_of
from node.protocol.codec import encode
from tests.chains import Network

MEMOS = ["first", *(f"number {i}" for i in range(30)), "last"]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Of a wallet that has sent a payment with each of the memos."""
    network = Network()
    payer, payee = network.person(0), network.person(1)
    wallets = {address_of(payer.public): "w"}
    engine = open_engine(f"sqlite:///{tmp_path}/gateway.db")

    def fill(connection: Connection) -> None:
        connection.execute(insert(User), {"id": "u", "email": "e", "name": "n", "password_hash": "h", "created_at": 0})
        wallet = {"id": "w", "user_id": "u", "label": "", "address": address_of(payer.public), "public_key": b"", "created_at": 0}
        connection.execute(insert(Wallet), wallet)
        for at, memo in enumerate(MEMOS):
            paid = network.pay(payer, payee, 1, memo=memo)
            tracked = tracked_order(paid.order, paid.id, encode(paid), network.document, own=True)
            ADD_TRANSFER.run(connection, transfer_row(tracked, "u"))
            put_postings(connection, lines_of(tracked, wallets, ("sent",)), at)

    with engine.begin() as connection:
        fill(connection)
    made = Database(engine)
    yield made
    made.close()


def test_a_search_goes_on_page_by_page_and_finds_the_oldest(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_SCANNED", 10)
    reader = Lines(database, History(database, {}, {}), {}, lambda _: Network().document.shards)

    async def search() -> tuple[list[int], list[str]]:
        sizes, found, cursor = list[int](), list[str](), None
        while True:
            page = await reader.page(Wanted("u", text="FIRST"), cursor, 5)
            sizes.append(len(page.items))
            found += [item["memo"] for item in page.items]
            if (cursor := page.next_cursor) is None:
                return sizes, found

    assert asyncio.run(search()) == ([0, 0, 0, 1], ["first"])


@pytest.mark.parametrize("wanted", [Wanted("u"), Wanted("u", "w", status=Status.COMMITTED, text="a")])
def test_histories_are_found_along_an_index(database: Database, wanted: Wanted) -> None:
    query = lines._filtered(wanted._replace(since=1, until=9), lines._scope(wanted, (7, 1)), 20)
    text = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))

    def plan(connection: Connection) -> str:
        return " | ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text.replace('%', '%%')}"))

    steps = asyncio.run(database.read(plan))
    assert f"SEARCH postings USING INDEX postings_of_{'user' if wanted.wallet_id is None else 'wallet'}" in steps, steps
    assert "SCAN postings" not in steps


def test_texts_are_compared_whatever_their_case_and_hold_no_zeros() -> None:
    assert searched("STRASSE\0") == searched("Straße")


def test_a_change_of_the_balance_without_a_transfer_is_a_line_of_the_statement() -> None:
    found = _Found("USD", 100, 800, {}, [])
    (entry,) = _account({}, found, 2).entries
    assert (entry.kind, entry.units, entry.balance) == ("unexplained", 700, 800)
