"""The states of payment files and scheduled payments, of their lines and runs.

payment file        checked ─► processing ─► completed         checked ─► canceled
                                   └─► canceling ─► canceled   what is under way ends as it ends
line                waiting ─► processing ─► paid | failed     waiting ─► failed | canceled
scheduled payment   active ◄─► paused,  active ─► completed,  active, paused ─► canceled
run                 (retrying ─►) processing ─► paid | failed,  retrying ─► failed,  processing ─► retrying: it has expired
"""

from enum import StrEnum


class FileStatus(StrEnum):
    CHECKED = "checked"
    PROCESSING = "processing"
    CANCELING = "canceling"
    COMPLETED = "completed"
    CANCELED = "canceled"


class LineStatus(StrEnum):
    WAITING = "waiting"
    PROCESSING = "processing"
    PAID = "paid"
    FAILED = "failed"
    CANCELED = "canceled"


class ScheduleStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELED = "canceled"


class RunStatus(StrEnum):
    RETRYING = "retrying"
    PROCESSING = "processing"
    PAID = "paid"
    FAILED = "failed"
