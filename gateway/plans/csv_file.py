"""Payment files as CSV (RFC 4180): what somebody brings, and what became of it. Pure."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gateway.identity.text import one_line
from gateway.reads.sheets import cell
from node.protocol.limits import MAX_MEMO_BYTES

MAX_LINES = 1000
MAX_REFERENCE = 140
MAX_PAYEE = 254
MAX_FAULTS = 100
"""That are looked for in one file."""
_NEEDED = ("to", "asset", "amount")
COLUMNS = (*_NEEDED, "memo", "reference")
RESULT = ("line", *COLUMNS, "status", "code", "transfer_id")


class Written(NamedTuple):
    """A line as somebody wrote it; ``line``: its number in the file."""

    line: int
    to: str
    asset: str
    amount: str
    memo: str
    reference: str


class Fault(NamedTuple):
    """What is wrong with a line, and in which column, if it is one."""

    line: int
    column: str
    code: str
    detail: str


class Read(NamedTuple):
    """``lines`` without faults."""

    lines: list[Written]
    faults: list[Fault]


def read(content: bytes) -> Read:
    """A file with the names of its columns in its first line, separated by commas or semicolons. UTF-8."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Read([], [Fault(1 + content.count(b"\n", 0, error.start), "", "not_utf8", "the text is not UTF-8")])
    first = text.partition("\n")[0]
    records = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first else ",", strict=True)
    found = Read([], [])
    try:
        names = [name.strip().lower() for name in next(records, [])]
        found.faults.extend(_names(names))
        if not found.faults:
            _lines(names, ((records.line_num, record) for record in records), found)
    except csv.Error:
        found.faults.append(Fault(records.line_num, "", "invalid_text", "not CSV: look at its quotation marks"))
    if not found.lines and not found.faults:
        found.faults.append(Fault(2, "", "no_lines", "there is no payment in it"))
    return found


def _names(names: Sequence[str]) -> Iterator[Fault]:
    for name in _NEEDED:
        if name not in names:
            yield Fault(1, name, "missing_column", f"the first line names the columns: {', '.join(_NEEDED)} are needed")
    for place, name in enumerate(names):
        if name not in COLUMNS or name in names[:place]:
            yield Fault(1, "", "unknown_column", f"columns are {', '.join(COLUMNS)}, each once; not {name[:40]!r}")


def _lines(names: Sequence[str], records: Iterable[tuple[int, list[str]]], found: Read) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for number, record in records:
        if not any(map(str.strip, record)):
            continue
        if len(found.faults) >= MAX_FAULTS:
            return
        if len(found.lines) == MAX_LINES:
            found.faults.append(Fault(number, "", "limit_exceeded", f"at most {MAX_LINES} payments"))
            return
        if len(record) != len(names):
            found.faults.append(
                Fault(number, "", "wrong_number_of_fields", f"{len(record)} fields, and there are {len(names)} columns")
            )
            continue
        values = dict.fromkeys(COLUMNS, "") | {name: value.strip() for name, value in zip(names, record, strict=True)}
        faults = list(_faults(number, values))
        earlier = seen.setdefault(tuple(values.values()), number)
        if earlier != number:
            faults.append(Fault(number, "", "duplicate_line", f"the same as line {earlier}; another reference tells them apart"))
        found.faults.extend(faults)
        if not faults:
            found.lines.append(Written(number, **values))


def _faults(number: int, values: dict[str, str]) -> Iterator[Fault]:
    if len(values["to"]) > MAX_PAYEE:
        yield Fault(number, "to", "invalid_recipient", f"at most {MAX_PAYEE} characters")
    for name in ("memo", "reference"):
        try:
            values[name] = one_line(values[name])
        except ValueError as error:
            yield Fault(number, name, "invalid_text", str(error))
    if len(values["memo"].encode()) > MAX_MEMO_BYTES:
        yield Fault(number, "memo", "invalid_text", f"at most {MAX_MEMO_BYTES} bytes of UTF-8")
    if len(values["reference"]) > MAX_REFERENCE:
        yield Fault(number, "reference", "invalid_text", f"at most {MAX_REFERENCE} characters")


def result(lines: Iterable[dict[str, object]]) -> str:
    """Lines as the API shows them. What a spreadsheet would take for a formula begins with an apostrophe."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(RESULT)
    for line in lines:
        rows.writerow([cell("" if line[name] is None else str(line[name])) for name in RESULT])
    return text.getvalue()
