"""The bench's arithmetic and table."""

from collections import Counter

from scripts.benchmark.client import batches
from scripts.benchmark.load import Sample, percentile
from scripts.benchmark.measure import Usage
from scripts.benchmark.report import figures, table


def results(cross: int = 0) -> dict[str, object]:
    load = Sample(10.0, 900, 100, cross, [0.1] * 10, [0.3] * 10, Counter())
    trickle = Sample(1.0, 4, 0, 2, [0.02, 0.02], [0.06, 0.06], Counter())
    before, after = Usage(1.0, 0.0, 0), Usage(1.0 + 0.4, 4_000_000.0, 100 << 20)
    costs = {"check": 50e-6, "delay": 0.001, "write": 0.001, "transaction_bytes": 200.0}
    return figures(load, trickle, before, after, committees=2, committee_size=4, **costs)


def test_cost_is_per_transaction_and_replica_that_keeps_one_of_its_shards() -> None:
    intra, crossing = results(), results(cross=1_000)
    assert (intra["tps"], intra["cpu_per_transaction_us"], intra["R1"]) == (90.0, 100.0, 2.0)
    assert (crossing["cpu_per_transaction_us"], crossing["R1"]) == (50.0, 1.0)
    assert intra["R4"] == 1 + 4_000_000 / (1_000 * 4) / 200


def test_latency_is_compared_with_the_network_and_the_disk() -> None:
    assert results()["R3"] == 4.0
    assert results()["R3_cross_over_intra"] == 3.0


def test_the_table_shows_dead_members_only_when_there_were_some() -> None:
    plain = results()
    assert "R5" not in table(plain)
    assert "0.8   throughput with 1 dead" in table(plain | {"R5": 0.8, "dead": 1})


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([], 0.5) is None


def test_batches_stay_below_the_brokers_limit() -> None:
    encoded = [bytes(1_000)] * 200
    made = list(batches(encoded))
    assert [one for batch in made for one in batch] == encoded
    assert max(sum(map(len, batch)) for batch in made) <= 64 << 10
