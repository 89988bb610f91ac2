"""The job that pays a file: line after line, each a payment of its own, bound to its line in the transaction that accepts it.

So a line is paid at most once, whatever stops in between, and what was not accepted can still be canceled. What the wallet cannot
pay is not recorded as a transfer: the line says why.
"""

import asyncio
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, select, update

from gateway.checkout.states import End
from gateway.database import Database, Transfer, now_ms
from gateway.events.outbox import Outbox
from gateway.jobs import Jobs
from gateway.plans.files import DAY_MS, KIND, Files
from gateway.plans.payer import Payer
from gateway.plans.states import FileStatus, LineStatus
from gateway.plans.tables import PaymentFile, PaymentLine
from gateway.projection import Status

_AT_ONCE = 16
_LOOK_AGAIN = 0.3
_FINAL = Transfer.status.in_([status.value for status in Status if status.is_final])
_GOES_ON = (FileStatus.PROCESSING, FileStatus.CANCELING)


class Paying:
    """The jobs of kind ``KIND``; their subject is a file."""

    def __init__(self, database: Database, jobs: Jobs, outbox: Outbox, payer: Payer, files: Files) -> None:
        self._database, self._outbox, self._payer, self._files = database, outbox, payer, files
        jobs.handle(KIND, self._step)

    async def _step(self, file_id: str) -> float | None:
        file = await self._database.read(lambda c: _file(c, file_id))
        if file is None:
            return None
        if file.status == FileStatus.CHECKED:
            return await self._expire(file)
        if file.status not in _GOES_ON:
            return None
        more = file.status == FileStatus.PROCESSING and await self._pay_next(file)
        if await self._outbox.write(lambda c: self._settle(c, file)):
            return None
        return 0.0 if more else _LOOK_AGAIN

    async def _expire(self, file: Row[Any]) -> float | None:
        """Nobody has confirmed it."""
        left: int = file.created_at + DAY_MS - now_ms()
        if left > 0:
            return left / 1000
        await self._database.write(lambda c: self._files.stop(c, file))
        return None

    async def _pay_next(self, file: Row[Any]) -> bool:
        """Returns whether there was something to pay."""
        waiting = await self._database.read(lambda c: _waiting(c, file.id))
        # Every one is waited for: what is cut off may have been accepted.
        done = await asyncio.gather(*(self._try(file, line) for line in waiting), return_exceptions=True)
        if errors := [one for one in done if isinstance(one, BaseException)]:
            raise errors[0]
        for line in (line for line, code in zip(waiting, done, strict=True) if code):
            if code := await self._try(file, line):  # alone: beside each other they may have counted on the same coins
                await self._database.write(partial(_move, line=line, status=LineStatus.FAILED, code=code))
        return bool(waiting)

    async def _try(self, file: Row[Any], line: Row[Any]) -> str:
        """Hand a payment in; empty, or why it cannot be paid."""

        def bind(connection: Connection, transfer_id: bytes) -> bool:
            return _move(connection, line, status=LineStatus.PROCESSING, transfer_id=transfer_id)

        return await self._payer.pay(file.user_id, file.wallet_id, line, bind)

    def _settle(self, connection: Connection, file: Row[Any]) -> bool:
        """Note how payments ended. Returns whether all have: then the file has, too."""
        lines = (PaymentLine.file_id == file.id, PaymentLine.status == LineStatus.PROCESSING)
        query = select(PaymentLine.line, Transfer.status, Transfer.code)
        query = query.join(Transfer, Transfer.transaction_id == PaymentLine.transfer_id).where(*lines, _FINAL)
        ends = [(row.line, End.of(row.status, row.code)) for row in connection.execute(query)]
        ended = update(PaymentLine).where(*lines, PaymentLine.line == bindparam("number"))
        ended = ended.values(status=bindparam("end"), code=bindparam("why"))
        if ends:
            named = {True: LineStatus.PAID, False: LineStatus.FAILED}
            connection.execute(ended, [{"number": n, "end": named[end.committed], "why": end.code} for n, end in ends])
        if connection.execute(select(exists().where(*lines))).scalar() or _waiting(connection, file.id):
            return False
        for old, new in zip(_GOES_ON, (FileStatus.COMPLETED, FileStatus.CANCELED), strict=True):
            if self._files.move(connection, file.id, (old,), {"status": new, "finished_at": now_ms()}):
                row = _file(connection, file.id)
                assert row is not None
                self._outbox.emit(connection, file.user_id, f"{KIND}.{new}", self._files.view(connection, row))
        return True


def _file(connection: Connection, file_id: str) -> Row[Any] | None:
    return connection.execute(select(PaymentFile.__table__).where(PaymentFile.id == file_id)).first()


def _waiting(connection: Connection, file_id: str) -> list[Row[Any]]:
    query = select(PaymentLine.__table__).where(PaymentLine.file_id == file_id, PaymentLine.status == LineStatus.WAITING)
    return list(connection.execute(query.order_by(PaymentLine.line).limit(_AT_ONCE)))


def _move(connection: Connection, line: Row[Any], **values: Any) -> bool:
    """Change a line that is still waiting."""
    same = (PaymentLine.file_id == line.file_id, PaymentLine.line == line.line, PaymentLine.status == LineStatus.WAITING)
    return bool(connection.execute(update(PaymentLine).where(*same).values(**values)).rowcount)
