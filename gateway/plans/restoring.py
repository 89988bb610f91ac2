"""What is planned in a copy of the database that was put back: what it knows as unpaid may have been paid since."""

from sqlalchemy import Connection, update

from gateway.database import now_ms
from gateway.plans.states import FileStatus, LineStatus, RunStatus, ScheduleStatus
from gateway.plans.tables import PaymentFile, PaymentLine, ScheduledPayment, ScheduledRun


def stop_all(connection: Connection) -> None:
    """Pay nothing by itself: cancel what is not handed in of payment files, and pause scheduled payments."""
    files, now = update(PaymentFile), now_ms()
    connection.execute(update(PaymentLine).where(PaymentLine.status == LineStatus.WAITING).values(status=LineStatus.CANCELED))
    connection.execute(files.where(PaymentFile.status == FileStatus.PROCESSING).values(status=FileStatus.CANCELING))
    canceled = {"status": FileStatus.CANCELED, "finished_at": now}
    connection.execute(files.where(PaymentFile.status == FileStatus.CHECKED).values(**canceled))
    active = update(ScheduledPayment).where(ScheduledPayment.status == ScheduleStatus.ACTIVE)
    connection.execute(active.values(status=ScheduleStatus.PAUSED))
    failed = {"status": RunStatus.FAILED, "code": ScheduleStatus.PAUSED.value, "updated_at": now}
    connection.execute(update(ScheduledRun).where(ScheduledRun.status == RunStatus.RETRYING).values(**failed))
