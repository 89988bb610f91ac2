"""What a stranger can learn from outside of who has an account: nothing. ``python -m tests.stranger`` tries longer."""

from pathlib import Path

from tests import stranger
from tests.gateway.world import World


def test_a_stranger_learns_nothing(tmp_path: Path) -> None:
    found = stranger.attempts(tmp_path, 5, until_throttled=False)
    assert [one for one in found if one.learned] == [], "\n".join(stranger.told(found))
    assert len(found) >= 18


def test_a_difference_in_answers_or_times_is_noticed() -> None:
    assert abs(stranger.rank_test([1.0, 3.0, 5.0, 7.0] * 3, [2.0, 4.0, 6.0, 8.0] * 3)) < stranger.FAR
    quick, slow = [float(number) for number in range(12)], [float(number) for number in range(11, 23)]
    assert stranger.rank_test(quick, slow) < -stranger.FAR < stranger.FAR < stranger.rank_test(slow, quick)


def test_metrics_are_told_to_nobody_outside(world: World) -> None:
    http = world.gateway.http
    assert http.get("/metrics").status_code == 200
    for header in ("X-Forwarded-For", "Forwarded"):
        assert http.get("/metrics", headers={header: "127.0.0.1"}).status_code == 404
