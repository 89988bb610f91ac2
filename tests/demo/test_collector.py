"""The collector: what it believes, what it counts, and that nothing anybody sends can break or swell it."""

import re
from typing import Any

import pytest
from msgspec import structs

from demo.api import WEB
from demo.chain import LATEST_BLOCKS
from demo.collector import COLUMNS, FEED_LINES, FEED_RATE, HISTORY, Collector
from demo.sources import DOWN_AFTER, FORGET_AFTER, MAX_SOURCES
from node.protocol.block import Outcome, PeerTotal
from node.protocol.chain import Chain
from node.protocol.channel import Decision
from node.protocol.codec import encode
from node.protocol.genesis import Phase
from node.protocol.reports import Latency, Left, Report, numbers
from tests.chains import TIME, Network, Shard
from tests.demo.messages import block, gateway, node, notable, usd
from tests.figures import COORDINATOR, GATEWAY, NODE
from tests.unit.replicas import forge_bundle


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.fixture
def collector(network: Network) -> Collector:
    """Connected for a while, in epoch 1."""
    collector = Collector(network.genesis, "http://127.0.0.1:8080", TIME - 60_000)
    collector.connection(True, TIME - 60_000)
    collector.announcement(encode(network.announcement()), TIME)
    return collector


def source(collector: Collector, name: str) -> dict[str, Any]:
    return next(s for s in collector.update(TIME)["sources"] if s["name"] == name)


def row(collector: Collector, *columns: str) -> list[float | None]:
    """Of the newest row of history."""
    newest = dict(zip(COLUMNS, collector.update(TIME)["row"], strict=True))
    return [newest[column] for column in columns]


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
    for name, after, transfers, cross in (("a", 0, 5, None), ("b", 0, 5, None), ("b", 1_000, 8, slow)):
        collector.report(gateway(name, TIME + after, transfers=transfers, intra=cross or fast, cross=cross), TIME + after)
    collector.tick(TIME + 1_000)
    assert collector.update(TIME)["activity"]["transfers"] == [13, 3.0]
    assert row(collector, "transfers", "p50", "p99", "cross_p50", "cross_p99") == [3.0, 90.0, 200.0, 90.0, 100.0]


def test_what_nobody_measured_is_a_gap(collector: Collector) -> None:
    collector.report(gateway("gateway", TIME, intra=None, cross=None), TIME)
    collector.report(node("node-1", TIME, latency_us=None), TIME)
    collector.tick(TIME)
    assert row(collector, "p50", "p99", "cross_p50", "cross_p99", "finalization") == [None] * 5
    collector.report(node("node-2", TIME, latency_us=20_000), TIME)
    collector.report(node("node-3", TIME, latency_us=25_000), TIME)
    collector.tick(TIME)
    assert row(collector, "finalization") == [22.5]


def test_a_node_without_a_seat_is_listed(collector: Collector) -> None:
    collector.report(node("spare", TIME, replica=None, phase=Phase.REGISTRATION), TIME)
    shown = source(collector, "spare")
    assert (shown["phase"], shown["peers"]) == ("registration", 7)
    assert "height" not in shown


def test_whatever_is_sent_is_drawn_and_whatever_is_drawn_is_there() -> None:
    page = "".join(path.read_text() for path in WEB.glob("*.js"))
    sent = {*numbers(NODE), *numbers(COORDINATOR), *numbers(GATEWAY), "phase", "state_root", "doing"}
    sent.remove("shard")  # for the terminal's status line
    drawn_as = {"cpu_ms": "cpu", "p50_us": "p50", "p99_us": "p99"}
    drawn_as |= {name: f"{name}_rate" for name in ("bytes_in", "bytes_out", "hashes")}
    assert {name for name in sent if not re.search(rf"\b{drawn_as.get(name, name)}\b", page)} == set()
    assert set(re.findall(r'column: "(\w+)"', page)) <= set(COLUMNS)


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
    collector.tick(TIME + FORGET_AFTER)
    assert source(collector, "old")["state"] == "down"
    collector.tick(TIME + FORGET_AFTER + 1)
    assert collector.update(TIME)["sources"] == []


def test_a_node_that_has_left_is_gone_at_once_and_one_with_a_seat_cannot_have(collector: Collector, network: Network) -> None:
    seated = network.document.committees[0].members[0].name
    for name in ("spare", seated):
        collector.report(node(name, TIME), TIME)
        collector.report(encode(Report(name, TIME, Left())), TIME)
    assert [one["name"] for one in collector.update(TIME)["sources"]] == [seated]
    collector.report(encode(Report("nobody", TIME, Left())), TIME)
    assert collector.ignored == 0


def test_without_the_broker_nobody_is_called_down(collector: Collector) -> None:
    collector.report(node("node-1", TIME), TIME)
    collector.connection(False, TIME + 1_000)
    states = []
    for after in (60_000, 62_000, 61_000 + DOWN_AFTER + 1):
        collector.tick(TIME + after)
        states.append((collector.connected, source(collector, "node-1")["state"]))
        collector.connection(True, TIME + 61_000)
    assert states == [(False, "unknown"), (True, "unknown"), (True, "down")]


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


def test_the_feed_the_history_and_the_list_of_blocks_are_bounded(network: Network, collector: Collector) -> None:
    for second in range(HISTORY + 20):
        for i in range(FEED_LINES):
            collector.report(notable("node-1", TIME, f"{second} {i}"), TIME)
        collector.tick(TIME + 1_000 * second)
    for height in range(1, LATEST_BLOCKS + 5):
        collector.block(0, block(network, 0, height))
    snapshot = collector.snapshot(TIME)
    assert len(snapshot["feed"]) == FEED_LINES
    assert sum(line["text"].startswith(f"{HISTORY + 18} ") for line in snapshot["feed"]) == FEED_RATE
    assert {len(rows) for rows in (snapshot["history"], *snapshot["load_history"].values())} == {HISTORY}
    assert len(snapshot["blocks"]) == LATEST_BLOCKS


# -- the epoch ------------------------------------------------------------------------------------------------------------


def test_committees_come_from_the_signed_document_and_lies_and_old_news_change_nothing(
    network: Network, collector: Collector
) -> None:
    for body in (b"junk", encode(Network("other").announcement())):
        collector.announcement(body, TIME)
    collector.announcement(encode(network.announcement(Phase.REGISTRATION, TIME - 5_000)), TIME)
    assert collector.ignored == 2
    update = collector.update(TIME)
    assert (update["epoch"], update["phase"]) == (1, "mining")
    assert [(len(c["members"]), c["faults_tolerated"]) for c in update["committees"]] == [(4, 1), (4, 1)]


def test_the_leader_is_the_word_of_the_member_furthest_ahead(network: Network, collector: Collector) -> None:
    members = network.document.committees[0].members
    collector.report(node(members[0].name, TIME, view=8, leader=0), TIME)
    collector.report(node(members[1].name, TIME, view=9, leader=1), TIME)
    collector.report(node(members[2].name, TIME, replica=None), TIME)
    committee = collector.update(TIME)["committees"][0]
    assert (committee["leader"], committee["up"]) == (1, 3)


# -- blocks ---------------------------------------------------------------------------------------------------------------


def test_certified_blocks_give_height_and_throughput(network: Network, collector: Collector) -> None:
    collector.tick(TIME)
    collector.block(0, block(network, 0, 5, dict.fromkeys(range(30), Outcome.COMMITTED)))
    collector.tick(TIME + 2_000)
    assert row(collector, "intra") == [15.0]
    update = collector.update(TIME)
    assert (update["committees"][0]["height"], update["committees"][0]["rate"]) == (5, 15.0)
    shown = update["blocks"][-1]
    assert (shown["transactions"], shown["committed"]) == (30, 30)
    assert shown["proposer"] == network.document.committees[0].members[1].name


def test_a_cross_shard_transaction_counts_once_when_its_home_decides(network: Network, collector: Collector) -> None:
    collector.block(0, block(network, 0, 1, {1: Outcome.PREPARED, 2: Outcome.PREPARED}))
    assert collector.update(TIME)["finalized"] == {"intra": 0, "cross": 0, "refused": 0}
    collector.block(0, block(network, 0, 2, {1: Outcome.COMMITTED, 2: Outcome.EXPIRED}))
    collector.block(1, block(network, 1, 1, {1: Outcome.COMMITTED, 2: Outcome.EXPIRED}))
    assert collector.update(TIME)["finalized"] == {"intra": 0, "cross": 1, "refused": 1}


def test_a_repeated_block_counts_once_and_a_lost_one_is_noticed(network: Network, collector: Collector) -> None:
    blocks = {height: block(network, 0, height, {height: Outcome.COMMITTED}) for height in (1, 3, 4)}
    for height in (1, 1, 4, 4, 3):
        collector.block(0, blocks[height])
    update = collector.update(TIME)
    assert update["finalized"]["intra"] == 3
    assert (update["committees"][0]["height"], update["committees"][0]["missed"]) == (4, 1)
    assert collector.ignored == 0


def test_a_block_no_quorum_signed_is_ignored(network: Network, collector: Collector) -> None:
    good = network.shards[0].forge()
    richer = structs.replace(good, effects=structs.replace(good.effects, totals=usd(1, 1)))
    for shard, lie in ((0, richer), (1, good), (0, Network("other").shards[0].forge())):
        collector.block(shard, encode(lie))
    collector.block(0, b"junk")
    assert collector.ignored == 4
    assert collector.update(TIME)["blocks"] == []


# -- money ----------------------------------------------------------------------------------------------------------------


def test_supply_is_summed_over_the_shards_with_what_is_held_and_in_flight() -> None:
    network = Network()
    home, other = network.shards
    payer, payee = network.person(0), network.person(1)
    collector = Collector(network.genesis, "", TIME)
    collector.announcement(encode(network.announcement()), TIME)

    def seen(*shards: Shard) -> tuple[str, ...]:
        for shard in shards:
            for certified in shard.chain:
                collector.block(shard.number, encode(certified))
        return tuple(collector.update(TIME)["supply"][0].values())

    network.fund(payer, 1_000)
    assert seen(home)[1] == "unknown"  # the other shard was not heard yet
    assert seen(other) == ("USD", "yes", "10.00", "0.00", "10.00", "0.00")
    home.add(network.pay(payer, payee, 300))
    assert seen(home, other) == ("USD", "yes", "7.00", "3.00", "10.00", "0.00")
    network.exchange()
    assert seen(home) == ("USD", "yes", "7.00", "0.00", "10.00", "3.00")
    assert seen(other) == ("USD", "yes", "10.00", "0.00", "10.00", "0.00")
    assert collector.ignored == 0


def test_money_seen_to_arrive_before_it_leaves_is_doubted_then_denied(network: Network, collector: Collector) -> None:
    collector.block(1, block(network, 1, 1, totals=usd(250, 0, [PeerTotal(0, 0, 250)])))
    seen = []
    for height in (1, 2, 30):
        collector.block(0, block(network, 0, height, totals=usd(1_000, 1_000)))
        seen.append(collector.update(TIME)["supply"][0]["conserved"])
    collector.block(0, block(network, 0, 31, totals=usd(750, 1_000, [PeerTotal(1, 250, 0)])))
    assert [*seen, collector.update(TIME)["supply"][0]["conserved"]] == ["unknown", "unknown", "no", "yes"]


def test_a_shard_whose_totals_do_not_add_up_is_denied_at_once(network: Network, collector: Collector) -> None:
    collector.block(0, block(network, 0, 1, totals=usd(1_001, 1_000)))
    assert collector.update(TIME)["supply"][0]["conserved"] == "no"


def test_a_home_shard_that_decides_a_transaction_both_ways_is_named(network: Network, collector: Collector) -> None:
    """In the feed, and counted for good. Here it tells the other shard commit, and keeps the money itself."""
    lied = (7).to_bytes(32, "big")
    commit = forge_bundle(network.shards[0], 1, 1, (Decision(lied, True),))
    collector.block(0, block(network, 0, 1, {7: Outcome.PREPARED}))
    collector.block(0, block(network, 0, 2, {7: Outcome.REJECTED}))
    collector.block(1, encode(network.shards[1].forge(bundles=[encode(commit)])))
    update = collector.update(TIME)
    assert update["contradictions"] == 1
    line = update["feed"][-1]
    assert line["source"] == "shard 0"
    assert all(part in line["text"] for part in (lied.hex(), "commit in block 1 of shard 1", "abort in block 2 of shard 0"))


# -- epochs ---------------------------------------------------------------------------------------------------------------


def test_the_next_epochs_ranges_and_movers_are_shown_and_then_the_epoch_begins() -> None:
    network = Network(standby=4, epoch_pause=100, reveal_time=1000)
    payer = network.person(0)
    network.fund(payer, 1_000)
    collector = Collector(network.genesis, "", TIME)
    collector.announcement(encode(network.announcement()), TIME)
    listened = list[int]()
    collector.on_document = lambda document: listened.append(document.number)
    for shard in network.shards:
        collector.block(shard.number, encode(shard.chain[-1]))
    before = collector.update(TIME)
    assert (before["clock"]["number"], before["clock"]["phase"], before["clock"]["began"]) == (1, "registration", TIME)
    assert [(one["shard"], one["from"], one["to"]) for one in before["ranges"]] == [(0, 0, 0.5), (1, 0.5, 1)]
    assert (before["next_ranges"], before["moves"]) == ([], [])
    succession = network.change()
    register, other = succession.closings
    collector.bulletin(encode(register), TIME)
    update = collector.update(TIME)
    assert (update["epoch"], update["clock"]["phase"], update["clock"]["attempt"]) == (1, "closed", 1)
    assert [(one["shard"], one["from"], one["to"]) for one in update["next_ranges"]] == [
        (0, 0, 0.25),
        (2, 0.25, 0.5),
        (1, 0.5, 1),
    ]
    entering = {move["name"] for move in update["moves"] if move["from"] is None}
    assert entering == {f"node-{n}" for n in range(12) if network.documents[0].seat_of(list(network.nodes)[n]) is None}
    assert all(move["from"] != move["to"] for move in update["moves"])
    collector.bulletin(encode(other), TIME)
    update = collector.update(TIME)
    assert (update["epoch"], listened, update["clock"]["began"]) == (2, [2], network.shards[0].genesis.time)
    assert (update["next_ranges"], len(update["committees"])) == ([], 3)
    assert update["supply"] == [{**row, "conserved": "unknown"} for row in before["supply"]], "no block of the epoch is here yet"
    for shard in network.shards:
        collector.block(shard.number, encode(shard.add()), epoch=2)
    collector.block(0, encode(network.chains[Chain(1, 0)].chain[-1]), epoch=1)
    assert collector.update(TIME)["supply"] == before["supply"]
    assert collector.ignored == 0
    assert [line["text"] for line in collector.update(TIME)["feed"]][-2:] == [
        "change to epoch 2, attempt 1: closed",
        "epoch 2: 12 nodes form 3 committees",
    ]
