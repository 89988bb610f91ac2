"""What a stranger can cause as often as he likes fills no log."""

from structlog.testing import capture_logs

from gateway.seldom import EVERY, Seldom


def test_each_kind_is_logged_once_a_minute_and_then_says_how_many_there_were() -> None:
    now = 0.0
    seldom = Seldom(lambda: now)
    with capture_logs() as lines:
        for second in range(130):
            now = float(second)
            seldom.warn(f"shard 1: {second} unproven blocks refused")
            seldom.warn(f"shard 1 height {second}: a second certified chain")
    for kind in ("unproven", "certified chain"):
        found = [(line["event"], line.get("left_out")) for line in lines if kind in line["event"]]
        assert [left_out for _, left_out in found] == [None, EVERY - 1, EVERY - 1]


def test_a_thousand_kinds_are_as_bounded_as_one() -> None:
    now = 0.0
    seldom = Seldom(lambda: now)
    with capture_logs() as lines:
        for number in range(1000):
            seldom.warn(f"epoch announcement refused: {'x' * number}")
        assert len(lines) == 100
        now = EVERY
        seldom.warn("something else")
    assert [line["event"] for line in lines[100:]] == ["something else"]
