"""When scheduled payments are due, by clocks on walls."""

from datetime import date, datetime

import pytest

from gateway.plans.calendar import Rule, time_zones
from gateway.times import iso


def times(rule: Rule, count: int) -> list[str | None]:
    """The first ones, in UTC; None when none is left."""
    found, moment = list[str | None](), 0
    for _ in range(count):
        following = rule.after(moment)
        found.append(None if following is None else (iso(following) or "")[:16])
        moment = following if following is not None else moment
    return found


def test_a_month_without_the_day_takes_its_last_and_the_next_the_right_one_again() -> None:
    assert times(Rule(datetime(2027, 1, 31, 9), "UTC", "monthly"), 5) == [
        "2027-01-31T09:00",
        "2027-02-28T09:00",
        "2027-03-31T09:00",
        "2027-04-30T09:00",
        "2027-05-31T09:00",
    ]
    assert times(Rule(datetime(2027, 12, 30, 9), "UTC", "monthly"), 4)[2:] == ["2028-02-29T09:00", "2028-03-30T09:00"]
    assert times(Rule(datetime(2027, 1, 29, 9), "UTC", "monthly", interval=13), 2)[1] == "2028-02-29T09:00"
    assert times(Rule(datetime(2027, 1, 28, 9), "UTC", "monthly"), 3)[1:] == ["2027-02-28T09:00", "2027-03-28T09:00"]


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ((2027, 1, 1, 9), "2027-01-01T08:00"),
        ((2027, 7, 1, 9), "2027-07-01T07:00"),
        ((2027, 3, 28, 2, 30), "2027-03-28T01:30"),
        ((2027, 10, 31, 2, 30), "2027-10-31T00:30"),
    ],
    ids=["winter", "summer", "skipped", "twice"],
)
def test_a_time_is_one_of_the_clocks_there(local: tuple[int, int, int], utc: str) -> None:
    assert times(Rule(datetime(*local), "Europe/Berlin", "once"), 2) == [utc, None]


def test_nine_in_the_morning_stays_nine_in_the_morning_when_the_clocks_change() -> None:
    weekly = Rule(datetime(2027, 3, 22, 9), "Europe/Berlin", "weekly")
    assert times(weekly, 2) == ["2027-03-22T08:00", "2027-03-29T07:00"]


def test_it_ends_after_so_many_times_or_with_a_day_of_the_calendar_there() -> None:
    assert times(Rule(datetime(2027, 1, 1, 9), "UTC", "weekly", interval=2, times=2), 3) == [
        "2027-01-01T09:00",
        "2027-01-15T09:00",
        None,
    ]
    late = Rule(datetime(2027, 1, 1, 23), "America/New_York", "weekly", until=date(2027, 1, 8))
    assert times(late, 3) == ["2027-01-02T04:00", "2027-01-09T04:00", None]


def test_time_zones_are_those_of_the_list() -> None:
    assert {"UTC", "Europe/Berlin", "Asia/Shanghai"} <= time_zones()
    assert not {"", "localtime", "../../etc/passwd", "posixrules"} & time_zones()
