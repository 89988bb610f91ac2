"""What plans say and do when an account is closed."""

from sqlalchemy import Connection, delete, exists, select, update

from gateway.plans.states import FileStatus, RunStatus, ScheduleStatus
from gateway.plans.tables import Notification, NotificationChoice, PaymentFile, PaymentLine, ScheduledPayment, ScheduledRun


def under_way(connection: Connection, user_id: str) -> bool:
    """Whether a payment file is being paid, or a scheduled payment made."""
    files = (PaymentFile.user_id == user_id, PaymentFile.status.in_([FileStatus.PROCESSING, FileStatus.CANCELING]))
    run = (ScheduledRun.scheduled_id == ScheduledPayment.id, ScheduledRun.status == RunStatus.PROCESSING)
    made = exists().where(ScheduledPayment.user_id == user_id, *run)
    return bool(connection.execute(select(exists().where(*files) | made)).scalar())


def erase(connection: Connection, user_id: str) -> None:
    """Cancel what is planned, and forget whom it was for."""
    for table in (NotificationChoice, Notification):
        connection.execute(delete(table).where(table.user_id == user_id))
    schedules = update(ScheduledPayment).where(ScheduledPayment.user_id == user_id)
    connection.execute(schedules.values(payee="", memo="", reference="", next_at=None))
    alive = ScheduledPayment.status.in_([ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED])
    connection.execute(schedules.where(alive).values(status=ScheduleStatus.CANCELED))
    files = update(PaymentFile).where(PaymentFile.user_id == user_id)
    connection.execute(files.where(PaymentFile.status == FileStatus.CHECKED).values(status=FileStatus.CANCELED))
    connection.execute(files.values(name=""))
    mine = PaymentLine.file_id.in_(select(PaymentFile.id).where(PaymentFile.user_id == user_id))
    connection.execute(update(PaymentLine).where(mine).values(payee="", memo="", reference=""))
