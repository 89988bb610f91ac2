"""Statements as CSV (RFC 4180) and as a page to print. What others wrote into them is text there, and nothing else."""

import csv
import io
from html import escape

from gateway.reads.statement import Account, Entry, Statement
from gateway.times import iso
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount

COLUMNS = ("time", "shard", "height", "entry", "transfer_id", "counterparty", "memo", "asset", "in", "out", "balance", "epoch")
PRINTED = ("time", "entry", "counterparty", "memo", "in", "out", "balance")
"""The columns that have a place on paper."""
NUMBERS = ("in", "out", "balance")
NOTHING_HELD = "This wallet has held nothing."
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_STYLE = """
body { font: 10pt/1.4 system-ui, sans-serif; margin: 2em; color: #111; background: #fff }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .2em .6em; vertical-align: top }
thead { display: table-header-group } tr { break-inside: avoid; border-bottom: 1px solid #ccc }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } td.a { word-break: break-all }
"""


def as_csv(statement: Statement) -> str:
    """One row for each line, between rows ``opening`` and ``closing`` of its asset. A text that a spreadsheet would take for a
    formula begins with an apostrophe; what went out has a column of its own, so that no number begins with a sign."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    for account in statement.accounts:
        for entry in _with_ends(statement, account):
            rows.writerow([cell(value) for value in _row(account, entry)])
    return text.getvalue()


def as_html(statement: Statement) -> str:
    """A whole page, without scripts, that loads nothing."""
    title, facts = heading(statement)
    tables = "".join(_table(statement, account) for account in statement.accounts) or f"<p>{NOTHING_HELD}</p>"
    body = f"<h1>{escape(title)}</h1>" + "".join(f"<p>{escape(fact)}</p>" for fact in facts) + tables
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>'


def heading(statement: Statement) -> tuple[str, list[str]]:
    """The title, and what is said below it."""
    wallet = statement.wallet
    begin = "the beginning" if statement.since is None else iso(statement.since)
    facts = [
        f"Wallet {encode_address(wallet.address)}",
        f"From {begin} to {iso(_end(statement))}",
        f"True at {where(statement)}",
    ]
    return f"Statement {wallet.label or wallet.id}", facts


def printed(statement: Statement, account: Account) -> list[list[str]]:
    """The rows of an asset, in the columns ``PRINTED``."""
    places = [COLUMNS.index(name) for name in PRINTED]
    rows = (_row(account, entry) for entry in _with_ends(statement, account))
    return [[row[place] for place in places] for row in rows]


def _table(statement: Statement, account: Account) -> str:
    classes = {"counterparty": "a", "memo": "a"} | dict.fromkeys(NUMBERS, "n")
    head = "".join(f'<th class="{classes.get(name, "")}">{name}</th>' for name in PRINTED)
    rows = []
    for row in printed(statement, account):
        values = zip(PRINTED, map(escape, row), strict=True)
        cells = "".join(f'<td class="{classes.get(name, "")}">{value}</td>' for name, value in values)
        rows.append(f"<tr>{cells}</tr>")
    return f"<h2>{escape(account.asset)}</h2><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _with_ends(statement: Statement, account: Account) -> list[Entry]:
    first = Entry(statement.since, "opening", 0, account.opening)
    end = max([_end(statement), *(entry.time for entry in account.entries if entry.time is not None)])
    last = Entry(end, "closing", 0, account.closing)
    return [first, *account.entries, last]


def _end(statement: Statement) -> int:
    """Until when everything is in it, ms."""
    return statement.seen.time if statement.until is None else min(statement.until, statement.seen.time)


def where(statement: Statement) -> str:
    """The blocks up to which it is true."""
    seen = statement.seen
    blocks = ", ".join(f"block {height} of shard {shard}" for shard, height in sorted(seen.heights.items()))
    return f"{blocks} in epoch {seen.epoch}"


def _row(account: Account, entry: Entry) -> list[str]:
    amount = format_amount(abs(entry.units), account.decimals)
    return [
        iso(entry.time) or "",
        "" if entry.shard is None else str(entry.shard),
        "" if entry.height is None else str(entry.height),
        entry.kind,
        entry.transfer_id,
        entry.counterparty,
        entry.memo,
        account.asset,
        amount if entry.units > 0 else "",
        amount if entry.units < 0 else "",
        format_amount(entry.balance, account.decimals),
        "" if entry.epoch is None else str(entry.epoch),
    ]


def cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
