"""What answering clients costs a node is bounded, for all together and for each."""

from node.allowance import MAX_CLIENTS, Allowance
from node.network.pacing import Bucket

RATE = 1000.0


def admitted(allowance: Allowance, clients: list[str], size: int, now: float) -> int:
    return sum(allowance.admit(client, size, now) for client in clients)


def test_one_client_gets_half_of_what_all_get_and_no_more_whatever_it_asks() -> None:
    allowance = Allowance(RATE)
    assert admitted(allowance, ["greedy"] * 1000, 100, now=1) == 20  # two seconds' worth were there
    assert admitted(allowance, ["greedy"] * 1000, 100, now=11) == 20
    assert sum(admitted(allowance, ["greedy"] * 10, 100, now=11 + i / 10) for i in range(1, 101)) == 50  # half of 10 s
    assert allowance.admit("modest", 100, now=21)


def test_many_names_get_no_more_than_all() -> None:
    allowance = Allowance(RATE)
    names = [str(number) for number in range(10 * MAX_CLIENTS)]
    assert admitted(allowance, names, 100, now=1) == 40
    assert admitted(allowance, names, 100, now=2) == 10


def test_an_answer_larger_than_expected_is_paid_off_and_what_was_not_used_is_given_back() -> None:
    allowance = Allowance(RATE)
    assert allowance.admit("client", 500, now=1)
    allowance.correct("client", 9500, now=1)
    assert not allowance.admit("client", 1, now=2)
    assert not allowance.admit("client", 1, now=16.9)
    assert allowance.admit("client", 1, now=17.1)
    assert allowance.admit("other", 2000, now=30)
    allowance.correct("other", -2000, now=30)
    assert admitted(allowance, ["other"] * 30, 100, now=30) == 20


def test_a_bucket_says_how_long_its_debt_lasts_and_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(rate=10, burst=5)
    bucket.take(25, now=100)
    assert bucket.wait(now=100) == 2
    assert bucket.wait(now=101.5) == 0.5
    assert not bucket.has_any(now=102)
    assert bucket.has_any(now=102.1)
    bucket.take(5, now=1000)
    assert not bucket.has_any(now=1000)
