"""The collector: what it believes, what it counts, and that nothing anybody sends can break or swell it."""

import msgspec
import pytest

from demo.chain import LATEST_BLOCKS
from demo.collector import FEED_LINES, FEED_RATE, HISTORY, Collector
from demo.sources import DOWN_AFTER, FORGET_AFTER, MAX_SOURCES
from node.protocol.block import AssetTotal, Outcome, PeerTotal, Totals
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import encode
from node.protocol.genesis import Phase
from node.protocol.reports import Latency
from tests.demo.synthetic import TIME, Network, gateway, node, notable, totals


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.fixture
def collector(network: Network) -> Collector:
    """Connected for a while, in epoch 1."""
    collector = Collector(network.genesis, "http://127.0.0.1:8080", TIME - 60_000)
    collector.connection(True, TIME - 60_000)
    collector.announcement(network.announcement(), TIME)
    return collector


def source(collector: Collector, name: str, now: int = TIME) -> dict:  # type: ignore[type-arg]
    return next(s for s in collector.update(now)["sources"] if s["name"] == name)


def row(collector: Collector) -> dict[str, float | None]:
    update = collector.update(TIME)
    return dict(zip(update["columns"], update["row"], strict=True))


def id_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


# -- processes ------------------------------------------------------------------------------------------------------------


def test_cpu_percent_is_the_growth_of_cpu_time_over_the_senders_clock(collector: Collector) -> None:
    collector.report(node("node-1", TIME, cpu_ms=10_000), TIME)
    collector.report(node("node-1", TIME + 2_000, cpu_ms=10_500), TIME + 5_000)
    assert source(collector, "node-1")["cpu"] == 25.0


def test_counts_go_on_when_a_gateway_restarts_from_zero_and_no_rate_goes_wild(collector: Collector) -> None:
    told = ((0, 1, 1_000), (1_000, 1, 1_010), (3_000, 2, 3), (4_000, 2, 7))
    seen = []
    for after, pid, logins in told:
        collector.report(gateway("gateway", TIME + after, pid=pid, cpu_ms=after // pid, logins=logins), TIME + after)
        seen.append(collector.update(TIME)["activity"]["logins"])
    assert seen == [[1_000, 0.0], [1_010, 10.0], [1_013, 0.0], [1_017, 4.0]]
    assert source(collector, "gateway")["restarts"] == 1


def test_a_report_the_broker_repeats_is_not_counted_twice(collector: Collector) -> None:
    first = gateway("gateway", TIME, logins=5)
    for body in (first, gateway("gateway", TIME + 1_000, logins=9), first):
        collector.report(body, TIME + 1_000)
    assert collector.update(TIME)["activity"]["logins"] == [9, 4.0]


def test_gateways_count_together_and_the_slowest_gives_the_latency(collector: Collector) -> None:
    slow, fast = Latency(p50_us=90_000, p99_us=100_000), Latency(p50_us=70_500, p99_us=200_000)
    collector.report(gateway("gateway-a", TIME, transfers=5, intra=fast, cross=None), TIME)
    collector.report(gateway("gateway-b", TIME, transfers=5, intra=fast, cross=None), TIME)
    collector.report(gateway("gateway-b", TIME + 1_000, transfers=8, intra=slow, cross=slow), TIME + 1_000)
    collector.tick(TIME + 1_000)
    assert collector.update(TIME)["activity"]["transfers"][0] == 13
    assert row(collector)["transfers"] == 3.0
    assert [row(collector)[name] for name in ("p50", "p99", "cross_p50", "cross_p99")] == [90.0, 200.0, 90.0, 100.0]


def test_what_nobody_measured_is_a_gap(collector: Collector) -> None:
    collector.report(gateway("gateway", TIME, intra=None, cross=None), TIME)
    collector.report(node("node-1", TIME, latency_us=None), TIME)
    collector.tick(TIME)
    assert {row(collector)[name] for name in ("p50", "p99", "cross_p50", "cross_p99", "finalization")} == {None}
    collector.report(node("node-2", TIME, latency_us=20_000), TIME)
    collector.report(node("node-3", TIME, latency_us=25_000), TIME)
    collector.tick(TIME)
    assert row(collector)["finalization"] == 22.5


def test_a_node_without_a_seat_is_listed(collector: Collector) -> None:
    collector.report(node("spare", TIME, replica=None, phase=Phase.REGISTRATION), TIME)
    shown = source(collector, "spare")
    assert (shown["phase"], shown["peers"]) == ("registration", 7)
    assert "height" not in shown


def test_a_silent_node_is_down_but_stays_listed_and_comes_back(collector: Collector) -> None:
    collector.report(node("node-1", TIME, height=7), TIME)
    states = []
    for after in (DOWN_AFTER, DOWN_AFTER + 1, 11 * 60_000, 2 * FORGET_AFTER):  # it holds a seat: never forgotten
        collector.tick(TIME + after)
        states.append((source(collector, "node-1")["state"], source(collector, "node-1")["height"]))
    assert states == [("up", 7), ("down", 7), ("down", 7), ("down", 7)]
    later = TIME + 2 * FORGET_AFTER
    collector.report(node("node-1", later, height=9), later)
    collector.tick(later + 1)
    assert source(collector, "node-1")["state"] == "up"
    assert [line["text"] for line in collector.update(later)["feed"][-2:]] == ["node is down", "node is up"]


def test_a_process_without_a_seat_is_forgotten_in_the_end(collector: Collector) -> None:
    collector.report(gateway("old", TIME), TIME)
    collector.tick(TIME + 10 * 60_000)
    assert source(collector, "old")["state"] == "down"
    collector.tick(TIME + FORGET_AFTER + 1)
    assert collector.update(TIME)["sources"] == []


def test_without_the_broker_nobody_is_called_down(collector: Collector) -> None:
    collector.report(node("node-1", TIME), TIME)
    collector.connection(False, TIME + 1_000)
    collector.tick(TIME + 60_000)
    assert source(collector, "node-1")["state"] == "unknown"
    assert collector.update(TIME)["broker"]["connected"] is False
    collector.connection(True, TIME + 61_000)
    collector.tick(TIME + 62_000)
    assert source(collector, "node-1")["state"] == "unknown"
    collector.tick(TIME + 61_000 + DOWN_AFTER + 1)
    assert source(collector, "node-1")["state"] == "down"


# -- what anybody may send ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"junk", bytes(1 << 20), node("node-1", TIME, height=-1), notable("a", TIME, "\u202e\x00 ")])
def test_a_malformed_report_is_ignored_and_counted(collector: Collector, body: bytes) -> None:
    before = collector.update(TIME)
    collector.report(body, TIME)
    after = collector.update(TIME)
    assert after["broker"].pop("ignored") == before["broker"].pop("ignored") + 1
    assert after == before


def test_a_flood_of_names_is_bounded_and_members_still_find_room(collector: Collector) -> None:
    for i in range(MAX_SOURCES + 50):
        collector.report(node(f"junk-{i}", TIME), TIME + i)
    assert (len(collector.sources), collector.ignored) == (MAX_SOURCES, 50)
    collector.report(node("node-1", TIME), TIME + 9_000)
    assert source(collector, "node-1")["state"] == "up"
    assert len(collector.sources) == MAX_SOURCES


def test_a_flood_of_notable_lines_is_bounded(collector: Collector) -> None:
    for second in range(10):
        for i in range(100):
            collector.report(notable("node-1", TIME, f"{second} {i}"), TIME)
        collector.tick(TIME + second)
    feed = collector.update(TIME)["feed"]
    assert len(feed) == FEED_LINES
    assert sum(line["text"].startswith("8 ") for line in feed) == FEED_RATE


def test_history_is_bounded(collector: Collector) -> None:
    for second in range(HISTORY + 20):
        collector.tick(TIME + 1_000 * second)
    snapshot = collector.snapshot(TIME)
    assert len(snapshot["history"]) == HISTORY
    assert {len(rows) for rows in snapshot["load_history"].values()} == {HISTORY}


# -- the epoch ------------------------------------------------------------------------------------------------------------


def test_committees_come_from_the_signed_document(network: Network, collector: Collector) -> None:
    update = collector.update(TIME)
    assert (update["epoch"], update["phase"]) == (1, "mining")
    assert [len(c["members"]) for c in update["committees"]] == [4, 4]
    assert [c["faults_tolerated"] for c in update["committees"]] == [1, 1]


def test_an_announcement_of_another_coordinator_is_ignored(network: Network, collector: Collector) -> None:
    collector.announcement(Network().announcement(), TIME)
    collector.announcement(b"junk", TIME)
    assert collector.ignored == 2
    assert collector.epochs.document == network.document


def test_an_old_phase_told_again_changes_nothing(network: Network, collector: Collector) -> None:
    collector.announcement(network.announcement(Phase.REGISTRATION, TIME - 5_000), TIME)
    assert collector.update(TIME)["phase"] == "mining"


def test_the_leader_is_the_word_of_the_member_furthest_ahead(network: Network, collector: Collector) -> None:
    members = network.document.committees[0].members
    collector.report(node(members[0].name, TIME, view=8, leader=0), TIME)
    collector.report(node(members[1].name, TIME, view=9, leader=1), TIME)
    committee = collector.update(TIME)["committees"][0]
    assert (committee["leader"], committee["up"]) == (1, 2)


# -- blocks ---------------------------------------------------------------------------------------------------------------


def test_certified_blocks_give_height_and_throughput(network: Network, collector: Collector) -> None:
    collector.tick(TIME)
    block = network.block(0, 5, [(id_of(i), Outcome.COMMITTED) for i in range(30)], payload=[b"x"] * 30)
    collector.block(0, encode(block))
    collector.tick(TIME + 2_000)
    assert row(collector)["intra"] == 15.0
    update = collector.update(TIME)
    assert (update["committees"][0]["height"], update["committees"][0]["rate"]) == (5, 15.0)
    shown = update["blocks"][-1]
    assert (shown["transactions"], shown["hash"]) == (30, block.block.header.hash.hex()[:16])
    assert shown["proposer"] == network.document.committees[0].members[block.block.header.proposer].name


def test_a_cross_shard_transaction_counts_once_when_its_home_commits(network: Network, collector: Collector) -> None:
    collector.block(0, encode(network.block(0, 1, [(id_of(1), Outcome.PREPARED), (id_of(2), Outcome.PREPARED)])))
    assert collector.update(TIME)["finalized"] == {"intra": 0, "cross": 0, "refused": 0}
    collector.block(0, encode(network.block(0, 2, [(id_of(1), Outcome.COMMITTED), (id_of(2), Outcome.EXPIRED)])))
    collector.block(1, encode(network.block(1, 1, [(id_of(1), Outcome.COMMITTED), (id_of(2), Outcome.EXPIRED)])))
    assert collector.update(TIME)["finalized"] == {"intra": 0, "cross": 1, "refused": 1}


def test_a_repeated_block_counts_once_and_a_lost_one_is_noticed(network: Network, collector: Collector) -> None:
    blocks = {h: encode(network.block(0, h, [(id_of(h), Outcome.COMMITTED)])) for h in (1, 2, 3, 4)}
    for height in (1, 1, 4, 4, 3):
        collector.block(0, blocks[height])
    update = collector.update(TIME)
    assert update["finalized"]["intra"] == 3
    assert (update["committees"][0]["height"], update["committees"][0]["missed"]) == (4, 1)
    assert collector.ignored == 0


def test_a_block_no_quorum_signed_is_ignored(network: Network, collector: Collector) -> None:
    good = network.block(0, 1, [(id_of(1), Outcome.COMMITTED)])
    forged_effects = msgspec.structs.replace(good.effects, totals=totals(1, 1))
    forged = CertifiedBlock(good.block, good.finality, forged_effects)
    collector.block(0, encode(forged))
    collector.block(1, encode(good))  # another shard's channel
    collector.block(0, encode(Network().block(0, 1)))  # another network's committee
    collector.block(0, b"junk")
    assert collector.ignored == 4
    assert collector.update(TIME)["blocks"] == []


def test_the_list_of_blocks_is_bounded(network: Network, collector: Collector) -> None:
    for height in range(1, LATEST_BLOCKS + 5):
        collector.block(0, encode(network.block(0, height)))
    assert len(collector.update(TIME)["blocks"]) == LATEST_BLOCKS


# -- money ----------------------------------------------------------------------------------------------------------------


def usd(collector: Collector) -> dict[str, str]:
    return dict(collector.update(TIME)["supply"][0])


def test_supply_is_summed_over_the_shards_with_what_is_in_flight(network: Network, collector: Collector) -> None:
    assert usd(collector)["conserved"] == "unknown"
    collector.block(0, encode(network.block(0, 1, totals=totals(600, 1_000, [PeerTotal(1, 300, 0)], held=100))))
    assert usd(collector)["conserved"] == "unknown"  # shard 1 was not heard yet
    collector.block(1, encode(network.block(1, 1, totals=totals(250, 0, [PeerTotal(0, 0, 250)]))))
    assert usd(collector) == {
        "asset": "USD",
        "conserved": "yes",
        "available": "8.50",
        "held": "1.00",
        "in_flight": "0.50",
        "minted": "10.00",
        "burned": "0.00",
    }


def test_money_seen_to_arrive_before_it_leaves_is_doubted_then_denied(network: Network, collector: Collector) -> None:
    collector.block(0, encode(network.block(0, 1, totals=totals(1_000, 1_000))))
    collector.block(1, encode(network.block(1, 1, totals=totals(250, 0, [PeerTotal(0, 0, 250)]))))
    assert usd(collector)["conserved"] == "unknown"
    collector.block(0, encode(network.block(0, 2, totals=totals(1_000, 1_000))))
    assert usd(collector)["conserved"] == "unknown"
    collector.block(0, encode(network.block(0, 30, totals=totals(1_000, 1_000))))
    assert usd(collector)["conserved"] == "no"
    collector.block(0, encode(network.block(0, 31, totals=totals(750, 1_000, [PeerTotal(1, 250, 0)]))))
    assert usd(collector)["conserved"] == "yes"


def test_a_shard_whose_totals_do_not_add_up_is_denied_at_once(network: Network, collector: Collector) -> None:
    wrong = Totals((AssetTotal("USD", 1_001, 0, 1_000, 0, ()),), 0)
    collector.block(0, encode(network.block(0, 1, totals=wrong)))
    assert usd(collector)["conserved"] == "no"
