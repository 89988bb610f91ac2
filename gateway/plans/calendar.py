"""When a scheduled payment is due: times of a clock on a wall, in a time zone. Pure.

Of the 29th, 30th and 31st, a shorter month takes its last day. A time that the clock skips (summer time begins) is as much
later, of one that it shows twice the first counts. By the rules of time zones that are installed when it is asked.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from functools import cache
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dateutil.rrule import MONTHLY, WEEKLY, rrule

ONCE, EVERY_WEEK, EVERY_MONTH = "once", "weekly", "monthly"


class Rule(NamedTuple):
    """``starts_at``: the first time, without a zone. ``interval``: every so many weeks or months. It ends after so many
    ``times``, or with the day ``until``, or not."""

    starts_at: datetime
    time_zone: str
    repeat: str
    interval: int = 1
    times: int | None = None
    until: date | None = None

    def after(self, moment: int) -> int | None:
        """The first time that is later than ``moment``, both in ms; None when there is none."""
        zone = ZoneInfo(self.time_zone)
        return next((ms for local in self._local() if (ms := _milliseconds(local, zone)) > moment), None)

    def _local(self) -> Iterator[datetime]:
        if self.repeat == ONCE:
            return iter((self.starts_at,))
        until = None if self.until is None else datetime.combine(self.until, time.max)
        if self.repeat == EVERY_WEEK:
            return iter(rrule(WEEKLY, self.starts_at, self.interval, count=self.times, until=until))
        day = self.starts_at.day
        days = range(min(day, 28), day + 1)  # the last of these that a month has
        rule = rrule(MONTHLY, self.starts_at, self.interval, count=self.times, until=until, bymonthday=days, bysetpos=-1)
        return iter(rule)


def _milliseconds(local: datetime, zone: ZoneInfo) -> int:
    return round(local.replace(tzinfo=zone).astimezone(UTC).timestamp() * 1000)


@cache
def time_zones() -> frozenset[str]:
    """The names of time zones, those of the IANA."""
    return frozenset((files("tzdata") / "zones").read_text().split())
