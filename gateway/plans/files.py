"""Payment files: many payments from one wallet, checked as a whole, confirmed, then made one by one by a job.

Nothing is kept of a file with faults, and nothing is paid of one that is not confirmed. ``paying`` makes the payments.
"""

import asyncio
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from gateway.checkout.settling import is_id
from gateway.cursors import read_cursor, write_cursor
from gateway.database import Database, insert, now_ms
from gateway.idempotency import Idempotency, claim, claimed
from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.plans import csv_file
from gateway.plans.checking import addresses, check
from gateway.plans.states import FileStatus, LineStatus
from gateway.plans.tables import PaymentFile, PaymentLine
from gateway.problems import Problem
from gateway.times import iso
from gateway.wallets import Wallets
from node.protocol.amounts import format_amount

View = dict[str, Any]
KIND = "payment_file"
MAX_OPEN = 10
"""Of one user, that are checked or under way."""
MAX_PER_DAY = 100
DAY_MS = 24 * 3600 * 1000
"""For which a file can be confirmed, too."""
_OPEN = (FileStatus.CHECKED, FileStatus.PROCESSING, FileStatus.CANCELING)


class Total(NamedTuple):
    """Of an asset, in its smallest units."""

    units: int
    fees: int


class Files:
    """Everybody's."""

    def __init__(self, database: Database, jobs: Jobs, wallets: Wallets, payments: Payments) -> None:
        self._database, self._jobs, self._wallets, self._payments = database, jobs, wallets, payments

    async def check(self, user_id: str, wallet_id: str, name: str, content: bytes, key: Idempotency | None) -> View:
        """Take in a file, if all of it can be paid as it is written; as it is now, when the key was used before.

        Raises:
            Problem: 404, no such wallet; 409, its key is not here, or too many files are open; 422, with all faults.
        """
        wallet = await self._wallets.wallet(user_id, wallet_id)
        self._wallets.signer(wallet)
        if key is not None and (earlier := await self._database.read(lambda c: claimed(c, user_id, key))) is not None:
            return await self.get(user_id, earlier.hex())
        read = await asyncio.to_thread(csv_file.read, content)
        wallets = await addresses(self._database, [line.to for line in read.lines])
        rows, totals, faults = await asyncio.to_thread(self._checked, wallet, read, wallets)
        if faults:
            raise _faulty(faults)
        new, now = secrets.token_bytes(16), now_ms()
        row: dict[str, Any] = {"id": new.hex(), "user_id": user_id, "wallet_id": wallet.id, "name": name, "created_at": now}
        row |= {"status": FileStatus.CHECKED, "totals": json.dumps(totals), "confirmed_at": None, "finished_at": None}

        def save(connection: Connection) -> View:
            if key is not None and (earlier := claim(connection, user_id, key, new, now)) is not None:
                return self.view(connection, self._load(connection, user_id, earlier.hex()))
            _check_room(connection, user_id, now)
            connection.execute(insert(connection, PaymentFile).values(**row))
            connection.execute(insert(connection, PaymentLine), [line | {"file_id": row["id"]} for line in rows])
            self._jobs.add(connection, KIND, row["id"], now + DAY_MS)
            return self.view(connection, self._load(connection, user_id, row["id"]))

        return await self._jobs.write(save)

    async def confirm(self, user_id: str, file_id: str) -> tuple[View, bool]:
        """Have a file paid; as it is, when it was confirmed before. Returns whether it begins now, too.

        Raises:
            Problem: 404; 409, the wallet holds less than all of it, or it was canceled.
        """
        file = await self._database.read(lambda c: self._load(c, user_id, file_id))
        if file.status == FileStatus.CHECKED:
            await self._check_covered(file)

        def save(connection: Connection) -> tuple[View, bool]:
            begun = {"status": FileStatus.PROCESSING, "confirmed_at": now_ms()}
            begins = self.move(connection, file_id, (FileStatus.CHECKED,), begun)
            row = self._load(connection, user_id, file_id)
            if row.confirmed_at is None:
                raise _not_open(row)
            if begins:
                self._jobs.add(connection, KIND, file_id)
            return self.view(connection, row), begins

        return await self._jobs.write(save)

    async def cancel(self, user_id: str, file_id: str) -> View:
        """Pay nothing more of a file; as it is, when it was canceled before. Raises Problem: 404; 409, it is completed."""

        def save(connection: Connection) -> View:
            row = self._load(connection, user_id, file_id)
            if row.status == FileStatus.COMPLETED:
                raise _not_open(row)
            self.stop(connection, row)
            return self.view(connection, self._load(connection, user_id, file_id))

        return await self._jobs.write(save)

    def stop(self, connection: Connection, file: Row[Any]) -> None:
        """Cancel what waits of a file; its job ends it, if it has begun."""
        canceled = {"status": FileStatus.CANCELED, "finished_at": now_ms()}
        moved = self.move(connection, file.id, (FileStatus.CHECKED,), canceled)
        if moved or self.move(connection, file.id, (FileStatus.PROCESSING,), {"status": FileStatus.CANCELING}):
            lines = update(PaymentLine).where(PaymentLine.file_id == file.id, PaymentLine.status == LineStatus.WAITING)
            connection.execute(lines.values(status=LineStatus.CANCELED))
            self._jobs.add(connection, KIND, file.id)

    def move(self, connection: Connection, file_id: str, old: Sequence[FileStatus], changes: dict[str, Any]) -> bool:
        """Change a file, if it has one of these statuses."""
        statement = update(PaymentFile).where(PaymentFile.id == file_id, PaymentFile.status.in_(old)).values(**changes)
        return bool(connection.execute(statement).rowcount)

    async def get(self, user_id: str, file_id: str) -> View:
        """Raises Problem (404)."""
        return await self._database.read(lambda c: self.view(c, self._load(c, user_id, file_id)))

    async def page(self, user_id: str, cursor: str | None, limit: int) -> tuple[list[View], str | None]:
        """A user's, latest first, and the cursor of the next page."""
        query = select(PaymentFile.__table__).where(PaymentFile.user_id == user_id).order_by(PaymentFile.number.desc())
        if cursor is not None:
            query = query.where(PaymentFile.number < read_cursor(cursor)[0])

        def look(connection: Connection) -> tuple[list[View], str | None]:
            rows = connection.execute(query.limit(limit + 1)).all()
            following = write_cursor(rows[limit - 1].number) if len(rows) > limit else None
            return [self.view(connection, row) for row in rows[:limit]], following

        return await self._database.read(look)

    async def lines(
        self, user_id: str, file_id: str, status: LineStatus | None, cursor: str | None, limit: int
    ) -> tuple[list[View], str | None]:
        """A file's lines in their order. Raises Problem (404)."""
        query = select(PaymentLine.__table__).where(PaymentLine.file_id == file_id).order_by(PaymentLine.line).limit(limit + 1)
        if status is not None:
            query = query.where(PaymentLine.status == status)
        if cursor is not None:
            query = query.where(PaymentLine.line > read_cursor(cursor)[0])

        def look(connection: Connection) -> Sequence[Row[Any]]:
            self._load(connection, user_id, file_id)
            return connection.execute(query).all()

        rows = await self._database.read(look)
        following = write_cursor(rows[limit - 1].line) if len(rows) > limit else None
        return [self._line_view(row) for row in rows[:limit]], following

    async def result(self, user_id: str, file_id: str) -> str:
        """All lines as CSV. Raises Problem (404)."""
        lines, _ = await self.lines(user_id, file_id, None, None, csv_file.MAX_LINES)
        return await asyncio.to_thread(csv_file.result, lines)

    def view(self, connection: Connection, row: Row[Any]) -> View:
        """A file as the API shows it."""
        counted = (PaymentLine.status, PaymentLine.code, func.count())
        query = select(*counted).where(PaymentLine.file_id == row.id).group_by(PaymentLine.status, PaymentLine.code)
        lines, failures = Counter[str](), Counter[str]()
        for status, code, count in connection.execute(query):
            lines[status] += count
            if status == LineStatus.FAILED:
                failures[code] += count
        totals = {asset: Total(*total) for asset, total in json.loads(row.totals).items()}
        return {
            "id": row.id,
            "name": row.name,
            "status": row.status,
            "wallet_id": row.wallet_id,
            "lines": {"total": lines.total()} | {status.value: lines[status] for status in LineStatus},
            "totals": {
                asset: {"amount": self._amount(asset, total.units), "fees": self._amount(asset, total.fees)}
                for asset, total in totals.items()
            },
            "failures": dict(failures),
            "created_at": iso(row.created_at),
            "confirmed_at": iso(row.confirmed_at),
            "finished_at": iso(row.finished_at),
        }

    def _line_view(self, row: Row[Any]) -> View:
        return {
            "line": row.line,
            "to": row.payee,
            "asset": row.asset,
            "amount": self._amount(row.asset, row.units),
            "memo": row.memo,
            "reference": row.reference,
            "status": row.status,
            "code": row.code or None,
            "transfer_id": None if row.transfer_id is None else row.transfer_id.hex(),
        }

    def _amount(self, asset: str, units: int) -> str:
        return format_amount(units, self._payments.assets[asset].decimals)

    def _load(self, connection: Connection, user_id: str, file_id: str) -> Row[Any]:
        query = select(PaymentFile.__table__).where(PaymentFile.id == file_id, PaymentFile.user_id == user_id)
        row = connection.execute(query).first() if is_id(file_id) else None
        if row is None:
            raise Problem(404, "payment_file_not_found", "you have no such payment file")
        return row

    def _checked(
        self, wallet: Row[Any], read: csv_file.Read, wallets: dict[str, bytes]
    ) -> tuple[list[dict[str, Any]], dict[str, Total], list[csv_file.Fault]]:
        """Rows of the lines that can be paid, what they come to, and the faults of the others. A line is a database row."""
        rows, faults, units, fees = list[dict[str, Any]](), list(read.faults), defaultdict[str, int](int), Counter[str]()
        for line in read.lines:
            try:
                checked = check(self._payments, wallet.address, line.to, line.asset, line.amount, wallets)
            except Problem as problem:
                faults.append(csv_file.Fault(line.line, problem.pointer or "", problem.code, problem.detail))
                continue
            units[line.asset] += checked.units
            fees[line.asset] += checked.fee
            row: dict[str, Any] = {"line": line.line, "payee": checked.payee, "asset": line.asset, "units": checked.units}
            row |= {"memo": line.memo, "reference": line.reference}
            rows.append(row | {"status": LineStatus.WAITING, "code": "", "transfer_id": None})
        return rows, {asset: Total(units[asset], fees[asset]) for asset in sorted(units)}, faults

    async def _check_covered(self, file: Row[Any]) -> None:
        """Raises Problem (409). By verified balances alone: what is under way or reserved, each payment asks for itself."""
        wallet = await self._wallets.wallet(file.user_id, file.wallet_id)
        held = {row.asset: row.available for row in (await self._wallets.balances(wallet))[0]}
        for asset, total in json.loads(file.totals).items():
            if held.get(asset, 0) < sum(total):
                raise Problem(409, "insufficient_funds", f"this wallet holds less {asset} than all of it comes to")


def _check_room(connection: Connection, user_id: str, now: int) -> None:
    mine = select(func.count()).select_from(PaymentFile).where(PaymentFile.user_id == user_id)
    if connection.execute(mine.where(PaymentFile.status.in_(_OPEN))).scalar_one() >= MAX_OPEN:
        raise Problem(409, "limit_exceeded", f"at most {MAX_OPEN} payment files are checked or under way")
    if connection.execute(mine.where(PaymentFile.created_at > now - DAY_MS)).scalar_one() >= MAX_PER_DAY:
        raise Problem(429, "limit_exceeded", f"at most {MAX_PER_DAY} payment files in 24 hours", retry_after=3600)


def _not_open(row: Row[Any]) -> Problem:
    return Problem(409, "payment_file_not_open", f"this payment file is {row.status}")


def _faulty(faults: Sequence[csv_file.Fault]) -> Problem:
    listed = [
        {
            "line": fault.line,
            "code": fault.code,
            "detail": fault.detail,
            "pointer": "/".join(["/body", str(fault.line), *([fault.column] if fault.column else [])]),
        }
        for fault in sorted(faults)[: csv_file.MAX_FAULTS]
    ]
    return Problem(422, "invalid_payment_file", "some lines have faults, and nothing was kept", errors=listed)
