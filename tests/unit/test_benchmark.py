"""The bench's arithmetic and table."""

from collections import Counter

import pytest

from scripts.benchmark.checks import Cost, cost_of
from scripts.benchmark.client import batches
from scripts.benchmark.load import Sample, percentile
from scripts.benchmark.measure import Usage
from scripts.benchmark.report import Costs, engine_figures, table


def results(cross: int = 0, check: float = 50e-6) -> dict[str, object]:
    load = Sample(10.0, 900, 100, cross, [0.1] * 10, [0.3] * 10, Counter())
    trickle = Sample(1.0, 4, 0, 2, [0.02, 0.02], [0.06, 0.06], Counter())
    before, after = Usage(1.0, 0.0, ()), Usage(1.0 + 0.4, 4_000_000.0, (100 << 20, 80 << 20))
    costs = Costs(before, after, Cost(check, check * 0.9, check * 1.2), Cost(30e-6, 29e-6, 31e-6), 200.0)
    return engine_figures(load, trickle, costs, committees=2, committee_size=4)


def test_cost_is_per_transaction_and_replica_that_keeps_one_of_its_shards() -> None:
    intra, crossing = results(), results(cross=1_000)
    assert (intra["tps"], intra["cpu_per_transaction_us"], intra["R1"]) == (90.0, 100.0, 2.0)
    assert (crossing["cpu_per_transaction_us"], crossing["R1"]) == (50.0, 1.0)
    assert intra["R4"] == 1 + 4_000_000 / (1_000 * 4) / 200


def test_the_unit_is_the_check_timed_during_the_load() -> None:
    assert results()["check_us"] == {
        "loaded": {"median": 50.0, "p10": 45.0, "p90": 60.0},
        "idle": {"median": 30.0, "p10": 29.0, "p90": 31.0},
    }
    assert results(check=100e-6)["R1"] == 1.0
    assert "50.0 us under full load (45.0 to 60.0), 30.0 us idle" in table(results())


def test_a_check_costs_the_median_of_all_bursts() -> None:
    assert cost_of([float(n) for n in reversed(range(11))]) == Cost(5.0, 1.0, 9.0)
    assert cost_of([7.0]) == Cost(7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no signature check"):
        cost_of([])


def test_memory_is_that_of_a_node() -> None:
    assert results()["memory_mb"] == {"mean": 90.0, "largest": 100.0}


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
