"""Looking back: filters, pages, balances at a time, statements."""

import csv
import io
import re
import sqlite3
import time
from types import SimpleNamespace
from typing import Any

import pytest
from pypdf import PdfReader

from gateway.problems import Problem
from gateway.reads import pdf
from gateway.reads.balances import Seen
from gateway.reads.statement import Account, Entry, Statement
from gateway.times import iso
from node.protocol.address import address_of, encode_address
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.person import Deal, Person, Wallet
from tests.waiting import until


@pytest.fixture(scope="module")
def story(world: World) -> Deal:
    """Ann has 10.00, pays Bob 1.00 and 2.00 in the other shard, 99.00 that she has not, and gets 0.50 back."""
    made = world.deal(0, 1)
    for amount, memo in (("1.00", "Straße 1"), ("2.00", "=HYPERLINK(1)")):
        assert made.pay(amount, memo=memo, wait=15)["status"] == "committed"
    assert made.pay("99.00", memo="too much")["status"] == "rejected"
    back = made.bob.pay(made.till, made.purse["address"], "0.50", 'back, with "thanks"', wait=15)
    assert back.json()["status"] == "committed"
    until(lambda: lines(made.ann, direction="received", counterparty=made.till["address"]), "it is back")
    return made


def lines(person: Person, path: str = "/v1/transfers", **filters: Any) -> list[dict[str, Any]]:
    """All pages, one line each."""
    found, cursor = list[dict[str, Any]](), dict[str, str]()
    while True:
        answer = person.get(path, limit=1, **filters, **cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def amounts(found: list[dict[str, Any]]) -> list[str]:
    return [("-" if line["direction"] == "sent" else "") + line["amount"] for line in found]


def test_filters_find_what_they_say(story: Deal) -> None:
    ann, purse, _, till = story
    everything = ["0.50", "-99.00", "-2.00", "-1.00", "10.00"]
    for filters, expected in (
        ({}, everything),
        ({"status": "rejected"}, ["-99.00"]),
        ({"status": "expired"}, []),
        ({"asset": "USD"}, everything),
        ({"asset": "VND"}, []),
        ({"direction": "received"}, ["0.50", "10.00"]),
        ({"direction": "sent", "status": "committed"}, ["-2.00", "-1.00"]),
        ({"counterparty": till["address"]}, ["0.50", "-99.00", "-2.00", "-1.00"]),
        ({"counterparty": encode_address(address_of(USD_ISSUER.public))}, ["10.00"]),
        ({"text": "STRASSE"}, ["-1.00"]),
        ({"text": "%"}, []),
        ({"text": "_"}, []),
        ({"text": "too"}, ["-99.00"]),
        ({"wallet_id": purse["id"]}, everything),
    ):
        assert amounts(lines(ann, **filters)) == expected, filters
    assert amounts(lines(ann, f"/v1/wallets/{purse['id']}/transfers")) == everything


def test_times_are_those_shown_and_the_end_is_not_in(story: Deal) -> None:
    found = lines(story.ann)
    times = [line["at"] for line in found]
    assert times == sorted(times, reverse=True)
    assert amounts(lines(story.ann, **{"from": times[2]})) == amounts(found[:3])
    assert amounts(lines(story.ann, to=times[2])) == amounts(found[3:])
    assert amounts(lines(story.ann, **{"from": times[3], "to": times[1]})) == amounts(found[2:4])
    assert lines(story.ann, to="2026-01-01") == []


def test_all_wallets_at_once_and_nobody_elses(story: Deal, world: World) -> None:
    ann, purse = story.ann, story.purse
    other = ann.wallet(1, USD="3.00")
    mine = {line["wallet_id"] for line in lines(ann)}
    assert mine == {purse["id"], other["id"]}
    assert amounts(lines(ann, wallet_id=other["id"])) == ["3.00"]
    assert problem(ann.get("/v1/transfers", wallet_id=story.till["id"])) == (404, "wallet_not_found")
    assert lines(world.person()) == []
    heights = ann.get("/v1/transfers").json()["heights"]
    assert all(0 < heights[str(shard)] <= world.network.height(shard) for shard in (0, 1))


def test_the_balance_runs_and_is_what_the_block_said(story: Deal) -> None:
    found = lines(story.ann, wallet_id=story.purse["id"])
    assert [line["balance"] for line in found] == ["7.50", None, "7.00", "9.00", "10.00"]


def test_pages_stay_as_they_are_while_new_lines_come(world: World) -> None:
    made = world.deal()
    for _ in range(3):
        made.pay("0.10", wait=15)
    path = f"/v1/wallets/{made.purse['id']}/transfers"
    first = made.ann.get(path, limit=2).json()
    made.pay("0.20", wait=15)
    second = made.ann.get(path, limit=2, cursor=first["next_cursor"]).json()
    seen = [line["id"] for page in (first, second) for line in page["items"]]
    assert len(set(seen)) == 4
    assert second["next_cursor"] is None
    for cursor in ("?", "MQ", "eA"):
        assert problem(made.ann.get(path, cursor=cursor)) == (422, "invalid_cursor")


def test_what_an_endpoint_does_not_know_is_refused(story: Deal, world: World) -> None:
    ask = story.ann.http.get
    for path in ("/v1/transfers?colour=red", "/v1/wallets?limit=1", "/v1/me?x", "/v1/network?asset=USD", "/healthz?a=1"):
        assert problem(ask(path)) == (422, "unknown_parameter"), path
    assert problem(story.ann.post("/v1/wallets", {}, dry_run=1)) == (422, "unknown_parameter")
    assert problem(ask("/v1/transfers?limit=1&limit=2")) == (422, "unknown_parameter")
    for query in ("status=done", "direction=up", "asset=usd", "limit=0", "text="):
        assert problem(ask(f"/v1/transfers?{query}")) == (422, "invalid_request"), query
    for query in ("from=yesterday", "to=2026-13-01", "from=1969-01-01", "to=1e999"):
        assert problem(ask(f"/v1/transfers?{query}")) == (422, "invalid_time"), query
    assert problem(ask("/v1/transfers?counterparty=bob")) == (422, "invalid_address")


def balance(person: Person, wallet: Wallet, at: str | None = None) -> Any:
    return person.get(f"/v1/wallets/{wallet['id']}/balance", **({} if at is None else {"at": at}))


def test_a_balance_at_a_time_is_what_blocks_said_until_then(story: Deal, world: World) -> None:
    ann, purse = story.ann, story.purse
    now = balance(ann, purse).json()
    assert (now["balances"]["USD"]["available"], now["balances"]["USD"]["held"]) == ("7.50", "0.00")
    assert list(now["heights"]) == ["0"]
    with sqlite3.connect(world.folder / "gateway.db") as database:
        query = "SELECT time, available, held FROM balance_changes WHERE address = (SELECT address FROM wallets WHERE id = ?)"
        changes = database.execute(f"{query} ORDER BY height", (purse["id"],)).fetchall()
    assert len(changes) >= 4
    for moment, available, held in changes:
        then = balance(ann, purse, iso(moment)).json()["balances"]["USD"]
        assert (then["available"], then["held"]) == (f"{available / 100:.2f}", f"{held / 100:.2f}")
    assert balance(ann, purse, iso(changes[0][0] - 1)).json()["balances"] == {}
    assert problem(balance(ann, purse, "2026-01-01")) == (409, "not_known")
    later = iso(round(time.time() * 1000) + 3_600_000)
    assert problem(balance(ann, purse, later)) == (409, "not_reached")
    assert problem(balance(story.bob, purse)) == (404, "wallet_not_found")
    assert problem(balance(ann, purse, "noon")) == (422, "invalid_time")


def test_what_a_key_held_before_it_was_followed_is_not_known(world: World) -> None:
    bob, pair = world.person(), world.network.chains.person(1, 9)
    world.network.hand_in(world.network.sign(USD_ISSUER, address_of(pair.public), 700))
    http = world.gateway.http
    until(lambda: http.get(f"/v1/accounts/{encode_address(address_of(pair.public))}").json()["balances"], "funded")
    wallet = bob.wallet(key=pair)
    assert balance(bob, wallet).json()["balances"]["USD"]["available"] == "7.00"
    assert problem(balance(bob, wallet, "2026-01-01")) == (409, "not_known")
    assert [(row["entry"], row["balance"]) for row in statement(bob, wallet)] == [("opening", "7.00"), ("closing", "7.00")]


def statement(person: Person, wallet: Wallet, **parameters: Any) -> list[dict[str, str]]:
    answer = person.get(f"/v1/statements/{wallet['id']}.csv", **parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["shardpay-true-at"].startswith("block ")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_a_statement_adds_up(story: Deal) -> None:
    rows = statement(story.ann, story.purse)
    shown = [(row["entry"], row["in"], row["out"], row["balance"]) for row in rows]
    assert shown == [
        ("opening", "", "", "0.00"),
        ("faucet", "10.00", "", "10.00"),
        ("transfer", "", "1.00", "9.00"),
        ("transfer", "", "2.00", "7.00"),
        ("transfer", "0.50", "", "7.50"),
        ("closing", "", "", "7.50"),
    ]
    assert [row["memo"] for row in rows[1:5]] == ["faucet", "Straße 1", "'=HYPERLINK(1)", 'back, with "thanks"']
    times = [row["time"] for row in rows[1:]]
    assert times == sorted(times)
    part = statement(story.ann, story.purse, **{"from": rows[2]["time"], "to": rows[4]["time"], "asset": "USD"})
    assert [(row["entry"], row["balance"]) for row in part] == [
        ("opening", "10.00"),
        ("transfer", "9.00"),
        ("transfer", "7.00"),
        ("closing", "7.00"),
    ]


def test_what_came_by_email_to_addresses_of_its_own_counts_in_all_of_it(world: World) -> None:
    ann, bob = world.person(), world.person()
    purse, till = ann.wallet(0, USD="10.00"), bob.wallet()
    for amount in ("1.00", "2.00"):
        assert ann.pay(purse, bob.email, amount, wait=15).json()["status"] == "committed"
    until(lambda: len(lines(bob)) == 2, "both there")
    assert [line["balance"] for line in lines(bob)] == ["3.00", "1.00"]
    assert bob.pay(till, purse["address"], "2.50", wait=15).json()["status"] == "committed"
    now = balance(bob, till).json()
    assert (now["balances"]["USD"]["available"], set(now["heights"])) == ("0.50", {"0", str(till["shard"])})
    rows = statement(bob, till)
    assert [row["in"] or row["out"] for row in rows[1:3]] == ["1.00", "2.00"]
    assert sorted(row["out"] for row in rows[3:-1]) == ["0.50", "2.00"], "from both"
    assert (rows[0]["balance"], rows[-1]["balance"]) == ("0.00", "0.50")


def test_a_statement_to_print_runs_nothing(story: Deal) -> None:
    ann, purse = story.ann, story.purse
    assert ann.pay(purse, story.till["address"], "0.01", "<script>alert(1)</script>", wait=15).json()["status"] == "committed"
    answer = ann.get(f"/v1/statements/{purse['id']}.html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "7.49" in answer.text
    assert f"Wallet {purse['address']}" in answer.text


def test_a_pdf_has_the_figures_of_the_csv_and_every_script_or_a_stand_in(world: World) -> None:
    made = world.deal()
    memos = ["十一月的工资 November", "Łódź, Привет", "한 😀 end"]
    for amount, memo in zip(("1.00", "2.00", "3.00"), memos, strict=True):
        assert made.pay(amount, memo=memo, wait=15)["status"] == "committed"
    answer = made.ann.get(f"/v1/statements/{made.purse['id']}.pdf", asset="USD")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(answer.content)).pages)
    rows = statement(made.ann, made.purse, asset="USD")
    assert [row["memo"] for row in rows[2:5]] == memos
    stand_ins = {memos[1]: "Lódz, Привет", memos[2]: "? ? end"}
    for row in rows:
        line = " ".join(part for part in (row["time"], row["entry"], row["counterparty"]) if part)
        figures = [row["in"] or row["out"], row["balance"]]
        assert re.search(
            r"\s*".join(map(re.escape, [line, *filter(None, [stand_ins.get(row["memo"], row["memo"]), *figures])])), text
        ), (row, text)
    assert f"Wallet {made.purse['address']}" in text
    assert answer.headers["shardpay-true-at"] in text
    assert problem(made.bob.get(f"/v1/statements/{made.purse['id']}.pdf")) == (404, "wallet_not_found")


def test_a_long_pdf_repeats_its_columns_on_each_page_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MAX_LINES", 100)
    wallet = SimpleNamespace(id="w", label="x" * 100, address=bytes(20))
    entries = [Entry(number, "transfer", 1, number + 1, 0, 1, "", "a" * 44, "b" * 140) for number in range(1, 101)]
    long = Statement(wallet, None, None, Seen(1, {0: 1}, 2000), [Account("USD", 2, 1, entries, 101)])  # type: ignore[arg-type]
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(pdf.as_pdf(long))).pages]
    assert all("counterparty" in page and page.rstrip().endswith(str(number + 1)) for number, page in enumerate(pages))
    assert sum(page.count(" transfer ") for page in pages) == 100
    with pytest.raises(Problem, match="at most 100 lines"):
        pdf.as_pdf(long._replace(accounts=[*long.accounts, long.accounts[0]]))


def test_statements_are_ones_own_and_of_a_time_that_can_be(story: Deal) -> None:
    path = f"/v1/statements/{story.purse['id']}.csv"
    assert problem(story.bob.get(path)) == (404, "wallet_not_found")
    assert problem(story.ann.get(path, asset="XYZ")) == (422, "unknown_asset")
    assert problem(story.ann.get(path, **{"from": "2026-11-02", "to": "2026-11-01"})) == (422, "invalid_time")
    assert statement(story.ann, story.purse, to="2020-01-01") == []
